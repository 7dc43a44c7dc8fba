/** Plaintext -> id, and for what is not known yet a whole PUT entry, framed and sealed. */
import { closeSync, fstatSync, readSync, type BigIntStats } from 'node:fs'
import { putHeaderBytes, idBytes, maxObjectBytes } from '../constants.js'
import { plainHeader } from '../codec/none.js'
import { idKey } from '../ids.js'
import { native } from '../native.js'
import { framePutInPlace } from '../repository/entry.js'
import { type FileError, fileChanged, fileFailed, fileOk, fileOther, type FilePiece, type PackJob, type PackResult } from './jobs.js'
import type { WorkerState } from './worker-state.js'

interface Output {
  readonly target: Buffer
  used: number
  nonce: bigint
  readonly seen: Set<string>
}

const noBytes = Buffer.alloc(0)

let scratch = Buffer.alloc(0)

export async function pack(state: WorkerState, job: PackJob): Promise<PackResult> {
  const count = job.pieces?.length ?? job.files!.length
  const result = { ids: new Uint8Array(count * idBytes), sizes: new Uint32Array(count), lengths: new Uint32Array(count) }
  const output: Output = { target: Buffer.from(job.output), used: 0, nonce: job.nonce, seen: new Set() }
  if (job.pieces) {
    for (const [index, { memory, offset, length }] of job.pieces.entries()) {
      const plain = memory instanceof SharedArrayBuffer ? Buffer.from(memory, offset, length) : Buffer.from(memory.buffer, memory.byteOffset + offset, length)
      const packed = packOne(state, job, plain, index, result, output)
      if (packed) await packed
    }
    return { kind: 'packed', job: job.job, ...result }
  }
  const states = new Uint8Array(count)
  const errors: (FileError | undefined)[] = new Array<FileError | undefined>(count).fill(undefined)
  for (const [index, file] of job.files!.entries()) {
    try {
      const { plain, state: outcome } = readWhole(file)
      states[index] = outcome
      if (plain && plain.length > 0) {
        const packed = packOne(state, job, plain, index, result, output)
        if (packed) await packed
      }
    } catch (error) {
      const { code, errno, syscall } = error as NodeJS.ErrnoException
      if (code === undefined || errno === undefined) throw error
      states[index] = fileFailed
      errors[index] = { code, errno: Math.abs(errno), syscall: syscall ?? 'read' }
    }
  }
  return { kind: 'packed', job: job.job, ...result, states, errors }
}

function packOne(state: WorkerState, job: PackJob, plain: Buffer, index: number, result: { ids: Uint8Array; sizes: Uint32Array; lengths: Uint32Array }, output: Output): Promise<void> | undefined {
  const key = state.key!, codec = state.codec!
  const id = key.idHash(plain)
  result.ids.set(id, index * idBytes)
  result.sizes[index] = plain.length
  if (!job.force) {
    if (state.index?.has(id)) return undefined
    const seen = idKey(id)
    if (output.seen.has(seen)) return undefined
    output.seen.add(seen)
  }
  const finish = (compressed: Uint8Array): void => {
    const head = compressed === plain ? plainHeader : noBytes
    const payloadLength = head.length + compressed.length
    if (key.sealedLength(payloadLength) > maxObjectBytes) throw new Error(`a chunk of ${plain.length} bytes is too large to be stored`)
    const at = output.used
    const length = key.sealInto(compressed, output.nonce, output.target, at + putHeaderBytes, head)
    output.nonce += BigInt(Math.ceil(payloadLength / 16))
    result.lengths[index] = framePutInPlace(output.target, at, id, length)
    output.used += result.lengths[index]!
  }
  const payload = codec.compress(plain)
  if (payload instanceof Promise) return payload.then(finish)
  finish(payload)
  return undefined
}

/** The content, in scratch memory; no content if it is not the small file any more that lstat saw. */
function readWhole(file: FilePiece): { plain: Buffer | undefined; state: number } {
  const fd = native().openForReading(file.path)
  try {
    const before = fstatSync(fd, { bigint: true })
    if (!before.isFile() || before.ino !== file.ino || before.size > BigInt(file.size)) return { plain: undefined, state: fileOther }
    if (scratch.length < file.size + 1) scratch = Buffer.allocUnsafeSlow(Math.max(1 << 20, file.size + 1))
    let length = 0
    while (length <= file.size) {
      const count = readSync(fd, scratch, length, file.size + 1 - length, null)
      if (count === 0) break
      length += count
    }
    if (length > file.size) return { plain: undefined, state: fileOther }
    return { plain: scratch.subarray(0, length), state: length === Number(before.size) && unchanged(before, fd) ? fileOk : fileChanged }
  } finally {
    closeSync(fd)
  }
}

function unchanged(before: BigIntStats, fd: number): boolean {
  const after = fstatSync(fd, { bigint: true })
  return after.ctimeNs === before.ctimeNs && after.size === before.size
}
