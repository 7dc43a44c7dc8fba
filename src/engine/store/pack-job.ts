/** Plaintext -> id, and for what is not known yet a whole PUT entry, framed and sealed. */
import { closeSync, fstatSync, readSync, type BigIntStats } from 'node:fs'
import { putHeaderBytes, idBytes, maxObjectBytes } from '../constants.js'
import { plainHeader } from '../codec/none.js'
import { sealedFileSize } from '../crypto/file-cipher.js'
import type { Key } from '../crypto/key.js'
import { type ChunkId, idKey } from '../ids.js'
import { adviceDontNeed, adviceWillNeed, native } from '../native.js'
import { framePutInPlace } from '../repository/entry.js'
import { type FileError, fileChanged, fileFailed, fileOk, fileOther, type FilePiece, type PackJob, type PackResult } from './jobs.js'
import { FileCiphers, type FileSeal, readSealed } from './sealed-file.js'
import type { WorkerState } from './worker-state.js'

/** Where entries go, back to back. */
export interface Output {
  readonly target: Buffer
  used: number
  nonce: bigint
}

const noBytes = Buffer.alloc(0)

let scratch = Buffer.alloc(0)
const ciphers = new FileCiphers()

export async function pack(state: WorkerState, job: PackJob): Promise<PackResult> {
  const count = job.pieces?.length ?? job.files!.length
  const result = { ids: new Uint8Array(count * idBytes), sizes: new Uint32Array(count), lengths: new Uint32Array(count) }
  const output = { target: Buffer.from(job.output), used: 0, nonce: job.nonce, seen: new Set<string>() }
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
  const fail = (index: number, error: unknown): void => {
    const { code, errno, syscall } = error as NodeJS.ErrnoException
    if (code === undefined || errno === undefined) throw error
    states[index] = fileFailed
    errors[index] = { code, errno: Math.abs(errno), syscall: syscall ?? 'read' }
  }
  const fds = openAll(job.files!, fail)
  try {
    for (const [index, file] of job.files!.entries()) {
      const fd = fds[index]!
      if (fd < 0) continue
      let plain: Buffer | undefined
      try {
        ;({ plain, state: states[index] } = file.seal ? readSealedFile(fd, file, file.seal) : readWhole(fd, file))
      } catch (error) {
        fail(index, error)
      } finally {
        fds[index] = -1
        closeSync(fd)
      }
      const packed = plain && plain.length > 0 ? packOne(state, job, plain, index, result, output) : undefined
      if (packed) await packed
    }
  } finally {
    for (const fd of fds) if (fd >= 0) closeSync(fd)
  }
  return { kind: 'packed', job: job.job, ...result, states, errors }
}

/** Opens the files of a job, so that the disk can fetch the later ones while the first are worked on. -1 for those that fail. */
function openAll(files: readonly FilePiece[], fail: (index: number, error: unknown) => void): Int32Array {
  const fds = new Int32Array(files.length).fill(-1)
  for (const [index, { path, size }] of files.entries()) {
    try {
      fds[index] = native().openForReading(path)
      if (size > 0) native().advise(fds[index]!, 0, size, adviceWillNeed)
    } catch (error) {
      fail(index, error)
    }
  }
  return fds
}

function packOne(state: WorkerState, job: PackJob, plain: Buffer, index: number, result: { ids: Uint8Array; sizes: Uint32Array; lengths: Uint32Array }, output: Output & { readonly seen: Set<string> }): Promise<void> | undefined {
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
  const payload = codec.compress(plain)
  const finish = (compressed: Uint8Array): void => {
    result.lengths[index] = sealEntry(key, id, plain, compressed, output)
  }
  if (payload instanceof Promise) return payload.then(finish)
  finish(payload)
  return undefined
}

/** Seals what a codec made of a plaintext, and frames it as a PUT entry at the end of `output`. Returns the entry's length. */
export function sealEntry(key: Key, id: ChunkId, plain: Uint8Array, compressed: Uint8Array, output: Output): number {
  const head = compressed === plain ? plainHeader : noBytes
  const payloadLength = head.length + compressed.length
  if (key.sealedLength(payloadLength) > maxObjectBytes) throw new Error(`a chunk of ${plain.length} bytes is too large to be stored`)
  const at = output.used
  const length = key.sealInto(compressed, output.nonce, output.target, at + putHeaderBytes, head)
  output.nonce += BigInt(Math.ceil(payloadLength / 16))
  const entryLength = framePutInPlace(output.target, at, id, length)
  output.used += entryLength
  return entryLength
}

/** The content, in scratch memory; no content if it is not the small file any more that lstat saw. */
function readWhole(fd: number, file: FilePiece): { plain: Buffer | undefined; state: number } {
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
  // A backup must not push out of memory what people work with (Borg does the same).
  if (length > 0) native().advise(fd, 0, 0, adviceDontNeed)
  return { plain: scratch.subarray(0, length), state: length === Number(before.size) && unchanged(before, fd) ? fileOk : fileChanged }
}

/** The same of one that lies encrypted. Nobody else writes to those. */
function readSealedFile(fd: number, file: FilePiece, seal: FileSeal): { plain: Buffer | undefined; state: number } {
  const { ino, size } = fstatSync(fd, { bigint: true })
  if (ino !== file.ino || sealedFileSize(Number(size)) !== seal.size) return { plain: undefined, state: fileOther }
  if (scratch.length < seal.size) scratch = Buffer.allocUnsafeSlow(Math.max(1 << 20, seal.size))
  const plain = scratch.subarray(0, seal.size)
  readSealed(fd, ciphers.of(seal.key), seal.file, plain, 0)
  native().advise(fd, 0, 0, adviceDontNeed)
  return { plain, state: fileOk }
}

function unchanged(before: BigIntStats, fd: number): boolean {
  const after = fstatSync(fd, { bigint: true })
  return after.ctimeNs === before.ctimeNs && after.size === before.size
}
