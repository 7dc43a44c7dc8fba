/** The chunk references of an item stream, without making items of it. */
import { itemKeys } from '../archive/item-keys.js'
import { idBytes } from '../constants.js'
import { native } from '../native.js'
import { KnownKeys, MsgpackError, MsgReader } from '../msgpack.js'

/** Of native().itemReferences. */
const statusAll = 0, statusCut = 1
const headWords = 4, referenceWords = 4

const knownKeys = new KnownKeys(itemKeys)

/** What the archive says of its size if it is older than Borg 1.2. */
export interface ItemSums {
  size: number
  csize: number
  nfiles: number
}

/** Told of each reference in the order of the stream: its id lies in `bytes` at `offset`, and only for the time of the call. */
export type ReferenceSink = (bytes: Buffer, offset: number, size: number, csize: number, isPart: boolean) => void

export class ItemReferences {
  readonly #sink: ReferenceSink
  /** Sums of whole files, and of the parts that checkpoints made. */
  readonly files: ItemSums = { size: 0, csize: 0, nfiles: 0 }
  readonly parts: ItemSums = { size: 0, csize: 0, nfiles: 0 }
  #rest: Buffer[] = []
  #restBytes = 0
  /** Not worth trying again before there are so many bytes: an item may go on over many chunks of the stream. */
  #wanted = 0

  constructor(sink: ReferenceSink) {
    this.#sink = sink
  }

  /** The next chunk of the stream; its memory may be kept for a while. */
  feed(chunk: Buffer): void {
    this.#rest.push(chunk)
    this.#restBytes += chunk.length
    if (this.#restBytes >= this.#wanted) this.#parse()
  }

  /** MsgpackError if the stream ends within an item. */
  end(): void {
    if (!this.#parse()) throw new MsgpackError('the item stream ends within an item')
  }

  /** False if the last item is not whole yet. */
  #parse(): boolean {
    const bytes = this.#rest.length === 1 ? this.#rest[0]! : Buffer.concat(this.#rest)
    const found = native().itemReferences(bytes)
    const [status, complete, files, parts] = [found[0]!, found[1]!, found[2]!, found[3]!]
    this.files.nfiles += files
    this.parts.nfiles += parts
    for (let at = headWords; at < found.length; at += referenceWords) {
      const size = found[at + 1]!, csize = found[at + 2]!, isPart = found[at + 3] === 1
      this.#sink(bytes, found[at]!, size, csize, isPart)
      const sums = isPart ? this.parts : this.files
      sums.size += size
      sums.csize += csize
    }
    this.#rest = complete < bytes.length ? [bytes.subarray(complete)] : []
    this.#restBytes = bytes.length - complete
    this.#wanted = complete === 0 ? this.#restBytes * 2 : 0
    // More bytes make a malformed item no better.
    if (status !== statusAll && status !== statusCut) throw new MsgpackError(`an item at offset ${complete} of a piece of the item stream is malformed`)
    return status === statusAll
  }
}

/** What native().itemReferences gives, in plain steps: what it is tested against. */
export function plainItemReferences(bytes: Buffer): number[] {
  const reader = new MsgReader(bytes)
  const words: number[] = []
  let complete = 0, files = 0, parts = 0, cut = 0
  try {
    while (!reader.done) {
      let chunksAt = -1
      let isPart = false
      for (let count = reader.mapHeader(); count > 0; count--) {
        const key = reader.key(knownKeys)
        if (key === 'chunks' && reader.peek() !== 0xc0) chunksAt = reader.position
        else if (key === 'part') isPart = true
        reader.skip()
      }
      if (chunksAt >= 0) {
        const chunks = new MsgReader(bytes, chunksAt, reader.position)
        const own: number[] = []
        for (let count = chunks.arrayHeader(); count > 0; count--) {
          if (chunks.arrayHeader() !== 3) throw new MsgpackError('a chunk entry without exactly three values')
          own.push(chunks.skipRaw(idBytes), chunks.number(), chunks.number(), isPart ? 1 : 0)
        }
        words.push(...own)
        if (isPart) parts++
        else files++
      }
      complete = reader.position
    }
  } catch (error) {
    if (!(error instanceof MsgpackError)) throw error
    cut = 1
  }
  return [cut, complete, files, parts, ...words]
}
