/** The chunk references of an item stream, without making items of it. */
import { chunkSize } from '../archive/item-codec.js'
import { itemKeys } from '../archive/item-keys.js'
import { KnownKeys, MsgpackError, MsgReader } from '../msgpack.js'
import type { ChunkIndex } from './chunk-index.js'

const knownKeys = new KnownKeys(itemKeys)

/** What the archive says of its size if it is older than Borg 1.2. */
export interface ItemSums {
  size: number
  csize: number
  nfiles: number
}

export class ItemReferences {
  readonly #index: ChunkIndex
  /** Sums of whole files, and of the parts that checkpoints made. */
  readonly files: ItemSums = { size: 0, csize: 0, nfiles: 0 }
  readonly parts: ItemSums = { size: 0, csize: 0, nfiles: 0 }
  #rest: Buffer[] = []
  #restBytes = 0
  /** Not worth trying again before there are so many bytes: an item may go on over many chunks of the stream. */
  #wanted = 0

  constructor(index: ChunkIndex) {
    this.#index = index
  }

  /** The next chunk of the stream; its memory may be kept for a while. */
  feed(chunk: Buffer): void {
    this.#rest.push(chunk)
    this.#restBytes += chunk.length
    if (this.#restBytes >= this.#wanted) this.#parse()
  }

  /** MsgpackError if the stream ends within an item. */
  end(): void {
    const problem = this.#parse()
    if (problem) throw problem
  }

  #parse(): Error | undefined {
    const bytes = this.#rest.length === 1 ? this.#rest[0]! : Buffer.concat(this.#rest)
    const reader = new MsgReader(bytes)
    let complete = 0
    let problem: Error | undefined
    try {
      while (!reader.done) {
        this.#item(reader)
        complete = reader.position
      }
    } catch (error) {
      if (!(error instanceof MsgpackError && error.endsEarly)) throw error
      problem = error
    }
    this.#rest = complete < bytes.length ? [bytes.subarray(complete)] : []
    this.#restBytes = bytes.length - complete
    this.#wanted = complete === 0 ? this.#restBytes * 2 : 0
    return problem
  }

  #item(reader: MsgReader): void {
    let chunksAt = -1
    let isPart = false
    for (let count = reader.mapHeader(); count > 0; count--) {
      const key = reader.key(knownKeys)
      if (key === 'chunks' && reader.peek() !== 0xc0) chunksAt = reader.position
      else if (key === 'part') isPart = true
      reader.skip()
    }
    if (chunksAt < 0) return
    // Only now is it certain that the whole item is here and nothing is counted twice.
    const chunks = new MsgReader(reader.bytes, chunksAt, reader.position)
    const sums = isPart ? this.parts : this.files
    sums.nfiles++
    for (let count = chunks.arrayHeader(); count > 0; count--) {
      if (chunks.arrayHeader() !== 3) throw new MsgpackError('a chunk entry without exactly three values')
      const id = chunks.raw()
      if (id.length !== 32) throw new MsgpackError(`a chunk id of ${id.length} bytes`)
      const [size, csize] = [chunkSize(chunks), chunkSize(chunks)]
      this.#index.add(id, size, csize)
      sums.size += size
      sums.csize += csize
    }
  }
}
