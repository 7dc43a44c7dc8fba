/** Reads chunks through the byte workers: many at once, ahead of the consumer, in the order asked. */
import { idBytes } from '../constants.js'
import { BorgError, IntegrityError } from '../errors.js'
import type { ChunkId } from '../ids.js'
import type { LocalRepository } from '../repository/local-repository.js'
import type { SegmentLease } from '../repository/segment-descriptors.js'
import { type OpenFailure, type OpenJob, unknownSize } from './jobs.js'
import type { Workers } from './workers.js'

export interface WantedChunk {
  readonly id: ChunkId
  /** Plaintext bytes, undefined where no chunk list tells. */
  readonly size: number | undefined
}

export interface ReadManyOptions {
  readonly borrowed?: boolean
  readonly jobBytes?: number
}

const batchBytes = 2 << 20
/** Where the worker itself hands plaintexts on: it has two such jobs in hand, so about four usual long chunks to hash side by side. */
const writeBatchBytes = 4 << 20
const batchCount = 256
/** Taken for the size of a chunk that no list tells: those of item streams have up to 512 KiB. */
const unknownBytes = 256 << 10
/** Batches under way per worker. */
const batchesPerWorker = 3
const maxOutputBytes = 16 << 20
/** Most chunks of archive metadata are smaller (itemsChunkerParams). What is not used of it is never touched. */
const usualBytes = 256 << 10

export class ChunkReader {
  readonly #repository: LocalRepository
  readonly #workers: Workers
  readonly #outputs: SharedArrayBuffer[] = []

  constructor(repository: LocalRepository, workers: Workers) {
    this.#repository = repository
    this.#workers = workers
  }

  /** Keeps no memory for further reads. */
  rest(): void {
    this.#outputs.length = 0
  }

  /**
   * The plaintexts in the order asked. The first that cannot be read throws, after all before it were given. With `borrowed` a
   * plaintext is only valid until the next one is asked for. `jobBytes`: what a worker is given at a time.
   */
  async *getMany(wanted: Iterable<WantedChunk> | AsyncIterable<WantedChunk>, { borrowed = false, jobBytes = batchBytes }: ReadManyOptions = {}): AsyncGenerator<Buffer> {
    const batches: Promise<Batch>[] = []
    const limit = this.#workers.count * batchesPerWorker
    const groups = grouped(wanted, jobBytes)
    try {
      let ended = false
      for (;;) {
        while (!ended && batches.length < limit) {
          const { value, done } = await groups.next()
          if (done) ended = true
          else batches.push(this.#read(value, borrowed ? jobBytes : undefined))
        }
        const next = batches.shift()
        if (!next) return
        const { lengths, data, failures, error, output } = await next
        let at = 0
        for (let index = 0; index < lengths.length; index++) {
          const failure = failures.get(index)
          if (failure) throw failure
          const length = lengths[index]!
          yield Buffer.from(data.buffer, data.byteOffset + at, length)
          at += length
        }
        if (output) this.#outputs.push(output)
        if (error) throw error
      }
    } finally {
      for (const batch of batches) batch.catch(() => undefined)
    }
  }

  /**
   * Writes chunks to an open file, one after the other from its start, several at once. Returns their bytes. The first chunk that
   * cannot be read throws, and so does a failing write (with `code` and `errno`). `passed` is told the bytes of each batch.
   */
  async writeTo(fd: number, chunks: Iterable<WantedChunk & { readonly size: number }>, options: { sparse: boolean; signal?: AbortSignal | undefined; passed?: (bytes: number) => void }): Promise<number> {
    const limit = this.#workers.count * batchesPerWorker
    const batches: Promise<void>[] = []
    let position = 0
    const write = async (group: readonly WantedChunk[], positions: Float64Array, bytes: number): Promise<void> => {
      await this.#repository.leased(async lease => {
        const { located, error } = this.#locate(group, lease)
        if (located.length > 0) {
          const { failures, fileError } = await this.#workers.open({ ...openJob(located), file: { fd, positions, sparse: options.sparse } })
          if (failures[0]) throw errorOf(failures[0])
          if (fileError) throw Object.assign(new Error(`${fileError.code}, ${fileError.syscall}`), fileError)
        }
        if (error) throw error
      })
      options.passed?.(bytes)
    }
    try {
      for await (const group of grouped(chunks, writeBatchBytes)) {
        options.signal?.throwIfAborted()
        const positions = new Float64Array(group.length)
        const start = position
        for (const [index, { size }] of group.entries()) {
          positions[index] = position
          position += size!
        }
        const batch = write(group, positions, position - start)
        batch.catch(() => undefined)
        batches.push(batch)
        if (batches.length >= limit) await batches.shift()
      }
      while (batches.length > 0) await batches.shift()
    } finally {
      // The file is the caller's again: nobody may still be writing to it.
      await Promise.allSettled(batches)
    }
    return position
  }

  /**
   * As getMany, but an object that cannot be read or is not what it should be is given as its error, and the rest follows.
   * What is no damage (a failing disk, a lost worker) still throws.
   */
  async *getEach(ids: readonly ChunkId[]): AsyncGenerator<Buffer | BorgError> {
    for (let next = 0; next < ids.length; ) {
      try {
        for await (const plain of this.getMany(ids.slice(next).map(id => ({ id, size: undefined })))) {
          next++
          yield plain
        }
        return
      } catch (error) {
        if (!(error instanceof BorgError)) throw error
        next++
        yield error
      }
    }
  }

  async get(id: ChunkId, size?: number): Promise<Buffer> {
    for await (const plain of this.getMany([{ id, size }])) return plain
    throw new Error('no chunk came')
  }

  /** Whatever is missing ends the batch before it; the error comes in its turn. */
  #locate(wanted: readonly WantedChunk[], lease: SegmentLease): { located: Located[]; error: unknown } {
    const located: Located[] = []
    for (const chunk of wanted) {
      try {
        const place = this.#repository.locate(chunk.id)
        located.push({ ...place, fd: lease.fd(place.segment), chunk })
      } catch (error) {
        return { located, error }
      }
    }
    return { located, error: undefined }
  }

  #read(wanted: readonly WantedChunk[], borrowedBytes: number | undefined): Promise<Batch> {
    return this.#repository.leased(async lease => {
      const { located, error } = this.#locate(wanted, lease)
      if (located.length === 0) return { lengths: new Uint32Array(0), data: new Uint8Array(0), failures: new Map(), error, output: undefined }
      const output = borrowedBytes === undefined ? undefined : this.#takeOutput(located, borrowedBytes)
      const result = await this.#workers.open({ ...openJob(located), ...(output && { output }) })
      return {
        lengths: result.lengths, data: output && result.data.length === 0 ? new Uint8Array(output) : result.data, error, output,
        failures: new Map(result.failures.map(failure => [failure.index, errorOf(failure)])),
      }
    })
  }

  /** Memory that was used before costs no page faults. None where sizes claim too much; where they are unknown, what should do. */
  #takeOutput(located: readonly Located[], jobBytes: number): SharedArrayBuffer | undefined {
    let bytes = 0
    for (const { chunk } of located) bytes += chunk.size ?? usualBytes
    if (bytes > maxOutputBytes) return undefined
    const found = this.#outputs.findIndex(({ byteLength }) => byteLength >= bytes)
    if (found >= 0) return this.#outputs.splice(found, 1)[0]!
    // A smaller one would never be used again.
    this.#outputs.length = 0
    return new SharedArrayBuffer(Math.max(bytes, 2 * jobBytes))
  }
}

interface Located {
  readonly fd: number
  readonly segment: number
  readonly offset: number
  readonly length: number
  readonly chunk: WantedChunk
}

interface Batch {
  readonly lengths: Uint32Array
  readonly data: Uint8Array
  readonly failures: ReadonlyMap<number, Error>
  readonly error: unknown
  /** To be used again when all of the batch was consumed. */
  readonly output: SharedArrayBuffer | undefined
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
    // A list may claim any size: this one too is held against what is there.
    job.sizes[index] = chunk.size === undefined ? unknownSize : Math.min(chunk.size, unknownSize - 1)
  }
  return job
}

/** What a worker said, as the error that this thread would have thrown. */
export function errorOf(failure: OpenFailure): Error {
  return failure.msgid.includes('ntegrity') ? Object.assign(new IntegrityError(''), { message: failure.message }) : new BorgError(failure.msgid, failure.message, failure.exitCode)
}

async function* grouped(wanted: Iterable<WantedChunk> | AsyncIterable<WantedChunk>, maxBytes: number): AsyncGenerator<WantedChunk[]> {
  let group: WantedChunk[] = []
  let bytes = 0
  for await (const chunk of wanted) {
    group.push(chunk)
    bytes += chunk.size ?? unknownBytes
    if (bytes >= maxBytes || group.length >= batchCount) {
      yield group
      group = []
      bytes = 0
    }
  }
  if (group.length > 0) yield group
}

