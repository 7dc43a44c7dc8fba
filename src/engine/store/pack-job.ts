/** Plaintext -> id, and for what is not known yet a whole PUT entry, framed and sealed. */
import { closeSync, fstatSync, readSync, type BigIntStats } from 'node:fs'
import { putHeaderBytes, idBytes, maxObjectBytes } from '../constants.js'
import { plainHeader } from '../codec/none.js'
import { sealedFileSize } from '../crypto/file-cipher.js'
import type { Key } from '../crypto/key.js'
import type { Hashing } from '../crypto/hashing.js'
import { ioError } from '../errors.js'
import { type ChunkId, chunkId, idKey } from '../ids.js'
import { adviceDontNeed, adviceWillNeed, native } from '../native.js'
import { framePutInPlace } from '../repository/entry.js'
import { type FileError, fileChanged, fileFailed, fileOk, fileOther, type FilePiece, type PackJob, type PackResult } from './jobs.js'
import { FileCiphers, type FileSeal, readSealed } from './sealed-file.js'
import type { JobMemory, WorkerState } from './worker-state.js'

/** Where entries go, back to back. */
export interface Output {
  readonly target: Buffer
  used: number
  nonce: bigint
}

const noBytes = Buffer.alloc(0)

const ciphers = new FileCiphers()

export async function pack(state: WorkerState, job: PackJob): Promise<PackResult> {
  if (job.pieces) {
    const plains = job.pieces.map(({ memory, offset, length }) =>
      memory instanceof SharedArrayBuffer ? Buffer.from(memory, offset, length) : Buffer.from(memory.buffer, memory.byteOffset + offset, length))
    return { kind: 'packed', job: job.job, ...await new Packing(state, job, plains).run() }
  }
  const { plains, states, errors } = readFiles(state.memory, job.files!)
  return { kind: 'packed', job: job.job, ...await new Packing(state, job, plains).run(), states, errors }
}

type Waiting = { readonly kind: 'id'; readonly index: number } | { readonly kind: 'mac'; readonly index: number; readonly id: ChunkId; readonly at: number; readonly length: number }

/**
 * Plaintexts one by one: id; compressed and encrypted if that is not known; MAC; framed. Ids and MACs are hashed two at a time, and
 * those of different plaintexts, so they get ready in any order; entries are laid out in the order of the plaintexts.
 */
class Packing {
  readonly #state: WorkerState
  readonly #force: boolean
  /** undefined: nothing to be stored. */
  readonly #plains: readonly (Buffer | undefined)[]
  readonly #hashing: Hashing<Waiting>
  readonly #output: Output
  readonly #seen = new Set<string>()
  readonly #idReady: Uint8Array
  readonly #result: { ids: Uint8Array; sizes: Uint32Array; lengths: Uint32Array }
  /** Those before it were looked up, and compressed if need be. */
  #next = 0

  constructor(state: WorkerState, job: PackJob, plains: readonly (Buffer | undefined)[]) {
    this.#state = state
    this.#force = job.force
    this.#plains = plains
    this.#hashing = state.key!.hashing()
    this.#output = { target: Buffer.from(job.output), used: 0, nonce: job.nonce }
    this.#idReady = new Uint8Array(plains.length)
    this.#result = { ids: new Uint8Array(plains.length * idBytes), sizes: new Uint32Array(plains.length), lengths: new Uint32Array(plains.length) }
  }

  async run(): Promise<{ ids: Uint8Array; sizes: Uint32Array; lengths: Uint32Array }> {
    const { ids, sizes } = this.#result
    for (const [index, plain] of this.#plains.entries()) {
      if (plain) this.#hashing.id(plain, { kind: 'id', index })
      sizes[index] = plain?.length ?? 0
    }
    for (let ready = this.#hashing.next(); ready; ready = this.#hashing.next()) {
      const { tag, hash } = ready
      if (tag.kind === 'mac') {
        this.#finishEntry(tag, hash)
        continue
      }
      ids.set(hash, tag.index * idBytes)
      this.#idReady[tag.index] = 1
      for (; this.#next < this.#plains.length && (!this.#plains[this.#next] || this.#idReady[this.#next]); this.#next++) {
        const stored = this.#plains[this.#next] && this.#storePiece(this.#next)
        if (stored) await stored
      }
    }
    return this.#result
  }

  /** Compresses and encrypts it if it is not known; a promise for methods that take their time. */
  #storePiece(index: number): Promise<void> | undefined {
    const plain = this.#plains[index]!
    const id = chunkId(Buffer.from(this.#result.ids.buffer, index * idBytes, idBytes))
    if (!this.#force) {
      if (this.#state.index?.has(id)) return undefined
      const seen = idKey(id)
      if (this.#seen.has(seen)) return undefined
      this.#seen.add(seen)
    }
    const encrypt = (compressed: Uint8Array): void => {
      const { at, length } = encryptEntry(this.#state.key!, plain, compressed, this.#output, false)
      this.#result.lengths[index] = putHeaderBytes + length
      this.#hashing.mac(objectAt(this.#output.target, at, length), { kind: 'mac', index, id, at, length })
    }
    const payload = this.#state.codec!.compress(plain)
    if (payload instanceof Promise) return payload.then(encrypt)
    encrypt(payload)
    return undefined
  }

  #finishEntry({ id, at, length }: Extract<Waiting, { kind: 'mac' }>, mac: Buffer): void {
    const { target } = this.#output
    this.#state.key!.setMac(objectAt(target, at, length), mac)
    framePutInPlace(target, at, id, length)
  }
}

function objectAt(target: Buffer, entryAt: number, length: number): Buffer {
  return target.subarray(entryAt + putHeaderBytes, entryAt + putHeaderBytes + length)
}

/** Contents in scratch memory, until the next job. None for files that are empty or cannot be had. */
function readFiles(memory: JobMemory, files: readonly FilePiece[]): { plains: (Buffer | undefined)[]; states: Uint8Array; errors: (FileError | undefined)[] } {
  const plains = new Array<Buffer | undefined>(files.length).fill(undefined)
  const states = new Uint8Array(files.length)
  const errors = new Array<FileError | undefined>(files.length).fill(undefined)
  const fail = (index: number, error: unknown): void => {
    const { code, errno, syscall } = error as NodeJS.ErrnoException
    if (code === undefined || errno === undefined) throw error
    states[index] = fileFailed
    errors[index] = { code, errno: Math.abs(errno), syscall: syscall ?? 'read' }
  }
  const scratch = memory.files(files.reduce((sum, file) => sum + roomFor(file), 0))
  const fds = openAll(files, fail)
  try {
    let used = 0
    for (const [index, file] of files.entries()) {
      const fd = fds[index]!
      if (fd < 0) continue
      try {
        const room = scratch.subarray(used, used + roomFor(file))
        const { plain, state } = file.position !== undefined ? readPart(fd, file, file.position, room) : file.seal ? readSealedFile(fd, file, file.seal, room) : readWhole(fd, file, room)
        states[index] = state
        if (plain && plain.length > 0) {
          plains[index] = plain
          used += plain.length
        }
      } catch (error) {
        fail(index, error)
      } finally {
        fds[index] = -1
        closeSync(fd)
      }
    }
  } finally {
    for (const fd of fds) if (fd >= 0) closeSync(fd)
  }
  return { plains, states, errors }
}

/** One byte more than the file has, to see whether it grew; one that lies encrypted has the length that it was sealed with. */
function roomFor({ size, seal }: FilePiece): number {
  return seal?.size ?? size + 1
}

/** Opens the files of a job, so that the disk can fetch the later ones while the first are worked on. -1 for those that fail. */
function openAll(files: readonly FilePiece[], fail: (index: number, error: unknown) => void): Int32Array {
  const fds = new Int32Array(files.length).fill(-1)
  for (const [index, { path, size, position }] of files.entries()) {
    try {
      fds[index] = native().openForReading(path)
      if (size > 0 && position === undefined) native().advise(fds[index]!, 0, size, adviceWillNeed)
    } catch (error) {
      fail(index, error)
    }
  }
  return fds
}

/** Seals what a codec made of a plaintext, and frames it as a PUT entry at the end of `output`. Returns the entry's length. */
export function sealEntry(key: Key, id: ChunkId, plain: Uint8Array, compressed: Uint8Array, output: Output): number {
  const { at, length } = encryptEntry(key, plain, compressed, output, true)
  return framePutInPlace(output.target, at, id, length)
}

/** The same without the entry's header, and with or without the object's MAC. Where the entry begins, and the object's length. */
function encryptEntry(key: Key, plain: Uint8Array, compressed: Uint8Array, output: Output, withMac: boolean): { at: number; length: number } {
  const head = compressed === plain ? plainHeader : noBytes
  const payloadLength = head.length + compressed.length
  if (key.sealedLength(payloadLength) > maxObjectBytes) throw new Error(`a chunk of ${plain.length} bytes is too large to be stored`)
  const at = output.used
  const place = [compressed, output.nonce, output.target, at + putHeaderBytes, head] as const
  const length = withMac ? key.sealInto(...place) : key.encryptInto(...place)
  output.nonce += BigInt(Math.ceil(payloadLength / 16))
  output.used += putHeaderBytes + length
  return { at, length }
}

/** The content, in `memory`, which is a byte longer than the file was; no content if it is not the small file any more that lstat saw. */
function readWhole(fd: number, file: FilePiece, memory: Buffer): { plain: Buffer | undefined; state: number } {
  const before = fstatSync(fd, { bigint: true })
  if (!before.isFile() || before.ino !== file.ino || (file.dev !== undefined && before.dev !== file.dev) || before.size > BigInt(file.size)) return { plain: undefined, state: fileOther }
  let length = 0
  while (length <= file.size) {
    const count = readSync(fd, memory, length, file.size + 1 - length, null)
    if (count === 0) break
    length += count
  }
  if (length > file.size) return { plain: undefined, state: fileOther }
  // A backup must not push out of memory what people work with (Borg does the same).
  if (length > 0) native().advise(fd, 0, 0, adviceDontNeed)
  return { plain: memory.subarray(0, length), state: length === Number(before.size) && unchanged(before, fd) ? fileOk : fileChanged }
}

/** The same of one that lies encrypted. Nobody else writes to those. */
function readSealedFile(fd: number, file: FilePiece, seal: FileSeal, plain: Buffer): { plain: Buffer | undefined; state: number } {
  const { ino, size } = fstatSync(fd, { bigint: true })
  if (ino !== file.ino || sealedFileSize(Number(size)) !== seal.size) return { plain: undefined, state: fileOther }
  // They stay in the host's memory: asked to forget them, it would first write them out, and they are removed soon.
  readSealed(fd, ciphers.of(seal.key), seal.file, plain, 0)
  return { plain, state: fileOk }
}

/** The same of a part of a file. */
function readPart(fd: number, { size, seal }: FilePiece, position: number, memory: Buffer): { plain: Buffer; state: number } {
  const plain = memory.subarray(0, size)
  if (seal) readSealed(fd, ciphers.of(seal.key), seal.file, plain, position)
  else {
    for (let done = 0; done < size; ) {
      const count = readSync(fd, plain, done, size - done, position + done)
      if (count === 0) throw ioError('the file is shorter than it was', 'read')
      done += count
    }
  }
  return { plain, state: fileOk }
}

function unchanged(before: BigIntStats, fd: number): boolean {
  const after = fstatSync(fd, { bigint: true })
  return after.ctimeNs === before.ctimeNs && after.size === before.size
}
