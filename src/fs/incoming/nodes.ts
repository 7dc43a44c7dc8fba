/** Staged files and directories in memory: a plain POSIX tree, without disk or kernel. Names are byte strings. */
import type { BundlePlace, FormerPlace } from './bundles.js'
import type { CutState } from './cuts.js'
import type { Extents } from './extents.js'

export const rootId = 1
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
  /** Directories: name -> id, in the order of creation. */
  readonly children: Map<string, number> | undefined
  /** A directory that holds a name of it; the last one known. */
  parent: number
  /** Open handles, and those of them that may write. */
  opens: number
  writers: number
  /** Files: what of it are chunks of the repository; undefined if nothing. */
  extents: Extents | undefined
  /** The extents hold the whole file, and there is no spool file beneath them. */
  bare: boolean
  /** Small files: where the content lies instead of in a spool file; nothing lies over it. */
  place: BundlePlace | undefined
  /** Where it lay until a spool file took over that is not durable yet. */
  former: FormerPlace | undefined
  /** Some of the extents may be chunks that the repository does not have yet: they are in the stash. */
  stashed: boolean
  /** Files that were cut in the background, or are just being. */
  cut: CutState | undefined
  /** The spool file beneath extents was durable once: if it is shorter than they are, they were cut. Before, a crash may have taken its length. */
  settled: boolean
  /** Data was written since its attributes were journalled. */
  dirty: boolean
}

export interface NodeFacts {
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly rdev: number
  readonly atimeNs: bigint
  readonly mtimeNs: bigint
  readonly ctimeNs: bigint
  readonly target?: Buffer | undefined
}

export function isDirectory(node: StagedNode): boolean {
  return (node.mode & typeMask) === typeDirectory
}

export function isFile(node: StagedNode): boolean {
  return (node.mode & typeMask) === typeFile
}

export class Nodes {
  readonly #nodes = new Map<number, StagedNode>()
  #nextId = rootId + 1

  constructor(rootFacts: NodeFacts) {
    this.#nodes.set(rootId, makeNode(rootId, rootFacts, rootId))
  }

  get nextId(): number {
    return this.#nextId
  }

  get count(): number {
    return this.#nodes.size
  }

  get(id: number): StagedNode | undefined {
    return this.#nodes.get(id)
  }

  all(): IterableIterator<StagedNode> {
    return this.#nodes.values()
  }

  child(parent: StagedNode, name: string): StagedNode | undefined {
    const id = parent.children?.get(name)
    return id === undefined ? undefined : this.#nodes.get(id)
  }

  /** `id` is given when a journal is replayed. */
  add(parent: StagedNode, name: string, facts: NodeFacts, id = this.#nextId): StagedNode {
    const node = makeNode(id, facts, parent.id)
    this.#nextId = Math.max(this.#nextId, id + 1)
    this.#nodes.set(id, node)
    parent.children!.set(name, id)
    if (node.children) parent.nlink++
    return node
  }

  link(node: StagedNode, parent: StagedNode, name: string): void {
    parent.children!.set(name, node.id)
    node.nlink++
    node.parent = parent.id
  }

  /** Takes a name away; the node stays until forget. */
  unlink(parent: StagedNode, name: string): StagedNode | undefined {
    const node = this.child(parent, name)
    parent.children!.delete(name)
    if (!node) return undefined
    if (node.children) {
      parent.nlink--
      node.nlink = 0
    } else node.nlink--
    return node
  }

  move(parent: StagedNode, name: string, newParent: StagedNode, newName: string): void {
    const node = this.child(parent, name)!
    parent.children!.delete(name)
    // Set anew, so that the name stands last in the listing.
    newParent.children!.delete(newName)
    newParent.children!.set(newName, node.id)
    if (node.children && parent !== newParent) {
      parent.nlink--
      newParent.nlink++
    }
    node.parent = newParent.id
  }

  exchange(parent: StagedNode, name: string, other: StagedNode, otherName: string): void {
    const [a, b] = [this.child(parent, name)!, this.child(other, otherName)!]
    parent.children!.set(name, b.id)
    other.children!.set(otherName, a.id)
    if (parent !== other) {
      for (const [node, from, to] of [[a, parent, other], [b, other, parent]] as const) {
        if (node.children) {
          from.nlink--
          to.nlink++
        }
        node.parent = to.id
      }
    }
  }

  forget(id: number): void {
    this.#nodes.delete(id)
  }

  /** Whether `node` is `ancestor` or lies below it. */
  isWithin(node: StagedNode, ancestor: StagedNode): boolean {
    for (let at = node; ; at = this.#nodes.get(at.parent)!) {
      if (at === ancestor) return true
      if (at.id === rootId || !this.#nodes.has(at.parent)) return false
    }
  }

  /** Everything below a directory, itself first, directories before their contents. */
  *walk(node: StagedNode, path = ''): Generator<{ node: StagedNode; path: string }> {
    yield { node, path: path || '.' }
    for (const [name, id] of node.children ?? []) {
      const child = this.#nodes.get(id)
      if (child) yield* this.walk(child, path ? `${path}/${name}` : name)
    }
  }
}

function makeNode(id: number, facts: NodeFacts, parent: number): StagedNode {
  const directory = (facts.mode & typeMask) === typeDirectory
  return {
    id, mode: facts.mode, uid: facts.uid, gid: facts.gid, rdev: facts.rdev, nlink: directory ? 2 : 1, size: facts.target?.length ?? 0,
    atimeNs: facts.atimeNs, mtimeNs: facts.mtimeNs, ctimeNs: facts.ctimeNs, xattrs: undefined, target: facts.target,
    children: directory ? new Map() : undefined, parent, opens: 0, writers: 0, extents: undefined, bare: false, settled: false, place: undefined, former: undefined, stashed: false, cut: undefined, dirty: false,
  }
}
