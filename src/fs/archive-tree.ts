/** The files of one archive by row, read-only. Rows and inode numbers: `base + row`. Attributes are made on demand. */
import { type ArchiveTreeData, chunkRowBytes, columnBytes, findSlot, noRow, rowDamaged, rowReplaced } from './tree-columns.js'
import type { Attr, Ino } from './types.js'

export type { ArchiveTreeData } from './tree-columns.js'

const typeMask = 0o170000, directoryType = 0o040000, regularType = 0o100000, symlinkType = 0o120000

export class ArchiveTree {
  readonly base: Ino
  readonly #columns: ArchiveTreeData
  readonly #names: Buffer
  readonly #blobs: Buffer
  readonly #chunkView: DataView

  /** `base` is the inode number of the archive's root. */
  constructor(columns: ArchiveTreeData, base: Ino) {
    this.base = base
    this.#columns = columns
    this.#names = Buffer.from(columns.names.buffer, columns.names.byteOffset, columns.names.length)
    this.#blobs = Buffer.from(columns.blobs.buffer, columns.blobs.byteOffset, columns.blobs.length)
    this.#chunkView = new DataView(columns.chunks.buffer, columns.chunks.byteOffset, columns.chunks.length)
  }

  get rowCount(): number {
    return this.#columns.rowCount
  }

  /** Memory of the columns. */
  get byteLength(): number {
    return columnBytes(this.#columns)
  }

  /** True if there is such a row. */
  has(row: number): boolean {
    return row >= 0 && row < this.#columns.rowCount
  }

  /** The row that answers for the child's inode, or -1. */
  lookup(parent: number, name: Uint8Array): number {
    const slot = findSlot(this.#columns, parent, name, 0, name.length)
    const found = this.#columns.slots[slot]!
    return found === 0 ? -1 : this.#columns.target[found - 1]!
  }

  isDirectory(row: number): boolean {
    return (this.#columns.mode[row]! & typeMask) === directoryType
  }

  isRegular(row: number): boolean {
    return (this.#columns.mode[row]! & typeMask) === regularType
  }

  isSymlink(row: number): boolean {
    return (this.#columns.mode[row]! & typeMask) === symlinkType
  }

  isDamaged(row: number): boolean {
    return (this.#columns.flags[row]! & rowDamaged) !== 0
  }

  size(row: number): number {
    return this.#columns.size[row]!
  }

  attr(row: number): Attr {
    const columns = this.#columns
    const size = columns.size[row]!
    const mtimeNs = columns.mtimeNs[row]!
    return {
      ino: this.base + row,
      size,
      blocks: Math.ceil(size / 512),
      mode: columns.mode[row]!,
      nlink: columns.nlink[row]!,
      uid: columns.uid[row]!,
      gid: columns.gid[row]!,
      rdev: columns.rdev[row]!,
      atimeNs: columns.atimeNs.length > 0 ? columns.atimeNs[row]! : mtimeNs,
      mtimeNs,
      ctimeNs: columns.ctimeNs[row]!,
      blksize: 512,
    }
  }

  /** The directory that holds the row; the root's is itself. */
  parentOf(row: number): number {
    return this.#columns.parent[row]!
  }

  /** First child in archive order, noRow (0) if none. Replaced items are passed over. */
  firstChild(row: number): number {
    return this.#shown(this.#columns.firstChild[row]!)
  }

  nextSibling(row: number): number {
    return this.#shown(this.#columns.nextSibling[row]!)
  }

  /** The name row's bytes: memory of the tree. */
  nameOf(row: number): Buffer {
    const { nameStart } = this.#columns
    return this.#names.subarray(nameStart[row]!, nameStart[row + 1]!)
  }

  /** Attributes of a name row belong to its target. */
  targetOf(row: number): number {
    return this.#columns.target[row]!
  }

  /** Path from the archive's root, bytes; empty for the root. */
  pathOf(row: number): Buffer {
    const parts: Buffer[] = []
    for (let at = row; at !== 0; at = this.#columns.parent[at]!) {
      parts.unshift(this.nameOf(at))
      if (this.#columns.parent[at] !== 0) parts.unshift(slash)
    }
    return Buffer.concat(parts)
  }

  linkTarget(row: number): Buffer {
    const start = this.#columns.contentStart[row]!
    return this.#blobs.subarray(start, start + this.#columns.contentCount[row]!)
  }

  chunkCount(row: number): number {
    return this.isRegular(row) ? this.#columns.contentCount[row]! : 0
  }

  /** Index of the file's first chunk in the tree's chunk rows. */
  chunkStart(row: number): number {
    return this.#columns.contentStart[row]!
  }

  /** Id of a chunk row: memory of the tree. */
  chunkId(chunk: number): Uint8Array {
    return this.#columns.chunks.subarray(chunk * chunkRowBytes, chunk * chunkRowBytes + 32)
  }

  chunkSize(chunk: number): number {
    return this.#chunkView.getUint32(chunk * chunkRowBytes + 32, true)
  }

  /** Stored bytes; 0 = unknown. */
  chunkCsize(chunk: number): number {
    return this.#chunkView.getUint32(chunk * chunkRowBytes + 36, true)
  }

  /** Extended attributes with their values: memory of the tree. */
  *xattrs(row: number): Generator<[name: Buffer, value: Buffer]> {
    const index = this.#xattrIndex(row)
    if (index < 0) return
    let at = this.#columns.xattrStart[index]!
    const end = this.#columns.xattrEnd[index]!
    while (at < end) {
      const nameEnd = at + 2 + this.#blobs.readUInt16LE(at)
      const valueEnd = nameEnd + 4 + this.#blobs.readUInt32LE(nameEnd)
      yield [this.#blobs.subarray(at + 2, nameEnd), this.#blobs.subarray(nameEnd + 4, valueEnd)]
      at = valueEnd
    }
  }

  xattr(row: number, name: Uint8Array): Buffer | undefined {
    for (const [found, value] of this.xattrs(row)) if (found.equals(name)) return value
    return undefined
  }

  #shown(row: number): number {
    while (row !== noRow && (this.#columns.flags[row]! & rowReplaced) !== 0) row = this.#columns.nextSibling[row]!
    return row
  }

  /** Position of the row in xattrRow, -1 if it has none. */
  #xattrIndex(row: number): number {
    const rows = this.#columns.xattrRow
    let low = 0, high = rows.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (rows[middle]! < row) low = middle + 1
      else high = middle
    }
    return low < rows.length && rows[low] === row ? low : -1
  }
}

const slash = Buffer.from('/')
