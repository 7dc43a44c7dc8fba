/** Requests as the kernel sends them (protocol.ts). */
export interface Asked {
  readonly code: number
  readonly ino: number
  readonly body?: Buffer
  readonly uid?: number
  readonly gid?: number
  readonly pid?: number
}

/** The number of no process: who is nobody is told the same, however often. */
const nobody = 2 ** 31 - 1

export function request({ code, ino, body = Buffer.alloc(0), uid = 0, gid = 0, pid = nobody }: Asked): Buffer {
  const header = Buffer.alloc(40)
  header.writeUInt32LE(40 + body.length, 0)
  header.writeUInt32LE(code, 4)
  header.writeBigUInt64LE(0x123456789an, 8)
  header.writeBigUInt64LE(BigInt(ino), 16)
  for (const [index, id] of [uid, gid, pid].entries()) header.writeUInt32LE(id, 24 + 4 * index)
  return Buffer.concat([header, body])
}

/** A name in a body. */
export function named(name: string): Buffer {
  return Buffer.from(`${name}\0`, 'latin1')
}
