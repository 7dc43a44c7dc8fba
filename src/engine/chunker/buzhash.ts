/** The content-defined chunker: native rolling hash over shared blocks that are filled ahead (chunker.md §4). */
import { native } from '../native.js'
import { type Block, Blocks } from './blocks.js'
import type { ByteSource, Chunker, ChunkerParams, CutChunk } from './chunker.js'
import { buzhashTable } from './buzhash-table.js'

const blockCount = 3
/**
 * A source holds one block while it waits for its next, and whoever consumes it may let it stand with two until another source is
 * through: with a block more than usual two sources never wait for each other. Further ones begin later.
 */
const sourcesAtOnce = 2, extraBlocks = 1

export class BuzhashChunker implements Chunker {
  readonly params: ChunkerParams
  readonly singleChunkBytes: number
  readonly #table: Uint32Array
  readonly #minSize: number
  readonly #maxSize: number
  readonly #mask: number
  readonly #window: number
  readonly #blocks: Blocks
  #sources = 0
  readonly #waiting: (() => void)[] = []

  /** `seed`: int32 of the key. `blockBytes` for tests. */
  constructor(params: Extract<ChunkerParams, readonly ['buzhash', ...unknown[]]>, seed: number, blockBytes?: number) {
    const [, minExp, maxExp, maskBits, window] = params
    this.params = params
    this.#table = buzhashTable(seed)
    this.#minSize = 2 ** minExp
    this.#maxSize = 2 ** maxExp
    this.#mask = 2 ** maskBits - 1
    this.#window = window
    this.singleChunkBytes = this.#minSize + window
    // Whatever is not cut at the end of a block, at most a maximal chunk and a window, moves to the next one. Memory that was
    // never touched is dear: blocks are no larger than they must be.
    this.#blocks = new Blocks(Math.max(blockBytes ?? 0, this.#maxSize + window + (4 << 20)), blockCount)
  }

  rest(): void {
    this.#blocks.rest()
  }

  async *split(source: ByteSource): AsyncIterable<CutChunk> {
    while (this.#sources >= sourcesAtOnce) await new Promise<void>(resolve => this.#waiting.push(resolve))
    this.#blocks.max = ++this.#sources > 1 ? blockCount + extraBlocks : blockCount
    try {
      yield* this.#split(source)
    } finally {
      this.#sources--
      this.#waiting.shift()?.()
    }
  }

  async *#split(source: ByteSource): AsyncIterable<CutChunk> {
    let { block, length } = await this.#blocks.takeFilled(source, this.#blocks.size)
    for (;;) {
      const last = length < block.bytes.length
      const cuts = await this.#cuts(block.bytes, length, last)
      let cutBytes = 0
      for (const cut of cuts) cutBytes += cut
      // The next block is filled while the consumer works on this one's chunks.
      const next = last ? undefined : this.#next(source, block, cutBytes, length)
      // An error of the source must not count as unhandled while chunks are still handed out.
      next?.catch(() => undefined)
      let at = 0
      let wanted = false
      try {
        for (const cut of cuts) {
          yield this.#chunk(block, at, cut)
          at += cut
        }
        wanted = true
      } finally {
        this.#blocks.release(block)
        // Not awaited: the source may give nothing for long, and the block be one of those that the consumer still has.
        if (!wanted) next?.then(ahead => this.#blocks.release(ahead.block), () => undefined)
      }
      if (!next) return
      ;({ block, length } = await next)
    }
  }

  #chunk(block: Block, at: number, length: number): CutChunk {
    block.users++
    let released = false
    return {
      bytes: block.bytes.subarray(at, at + length),
      release: () => {
        if (released) return
        released = true
        this.#blocks.release(block)
      },
    }
  }

  async #next(source: ByteSource, from: Block, start: number, end: number): Promise<{ block: Block; length: number }> {
    from.users++
    try {
      return await this.#blocks.takeFilled(source, this.#blocks.size, end - start, bytes => native().copyMemory(from.bytes.subarray(start, end), bytes))
    } finally {
      this.#blocks.release(from)
    }
  }

  #cuts(bytes: Buffer, length: number, last: boolean): Promise<Uint32Array> | Uint32Array {
    if (length === 0) return new Uint32Array(0)
    return native().buzhashCutsAsync(this.#table, this.#minSize, this.#maxSize, this.#mask, this.#window, bytes, 0, length, last)
  }
}

/** The same cuts in plain TypeScript: what the native code is tested against. Lengths of all chunks. */
export function buzhashCutsPlain(table: Uint32Array, minSize: number, maxSize: number, mask: number, window: number, data: Uint8Array): number[] {
  const cuts: number[] = []
  for (let position = 0; position < data.length; ) {
    const left = data.length - position
    if (left < minSize + window + 1) {
      cuts.push(left)
      break
    }
    const limit = Math.min(data.length, position + maxSize)
    let at = position + minSize
    let sum = buzhashPlain(table, data.subarray(at, at + window))
    while (at + window < limit && (sum & mask) !== 0) {
      sum = buzhashUpdatePlain(table, sum, data[at]!, data[at + window]!, window)
      at++
    }
    const cut = at + window >= limit ? limit : at
    cuts.push(cut - position)
    position = cut
  }
  return cuts
}

function rotate(value: number, by: number): number {
  const bits = by & 31
  return bits === 0 ? value >>> 0 : ((value << bits) | (value >>> (32 - bits))) >>> 0
}

export function buzhashPlain(table: Uint32Array, data: Uint8Array): number {
  let sum = 0
  for (const byte of data) sum = (rotate(sum, 1) ^ table[byte]!) >>> 0
  return sum
}

export function buzhashUpdatePlain(table: Uint32Array, sum: number, remove: number, add: number, length: number): number {
  return (rotate(sum, 1) ^ rotate(table[remove]!, length) ^ table[add]!) >>> 0
}
