/** The staged trees of the drop box: which there are, what state each is in, and making archives of them. */
import type { Log } from '../../engine/log.js'
import { bytesOf, shownText } from '../../engine/text.js'
import type { EngineClient } from '../engine-client.js'
import type { CommitReply, WireError } from '../engine-port.js'
import { type FrozenItem, type FrozenTree } from './frozen.js'
import { isFile, type Nodes, rootId, type StagedNode } from './nodes.js'
import { due, failedState, type PolicyOptions, type StagedTree } from './policy.js'
import type { Spool } from './spool.js'

export type CommitDone = (error: WireError | undefined, reply: CommitReply | undefined) => void

export class Trees {
  readonly #nodes: Nodes
  readonly #spool: Spool
  readonly #client: EngineClient
  readonly #log: Log
  readonly #options: PolicyOptions & { readonly stagingFolder: string }
  /** By name; what lies directly in incoming/ under undefined. */
  readonly #trees = new Map<string | undefined, StagedTree>()
  /** Operations that wait until the tree they want to change is an archive or not. */
  readonly #waiting = new Map<StagedTree, (() => void)[]>()
  /** Called when a committed tree is to leave the box. */
  readonly #leave: (tree: StagedTree) => void

  constructor(nodes: Nodes, spool: Spool, client: EngineClient, options: PolicyOptions & { readonly stagingFolder: string }, leave: (tree: StagedTree) => void) {
    this.#nodes = nodes
    this.#spool = spool
    this.#client = client
    this.#log = client
    this.#options = options
    this.#leave = leave
    // What an earlier process left.
    for (const [name, id] of nodes.get(rootId)!.children!) this.of(nodes.get(id)!.children ? name : undefined)
  }

  get options(): PolicyOptions {
    return this.#options
  }

  /** The tree of a name below incoming/, made when it is first asked for. */
  of(name: string | undefined): StagedTree {
    let tree = this.#trees.get(name)
    if (!tree) {
      tree = { name, state: { kind: 'writing' }, changedAtMs: performance.now(), writers: 0, empty: true }
      this.#trees.set(name, tree)
    }
    return tree
  }

  find(name: string): StagedTree | undefined {
    return this.#trees.get(name)
  }

  /** The tree that a node belongs to; undefined for incoming/ itself. `name`: of the node in its parent, if known. */
  ofNode(node: StagedNode): StagedTree | undefined {
    if (node.id === rootId) return undefined
    let below = node
    for (let parent = this.#nodes.get(node.parent); parent; parent = this.#nodes.get(parent.parent)) {
      if (parent.id === rootId) {
        if (!below.children) return this.of(undefined)
        for (const [name, id] of parent.children!) if (id === below.id) return this.of(name)
        return undefined
      }
      below = parent
    }
    return undefined
  }

  forget(name: string | undefined): void {
    this.#trees.delete(name)
  }

  renamed(from: string, to: string): void {
    this.#trees.delete(from)
    this.changed(this.of(to))
  }

  /** Something in it changed: it is no archive's copy any more. */
  changed(tree: StagedTree | undefined): void {
    if (!tree) return
    tree.changedAtMs = performance.now()
    if (tree.state.kind === 'committed') tree.state = { kind: 'writing' }
  }

  isFrozen(tree: StagedTree | undefined): boolean {
    return tree?.state.kind === 'committing'
  }

  /** Runs `work` when the tree is not being committed any more. */
  whenThawed(tree: StagedTree, work: () => void): void {
    const queue = this.#waiting.get(tree)
    if (queue) queue.push(work)
    else this.#waiting.set(tree, [work])
  }

  tick(nowMs: number): void {
    for (const tree of this.#trees.values()) tree.empty = this.#isEmpty(tree)
    const { commit, leave } = due(this.#trees.values(), nowMs, this.#options)
    for (const tree of leave) this.#leave(tree)
    for (const tree of commit) this.commit(tree, undefined, () => {})
  }

  #isEmpty(tree: StagedTree): boolean {
    const root = this.#nodes.get(rootId)!
    if (tree.name !== undefined) return (this.#nodes.child(root, tree.name)?.children?.size ?? 0) === 0
    for (const id of root.children!.values()) if (!this.#nodes.get(id)?.children) return false
    return true
  }

  /** Makes an archive of a tree. It is frozen meanwhile; on failure it is as before. */
  commit(tree: StagedTree, exactName: Buffer | undefined, done: CommitDone): void {
    const before = tree.state
    const frozen = this.#freeze(tree)
    tree.state = { kind: 'committing' }
    this.#client.request({ kind: 'commit', staged: frozen, ...(exactName ? { exactName } : {}) }, (error, reply) => {
      if (error) {
        tree.state = failedState(before, error.message, performance.now())
        this.#log.write('warning', 'borg.fuse', `incoming/${tree.name === undefined ? '' : shownText(bytesOf(tree.name))} stays staged: ${error.message}`)
      } else {
        tree.state = { kind: 'committed', archive: Buffer.from(reply.archive.name).toString('latin1'), atMs: performance.now() }
      }
      done(error, reply)
      // After whoever renamed was answered: what this tells the kernel waits for locks that a rename holds until then, and a process
      // killed in between would leave both waiting for ever. And before any further request, which may ask for the new name.
      if (reply?.archives) this.#client.onArchives?.(reply.archives)
      const waiting = this.#waiting.get(tree) ?? []
      this.#waiting.delete(tree)
      for (const work of waiting) work()
    })
  }

  /** Commits everything that is not in an archive yet, one tree after the other; the sentences of what could not be. */
  commitAll(done: (failures: string[]) => void): void {
    for (const tree of this.#trees.values()) tree.empty = this.#isEmpty(tree)
    const left = [...this.#trees.values()].filter(tree => !tree.empty && tree.writers === 0 && tree.state.kind !== 'committed')
    const failures: string[] = []
    const next = (): void => {
      const tree = left.shift()
      if (!tree) return done(failures)
      if (this.isFrozen(tree)) {
        this.whenThawed(tree, () => {
          left.unshift(tree)
          if ((tree.state as StagedTree['state']).kind === 'committed') left.shift()
          next()
        })
        return
      }
      this.commit(tree, undefined, error => {
        if (error) failures.push(`incoming/${tree.name === undefined ? '' : shownText(bytesOf(tree.name))} stays staged for the next mount: ${error.message}`)
        next()
      })
    }
    next()
  }

  #freeze(tree: StagedTree): FrozenTree {
    const root = this.#nodes.get(rootId)!
    const items: FrozenItem[] = []
    const add = (node: StagedNode, path: string): void => {
      const { id, mode, uid, gid, rdev, mtimeNs, ctimeNs, target, xattrs, nlink } = node
      items.push({ path, id, mode, uid, gid, rdev, mtimeNs, ctimeNs, target, xattrs, nlink, spool: isFile(node) && node.size > 0 ? this.#spool.path(id) : undefined })
    }
    if (tree.name !== undefined) {
      for (const { node, path } of this.#nodes.walk(this.#nodes.child(root, tree.name)!)) add(node, path)
    } else {
      for (const [name, id] of root.children!) {
        const node = this.#nodes.get(id)
        if (node && !node.children) add(node, name)
      }
    }
    return { name: tree.name, items, stagingFolder: this.#options.stagingFolder }
  }
}
