/** Reads chunks through the byte workers: many at once, ahead of the consumer, in the order asked. */
import { idBytes } from '../constants.js'
import { BorgError, IntegrityError } from '../errors.js'
import type { ChunkId } from '../ids.js'
import type { LocalRepository } from '../repository/local-repository.js'
import { type OpenFailure, type OpenJob, unknownSize } from './jobs.js'
import type { Workers } from './workers.js'

export interface WantedChunk {
  readonly id: ChunkId
  /** Plaintext bytes, undefined where no chunk list tells. */
  readonly size: number | undefined
}

const batchBytes = 2 << 20
const batchCount = 256
/** Batches under way per worker. */
const batchesPerWorker = 3

export class ChunkReader {
  readonly #repository: LocalRepository
  readonly #workers: Workers

  constructor(repository: LocalRepository, workers: Workers) {
    this.#repository = repository
    this.#workers = workers
  }

  /** The plaintexts in the order asked. The first that cannot be read throws, after all before it were given. */
  async *getMany(wanted: Iterable<WantedChunk> | AsyncIterable<WantedChunk>): AsyncGenerator<Buffer> {
    const batches: Promise<Batch>[] = []
    const limit = this.#workers.count * batchesPerWorker
    const groups = grouped(wanted)
    try {
      let ended = false
      for (;;) {
        while (!ended && batches.length < limit) {
          const { value, done } = await groups.next()
          if (done) ended = true
          else batches.push(this.#read(value))
        }
        const next = batches.shift()
        if (!next) return
        const { lengths, data, failures, error } = await next
        let at = 0
        for (let index = 0; index < lengths.length; index++) {
          const failure = failures.get(index)
          if (failure) throw failure
          const length = lengths[index]!
          yield Buffer.from(data.buffer, data.byteOffset + at, length)
          at += length
        }
        if (error) throw error
      }
    } finally {
      for (const batch of batches) batch.catch(() => undefined)
    }
  }

  async get(id: ChunkId, size?: number): Promise<Buffer> {
    for await (const plain of this.getMany([{ id, size }])) return plain
    throw new Error('no chunk came')
  }

  async #read(wanted: readonly WantedChunk[]): Promise<Batch> {
    // Whatever is missing ends the batch before it; the error comes in its turn.
    let error: unknown
    const located = []
    for (const chunk of wanted) {
      try {
        located.push({ ...this.#repository.locate(chunk.id), chunk })
      } catch (problem) {
        error = problem
        break
      }
    }
    if (located.length === 0) return { lengths: new Uint32Array(0), data: new Uint8Array(0), failures: new Map(), error }
    const result = await this.#workers.open(openJob(located))
    return { lengths: result.lengths, data: result.data, failures: new Map(result.failures.map(failure => [failure.index, errorOf(failure)])), error }
  }
}

interface Batch {
  readonly lengths: Uint32Array
  readonly data: Uint8Array
  readonly failures: ReadonlyMap<number, Error>
  readonly error: unknown
}

/** The job of located entries, for Workers.open. */
export function openJob(located: readonly { fd: number; offset: number; length: number; chunk: WantedChunk }[]): Omit<OpenJob, 'job' | 'kind'> {
  const job = {
    fds: new Int32Array(located.length), offsets: new Float64Array(located.length), entryLengths: new Uint32Array(located.length),
    ids: new Uint8Array(located.length * idBytes), sizes: new Uint32Array(located.length),
  }
  for (const [index, { fd, offset, length, chunk }] of located.entries()) {
    job.fds[index] = fd
    job.offsets[index] = offset
    job.entryLengths[index] = length
    job.ids.set(chunk.id, index * idBytes)
    job.sizes[index] = chunk.size ?? unknownSize
  }
  return job
}

/** What a worker said, as the error that this thread would have thrown. */
export function errorOf(failure: OpenFailure): Error {
  return failure.msgid.includes('ntegrity') ? Object.assign(new IntegrityError(''), { message: failure.message }) : new BorgError(failure.msgid, failure.message, failure.exitCode)
}

async function* grouped(wanted: Iterable<WantedChunk> | AsyncIterable<WantedChunk>): AsyncGenerator<WantedChunk[]> {
  let group: WantedChunk[] = []
  let bytes = 0
  for await (const chunk of wanted) {
    group.push(chunk)
    bytes += chunk.size ?? 65536
    if (bytes >= batchBytes || group.length >= batchCount) {
      yield group
      group = []
      bytes = 0
    }
  }
  if (group.length > 0) yield group
}

