/** Entries of segments -> verified plaintext. */
import { readSync, writeSync } from 'node:fs'
import { idBytes } from '../constants.js'
import { decompress } from '../codec/decompress.js'
import { BorgError, IntegrityError, messageOf } from '../errors.js'
import { equalInConstantTime } from '../crypto/constant-time.js'
import type { Hashing } from '../crypto/hashing.js'
import { type ChunkId, chunkId, manifestId } from '../ids.js'
import { native } from '../native.js'
import { valueOf } from '../repository/entry.js'
import { looksLikeArchive } from './archive-look.js'
import { type FileError, type OpenFailure, type OpenJob, type OpenResult, unknownSize } from './jobs.js'
import { verifyId, wrongId } from './repo-objects.js'
import type { WorkerState } from './worker-state.js'

/** Entries that follow each other in a file are read together up to so many bytes. */
const maxRunBytes = 4 << 20
/** Entries under way at a time: while the MAC or id of one is hashed, so is that of the other. */
const maxUnderWay = 2

/** Memory that stays: as many runs as entries may be under way, and the payloads of those. */
const nothingYet = Array.from({ length: maxUnderWay }, () => Buffer.alloc(0))
const runScratch = [...nothingYet], payloadScratch = [...nothingYet]

export async function open(state: WorkerState, job: OpenJob): Promise<OpenResult> {
  const opening = new Opening(state, job)
  const count = job.fds.length
  for (let first = 0; first < count && !opening.fileError; ) {
    const end = runEnd(job, first)
    const start = job.offsets[first]!
    const place = await opening.placeForRun()
    let run: Buffer | undefined
    let problem: unknown
    try {
      run = readRun(job.fds[first]!, start, job.offsets[end - 1]! + job.entryLengths[end - 1]! - start, place)
    } catch (error) {
      problem = error
    }
    for (let index = first; index < end && !opening.fileError; index++) {
      const at = job.offsets[index]! - start
      if (run) await opening.begin(index, place, run.subarray(at, at + job.entryLengths[index]!))
      else opening.fail(index, problem)
    }
    first = end
  }
  return opening.finish()
}

interface UnderWay {
  readonly index: number
  readonly id: ChunkId
  /** Place of the run that its bytes lie in. */
  readonly run: number
  /** Which scratch memory its payload goes to. */
  readonly slot: number
  readonly object: Buffer
  /** Once it is decoded: what waits for its id. */
  plain: Buffer | undefined
}

/**
 * Entry by entry: MAC, compared; decrypted and decompressed; id, compared; given to the sink. Nothing is decrypted before its MAC
 * was right, and nothing given before its id was; of two entries under way either may be done first.
 */
class Opening {
  readonly #state: WorkerState
  readonly #job: OpenJob
  readonly #sink: Sink
  readonly #hashing: Hashing<UnderWay>
  readonly #underWay = new Set<UnderWay>()
  readonly #freeSlots = Array.from({ length: maxUnderWay }, (_, slot) => slot)
  readonly #lengths: Uint32Array
  readonly #failures: OpenFailure[] = []
  /** Why the file of the job cannot be written. */
  fileError: FileError | undefined

  constructor(state: WorkerState, job: OpenJob) {
    this.#state = state
    this.#job = job
    this.#sink = sinkOf(job)
    this.#hashing = state.key!.hashing()
    this.#lengths = new Uint32Array(job.fds.length)
  }

  async begin(index: number, run: number, entry: Buffer): Promise<void> {
    while (this.#underWay.size >= maxUnderWay) await this.#advance()
    try {
      const { id, object } = objectOf(this.#job, index, entry)
      this.#state.key!.checkEnvelope(object, id)
      const entryUnderWay: UnderWay = { index, id, run, slot: this.#freeSlots.pop()!, object, plain: undefined }
      this.#underWay.add(entryUnderWay)
      this.#hashing.mac(object, entryUnderWay)
    } catch (error) {
      this.fail(index, error)
    }
  }

  fail(index: number, error: unknown): void {
    this.#failures.push(failureOf(index, error))
  }

  /** A place for another run: one that no entry under way needs any more. */
  async placeForRun(): Promise<number> {
    while (this.#underWay.size >= maxUnderWay) await this.#advance()
    const used = [...this.#underWay].map(({ run }) => run)
    return used.includes(0) ? 1 : 0
  }

  async finish(): Promise<OpenResult> {
    while (this.#underWay.size > 0 && !this.fileError) await this.#advance()
    const { data, kept } = this.#sink
    this.#failures.sort((a, b) => a.index - b.index)
    return {
      kind: 'opened', job: this.#job.job, data: this.fileError ? new Uint8Array(0) : data?.() ?? new Uint8Array(0), lengths: this.#lengths, failures: this.#failures,
      ...(kept && { kept: kept() }), ...(this.fileError && { fileError: this.fileError }),
    }
  }

  /** One step of one entry. */
  async #advance(): Promise<void> {
    const { tag: entry, hash } = this.#hashing.next()!
    const { index, id, slot, object } = entry
    try {
      if (!entry.plain) {
        const payload = this.#state.key!.openWithMac(object, hash, id, payloadMemory(slot, object.length))
        const decoded = decodedOf(this.#job, index, payload)
        entry.plain = Buffer.isBuffer(decoded) ? decoded : await decoded
        if (!id.equals(manifestId)) return this.#hashing.id(entry.plain, entry)
      } else if (!equalInConstantTime(hash, id)) throw wrongId(id)
      this.fileError ??= this.#sink.take(entry.plain, index)
      this.#lengths[index] = entry.plain.length
    } catch (error) {
      this.fail(index, error)
    }
    this.#underWay.delete(entry)
    this.#freeSlots.push(slot)
  }
}

/** Where plaintexts go, in any order. Their memory may be scratch memory. */
interface Sink {
  take(plain: Buffer, index: number): FileError | undefined
  data?(): Uint8Array
  /** Entries that are in data(), where those are not all. */
  kept?(): number[]
}

function sinkOf(job: OpenJob): Sink {
  const { pages, output, file } = job
  if (pages) return { take: (plain, index) => toPages(pages, index, plain) }
  if (file) return { take: (plain, index) => toFile(file, index, plain) }
  if (output) {
    const target = new Uint8Array(output)
    const starts = new Float64Array(job.sizes.length)
    for (let index = 1; index < starts.length; index++) starts[index] = starts[index - 1]! + job.sizes[index - 1]!
    return {
      take(plain, index) {
        target.set(plain, starts[index])
        return undefined
      },
    }
  }
  const plains: (Buffer | undefined)[] = []
  return {
    take(plain, index) {
      if (job.keep === 'none' || (job.keep === 'archives' && !looksLikeArchive(plain))) return undefined
      plains[index] = isScratch(plain) ? Buffer.from(plain) : plain
      return undefined
    },
    data: () => joined(plains.filter(plain => plain !== undefined)),
    ...(job.keep && { kept: () => Object.keys(plains).map(Number) }),
  }
}

/** What tells where entries lie. */
export type Entries = Pick<OpenJob, 'fds' | 'offsets' | 'entryLengths' | 'ids' | 'sizes' | 'checkCrc'>

/** End of the run of entries that follow each other in one file. */
export function runEnd(job: Entries, first: number): number {
  let end = first + 1
  let bytes = job.entryLengths[first]!
  while (end < job.fds.length && job.fds[end] === job.fds[first] && job.offsets[end] === job.offsets[end - 1]! + job.entryLengths[end - 1]!
    && bytes + job.entryLengths[end]! <= maxRunBytes) {
    bytes += job.entryLengths[end]!
    end++
  }
  return end
}

/** In scratch memory, until the next call with the same `place`. */
export function readRun(fd: number, offset: number, length: number, place = 0): Buffer {
  const scratch = scratchOf(runScratch, place, length)
  for (let done = 0; done < length; ) {
    const count = readSync(fd, scratch, done, length - done, offset + done)
    if (count === 0) throw new IntegrityError(`a segment ends at ${offset + done}, before its entry does`)
    done += count
  }
  return scratch.subarray(0, length)
}

function scratchOf(memory: Buffer[], place: number, length: number): Buffer {
  const found = memory[place]!
  if (found.length >= length) return found
  return (memory[place] = Buffer.allocUnsafeSlow(Math.max(maxRunBytes, length)))
}

function isScratch({ buffer }: Buffer): boolean {
  return [...runScratch, ...payloadScratch].some(scratch => scratch.buffer === buffer)
}

function payloadMemory(slot: number, objectLength: number): Buffer {
  return scratchOf(payloadScratch, slot, objectLength)
}

/** Id and object of an entry. */
function objectOf(job: Entries, index: number, entry: Buffer): { id: ChunkId; object: Buffer } {
  const id = chunkId(Buffer.from(job.ids.buffer, job.ids.byteOffset + index * idBytes, idBytes))
  // MAC or id verification covers all that the CRC covers.
  return { id, object: valueOf(entry, id, 0, job.offsets[index]!, { checkCrc: job.checkCrc ?? false }) }
}

/** The decrypted payload of an entry, in scratch memory. */
export function payloadOf(state: WorkerState, job: Entries, index: number, entry: Buffer): { id: ChunkId; payload: Buffer } {
  const { id, object } = objectOf(job, index, entry)
  return { id, payload: state.key!.open(object, id, payloadMemory(0, object.length)) }
}

/** The verified plaintext; for method none a view of the payload. */
export async function plaintextOf(state: WorkerState, job: Entries, index: number, id: ChunkId, payload: Buffer): Promise<Buffer> {
  const plain = await decodedOf(job, index, payload)
  verifyId(state.key!, id, plain)
  return plain
}

/** The plaintext, not verified. */
function decodedOf(job: Entries, index: number, payload: Buffer): Buffer | Promise<Buffer> {
  const size = job.sizes[index]!
  return decompress(payload, size === unknownSize ? {} : { size })
}

function toPages({ memory, numbers, starts, pageBytes }: NonNullable<OpenJob['pages']>, index: number, plain: Buffer): undefined {
  native().scatterPages(new Uint8Array(memory), numbers, pageBytes, starts[index]!, plain)
}

function toFile({ fd, positions, sparse }: NonNullable<OpenJob['file']>, index: number, plain: Buffer): FileError | undefined {
  if (sparse && native().isZero(plain)) return undefined
  try {
    for (let done = 0; done < plain.length; ) done += writeSync(fd, plain, done, plain.length - done, positions[index]! + done)
    return undefined
  } catch (error) {
    const { code, errno, syscall } = error as NodeJS.ErrnoException
    if (code === undefined || errno === undefined) throw error
    return { code, errno: Math.abs(errno), syscall: syscall ?? 'write' }
  }
}

/** One buffer that can be transferred. */
function joined(plains: readonly Buffer[]): Uint8Array {
  let length = 0
  for (const plain of plains) length += plain.length
  const data = new Uint8Array(new ArrayBuffer(length))
  let at = 0
  for (const plain of plains) {
    data.set(plain, at)
    at += plain.length
  }
  return data
}

export function failureOf(index: number, error: unknown): OpenFailure {
  const [msgid, exitCode] = error instanceof BorgError ? [error.msgid, error.exitCode] : ['IntegrityError', 90]
  return { index, message: messageOf(error), msgid, exitCode }
}
