/**
 * Items of an archive, in their order, into the columns of an ArchiveTree. Rules of Borg's mount (mount.md §4): parents that
 * the archive lacks are supplied, a directory item that comes after its contents gives its attributes, of two items with
 * one path the last wins, hard links share one inode, a link to something absent is left out with a warning, or becomes
 * the file itself when its first name was only filtered out.
 */
import { randomFillSync } from 'node:crypto'
import { ChunkList } from '../engine/archive/chunk-list.js'
import type { Item } from '../engine/archive/item.js'
import { byteString, bytesOf, shownText } from '../engine/text.js'
import { BytePool, exactColumn, float64, grownColumn, int64, sharedColumn, uint32, uint8 } from './column.js'
import {
  accessNone, accessSupplied, aclAccessKind, aclDefaultKind, chunkRowBytes, findSlot, flagsKind, maxFileNameBytes, maxNameBytes, nameHash, nameKeyBytes, noName, noRow, rowDamaged, rowLink, rowLinked, rowReplaced, rowSupplied, type TreeColumns,
} from './tree-columns.js'
import type { ShapeOptions } from './tree-options.js'
import { clampedNs } from './types.js'

const typeMask = 0o170000, directoryType = 0o040000, regularType = 0o100000, symlinkType = 0o120000
const slash = 0x2f, dot = 0x2e
const maxChunkRows = 0xffffffff
const topic = 'borg.fuse'

export class TreeBuilder {
  readonly #options: ShapeOptions
  readonly #names = new BytePool(4096)
  readonly #blobs = new BytePool(256)
  #chunks = sharedColumn(uint8, 64 * chunkRowBytes)
  #chunkCount = 0
  #rows = 0
  #room = 128
  #parent = sharedColumn(uint32, this.#room)
  #nameStart = sharedColumn(uint32, this.#room + 1)
  #first = sharedColumn(uint32, this.#room)
  #count = sharedColumn(uint32, this.#room)
  #nextSibling = sharedColumn(uint32, this.#room)
  #access = sharedColumn(uint32, this.#room)
  #flags = sharedColumn(uint8, this.#room)
  #size = sharedColumn(float64, this.#room)
  #mtimeNs = sharedColumn(int64, this.#room)
  #atimeNs = sharedColumn(int64, this.#room)
  #ctimeNs = sharedColumn(int64, this.#room)
  #slots = sharedColumn(uint32, 256)
  readonly #nameKey = randomNumbers(sharedColumn(uint32, nameKeyBytes / 4))
  readonly #owners = new BytePool(256)
  /** Owner and mode, packed, as a byte string -> its number in #owners. */
  readonly #accesses = new Map<string, number>()
  /** By access. */
  readonly #modes: number[] = []
  #anyAtime = false
  readonly #xattrs = new Map<number, readonly [start: number, end: number]>()
  /** First names of hard links that `select` left out: stored path -> their content, until a link takes it over. */
  readonly #leftOut = new Map<string, ChunkList | undefined | 'taken'>()
  readonly #newNames = new Map<string, Buffer>()
  #lastDirectory: Buffer = emptyName
  #lastDirectoryRow = 0

  constructor(options: ShapeOptions) {
    this.#options = options
    this.#newAccess(packedAccess(directoryType | 0o755, 0, 0, undefined, undefined), directoryType | 0o755)
    this.#newAccess(packedAccess(0, 0, 0, undefined, undefined), 0)
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
  finish(): TreeColumns {
    const rows = this.#rows
    const xattrs = [...this.#xattrs].sort((a, b) => a[0] - b[0])
    const linked = this.#countLinks()
    const exact = (column: Uint32Array) => exactColumn(uint32, column, rows)
    return {
      rowCount: rows,
      chunkCount: this.#chunkCount,
      parent: exact(this.#parent),
      nameStart: exactColumn(uint32, this.#nameStart, rows + 1),
      first: exact(this.#first),
      count: exact(this.#count),
      nextSibling: exact(this.#nextSibling),
      access: this.#modes.length <= 0x10000 ? Uint16Array.from(exact(this.#access)) : exact(this.#access),
      flags: exactColumn(uint8, this.#flags, rows),
      size: exactColumn(float64, this.#size, rows),
      mtimeNs: exactColumn(int64, this.#mtimeNs, rows),
      atimeNs: exactColumn(int64, this.#atimeNs, this.#anyAtime ? rows : 0),
      ctimeNs: exactColumn(int64, this.#ctimeNs, rows),
      names: this.#names.finish(),
      chunks: exactColumn(uint8, this.#chunks, this.#chunkCount * chunkRowBytes),
      blobs: this.#blobs.finish(),
      xattrRow: Uint32Array.from(xattrs, ([row]) => row),
      xattrStart: Uint32Array.from(xattrs, ([, [start]]) => start),
      xattrEnd: Uint32Array.from(xattrs, ([, [, end]]) => end),
      linkedRow: Uint32Array.from(linked, ([row]) => row),
      linkedCount: Uint32Array.from(linked, ([, count]) => count),
      owners: this.#owners.finish(),
      slots: this.#slots,
      nameKey: this.#nameKey,
    }
  }

  /** Rows with several names that are shown, ascending. */
  #countLinks(): [row: number, count: number][] {
    const names = new Map<number, number>()
    for (let row = 1; row < this.#rows; row++) {
      if ((this.#flags[row]! & (rowLink | rowReplaced)) === rowLink) names.set(this.#first[row]!, (names.get(this.#first[row]!) ?? 0) + 1)
    }
    const linked: [row: number, count: number][] = []
    for (const [row, links] of [...names].sort((a, b) => a[0] - b[0])) {
      const count = links + ((this.#flags[row]! & rowReplaced) === 0 ? 1 : 0)
      if (count < 2) continue
      this.#flags[row]! |= rowLinked
      linked.push([row, count])
    }
    return linked
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
    if (first < 0 || this.#isDirectory(first)) {
      this.#options.log.write('warning', topic, `Skipping broken hard link: ${shownText(path)} -> ${shownText(source)}`)
      return
    }
    const row = this.#rowFor(path, false)
    if (row === undefined) return this.#warnPath(path)
    this.#first[row] = first
    this.#flags[row] = rowLink
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
    if (isDirectory && this.#isDirectory(found)) return found
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
        if (found >= 0 && this.#isDirectory(found)) row = found
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
        row = (this.#flags[found]! & rowLink) === 0 ? found : this.#first[found]!
      }
      start = end + 1
    }
    return row
  }

  get #lookupColumns(): LookupColumns {
    return this.#lookup ??= { slots: this.#slots, nameKey: this.#nameKey, parent: this.#parent, nameStart: this.#nameStart, names: this.#names.bytes }
  }
  #lookup: LookupColumns | undefined

  /** A row of that name without attributes, last of its directory; takes over the name's slot. */
  #newRow(parent: number, path: Uint8Array, start: number, end: number): number {
    const row = this.#rows
    if (row + 1 >= this.#room) this.#grow()
    this.#rows++
    this.#names.add(path, start, end)
    this.#nameStart[row + 1] = this.#names.length
    this.#lookup = undefined
    this.#parent[row] = parent
    this.#access[row] = accessNone
    if (row === 0) return 0
    const last = this.#count[parent]!
    if (last === noRow) this.#first[parent] = row
    else this.#nextSibling[last] = row
    this.#count[parent] = row
    this.#slots[findSlot(this.#lookupColumns, parent, path, start, end)] = row + 1
    return row
  }

  /** Another item takes the row's name: it is not shown any more, unless by further hard links. */
  #retire(row: number): void {
    this.#flags[row]! |= rowReplaced
    this.#lastDirectory = emptyName
  }

  /** A directory that no item describes: owner and times are those of the view. */
  #supply(row: number): void {
    this.#access[row] = accessSupplied
    this.#flags[row] = rowSupplied
  }

  #isDirectory(row: number): boolean {
    return (this.#modes[this.#access[row]!]! & typeMask) === directoryType
  }

  #accessOf(item: Item): number {
    const packed = packedAccess(item.mode, item.uid, item.gid, item.user ?? undefined, item.group ?? undefined)
    return this.#accesses.get(byteString(packed)) ?? this.#newAccess(packed, item.mode)
  }

  #newAccess(packed: Buffer, mode: number): number {
    const access = this.#modes.push(mode) - 1
    this.#owners.add(packed)
    if (access > accessNone) this.#accesses.set(byteString(packed), access)
    return access
  }

  #describe(row: number, item: Item, chunks: ChunkList | undefined): void {
    const type = item.mode & typeMask
    this.#access[row] = this.#accessOf(item)
    this.#mtimeNs[row] = clampedNs(item.mtimeNs)
    this.#ctimeNs[row] = clampedNs(item.ctimeNs ?? item.mtimeNs)
    this.#atimeNs[row] = clampedNs(item.atimeNs ?? item.mtimeNs)
    if (this.#atimeNs[row] !== this.#mtimeNs[row]) this.#anyAtime = true
    this.#flags[row] = item.chunksHealthy ? rowDamaged : 0
    if (type === regularType) this.#addContent(row, item, chunks)
    else if (type === symlinkType) {
      const target = item.source ?? emptyName
      this.#first[row] = this.#blobs.add(target)
      this.#count[row] = this.#size[row] = target.length
    } else if (type !== directoryType) this.#first[row] = item.rdev ?? 0
    this.#addXattrs(row, item)
  }

  #addContent(row: number, item: Item, chunks: ChunkList | undefined): void {
    const count = chunks?.length ?? 0
    const start = this.#chunkCount
    if (start + count > maxChunkRows) throw new RangeError('an archive with more than 2^32 chunks cannot be shown')
    const needed = (start + count) * chunkRowBytes
    if (needed > this.#chunks.length) this.#chunks = grownColumn(uint8, this.#chunks, start * chunkRowBytes, needed)
    if (chunks && count > 0) {
      this.#chunks.set(chunks.bytes, start * chunkRowBytes)
      this.#chunkCount = start + count
    }
    this.#first[row] = start
    this.#count[row] = count
    this.#size[row] = item.size !== undefined && item.size >= 0 ? item.size : chunks?.totalSize ?? 0
  }

  #addXattrs(row: number, item: Item): void {
    const start = this.#blobs.length
    const add = (kind: number, name: Uint8Array, value: Uint8Array): void => {
      this.#blobs.addUint(kind, 2)
      this.#blobs.add(name)
      this.#blobs.addUint(value.length, 4)
      this.#blobs.add(value)
    }
    for (const [text, value] of item.xattrs ?? []) {
      const name = bytesOf(text)
      if (name.length <= maxNameBytes) add(name.length, name, value ?? emptyName)
    }
    if (item.aclAccess) add(aclAccessKind, emptyName, item.aclAccess)
    if (item.aclDefault) add(aclDefaultKind, emptyName, item.aclDefault)
    if (item.bsdflags !== undefined && item.bsdflags >>> 0 !== 0) {
      const flags = Buffer.alloc(4)
      flags.writeUInt32LE(item.bsdflags >>> 0)
      add(flagsKind, emptyName, flags)
    }
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
    this.#first = grown(this.#first)
    this.#count = grown(this.#count)
    this.#nextSibling = grown(this.#nextSibling)
    this.#access = grown(this.#access)
    this.#flags = grownColumn(uint8, this.#flags, rows, room)
    this.#size = grownColumn(float64, this.#size, rows, room)
    this.#mtimeNs = grownTimes(this.#mtimeNs)
    this.#atimeNs = grownTimes(this.#atimeNs)
    this.#ctimeNs = grownTimes(this.#ctimeNs)
    this.#room = room
    if (room > this.#slots.length * 0.7) this.#rehash(this.#slots.length * 2)
  }

  #rehash(length: number): void {
    const slots = sharedColumn(uint32, length)
    const mask = length - 1
    for (const found of this.#slots) {
      if (found === 0) continue
      const row = found - 1
      let slot = nameHash(this.#nameKey, this.#parent[row]!, this.#names.bytes, this.#nameStart[row]!, this.#nameStart[row + 1]!) & mask
      while (slots[slot] !== 0) slot = (slot + 1) & mask
      slots[slot] = found
    }
    this.#slots = slots
    this.#lookup = undefined
  }
}

type LookupColumns = Parameters<typeof findSlot>[0]

const emptyName = Buffer.alloc(0)

function randomNumbers(into: Uint32Array): Uint32Array {
  into.set(randomFillSync(new Uint32Array(into.length)))
  return into
}

/** True for what must not be a name in a directory: `..`, bytes that no system call can carry, or more than the kernel takes. */
function isUnsafe(path: Buffer, start: number, end: number): boolean {
  if (end - start > maxFileNameBytes) return true
  if (end - start === 2 && path[start] === dot && path[start + 1] === dot) return true
  const nul = path.indexOf(0, start)
  return nul >= 0 && nul < end
}

function packedAccess(mode: number, uid: number, gid: number, user: Buffer | undefined, group: Buffer | undefined): Buffer {
  const [userBytes, groupBytes] = [user, group].map(name => (name && name.length <= maxNameBytes ? name : undefined))
  const packed = Buffer.alloc(16 + (userBytes?.length ?? 0) + (groupBytes?.length ?? 0))
  packed.writeUInt32LE(mode >>> 0, 0)
  packed.writeUInt32LE(uid >>> 0, 4)
  packed.writeUInt32LE(gid >>> 0, 8)
  let at = 12
  for (const name of [userBytes, groupBytes]) {
    at = packed.writeUInt16LE(name?.length ?? noName, at)
    if (name) at += packed.fill(name, at, at + name.length) && name.length
  }
  return packed
}

/** A list of its own: the item's one may be used again for the next item. */
function copyOf(chunks: ChunkList | undefined): ChunkList | undefined {
  if (!chunks) return undefined
  const copy = new ChunkList(Math.max(1, chunks.length))
  for (const { id, size, csize } of chunks) copy.add(id, size, csize)
  return copy
}
