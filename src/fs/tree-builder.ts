/**
 * Items of an archive, in their order, into the columns of an ArchiveTree. Rules of Borg's mount (mount.md §4): parents that
 * the archive lacks are supplied, a directory item that comes after its contents gives its attributes, of two items with
 * one path the last wins, hard links share one inode, a link to something absent is left out with a warning, or becomes
 * the file itself when its first name was only filtered out.
 */
import { ChunkList } from '../engine/archive/chunk-list.js'
import type { Item } from '../engine/archive/item.js'
import { byteString, bytesOf, shownText } from '../engine/text.js'
import { BytePool, exactColumn, float64, grownColumn, int64, sharedColumn, uint32, uint8 } from './column.js'
import { type ArchiveTreeData, chunkRowBytes, findSlot, nameHash, noRow, rowDamaged, rowReplaced, rowSupplied } from './tree-columns.js'
import type { TreeOptions } from './tree-options.js'

export type { OwnerNumbers, TreeOptions } from './tree-options.js'

const typeMask = 0o170000, directoryType = 0o040000, regularType = 0o100000, symlinkType = 0o120000
const aclAccessName = Buffer.from('system.posix_acl_access'), aclDefaultName = Buffer.from('system.posix_acl_default')
/** Version 4, then owner, group and others with 8 bytes each. */
const plainAclBytes = 4 + 3 * 8
const slash = 0x2f, dot = 0x2e
const maxChunkRows = 0xffffffff
const topic = 'borg.fuse'

export class TreeBuilder {
  readonly #options: TreeOptions
  readonly #names = new BytePool(4096)
  readonly #blobs = new BytePool(256)
  #chunks = sharedColumn(uint8, 64 * chunkRowBytes)
  #chunkCount = 0
  #rows = 0
  #room = 128
  #parent = sharedColumn(uint32, this.#room)
  #nameStart = sharedColumn(uint32, this.#room + 1)
  #firstChild = sharedColumn(uint32, this.#room)
  #nextSibling = sharedColumn(uint32, this.#room)
  #target = sharedColumn(uint32, this.#room)
  #mode = sharedColumn(uint32, this.#room)
  #uid = sharedColumn(uint32, this.#room)
  #gid = sharedColumn(uint32, this.#room)
  #nlink = sharedColumn(uint32, this.#room)
  #rdev = sharedColumn(uint32, this.#room)
  #flags = sharedColumn(uint8, this.#room)
  #size = sharedColumn(float64, this.#room)
  #mtimeNs = sharedColumn(int64, this.#room)
  #atimeNs = sharedColumn(int64, this.#room)
  #ctimeNs = sharedColumn(int64, this.#room)
  #contentStart = sharedColumn(uint32, this.#room)
  #contentCount = sharedColumn(uint32, this.#room)
  #slots = sharedColumn(uint32, 256)
  /** Only while building: the last child of each directory. */
  #lastChild: Uint32Array = new Uint32Array(this.#room)
  #anyAtime = false
  readonly #xattrs = new Map<number, readonly [start: number, end: number]>()
  /** First names of hard links that `select` left out: stored path -> their content, until a link takes it over. */
  readonly #leftOut = new Map<string, ChunkList | undefined | 'taken'>()
  readonly #newNames = new Map<string, Buffer>()
  #lastDirectory: Buffer = emptyName
  #lastDirectoryRow = 0

  constructor(options: TreeOptions) {
    this.#options = options
    this.#newRow(0, emptyName, 0, 0)
    this.#supply(0)
  }

  /** Takes the next item; nothing of it is kept, so it may be a cursor that is used again. */
  add(item: Item): void {
    const { select, showParts } = this.#options
    if (item.part !== undefined && !showParts) return
    const isLink = item.source !== undefined && (item.mode & typeMask) !== symlinkType
    const path = select ? select(item) : item.path
    if (path === undefined) {
      if (!isLink && item.hardlinkMaster !== false && (item.mode & typeMask) !== directoryType && (item.mode & typeMask) !== symlinkType) {
        this.#leftOut.set(byteString(item.path), copyOf(item.chunks))
      }
      return
    }
    if (isLink) this.#addLink(item, path, item.source!)
    else this.#addOwn(item, path, item.chunks)
  }

  /** The complete columns; the builder must not be used afterwards. */
  finish(): ArchiveTreeData {
    const rows = this.#rows
    const xattrs = [...this.#xattrs].sort((a, b) => a[0] - b[0])
    const exact = (column: Uint32Array) => exactColumn(uint32, column, rows)
    return {
      rowCount: rows,
      chunkCount: this.#chunkCount,
      parent: exact(this.#parent),
      nameStart: exactColumn(uint32, this.#nameStart, rows + 1),
      firstChild: exact(this.#firstChild),
      nextSibling: exact(this.#nextSibling),
      target: exact(this.#target),
      mode: exact(this.#mode),
      uid: exact(this.#uid),
      gid: exact(this.#gid),
      nlink: exact(this.#nlink),
      rdev: exact(this.#rdev),
      flags: exactColumn(uint8, this.#flags, rows),
      size: exactColumn(float64, this.#size, rows),
      mtimeNs: exactColumn(int64, this.#mtimeNs, rows),
      atimeNs: exactColumn(int64, this.#atimeNs, this.#anyAtime ? rows : 0),
      ctimeNs: exactColumn(int64, this.#ctimeNs, rows),
      contentStart: exact(this.#contentStart),
      contentCount: exact(this.#contentCount),
      names: this.#names.finish(),
      chunks: exactColumn(uint8, this.#chunks, this.#chunkCount * chunkRowBytes),
      blobs: this.#blobs.finish(),
      xattrRow: Uint32Array.from(xattrs, ([row]) => row),
      xattrStart: Uint32Array.from(xattrs, ([, [start]]) => start),
      xattrEnd: Uint32Array.from(xattrs, ([, [, end]]) => end),
      slots: this.#slots,
    }
  }

  #addOwn(item: Item, path: Buffer, chunks: ChunkList | undefined): void {
    const row = this.#rowFor(path, (item.mode & typeMask) === directoryType)
    if (row === undefined) return this.#warnPath(path)
    this.#describe(row, item, chunks)
  }

  #addLink(item: Item, path: Buffer, source: Buffer): void {
    const key = byteString(source)
    const leftOut = this.#leftOut.get(key)
    if (this.#leftOut.has(key) && leftOut !== 'taken') {
      this.#addOwn(item, path, leftOut)
      this.#leftOut.set(key, 'taken')
      this.#newNames.set(key, Buffer.from(path))
      return
    }
    const shown = this.#newNames.get(key) ?? this.#options.sourcePath?.(source) ?? source
    const first = this.#find(shown)
    if (first < 0 || (this.#mode[first]! & typeMask) === directoryType) {
      this.#options.log.write('warning', topic, `Skipping broken hard link: ${shownText(path)} -> ${shownText(source)}`)
      return
    }
    const row = this.#rowFor(path, false)
    if (row === undefined) return this.#warnPath(path)
    this.#target[row] = first
    this.#nlink[first]!++
  }

  #warnPath(path: Buffer): void {
    this.#options.log.write('warning', topic, `Skipping item with an unsafe path: ${shownText(path)}`)
  }

  /**
   * The row that an item of this path fills: a new one, or the directory of that name that is there. Undefined for paths that
   * no mount can show: with `..`, a NUL, or below something that is no directory and cannot become one.
   */
  #rowFor(path: Buffer, isDirectory: boolean): number | undefined {
    let end = path.length
    while (end > 0 && path[end - 1] === slash) end--
    const nameStart = end === 0 ? 0 : path.lastIndexOf(slash, end - 1) + 1
    const parent = this.#directory(path, nameStart)
    if (parent === undefined) return undefined
    if (end === nameStart || (end - nameStart === 1 && path[nameStart] === dot)) return isDirectory ? parent : undefined
    if (isUnsafe(path, nameStart, end)) return undefined
    const slot = findSlot(this.#lookupColumns, parent, path, nameStart, end)
    const found = this.#slots[slot]! - 1
    if (found < 0) return this.#newRow(parent, path, nameStart, end)
    if (isDirectory && (this.#mode[found]! & typeMask) === directoryType) return found
    this.#retire(found)
    return this.#newRow(parent, path, nameStart, end)
  }

  /** The row of the directory path[0, end), supplied where missing. Consecutive items mostly share it. */
  #directory(path: Buffer, end: number): number | undefined {
    if (end === 0) return 0
    if (end === this.#lastDirectory.length && this.#lastDirectory.compare(path, 0, end) === 0) return this.#lastDirectoryRow
    let row = 0
    for (let start = 0; start < end;) {
      const next = path.indexOf(slash, start)
      if (next > start && !(next - start === 1 && path[start] === dot)) {
        if (isUnsafe(path, start, next)) return undefined
        const found = this.#slots[findSlot(this.#lookupColumns, row, path, start, next)]! - 1
        if (found >= 0 && (this.#mode[found]! & typeMask) === directoryType) row = found
        else {
          if (found >= 0) this.#retire(found)
          row = this.#newRow(row, path, start, next)
          this.#supply(row)
        }
      }
      start = next + 1
    }
    this.#lastDirectory = Buffer.from(path.subarray(0, end))
    this.#lastDirectoryRow = row
    return row
  }

  /** The attributes' row of a path, -1 if there is none. */
  #find(path: Buffer): number {
    let row = 0
    for (let start = 0; start < path.length;) {
      let end = path.indexOf(slash, start)
      if (end < 0) end = path.length
      if (end > start && !(end - start === 1 && path[start] === dot)) {
        const found = this.#slots[findSlot(this.#lookupColumns, row, path, start, end)]! - 1
        if (found < 0) return -1
        row = this.#target[found]!
      }
      start = end + 1
    }
    return row
  }

  get #lookupColumns(): { slots: Uint32Array; parent: Uint32Array; nameStart: Uint32Array; names: Uint8Array } {
    return this.#lookup ??= { slots: this.#slots, parent: this.#parent, nameStart: this.#nameStart, names: this.#names.bytes }
  }
  #lookup: { slots: Uint32Array; parent: Uint32Array; nameStart: Uint32Array; names: Uint8Array } | undefined

  /** A row of that name without attributes, last of its directory; takes over the name's slot. */
  #newRow(parent: number, path: Uint8Array, start: number, end: number): number {
    const row = this.#rows
    if (row + 1 >= this.#room) this.#grow()
    this.#rows++
    this.#names.add(path, start, end)
    this.#nameStart[row + 1] = this.#names.length
    this.#lookup = undefined
    this.#parent[row] = parent
    this.#target[row] = row
    this.#nlink[row] = 1
    if (row === 0) return 0
    const last = this.#lastChild[parent]!
    if (last === noRow) this.#firstChild[parent] = row
    else this.#nextSibling[last] = row
    this.#lastChild[parent] = row
    this.#slots[findSlot(this.#lookupColumns, parent, path, start, end)] = row + 1
    return row
  }

  /** Another item takes the row's name: it is not shown any more, unless by further hard links. */
  #retire(row: number): void {
    this.#flags[row]! |= rowReplaced
    this.#lastDirectory = emptyName
    const target = this.#target[row]!
    if (this.#nlink[target]! > 1) this.#nlink[target]!--
  }

  /** A directory that no item describes. */
  #supply(row: number): void {
    const { uid, gid, umask, forcedUid, forcedGid } = this.#options
    const timeNs = row === 0 ? this.#options.rootTimeNs : this.#options.timeNs
    this.#mode[row] = directoryType | (0o755 & ~umask)
    this.#uid[row] = forcedUid ?? uid
    this.#gid[row] = forcedGid ?? gid
    this.#mtimeNs[row] = this.#atimeNs[row] = this.#ctimeNs[row] = timeNs
    this.#flags[row] = rowSupplied
  }

  #describe(row: number, item: Item, chunks: ChunkList | undefined): void {
    const { umask, forcedUid, forcedGid, numericIds, owners } = this.#options
    const type = item.mode & typeMask
    this.#mode[row] = type === directoryType || type === regularType ? item.mode & ~umask : item.mode
    this.#uid[row] = forcedUid ?? (numericIds || !item.user ? item.uid : owners.user(item.user) ?? item.uid)
    this.#gid[row] = forcedGid ?? (numericIds || !item.group ? item.gid : owners.group(item.group) ?? item.gid)
    this.#rdev[row] = item.rdev ?? 0
    this.#mtimeNs[row] = clamped(item.mtimeNs)
    this.#ctimeNs[row] = clamped(item.ctimeNs ?? item.mtimeNs)
    this.#atimeNs[row] = clamped(item.atimeNs ?? item.mtimeNs)
    if (this.#atimeNs[row] !== this.#mtimeNs[row]) this.#anyAtime = true
    this.#flags[row] = item.chunksHealthy ? rowDamaged : 0
    if (type === regularType) this.#addContent(row, item, chunks)
    else if (type === symlinkType) {
      const target = item.source ?? emptyName
      this.#contentStart[row] = this.#blobs.add(target)
      this.#contentCount[row] = this.#size[row] = target.length
    }
    this.#addXattrs(row, item)
  }

  #addContent(row: number, item: Item, chunks: ChunkList | undefined): void {
    const count = chunks?.length ?? 0
    const start = this.#chunkCount
    if (start + count > maxChunkRows) throw new RangeError('an archive with more than 2^32 chunks cannot be shown')
    const needed = (start + count) * chunkRowBytes
    if (needed > this.#chunks.length) this.#chunks = grownColumn(uint8, this.#chunks, start * chunkRowBytes, needed)
    let size = 0
    if (chunks && count > 0) {
      this.#chunks.set(chunks.bytes, start * chunkRowBytes)
      this.#chunkCount = start + count
      size = item.size ?? chunks.totalSize
    } else size = item.size ?? 0
    this.#contentStart[row] = start
    this.#contentCount[row] = count
    this.#size[row] = size
  }

  #addXattrs(row: number, item: Item): void {
    const start = this.#blobs.length
    const add = (name: Uint8Array, value: Uint8Array | undefined) => {
      if (value === undefined || name.length > 0xffff) return
      this.#blobs.addUint(name.length, 2)
      this.#blobs.add(name)
      this.#blobs.addUint(value.length, 4)
      this.#blobs.add(value)
    }
    const { aclXattr } = this.#options
    if (item.xattrs) for (const [name, value] of item.xattrs) add(bytesOf(name), value ?? emptyName)
    const access = item.aclAccess && aclXattr(item.aclAccess)
    // Borg stores the three plain entries beside a default ACL; file systems keep those in the mode alone.
    if (access && access.length > plainAclBytes) add(aclAccessName, access)
    if (item.aclDefault) add(aclDefaultName, aclXattr(item.aclDefault))
    if (this.#blobs.length > start) this.#xattrs.set(row, [start, this.#blobs.length])
    else this.#xattrs.delete(row)
  }

  #grow(): void {
    const rows = this.#rows
    const room = this.#room * 2
    const grown = (column: Uint32Array) => grownColumn(uint32, column, rows, room)
    const grownTimes = (column: BigInt64Array) => grownColumn(int64, column, rows, room)
    this.#parent = grown(this.#parent)
    this.#nameStart = grownColumn(uint32, this.#nameStart, rows + 1, room + 1)
    this.#firstChild = grown(this.#firstChild)
    this.#nextSibling = grown(this.#nextSibling)
    this.#target = grown(this.#target)
    this.#mode = grown(this.#mode)
    this.#uid = grown(this.#uid)
    this.#gid = grown(this.#gid)
    this.#nlink = grown(this.#nlink)
    this.#rdev = grown(this.#rdev)
    this.#flags = grownColumn(uint8, this.#flags, rows, room)
    this.#size = grownColumn(float64, this.#size, rows, room)
    this.#mtimeNs = grownTimes(this.#mtimeNs)
    this.#atimeNs = grownTimes(this.#atimeNs)
    this.#ctimeNs = grownTimes(this.#ctimeNs)
    this.#contentStart = grown(this.#contentStart)
    this.#contentCount = grown(this.#contentCount)
    const lastChild = new Uint32Array(room)
    lastChild.set(this.#lastChild)
    this.#lastChild = lastChild
    this.#room = room
    if (room > this.#slots.length * 0.7) this.#rehash(this.#slots.length * 2)
  }

  #rehash(length: number): void {
    const slots = sharedColumn(uint32, length)
    const mask = length - 1
    for (const found of this.#slots) {
      if (found === 0) continue
      const row = found - 1
      let slot = nameHash(this.#parent[row]!, this.#names.bytes, this.#nameStart[row]!, this.#nameStart[row + 1]!) & mask
      while (slots[slot] !== 0) slot = (slot + 1) & mask
      slots[slot] = found
    }
    this.#slots = slots
    this.#lookup = undefined
  }
}

const emptyName = Buffer.alloc(0)

/** True for what must not be a name in a directory: `..`, or bytes that no system call can carry. */
function isUnsafe(path: Buffer, start: number, end: number): boolean {
  if (end - start === 2 && path[start] === dot && path[start + 1] === dot) return true
  const nul = path.indexOf(0, start)
  return nul >= 0 && nul < end
}

const maxTimeNs = 2n ** 63n - 1n, minTimeNs = -(2n ** 63n)

/** Old archives may hold any integer; the kernel's times end here. */
function clamped(ns: bigint): bigint {
  return ns > maxTimeNs ? maxTimeNs : ns < minTimeNs ? minTimeNs : ns
}

/** A list of its own: the item's one may be used again for the next item. */
function copyOf(chunks: ChunkList | undefined): ChunkList | undefined {
  if (!chunks) return undefined
  const copy = new ChunkList(Math.max(1, chunks.length))
  for (const { id, size, csize } of chunks) copy.add(id, size, csize)
  return copy
}
