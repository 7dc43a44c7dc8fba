/**
 * Borg's open-addressing hash table (repository.md §5, bucket-layout.ts). In memory its buckets lie exactly as in the file, and in shared
 * memory, so that other threads can look ids up without a copy: the first value word, which also marks empty and deleted buckets, is
 * stored last. A large table that comes from a file stays there (bucket-file.ts) until a good part of it was changed. Either way its
 * bytes are those of the file, outside the JavaScript heap.
 */
import { giveBackShared, letGoShared, outgrown } from '../shared-garbage.js'
import { IntegrityError } from '../errors.js'
import { type ChunkId, chunkId } from '../ids.js'
import { native } from '../native.js'
import { BucketFile } from './bucket-file.js'
import {
  absent, bucketsFor, countAfterDeletion, deletedMark, emptyMark, keyWords, maxValue, nextCount, packTableHeader, parseTableHeader, search, tooFewEmpty, tooFull,
} from './bucket-layout.js'
import { idBytes } from '../constants.js'

/** A table on file whose changes take more than this part of it is read into memory. */
const maxChangedPart = 1 / 8
const blockBytes = 8 << 20

/**
 * What another thread needs to look ids up: memory, or a file to read. Stale after the owner grew or changed the table: then ids
 * merely seem unknown.
 */
export interface SharedTable {
  readonly buffer: SharedArrayBuffer | undefined
  /** Of a table that lies in its file. Neither: nothing can be told, every id seems unknown. */
  readonly path: string | undefined
  readonly buckets: number
  readonly valueWords: number
}

/** The same of a table that is in memory. */
export interface MemoryTable extends SharedTable {
  readonly buffer: SharedArrayBuffer
}

export class HashTable {
  readonly valueWords: number
  readonly #stride: number
  /** Where the buckets are, unless they are in memory. */
  #file: BucketFile | undefined
  #words: Uint32Array
  #buffer: SharedArrayBuffer
  #buckets: number
  #entries = 0
  #empty: number
  /** Other threads that look into the file would still find what was deleted. */
  #deletedOnFile = false
  /** Who else may be looking into the memory: nobody, byte workers, or somebody who was given it for good. */
  #seenBy: 'nobody' | 'workers' | 'others' = 'nobody'
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
    const { entries, buckets } = parseTableHeader(header, valueWords, fileBytes)
    table.#buffer = new SharedArrayBuffer(buckets * table.#stride * 4)
    // In a process that goes on it takes the place of an older one.
    letGoShared(table.#buffer.byteLength)
    table.#words = new Uint32Array(table.#buffer)
    table.#buckets = buckets
    fill(new Uint8Array(table.#buffer))
    const [used, empty] = table.#countBlock(new Uint8Array(table.#buffer))
    table.#take(entries, used, empty)
    return table
  }

  /**
   * Leaves the buckets in the file at `path`, of which nothing is believed but what its header says: whatever is looked up may
   * throw IntegrityError or a host error, an id may seem unknown or to have other values. verify() ends that, and is due before
   * anything is changed. IntegrityError, host errors; `close` when done.
   */
  static onFile(path: string, valueWords: number): HashTable {
    const table = new HashTable(valueWords)
    table.#rest(new BucketFile(path, valueWords))
    table.#entries = table.#file!.header.entries
    table.#empty = 0
    return table
  }

  #rest(file: BucketFile): void {
    this.#file = file
    this.#buckets = file.header.buckets
    this.#buffer = new SharedArrayBuffer(0)
    this.#words = new Uint32Array(this.#buffer)
    this.#deletedOnFile = false
  }

  /** True if the buckets lie in a file: lookups can fail, memory is not what the table takes. */
  get onFile(): boolean {
    return this.#file !== undefined
  }

  /**
   * One pass over a table on file, unchanged so far: its bytes are shown to `see`, which throws if they are not what they should
   * be, or `end` does; the number of entries is compared. IntegrityError. A table of too few empty buckets is read into memory and
   * made anew.
   */
  verify(see: (bytes: Uint8Array) => void, end: () => void): void {
    const file = this.#file
    if (!file || file.verified) return
    let used = 0, empty = 0
    for (const block of file.blocks()) {
      see(block)
      const [usedHere, emptyHere] = this.#countBlock(block)
      used += usedHere
      empty += emptyHere
    }
    end()
    if (used !== this.#entries) throw wrongCount(used, this.#entries)
    if (tooFewEmpty(empty, this.#buckets)) this.#toMemory()
    this.#take(this.#entries, used, empty)
    file.verified = true
  }

  #countBlock(block: Uint8Array): [used: number, empty: number] {
    return native().countBuckets(block, this.#stride * 4, keyWords * 4, deletedMark)
  }

  #take(announced: number, used: number, empty: number): void {
    if (used !== announced) throw wrongCount(used, announced)
    this.#entries = used
    this.#empty = empty
    if (tooFewEmpty(empty, this.#buckets)) this.#resize(bucketsFor(used))
  }

  /** Reads a table on file, with its changes, into memory, where it stays. */
  #toMemory(): void {
    const file = this.#file
    if (!file) return
    const buffer = new SharedArrayBuffer(this.#buckets * this.#stride * 4)
    file.copyTo(new Uint8Array(buffer))
    this.#buffer = buffer
    this.#words = new Uint32Array(buffer)
    this.#file = undefined
    file.close()
  }

  /** The table was written to `path`, all of it: a table on file goes on from there, without changes. */
  movedTo(path: string): void {
    if (!this.#file) return
    const file = new BucketFile(path, this.valueWords)
    file.verified = true
    this.close()
    this.#rest(file)
  }

  /** Lets go of the file. After this a table on file must not be used. */
  close(): void {
    this.#file?.close()
  }

  get size(): number {
    return this.#entries
  }

  /** Bytes of all buckets. */
  get byteLength(): number {
    return this.#buckets * this.#stride * 4
  }

  /** 18 bytes before the buckets in a file. */
  header(): Buffer {
    return packTableHeader({ entries: this.#entries, buckets: this.#buckets }, this.valueWords)
  }

  /** All buckets; the table's memory, until the next change. */
  get bucketBytes(): Uint8Array {
    this.#toMemory()
    return new Uint8Array(this.#buffer)
  }

  /** All buckets in order, in pieces. Their memory may be used again for the next piece. Nothing may change meanwhile. */
  *blocks(): Generator<Uint8Array> {
    if (this.#file) return yield* this.#file.blocks()
    const bytes = new Uint8Array(this.#buffer)
    for (let at = 0; at < bytes.length; at += blockBytes) yield bytes.subarray(at, at + blockBytes)
  }

  *#wordBlocks(): Generator<Uint32Array> {
    if (!this.#file) return yield this.#words
    for (const { buffer, byteOffset, byteLength } of this.#file.blocks()) yield new Uint32Array(buffer, byteOffset, byteLength / 4)
  }

  shared(): SharedTable {
    if (this.#seenBy === 'nobody' && !this.#file) this.#seenBy = 'workers'
    const path = this.#deletedOnFile ? undefined : this.#file?.path
    return { buffer: this.#file ? undefined : this.#buffer, path, buckets: this.#buckets, valueWords: this.valueWords }
  }

  /** For passes over all of it in other orders than its own: reads a table on file into memory. */
  inMemory(): MemoryTable {
    this.#toMemory()
    this.#seenBy = 'others'
    return { buffer: this.#buffer, path: undefined, buckets: this.#buckets, valueWords: this.valueWords }
  }

  /** Bucket number of an id, -1 if absent. Valid until the next change. */
  find(id: Uint8Array): number {
    this.#keyBytes.set(id)
    return this.#search()
  }

  #search(): number {
    return this.#file ? this.#file.search(this.#key) : search(this.#words, this.#key, this.#buckets, this.#stride)
  }

  /** find for an id that lies in other bytes, without a view of it. */
  findAt(bytes: Uint8Array, offset: number): number {
    for (let index = 0; index < idBytes; index++) this.#keyBytes[index] = bytes[offset + index]!
    return this.#search()
  }

  has(id: Uint8Array): boolean {
    return this.find(id) >= 0
  }

  value(bucket: number, word: number): number {
    return this.#file ? this.#file.word(bucket, keyWords + word) : this.#words[bucket * this.#stride + keyWords + word]!
  }

  setValue(bucket: number, word: number, value: number): void {
    if (this.#file) this.#changeOnFile(bucket, word, value)
    else this.#words[bucket * this.#stride + keyWords + word] = value
  }

  #changeOnFile(bucket: number, word: number, value: number): void {
    const file = this.#file!
    if (!file.verified) throw new Error('a table on file is to be verified before it is changed')
    file.setWord(bucket, keyWords + word, value)
    if (file.changedBytes > maxChangedPart * this.byteLength) this.#toMemory()
  }

  /** Inserts or replaces. */
  set(id: Uint8Array, ...values: number[]): void {
    let bucket = this.find(id)
    if (bucket < 0) bucket = this.#insert(id)
    for (let word = this.valueWords - 1; word >= 0; word--) this.setValue(bucket, word, values[word]!)
  }

  /**
   * Inserts or replaces the key in words[at, at + 8) with two values, for tables that have two. Returns the first value it had
   * before, -1 if it is new. One search, for loops over millions of keys.
   */
  exchange(words: Uint32Array, at: number, first: number, second: number): number {
    for (let word = 0; word < keyWords; word++) this.#key[word] = words[at + word]!
    let bucket = this.#search()
    const older = bucket < 0 ? -1 : this.value(bucket, 0)
    if (bucket < 0) bucket = this.#insertKey()
    if (this.#file) {
      this.setValue(bucket, 1, second)
      this.setValue(bucket, 0, first)
      return older
    }
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
    if (tooFull(this.#entries + 1, this.#buckets)) this.#resize(nextCount(this.#buckets))
    if (this.#file) return this.#insertOnFile()
    const [words, stride] = [this.#words, this.#stride]
    let bucket = this.#key[0]! % this.#buckets
    for (;;) {
      const mark = words[bucket * stride + keyWords]!
      if (mark === deletedMark) break
      if (mark === emptyMark) {
        if (this.#tooFullAfterOneMore()) return this.#insertKey()
        break
      }
      if (++bucket === this.#buckets) bucket = 0
    }
    words.set(this.#key, bucket * stride)
    this.#entries++
    return bucket
  }

  #insertOnFile(): number {
    const file = this.#file!
    if (!file.verified) throw new Error('a table on file is to be verified before it is changed')
    const bucket = file.free(this.#key)
    if (file.word(bucket, keyWords) === emptyMark && this.#tooFullAfterOneMore()) return this.#insertKey()
    file.setKey(bucket, this.#key)
    this.#entries++
    return bucket
  }

  /** Takes an empty bucket. True if there are too many tombstones, by which every unsuccessful search gets long: the table was made anew. */
  #tooFullAfterOneMore(): boolean {
    if (!tooFewEmpty(--this.#empty, this.#buckets)) return false
    this.#empty++
    this.#resize(this.#buckets)
    return true
  }

  /** False if it was not there. */
  delete(id: Uint8Array): boolean {
    const bucket = this.find(id)
    if (bucket < 0) return false
    if (this.#file) this.#deletedOnFile = true
    this.setValue(bucket, 0, deletedMark)
    this.#entries--
    const buckets = countAfterDeletion(this.#entries, this.#buckets)
    if (buckets !== this.#buckets) this.#resize(buckets)
    return true
  }

  /**
   * Deletes the entries of ids that lie one behind the other. Their values, valueWords for each id; `absent` as the first one of an id that
   * has no entry, or had it deleted by an earlier one of these.
   */
  takeOut(ids: Uint8Array): Uint32Array {
    const words = new Uint32Array(ids.length / idBytes * this.valueWords)
    if (this.#file) this.#plainTakeOut(ids, words)
    else this.#entries -= native().takeOutBuckets(new Uint8Array(this.#buffer), this.valueWords, ids, words)
    let buckets = this.#buckets
    for (let fewer; (fewer = countAfterDeletion(this.#entries, buckets)) !== buckets; ) buckets = fewer
    if (buckets !== this.#buckets) this.#resize(buckets)
    return words
  }

  #plainTakeOut(ids: Uint8Array, words: Uint32Array): void {
    for (let number = 0; number * idBytes < ids.length; number++) {
      const bucket = this.findAt(ids, number * idBytes), to = number * this.valueWords
      if (bucket < 0) {
        words[to] = absent
        continue
      }
      for (let word = 0; word < this.valueWords; word++) words[to + word] = this.value(bucket, word)
      if (this.#file) this.#deletedOnFile = true
      this.setValue(bucket, 0, deletedMark)
      this.#entries--
    }
  }

  /**
   * Enters ids that lie one behind the other into a table of one value: values[0], values[stride] … Those that are there already stay as
   * they are: their numbers.
   */
  enterMany(ids: Uint8Array, values: Uint32Array, stride: number): Uint32Array {
    const count = ids.length / idBytes
    this.#toMemory()
    if (tooFull(this.#entries + count, this.#buckets)) this.#resize(bucketsFor(this.#entries + count))
    else if (tooFewEmpty(this.#empty - count, this.#buckets)) this.#resize(this.#buckets)
    const known = new Uint32Array(count)
    const [emptied, alreadyThere] = native().enterBuckets(new Uint8Array(this.#buffer), ids, values, stride, known)
    this.#empty -= emptied
    this.#entries += count - alreadyThere
    return known.subarray(0, alreadyThere)
  }

  #resize(buckets: number): void {
    this.#toMemory()
    const [old, oldBuffer, stride] = [this.#words, this.#buffer, this.#stride]
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
    // What a growing table leaves behind is as large as itself: it does not wait for a collection.
    if (this.#seenBy === 'nobody') giveBackShared(oldBuffer)
    else if (this.#seenBy === 'workers') outgrown.add(oldBuffer)
    this.#seenBy = 'nobody'
  }

  /** For each entry of `other`: adds its first word to ours, up to maxValue, and takes over its further words. */
  addCounts(other: HashTable): void {
    this.#toMemory()
    const stride = this.#stride
    for (const from of other.#wordBlocks()) {
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
  }

  /** Enters every id of another table, of whatever value size, with all values 0. Ids that are here already keep theirs. */
  addIds(other: MemoryTable): void {
    this.#toMemory()
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
    for (const from of this.#wordBlocks()) {
      for (let at = 0; at < from.length; at += this.#stride) {
        if (from[at + keyWords]! >= deletedMark) continue
        words.set(from.subarray(at, at + this.#stride), to)
        to += this.#stride
      }
    }
    return { header: packTableHeader({ entries: this.#entries, buckets: this.#entries }, this.valueWords), bytes }
  }

  /** Buckets of this table whose key `other` lacks (-1) or holds with another value (its bucket there). No change meanwhile. */
  *differences(other: HashTable): Generator<{ bucket: number; otherBucket: number }> {
    const stride = this.#stride
    let first = 0
    for (const words of this.#wordBlocks()) {
      for (let at = 0; at < words.length; at += stride) {
        if (words[at + keyWords]! >= deletedMark) continue
        for (let word = 0; word < keyWords; word++) other.#key[word] = words[at + word]!
        const otherBucket = other.#search()
        let word = 0
        if (otherBucket >= 0) while (word < this.valueWords && words[at + keyWords + word] === other.value(otherBucket, word)) word++
        if (word < this.valueWords) yield { bucket: first + at / stride, otherBucket }
      }
      first += words.length / stride
    }
  }

  #markAllEmpty(): void {
    for (let at = keyWords; at < this.#words.length; at += this.#stride) this.#words[at] = emptyMark
  }

  /** Numbers of the used buckets. Values may be changed meanwhile, nothing inserted or deleted. */
  *buckets(): Generator<number> {
    for (let bucket = 0; bucket < this.#buckets; bucket++) if (this.value(bucket, 0) < deletedMark) yield bucket
  }

  /** A view of a bucket's id, valid until the next change. */
  idAt(bucket: number): ChunkId {
    return chunkId(this.#file ? this.#file.key(bucket) : Buffer.from(this.#buffer, bucket * this.#stride * 4, idBytes))
  }

  /** Copies a bucket's id. */
  copyId(bucket: number, into: Uint8Array): void {
    if (this.#file) into.set(this.#file.key(bucket))
    else {
      const at = bucket * this.#stride
      for (let word = 0; word < keyWords; word++) this.#key[word] = this.#words[at + word]!
      into.set(this.#keyBytes)
    }
  }

  /** Ids in bucket order with their bucket numbers, from `start` on. The table must not change meanwhile. */
  *entries(start = 0): Generator<{ id: ChunkId; bucket: number }> {
    for (let bucket = start; bucket < this.#buckets; bucket++) {
      if (this.value(bucket, 0) < deletedMark) yield { id: chunkId(Buffer.from(this.idAt(bucket))), bucket }
    }
  }
}

function wrongCount(used: number, announced: number): IntegrityError {
  return new IntegrityError(`the index has ${used} entries instead of ${announced}`)
}
