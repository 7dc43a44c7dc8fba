/**
 * The archive that a series in live/ was opened from, as the staged nodes see it: names and attributes by row of its tree. Nothing of it is
 * copied. Each row has a node id from the start, in a block of ids that nobody else gets, so that the journal can speak of a file by its id before
 * and after a node was made of it.
 */
import { bytesOf, byteString } from '../../engine/text.js'
import type { ArchiveTree } from '../archive-tree.js'
import type { Attr } from '../types.js'
import { type Extents, extentsOf } from './extents.js'

export class BaseTree {
  /** Byte string. */
  readonly series: string
  /** 64 hex digits. */
  readonly archive: string
  /** Id of the archive's root; ids go up with the rows. */
  readonly firstId: number
  readonly rowCount: number
  #tree: ArchiveTree | undefined
  /** By row: the kernel asks for a directory's links again and again, and counting takes as long as listing. */
  readonly #subdirectories = new Map<number, number>()
  #furtherNames: Map<number, number[]> | undefined

  constructor(series: string, archive: string, firstId: number, rowCount: number) {
    this.series = series
    this.archive = archive
    this.firstId = firstId
    this.rowCount = rowCount
  }

  /** It keeps the tree from now on, whatever becomes of the archive. */
  attach(tree: ArchiveTree): void {
    this.#tree = tree
  }

  /** False after a start, until somebody looked for the archive. */
  get attached(): boolean {
    return this.#tree !== undefined
  }

  /** What files consist of is known too. */
  get whole(): boolean {
    return this.#tree?.hasChunks === true
  }

  get tree(): ArchiveTree {
    if (!this.#tree) throw new Error('the base of a series is not there yet')
    return this.#tree
  }

  has(id: number): boolean {
    return id >= this.firstId && id < this.firstId + this.rowCount
  }

  idOf(row: number): number {
    return this.firstId + row
  }

  /** The same of a directory, where one that had lain over another archive took its place. */
  directoryId(row: number): number {
    return this.#placed.get(row) ?? this.firstId + row
  }

  /** Node `id` is the directory of a row. */
  placed(row: number, id: number): void {
    if (id !== this.idOf(row)) this.#placed.set(row, id)
  }
  readonly #placed = new Map<number, number>()

  rowOf(id: number): number {
    return id - this.firstId
  }

  /** The row that a name in a directory stands for, -1 if there is none. What a repair patched with zeros is none: it is copied anew, and does not pass for whole in the next archive. */
  lookup(row: number, name: string): number {
    const found = this.tree.lookup(row, bytesOf(name))
    return found < 0 || this.tree.isDamaged(found) ? -1 : found
  }

  /** Names in a directory, with the rows that they stand for. */
  *names(row: number): Generator<[name: string, row: number]> {
    const { tree } = this
    for (let name = tree.firstChild(row); name !== 0; name = tree.nextSibling(name)) {
      const target = tree.targetOf(name)
      if (!tree.isDamaged(target)) yield [byteString(tree.nameOf(name)), target]
    }
  }

  /** Whether a number is that of a row with attributes, which a node can be made of. */
  isFile(row: number): boolean {
    return this.tree.targetOf(row) === row && !this.tree.isDamaged(row)
  }

  /** All names of a row: the directories' rows and the names in them. */
  places(row: number): [directory: number, name: string][] {
    const { tree } = this
    const names = tree.isReplaced(row) ? [] : [row]
    if (tree.isReplaced(row) || tree.isLinked(row)) names.push(...(this.#further.get(row) ?? []))
    return names.map(name => [tree.parentOf(name), byteString(tree.nameOf(name))])
  }

  /** The first of them. */
  place(row: number): [directory: number, name: string] | undefined {
    const { tree } = this
    return tree.isReplaced(row) ? this.places(row)[0] : [tree.parentOf(row), byteString(tree.nameOf(row))]
  }

  get #further(): Map<number, number[]> {
    return this.#furtherNames ??= this.tree.furtherNames()
  }

  /** As a file system shows it: a directory has a link for each one in it. */
  attr(row: number): Attr {
    const attr = this.tree.attr(row)
    if (this.tree.isDirectory(row)) attr.nlink = 2 + this.subdirectories(row)
    attr.blksize = 4096
    return attr
  }

  subdirectories(row: number): number {
    let count = this.#subdirectories.get(row)
    if (count === undefined) {
      const { tree } = this
      count = 0
      for (let name = tree.firstChild(row); name !== 0; name = tree.nextSibling(name)) if (tree.isDirectory(tree.targetOf(name))) count++
      this.#subdirectories.set(row, count)
    }
    return count
  }

  /** A copy. */
  xattrs(row: number): Map<string, Buffer> | undefined {
    let found: Map<string, Buffer> | undefined
    for (const [name, value] of this.tree.xattrs(row)) (found ??= new Map()).set(byteString(name), Buffer.from(value))
    return found
  }

  /** All of a file's contents. It must be whole. */
  extents(row: number): Extents {
    return extentsOf(this.tree, row, 0, 0, 0, this.tree.size(row))
  }

  /** Row of a path without slashes at its ends, -1 if there is none. */
  find(path: string): number {
    let row = 0
    for (const name of path === '' ? [] : path.split('/')) {
      row = this.lookup(row, name)
      if (row < 0) return -1
    }
    return row
  }

  /** Rows of everything below a directory, a further name of a file not counted; `skip`: names in the directory itself that are left out. */
  *below(row: number, skip: (name: string) => boolean): Generator<number> {
    const { tree } = this
    const open: number[] = []
    const seen = new Set<number>()
    const fresh = (target: number): boolean => {
      if (!tree.isLinked(target)) return true
      const known = seen.has(target)
      seen.add(target)
      return !known
    }
    for (const [name, target] of this.names(row)) {
      if (skip(name)) continue
      if (tree.isDirectory(target)) open.push(target)
      if (fresh(target)) yield target
    }
    for (let directory = open.pop(); directory !== undefined; directory = open.pop()) {
      for (let name = tree.firstChild(directory); name !== 0; name = tree.nextSibling(name)) {
        const target = tree.targetOf(name)
        if (tree.isDamaged(target)) continue
        if (tree.isDirectory(target)) open.push(target)
        if (fresh(target)) yield target
      }
    }
  }
}
