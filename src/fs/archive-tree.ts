/** The files of one archive by row, read-only. Rows and inode numbers: `base + row`. Attributes are made on demand. */
import { aclBinary, accessAclName, defaultAclName, isExtendedAcl } from '../engine/platform/acl.js'
import { aclAccessKind, aclDefaultKind, type ArchiveTreeData, chunkRowBytes, columnBytes, findSlot, flagsKind, noRow, rowDamaged, rowLink, rowLinked, rowReplaced, rowSupplied } from './tree-columns.js'
import type { Attr, Ino } from './types.js'

export type { ArchiveTreeData } from './tree-columns.js'

const typeMask = 0o170000, directoryType = 0o040000, regularType = 0o100000, symlinkType = 0o120000

export class ArchiveTree {
  readonly base: Ino
  readonly columns: ArchiveTreeData
  readonly #names: Buffer
  readonly #blobs: Buffer
  readonly #aclXattr: AclXattr
  #chunks: Uint8Array = noChunks
  #chunkView: DataView = new DataView(noChunks.buffer)

  /** `base` is the inode number of the archive's root. `aclXattr` gives a stored ACL the form of its xattr, where it can be read. */
  constructor(columns: ArchiveTreeData, base: Ino, aclXattr: AclXattr = text => aclBinary(text, columns.numericIds)) {
    this.base = base
    this.columns = columns
    this.#names = Buffer.from(columns.names.buffer, columns.names.byteOffset, columns.names.length)
    this.#blobs = Buffer.from(columns.blobs.buffer, columns.blobs.byteOffset, columns.blobs.length)
    this.#aclXattr = aclXattr
    if (columns.chunks) this.setChunks(columns.chunks)
  }

  /** False: what files consist of is not loaded yet, and nothing about chunks but their count may be asked. */
  get hasChunks(): boolean {
    return this.#chunks.length === this.chunkBytes
  }

  /** Of all chunk rows. */
  get chunkBytes(): number {
    return this.columns.chunkCount * chunkRowBytes
  }

  /** All chunk rows; memory of the tree. */
  get chunks(): Uint8Array {
    return this.#chunks
  }

  setChunks(chunks: Uint8Array): void {
    if (chunks.length !== this.chunkBytes) throw new Error('chunks of another tree')
    this.#chunks = chunks
    this.#chunkView = new DataView(chunks.buffer, chunks.byteOffset, chunks.length)
  }

  get rowCount(): number {
    return this.columns.rowCount
  }

  /** Memory of the columns. */
  get byteLength(): number {
    return columnBytes(this.columns) + (this.columns.chunks ? 0 : this.#chunks.length)
  }

  /** True if there is such a row. */
  has(row: number): boolean {
    return row >= 0 && row < this.columns.rowCount
  }

  /** The row that answers for the child's inode, or -1. */
  lookup(parent: number, name: Uint8Array): number {
    const slot = findSlot(this.columns, parent, name, 0, name.length)
    const found = this.columns.slots[slot]!
    return found === 0 ? -1 : this.targetOf(found - 1)
  }

  isDirectory(row: number): boolean {
    return (this.mode(row) & typeMask) === directoryType
  }

  isRegular(row: number): boolean {
    return (this.mode(row) & typeMask) === regularType
  }

  isSymlink(row: number): boolean {
    return (this.mode(row) & typeMask) === symlinkType
  }

  isDamaged(row: number): boolean {
    return (this.columns.flags[row]! & rowDamaged) !== 0
  }

  /** A later item has its name: only further names may still show it. */
  isReplaced(row: number): boolean {
    return (this.columns.flags[row]! & rowReplaced) !== 0
  }

  /** No item describes this directory. */
  isSupplied(row: number): boolean {
    return (this.columns.flags[row]! & rowSupplied) !== 0
  }

  /** It has several names. */
  isLinked(row: number): boolean {
    return (this.columns.flags[row]! & rowLinked) !== 0
  }

  /** The rows of further names that are shown, by what they stand for. Looks at all rows. */
  furtherNames(): Map<number, number[]> {
    const { flags, first, rowCount } = this.columns
    const found = new Map<number, number[]>()
    for (let row = 1; row < rowCount; row++) {
      if ((flags[row]! & (rowLink | rowReplaced)) !== rowLink) continue
      const names = found.get(first[row]!)
      if (names) names.push(row)
      else found.set(first[row]!, [row])
    }
    return found
  }

  mode(row: number): number {
    return this.columns.modes[this.columns.access[row]!]!
  }

  size(row: number): number {
    return this.columns.size[row]!
  }

  attr(row: number): Attr {
    const columns = this.columns
    const size = columns.size[row]!
    const flags = columns.flags[row]!
    const access = columns.access[row]!
    const mode = columns.modes[access]!
    const type = mode & typeMask
    const suppliedNs = (flags & rowSupplied) === 0 ? undefined : row === 0 ? columns.rootTimeNs : columns.suppliedTimeNs
    const mtimeNs = suppliedNs ?? columns.mtimeNs[row]!
    return {
      ino: this.base + row,
      size,
      blocks: Math.ceil(size / 512),
      mode,
      nlink: (flags & rowLinked) === 0 ? 1 : columns.linkedCount[indexOf(columns.linkedRow, row)]!,
      uid: columns.uids[access]!,
      gid: columns.gids[access]!,
      rdev: type === regularType || type === directoryType || type === symlinkType ? 0 : columns.first[row]!,
      atimeNs: suppliedNs ?? (columns.atimeNs.length > 0 ? columns.atimeNs[row]! : mtimeNs),
      mtimeNs,
      ctimeNs: suppliedNs ?? columns.ctimeNs[row]!,
      blksize: 512,
    }
  }

  /** The directory that holds the row; the root's is itself. */
  parentOf(row: number): number {
    return this.columns.parent[row]!
  }

  /** First child in archive order, noRow (0) if none. Replaced items are passed over. */
  firstChild(row: number): number {
    return this.#shown(this.isDirectory(row) ? this.columns.first[row]! : noRow)
  }

  nextSibling(row: number): number {
    return this.#shown(this.columns.nextSibling[row]!)
  }

  /** The name row's bytes: memory of the tree. */
  nameOf(row: number): Buffer {
    const { nameStart } = this.columns
    return this.#names.subarray(nameStart[row]!, nameStart[row + 1]!)
  }

  /** Attributes of a name row belong to its target. */
  targetOf(row: number): number {
    return (this.columns.flags[row]! & rowLink) === 0 ? row : this.columns.first[row]!
  }

  /** Path from the archive's root, bytes; empty for the root. */
  pathOf(row: number): Buffer {
    const parts: Buffer[] = []
    for (let at = row; at !== 0; at = this.columns.parent[at]!) {
      parts.unshift(this.nameOf(at))
      if (this.columns.parent[at] !== 0) parts.unshift(slash)
    }
    return Buffer.concat(parts)
  }

  linkTarget(row: number): Buffer {
    const start = this.columns.first[row]!
    return this.#blobs.subarray(start, start + this.columns.count[row]!)
  }

  chunkCount(row: number): number {
    return this.isRegular(row) ? this.columns.count[row]! : 0
  }

  /** Index of the file's first chunk in the tree's chunk rows. */
  chunkStart(row: number): number {
    return this.columns.first[row]!
  }

  /** Id of a chunk row: memory of the tree. */
  chunkId(chunk: number): Uint8Array {
    return this.#chunks.subarray(chunk * chunkRowBytes, chunk * chunkRowBytes + 32)
  }

  chunkSize(chunk: number): number {
    return this.#chunkView.getUint32(chunk * chunkRowBytes + 32, true)
  }

  /** Stored bytes; 0 = unknown. */
  chunkCsize(chunk: number): number {
    return this.#chunkView.getUint32(chunk * chunkRowBytes + 36, true)
  }

  /** Extended attributes with their values: memory of the tree, but for ACLs, whose names are looked up here and now. */
  *xattrs(row: number): Generator<[name: Buffer, value: Buffer]> {
    for (const [name, value] of this.storedXattrs(row)) {
      if (typeof name !== 'string') yield [name, value]
      if (typeof name !== 'string' || name === 'flags') continue
      const acl = this.#aclXattr(value)
      // Borg stores the three plain entries beside a default ACL; file systems keep those in the mode alone.
      if (acl && (name === 'default' || isExtendedAcl(acl))) yield [name === 'default' ? aclDefaultName : aclAccessName, acl]
    }
  }

  /** The same as the archive has it: ACLs as texts, under the names `access` and `default`, and the file's flags as u32le. Memory of the tree. */
  *storedXattrs(row: number): Generator<[name: Buffer | 'access' | 'default' | 'flags', value: Buffer]> {
    const index = indexOf(this.columns.xattrRow, row)
    if (index < 0) return
    let at = this.columns.xattrStart[index]!
    const end = this.columns.xattrEnd[index]!
    while (at < end) {
      const kind = this.#blobs.readUInt16LE(at)
      const special = kind === aclAccessKind ? 'access' : kind === aclDefaultKind ? 'default' : kind === flagsKind ? 'flags' : undefined
      const nameEnd = special ? at + 2 : at + 2 + kind
      const valueEnd = nameEnd + 4 + this.#blobs.readUInt32LE(nameEnd)
      const value = this.#blobs.subarray(nameEnd + 4, valueEnd)
      yield [special ?? this.#blobs.subarray(at + 2, nameEnd), value]
      at = valueEnd
    }
  }

  /** No file has an ACL or a security label. False also where telling would take long. */
  get isBare(): boolean {
    const { xattrRow, xattrStart, xattrEnd } = this.columns
    if (xattrRow.length > maxRowsLookedAt) return false
    for (let index = 0; index < xattrRow.length; index++) {
      for (let at = xattrStart[index]!; at < xattrEnd[index]!;) {
        const kind = this.#blobs.readUInt16LE(at)
        if (kind === aclAccessKind || kind === aclDefaultKind) return false
        const valueAt = kind === flagsKind ? at + 2 : at + 2 + kind
        if (kind !== flagsKind && marks.has(this.#blobs.toString('latin1', at + 2, valueAt))) return false
        at = valueAt + 4 + this.#blobs.readUInt32LE(valueAt)
      }
    }
    return true
  }

  /** The file's flags (chattr) as the archive has them. */
  flags(row: number): number {
    for (const [name, value] of this.storedXattrs(row)) if (name === 'flags') return value.readUInt32LE()
    return 0
  }

  xattr(row: number, name: Uint8Array): Buffer | undefined {
    for (const [found, value] of this.xattrs(row)) if (found.equals(name)) return value
    return undefined
  }

  #shown(row: number): number {
    while (row !== noRow && (this.columns.flags[row]! & rowReplaced) !== 0) row = this.columns.nextSibling[row]!
    return row
  }
}

type AclXattr = (text: Buffer) => Buffer | undefined

const slash = Buffer.from('/')
const noChunks = new Uint8Array(0)
const maxRowsLookedAt = 10_000
/** What `ls -l` shows beside the mode. */
const marks = new Set([accessAclName, defaultAclName, 'security.selinux'])
const aclAccessName = Buffer.from(accessAclName), aclDefaultName = Buffer.from(defaultAclName)

/** Where the row stands among ascending ones, -1 if it does not. */
function indexOf(rows: Uint32Array, row: number): number {
  let low = 0, high = rows.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (rows[middle]! < row) low = middle + 1
    else high = middle
  }
  return low < rows.length && rows[low] === row ? low : -1
}
