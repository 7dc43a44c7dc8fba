/** Reads staged files that are clones, wholly or in part: chunks from the cache or, later, from the engine, the rest from the spool. */
import { idHex } from '../../engine/ids.js'
import type { Log } from '../../engine/log.js'
import type { CachedChunk, ChunkCache } from '../chunk-cache.js'
import { type Answer, type Call, LATER, type ReadAnswer, type ReadBytes } from '../core.js'
import type { WireError } from '../engine-port.js'
import { errnoByCode } from '../errno.js'
import type { SequentialRead } from '../read-ahead.js'
import type { Errno } from '../types.js'
import type { Extents } from './extents.js'

/** Prefetches stop while so many loads are under way. */
const maxLoads = 8

export class ExtentReader {
  readonly #cache: () => ChunkCache
  readonly #log: Log

  constructor(cache: () => ChunkCache, log: Log) {
    this.#cache = cache
    this.#log = log
  }

  /** `into` is filled with what the spool has of [offset, offset + into.length), which lies within the file. As FsCore.read. */
  read(extents: Extents, sequence: SequentialRead, offset: number, into: Buffer, call: Call<ReadBytes>): Answer<ReadAnswer> {
    const cache = this.#cache()
    const end = offset + into.length
    const first = extents.find(offset)
    const missing: number[] = []
    let last = first
    for (; last < extents.count; last++) {
      const extent = extents.get(last)
      if (extent.at >= end) break
      const chunk = cache.get(extent.id, extent.size)
      if (chunk) copyPart(cache, chunk, extent, offset, into)
      else missing.push(last)
    }
    let answer: Answer<ReadAnswer> = into.length
    if (missing.length > 0) {
      answer = LATER
      // The reply's memory is gone when the chunks come. The file may change meanwhile: what was asked for is what it was.
      const late: LateRead = { bytes: Buffer.from(into), left: missing.length, errno: undefined, answer: call.defer() }
      for (const index of missing) {
        const extent = extents.get(index)
        const part = { at: extent.at, length: extent.length, from: extent.from }
        const id = Buffer.from(extent.id)
        cache.request(id, extent.size, (error, chunk) => this.#arrived(cache, late, id, error, chunk, part, offset))
      }
    }
    this.#readAhead(cache, extents, sequence, offset, into.length, last - 1)
    cache.flush()
    return answer
  }

  #arrived(cache: ChunkCache, late: LateRead, id: Buffer, error: WireError | undefined, chunk: CachedChunk | undefined, part: Part, offset: number): void {
    if (error) {
      late.errno = errnoByCode(error.code)
      this.#log.write('error', 'borg.fuse', `incoming: chunk ${idHex(id)} of a cloned file cannot be read: ${error.message}`)
    } else copyPart(cache, chunk!, part, offset, late.bytes)
    if (--late.left === 0) late.answer(late.errno ?? late.bytes)
  }

  #readAhead(cache: ChunkCache, extents: Extents, sequence: SequentialRead, offset: number, length: number, last: number): void {
    const window = sequence.note(offset, length, last)
    for (let index = last + 1; index < Math.min(extents.count, last + 1 + window) && cache.loadingCounts.long < maxLoads; index++) {
      const { id, size } = extents.get(index)
      if (!cache.knows(id)) cache.request(Buffer.from(id), size)
    }
  }
}

interface Part {
  readonly at: number
  readonly length: number
  readonly from: number
}

interface LateRead {
  readonly bytes: Buffer
  left: number
  errno: Errno | undefined
  readonly answer: (answer: ReadBytes | Errno) => void
}

function copyPart(cache: ChunkCache, chunk: CachedChunk, { at, length, from }: Part, offset: number, into: Buffer): void {
  const low = Math.max(at, offset), high = Math.min(at + length, offset + into.length)
  if (low < high) cache.copy(chunk, from + low - at, from + high - at, into, low - offset)
}
