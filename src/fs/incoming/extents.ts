/**
 * The stretches of a staged file that are chunks of the repository: what was cloned and not written since. They lie over the spool
 * file, which holds everything else. Sorted, without overlaps, packed in one buffer, so that a clone of a million chunks costs megabytes:
 *
 *   row: offset in the file f64le | length u32le | first byte within the chunk u32le | chunk: id 32, size u32le, csize u32le
 */
import type { ArchiveTree } from '../archive-tree.js'

export const extentBytes = 56
const lengthAt = 8, fromAt = 12, idAt = 16, sizeAt = 48, csizeAt = 52

export interface Extent {
  /** Offset in the file. */
  readonly at: number
  readonly length: number
  /** First byte within the chunk. */
  readonly from: number
  /** 32 bytes; memory of the list. */
  readonly id: Buffer
  /** Plaintext and stored bytes of the whole chunk; csize 0 = unknown. */
  readonly size: number
  readonly csize: number
}

export class Extents {
  #rows: Buffer
  #count: number
  /** Undefined: to be summed up anew. */
  #bytes: number | undefined

  /** `packed`: rows as `rows` gives them, which are copied. */
  constructor(packed: Uint8Array = new Uint8Array(0)) {
    this.#count = Math.floor(packed.length / extentBytes)
    this.#rows = Buffer.from(packed)
  }

  get count(): number {
    return this.#count
  }

  /** The packed rows; memory of the list. */
  get rows(): Buffer {
    return this.#rows.subarray(0, this.#count * extentBytes)
  }

  /** Bytes of the file that they hold. */
  get bytes(): number {
    if (this.#bytes === undefined) {
      this.#bytes = 0
      for (let index = 0; index < this.#count; index++) this.#bytes += this.#length(index)
    }
    return this.#bytes
  }

  /** Whether these are rows as this class makes them: what was read from a file may be anything. */
  get isSound(): boolean {
    let end = 0
    for (let index = 0; index < this.#count; index++) {
      const { at, length, from, size } = this.get(index)
      if (!Number.isSafeInteger(at) || at < end || length === 0 || from + length > size) return false
      end = at + length
    }
    return Number.isSafeInteger(end)
  }

  /** Offset behind the last one. */
  get end(): number {
    return this.#count === 0 ? 0 : this.#at(this.#count - 1) + this.#length(this.#count - 1)
  }

  get(index: number): Extent {
    const row = index * extentBytes
    return {
      at: this.#at(index), length: this.#length(index), from: this.#rows.readUInt32LE(row + fromAt), id: this.#rows.subarray(row + idAt, row + sizeAt),
      size: this.#rows.readUInt32LE(row + sizeAt), csize: this.#rows.readUInt32LE(row + csizeAt),
    }
  }

  some(test: (extent: Extent) => boolean): boolean {
    for (let index = 0; index < this.#count; index++) if (test(this.get(index))) return true
    return false
  }

  /** Index of the first extent that ends behind `offset`; `count` if there is none. */
  find(offset: number): number {
    let low = 0, high = this.#count
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#at(middle) + this.#length(middle) <= offset) low = middle + 1
      else high = middle
    }
    return low
  }

  overlaps(start: number, end: number): boolean {
    const index = this.find(start)
    return index < this.#count && this.#at(index) < end
  }

  /** A further row behind all others. */
  push(at: number, length: number, from: number, id: Uint8Array, size: number, csize: number): void {
    const row = this.#count * extentBytes
    if (row + extentBytes > this.#rows.length) this.#reserve(this.#count + 1)
    this.#rows.writeDoubleLE(at, row)
    this.#rows.writeUInt32LE(length, row + lengthAt)
    this.#rows.writeUInt32LE(from, row + fromAt)
    this.#rows.set(id, row + idAt)
    this.#rows.writeUInt32LE(size, row + sizeAt)
    this.#rows.writeUInt32LE(csize, row + csizeAt)
    this.#count++
    if (this.#bytes !== undefined) this.#bytes += length
  }

  /** Takes [start, end) away: it was written, or cut off. */
  remove(start: number, end: number): void {
    const first = this.find(start)
    if (first >= this.#count || this.#at(first) >= end) return
    let last = first
    while (last + 1 < this.#count && this.#at(last + 1) < end) last++
    const head = this.#part(first, -Infinity, start)
    const tail = this.#part(last, end, Infinity)
    this.#splice(first, last - first + 1, [head, tail].filter(part => part !== undefined))
  }

  /** What [start, end) holds, moved so that `start` becomes `to`. */
  slice(start: number, end: number, to: number): Extents {
    const found = new Extents()
    for (let index = this.find(start); index < this.#count && this.#at(index) < end; index++) {
      const { at, length, from, id, size, csize } = this.get(index)
      const [low, high] = [Math.max(at, start), Math.min(at + length, end)]
      found.push(low - start + to, high - low, from + low - at, id, size, csize)
    }
    return found
  }

  /** Puts other extents over what is there. */
  put(other: Extents): void {
    if (other.count === 0) return
    const last = other.get(other.count - 1)
    const start = other.#at(0)
    this.remove(start, last.at + last.length)
    const index = this.find(start)
    this.#splice(index, 0, [other.rows])
    this.#join(index + other.count)
    this.#join(index)
  }

  /** End of the stretch from `offset` that extents hold without a gap; `offset` if it lies in none. */
  coveredFrom(offset: number): number {
    let end = offset
    for (let index = this.find(offset); index < this.#count && this.#at(index) <= end; index++) end = this.#at(index) + this.#length(index)
    return end
  }

  #at(index: number): number {
    return this.#rows.readDoubleLE(index * extentBytes)
  }

  #length(index: number): number {
    return this.#rows.readUInt32LE(index * extentBytes + lengthAt)
  }

  /** A row of what an extent has within [low, high), undefined if nothing. */
  #part(index: number, low: number, high: number): Buffer | undefined {
    const at = this.#at(index), end = at + this.#length(index)
    const [start, stop] = [Math.max(at, low), Math.min(end, high)]
    if (start >= stop) return undefined
    const row = Buffer.from(this.#rows.subarray(index * extentBytes, (index + 1) * extentBytes))
    row.writeDoubleLE(start, 0)
    row.writeUInt32LE(stop - start, lengthAt)
    row.writeUInt32LE(row.readUInt32LE(fromAt) + start - at, fromAt)
    return row
  }

  /** One extent of two neighbours that are one stretch of one chunk: a range that came in two requests is whole again. */
  #join(index: number): void {
    if (index <= 0 || index >= this.#count) return
    const [a, b] = [this.get(index - 1), this.get(index)]
    if (a.at + a.length !== b.at || a.from + a.length !== b.from || !a.id.equals(b.id)) return
    this.#rows.writeUInt32LE(a.length + b.length, (index - 1) * extentBytes + lengthAt)
    this.#splice(index, 1, [])
  }

  #splice(index: number, removed: number, rows: readonly Buffer[]): void {
    this.#bytes = undefined
    const added = rows.reduce((sum, { length }) => sum + length / extentBytes, 0)
    this.#reserve(this.#count + added - removed)
    this.#rows.copy(this.#rows, (index + added) * extentBytes, (index + removed) * extentBytes, this.#count * extentBytes)
    let at = index * extentBytes
    for (const row of rows) at += row.copy(this.#rows, at)
    this.#count += added - removed
  }

  #reserve(count: number): void {
    if (count * extentBytes <= this.#rows.length) return
    // Most files are one chunk: theirs come from the shared pool, without a byte to spare.
    const grown = Buffer.allocUnsafe(Math.max(count, Math.ceil(this.#count * 1.5)) * extentBytes)
    this.#rows.copy(grown, 0, 0, this.#count * extentBytes)
    this.#rows = grown
  }
}

/** [offset, end) of an archive's file, moved to 0. Its chunk `index` begins at `sum`. */
export function extentsOf(tree: ArchiveTree, row: number, index: number, sum: number, offset: number, end: number): Extents {
  const extents = new Extents()
  const first = tree.chunkStart(row)
  for (let at = sum; at < end && index < tree.chunkCount(row); index++) {
    const size = tree.chunkSize(first + index)
    const low = Math.max(at, offset), high = Math.min(at + size, end)
    if (low < high) extents.push(low - offset, high - low, low - at, tree.chunkId(first + index), size, tree.chunkCsize(first + index))
    at += size
  }
  return extents
}
