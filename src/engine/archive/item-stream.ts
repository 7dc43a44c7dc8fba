/** Items across the borders of the chunks they are stored in (archive.md §4, chunker.md §6). */
import { itemsChunkerParams } from '../constants.js'
import { buzhashTable } from '../chunker/buzhash-table.js'
import { MsgReader, type MsgValue, MsgpackError, MsgWriter } from '../msgpack.js'
import { native } from '../native.js'
import { decodeItem, encodeItem } from './item-codec.js'
import type { Item } from './item.js'

/** Decodes items of chunks given one after the other. Their buffers are views of memory that is not used again. */
export function decodeItems(chunks: AsyncIterable<Buffer>): AsyncGenerator<Item> {
  return decodeStream(chunks, decodeItem)
}

/** The same without understanding them: whatever values the stream consists of. */
export function decodeValues(chunks: AsyncIterable<Buffer>): AsyncGenerator<MsgValue> {
  return decodeStream(chunks, reader => reader.value())
}

async function* decodeStream<T>(chunks: AsyncIterable<Buffer>, decode: (reader: MsgReader) => T): AsyncGenerator<T> {
  let parts: Buffer[] = []
  let length = 0
  // Not worth trying again before there are so many bytes: an item that goes on over many chunks is not decoded anew with each.
  let wanted = 0
  const joined = (): Buffer => (parts.length === 1 ? parts[0]! : Buffer.concat(parts))
  for await (const chunk of chunks) {
    parts.push(chunk)
    length += chunk.length
    if (length < wanted) continue
    const bytes = joined()
    const reader = new MsgReader(bytes)
    let complete = 0
    for (;;) {
      let value: T
      try {
        if (reader.done) break
        value = decode(reader)
      } catch (error) {
        // An item that goes on in the next chunk.
        if (!(error instanceof MsgpackError && error.endsEarly)) throw error
        break
      }
      complete = reader.position
      yield value
    }
    parts = complete < bytes.length ? [bytes.subarray(complete)] : []
    length = bytes.length - complete
    wanted = complete === 0 ? length * 2 : 0
    if (length > maxItemBytes) throw new MsgpackError(`an item of more than ${maxItemBytes} bytes`)
  }
  const rest = new MsgReader(joined())
  while (!rest.done) yield decode(rest)
}

/** No item can be larger: its chunk list alone would exceed what one archive may hold. */
export const maxItemBytes = 1 << 30

/** Bytes that are cut at a time: some chunks, so that the workers have something to do side by side. */
const flushBytes = 512 << 10

/** Encodes items and cuts their stream; every cut depends only on bytes after the one before, so flushing in between changes nothing. */
export class ItemStreamWriter {
  /** What was not cut yet. */
  readonly #writer = new MsgWriter(flushBytes + 2 ** itemsChunkerParams[2])
  /** Length at which it is worth looking again. */
  #wanted = flushBytes
  readonly #table: Uint32Array
  readonly #store: (chunk: Buffer) => Promise<void>

  /** `store` is called with each chunk in order; the chunk's memory is used again as soon as the promise resolves. */
  constructor(seed: number, store: (chunk: Buffer) => Promise<void>) {
    this.#table = buzhashTable(seed)
    this.#store = store
  }

  /** A promise only when chunks were cut. */
  add(item: Item): Promise<void> | undefined {
    encodeItem(item, this.#writer)
    return this.#writer.length >= this.#wanted ? this.flush(false) : undefined
  }

  /** Cuts what is there; with `last` everything, else all but the last piece. */
  async flush(last: boolean): Promise<void> {
    const stream = this.#writer.bytes
    const [, minExp, maxExp, maskBits, window] = itemsChunkerParams
    const cuts = stream.length === 0 ? [] : native().buzhashCuts(this.#table, 2 ** minExp, 2 ** maxExp, 2 ** maskBits - 1, window, stream, 0, stream.length, last)
    let at = 0
    for (const cut of cuts) {
      await this.#store(stream.subarray(at, at + cut))
      at += cut
    }
    this.#writer.dropFirst(at)
    this.#wanted = this.#writer.length + flushBytes
  }
}
