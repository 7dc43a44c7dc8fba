/**
 * Headers of GNU tar's format, byte for byte as Borg's export-tar writes them. Names are bytes, which is why no library makes them: those take texts.
 * (https://www.gnu.org/software/tar/manual/html_node/Standard.html)
 */

export const blockBytes = 512
/** A tar's length is a multiple of it. */
export const recordBytes = 20 * blockBytes

/** Type flags. */
export type TarType = '0' | '1' | '2' | '3' | '4' | '5' | '6'
export const tarType = { file: '0', hardLink: '1', symlink: '2', characterDevice: '3', blockDevice: '4', directory: '5', fifo: '6' } as const satisfies Record<string, TarType>

/** What a tar says of a file, whichever way it goes. */
export interface TarFacts {
  /** Without a directory's slash. */
  readonly name: Buffer
  /** Of links, else empty. */
  readonly linkName: Buffer
  /** Permissions. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Empty if the tar says none. */
  readonly user: Buffer
  readonly group: Buffer
  /** Bytes of content, holes included; only files have any. */
  readonly size: number
  /** Of devices. */
  readonly major: number
  readonly minor: number
}

export interface TarEntry extends TarFacts {
  readonly type: TarType
  readonly mtimeSeconds: number
}

const longestName = 100
const at = { mode: 100, uid: 108, gid: 116, size: 124, mtime: 136, checksum: 148, type: 156, linkName: 157, magic: 257, user: 265, group: 297, major: 329, minor: 337 } as const
const longLink = { type: 'K', name: Buffer.from('././@LongLink') }, longName = { type: 'L', name: longLink.name }
const nothing = Buffer.alloc(0)
const slash = Buffer.from('/')

/** All blocks before the content. */
export function gnuHeader(entry: TarEntry): Buffer {
  const name = entry.type === tarType.directory && entry.name.at(-1) !== slash[0] ? Buffer.concat([entry.name, slash]) : entry.name
  return Buffer.concat([...longText(longLink, entry.linkName), ...longText(longName, name), block({ ...entry, name })])
}

/** Zeros that fill the last block of a content. */
export function paddingOf(bytes: number): Buffer {
  return Buffer.alloc((blockBytes - (bytes % blockBytes)) % blockBytes)
}

/** What ends a tar of so many bytes. */
export function endOfTar(bytes: number): Buffer {
  const end = bytes + 2 * blockBytes
  return Buffer.alloc(Math.ceil(end / recordBytes) * recordBytes - bytes)
}

/** An entry before the entry, for a name that does not fit. */
function longText(kind: { readonly type: string; readonly name: Buffer }, text: Buffer): Buffer[] {
  if (text.length <= longestName) return []
  const size = text.length + 1
  return [
    block({ type: kind.type, name: kind.name, linkName: nothing, mode: 0, uid: 0, gid: 0, user: nothing, group: nothing, size, mtimeSeconds: 0, major: 0, minor: 0 }),
    text, Buffer.alloc(1), paddingOf(size),
  ]
}

function block(entry: Omit<TarEntry, 'type'> & { readonly type: string }): Buffer {
  const made = Buffer.alloc(blockBytes)
  const text = (offset: number, length: number, bytes: Buffer): void => void bytes.copy(made, offset, 0, Math.min(length, bytes.length))
  text(0, longestName, entry.name)
  putNumber(made, at.mode, 8, entry.mode)
  putNumber(made, at.uid, 8, entry.uid)
  putNumber(made, at.gid, 8, entry.gid)
  putNumber(made, at.size, 12, entry.size)
  putNumber(made, at.mtime, 12, entry.mtimeSeconds)
  made.write('        ', at.checksum)
  made.write(entry.type, at.type)
  text(at.linkName, longestName, entry.linkName)
  made.write('ustar  \0', at.magic)
  text(at.user, 32, entry.user)
  text(at.group, 32, entry.group)
  if (entry.type === tarType.characterDevice || entry.type === tarType.blockDevice) {
    putNumber(made, at.major, 8, entry.major)
    putNumber(made, at.minor, 8, entry.minor)
  }
  let sum = 0
  for (const byte of made) sum += byte
  made.write(`${sum.toString(8).padStart(6, '0')}\0`, at.checksum)
  return made
}

/** Octal digits and a NUL; what does not fit, or is below zero, in base 256. */
function putNumber(made: Buffer, offset: number, length: number, value: number): void {
  if (value >= 0 && value < 8 ** (length - 1)) {
    made.write(`${value.toString(8).padStart(length - 1, '0')}\0`, offset, 'latin1')
    return
  }
  let rest = BigInt.asUintN(8 * (length - 1), BigInt(value))
  for (let index = length - 1; index > 0; index--) {
    made[offset + index] = Number(rest & 0xffn)
    rest >>= 8n
  }
  made[offset] = value < 0 ? 0xff : 0x80
}
