/**
 * File content: an offset becomes chunks by the sums of their sizes, chunks come from the cache or, later, from the engine.
 * One reader serves all archives. A read that touches a chunk which cannot be had is EIO and one line in the log; all
 * other reads go on.
 */
import { idHex } from '../engine/ids.js'
import type { Log } from '../engine/log.js'
import { shownText } from '../engine/text.js'
import type { ArchiveTree } from './archive-tree.js'
import { type CachedChunk, type ChunkCache, pageBytes } from './chunk-cache.js'
import { type Answer, type Call, LATER, type ReadAnswer } from './core.js'
import type { WireError } from './engine-port.js'
import { errnoByCode } from './errno.js'
import { type FileSequence, SequentialRead } from './read-ahead.js'
import type { Errno } from './types.js'

/** Prefetches stop while so many loads are under way: they must not stand before what somebody waits for. */
const maxLoadsForPrefetch = 8
/** Below this a copy into the reply costs less than a reply of two pieces. */
const minViewBytes = 16 * 1024
/** Buffers kept for answers that are given later. */
const spareBuffers = 4
const spareBytes = 1024 * 1024
/** Chunks whose failure was told; beyond it, the oldest may be told again. */
const maxToldFailures = 1000

/** An open file. Keeps its tree alive, also when the archive's owner dropped it. */
export class OpenFile {
  readonly sequence = new SequentialRead()
  #sums: Float64Array | undefined

  constructor(readonly tree: ArchiveTree, readonly row: number, readonly files: FileSequence, readonly archiveName: Buffer) {}

  /** Offset at which each chunk starts; one value more than chunks. */
  get sums(): Float64Array {
    if (this.#sums) return this.#sums
    const count = this.tree.chunkCount(this.row)
    const first = this.tree.chunkStart(this.row)
    const sums = new Float64Array(count + 1)
    for (let index = 0; index < count; index++) sums[index + 1] = sums[index]! + this.tree.chunkSize(first + index)
    return this.#sums = sums
  }

  /** Index of the chunk that holds `offset`, which lies within the file. */
  chunkAt(offset: number): number {
    const sums = this.sums
    let low = 0, high = sums.length - 1
    while (low + 1 < high) {
      const middle = (low + high) >>> 1
      if (sums[middle]! <= offset) low = middle
      else high = middle
    }
    return low
  }
}

/** Puts a decoded chunk into the kernel's page cache. See `offerToKernel`. */
export type PageStore = (file: OpenFile, offset: number, data: Buffer) => void

export class FileReader {
  readonly #cache: ChunkCache
  readonly #log: Log
  readonly #spare: Buffer[] = []
  readonly #told = new Set<string>()
  readonly #store: PageStore | undefined

  constructor(cache: ChunkCache, log: Log, store?: PageStore) {
    this.#cache = cache
    this.#log = log
    this.#store = store
  }

  /** As FsCore.read. */
  read(file: OpenFile, offset: number, into: Buffer, call: Call<Uint8Array>): Answer<ReadAnswer> {
    const { sums, tree, row } = file
    const end = Math.min(offset + into.length, tree.size(row), sums[sums.length - 1]!)
    if (offset >= end) return 0
    const length = end - offset
    const first = file.chunkAt(offset)
    const start = tree.chunkStart(row)
    let last = first
    while (sums[last + 1]! < end) last++
    let late: LateRead | undefined
    let whole: Uint8Array | undefined
    for (let index = first; index <= last; index++) {
      const from = Math.max(offset, sums[index]!) - sums[index]!
      const to = Math.min(end, sums[index + 1]!) - sums[index]!
      const at = sums[index]! + from - offset
      const id = tree.chunkId(start + index)
      const cached = this.#cache.get(id)
      if (cached) {
        // What lies in one chunk and in one piece goes to the kernel from there.
        whole = first === last && length >= minViewBytes ? this.#cache.view(cached, from, to) : undefined
        if (!whole) this.#cache.copy(cached, from, to, late ? late.bytes : into, at)
        continue
      }
      if (!late) {
        late = { bytes: this.#takeBuffer(length), left: 0, answer: call.defer(), errno: undefined }
        if (at > 0) into.copy(late.bytes, 0, 0, at)
      }
      this.#await(late, file, index, from, to, at, length)
    }
    this.#readAhead(file, offset, length, last)
    this.#cache.flush()
    if (late) return LATER
    return whole ?? length
  }

  #await(late: LateRead, file: OpenFile, index: number, from: number, to: number, at: number, length: number): void {
    const chunk = file.tree.chunkStart(file.row) + index
    const id = file.tree.chunkId(chunk)
    const alone = length <= pageBytes
    late.left++
    this.#cache.request(id, file.tree.chunkSize(chunk), (error, loaded) => {
      const whole = loaded && to - from === length ? this.#cache.view(loaded, from, to) : undefined
      if (whole) {
        late.answer(whole)
        this.#giveBuffer(late.bytes)
        if (alone) this.#offer(file, index, loaded!)
        return
      }
      if (loaded) this.#cache.copy(loaded, from, to, late.bytes, at)
      else late.errno = this.#failed(file, id, error!)
      if (--late.left > 0) return
      late.answer(late.errno ?? late.bytes.subarray(0, length))
      this.#giveBuffer(late.bytes)
      if (loaded && alone) this.#offer(file, index, loaded)
    })
  }

  /** After a small read that needed a whole chunk: where reads jump about, the rest of it may be wanted later. */
  #offer(file: OpenFile, index: number, chunk: CachedChunk): void {
    if (!this.#store || !file.sequence.jumpsAbout) return
    const data = Buffer.allocUnsafeSlow(chunk.size)
    this.#cache.copy(chunk, 0, chunk.size, data, 0)
    this.#store(file, file.sums[index]!, data)
  }

  #readAhead(file: OpenFile, offset: number, length: number, last: number): void {
    const { tree, row } = file
    const window = file.sequence.note(offset, length, last)
    const want = (chunk: number) => {
      const id = tree.chunkId(chunk)
      if (this.#cache.loadingCount < maxLoadsForPrefetch + (tree.chunkSize(chunk) > pageBytes ? 0 : 512) && !this.#cache.knows(id)) {
        this.#cache.request(id, tree.chunkSize(chunk))
      }
    }
    if (window > 0) {
      const start = tree.chunkStart(row)
      const end = Math.min(tree.chunkCount(row), last + 1 + window)
      for (let index = last + 1; index < end; index++) want(start + index)
      if (end === tree.chunkCount(row)) file.files.note(tree, row, want)
    }
  }

  #failed(file: OpenFile, id: Uint8Array, error: WireError): Errno {
    const hex = idHex(id)
    if (!this.#told.has(hex)) {
      if (this.#told.size >= maxToldFailures) this.#told.delete(this.#told.values().next().value!)
      this.#told.add(hex)
      this.#log.write('error', 'borg.fuse',
        `${shownText(file.archiveName)}: ${shownText(file.tree.pathOf(file.row))}: chunk ${hex} cannot be read: ${error.message}`)
    }
    return errnoByCode(error.code)
  }

  #takeBuffer(length: number): Buffer {
    if (length > spareBytes) return Buffer.allocUnsafeSlow(length)
    return this.#spare.pop() ?? Buffer.allocUnsafeSlow(spareBytes)
  }

  #giveBuffer(buffer: Buffer): void {
    if (buffer.length === spareBytes && this.#spare.length < spareBuffers) this.#spare.push(buffer)
  }
}

interface LateRead {
  readonly bytes: Buffer
  left: number
  readonly answer: (answer: Uint8Array | Errno) => void
  errno: Errno | undefined
}
