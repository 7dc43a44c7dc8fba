/** The chunk references of an item stream, without making items of it. */
import { itemKeys } from '../archive/item-keys.js'
import { maxItemBytes } from '../archive/item-stream.js'
import { idBytes } from '../constants.js'
import { native } from '../native.js'
import { KnownKeys, MsgpackError, MsgReader } from '../msgpack.js'

/** Of native().itemReferences. */
const statusAll = 0, statusCut = 1
const headWords = 4

const knownKeys = new KnownKeys(itemKeys)

/** What the archive says of its size if it is older than Borg 1.2. */
export interface ItemSums {
  size: number
  csize: number
  nfiles: number
}

/** Told of each reference in the order of the stream: its id lies in `bytes` at `offset`, and only for the time of the call. */
export type ReferenceSink = (bytes: Buffer, offset: number, size: number, csize: number, isPart: boolean) => void

/** Told of the references of a piece of the stream at once: rows of four words as in native().itemReferences, good for the time of the call. */
export type ReferencesSink = (bytes: Buffer, references: Uint32Array) => void

/** Where in its row a reference has what. */
export const referenceRow = { words: 4, offset: 0, size: 1, csize: 2, part: 3 } as const

/** Item chunks in, references out, as many at a time as there are. */
export class ReferenceStream {
  readonly #sink: ReferencesSink
  readonly #maxBytes: number
  /** How many items with chunks there were, whole files and parts. */
  fileCount = 0
  partCount = 0
  #rest: Buffer[] = []
  #restBytes = 0
  /** Not worth trying again before there are so many bytes: an item may go on over many chunks of the stream. */
  #wanted = 0

  /** `maxBytes`: of an item; what claims more would be gathered in memory. */
  constructor(sink: ReferencesSink, maxBytes = maxItemBytes) {
    this.#sink = sink
    this.#maxBytes = maxBytes
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
    this.fileCount += files
    this.partCount += parts
    if (found.length > headWords) this.#sink(bytes, found.subarray(headWords))
    this.#rest = complete < bytes.length ? [bytes.subarray(complete)] : []
    this.#restBytes = bytes.length - complete
    if (this.#restBytes > this.#maxBytes) throw new MsgpackError(`an item of more than ${this.#maxBytes} bytes`)
    this.#wanted = complete === 0 ? this.#restBytes * 2 : 0
    // More bytes make a malformed item no better.
    if (status !== statusAll && status !== statusCut) throw new MsgpackError(`an item at offset ${complete} of a piece of the item stream is malformed`)
    return status === statusAll
  }
}

/** The same one by one, with their sums. */
export class ItemReferences {
  readonly #stream: ReferenceStream
  readonly #files = { size: 0, csize: 0 }
  readonly #parts = { size: 0, csize: 0 }

  constructor(sink: ReferenceSink) {
    this.#stream = new ReferenceStream((bytes, references) => {
      for (let at = 0; at < references.length; at += referenceRow.words) {
        const size = references[at + referenceRow.size]!, csize = references[at + referenceRow.csize]!, isPart = references[at + referenceRow.part] === 1
        sink(bytes, references[at]!, size, csize, isPart)
        const sums = isPart ? this.#parts : this.#files
        sums.size += size
        sums.csize += csize
      }
    })
  }

  /** Sums of whole files, and of the parts that checkpoints made. */
  get files(): ItemSums {
    return { ...this.#files, nfiles: this.#stream.fileCount }
  }

  get parts(): ItemSums {
    return { ...this.#parts, nfiles: this.#stream.partCount }
  }

  feed(chunk: Buffer): void {
    this.#stream.feed(chunk)
  }

  /** MsgpackError if the stream ends within an item. */
  end(): void {
    this.#stream.end()
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
