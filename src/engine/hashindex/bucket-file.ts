/**
 * The buckets of a table that stay in their file (repository.md §5): read a page at a time where they are wanted, changed in memory
 * only. So what a table costs is what is looked at, not what it holds. Positional reads rather than a mapping: when the file system
 * loses the file (a network mount whose server replaced it, a bad block, a truncation) that is an error which somebody can
 * answer, and not the end of the process.
 *
 * Opened files are never written: every program replaces an index by rename.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { IntegrityError } from '../errors.js'
import { idBytes } from '../constants.js'
import { deletedMark, emptyMark, headerBytes, keyWords, parseTableHeader, type TableHeader } from './bucket-layout.js'

const bucketsPerPage = 96
/** Pages kept, each in the one place that its number gives it. */
const pageSlots = 512
/** Pages of a pass over the whole file. */
const blockPages = 256
/**
 * No search in a table that was built by the rules comes near so many buckets. A file that was not verified is not believed
 * beyond: it could make every search a pass over the file.
 */
const maxUnverifiedProbes = 1 << 16

export class BucketFile {
  readonly path: string
  readonly header: TableHeader
  readonly #fd: number
  #closed = false
  readonly #stride: number
  readonly #pageWords: number
  readonly #cache: Uint32Array
  readonly #cacheBytes: Uint8Array
  /** Number of the page in each slot, -1 for none. */
  readonly #slots = new Int32Array(pageSlots).fill(-1)
  /** By page number, whole pages. */
  readonly #changed = new Map<number, Uint32Array>()
  /** Where the page in hand lies. */
  #page = -1
  #words: Uint32Array
  #base = 0
  /** Set when the file's digest was found right: searches may then take as long as they take. */
  verified = false

  /** IntegrityError for a wrong header; host errors. */
  constructor(path: string, valueWords: number) {
    this.path = path
    this.#stride = keyWords + valueWords
    this.#pageWords = bucketsPerPage * this.#stride
    this.#fd = openSync(path, 'r')
    try {
      const header = Buffer.alloc(headerBytes)
      this.header = parseTableHeader(header.subarray(0, readSync(this.#fd, header, 0, headerBytes, 0)), valueWords, fstatSync(this.#fd).size)
    } catch (error) {
      closeSync(this.#fd)
      throw error
    }
    this.#cache = new Uint32Array(pageSlots * this.#pageWords)
    this.#cacheBytes = new Uint8Array(this.#cache.buffer)
    this.#words = this.#cache
  }

  /** Bytes of memory that changes take. */
  get changedBytes(): number {
    return this.#changed.size * this.#pageWords * 4
  }

  /** Bucket of a key of keyWords words, or -1. IntegrityError, host errors. */
  search(key: Uint32Array): number {
    const { buckets } = this.header
    const k0 = key[0]!
    let bucket = k0 % buckets
    const limit = this.verified ? buckets : Math.min(buckets, maxUnverifiedProbes)
    for (let probes = 0; probes < limit; probes++) {
      const at = this.#enter(bucket)
      const words = this.#words
      const mark = words[at + keyWords]!
      if (mark === emptyMark) return -1
      if (words[at] === k0 && mark !== deletedMark) {
        let word = 1
        while (word < keyWords && words[at + word] === key[word]) word++
        if (word === keyWords) return bucket
      }
      if (++bucket === buckets) bucket = 0
    }
    if (limit < buckets) throw new IntegrityError('the index has no end where a search should end')
    return -1
  }

  /** The first bucket that a key may be put into. There must be one. */
  free(key: Uint32Array): number {
    const { buckets } = this.header
    let bucket = key[0]! % buckets
    while (this.word(bucket, keyWords) < deletedMark) if (++bucket === buckets) bucket = 0
    return bucket
  }

  word(bucket: number, word: number): number {
    const at = this.#enter(bucket) + word
    return this.#words[at]!
  }

  setWord(bucket: number, word: number, value: number): void {
    const at = this.#change(bucket) + word
    this.#words[at] = value
  }

  setKey(bucket: number, key: Uint32Array): void {
    const at = this.#change(bucket)
    this.#words.set(key, at)
  }

  key(bucket: number): Buffer {
    const at = this.#enter(bucket)
    return Buffer.from(new Uint8Array(this.#words.buffer, this.#words.byteOffset + at * 4, idBytes))
  }

  /** All buckets in order, with the changes, in pieces whose memory is used again for the next one; the bytes as in the file. */
  *blocks(): Generator<Uint8Array> {
    const pageBytes = this.#pageWords * 4
    const block = new Uint8Array(blockPages * pageBytes)
    const end = this.header.buckets * this.#stride * 4
    for (let from = 0, page = 0; from < end; from += block.length, page += blockPages) {
      const piece = block.subarray(0, Math.min(block.length, end - from))
      this.#read(piece, from)
      if (this.#changed.size > 0) {
        for (let index = 0; index < blockPages; index++) {
          const changed = this.#changed.get(page + index)
          if (changed) piece.set(new Uint8Array(changed.buffer, 0, Math.min(pageBytes, piece.length - index * pageBytes)), index * pageBytes)
        }
      }
      yield piece
    }
  }

  /** All buckets with the changes into memory of their size. */
  copyTo(into: Uint8Array): void {
    const pageBytes = this.#pageWords * 4
    this.#read(into, 0)
    for (const [page, words] of this.#changed) into.set(new Uint8Array(words.buffer, 0, Math.min(pageBytes, into.length - page * pageBytes)), page * pageBytes)
  }

  /** Whatever would have to be read afterwards is an error: its descriptor may be another file's by then. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    closeSync(this.#fd)
  }

  /** Makes the bucket's page the one in hand; index of the bucket's first word in #words. */
  #enter(bucket: number): number {
    const page = Math.trunc(bucket / bucketsPerPage)
    if (page !== this.#page) this.#turnTo(page)
    return this.#base + (bucket - page * bucketsPerPage) * this.#stride
  }

  #change(bucket: number): number {
    const page = Math.trunc(bucket / bucketsPerPage)
    if (!this.#changed.has(page)) {
      this.#enter(bucket)
      this.#changed.set(page, this.#words.slice(this.#base, this.#base + this.#pageWords))
      this.#page = -1
    }
    return this.#enter(bucket)
  }

  #turnTo(page: number): void {
    const changed = this.#changed.get(page)
    if (changed) {
      this.#words = changed
      this.#base = 0
    } else {
      const slot = page % pageSlots
      this.#base = slot * this.#pageWords
      this.#words = this.#cache
      if (this.#slots[slot] !== page) {
        // Not before it is whole.
        this.#slots[slot] = this.#page = -1
        const pageBytes = this.#pageWords * 4
        const from = page * pageBytes
        this.#read(this.#cacheBytes.subarray(slot * pageBytes, slot * pageBytes + Math.min(pageBytes, this.header.buckets * this.#stride * 4 - from)), from)
        this.#slots[slot] = page
      }
    }
    this.#page = page
  }

  #read(into: Uint8Array, from: number): void {
    if (this.#closed) throw new Error('the table was closed')
    for (let done = 0; done < into.length; ) {
      const count = readSync(this.#fd, into, done, Math.min(into.length - done, 1 << 30), headerBytes + from + done)
      if (count === 0) throw new IntegrityError('the index ends early')
      done += count
    }
  }
}
