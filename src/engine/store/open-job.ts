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
import { type JobMemory, maxRunBytes, maxUnderWay, type WorkerState } from './worker-state.js'

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
      run = readRun(state, job.fds[first]!, start, job.offsets[end - 1]! + job.entryLengths[end - 1]! - start, place)
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
  /** Its id was right. */
  verified: boolean
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
    this.#sink = sinkOf(job, state.memory)
    this.#hashing = state.key!.hashing()
    this.#lengths = new Uint32Array(job.fds.length)
  }

  async begin(index: number, run: number, entry: Buffer): Promise<void> {
    while (this.#underWay.size >= maxUnderWay) await this.#advance()
    try {
      const { id, object } = objectOf(this.#job, index, entry)
      this.#state.key!.checkEnvelope(object, id)
      const entryUnderWay: UnderWay = { index, id, run, slot: this.#freeSlots.pop()!, object, plain: undefined, verified: false }
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
      ...(kept && { kept }), ...(this.fileError && { fileError: this.fileError }),
    }
  }

  /** One step of one entry. */
  async #advance(): Promise<void> {
    const { tag: entry, hash } = this.#hashing.next()!
    const { index, id, slot, object } = entry
    try {
      if (!entry.plain) {
        const payload = this.#state.key!.openWithMac(object, hash, id, this.#state.memory.payload(object.length, slot))
        const decoded = decodedOf(this.#job, index, payload)
        entry.plain = Buffer.isBuffer(decoded) ? decoded : await decoded
        if (!id.equals(manifestId)) return this.#hashing.id(entry.plain, entry)
      } else if (!equalInConstantTime(hash, id)) throw wrongId(id)
      entry.verified = true
    } catch (error) {
      this.fail(index, error)
      this.#leave(entry)
    }
    this.#give()
  }

  /** Gives on what is verified and has its turn. The set is in the order of the job. */
  #give(): void {
    for (const entry of this.#underWay) {
      if (entry.verified) {
        const { index } = entry
        const plain = entry.plain!
        this.fileError ??= this.#sink.take(plain, index)
        this.#lengths[index] = plain.length
        this.#leave(entry)
      } else if (this.#sink.ordered) return
    }
  }

  #leave(entry: UnderWay): void {
    this.#underWay.delete(entry)
    this.#freeSlots.push(entry.slot)
  }
}

/** Where plaintexts go. Their memory may be scratch memory. */
interface Sink {
  take(plain: Buffer, index: number): FileError | undefined
  /** True if it takes them in the order of the job only. */
  readonly ordered: boolean
  data?(): Uint8Array
  /** Entries that are in data(), where those are not all. */
  readonly kept?: number[]
}

function sinkOf(job: OpenJob, memory: JobMemory): Sink {
  const { pages, output, file } = job
  if (pages) return { ordered: false, take: (plain, index) => toPages(pages, index, plain) }
  if (file) return { ordered: false, take: (plain, index) => toFile(file, index, plain) }
  if (output) {
    const target = new Uint8Array(output)
    let used = 0
    /** Everything is gathered, from when it did not fit any more. */
    let fits = true
    return {
      ordered: true,
      take(plain) {
        if (fits && used + plain.length > target.length) {
          fits = false
          memory.startGathering()
          memory.gather(Buffer.from(output, 0, used))
        }
        if (fits) target.set(plain, used)
        else memory.gather(plain)
        used += plain.length
        return undefined
      },
      data: () => (fits ? new Uint8Array(0) : memory.takeGathered()),
    }
  }
  const kept: number[] = []
  memory.startGathering()
  return {
    ordered: job.keep !== 'none',
    take(plain, index) {
      if (job.keep === 'none' || (job.keep === 'archives' && !looksLikeArchive(plain))) return undefined
      memory.gather(plain)
      if (job.keep) kept.push(index)
      return undefined
    },
    data: () => memory.takeGathered(),
    ...(job.keep && { kept }),
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
export function readRun({ memory }: WorkerState, fd: number, offset: number, length: number, place = 0): Buffer {
  const scratch = memory.run(length, place)
  for (let done = 0; done < length; ) {
    const count = readSync(fd, scratch, done, length - done, offset + done)
    if (count === 0) throw new IntegrityError(`a segment ends at ${offset + done}, before its entry does`)
    done += count
  }
  return scratch.subarray(0, length)
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
  return { id, payload: state.key!.open(object, id, state.memory.payload(object.length)) }
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

export function failureOf(index: number, error: unknown): OpenFailure {
  const [msgid, exitCode] = error instanceof BorgError ? [error.msgid, error.exitCode] : ['IntegrityError', 90]
  return { index, message: messageOf(error), msgid, exitCode }
}
