/**
 * The series that are open in live/: which archive each lies over, opening and closing them, and letting go of spool files that an archive
 * made needless. Incoming does the rest, as for any staged tree.
 *
 * An archive's names and attributes are there when its series can be seen; what its files consist of comes right behind, and is waited for by whoever
 * reads or changes a file. Both stay in memory as long as the series needs them, also when the archive is deleted meanwhile.
 */
import { bytesOf, shownText } from '../../engine/text.js'
import type { ArchiveTree } from '../archive-tree.js'
import type { ShownArchive } from '../archives-dir.js'
import { type Answer, type Call, LATER } from '../core.js'
import type { EngineClient } from '../engine-client.js'
import type { WireError } from '../engine-port.js'
import { type Entry, Errno } from '../types.js'
import { Extents } from './extents.js'
import type { BaseTree } from './base-tree.js'
import { hostErrno } from './contents.js'
import { changeRoomBytes } from './journal.js'
import { rootId, type StagedNode } from './nodes.js'
import type { StagedTree } from './policy.js'
import { hasSpooled, newestOf, stored } from './series.js'
import type { Staging } from './staging.js'
import type { Trees } from './trees.js'
import { WaitingCall } from './waiting-call.js'

/** What the directory of the series does for them. */
export interface SeriesHost {
  entry(node: StagedNode): Entry
  /** An ordinary mkdir, with its checks. */
  makeDirectory(name: string, mode: number, call: Call<Entry>): Answer<Entry>
  /** Whether makeDirectory would refuse the name, whatever there is. */
  refuses(name: string): boolean
  drop(tree: StagedTree): void
  /** The listing changed. */
  touch(): void
  /** Whether handles are open in a tree. */
  isInUse(tree: StagedTree): boolean
  /** An archive is just being replaced, by a save of incoming/: chunks may go with it. */
  isReplacing(): boolean
  whenNothingIsReplaced<T>(call: Call<T>, work: (call: Call<T>) => Answer<T>): Answer<T>
  /** Durability.syncJournal. */
  syncJournal(done: (error: WireError | undefined) => void): void
}

/** When nobody asks. */
const retryMs = 10_000

export class LiveSeries {
  readonly #staging: Staging
  readonly #trees: Trees
  readonly #client: EngineClient
  readonly #host: SeriesHost
  #archives: readonly ShownArchive[] = []
  /** Series that are being opened, and who waits for them. */
  readonly #opening = new Map<string, (() => void)[]>()
  /** Trees whose archive is to take the place of their spool files, with their versions when it was made. */
  readonly #toRelease = new Map<StagedTree, number>()
  /** What series of an earlier process lie over: nothing in live/ can be seen before. */
  readonly #inherited: BaseTree[]
  /** Who waits for these; undefined if nothing is being loaded for them. */
  #inheriting: ((failed: Errno | undefined) => void)[] | undefined
  /** Archives that series are about to lie over: as often as they are being opened. */
  readonly #coming: string[] = []
  /** Bases whose chunk rows are being loaded, and who waits for them. */
  readonly #loading = new Map<BaseTree, ((failed: Errno | undefined) => void)[]>()

  /** `open`: byte strings of series to open when somebody looks, beside those that were open before. */
  constructor(staging: Staging, trees: Trees, client: EngineClient, host: SeriesHost, open: readonly string[]) {
    this.#staging = staging
    this.#trees = trees
    this.#client = client
    this.#host = host
    this.#inherited = [...staging.nodes.bases]
    for (const series of open) if (!this.#top(series)) staging.toOpen.add(series)
  }

  set archives(archives: Iterable<ShownArchive>) {
    this.#archives = [...archives]
  }

  tick(): void {
    if (performance.now() >= this.#inheritAtMs) this.#inherit()
    for (const series of this.#staging.toOpen) this.#openAgain(series)
    for (const [tree, version] of this.#toRelease) this.#release(tree, version)
  }

  /** A tree is an archive. */
  committed(tree: StagedTree): void {
    this.#toRelease.set(tree, tree.version)
    const top = this.#top(tree.name!)
    if (!top) return
    // What neither the archive beneath nor the new one has need not be hidden any more.
    for (const { node: { origin, hidden }, path } of this.#staging.nodes.walk(top)) {
      if (origin) origin.path = path === '.' ? '' : path
      if (origin) for (const name of hidden ?? []) if (origin.base.lookup(origin.row, name) < 0) hidden!.delete(name)
    }
  }

  /** Looks for what series of an earlier process lie over. */
  #inherit(): Errno | undefined {
    while (this.#inherited.length > 0 && !this.#inheriting) {
      const waiting: ((failed: Errno | undefined) => void)[] = []
      const answer = this.#attach(this.#inherited[0]!, value => {
        this.#inheriting = undefined
        const failed = value instanceof Errno ? value : undefined
        if (failed) this.#inheritAtMs = performance.now() + retryMs
        else this.#inherited.shift()
        for (const wake of waiting) wake(failed)
      })
      if (answer === LATER) {
        this.#inheriting = waiting
        return undefined
      }
      if (answer instanceof Errno) {
        this.#inheritAtMs = performance.now() + retryMs
        return answer
      }
      this.#inherited.shift()
    }
    return undefined
  }
  #inheritAtMs = 0

  /** The archive itself, or if it is gone what comes nearest to it: the one that was made of the series last, else the newest. */
  #attach(base: BaseTree, done: (answer: Answer<void>) => void): Answer<void> {
    if (this.#untold) return this.#tell(this.#untold)
    const own = this.#archiveOf(base.archive)
    const archive = own ?? this.#archiveOf(this.#trees.find(base.series)?.made?.id) ?? this.#newest(base.series)
    if (!archive) return this.#rebase(base, undefined)
    return archive.files.withTree<void>(call(done), tree => {
      // By an option of this mount there may be other rows than before.
      if (own && tree.rowCount === base.rowCount) {
        this.#staging.nodes.attach(base, tree)
        return undefined
      }
      return this.#rebase(base, { archive, tree })
    })
  }

  #rebase(base: BaseTree, to: { archive: ShownArchive; tree: ArchiveTree } | undefined): Errno | undefined {
    const { nodes, journal } = this.#staging
    const fresh = to && nodes.addBase(base.series, to.archive.files.info.id, to.tree.rowCount)
    if (to && !fresh) return Errno.ENOSPC
    if (fresh) nodes.attach(fresh, to!.tree)
    const moved = nodes.rebase(base, fresh)
    const shown = `live/${shownText(bytesOf(base.series))}`
    if (to?.archive.files.info.id !== base.archive) {
      this.#client.write('warning', 'borg.fuse', to
        ? `${shown}: the archive that it was opened from was deleted. What was changed in it lies over ${shownText(to.archive.name)} now.`
        : `${shown}: the archive that it was opened from was deleted, and there is no other. Only what was changed in it is left.`)
    }
    return this.#tell(() => journal.together(() => {
      if (fresh) journal.based(fresh)
      for (const node of moved) journal.origin(node.id, node.origin)
    }))
  }

  /** The journal hears what a series lies over before anything can be seen of it, or changed: on a full disk later. */
  #tell(told: () => void): Errno | undefined {
    const failed = hostErrno(told)
    this.#untold = failed && told
    return failed
  }
  #untold: (() => void) | undefined

  #archiveOf(id: string | undefined): ShownArchive | undefined {
    return this.#archives.find(({ files }) => files.info.id === id)
  }

  #newest(series: string): ShownArchive | undefined {
    return newestOf(this.#archives.map(archive => ({ name: archive.files.info.name, timeNs: archive.files.info.timeNs, archive })), series)?.archive
  }

  /** A base that trees lie over and whose chunk rows are not there yet. What was moved in from another series came from one that is whole. */
  #unfinished(trees: readonly StagedTree[]): BaseTree | undefined {
    return this.#staging.nodes.bases.find(base => !base.whole && trees.some(({ name }) => name === base.series))
  }

  #load(base: BaseTree): void {
    if (base.whole || this.#loading.has(base)) return
    const archive = this.#archiveOf(base.archive)
    const waiting: ((failed: Errno | undefined) => void)[] = []
    const done = (answer: Answer<void>): void => {
      this.#loading.delete(base)
      for (const wake of waiting) wake(answer instanceof Errno ? answer : undefined)
    }
    this.#loading.set(base, waiting)
    if (!archive) this.#client.write('warning', 'borg.fuse', `live/${shownText(bytesOf(base.series))}: the archive that it was opened from was deleted before it could be read`)
    const answer = archive?.files.withTree<void>(call(done), tree => {
      if (!base.whole && tree.chunkBytes === base.tree.chunkBytes) base.tree.setChunks(tree.chunks)
      return base.whole ? undefined : Errno.EIO
    })
    if (answer !== LATER) this.#loading.delete(base)
  }

  /** Runs `work` when all that trees lie over is there, so that files in them can be read and changed. */
  whenWhole<T>(trees: () => readonly StagedTree[], call: Call<T>, work: (call: Call<T>) => Answer<T>): Answer<T> {
    const base = this.#unfinished(trees())
    if (!base) return work(call)
    this.#load(base)
    if (base.whole) return this.whenWhole(trees, call, work)
    const waiting = this.#loading.get(base)
    return waiting ? this.#deferred(call, waiting, later => this.whenWhole(trees, later, work)) : Errno.EIO
  }

  /** The same for a commit. */
  prepare(tree: StagedTree, done: (failed: Errno | undefined) => void): void {
    const answer = this.whenOpen<void>(tree.name, call(value => done(value instanceof Errno ? value : undefined)), later => this.whenWhole<void>(() => [tree], later, () => undefined))
    if (answer !== LATER) done(answer instanceof Errno ? answer : undefined)
  }

  /** Starts to open a series that was open before, or that an option names. */
  #openAgain(series: string): void {
    this.#staging.toOpen.delete(series)
    this.#opening.set(series, [])
    const done = (answer: Answer<Entry>): void => {
      if (answer instanceof Errno) this.#client.write('warning', 'borg.fuse', `live/${shownText(bytesOf(series))} could not be opened: ${answer.code}`)
      const waiting = this.#opening.get(series)!
      this.#opening.delete(series)
      for (const work of waiting) work()
    }
    const { uid, gid } = this.#staging.nodes.get(rootId)!
    const answer = this.open(series, 0o755, { uid, gid, pid: 0, defer: () => done })
    if (answer !== LATER) done(answer)
  }

  /** Runs `work` when a series, or all of them, are open. */
  whenOpen<T>(series: string | undefined, call: Call<T>, work: (call: Call<T>) => Answer<T>): Answer<T> {
    const failed = this.#inherit()
    if (failed) return failed
    if (this.#inheriting) return this.#deferred(call, this.#inheriting, later => this.whenOpen(series, later, work))
    for (const name of this.#staging.toOpen) if (series === undefined || series === name) this.#openAgain(name)
    const name = series ?? this.#opening.keys().next().value
    const waiting = name === undefined ? undefined : this.#opening.get(name)
    if (!waiting) return work(call)
    return this.#deferred(call, waiting, later => this.whenOpen(series, later, work))
  }

  /** Answers when those who wait are woken, by what `work` gives then. */
  #deferred<T>(call: Call<T>, queue: ((failed: Errno | undefined) => void)[], work: (call: Call<T>) => Answer<T>): Answer<T> {
    const waiting = new WaitingCall(call, this.#client)
    queue.push(failed => waiting.run(later => failed ?? work(later)))
    return LATER
  }

  /** `mkdir live/NAME`: the newest archive of the series, or an empty directory. */
  open(key: string, mode: number, call: Call<Entry>): Answer<Entry> {
    const root = this.#staging.nodes.get(rootId)!
    const newest = this.#newest(key)
    if (!newest || root.children!.has(key) || this.#host.refuses(key)) return this.#host.makeDirectory(key, mode, call)
    // By then another archive may be the newest.
    if (this.#host.isReplacing()) return this.#host.whenNothingIsReplaced(call, later => this.open(key, mode, later))
    const archiveId = newest.files.info.id
    const came = (): void => void this.#coming.splice(this.#coming.indexOf(archiveId), 1)
    this.#coming.push(archiveId)
    const heard: Call<Entry> = { ...call, defer: () => {
      const answer = call.defer()
      return value => {
        came()
        answer(value)
      }
    } }
    const answer = newest.files.withNames(heard, tree => {
      if (root.children!.has(key)) return Errno.EEXIST
      const { info } = newest.files
      const { nodes, journal } = this.#staging
      const base = nodes.addBase(key, info.id, tree.rowCount)
      if (!base) return Errno.ENOSPC
      nodes.attach(base, tree)
      const node = nodes.open(base, key)
      const failed = hostErrno(() => journal.together(() => {
        journal.based(base)
        journal.created(node, rootId, key)
        for (const [attribute, value] of node.xattrs ?? []) journal.xattr(node.id, attribute, value)
        this.#trees.opened(key, info)
      }))
      if (failed) {
        // What would be changed in it, no later start would know of.
        nodes.dropTree(root, key)
        nodes.dropBases()
        this.#trees.forget(key)
        return failed
      }
      this.#staging.opened(key)
      this.#host.touch()
      this.#load(base)
      return this.#host.entry(node)
    })
    if (answer !== LATER) came()
    return answer
  }

  /** Whether a series lies over an archive, or is about to: it must not be replaced. */
  liesOver(archive: string): boolean {
    return this.#coming.includes(archive) || this.#staging.nodes.bases.some(base => base.archive === archive)
  }

  /** `rmdir live/NAME`: a series without changes is closed, however much is in it; its archives are the repository's. False of any other directory. */
  close(key: string): boolean | Errno {
    const tree = this.#trees.find(key)
    if (tree?.state.kind !== 'committed' || this.#host.isInUse(tree)) return false
    return hostErrno(() => this.#host.drop(tree)) ?? true
  }

  /**
   * After a commit of a live tree: its files are chunks of the archive, so the spool files can go. Extents are laid over them first, which
   * changes nothing that anybody reads; the files go when the journal that says so is on disk.
   */
  #release(tree: StagedTree, version: number): void {
    const made = this.#archiveOf(tree.made?.id)
    const top = this.#top(tree.name!)
    const isStill = (): boolean => tree.version === version && tree.state.kind === 'committed' && this.#trees.find(tree.name) === tree
    if (!isStill()) this.#toRelease.delete(tree)
    else if (made && top?.children) {
      this.#toRelease.delete(tree)
      if (!hasSpooled(this.#staging, top)) return
      const release = (archive: ArchiveTree): undefined => {
        if (!isStill()) return undefined
        const found = [...stored(this.#staging, top, archive)]
        if (found.length === 0) return undefined
        const { journal } = this.#staging
        const failed = hostErrno(() => {
          journal.ready(found.reduce((sum, [, { rows }]) => sum + 3 * rows.length, changeRoomBytes))
          journal.together(() => {
            for (const [node, extents] of found) journal.cloned(node.id, extents)
          })
        })
        // On a full disk they stay where they are: what the journal did not hear of must not be taken for done.
        if (failed) return undefined
        const held: (readonly [node: StagedNode, holdsWhole: () => boolean])[] = []
        for (const [node, extents] of found) {
          const laid = (node.extents ??= new Extents())
          this.#staging.counting(node, () => laid.put(extents))
          if (node.befores.length === 0) held.push([node, this.#staging.holdsWhole(node)])
          if (node.place && laid.coveredFrom(0) >= node.size) {
            this.#staging.releasePlace(node.place)
            node.place = undefined
            node.bare = true
          }
        }
        this.#host.syncJournal(error => {
          if (error) return
          // What the journal does not take stays where it is.
          for (const [node, holdsWhole] of held) if (holdsWhole() && hostErrno(() => this.#staging.removeSpool(node))) return
        })
        return undefined
      }
      made.files.withTree<void>(call(() => undefined), release)
    }
  }

  #top(series: string): StagedNode | undefined {
    return this.#staging.nodes.child(this.#staging.nodes.get(rootId)!, series)
  }
}

/** A call of nobody: `done` hears what comes late. */
function call(done: (answer: void | Errno) => void): Call<void> {
  return { uid: 0, gid: 0, pid: 0, defer: () => done }
}
