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
import { worthProving } from './proven-objects.js'
import { verifyId, wrongId } from './repo-objects.js'
import { type Gathering, type JobMemory, maxLongUnderWay, maxPlainUnderWay, maxRunBytes, maxRuns, maxUnderWay, maxUnderWayBytes, type WorkerState } from './worker-state.js'

/** One job alone. */
export function open(state: WorkerState, job: OpenJob): Promise<OpenResult> {
  return new Promise((resolve, reject) => {
    const opener = new Opener(state)
    opener.add(job, resolve, reject)
    void opener.run()
  })
}

interface Run {
  readonly place: number
  readonly bytes: Buffer
  /** Offset in its file. */
  readonly start: number
  /** Number of the first entry of the job behind it. */
  readonly end: number
  /** Entries under way in it. */
  users: number
}

/** A job and how far it is. */
interface JobUnderWay {
  readonly job: OpenJob
  readonly sink: Sink
  readonly lengths: Uint32Array
  readonly failures: OpenFailure[]
  readonly done: (result: OpenResult) => void
  readonly failed: (error: unknown) => void
  /** In the order of the job. */
  readonly underWay: Set<Entry>
  /** The next entry to begin with, and the run that it lies in, if that was read. */
  next: number
  run: Run | undefined
  /** Why the file of the job cannot be written, or why the job cannot go on: nothing more is begun then, or given on. */
  fileError: FileError | undefined
  error: { readonly cause: unknown } | undefined
}

interface Entry {
  readonly of: JobUnderWay
  readonly index: number
  readonly id: ChunkId
  readonly run: Run
  readonly object: Buffer
  /** Of its plaintext, or at least its object. */
  readonly bytes: number
  /** Where it is decompressed to, if it is. */
  memory: Buffer | undefined
  /** Once it is decoded: what waits for its id. */
  plain: Buffer | undefined
  /** Of its object, where its id is worth remembering. */
  mac: Buffer | undefined
  /** Its id was right. */
  verified: boolean
}

/**
 * Entry by entry: MAC, compared; decrypted, in place, and decompressed; id, compared; given to the sink. Nothing is decrypted before its MAC
 * was right, and nothing given before its id was, or was known to be (ProvenObjects). Many entries are under way, because hashes side by side cost less, and any of them may be
 * done first; so are the jobs that follow each other, because otherwise the last entries of each would be hashed alone. Entries begin in the order
 * of the jobs.
 */
export class Opener {
  readonly #state: WorkerState
  readonly #look: (() => boolean) | undefined
  readonly #jobs: JobUnderWay[] = []
  readonly #freePlaces = Array.from({ length: maxRuns }, (_, place) => place)
  #underWay = 0
  /** Of their objects, and of their plaintexts as far as that is known. */
  #bytesUnderWay = 0
  #plainUnderWay = 0
  /** A job may be done. */
  #mayEnd = false

  /** `look` is called while it runs and has room: it may add jobs, and tells whether it did. Nobody else uses the state's memory meanwhile. */
  constructor(state: WorkerState, look?: () => boolean) {
    this.#state = state
    this.#look = look
  }

  /** Either function is called once, while `run` runs. */
  add(job: OpenJob, done: (result: OpenResult) => void, failed: (error: unknown) => void): void {
    this.#jobs.push({
      job, sink: sinkOf(job, this.#state.memory), lengths: new Uint32Array(job.fds.length), failures: [], done, failed,
      underWay: new Set(), next: 0, run: undefined, fileError: undefined, error: undefined,
    })
    if (job.fds.length === 0) this.#mayEnd = true
  }

  /** Until there is no job any more. */
  async run(): Promise<void> {
    try {
      const hashing = this.#state.key!.hashing<Entry>()
      for (;;) {
        while (this.#begin(hashing)) continue
        if (this.#mayEnd) {
          this.#end()
          continue
        }
        if (this.#hasRoom && this.#look?.()) continue
        if (this.#underWay === 0) return
        const { tag, hash } = hashing.next()!
        const advanced = this.#advance(tag, hash, hashing)
        if (advanced) await advanced
      }
    } catch (error) {
      // What is under way is lost, and its memory is free again.
      this.#underWay = this.#bytesUnderWay = this.#plainUnderWay = 0
      this.#state.memory.plains.clear()
      this.#freePlaces.splice(0, this.#freePlaces.length, ...Array(maxRuns).keys())
      for (const { failed } of this.#jobs.splice(0)) failed(error)
    }
  }

  get #hasRoom(): boolean {
    return this.#underWay < maxLongUnderWay || (this.#underWay < maxUnderWay && this.#bytesUnderWay < maxUnderWayBytes && this.#plainUnderWay < maxPlainUnderWay)
  }

  /** Begins with one more entry. False if there is none, or no room. */
  #begin(hashing: Hashing<Entry>): boolean {
    if (!this.#hasRoom) return false
    const of = this.#jobs.find(({ job, next, fileError, error }) => next < job.fds.length && !fileError && !error)
    if (!of) return false
    const { job } = of
    const index = of.next
    if (!of.run || of.run.end <= index) {
      const place = this.#freePlaces.at(-1)
      if (place === undefined) return false
      const end = runEnd(job, index)
      const start = job.offsets[index]!
      try {
        const bytes = readRun(this.#state, job.fds[index]!, start, job.offsets[end - 1]! + job.entryLengths[end - 1]! - start, place)
        this.#freePlaces.pop()
        of.run = { place, bytes, start, end, users: 0 }
      } catch (error) {
        for (; of.next < end; of.next++) of.failures.push(failureOf(of.next, error))
        this.#mayEnd = true
        return true
      }
    }
    const { run } = of
    of.next++
    try {
      const at = job.offsets[index]! - run.start
      const { id, object } = objectOf(job, index, run.bytes.subarray(at, at + job.entryLengths[index]!))
      this.#state.key!.checkEnvelope(object, id)
      const size = job.sizes[index]!
      const entry: Entry = { of, index, id, run, object, bytes: size === unknownSize ? object.length : size, memory: undefined, plain: undefined, mac: undefined, verified: false }
      of.underWay.add(entry)
      this.#underWay++
      this.#bytesUnderWay += object.length
      this.#plainUnderWay += entry.bytes
      run.users++
      hashing.mac(object, entry)
    } catch (error) {
      of.failures.push(failureOf(index, error))
    }
    this.#letGo(of, run)
    return true
  }

  /** One step of one entry; a promise for a method that takes its time. */
  #advance(entry: Entry, hash: Buffer, hashing: Hashing<Entry>): Promise<void> | undefined {
    const { of, index, id, object } = entry
    try {
      if (of.fileError || of.error) {
        this.#leave(entry)
        this.#give(of)
      } else if (!entry.plain) {
        const key = this.#state.key!
        const payload = key.openWithMac(object, hash, id, object.subarray(key.sealedLength(0)))
        if (this.#state.proven && key.encrypted && entry.bytes >= worthProving) entry.mac = Buffer.from(hash)
        const decoded = decodedOf(of.job, index, payload, size => this.#memoryFor(entry, size))
        if (!Buffer.isBuffer(decoded)) {
          return decoded.then(plain => this.#decoded(entry, plain, hashing), (error: unknown) => this.#fail(entry, error))
        }
        this.#decoded(entry, decoded, hashing)
      } else {
        if (!equalInConstantTime(hash, id)) throw wrongId(id)
        if (entry.mac) this.#state.proven!.add(id, entry.mac)
        this.#verified(entry)
      }
    } catch (error) {
      this.#fail(entry, error)
    }
    return undefined
  }

  #memoryFor(entry: Entry, size: number): Buffer {
    const { plains } = this.#state.memory
    if (entry.memory) plains.giveBack(entry.memory)
    return (entry.memory = plains.take(size))
  }

  #decoded(entry: Entry, plain: Buffer, hashing: Hashing<Entry>): void {
    entry.plain = plain
    const { id, mac } = entry
    if (id.equals(manifestId) || (mac && this.#state.proven!.has(id, mac))) this.#verified(entry)
    else hashing.id(plain, entry)
  }

  #verified(entry: Entry): void {
    entry.verified = true
    this.#give(entry.of)
  }

  #fail(entry: Entry, error: unknown): void {
    entry.of.failures.push(failureOf(entry.index, error))
    this.#leave(entry)
    this.#give(entry.of)
  }

  /** Gives on what is verified and has its turn. */
  #give(of: JobUnderWay): void {
    for (const entry of of.underWay) {
      if (entry.verified) {
        const { index } = entry
        const plain = entry.plain!
        try {
          if (!of.fileError && !of.error) of.fileError = of.sink.take(plain, index)
        } catch (cause) {
          of.error = { cause }
        }
        of.lengths[index] = plain.length
        this.#leave(entry)
      } else if (of.sink.ordered) return
    }
  }

  #leave(entry: Entry): void {
    const { of, run, object, bytes, memory } = entry
    of.underWay.delete(entry)
    if (memory) this.#state.memory.plains.giveBack(memory)
    this.#underWay--
    this.#bytesUnderWay -= object.length
    this.#plainUnderWay -= bytes
    run.users--
    this.#letGo(of, run)
  }

  /** The place of a run that nobody needs any more. */
  #letGo(of: JobUnderWay, run: Run): void {
    if (run.users > 0 || (of.run === run && of.next < run.end && !of.fileError && !of.error)) return
    if (of.run === run) of.run = undefined
    this.#freePlaces.push(run.place)
    this.#mayEnd = true
  }

  /** Answers the jobs that are done. */
  #end(): void {
    this.#mayEnd = false
    for (const of of [...this.#jobs]) {
      const { job, sink, lengths, failures, fileError, error } = of
      if (of.underWay.size > 0 || (of.next < job.fds.length && !fileError && !error)) continue
      this.#jobs.splice(this.#jobs.indexOf(of), 1)
      if (of.run) this.#freePlaces.push(of.run.place)
      if (error) {
        of.failed(error.cause)
        continue
      }
      failures.sort((a, b) => a.index - b.index)
      const data = sink.data?.() ?? new Uint8Array(0)
      of.done({
        kind: 'opened', job: job.job, data: fileError ? new Uint8Array(0) : data, lengths, failures,
        ...(sink.kept && { kept: sink.kept }), ...(fileError && { fileError }),
      })
    }
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
    /** Everything, from when it did not fit any more. */
    let gathering: Gathering | undefined
    return {
      ordered: true,
      take(plain) {
        if (!gathering && used + plain.length > target.length) {
          gathering = memory.startGathering()
          gathering.add(Buffer.from(output, 0, used))
        }
        if (gathering) gathering.add(plain)
        // The addon copies to shared memory ten times as fast as V8, which expects other threads to look on.
        else native().copyMemory(plain, target.subarray(used))
        used += plain.length
        return undefined
      },
      data: () => (gathering ? taken(gathering, memory) : new Uint8Array(0)),
    }
  }
  const kept: number[] = []
  const gathering = memory.startGathering()
  return {
    ordered: job.keep !== 'none',
    take(plain, index) {
      if (job.keep === 'none' || (job.keep === 'archives' && !looksLikeArchive(plain))) return undefined
      gathering.add(plain)
      if (job.keep) kept.push(index)
      return undefined
    },
    data: () => taken(gathering, memory),
    ...(job.keep && { kept }),
  }
}

function taken(gathering: Gathering, memory: JobMemory): Uint8Array {
  const data = gathering.take()
  memory.endGathering(gathering)
  return data
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

/** The verified plaintext; for method none a view of the payload. `memory` gives what it is decompressed to. */
export async function plaintextOf(state: WorkerState, job: Entries, index: number, id: ChunkId, payload: Buffer, memory: (size: number) => Buffer): Promise<Buffer> {
  const plain = await decodedOf(job, index, payload, memory)
  verifyId(state.key!, id, plain)
  return plain
}

/** The plaintext, not verified. */
function decodedOf(job: Entries, index: number, payload: Buffer, memory: (size: number) => Buffer): Buffer | Promise<Buffer> {
  const size = job.sizes[index]!
  return decompress(payload, size === unknownSize ? { memory } : { size, memory })
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
