/** Entries of segments -> verified plaintext. */
import { readSync, writeSync } from 'node:fs'
import { idBytes } from '../constants.js'
import { decompress } from '../codec/decompress.js'
import { BorgError, IntegrityError, messageOf } from '../errors.js'
import { type ChunkId, chunkId } from '../ids.js'
import { native } from '../native.js'
import { valueOf } from '../repository/entry.js'
import { looksLikeArchive } from './archive-look.js'
import { type FileError, type OpenFailure, type OpenJob, type OpenResult, unknownSize } from './jobs.js'
import { verifyId } from './repo-objects.js'
import { type JobMemory, maxRunBytes, type WorkerState } from './worker-state.js'

export async function open(state: WorkerState, job: OpenJob): Promise<OpenResult> {
  const count = job.fds.length
  const lengths = new Uint32Array(count)
  const failures: OpenFailure[] = []
  const sink = sinkOf(job, state.memory)
  for (let first = 0; first < count; ) {
    const end = runEnd(job, first)
    const start = job.offsets[first]!
    const bytes = job.offsets[end - 1]! + job.entryLengths[end - 1]! - start
    let run: Buffer | undefined
    let problem: unknown
    try {
      run = readRun(state, job.fds[first]!, start, bytes)
    } catch (error) {
      problem = error
    }
    for (let index = first; index < end; index++) {
      let plain: Buffer
      try {
        if (!run) throw problem
        plain = await openOne(state, job, index, run.subarray(job.offsets[index]! - start, job.offsets[index]! - start + job.entryLengths[index]!))
      } catch (error) {
        failures.push(failureOf(index, error))
        continue
      }
      const fileError = sink.take(plain, index)
      if (fileError) return { kind: 'opened', job: job.job, data: new Uint8Array(0), lengths, failures, fileError }
      lengths[index] = plain.length
    }
    first = end
  }
  return { kind: 'opened', job: job.job, data: sink.data?.() ?? new Uint8Array(0), lengths, failures, ...(sink.kept && { kept: sink.kept }) }
}

/** Where plaintexts go. Their memory may be scratch memory. */
interface Sink {
  take(plain: Buffer, index: number): FileError | undefined
  data?(): Uint8Array
  /** Entries that are in data(), where those are not all. */
  readonly kept?: number[]
}

function sinkOf(job: OpenJob, memory: JobMemory): Sink {
  const { pages, output, file } = job
  if (pages) return { take: (plain, index) => toPages(pages, index, plain) }
  if (file) return { take: (plain, index) => toFile(file, index, plain) }
  if (output) {
    const target = new Uint8Array(output)
    let used = 0
    /** Everything is gathered, from when it did not fit any more. */
    let fits = true
    return {
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

/** Scratch memory, until the next call. */
export function readRun({ memory }: WorkerState, fd: number, offset: number, length: number): Buffer {
  const scratch = memory.run(length)
  for (let done = 0; done < length; ) {
    const count = readSync(fd, scratch, done, length - done, offset + done)
    if (count === 0) throw new IntegrityError(`a segment ends at ${offset + done}, before its entry does`)
    done += count
  }
  return scratch.subarray(0, length)
}

async function openOne(state: WorkerState, job: OpenJob, index: number, entry: Buffer): Promise<Buffer> {
  const { id, payload } = payloadOf(state, job, index, entry)
  return plaintextOf(state, job, index, id, payload)
}

/** The decrypted payload of an entry, in scratch memory. */
export function payloadOf(state: WorkerState, job: Entries, index: number, entry: Buffer): { id: ChunkId; payload: Buffer } {
  const id = chunkId(Buffer.from(job.ids.buffer, job.ids.byteOffset + index * idBytes, idBytes))
  // MAC or id verification covers all that the CRC covers.
  const object = valueOf(entry, id, 0, job.offsets[index]!, { checkCrc: job.checkCrc ?? false })
  return { id, payload: state.key!.open(object, id, state.memory.payload(object.length)) }
}

/** The verified plaintext; for method none a view of the payload. */
export async function plaintextOf(state: WorkerState, job: Entries, index: number, id: ChunkId, payload: Buffer): Promise<Buffer> {
  const size = job.sizes[index]!
  const decoded = decompress(payload, size === unknownSize ? {} : { size })
  const plain = Buffer.isBuffer(decoded) ? decoded : await decoded
  verifyId(state.key!, id, plain)
  return plain
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
