/**
 * Items of what did not change since a series was opened, for its next archive: straight from the columns of the archive's tree, as that has them.
 * Stored names and numbers of owners, ACLs and times are taken over, whatever this host makes of them.
 */
import { ChunkList } from '../../engine/archive/chunk-list.js'
import type { Item } from '../../engine/archive/item.js'
import { BorgError } from '../../engine/errors.js'
import type { ChunkId } from '../../engine/ids.js'
import type { ArchiveEntry } from '../../engine/operations/archive-entry.js'
import { typeBlockDevice, typeCharDevice, typeFile, typeMask } from '../../engine/platform/attributes.js'
import { byteString, shownText } from '../../engine/text.js'
import { ArchiveTree } from '../archive-tree.js'
import { chunkRowBytes } from '../tree-columns.js'
import { ownersOf, type StoredOwner } from '../tree-view.js'
import type { FrozenBase } from './frozen.js'

/** Entries, and in their place what stands there: directories may lie one in the other by the ten thousand, too deep for `yield*`. */
export type Nested<T> = T | Iterable<Nested<T>>

export function* flattened<T extends object>(all: Iterable<Nested<T>>): Generator<T> {
  const open = [all[Symbol.iterator]()]
  for (let last = open.at(-1); last; last = open.at(-1)) {
    const { done, value } = last.next()
    if (done) open.pop()
    else if (Symbol.iterator in value) open.push(value[Symbol.iterator]())
    else yield value
  }
}

export class BaseItems {
  readonly #tree: ArchiveTree
  readonly #firstId: number
  readonly #owners: readonly StoredOwner[]
  /** By id, as of other files of the staged tree: the first path of a file that has several. */
  readonly #firstNames: Map<number, Buffer>
  readonly #isThere: (id: ChunkId) => boolean

  constructor({ columns, chunks, firstId }: FrozenBase, firstNames: Map<number, Buffer>, isThere: (id: ChunkId) => boolean) {
    this.#tree = new ArchiveTree(columns, 0)
    this.#tree.setChunks(chunks)
    this.#firstId = firstId
    this.#owners = ownersOf(columns)
    this.#firstNames = firstNames
    this.#isThere = isThere
  }

  /**
   * Everything below a directory, whose path is `path` (empty: the archive's root), but for the names `without` in the directory itself: `instead` is
   * asked for what stands there. Damaged files are not copied.
   */
  *below(row: number, path: Buffer, without: ReadonlySet<string>, instead: (name: string) => Iterable<Nested<ArchiveEntry>> | undefined): Generator<Nested<ArchiveEntry>> {
    const tree = this.#tree
    // A stack of its own, for paths of any depth: the next name in each directory on the way.
    const open = [{ path, next: tree.firstChild(row) }]
    for (let at = open.at(-1); at; at = open.at(-1)) {
      const name = at.next
      if (name === 0) {
        open.pop()
        continue
      }
      at.next = tree.nextSibling(name)
      const target = tree.targetOf(name)
      if (open.length === 1 && without.size > 0) {
        const text = byteString(tree.nameOf(name))
        if (without.has(text)) {
          const there = instead(text)
          if (there) yield there
          continue
        }
      }
      if (tree.isDamaged(target)) continue
      const own = at.path.length === 0 ? Buffer.from(tree.nameOf(name)) : Buffer.concat([at.path, slash, tree.nameOf(name)])
      if (tree.isDirectory(target)) open.push({ path: own, next: tree.firstChild(target) })
      // A directory without an item goes on having none.
      if (!tree.isSupplied(target)) yield this.#entry(target, own)
    }
  }

  #entry(row: number, path: Buffer): ArchiveEntry {
    const tree = this.#tree
    const { columns } = tree
    const { mode, uid, gid, user, group } = this.#owners[columns.access[row]!]!
    const item: Item = { path, mode, uid, gid, user, group, mtimeNs: columns.mtimeNs[row]!, ctimeNs: columns.ctimeNs[row]! }
    if (columns.atimeNs.length > 0 && columns.atimeNs[row] !== item.mtimeNs) item.atimeNs = columns.atimeNs[row]!
    const type = mode & typeMask
    if (type === typeCharDevice || type === typeBlockDevice) item.rdev = columns.first[row]!
    this.#addXattrs(row, item)
    if (tree.isSymlink(row)) item.source = Buffer.from(tree.linkTarget(row))
    else if (!tree.isDirectory(row)) {
      const first = tree.isLinked(row) ? this.#firstNames.get(this.#firstId + row) : undefined
      if (first) {
        item.source = first
        return { item }
      }
      item.hardlinkMaster = tree.isLinked(row)
      if (item.hardlinkMaster) this.#firstNames.set(this.#firstId + row, path)
    }
    return type === typeFile ? { item, content: { kind: 'chunks', chunks: this.#chunks(row, path) } } : { item }
  }

  #addXattrs(row: number, item: Item): void {
    for (const [name, bytes] of this.#tree.storedXattrs(row)) {
      const value = Buffer.from(bytes)
      if (name === 'access') item.aclAccess = value
      else if (name === 'default') item.aclDefault = value
      else if (name === 'flags') item.bsdflags = value.readUInt32LE()
      else (item.xattrs ??= new Map<string, Buffer | null>()).set(byteString(name), value.length === 0 ? null : value)
    }
  }

  #chunks(row: number, path: Buffer): ChunkList {
    const tree = this.#tree
    const start = tree.chunkStart(row) * chunkRowBytes
    const chunks = ChunkList.ofRows(Buffer.from(tree.chunks.subarray(start, start + tree.chunkCount(row) * chunkRowBytes)))
    for (let index = 0; index < chunks.length; index++) {
      if (!this.#isThere(chunks.id(index))) throw new BorgError('Error', `${shownText(path)} is in an archive that was deleted meanwhile, and its data is gone from the repository. Remove the file or copy it again.`)
    }
    return chunks
  }
}

const slash = Buffer.from('/')
