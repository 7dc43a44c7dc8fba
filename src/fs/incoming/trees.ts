/** The staged trees of the drop box: which there are, what state each is in, and making archives of them. */
import { errnoOf, messageOf, saysNoRoom } from '../../engine/errors.js'
import type { Log } from '../../engine/log.js'
import { bytesOf, byteString, shownText } from '../../engine/text.js'
import type { EngineClient } from '../engine-client.js'
import type { CommitNumbers, CommitReply, Progress, WireError } from '../engine-port.js'
import { wireError } from '../errno.js'
import { hostErrno, tidyUp } from './contents.js'
import type { FrozenTree } from './frozen.js'
import type { Journal } from './journal.js'
import type { MadeArchives } from './journal-replay.js'
import { type Nodes, rootId } from './nodes.js'
import { describe, due, failedState, type Place, type PolicyOptions, type StagedTree, waitingState } from './policy.js'
import type { Staging } from './staging.js'
import { countTree, freezeTree, walkTree } from './tree-contents.js'
import { Turns } from './turns.js'
import type { Errno } from '../types.js'

export type CommitDone = (error: WireError | undefined, reply: CommitReply | undefined) => void

/** One archive made by this mount. */
export interface MadeCommit extends CommitNumbers {
  /** Byte string. */
  readonly archive: string
  readonly atMs: number
}

/** Calls `work` when all that a tree lies over is there, or cannot be had. */
export type WhenWhole = (tree: StagedTree, work: (failed: Errno | undefined) => void) => void

/** Calls `work` when nothing is being cut, and what of a tree could be cut is. */
export type WhenUncut = (tree: StagedTree, work: () => void) => void

/** Calls `work` when all that changed so far is durable, or cannot be made so. */
export type WhenDurable = (work: () => void) => void

/** What is staged anywhere in the drive and goes by archives. */
export interface Dependents {
  /** Packed ids of the chunks that staged files are made of. */
  neededIds(): Uint8Array
  /** Whether a series was opened from an archive: it needs all of it. */
  liesOver(archive: string): boolean
}

/** What happens to trees is told here, in words for people. */
export interface TreeListener {
  /** `text` as in user.borgfs.state, `left` for a tree that left the box. */
  state(tree: StagedTree, text: string): void
  committed?(tree: StagedTree): void
}

/** How often the host is asked whether there is room again. */
const roomLookMs = 2000
/** What must have been made free before a commit is tried again at once. */
const worthwhileRoom = 1 << 20
/** When a tree could not leave. */
const leaveAgainMs = 30_000
const maxNamesTold = 5
const maxCommitsKept = 20

export class Trees {
  /** The last commits, the newest last. */
  readonly commits: MadeCommit[] = []
  readonly #nodes: Nodes
  readonly #staging: Staging
  readonly #client: EngineClient
  readonly #log: Log
  readonly #options: PolicyOptions
  readonly #listener: TreeListener
  /** By name; what lies directly in incoming/ under undefined. */
  readonly #trees = new Map<string | undefined, StagedTree>()
  /** Operations that wait until the tree they want to change is an archive or not. */
  readonly #waiting = new Map<StagedTree, (() => void)[]>()
  /** What was told last of each tree. */
  readonly #told = new Map<StagedTree, string>()
  /** Committed, but the journal could not say so yet. */
  readonly #unnoted = new Set<StagedTree>()
  /** Trees of which the journal knows that they changed since their archive was made. */
  readonly #changeNoted = new Set<StagedTree>()
  /** Called when a committed tree is to leave the box. */
  readonly #leave: (tree: StagedTree) => void
  readonly #whenUncut: WhenUncut
  readonly #whenDurable: WhenDurable
  readonly #whenWhole: WhenWhole
  /** Archives were made or trees dropped since somebody set it back: chunks in the stash may be needless. */
  stashChanged = true
  dependents: Dependents = { neededIds: () => new Uint8Array(0), liesOver: () => false }
  /** Whose archive is just being replaced. */
  replaced: StagedTree | undefined
  #room: { freeBytes: number; atMs: number } | undefined
  /**
   * Commits are made one after the other: there is one mark, which a commit takes from the one before. By then the journal must say what it said, and the
   * mark that this makes needless must not be the next one's.
   */
  readonly #turns = new Turns()

  readonly #place: Place

  constructor(place: Place, staging: Staging, client: EngineClient, options: PolicyOptions, listener: TreeListener, leave: (tree: StagedTree) => void, whenUncut: WhenUncut, whenDurable: WhenDurable, whenWhole: WhenWhole = (_tree, work) => work(undefined)) {
    this.#whenWhole = whenWhole
    this.#place = place
    this.#nodes = staging.nodes
    this.#staging = staging
    this.#client = client
    this.#log = client
    this.#options = options
    this.#listener = listener
    this.#leave = leave
    this.#whenUncut = whenUncut
    this.#whenDurable = whenDurable
    // What an earlier process left.
    for (const [name, id] of this.#nodes.get(rootId)!.children!) this.of(this.#nodes.get(id)!.children ? name : undefined)
    for (const [name, { made, changed }] of staging.made) {
      const tree = this.#trees.get(name)
      if (!tree) continue
      tree.made = made
      if (changed) this.#changeNoted.add(tree)
      else tree.state = { kind: 'committed', archive: made.name, atMs: performance.now() }
    }
  }

  get options(): PolicyOptions {
    return this.#options
  }

  get #journal(): Journal {
    return this.#staging.journal
  }

  all(): Iterable<StagedTree> {
    return this.#trees.values()
  }

  /** The tree of a name below incoming/, made when it is first asked for. */
  of(name: string | undefined): StagedTree {
    let tree = this.#trees.get(name)
    if (!tree) {
      tree = {
        place: this.#place, name, state: { kind: 'writing' }, frozen: false, made: undefined, problem: undefined, changedAtMs: performance.now(), version: 0, newBytes: undefined,
        writers: 0, empty: true,
      }
      this.#trees.set(name, tree)
    }
    return tree
  }

  find(name: string | undefined): StagedTree | undefined {
    return this.#trees.get(name)
  }

  /** The tree that files in a directory belong to, and the directory itself. Undefined if that is not here any more. */
  containing(directory: number): StagedTree | undefined {
    if (directory === rootId) return this.of(undefined)
    // Mostly it is the one that was asked for last.
    const last = this.#last
    if (last?.directory === directory && last.moves === this.#nodes.moves && last.tree && this.#trees.get(last.tree.name) === last.tree) return last.tree
    const tree = this.#search(directory)
    this.#last = { directory, moves: this.#nodes.moves, tree }
    return tree
  }
  #last: { readonly directory: number; readonly moves: number; readonly tree: StagedTree | undefined } | undefined

  #search(directory: number): StagedTree | undefined {
    let top = directory
    for (let above = this.#nodes.parentOf(top); above !== rootId; above = this.#nodes.parentOf(top)) {
      if (above === undefined) return undefined
      top = above
    }
    const name = this.#nodes.topName(top)
    return name === undefined ? undefined : this.of(name)
  }

  forget(name: string | undefined): void {
    const tree = this.#trees.get(name)
    if (!tree) return
    this.stashChanged = true
    this.#trees.delete(name)
    if (this.#told.delete(tree)) this.#listener.state(tree, 'left')
    this.#changeNoted.delete(tree)
    this.#unnoted.delete(tree)
  }

  /** A tree has another name: what is made of it still takes the place of what was made before. */
  renamed(from: string, to: string): void {
    const before = this.#trees.get(from)
    this.#trees.delete(from)
    if (before) this.#told.delete(before)
    const tree = this.of(to)
    tree.made = before?.made
    if (tree.made) this.#changeNoted.add(tree)
    this.changed(tree)
  }

  /** A series was opened: its tree is as its newest archive. */
  opened(name: string, archive: { readonly name: Uint8Array; readonly id: string }): void {
    const tree = this.of(name)
    tree.made = { name: byteString(archive.name), id: archive.id, tree: name }
    this.#journal.committed(name, tree.made)
    this.#changeNoted.delete(tree)
    tree.state = { kind: 'committed', archive: tree.made.name, atMs: performance.now() }
    tree.empty = this.isEmpty(tree)
  }

  /** What the journal knows of archives. */
  get made(): MadeArchives {
    const found: MadeArchives = new Map()
    for (const tree of this.#trees.values()) {
      if (tree.made && !this.#unnoted.has(tree) && this.exists(tree)) found.set(tree.name, { made: tree.made, changed: this.#changeNoted.has(tree) || tree.state.kind !== 'committed' })
    }
    return found
  }

  /** The journal knows that it is no archive as it stands. */
  isChanging(tree: StagedTree): boolean {
    return !tree.made || this.#changeNoted.has(tree)
  }

  /** To be called before a tree is changed: from now on the journal does not take it for its archive. */
  changing(tree: StagedTree): void {
    if (!tree.made || this.isChanging(tree)) return
    if (this.#unnoted.has(tree)) this.#noteCommit(tree, tree.made)
    for (const base of this.#nodes.bases) if (base.series === tree.name) this.#journal.based(base)
    this.#journal.changed(tree.name)
    this.#changeNoted.add(tree)
  }

  /** What it was to be changed by was refused: if nothing else was changed it is its archive's copy still. */
  unchanged(tree: StagedTree): void {
    if (tree.state.kind !== 'committed' || !tree.made || !this.#changeNoted.has(tree)) return
    // Else it passes for changed at the next start, no more.
    if (!hostErrno(() => this.#journal.committed(tree.name, tree.made!))) this.#changeNoted.delete(tree)
  }

  /** Something in it changed: it is no archive's copy any more. */
  changed(tree: StagedTree): void {
    tree.changedAtMs = performance.now()
    tree.version++
    tree.problem = undefined
    if (tree.state.kind === 'committed') tree.state = { kind: 'writing' }
  }

  /** Runs `work` when the tree is not being committed any more. */
  whenThawed(tree: StagedTree, work: () => void): void {
    const queue = this.#waiting.get(tree)
    if (queue) queue.push(work)
    else this.#waiting.set(tree, [work])
  }

  tick(nowMs: number): void {
    this.#tickedMs = nowMs
    let noRoom = false
    for (const tree of this.#trees.values()) {
      tree.empty = this.isEmpty(tree)
      noRoom ||= tree.state.kind === 'failed' && tree.state.noRoom && !tree.frozen
    }
    if (noRoom) this.#lookForRoom(nowMs)
    for (const tree of due(this.#trees.values(), nowMs, this.#options).leave) this.#tryToLeave(tree, nowMs)
    this.#commitDue(nowMs)
    for (const tree of this.#trees.values()) this.#tell(tree, nowMs)
  }

  #tickedMs = 0

  /** Not before the one under way is done: a tree that has to wait for its turn would be frozen, and whoever writes to it would wait as well. */
  #commitDue(nowMs: number): void {
    if (this.#turns.taken) return
    const [tree] = due(this.#trees.values(), nowMs, this.#options).commit
    if (tree) this.commit(tree, { patient: false }, () => {})
  }

  /** On a full disk the journal may not take it: later, then. Others are saved meanwhile, which may make room. */
  #tryToLeave(tree: StagedTree, nowMs: number): void {
    const failed = hostErrno(() => this.#leave(tree))
    if (!failed || tree.state.kind !== 'committed') return
    tree.state = { ...tree.state, atMs: nowMs + leaveAgainMs - this.#options.lingerMs }
    this.#log.write('warning', 'borg.fuse', `${shownPath(tree)} is saved, but the staging folder cannot let it go: ${failed.code}`)
  }

  #tell(tree: StagedTree, nowMs = performance.now()): void {
    if (tree.name === undefined && tree.empty && tree.state.kind !== 'committed') return
    const text = describe(tree, nowMs, this.#options)
    // One line for a commit, not one for each percent.
    const line = tree.state.kind === 'committing' ? 'committing' : text
    if (this.#told.get(tree) === line) return
    this.#told.set(tree, line)
    this.#listener.state(tree, line)
  }

  isEmpty(tree: StagedTree): boolean {
    const root = this.#nodes.get(rootId)!
    if (tree.name !== undefined) {
      const top = this.#nodes.child(root, tree.name)
      return !top?.children || this.#nodes.isEmpty(top.id)
    }
    for (const id of root.children!.values()) if (!this.#nodes.get(id)?.children) return false
    return true
  }

  /** True if there is something of it. */
  exists(tree: StagedTree): boolean {
    return tree.name === undefined ? !this.isEmpty(tree) : this.#nodes.child(this.#nodes.get(rootId)!, tree.name)?.children !== undefined
  }

  /** Once there is more room than when a commit failed for want of it, it is tried again. */
  #lookForRoom(nowMs: number): void {
    if (this.#room && nowMs - this.#room.atMs < roomLookMs) return
    const before = this.#room?.freeBytes
    this.#room = { freeBytes: before ?? Infinity, atMs: nowMs }
    this.#client.request({ kind: 'statfs' }, (error, value) => {
      if (error) return
      const freeBytes = value.bavail * value.frsize
      this.#room = { freeBytes: Math.min(before ?? Infinity, freeBytes), atMs: nowMs }
      if (before === undefined || freeBytes < before + worthwhileRoom) return
      this.#room = undefined
      for (const tree of this.#trees.values()) if (tree.state.kind === 'failed' && tree.state.noRoom) tree.state = { ...tree.state, retryAtMs: 0 }
    })
  }

  /** Why a commit that was asked for must be refused now: files are open for writing. Undefined if nothing speaks against it. */
  refusal(tree: StagedTree): string | undefined {
    if (tree.writers === 0) return undefined
    const open: string[] = []
    for (const { node, path } of walkTree(this.#nodes, tree.name)) if (node.writers > 0) open.push(shownText(bytesOf(path)))
    const names = open.length === 0 ? 'a deleted file' : `${open.slice(0, maxNamesTold).join(', ')}${open.length > maxNamesTold ? ` and ${open.length - maxNamesTold} more` : ''}`
    return `still open for writing: ${names}`
  }

  /** A commit that was asked for and refused: for whoever asked, the log and the events. */
  refused(tree: StagedTree, sentence: string): void {
    tree.problem = sentence
    this.#log.write('warning', 'borg.fuse', `${shownPath(tree)} was not committed: ${sentence}`)
    this.#listener.state(tree, `not committed: ${sentence}`)
  }

  /**
   * Makes an archive of a tree, in the place of the one made of it before. It is frozen meanwhile; on failure it is as before. `patient`:
   * somebody waits for it.
   */
  commit(tree: StagedTree, options: { exactName?: Buffer; patient: boolean }, done: CommitDone): void {
    const before = tree.state
    const { made } = tree
    tree.frozen = true
    if (before.kind !== 'waiting') tree.state = { kind: 'committing', percent: 0 }
    tree.problem = undefined
    let holder = before.kind === 'waiting' ? before.holder : undefined
    const heard = (progress: Progress): void => {
      if (progress.kind === 'cut') return
      if (progress.kind === 'committing') tree.state = progress
      else {
        holder = progress.holder ?? holder
        tree.state = waitingState(holder, performance.now())
      }
      this.#tell(tree)
    }
    const finished = (error: WireError | undefined, reply: CommitReply | undefined): void => {
      try {
        tree.frozen = false
        this.replaced = undefined
        if (reply) this.#succeeded(tree, reply)
        else this.#failed(tree, before, error!, holder)
        this.#tell(tree)
        done(error, reply)
        // After whoever renamed was answered: what this tells the kernel waits for locks that a rename holds until then, and a process
        // killed in between would leave both waiting for ever. And before any further request, which may ask for the new name.
        if (reply?.archives) this.#client.onArchives?.(reply.archives)
      } finally {
        const waiting = this.#waiting.get(tree) ?? []
        this.#waiting.delete(tree)
        try {
          for (const work of waiting) work()
        } finally {
          this.#turns.end()
          this.#commitDue(this.#tickedMs)
        }
      }
    }
    this.#turns.take(() => this.#whenWhole(tree, missing => {
      if (missing) return finished({ code: missing.code, msgid: undefined, message: `the archive that ${shownPath(tree)} lies over cannot be read` }, undefined)
      // The mark that says so goes now.
      for (const other of [...this.#unnoted]) hostErrno(() => this.#noteCommit(other, other.made!))
      this.#staging.keepMark()
      const isReplacing = made !== undefined && this.#place === 'incoming' && !this.dependents.liesOver(made.id)
      if (isReplacing) this.replaced = tree
      // What is just being cut is either cut then or not.
      this.#whenTidy(() => this.#whenUncut(tree, () => {
        // The engine goes by the files, and what stays for the next mount is what becomes an archive.
        const refused = hostErrno(() => this.#staging.catchUp())
        if (refused) {
          return finished({ code: refused.code, msgid: undefined, message: `the staging folder does not take what was copied last (${refused.code}); that is lost if the drive ends before it does` }, undefined)
        }
        let staged: FrozenTree, needed: Uint8Array | undefined
        try {
          staged = freezeTree(this.#staging, tree.name)
          if (isReplacing) needed = this.dependents.neededIds()
        } catch (error) {
          // Whoever waits for it, and for the next one, must not wait for ever.
          return finished(wireError(error), undefined)
        }
        // What stays is durable before it can be changed: beside a journal that knows of the change, it is what counts after a power failure, and takes the
        // place of the archive at the next commit. What is renamed to the root goes.
        let left = 2, outcome: [WireError | undefined, CommitReply | undefined]
        const arrived = (): void => {
          if (--left === 0) finished(...outcome)
        }
        if (options.exactName) arrived()
        else this.#whenDurable(arrived)
        this.#client.request({
          kind: 'commit', staged, patient: options.patient, ...(options.exactName && { exactName: options.exactName }),
          ...(needed && made && { replaces: { id: made.id, keepName: made.tree === tree.name, needed } }),
        }, (error, reply) => {
          outcome = [error, error ? undefined : reply]
          arrived()
        }, heard)
      }))
    }))
    this.#tell(tree)
  }

  /** What was deleted gives its room back, on a full disk the very room that a commit needs. */
  #whenTidy(work: () => void): void {
    // And where the journal has two files, the engine is not to go by one of them.
    if (this.#staging.needlessBytes === 0 && !this.#journal.isBeingRenewed) return work()
    const synced = this.#staging.beforeSync()
    if (hostErrno(() => this.#staging.catchUp())) return work()
    this.#client.request({ kind: 'sync', fds: this.#journal.fds }, error => {
      if (!error) tidyUp(this.#log, synced)
      work()
    })
  }

  #succeeded(tree: StagedTree, { archive: { name, id }, numbers }: CommitReply): void {
    const archive = byteString(name)
    tree.made = { name: archive, id, tree: tree.name }
    tree.newBytes = numbers.newBytes
    this.stashChanged = true
    this.#changeNoted.delete(tree)
    tree.state = { kind: 'committed', archive, atMs: performance.now() }
    try {
      this.#noteCommit(tree, tree.made)
      this.#listener.committed?.(tree)
    } catch (error) {
      // The archive is there, and whoever waits for it must hear so. The mark goes on saying so to the next mount.
      if (errnoOf(error) === undefined) throw error
      this.#log.write('warning', 'borg.fuse', `${shownPath(tree)} is saved as an archive, but the staging folder does not take a note of it: ${messageOf(error)}`)
    }
    this.commits.push({ archive, atMs: Date.now(), ...numbers })
    if (this.commits.length > maxCommitsKept) this.commits.shift()
  }

  /** The order matters: the mark is what says the same until the journal does. Host errors are thrown; it must be done before the tree changes. */
  #noteCommit(tree: StagedTree, made: NonNullable<StagedTree['made']>): void {
    this.#unnoted.add(tree)
    this.#journal.committed(tree.name, made)
    this.#staging.forgetMark()
    this.#unnoted.delete(tree)
  }

  #failed(tree: StagedTree, before: StagedTree['state'], error: WireError, holder: string | undefined): void {
    const nowMs = performance.now()
    tree.problem = error.message
    if (error.msgid === 'LockTimeout') {
      // It was not begun: the mark of the one before is still there.
      this.#staging.forgetMark()
      tree.state = waitingState(holder, nowMs)
      tree.problem = describe(tree, nowMs, this.#options)
      return
    }
    const noRoom = saysNoRoom(error.code)
    tree.state = failedState(before, error.message, nowMs, noRoom)
    if (noRoom) this.#room = undefined
    this.#log.write('warning', 'borg.fuse', `${shownPath(tree)} stays staged: ${error.message}`)
  }

  /** Commits everything that is not in an archive yet, one tree after the other; the sentences of what could not be. */
  commitAll(done: (failures: string[]) => void): void {
    for (const tree of this.#trees.values()) tree.empty = this.isEmpty(tree)
    const left = [...this.#trees.values()].filter(tree => !tree.empty && tree.state.kind !== 'committed')
    const failures: string[] = []
    const next = (): void => {
      const tree = left.shift()
      if (!tree) return done(failures)
      if (tree.frozen) {
        this.whenThawed(tree, () => {
          if (tree.state.kind !== 'committed') left.unshift(tree)
          next()
        })
        return
      }
      const refusal = this.refusal(tree)
      if (refusal !== undefined) {
        this.refused(tree, refusal)
        failures.push(`${shownPath(tree)} stays staged for the next mount: ${refusal}`)
        return next()
      }
      this.commit(tree, { patient: true }, error => {
        if (error) failures.push(`${shownPath(tree)} stays staged for the next mount: ${tree.problem ?? error.message}`)
        next()
      })
    }
    next()
  }

  /** Files and bytes of a tree. */
  count(tree: StagedTree): { files: number; bytes: number } {
    return countTree(this.#nodes, tree.name)
  }
}

/** As a person would find it. */
export function shownPath(tree: StagedTree): string {
  return tree.name === undefined ? tree.place : `${tree.place}/${shownText(bytesOf(tree.name))}`
}
