/** Chunks for the mount's cache: found by the engine thread, read and decoded by the byte workers, straight into the slab. */
import { messageOf } from '../engine/errors.js'
import { chunkId } from '../engine/ids.js'
import type { LocalRepository } from '../engine/repository/local-repository.js'
import type { SegmentLease } from '../engine/repository/segment-descriptors.js'
import { openJob } from '../engine/store/chunk-reader.js'
import type { Stash } from '../engine/store/stash.js'
import type { Workers } from '../engine/store/workers.js'
import { pageBytes } from './chunk-cache.js'
import type { ChunkFailure, ChunksReply, ChunksRequest } from './engine-port.js'

export class ChunkLoads {
  readonly #repository: LocalRepository
  readonly #workers: Workers
  readonly #lookAgain: () => Promise<void>
  readonly #stash: Stash | undefined

  /**
   * `lookAgain` is called before what failed is tried a second and last time: another client may have moved objects (compaction). `stash`: where chunks are that the repository does not have yet.
   */
  constructor(repository: LocalRepository, workers: Workers, lookAgain: () => Promise<void>, stash?: Stash) {
    this.#repository = repository
    this.#workers = workers
    this.#lookAgain = lookAgain
    this.#stash = stash
  }

  async load(request: ChunksRequest, slab: SharedArrayBuffer): Promise<ChunksReply> {
    const reply = await this.#try(request, slab)
    if (reply.failures.length === 0) return reply
    await this.#lookAgain()
    return this.#try(request, slab)
  }

  #try(request: ChunksRequest, slab: SharedArrayBuffer): Promise<ChunksReply> {
    const work = (): Promise<ChunksReply> => this.#repository.leased(lease => this.#open(request, slab, lease))
    return this.#stash ? this.#stash.reading(work) : work()
  }

  async #open(request: ChunksRequest, slab: SharedArrayBuffer, lease: SegmentLease): Promise<ChunksReply> {
    const { ids, sizes, pages, urgent } = request
    const failures: ChunkFailure[] = []
    const located = []
    /** Of each located entry: its position in the request. */
    const positions: number[] = []
    for (let index = 0; index < sizes.length; index++) {
      const id = chunkId(Buffer.from(ids.buffer, ids.byteOffset + index * 32, 32))
      try {
        const stashed = this.#stash && !this.#repository.has(id) ? this.#stash.locate(id) : undefined
        const chunk = { id, size: sizes[index]! }
        if (stashed) located.push({ ...stashed, chunk })
        else {
          const place = this.#repository.locate(id)
          located.push({ ...place, fd: lease.fd(place.segment), chunk })
        }
        positions.push(index)
      } catch (error) {
        failures.push(failureOf(index, messageOf(error)))
      }
    }
    if (located.length === 0) return { data: new Uint8Array(0), failures }
    // The workers hold each plaintext against the size that the file says, which is what the cache allotted by.
    const result = await this.#workers.open({
      ...openJob(located), ...(pages.length > 0 && { pages: { memory: slab, numbers: pages, starts: Uint32Array.from(positions, position => request.starts[position]!), pageBytes } }),
    }, { urgent, alone: urgent })
    for (const { index, message } of result.failures) failures.push(failureOf(positions[index]!, message))
    return { data: result.data, failures }
  }
}

function failureOf(index: number, message: string): ChunkFailure {
  return { index, code: 'EIO', message }
}
