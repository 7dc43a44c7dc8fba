/**
 * Borg's open-addressing hash table (repository.md §5) in memory exactly as in the file: B buckets of a 32-byte key and
 * `valueWords` uint32, little endian. It lies in shared memory, so that other threads can look ids up without a copy:
 * the first value word, which also marks empty and deleted buckets, is stored last.
 */
import { idBytes } from '../constants.js'
import { IntegrityError } from '../errors.js'
import { type ChunkId, chunkId } from '../ids.js'

const keyWords = idBytes / 4
const emptyMark = 0xffffffff
const deletedMark = 0xfffffffe
export const maxValue = 0xfffffbff
export const headerBytes = 18
const magic = 'BORG_IDX'
const maxLoad = 0.75, minLoad = 0.25, minEmpty = 0.07

const bucketCounts = [
  1031, 2053, 4099, 8209, 16411, 32771, 65537, 131101, 262147, 445649, 757607, 1287917, 2189459, 3065243, 4291319, 6007867, 8410991,
  11775359, 16485527, 23079703, 27695653, 33234787, 39881729, 47858071, 57429683, 68915617, 82698751, 99238507, 119086189, 144378011,
  157223263, 173476439, 190253911, 209915011, 230493629, 253169431, 278728861, 306647623, 337318939, 370742809, 408229973, 449387209,
  493428073, 543105119, 596976533, 657794869, 722676499, 795815791, 874066969, 962279771, 1057701643, 1164002657, 1280003147, 1407800297,
  1548442699, 1703765389, 1873768367, 2062383853,
]

/** What another thread needs to look ids up. Stale after the owner grew the table: then ids merely seem unknown. */
export interface SharedTable {
  readonly buffer: SharedArrayBuffer
  readonly buckets: number
  readonly valueWords: number
}

/** Looks ids up in a table that another thread owns. */
export class SharedTableReader {
  readonly #words: Uint32Array
  readonly #buckets: number
  readonly #stride: number
  readonly #key = new Uint32Array(keyWords)
  readonly #keyBytes = new Uint8Array(this.#key.buffer)

  constructor(shared: SharedTable) {
    this.#words = new Uint32Array(shared.buffer)
    this.#buckets = shared.buckets
    this.#stride = keyWords + shared.valueWords
  }

  has(id: Uint8Array): boolean {
    this.#keyBytes.set(id)
    return search(this.#words, this.#key, this.#buckets, this.#stride) >= 0
  }
}

/** Bucket of the key, or -1. */
function search(words: Uint32Array, key: Uint32Array, buckets: number, stride: number): number {
  const [k0, k1] = [key[0]!, key[1]!]
  let bucket = k0 % buckets
  for (let probes = 0; probes < buckets; probes++) {
    const at = bucket * stride
    const mark = words[at + keyWords]!
    if (mark === emptyMark) return -1
    if (words[at] === k0 && words[at + 1] === k1 && mark !== deletedMark) {
      let word = 2
      while (word < keyWords && words[at + word] === key[word]) word++
      if (word === keyWords) return bucket
    }
    if (++bucket === buckets) bucket = 0
  }
  return -1
}

export class HashTable {
  readonly valueWords: number
  readonly #stride: number
  #words: Uint32Array
  #buffer: SharedArrayBuffer
  #buckets: number
  #entries = 0
  #empty: number
  readonly #key = new Uint32Array(keyWords)
  readonly #keyBytes = new Uint8Array(this.#key.buffer)

  constructor(valueWords: number, capacity = 0) {
    this.valueWords = valueWords
    this.#stride = keyWords + valueWords
    this.#buckets = bucketsFor(capacity)
    this.#buffer = new SharedArrayBuffer(this.#buckets * this.#stride * 4)
    this.#words = new Uint32Array(this.#buffer)
    this.#empty = this.#buckets
    this.#markAllEmpty()
  }

  /** Takes over the buckets of a file, which `fill` reads into the memory it is given. IntegrityError if the header is wrong. */
  static load(valueWords: number, header: Buffer, fileBytes: number, fill: (into: Uint8Array) => void): HashTable {
    const table = new HashTable(valueWords)
    const [entries, buckets] = [header.readInt32LE(8), header.readInt32LE(12)]
    const bytes = buckets * table.#stride * 4
    if (header.toString('latin1', 0, 8) !== magic) throw new IntegrityError('the index does not begin with BORG_IDX')
    if (header[16] !== idBytes || header[17] !== valueWords * 4) throw new IntegrityError('the index has keys or values of another size')
    if (buckets < 1 || entries < 0 || entries > buckets || fileBytes !== headerBytes + bytes) throw new IntegrityError('the length of the index does not fit its header')
    table.#buffer = new SharedArrayBuffer(bytes)
    table.#words = new Uint32Array(table.#buffer)
    table.#buckets = buckets
    fill(new Uint8Array(table.#buffer))
    table.#count(entries)
    return table
  }

  #count(announced: number): void {
    let used = 0, empty = 0
    for (let at = keyWords; at < this.#words.length; at += this.#stride) {
      const mark = this.#words[at]!
      if (mark === emptyMark) empty++
      else if (mark !== deletedMark) used++
    }
    if (used !== announced) throw new IntegrityError(`the index has ${used} entries instead of ${announced}`)
    this.#entries = used
    this.#empty = empty
    // A file without any empty bucket would make every search for an unknown key a full pass.
    if (empty === 0) this.#resize(bucketsFor(used))
  }

  get size(): number {
    return this.#entries
  }

  /** 18 bytes before the buckets in a file. */
  header(): Buffer {
    const header = Buffer.alloc(headerBytes)
    header.write(magic, 'latin1')
    header.writeInt32LE(this.#entries, 8)
    header.writeInt32LE(this.#buckets, 12)
    header[16] = idBytes
    header[17] = this.valueWords * 4
    return header
  }

  /** All buckets; the table's memory. */
  get bucketBytes(): Uint8Array {
    return new Uint8Array(this.#buffer)
  }

  shared(): SharedTable {
    return { buffer: this.#buffer, buckets: this.#buckets, valueWords: this.valueWords }
  }

  /** Bucket number of an id, -1 if absent. Valid until the next change. */
  find(id: Uint8Array): number {
    this.#keyBytes.set(id)
    return search(this.#words, this.#key, this.#buckets, this.#stride)
  }

  /** find for an id that lies in other bytes, without a view of it. */
  findAt(bytes: Uint8Array, offset: number): number {
    for (let index = 0; index < idBytes; index++) this.#keyBytes[index] = bytes[offset + index]!
    return search(this.#words, this.#key, this.#buckets, this.#stride)
  }

  has(id: Uint8Array): boolean {
    return this.find(id) >= 0
  }

  value(bucket: number, word: number): number {
    return this.#words[bucket * this.#stride + keyWords + word]!
  }

  setValue(bucket: number, word: number, value: number): void {
    this.#words[bucket * this.#stride + keyWords + word] = value
  }

  /** Inserts or replaces. */
  set(id: Uint8Array, ...values: number[]): void {
    let bucket = this.find(id)
    if (bucket < 0) bucket = this.#insert(id)
    const at = bucket * this.#stride + keyWords
    for (let word = this.valueWords - 1; word >= 0; word--) this.#words[at + word] = values[word]!
  }

  /**
   * Inserts or replaces the key in words[at, at + 8) with two values, for tables that have two. Returns the first value it had
   * before, -1 if it is new. One search, for loops over millions of keys.
   */
  exchange(words: Uint32Array, at: number, first: number, second: number): number {
    for (let word = 0; word < keyWords; word++) this.#key[word] = words[at + word]!
    let bucket = search(this.#words, this.#key, this.#buckets, this.#stride)
    const older = bucket < 0 ? -1 : this.#words[bucket * this.#stride + keyWords]!
    if (bucket < 0) bucket = this.#insertKey()
    const to = bucket * this.#stride + keyWords
    this.#words[to + 1] = second
    this.#words[to] = first
    return older
  }

  #insert(id: Uint8Array): number {
    this.#keyBytes.set(id)
    return this.#insertKey()
  }

  /** Makes a bucket for the key in #key; its values are the caller's to set. */
  #insertKey(): number {
    if (this.#entries + 1 > maxLoad * this.#buckets) this.#resize(nextCount(this.#buckets))
    const [words, stride] = [this.#words, this.#stride]
    let bucket = this.#key[0]! % this.#buckets
    for (;;) {
      const mark = words[bucket * stride + keyWords]!
      if (mark === deletedMark) break
      if (mark === emptyMark) {
        if (--this.#empty < 1 + minEmpty * this.#buckets) {
          // Too many tombstones: every unsuccessful search would get long.
          this.#empty++
          this.#resize(this.#buckets)
          return this.#insertKey()
        }
        break
      }
      if (++bucket === this.#buckets) bucket = 0
    }
    words.set(this.#key, bucket * stride)
    this.#entries++
    return bucket
  }

  /** False if it was not there. */
  delete(id: Uint8Array): boolean {
    const bucket = this.find(id)
    if (bucket < 0) return false
    this.#words[bucket * this.#stride + keyWords] = deletedMark
    this.#entries--
    if (this.#entries < minLoad * this.#buckets && this.#buckets > bucketCounts[0]!) this.#resize(previousCount(this.#buckets))
    return true
  }

  #resize(buckets: number): void {
    const [old, stride] = [this.#words, this.#stride]
    this.#buckets = buckets
    this.#buffer = new SharedArrayBuffer(buckets * stride * 4)
    this.#words = new Uint32Array(this.#buffer)
    this.#markAllEmpty()
    this.#empty = buckets - this.#entries
    const words = this.#words
    for (let from = 0; from < old.length; from += stride) {
      if (old[from + keyWords]! >= deletedMark) continue
      let bucket = old[from]! % buckets
      while (words[bucket * stride + keyWords] !== emptyMark) if (++bucket === buckets) bucket = 0
      for (let word = 0; word < stride; word++) words[bucket * stride + word] = old[from + word]!
    }
  }

  /** For each entry of `other`: adds its first word to ours, up to maxValue, and takes over its further words. */
  addCounts(other: HashTable): void {
    const [from, stride] = [other.#words, this.#stride]
    for (let at = 0; at < from.length; at += stride) {
      const count = from[at + keyWords]!
      if (count >= deletedMark) continue
      for (let word = 0; word < keyWords; word++) this.#key[word] = from[at + word]!
      let bucket = search(this.#words, this.#key, this.#buckets, stride)
      const isNew = bucket < 0
      if (isNew) bucket = this.#insertKey()
      const to = bucket * stride + keyWords
      for (let word = 1; word < this.valueWords; word++) this.#words[to + word] = from[at + keyWords + word]!
      this.#words[to] = Math.min(maxValue, isNew ? count : this.#words[to]! + count)
    }
  }

  /** Enters every id of another table, of whatever value size, with all values 0. Ids that are here already keep theirs. */
  addIds(other: SharedTable): void {
    const from = new Uint32Array(other.buffer)
    const [fromStride, stride] = [keyWords + other.valueWords, this.#stride]
    for (let at = 0; at < from.length; at += fromStride) {
      if (from[at + keyWords]! >= deletedMark) continue
      for (let word = 0; word < keyWords; word++) this.#key[word] = from[at + word]!
      if (search(this.#words, this.#key, this.#buckets, stride) >= 0) continue
      const to = this.#insertKey() * stride + keyWords
      for (let word = this.valueWords - 1; word >= 0; word--) this.#words[to + word] = 0
    }
  }

  /** The used buckets one after the other, as a file holds them that is only read through. */
  compact(): { readonly header: Buffer; readonly bytes: Uint8Array } {
    const bytes = new Uint8Array(this.#entries * this.#stride * 4)
    const words = new Uint32Array(bytes.buffer)
    let to = 0
    for (let at = 0; at < this.#words.length; at += this.#stride) {
      if (this.#words[at + keyWords]! >= deletedMark) continue
      words.set(this.#words.subarray(at, at + this.#stride), to)
      to += this.#stride
    }
    const header = this.header()
    header.writeInt32LE(this.#entries, 12)
    return { header, bytes }
  }

  /** Buckets of this table whose key `other` lacks (-1) or holds with another value (its bucket there). No change meanwhile. */
  *differences(other: HashTable): Generator<{ bucket: number; otherBucket: number }> {
    const [words, theirs, stride] = [this.#words, other.#words, this.#stride]
    for (let at = 0; at < words.length; at += stride) {
      if (words[at + keyWords]! >= deletedMark) continue
      for (let word = 0; word < keyWords; word++) this.#key[word] = words[at + word]!
      const otherBucket = search(theirs, this.#key, other.#buckets, stride)
      let word = keyWords
      if (otherBucket >= 0) while (word < stride && words[at + word] === theirs[otherBucket * stride + word]) word++
      if (word < stride) yield { bucket: at / stride, otherBucket }
    }
  }

  #markAllEmpty(): void {
    for (let at = keyWords; at < this.#words.length; at += this.#stride) this.#words[at] = emptyMark
  }

  /** Numbers of the used buckets. Nothing may be inserted or deleted meanwhile. */
  *buckets(): Generator<number> {
    for (let bucket = 0; bucket < this.#buckets; bucket++) if (this.#words[bucket * this.#stride + keyWords]! < deletedMark) yield bucket
  }

  /** A view of a bucket's id, valid until the next change. */
  idAt(bucket: number): ChunkId {
    return chunkId(Buffer.from(this.#buffer, bucket * this.#stride * 4, idBytes))
  }

  /** Ids in bucket order with their bucket numbers, from `start` on. The table must not change meanwhile. */
  *entries(start = 0): Generator<{ id: ChunkId; bucket: number }> {
    const bytes = new Uint8Array(this.#buffer)
    for (let bucket = start; bucket < this.#buckets; bucket++) {
      if (this.#words[bucket * this.#stride + keyWords]! >= deletedMark) continue
      const at = bucket * this.#stride * 4
      yield { id: chunkId(Buffer.from(bytes.subarray(at, at + idBytes))), bucket }
    }
  }
}

function bucketsFor(entries: number): number {
  return bucketCounts.find(count => entries <= maxLoad * count) ?? bucketCounts.at(-1)!
}

function nextCount(buckets: number): number {
  return bucketCounts.find(count => count > buckets) ?? buckets * 2
}

function previousCount(buckets: number): number {
  return bucketCounts.findLast(count => count < buckets) ?? buckets
}
