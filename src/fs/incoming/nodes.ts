/**
 * Staged files and directories in memory: a plain POSIX tree, without disk or kernel. Names are byte strings.
 *
 * In live/ a tree lies over that of an archive (base-tree.ts): a directory that is not here is the archive's, with all below it, and one that is
 * here holds only what differs from the archive's. A node of what did not change is made when somebody needs one, and may be let go again
 * (`known`).
 */
import { byteString } from '../../engine/text.js'
import type { ArchiveTree } from '../archive-tree.js'
import type { Attr, NodeAttributes } from '../types.js'
import { BaseTree } from './base-tree.js'
import { type Before, noBefores } from './before.js'
import type { BundlePlace, FormerPlace } from './bundles.js'
import type { CutState } from './cuts.js'
import type { Extents } from './extents.js'

export const rootId = 1
/** Inode numbers have 32 bits for it. */
export const maxId = 2 ** 32
/** Of names that came last. */
const keptNames = 64
export const typeMask = 0o170000, typeDirectory = 0o040000, typeFile = 0o100000, typeSymlink = 0o120000

export interface StagedNode {
  readonly id: number
  /** Complete st_mode. */
  mode: number
  uid: number
  gid: number
  rdev: number
  nlink: number
  /** Of files; a symlink's is its target's. */
  size: number
  atimeNs: bigint
  mtimeNs: bigint
  ctimeNs: bigint
  /** Byte-string names. */
  xattrs: Map<string, Buffer> | undefined
  /** Symlinks. */
  target: Buffer | undefined
  /** Directories: name -> id, in the order of creation. Of one with an origin: those that are here. */
  readonly children: Map<string, number> | undefined
  /** The directory of an archive whose names are in this one too, but for `hidden` ones. */
  origin: Origin | undefined
  /** Names that are the origin's, or were another archive's, and not in this directory any more. */
  hidden: Set<string> | undefined
  /** The journal knows it. False: it is as the archive has it, and no change may be made before Staging.adopt. */
  known: boolean
  /** A directory that holds a name of it; the last one known. */
  parent: number
  /** Files with several names: the directories that hold the others. */
  otherParents: number[] | undefined
  /** Open handles, and those of them that may write. */
  opens: number
  writers: number
  /** Files: what of it are chunks of the repository; undefined if nothing. */
  extents: Extents | undefined
  /** The extents hold the whole file, and there is no spool file beneath them. */
  bare: boolean
  /** There was a spool file beneath them, which went: one that is there after a crash is one that came back. */
  spoolGone: boolean
  /** Small files: where the content lies instead of in a spool file; nothing lies over it. */
  place: BundlePlace | undefined
  /** Where it lay until a spool file took over that is not durable yet. */
  former: FormerPlace | undefined
  /** What it was, the oldest first, before changes that may not be durable: where that were chunks. */
  befores: readonly Before[]
  /** Some of the extents may be chunks that the repository does not have yet: they are in the stash. */
  stashed: boolean
  /** Files that were cut in the background, or are just being. */
  cut: CutState | undefined
  /** Counts how often something of its extents was written over or cut off. */
  cutCount: number
  /** Bytes of its size that take no room in the spool file, as last looked. */
  holes: number
  /** The spool file beneath extents was durable once: if it is shorter than they are, they were cut. Before, a crash may have taken its length. */
  settled: boolean
  /** Data was written since its attributes were journalled. */
  dirty: boolean
}

export interface Origin {
  readonly base: BaseTree
  readonly row: number
  /** Byte string; where the directory was when its tree was last an archive. Known after a start. */
  path: string | undefined
}

export interface NodeFacts extends NodeAttributes {
  readonly rdev: number
  readonly target?: Buffer | undefined
}

export function attributesOf({ mode, uid, gid, atimeNs, mtimeNs, ctimeNs }: NodeAttributes): NodeAttributes {
  return { mode, uid, gid, atimeNs, mtimeNs, ctimeNs }
}

export function isDirectory(node: StagedNode): boolean {
  return (node.mode & typeMask) === typeDirectory
}

export function isFile(node: StagedNode): boolean {
  return (node.mode & typeMask) === typeFile
}

export class Nodes {
  readonly #nodes = new Map<number, StagedNode>()
  readonly #bases: BaseTree[] = []
  #nextId = rootId + 1
  /** Counts what may have changed which directories lie above another one. */
  moves = 0
  /** Counts names that came to directories. */
  #namesAdded = 0
  /** The last of them; of name i what lies at i % their number. */
  readonly #lastNames: { directory: number; name: string }[] = []

  constructor(rootFacts: NodeFacts) {
    this.#nodes.set(rootId, makeNode(rootId, rootFacts, rootId))
  }

  get count(): number {
    return this.#nodes.size
  }

  #named({ id: directory }: StagedNode, name: string): void {
    this.#lastNames[this.#namesAdded++ % keptNames] = { directory, name }
  }

  get namesAdded(): number {
    return this.#namesAdded
  }

  /** Names that came to a directory since `namesAdded` was so many; undefined if nobody knows any more. Some may have gone again. */
  namesSince(before: number, directory: number): string[] | undefined {
    if (this.#namesAdded - before > keptNames) return undefined
    const names: string[] = []
    for (let i = before; i < this.#namesAdded; i++) {
      const last = this.#lastNames[i % keptNames]!
      if (last.directory === directory) names.push(last.name)
    }
    return names
  }

  /** No node that is made from now on gets an id up to this. */
  passOver(id: number): void {
    this.#nextId = Math.max(this.#nextId, id + 1)
  }

  /** Nodes that are made from now on have ids from here on. */
  get nextId(): number {
    return this.#nextId
  }

  get bases(): readonly BaseTree[] {
    return this.#bases
  }

  /** A block of ids for an archive's tree. `firstId` is given when a journal is replayed. Undefined if there are no more ids. */
  addBase(series: string, archive: string, rowCount: number, firstId = this.#nextId): BaseTree | undefined {
    if (rowCount < 1 || firstId <= rootId || firstId + rowCount > maxId || this.#bases.some(base => base.firstId < firstId + rowCount && firstId < base.firstId + base.rowCount)) return undefined
    const base = new BaseTree(series, archive, firstId, rowCount)
    this.#bases.push(base)
    this.passOver(firstId + rowCount - 1)
    return base
  }

  baseOf(id: number): BaseTree | undefined {
    for (const base of this.#bases) if (base.has(id)) return base
    return undefined
  }

  /** The tree of a base is there: from now on it can be seen. */
  attach(base: BaseTree, tree: ArchiveTree): void {
    this.moves++
    base.attach(tree)
    for (const node of this.#nodes.values()) if (node.origin?.base === base) node.nlink = this.#countLinks(node, node.origin)
  }

  /** Whatever lay over a base lies over another archive now, as far as that has directories of the same paths; without one, over nothing. Returns the directories. */
  rebase(from: BaseTree, to: BaseTree | undefined): StagedNode[] {
    this.moves++
    const moved: StagedNode[] = []
    for (const node of this.#nodes.values()) {
      const { origin } = node
      if (origin?.base !== from) continue
      moved.push(node)
      const row = to && origin.path !== undefined ? to.find(origin.path) : -1
      node.origin = row >= 0 && to!.tree.isDirectory(row) ? { base: to!, row, path: origin.path } : undefined
      if (node.origin) to!.placed(row, node.id)
      else node.hidden = undefined
    }
    this.#bases.splice(this.#bases.indexOf(from), 1)
    // Other names of files that are here are other files now.
    const names = new Map<number, number>()
    for (const { children } of this.#nodes.values()) for (const id of children?.values() ?? []) names.set(id, (names.get(id) ?? 0) + 1)
    for (const node of [...this.#nodes.values()]) {
      if (node.children) node.nlink = node.id === rootId ? node.nlink : this.#countLinks(node, node.origin)
      else if (from.has(node.id)) {
        node.nlink = names.get(node.id) ?? 0
        if (node.nlink === 0 && node.opens === 0) this.#nodes.delete(node.id)
      }
    }
    return moved
  }

  /** Forgets the bases that nothing lies over any more. */
  dropBases(): void {
    this.moves++
    const used = new Set<BaseTree>()
    for (const { origin } of this.#bases.length > 0 ? this.#nodes.values() : []) if (origin) used.add(origin.base)
    for (const base of this.#bases.filter(base => !used.has(base))) {
      this.#bases.splice(this.#bases.indexOf(base), 1)
      for (const node of [...this.#nodes.values()]) {
        if (node.known || !base.has(node.id)) continue
        // What is open goes when it is closed.
        node.nlink = 0
        if (node.opens === 0) this.#nodes.delete(node.id)
      }
    }
  }

  #countLinks({ children, hidden }: StagedNode, origin: Origin | undefined): number {
    let links = 2
    for (const id of children!.values()) if (this.#nodes.get(id)?.children) links++
    if (!origin?.base.attached) return links
    const { base, row } = origin
    if (children!.size === 0 && !hidden) return links + base.subdirectories(row)
    for (const [name, target] of base.names(row)) if (base.tree.isDirectory(target) && !children!.has(name) && !hidden?.has(name)) links++
    return links
  }

  /** One is made of what a base has. */
  get(id: number): StagedNode | undefined {
    return this.#nodes.get(id) ?? this.#make(id)
  }

  /** Only if it is here. */
  peek(id: number): StagedNode | undefined {
    return this.#nodes.get(id)
  }

  all(): IterableIterator<StagedNode> {
    return this.#nodes.values()
  }

  /** What a base has, where that can be seen and no node stands for it. */
  virtual(id: number): { readonly base: BaseTree; readonly row: number } | undefined {
    if (this.#bases.length === 0 || this.#nodes.has(id)) return undefined
    const base = this.baseOf(id)
    if (!base?.attached) return undefined
    const row = base.rowOf(id)
    return base.isFile(row) && this.#isShown(base, row) ? { base, row } : undefined
  }

  /** Undefined for what is not here and in no base. */
  attrOf(id: number): Attr | undefined {
    const found = this.virtual(id)
    return found?.base.attr(found.row)
  }

  /** Flags of a file that a base has, whatever was changed in it. */
  flagsOf(id: number): number {
    const base = this.baseOf(id)
    return base?.attached ? base.tree.flags(base.rowOf(id)) : 0
  }

  isDirectory(id: number): boolean {
    const node = this.#nodes.get(id)
    if (node) return node.children !== undefined
    const found = this.virtual(id)
    return found !== undefined && found.base.tree.isDirectory(found.row)
  }

  /** No directory above it was taken away, nor its own name. What has several names is here before one of them goes. */
  #isShown(base: BaseTree, from: number): boolean {
    const { tree } = base
    for (let row = from; row !== 0; ) {
      let directory = tree.parentOf(row)
      let name: string | undefined
      if (tree.isReplaced(row)) {
        const place = base.place(row)
        if (!place) return false
        ;[directory, name] = place
      }
      const above = this.#nodes.get(base.directoryId(directory))
      if (above?.known) {
        name ??= byteString(tree.nameOf(row))
        return above.nlink > 0 && above.origin?.base === base && !above.hidden?.has(name) && !above.children!.has(name)
      }
      row = directory
    }
    return false
  }

  #make(id: number): StagedNode | undefined {
    const found = this.virtual(id)
    if (!found) return undefined
    const { base, row } = found
    const { tree } = base
    const { mode, uid, gid, rdev, atimeNs, mtimeNs, ctimeNs, nlink, size } = base.attr(row)
    const target = tree.isSymlink(row) ? Buffer.from(tree.linkTarget(row)) : undefined
    const node = makeNode(id, { mode, uid, gid, rdev, atimeNs, mtimeNs, ctimeNs, target }, base.directoryId(base.place(row)?.[0] ?? 0))
    node.known = false
    node.nlink = nlink
    node.xattrs = base.xattrs(row)
    if (node.children) node.origin = { base, row, path: undefined }
    else if (isFile(node) && size > 0) {
      node.size = size
      node.bare = true
    }
    this.#nodes.set(id, node)
    return node
  }

  /** The contents of a file that a base has are known from now on. The base must be whole. */
  fill(node: StagedNode): void {
    const base = this.baseOf(node.id)
    if (!node.known && base && isFile(node) && node.size > 0) node.extents ??= base.extents(base.rowOf(node.id))
  }

  /** `base.archive` shown as directory `name` of the root. */
  open(base: BaseTree, name: string): StagedNode {
    const root = this.#nodes.get(rootId)!
    const { mode, uid, gid, rdev, atimeNs, mtimeNs, ctimeNs, nlink } = base.attr(0)
    const node = this.add(root, name, { mode, uid, gid, rdev, atimeNs, mtimeNs, ctimeNs }, base.firstId)
    node.nlink = nlink
    node.xattrs = base.xattrs(0)
    node.origin = { base, row: 0, path: '' }
    return node
  }

  /** Enters a node of what a base has under a name that it has there, in a directory that is known; the `first` of its names, or a further one. */
  enter(node: StagedNode, directory: StagedNode, name: string, first: boolean): void {
    this.moves++
    this.#named(directory, name)
    directory.children!.set(name, node.id)
    if (first) node.otherParents = undefined
    else (node.otherParents ??= []).push(node.parent)
    node.parent = directory.id
  }

  /** Lets go of a node that is as its base has it. */
  evict(node: StagedNode): void {
    if (!node.known && node.opens === 0 && node.nlink > 0 && this.#nodes.get(node.id) === node) this.#nodes.delete(node.id)
  }

  childId(directory: number, name: string): number | undefined {
    const node = this.#nodes.get(directory)
    const own = node?.children?.get(name)
    if (own !== undefined) return own
    if (node && (!node.origin || node.hidden?.has(name))) return undefined
    const { base, row } = node?.origin ?? this.virtual(directory) ?? {}
    if (!base?.attached) return undefined
    const found = base.lookup(row!, name)
    return found < 0 ? undefined : base.idOf(found)
  }

  child(parent: StagedNode, name: string): StagedNode | undefined {
    const id = this.childId(parent.id, name)
    return id === undefined ? undefined : this.get(id)
  }

  /** Names in a directory with their ids: the base's in its order, then the rest. */
  *names(directory: number): Generator<[name: string, id: number]> {
    const node = this.#nodes.get(directory)
    const { base, row } = node ? node.origin ?? {} : this.virtual(directory) ?? {}
    const { children, hidden } = node ?? {}
    const told = children && children.size > 0 && base ? new Set<string>() : undefined
    if (base?.attached) {
      for (const [name, target] of base.names(row!)) {
        if (hidden?.has(name)) continue
        const own = children?.get(name)
        if (own !== undefined) told!.add(name)
        yield [name, own ?? base.idOf(target)]
      }
    }
    for (const entry of children ?? []) if (!told?.has(entry[0])) yield entry
  }

  isEmpty(directory: number): boolean {
    const node = this.#nodes.get(directory)
    // Nobody knows yet.
    if (node?.origin && !node.origin.base.attached) return false
    for (const _ of this.names(directory)) return false
    return true
  }

  /** The directories that hold names of a file or directory; one that holds several may be told as often. */
  directoriesOf(node: StagedNode): readonly number[] {
    const base = node.known ? undefined : this.baseOf(node.id)
    if (base?.attached) return base.places(base.rowOf(node.id)).map(([directory]) => base.directoryId(directory))
    return node.otherParents ? [node.parent, ...node.otherParents] : [node.parent]
  }

  /** Name of a directory in the root; undefined if it is none, or not any more. */
  topName(id: number): string | undefined {
    const names = this.#nodes.get(rootId)!.children!
    const known = this.#topNames.get(id)
    if (known !== undefined && names.get(known) === id) return known
    for (const [name, top] of names) {
      if (top !== id) continue
      this.#topNames.set(id, name)
      return name
    }
    return undefined
  }
  /** As last seen: to look for them takes as long as there are names. */
  readonly #topNames = new Map<number, string>()

  parentOf(id: number): number | undefined {
    const node = this.#nodes.get(id)
    if (node) return node.parent
    const found = this.virtual(id)
    const place = found?.base.place(found.row)
    return place && found!.base.directoryId(place[0])
  }

  /** `id` is given when a journal is replayed. */
  add(parent: StagedNode, name: string, facts: NodeFacts, id = this.#nextId): StagedNode {
    const node = makeNode(id, facts, parent.id)
    this.passOver(id)
    this.#nodes.set(id, node)
    this.#named(parent, name)
    parent.children!.set(name, id)
    if (node.children) parent.nlink++
    return node
  }

  link(node: StagedNode, parent: StagedNode, name: string): void {
    this.#named(parent, name)
    parent.children!.set(name, node.id)
    node.nlink++
    ;(node.otherParents ??= []).push(node.parent)
    node.parent = parent.id
  }

  /** Takes a name away; the node stays until forget. */
  unlink(parent: StagedNode, name: string): StagedNode | undefined {
    const node = this.child(parent, name)
    this.#takeName(parent, name)
    if (!node) return undefined
    if (node.children) {
      this.moves++
      parent.nlink--
      node.nlink = 0
    } else {
      node.nlink--
      this.#leave(node, parent.id)
    }
    return node
  }

  /** A file lost a name in a directory: it lies in the others, whichever tree they belong to. */
  #leave(node: StagedNode, directory: number): void {
    const { otherParents } = node
    if (!otherParents) return
    if (node.parent === directory) node.parent = otherParents.pop()!
    else {
      const index = otherParents.lastIndexOf(directory)
      if (index >= 0) otherParents.splice(index, 1)
    }
    if (otherParents.length === 0) node.otherParents = undefined
  }

  /** It has the name in another directory now, which is the one known last. */
  #transfer(node: StagedNode, from: number, to: number): void {
    if (node.otherParents) {
      this.#leave(node, from)
      ;(node.otherParents ??= []).push(node.parent)
    }
    node.parent = to
  }

  /** Whatever archive lies beneath: it must not show the name. */
  #takeName(parent: StagedNode, name: string): void {
    parent.children!.delete(name)
    if (parent.origin) (parent.hidden ??= new Set()).add(name)
  }

  move(parent: StagedNode, name: string, newParent: StagedNode, newName: string): void {
    this.moves++
    const node = this.child(parent, name)!
    this.#takeName(parent, name)
    // Set anew, so that the name stands last in the listing.
    this.#named(newParent, newName)
    newParent.children!.delete(newName)
    newParent.children!.set(newName, node.id)
    if (node.children && parent !== newParent) {
      parent.nlink--
      newParent.nlink++
    }
    this.#transfer(node, parent.id, newParent.id)
  }

  exchange(parent: StagedNode, name: string, other: StagedNode, otherName: string): void {
    this.moves++
    const [a, b] = [this.child(parent, name)!, this.child(other, otherName)!]
    parent.children!.set(name, b.id)
    other.children!.set(otherName, a.id)
    if (parent !== other) {
      for (const [node, from, to] of [[a, parent, other], [b, other, parent]] as const) {
        if (node.children) {
          from.nlink--
          to.nlink++
        }
        this.#transfer(node, from.id, to.id)
      }
    }
  }

  forget(id: number): void {
    this.moves++
    this.#nodes.delete(id)
    this.#topNames.delete(id)
  }

  /** Forgets a name with all below it. Returns the files whose last name that was; such as are open stay nodes until they are closed. */
  dropTree(parent: StagedNode, name: string): StagedNode[] {
    const gone: StagedNode[] = [], directories: StagedNode[] = []
    // Without recursion: directories may lie one in the other by the ten thousand.
    const open: [directory: StagedNode, name: string][] = [[parent, name]]
    for (let next = open.pop(); next; next = open.pop()) {
      const node = this.unlink(...next)
      if (node?.children) {
        directories.push(node)
        for (const child of node.children.keys()) open.push([node, child])
      } else if (node?.nlink === 0) {
        if (node.opens === 0) this.forget(node.id)
        gone.push(node)
      }
    }
    for (const { opens, id } of directories) if (opens === 0) this.forget(id)
    return gone
  }

  /** Whether `node` is `ancestor` or lies below it. */
  isWithin(node: StagedNode, ancestor: StagedNode): boolean {
    for (let at: number | undefined = node.id; at !== undefined; at = this.parentOf(at)) {
      if (at === ancestor.id) return true
      if (at === rootId) return false
    }
    return false
  }

  /** Everything below a directory that is here, itself first, directories before their contents. */
  *walk(node: StagedNode): Generator<{ node: StagedNode; path: string }> {
    yield { node, path: '.' }
    const open = [{ path: '', entries: node.children?.entries() }]
    for (let last = open.at(-1); last; last = open.at(-1)) {
      const next = last.entries?.next()
      if (!next || next.done) {
        open.pop()
        continue
      }
      const [name, id] = next.value
      const child = this.#nodes.get(id)
      if (!child) continue
      const path = last.path ? `${last.path}/${name}` : name
      yield { node: child, path }
      if (child.children) open.push({ path, entries: child.children.entries() })
    }
  }
}

function makeNode(id: number, facts: NodeFacts, parent: number): StagedNode {
  const directory = (facts.mode & typeMask) === typeDirectory
  return {
    id, mode: facts.mode, uid: facts.uid, gid: facts.gid, rdev: facts.rdev, nlink: directory ? 2 : 1, size: facts.target?.length ?? 0,
    atimeNs: facts.atimeNs, mtimeNs: facts.mtimeNs, ctimeNs: facts.ctimeNs, xattrs: undefined, target: facts.target,
    children: directory ? new Map() : undefined, origin: undefined, hidden: undefined, known: true, parent, otherParents: undefined, opens: 0, writers: 0, extents: undefined, bare: false, spoolGone: false, settled: false, cutCount: 0, holes: 0, place: undefined, former: undefined, befores: noBefores, stashed: false, cut: undefined, dirty: false,
  }
}
