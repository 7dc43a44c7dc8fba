/**
 * What the files cache knows of its files, a record each, in blocks that never move, outside the JavaScript heap. Native order of bytes:
 *
 *   0 inode (64 bits)   8 ctime or mtime, ns (64 bits, signed)   16 size (low, high word)   24 age   28 number of chunks   32 their ids
 *
 * A record is named by where it lies, in units of 8 bytes, as one 32-bit number that fits a hash table.
 */
import { idBytes } from '../constants.js'
import { type ChunkId, chunkId } from '../ids.js'
import type { MsgWriter } from '../msgpack.js'

/** In the place of an age: the file was seen in this run. */
export const seen = 0xffffffff
export const maxAge = 0xfffffffe

const headBytes = 32, unitBytes = 8
/** A block never has more, unless it is that of one record. */
const blockBytes = 16 << 20, firstBlockBytes = 1 << 16
const blockUnits = blockBytes / unitBytes
/** Larger numbers mark empty buckets. 34 GB, some 500 million files. */
const maxRecord = 0xfffffbff
/** No number of a record. */
export const full = -1

interface Block {
  readonly bytes: Buffer
  readonly words: Uint32Array
  readonly longs: BigInt64Array
}

export class FileRecords {
  /** Each stands for blockUnits numbers; one that is larger leaves the places free that it needs. */
  readonly #blocks: Block[] = []
  #last: Block | undefined
  #used = 0

  /** Makes one, whose ids are the caller's to set; `full` if there is no number for it any more. */
  add(ino: bigint, size: number, cmtimeNs: bigint, age: number, count: number): number {
    const length = headBytes + count * idBytes
    if (!this.#last || this.#used + length > this.#last.bytes.length) this.#grow(length)
    const first = this.#firstOfLast + this.#used / unitBytes
    if (first > maxRecord) return full
    const { words, longs } = this.#last!
    const at = this.#used / unitBytes
    longs[at] = ino
    longs[at + 1] = cmtimeNs
    words[2 * at + 4] = size % 2 ** 32
    words[2 * at + 5] = Math.floor(size / 2 ** 32)
    words[2 * at + 6] = age
    words[2 * at + 7] = count
    this.#used += length
    return first
  }

  /** Number of the first unit of the last block. */
  #firstOfLast = 0

  #grow(length: number): void {
    // The first ones are small: most caches are.
    const bytes = Buffer.allocUnsafeSlow(Math.max(length, Math.min(blockBytes, firstBlockBytes << Math.min(8, 2 * this.#blocks.length))))
    this.#firstOfLast = this.#blocks.length * blockUnits
    this.#last = { bytes, words: new Uint32Array(bytes.buffer), longs: new BigInt64Array(bytes.buffer) }
    for (let room = 0; room < bytes.length; room += blockBytes) this.#blocks.push(this.#last)
    this.#used = 0
  }

  /** The block of a record; `#at` says where in it the record begins, in units. */
  #find(record: number): Block {
    let number = Math.floor(record / blockUnits)
    const block = this.#blocks[number]!
    this.#at = record % blockUnits
    // A record that begins in a large block begins it.
    while (number > 0 && this.#blocks[number - 1] === block) number--, (this.#at += blockUnits)
    return block
  }
  #at = 0

  ino(record: number): bigint {
    const { longs } = this.#find(record)
    return BigInt.asUintN(64, longs[this.#at]!)
  }

  cmtimeNs(record: number): bigint {
    const { longs } = this.#find(record)
    return longs[this.#at + 1]!
  }

  size(record: number): number {
    const { words } = this.#find(record)
    return words[2 * this.#at + 4]! + words[2 * this.#at + 5]! * 2 ** 32
  }

  /** In runs, or `seen`. */
  age(record: number): number {
    const { words } = this.#find(record)
    return words[2 * this.#at + 6]!
  }

  count(record: number): number {
    const { words } = this.#find(record)
    return words[2 * this.#at + 7]!
  }

  /** A view. */
  id(record: number, index: number): ChunkId {
    const { bytes } = this.#find(record)
    const from = this.#at * unitBytes + headBytes + index * idBytes
    return chunkId(bytes.subarray(from, from + idBytes))
  }

  /** Copies the id that lies in `from` at `offset`. */
  setId(record: number, index: number, from: Uint8Array, offset: number): void {
    const { bytes } = this.#find(record)
    const to = this.#at * unitBytes + headBytes + index * idBytes
    for (let byte = 0; byte < idBytes; byte++) bytes[to + byte] = from[offset + byte]!
  }

  /** An array of all ids. */
  writeIds(record: number, writer: MsgWriter): void {
    const { bytes } = this.#find(record)
    const count = this.count(record), from = this.#at * unitBytes + headBytes
    writer.arrayHeader(count)
    for (let index = 0; index < count; index++) writer.rawPart(bytes, from + index * idBytes, idBytes)
  }

  /** It was seen in this run, with this inode. */
  confirm(record: number, ino: bigint): void {
    const { words, longs } = this.#find(record)
    words[2 * this.#at + 6] = seen
    longs[this.#at] = ino
  }
}
