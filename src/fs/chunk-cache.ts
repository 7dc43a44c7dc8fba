/**
 * Decoded chunks, least recently used first out, bounded in bytes. It lives in the FUSE thread; workers of the engine decode.
 * They lie in a slab of 64 KiB pages in shared memory: this side allots the pages of a load beforehand, a worker fills them, and nobody
 * copies. Short chunks that are loaded together lie side by side, and their pages are free when the last of them is gone. A
 * short one that is loaded alone comes by message and is a buffer of its own: it would waste most of a page.
 */
import { LRUCache } from 'lru-cache'
import { idKey } from '../engine/ids.js'
import { native } from '../engine/native.js'
import type { ChunksReply, ChunksRequest, WireError } from './engine-port.js'

export const pageBytes = 64 * 1024
/** Short chunks that are less together come by message. */
const minPackedBytes = 32 * 1024
/** One request carries at most so much of short chunks. */
const maxBatchBytes = 1024 * 1024
/**
 * A long chunk that somebody waits for is a request of its own, so that it is answered as soon as it is there. Of those that are only
 * expected to be wanted, so many go together: what a worker hashes side by side costs it less.
 */
export const longTogether = 4
const maxBatchCount = 256
/** What an entry costs beside its bytes. */
const entryOverhead = 256

export interface CachedChunk {
  readonly size: number
  /** Either the pages of the slab, and where in the first of them it begins, or bytes. */
  readonly pages: Uint32Array | undefined
  readonly start: number
  readonly bytes: Uint8Array | undefined
}

/**
 * Called once when a load ends; the chunk is valid until the callback returns. What it throws reaches whoever brought the reply, when all others
 * were told.
 */
export type ChunkWaiter = (error: WireError | undefined, chunk: CachedChunk | undefined) => void

export type ChunkLoader = (request: ChunksRequest, done: (error: WireError | undefined, reply: ChunksReply | undefined) => void) => void

interface Load {
  /** Of its kind under way: the id's, or one of its own for a second size of the same id. */
  readonly key: string
  readonly id: Uint8Array
  readonly size: number
  readonly waiters: ChunkWaiter[]
  pages: Uint32Array | undefined
  start: number
}

export class ChunkCache {
  readonly slab: SharedArrayBuffer
  readonly #bytes: Buffer
  readonly #load: ChunkLoader
  readonly #cached: LRUCache<string, CachedChunk>
  readonly #loading = new Map<string, Load>()
  readonly #freePages: Uint32Array
  #freeCount: number
  /** Of each page: chunks, loaded or on their way, that lie in it. */
  readonly #users: Uint16Array
  #batch: Load[] = []
  #longLoading = 0
  readonly #longs: Load[] = []
  /** What `view` gave out, and what of it the cache dropped since. */
  readonly #held = new Set<CachedChunk>()
  readonly #heldGone: CachedChunk[] = []
  /** Its waiters are being told; what they ask for may drive it out, but its pages stay until all of them were told. */
  #arriving: CachedChunk | undefined
  #batchBytes = 0

  /** `maxBytes` holds for what is kept; what is being loaded comes on top only when the slab is full of loads. */
  constructor(maxBytes: number, load: ChunkLoader) {
    const pages = Math.max(1, Math.floor(maxBytes / pageBytes))
    this.slab = new SharedArrayBuffer(pages * pageBytes)
    this.#bytes = Buffer.from(this.slab)
    this.#load = load
    // Handed out from the end: low pages first, and the page freed last is used next, while it is still in the CPU's cache.
    this.#freePages = Uint32Array.from({ length: pages }, (_, index) => pages - 1 - index)
    this.#freeCount = pages
    this.#users = new Uint16Array(pages)
    this.#cached = new LRUCache<string, CachedChunk>({
      maxSize: Math.max(maxBytes, pageBytes),
      sizeCalculation: (chunk) => entryOverhead + (chunk.size > pageBytes ? Math.ceil(chunk.size / pageBytes) * pageBytes : chunk.size),
      dispose: (chunk) => {
        if (chunk !== this.#arriving) this.#gone(chunk)
      },
    })
  }

  get maxBytes(): number {
    return this.#cached.maxSize
  }

  /** Bytes kept, for statistics. */
  get size(): number {
    return this.#cached.calculatedSize
  }

  /** Loads under way, of chunks up to a page and of longer ones. */
  get loadingCounts(): { readonly short: number; readonly long: number } {
    return { short: this.#loading.size - this.#longLoading, long: this.#longLoading }
  }

  /**
   * The chunk if it is here. Valid until the next call of `request`, `flush` or the return to the loop. One of another size is not the one that is
   * wanted: whichever list of chunks tells `size` wrongly, the load says so.
   */
  get(id: Uint8Array, size: number): CachedChunk | undefined {
    const chunk = this.#cached.get(idKey(id))
    return chunk?.size === size ? chunk : undefined
  }

  /** True if the chunk is here or on its way: nothing to prefetch. */
  knows(id: Uint8Array): boolean {
    const key = idKey(id)
    return this.#loading.has(key) || this.#cached.has(key)
  }

  /**
   * Wants a chunk that `get` did not have; many may want the same, it is loaded once. Without a waiter it is a prefetch.
   * Nothing is asked before `flush`. `id` is kept until the load ends: memory that stays.
   */
  request(id: Uint8Array, size: number, waiter?: ChunkWaiter): void {
    let key = idKey(id), load = this.#loading.get(key)
    if (load && load.size !== size) load = this.#loading.get(key = `${key}${size}`)
    if (load) {
      if (waiter) load.waiters.push(waiter)
    } else {
      load = { key, id, size, waiters: waiter ? [waiter] : [], pages: undefined, start: 0 }
      this.#loading.set(key, load)
      if (size > pageBytes) {
        this.#longLoading++
        if (waiter) this.#send([load])
        else if (this.#longs.push(load) === longTogether) this.#send(this.#longs.splice(0))
      } else {
        if (this.#batchBytes + size > maxBatchBytes || this.#batch.length === maxBatchCount) this.flush()
        this.#batch.push(load)
        this.#batchBytes += size
      }
    }
  }

  /** Sends what was requested. */
  flush(): void {
    if (this.#longs.length > 0) this.#send(this.#longs.splice(0))
    if (this.#batch.length === 0) return
    const batch = this.#batch
    this.#batch = []
    this.#batchBytes = 0
    this.#send(batch)
  }

  /** What `view` gave out is not used any more. */
  letGo(): void {
    for (const { pages } of this.#heldGone) this.#release(pages!)
    this.#heldGone.length = 0
    this.#held.clear()
  }

  /** Adds chunk[from, to) to `parts`, where it lies. Its pages are not used for anything else until letGo(), even if a prefetch drives the chunk out. */
  view(chunk: CachedChunk, from: number, to: number, parts: Uint8Array[]): void {
    const { pages, bytes } = chunk
    if (!pages) {
      parts.push(from === 0 && to === chunk.size ? bytes! : bytes!.subarray(from, to))
      return
    }
    this.#held.add(chunk)
    from += chunk.start
    to += chunk.start
    while (from < to) {
      let page = Math.floor(from / pageBytes)
      const start = pages[page]! * pageBytes + (from % pageBytes)
      while ((page + 1) * pageBytes < to && pages[page + 1] === pages[page]! + 1) page++
      const end = Math.min(to, (page + 1) * pageBytes)
      parts.push(this.#bytes.subarray(start, start + end - from))
      from = end
    }
  }

  /** Copies chunk[from, to) to `into` at `at`. */
  copy(chunk: CachedChunk, from: number, to: number, into: Buffer, at: number): void {
    const { pages, bytes } = chunk
    if (!pages) {
      if (from === 0 && to === chunk.size) into.set(bytes!, at)
      else into.set(bytes!.subarray(from, to), at)
      return
    }
    native().gatherPages(this.#bytes, pages, pageBytes, chunk.start + from, chunk.start + to, into, at)
  }

  /** Who goes through files has passed this chunk, or the kernel has it: its pages are wanted for what comes, and are still in the CPU's cache. */
  passed(id: Uint8Array): void {
    const key = idKey(id)
    if (this.#cached.peek(key)?.pages) this.#cached.delete(key)
  }

  #send(loads: readonly Load[]): void {
    const ids = new Uint8Array(loads.length * 32)
    const sizes = new Uint32Array(loads.length)
    loads.forEach((load, index) => {
      ids.set(load.id, index * 32)
      sizes[index] = load.size
    })
    const starts = new Uint32Array(loads.length)
    const pages = this.#pagesFor(loads, starts)
    if (!pages) {
      for (const load of loads) this.#send([load])
      return
    }
    const urgent = loads.some((load) => load.waiters.length > 0)
    this.#load({ kind: 'chunks', ids, sizes, pages, starts, urgent }, (error, reply) => this.#arrived(loads, error, reply))
  }

  #arrived(loads: readonly Load[], error: WireError | undefined, reply: ChunksReply | undefined): void {
    const failures = new Map(reply?.failures.map((failure) => [failure.index, failure]))
    const faults: unknown[] = []
    let at = 0
    loads.forEach((load, index) => {
      this.#loading.delete(load.key)
      if (load.size > pageBytes) this.#longLoading--
      const failure = failures.get(index)
      // What comes by message is only as long as the engine found it to be.
      const isShort = reply !== undefined && !failure && !load.pages && at + load.size > reply.data.length
      if (error || failure || isShort || !reply) {
        if (load.pages) this.#release(load.pages)
        tell(load, faults, error ?? { code: failure?.code ?? 'EIO', msgid: undefined, message: failure?.message ?? (isShort ? 'it is shorter than the list of chunks says' : 'no answer') }, undefined)
        return
      }
      let chunk: CachedChunk
      if (load.pages) chunk = { size: load.size, pages: load.pages, start: load.start, bytes: undefined }
      else {
        // A copy of its own: a view would keep the whole reply alive as long as one chunk of it is in use.
        chunk = { size: load.size, pages: undefined, start: 0, bytes: reply.data.slice(at, at + load.size) }
        at += load.size
      }
      const key = idKey(load.id)
      this.#arriving = chunk
      this.#cached.set(key, chunk)
      tell(load, faults, undefined, chunk)
      this.#arriving = undefined
      // Driven out meanwhile, or longer than the whole cache, which lru-cache does not take.
      if (this.#cached.peek(key) !== chunk) this.#gone(chunk)
    })
    if (faults.length > 0) throw faults[0]
  }

  /**
   * Pages for loads, which remember where in them they lie: long ones begin with a page, short ones follow each other. None if they come
   * by message. undefined if all together find no room, but one might.
   */
  #pagesFor(loads: readonly Load[], starts: Uint32Array): Uint32Array | undefined {
    const long = loads[0]!.size > pageBytes
    let end = 0
    for (const [index, { size }] of loads.entries()) {
      starts[index] = end
      end += long ? Math.ceil(size / pageBytes) * pageBytes : size
    }
    if (!long && end < minPackedBytes) return noPages
    const pages = this.#allot(Math.ceil(end / pageBytes))
    if (!pages) return long && loads.length > 1 ? undefined : noPages
    for (const [index, load] of loads.entries()) {
      const first = Math.floor(starts[index]! / pageBytes)
      load.start = starts[index]! % pageBytes
      load.pages = pages.slice(first, Math.max(first + 1, Math.ceil((starts[index]! + load.size) / pageBytes)))
      for (const page of load.pages) this.#users[page]!++
    }
    return pages
  }

  /** Pages for a load, at the cost of the least recently used; undefined if even that is not enough. */
  #allot(count: number): Uint32Array | undefined {
    // What the whole slab does not hold shall not drive out all else in vain.
    if (count > this.#users.length) return undefined
    while (this.#freeCount < count && this.#cached.size > 0) this.#cached.pop()
    if (this.#freeCount < count) return undefined
    this.#freeCount -= count
    return this.#freePages.slice(this.#freeCount, this.#freeCount + count).reverse()
  }

  #gone(chunk: CachedChunk): void {
    if (!chunk.pages) return
    if (this.#held.has(chunk)) this.#heldGone.push(chunk)
    else this.#release(chunk.pages)
  }

  #release(pages: Uint32Array): void {
    for (let index = pages.length - 1; index >= 0; index--) {
      const page = pages[index]!
      if (--this.#users[page]! === 0) this.#freePages[this.#freeCount++] = page
    }
  }
}

/** One that throws keeps no answer from the others. */
function tell({ waiters }: Load, faults: unknown[], error: WireError | undefined, chunk: CachedChunk | undefined): void {
  for (const waiter of waiters) {
    try {
      waiter(error, chunk)
    } catch (fault) {
      faults.push(fault)
    }
  }
}

const noPages = new Uint32Array(0)
