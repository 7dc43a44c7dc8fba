/** Items across the borders of the chunks they are stored in (archive.md §4, chunker.md §6). */
import { itemsChunkerParams } from '../constants.js'
import { buzhashTable } from '../chunker/buzhash-table.js'
import { MsgReader, MsgpackError, MsgWriter } from '../msgpack.js'
import { native } from '../native.js'
import { decodeItem, encodeItem } from './item-codec.js'
import type { Item } from './item.js'

/** Decodes items of chunks given one after the other. Their buffers are views of memory that is not used again. */
export async function* decodeItems(chunks: AsyncIterable<Buffer>): AsyncGenerator<Item> {
  let rest: Buffer = Buffer.alloc(0)
  for await (const chunk of chunks) {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    const reader = new MsgReader(bytes)
    let complete = 0
    for (;;) {
      let item: Item
      try {
        if (reader.done) break
        item = decodeItem(reader)
      } catch (error) {
        // An item that goes on in the next chunk; real damage shows when there is none.
        if (!(error instanceof MsgpackError)) throw error
        break
      }
      complete = reader.position
      yield item
    }
    rest = bytes.subarray(complete)
    if (rest.length > maxItemBytes) throw new MsgpackError(`an item of more than ${maxItemBytes} bytes`)
  }
  if (rest.length > 0) decodeItem(new MsgReader(rest))
}

/** No item can be larger: its chunk list alone would exceed what one archive may hold. */
const maxItemBytes = 1 << 30

const flushBytes = 8 << 20

/** Encodes items and cuts their stream; every cut depends only on bytes after the one before, so flushing in between changes nothing. */
export class ItemStreamWriter {
  readonly #writer = new MsgWriter(1 << 20)
  readonly #table: Uint32Array
  #carried: Buffer = Buffer.alloc(0)
  readonly #store: (chunk: Buffer) => Promise<void>

  /** `store` is called with each chunk in order; the chunk is its own from then on. */
  constructor(seed: number, store: (chunk: Buffer) => Promise<void>) {
    this.#table = buzhashTable(seed)
    this.#store = store
  }

  /** A promise only when chunks were cut. */
  add(item: Item): Promise<void> | undefined {
    encodeItem(item, this.#writer)
    return this.#writer.length >= flushBytes ? this.flush(false) : undefined
  }

  /** Cuts what is there; with `last` everything, else all but the last piece. */
  async flush(last: boolean): Promise<void> {
    const stream = Buffer.concat([this.#carried, this.#writer.bytes])
    this.#writer.clear()
    const [, minExp, maxExp, maskBits, window] = itemsChunkerParams
    const cuts = stream.length === 0 ? [] : native().buzhashCuts(this.#table, 2 ** minExp, 2 ** maxExp, 2 ** maskBits - 1, window, stream, 0, stream.length, last)
    let at = 0
    for (const cut of cuts) {
      await this.#store(stream.subarray(at, at + cut))
      at += cut
    }
    this.#carried = stream.subarray(at)
  }
}
