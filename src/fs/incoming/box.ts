/**
 * What all operations of incoming/ (or live/) go by: the nodes with their contents and their journal, the trees that they belong to, what the kernel
 * is told of a node, and when something may be changed: while a tree is being committed, what would change it waits until that is over.
 */
import { native } from '../../engine/native.js'
import { collectGarbage } from '../../engine/shared-garbage.js'
import { bytesOf } from '../../engine/text.js'
import { type Answer, type Call, type KernelNotices, LATER } from '../core.js'
import type { ChunkCache } from '../chunk-cache.js'
import type { EngineClient } from '../engine-client.js'
import { inodeRange, inoOf, localOf } from '../inodes.js'
import { type Attr, type Entry, Errno, type Ino } from '../types.js'
import { nowNs } from './clock.js'
import { Contents, hostErrno } from './contents.js'
import { Cuts } from './cuts.js'
import { Durability } from './durability.js'
import { ExtentReader } from './extent-reader.js'
import { changeRoomBytes } from './journal.js'
import type { LiveSeries } from './live-series.js'
import { isFile, type Nodes, rootId, type StagedNode } from './nodes.js'
import type { PolicyOptions, StagedTree } from './policy.js'
import { Staging, type StagingOptions } from './staging.js'
import { WaitingCall } from './waiting-call.js'
import { type TreeListener, Trees } from './trees.js'

/** What the kernel may keep: of what changes here it is told. */
export const ttlMs = 3_600_000
export const maxNameBytes = 255
/** Asked anew each time: while somebody waits, files are moved. */
export type TreesAsked = () => readonly StagedTree[]
const manyNodes = 50_000, giveBackAfterMs = 2000

export class Box {
  readonly range: number
  readonly root: Ino
  readonly client: EngineClient
  readonly notices: KernelNotices
  readonly staging: Staging
  readonly nodes: Nodes
  readonly contents: Contents
  readonly cuts: Cuts
  readonly durability: Durability
  readonly trees: Trees
  /** What makes this live/ instead of incoming/. */
  live: LiveSeries | undefined
  /** Other places of the same drive: their files refer to the same chunks. */
  neighbours: readonly Box[] = []
  /** Trees that are about to become archives by a rename: the kernel must not keep the names that it has of them. */
  readonly passing = new Set<number>()

  /** Nodes that went with trees, as long as their memory was not given back, and when the last did. */
  #gone = 0
  #goneAtMs = 0

  /** `chunks`: asked for only when the mount is served. */
  constructor(options: StagingOptions & PolicyOptions, client: EngineClient, notices: KernelNotices, listener: TreeListener, chunks: () => ChunkCache) {
    const isLive = options.place === 'live'
    this.range = isLive ? inodeRange.live : inodeRange.incoming
    this.root = inoOf(this.range, rootId)
    this.client = client
    this.notices = notices
    this.staging = new Staging(options)
    this.nodes = this.staging.nodes
    this.cuts = new Cuts(this.staging, client, node => this.treesOf(node).some(tree => tree.frozen))
    this.contents = new Contents(this.staging, new ExtentReader(chunks, client), this.cuts)
    this.durability = new Durability(this.staging, this.contents, client)
    this.durability.archives = () => this.trees.made
    this.trees = new Trees(options.place, this.staging, client, { settleMs: options.settleMs, lingerMs: isLive ? Infinity : options.lingerMs }, {
      state: (tree, text) => listener.state(tree, text),
      committed: tree => this.live?.committed(tree),
    }, tree => this.#leave(tree), (tree, work) => this.#whenUncut(tree, work), work => this.durability.whenDurable(work), (tree, work) => (this.live ? this.live.prepare(tree, work) : work(undefined)))
  }

  node(ino: Ino): StagedNode | undefined {
    return this.nodes.get(localOf(ino))
  }

  /** Of what is here, or in a base. */
  entryOf(id: number): Entry | undefined {
    const node = this.nodes.peek(id)
    if (node) return this.entry(node)
    const attr = this.attrOf(id)
    return attr && { attr, entryTtlMs: ttlMs, attrTtlMs: ttlMs }
  }

  attrOf(id: number): Attr | undefined {
    const node = this.nodes.peek(id)
    if (node) return this.attr(node)
    const attr = this.nodes.attrOf(id)
    if (attr) attr.ino = inoOf(this.range, id)
    return attr
  }

  entry(node: StagedNode): Entry {
    return { attr: this.attr(node), entryTtlMs: this.passing.has(node.id) ? 0 : ttlMs, attrTtlMs: ttlMs }
  }

  attr(node: StagedNode): Attr {
    const { id, mode, uid, gid, rdev, nlink, size, atimeNs, mtimeNs, ctimeNs } = node
    const blocks = !isFile(node) || size === 0 ? 0 : node.known ? this.contents.blocks(node) : Math.ceil(size / 512)
    return { ino: inoOf(this.range, id), size, blocks, mode, nlink, uid, gid, rdev, atimeNs, mtimeNs, ctimeNs, blksize: 4096 }
  }

  /** The tree whose contents a new or old name in a directory is. */
  treeOfName(directory: StagedNode, name: string, isTree: boolean): StagedTree | undefined {
    return directory.id === rootId && isTree ? this.trees.of(name) : this.trees.containing(directory.id)
  }

  /** The same, for whoever is to change them. */
  treesOfName(directory: StagedNode, name: string, isTree: boolean): StagedTree[] {
    const tree = this.treeOfName(directory, name, isTree)
    return tree ? [tree] : []
  }

  /** The trees that a file or directory belongs to: several where a file has names in several. None for incoming/ itself. */
  treesOf(node: StagedNode): StagedTree[] {
    const found: StagedTree[] = []
    const add = (directory: number): void => {
      const tree = this.trees.containing(directory)
      if (tree && !found.includes(tree)) found.push(tree)
    }
    if (node.children) {
      if (node.id !== rootId) add(node.id)
    } else if (node.nlink > 1) for (const directory of this.nodes.directoriesOf(node)) add(directory)
    else add(node.parent)
    return found
  }

  /**
   * Runs a change now, or when none of the trees it belongs to is being committed any more; which these are is asked when they matter. `work` must
   * use the call that it is given: the kernel's own may stand for another request by then. `roomBytes`: see Journal.ready.
   */
  changing<T>(trees: TreesAsked, call: Call<T>, work: (call: Call<T>) => Answer<T>, roomBytes = changeRoomBytes): Answer<T> {
    return this.whenThawed(trees, call, later => {
      const changed = trees()
      let answer = LATER as Answer<T>
      const failed = hostErrno(() => {
        this.staging.journal.ready(roomBytes)
        // Before anything is written: a process that ends in between must not leave a changed tree that passes for its archive.
        for (const tree of changed) this.trees.changing(tree)
        answer = work(later)
      })
      if (failed) return failed
      if (answer instanceof Errno) for (const tree of changed) this.trees.unchanged(tree)
      else {
        for (const tree of changed) this.trees.changed(tree)
        this.durability.noteChange()
      }
      return answer
    })
  }

  /** The same for what may touch files that are as a base has them. */
  altering<T>(trees: TreesAsked, call: Call<T>, work: (call: Call<T>) => Answer<T>, roomBytes?: number): Answer<T> {
    return this.whenWhole(trees, call, later => this.changing(trees, later, work, roomBytes))
  }

  /** Runs `work` when all that the trees lie over is there. */
  whenWhole<T>(trees: TreesAsked, call: Call<T>, work: (call: Call<T>) => Answer<T>): Answer<T> {
    return this.live ? this.live.whenWhole(trees, call, work) : work(call)
  }

  /** Before a name of a node is taken out of a directory. A file that keeps other names has to be here, because it has fewer now. */
  adoptName(directory: StagedNode, node: StagedNode): void {
    this.staging.adopt(directory)
    if (!node.children && node.nlink > 1) this.staging.adopt(node)
  }

  /** The same for what changes nothing. */
  whenThawed<T>(trees: TreesAsked, call: Call<T>, work: (call: Call<T>) => Answer<T>): Answer<T> {
    const frozen = trees().find(tree => tree.frozen)
    if (!frozen) return work(call)
    const waiting = new WaitingCall(call, this.client)
    this.trees.whenThawed(frozen, () => waiting.run(later => this.whenThawed(trees, later, work)))
    return LATER
  }

  /** False of a node that went with its tree while somebody waited for it: what is done to it would be nowhere. */
  isHere(node: StagedNode): boolean {
    return this.nodes.peek(node.id) === node
  }

  /** The tree whose archive is just being replaced by another one, here or beside. Chunks may go with that archive. */
  get replaced(): StagedTree | undefined {
    for (const { trees } of [this, ...this.neighbours]) if (trees.replaced) return trees.replaced
    return undefined
  }

  whenNothingIsReplaced<T>(call: Call<T>, work: (call: Call<T>) => Answer<T>): Answer<T> {
    const owner = [this, ...this.neighbours].find(({ trees }) => trees.replaced)
    if (!owner) return work(call)
    const waiting = new WaitingCall(call, this.client)
    owner.trees.whenThawed(owner.trees.replaced!, () => waiting.run(later => this.whenNothingIsReplaced(later, work)))
    return LATER
  }

  /** What the cutter says of chunks that are known must have been heard before any go: it is quiet everywhere. */
  #whenUncut(tree: StagedTree, work: () => void): void {
    const goOn = (): void => {
      const busy = [this, ...this.neighbours].find(({ cuts }) => cuts.busy)
      if (busy) busy.cuts.whenIdle(() => false, goOn)
      else work()
    }
    this.cuts.whenIdle(node => this.treesOf(node).includes(tree), goOn)
  }

  touch(directory: StagedNode, now: bigint): void {
    directory.mtimeNs = directory.ctimeNs = now
  }

  /** A node that lost a name or a handle: gone when it has neither. */
  letGo(node: StagedNode): void {
    if (node.opens > 0 || node.nlink > 0) return
    this.passing.delete(node.id)
    this.staging.forget(node)
  }

  dropTree(tree: StagedTree): void {
    const before = this.nodes.count
    const root = this.nodes.get(rootId)!
    for (const name of this.staging.drop(tree.name)) this.notices.invalidateEntry(this.root, bytesOf(name))
    this.touch(root, nowNs())
    this.trees.forget(tree.name)
    this.#gone += before - this.nodes.count
    this.#goneAtMs = performance.now()
  }

  /**
   * What a tree of many files was would stay in memory for as long as little else happens: this thread has no event loop in which V8 would look after
   * that. Takes tens of milliseconds, more beside many nodes that stay, and then V8 has reasons enough to collect.
   */
  giveBackMemory(nowMs: number): void {
    if (this.#gone < manyNodes || nowMs < this.#goneAtMs + giveBackAfterMs) return
    if (this.#gone > this.nodes.count) {
      collectGarbage()
      native().trimHeap()
    }
    this.#gone = 0
  }

  /** A tree that is an archive leaves the box. */
  #leave(tree: StagedTree): void {
    this.dropTree(tree)
    this.notices.invalidateInode(this.root)
  }
}
