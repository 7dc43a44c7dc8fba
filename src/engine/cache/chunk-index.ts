/**
 * Which chunks the archives of a repository refer to, how often, and how large they are: Borg's chunks index, 44 bytes of
 * shared memory a bucket (refcount, size, csize; repository.md §5).
 */
import { idBytes } from '../constants.js'
import { maxValue } from '../hashindex/bucket-layout.js'
import { HashTable } from '../hashindex/hash-table.js'
import type { ChunkId } from '../ids.js'
import { native } from '../native.js'
import { referenceRow } from './item-references.js'

export interface ChunkSums {
  /** Over all references, those of part items included. */
  readonly totalSize: number
  readonly totalCsize: number
  readonly totalChunks: number
  /** Each chunk once. */
  readonly uniqueSize: number
  readonly uniqueCsize: number
  readonly uniqueChunks: number
}

export interface IndexedChunk {
  readonly refcount: number
  /** Plaintext bytes. */
  readonly size: number
  /** Stored bytes; 0 = unknown. */
  readonly csize: number
}

export interface ReleasedReferences {
  /** Over the references that count, as the index has them. */
  readonly size: number
  readonly csize: number
  /** Where the rows of references begin that were the last ones to their chunks. */
  readonly last: readonly number[]
  /** The row of the first reference to a chunk that nothing refers to: the index is wrong, and what was done to it to be given up. */
  readonly unknown: number | undefined
}

const refcountWord = 0, sizeWord = 1
/** Words of an entry, and the one that holds the stored bytes. */
export const chunkWords = 3, csizeWord = 2

export class ChunkIndex {
  /** The table as it lies in the file. */
  readonly table: HashTable

  constructor(table = new HashTable(3)) {
    this.table = table
  }

  /** Number of different chunks. */
  get size(): number {
    return this.table.size
  }

  /** 0 for a chunk that nothing refers to. */
  refcount(id: Uint8Array): number {
    const bucket = this.table.find(id)
    return bucket < 0 ? 0 : this.table.value(bucket, refcountWord)
  }

  get(id: Uint8Array): IndexedChunk | undefined {
    const { table } = this
    const bucket = table.find(id)
    return bucket < 0 ? undefined : { refcount: table.value(bucket, refcountWord), size: table.value(bucket, sizeWord), csize: table.value(bucket, csizeWord) }
  }

  /** `count` more references. They stop counting at Borg's largest value. An unknown csize (0) never replaces a known one. */
  add(id: Uint8Array, size: number, csize: number, count = 1): void {
    this.#addTo(this.table.find(id), id, 0, size, csize, count)
  }

  /** add for an id that lies in other bytes. */
  addAt(bytes: Uint8Array, offset: number, size: number, csize: number): void {
    this.#addTo(this.table.findAt(bytes, offset), bytes, offset, size, csize, 1)
  }

  #addTo(bucket: number, bytes: Uint8Array, offset: number, size: number, csize: number, count: number): void {
    const { table } = this
    if (bucket < 0) {
      table.set(bytes.subarray(offset, offset + idBytes), Math.min(count, maxValue), size, csize)
      return
    }
    table.setValue(bucket, refcountWord, Math.min(table.value(bucket, refcountWord) + count, maxValue))
    table.setValue(bucket, sizeWord, size)
    if (csize !== 0) table.setValue(bucket, csizeWord, csize)
  }

  /**
   * One reference less; the number left. At 0 the entry is still there: `remove` it together with the object. A count that
   * had stopped stays, as nobody knows how many there are. Releasing what nothing refers to is the caller's mistake.
   */
  release(id: ChunkId): number {
    const { table } = this
    const bucket = table.find(id)
    const count = bucket < 0 ? 0 : table.value(bucket, refcountWord)
    if (count === 0) throw new Error(`chunk ${id.toString('hex')} is released more often than it is referred to`)
    if (count >= maxValue) return maxValue
    table.setValue(bucket, refcountWord, count - 1)
    return count - 1
  }

  /**
   * release for an id that lies in other bytes: the bucket of its entry, whose count is now one less. -1 if it is not known. The
   * bucket is good for `remaining`, `sizeIn` and `csizeIn` until the next change.
   */
  releaseAt(bytes: Uint8Array, offset: number): number {
    const { table } = this
    const bucket = table.findAt(bytes, offset)
    if (bucket < 0) return -1
    const count = table.value(bucket, refcountWord)
    if (count === 0) return -1
    if (count < maxValue) table.setValue(bucket, refcountWord, count - 1)
    return bucket
  }

  /**
   * releaseAt for all references of a piece of an item stream, rows as ReferenceStream gives them. Entries that come to 0 are still
   * there: `last` says whose they are.
   */
  releaseMany(bytes: Buffer, references: Uint32Array, considerParts: boolean): ReleasedReferences {
    // What lies in its file is not in memory for native code to change.
    if (this.table.onFile) return this.plainReleaseMany(bytes, references, considerParts)
    const found = native().releaseReferences(this.table.bucketBytes, bytes, references, considerParts)
    const last: number[] = []
    for (let at = 2; at < found.length; at += 2) {
      const row = found[at]! * referenceRow.words
      if (found[at + 1] !== 0) return { size: found[0]!, csize: found[1]!, last, unknown: row }
      last.push(row)
    }
    return { size: found[0]!, csize: found[1]!, last, unknown: undefined }
  }

  /** The same in plain steps: what it is tested against. */
  plainReleaseMany(bytes: Buffer, references: Uint32Array, considerParts: boolean): ReleasedReferences {
    let size = 0, csize = 0
    const last: number[] = []
    for (let row = 0; row < references.length; row += referenceRow.words) {
      const bucket = this.releaseAt(bytes, references[row]!)
      if (bucket < 0) return { size, csize, last, unknown: row }
      if (considerParts || references[row + referenceRow.part] === 0) {
        size += this.sizeIn(bucket)
        csize += this.csizeIn(bucket)
      }
      if (this.remaining(bucket) === 0) last.push(row)
    }
    return { size, csize, last, unknown: undefined }
  }

  remaining(bucket: number): number {
    return this.table.value(bucket, refcountWord)
  }

  sizeIn(bucket: number): number {
    return this.table.value(bucket, sizeWord)
  }

  csizeIn(bucket: number): number {
    return this.table.value(bucket, csizeWord)
  }

  /** Forgets a chunk; false if it was not known. */
  remove(id: Uint8Array): boolean {
    return this.table.delete(id)
  }

  /** remove for chunks that are known, whose ids lie one behind the other: refcount, size and csize of each. */
  takeOut(ids: Uint8Array): Uint32Array {
    return this.table.takeOut(ids)
  }

  /** Adds all counts of another index, whose sizes count as the newer ones. */
  merge(other: ChunkIndex): void {
    this.table.addCounts(other.table)
  }

  summary(): ChunkSums {
    let totalSize = 0, totalCsize = 0, totalChunks = 0, uniqueSize = 0, uniqueCsize = 0
    const { table } = this
    for (const bucket of table.buckets()) {
      const [count, size, csize] = [table.value(bucket, refcountWord), table.value(bucket, sizeWord), table.value(bucket, csizeWord)]
      totalChunks += count
      totalSize += count * size
      totalCsize += count * csize
      uniqueSize += size
      uniqueCsize += csize
    }
    return { totalSize, totalCsize, totalChunks, uniqueSize, uniqueCsize, uniqueChunks: table.size }
  }

  /** Sizes of the chunks to which nobody but this part of `all` refers. */
  uniqueWithin(all: ChunkIndex): { readonly size: number; readonly csize: number; readonly chunks: number } {
    let size = 0, csize = 0, chunks = 0
    const { table } = this
    for (const bucket of table.buckets()) {
      if (all.refcount(table.idAt(bucket)) !== table.value(bucket, refcountWord)) continue
      size += table.value(bucket, sizeWord)
      csize += table.value(bucket, csizeWord)
      chunks++
    }
    return { size, csize, chunks }
  }

  /** Fills in sizes that no archive told (`create --no-cache-sync` leaves csize 0). */
  completeSizes(storedSize: (id: ChunkId) => number | undefined): void {
    const { table } = this
    for (const bucket of table.buckets()) if (table.value(bucket, csizeWord) === 0) table.setValue(bucket, csizeWord, storedSize(table.idAt(bucket)) ?? 0)
  }
}
