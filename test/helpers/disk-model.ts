/**
 * A disk that forgets: the tree before a program ran, and the calls it made, give every tree that a crash could leave behind. A
 * write lasts when its file was synced, a name when its directory was; until then each may or may not have reached the disk, in
 * any order. That is less than most file systems keep, and all that POSIX promises.
 */
import { createHash } from 'node:crypto'
import { closeSync, ftruncateSync, lstatSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { join, relative } from 'node:path'
import type { LoggedCall } from './fault-preload.js'

interface FileNode {
  readonly kind: 'file'
  durable: Buffer
  pending: DataChange[]
}
interface DirectoryNode {
  readonly kind: 'directory'
  readonly now: Map<string, Node>
  readonly durable: Map<string, Node>
}
type Node = FileNode | DirectoryNode
/** `call`: the number of the call that made it, from 1. */
type DataChange = { readonly call: number } & ({ readonly at: number; readonly data: Buffer } | { readonly length: number })
interface NamePlace {
  readonly directory: DirectoryNode
  readonly name: string
  readonly node: Node | undefined
}
/** Names that change together: a rename is atomic. */
interface NameChange {
  readonly call: number
  readonly places: readonly NamePlace[]
}

/** What a crash keeps of that which was not synced. */
export type Loss =
  /** All of it: the process was killed, the machine lives. */
  | 'nothing'
  /** All, but half of the last write only. */
  | 'half-write'
  | 'everything'
  | 'names'
  | 'data'
  /** Names and lengths are there, but the bytes are zeros. */
  | 'bytes'
  /** Anything, by a seeded choice for each change. */
  | number

/** Path below the root -> content, undefined for a directory. */
export type Tree = ReadonlyMap<string, Buffer | undefined>

export class DiskModel {
  readonly #root: string
  readonly #top: DirectoryNode
  readonly #byInode = new Map<number, Node>()
  #names: NameChange[] = []
  #last: FileNode | undefined
  #calls = 0

  /** All that is there now counts as durable. */
  constructor(root: string) {
    this.#root = root
    this.#top = this.#load(root) as DirectoryNode
  }

  #load(path: string): Node {
    const stat = lstatSync(path)
    const known = this.#byInode.get(stat.ino)
    if (known) return known
    let node: Node
    if (stat.isDirectory()) {
      node = { kind: 'directory', now: new Map(), durable: new Map() }
      for (const name of readdirSync(path)) {
        const child = this.#load(join(path, name))
        node.now.set(name, child)
        node.durable.set(name, child)
      }
    } else node = { kind: 'file', durable: readFileSync(path), pending: [] }
    this.#byInode.set(stat.ino, node)
    return node
  }

  apply(call: LoggedCall): void {
    this.#last = undefined
    this.#calls++
    switch (call.op) {
      case 'open': {
        if (call.created) {
          const node: FileNode = { kind: 'file', durable: Buffer.alloc(0), pending: [] }
          this.#byInode.set(call.ino, node)
          this.#rename(this.#place(call.path, node))
        } else if (call.truncated) this.#file(call.ino).pending.push({ call: this.#calls, length: 0 })
        break
      }
      case 'write': {
        this.#last = this.#file(call.ino)
        this.#last.pending.push({ call: this.#calls, at: call.at, data: Buffer.from(call.data, 'base64') })
        break
      }
      case 'truncate': this.#file(call.ino).pending.push({ call: this.#calls, length: call.length }); break
      case 'sync': this.#sync(this.#byInode.get(call.ino)!); break
      case 'sync-all': this.#syncAll(call.calls); break
      case 'mkdir': {
        const node: DirectoryNode = { kind: 'directory', now: new Map(), durable: new Map() }
        this.#byInode.set(call.ino, node)
        this.#rename(this.#place(call.path, node))
        break
      }
      case 'unlink': case 'rmdir': this.#rename(this.#place(call.path, undefined)); break
      case 'link': this.#rename(this.#place(call.to, this.#find(call.from))); break
      case 'rename': {
        const node = this.#find(call.from)
        this.#rename(this.#place(call.from, undefined), this.#place(call.to, node))
        break
      }
    }
  }

  #file(ino: number): FileNode {
    const node = this.#byInode.get(ino)
    if (node?.kind !== 'file') throw new Error(`inode ${ino} was changed but never opened through the layer`)
    return node
  }

  #find(path: string): Node {
    let node: Node = this.#top
    for (const name of relative(this.#root, path).split('/').filter(Boolean)) node = (node as DirectoryNode).now.get(name)!
    return node
  }

  #place(path: string, node: Node | undefined): NamePlace {
    const parts = relative(this.#root, path).split('/')
    const name = parts.pop()!
    return { directory: this.#find(join(this.#root, ...parts)) as DirectoryNode, name, node }
  }

  #rename(...places: readonly NamePlace[]): void {
    for (const { directory, name, node } of places) set(directory.now, name, node)
    this.#names.push({ call: this.#calls, places })
  }

  #sync(node: Node): void {
    if (node.kind === 'file') {
      node.durable = content(node, node.pending)
      node.pending = []
      return
    }
    this.#syncNames(({ places }) => places.some(({ directory }) => directory === node))
  }

  /** What the first `calls` calls did. */
  #syncAll(calls: number): void {
    const isOld = ({ call }: { readonly call: number }): boolean => call <= calls
    for (const node of this.#byInode.values()) {
      if (node.kind !== 'file') continue
      node.durable = content(node, node.pending.filter(isOld))
      node.pending = node.pending.filter(change => !isOld(change))
    }
    this.#syncNames(isOld)
  }

  #syncNames(isSynced: (change: NameChange) => boolean): void {
    this.#names = this.#names.filter(change => {
      if (!isSynced(change)) return true
      for (const { directory, name, node } of change.places) set(directory.durable, name, node)
      return false
    })
  }

  /** The tree that is there after a crash now. */
  after(loss: Loss): Tree {
    const random = typeof loss === 'number' ? randomOf(loss) : undefined
    const keptNames = (): boolean => (random ? random() < 0.5 : loss !== 'everything' && loss !== 'names')
    const names = new Map<DirectoryNode, Map<string, Node>>()
    const namesOf = (directory: DirectoryNode): Map<string, Node> => {
      let found = names.get(directory)
      if (!found) names.set(directory, (found = new Map(directory.durable)))
      return found
    }
    for (const change of this.#names) {
      if (!keptNames()) continue
      for (const { directory, name, node } of change.places) set(namesOf(directory), name, node)
    }
    const contents = new Map<FileNode, Buffer>()
    const contentOf = (file: FileNode): Buffer => {
      let found = contents.get(file)
      if (!found) contents.set(file, (found = content(file, survivors(file.pending, loss, random, file === this.#last))))
      return found
    }
    const tree = new Map<string, Buffer | undefined>()
    const visit = (directory: DirectoryNode, path: string, above: ReadonlySet<Node>): void => {
      for (const [name, node] of [...namesOf(directory)].sort(([a], [b]) => (a < b ? -1 : 1))) {
        const full = path === '' ? name : `${path}/${name}`
        if (node.kind === 'file') tree.set(full, contentOf(node))
        // A directory whose removal from its old place was lost: file systems do not do that to directories.
        else if (!above.has(node)) {
          tree.set(full, undefined)
          visit(node, full, new Set([...above, node]))
        }
      }
    }
    visit(this.#top, '', new Set([this.#top]))
    return tree
  }
}

function set(map: Map<string, Node>, name: string, node: Node | undefined): void {
  if (node) map.set(name, node)
  else map.delete(name)
}

function survivors(pending: readonly DataChange[], loss: Loss, random: (() => number) | undefined, last: boolean): DataChange[] {
  if (loss === 'everything' || loss === 'data') return []
  if (loss === 'bytes') return pending.map(change => ('data' in change ? { ...change, data: Buffer.alloc(change.data.length) } : change))
  if (loss === 'half-write' && last) {
    const change = pending.at(-1)!
    return [...pending.slice(0, -1), ...('data' in change ? [{ ...change, data: change.data.subarray(0, change.data.length >> 1) }] : [])]
  }
  if (!random) return [...pending]
  return pending.flatMap(change => {
    const choice = random()
    if (choice < 0.35) return []
    return choice < 0.6 && 'data' in change ? [{ ...change, data: change.data.subarray(0, Math.floor(change.data.length * random())) }] : [change]
  })
}

function content(file: FileNode, changes: readonly DataChange[]): Buffer {
  let bytes = file.durable
  for (const change of changes) {
    const end = 'length' in change ? change.length : Math.max(bytes.length, change.at + change.data.length)
    const next = Buffer.alloc(end)
    bytes.copy(next, 0, 0, Math.min(bytes.length, end))
    if ('data' in change) change.data.copy(next, change.at)
    bytes = next
  }
  return bytes
}

/** The tree below a folder, as Tree. */
export function treeOf(root: string): Tree {
  const tree = new Map<string, Buffer | undefined>()
  const visit = (path: string): void => {
    for (const name of readdirSync(join(root, path)).sort()) {
      const full = path === '' ? name : `${path}/${name}`
      const directory = lstatSync(join(root, full)).isDirectory()
      tree.set(full, directory ? undefined : readFileSync(join(root, full)))
      if (directory) visit(full)
    }
  }
  visit('')
  return tree
}

/** Replaces what is below a folder by a tree. */
export function layOut(root: string, tree: Tree): void {
  rmSync(root, { recursive: true, force: true })
  mkdirSync(root, { recursive: true })
  for (const [path, bytes] of tree) {
    if (bytes === undefined) mkdirSync(join(root, path))
    else writeSparse(join(root, path), bytes)
  }
}

/** What never was written is not there, as on a disk: a block of zeros is a hole. */
function writeSparse(path: string, bytes: Buffer): void {
  const fd = openSync(path, 'w')
  try {
    ftruncateSync(fd, bytes.length)
    for (let at = 0; at < bytes.length; at += blockBytes) {
      const block = bytes.subarray(at, at + blockBytes)
      if (block.some(byte => byte !== 0)) writeSync(fd, block, 0, block.length, at)
    }
  } finally {
    closeSync(fd)
  }
}
const blockBytes = 4096

export function digestOf(tree: Tree, leaveOut: RegExp): string {
  const hash = createHash('sha256')
  for (const [path, bytes] of tree) if (!leaveOut.test(path)) hash.update(`${path}\0${bytes?.length ?? 'd'}\0`).update(bytes ?? '')
  return hash.digest('hex')
}

/** Numbers in [0, 1), the same for the same seed. */
export function randomOf(seed: number): () => number {
  let state = (seed * 2654435761 + 12345) >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
