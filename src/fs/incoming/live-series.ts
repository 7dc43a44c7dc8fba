/**
 * The series that are open in live/: which archive each shows, opening and closing them, and letting go of spool files that an archive
 * made needless. Incoming does the rest, as for any staged tree.
 */
import { byteString, bytesOf, shownText } from '../../engine/text.js'
import type { ArchiveTree } from '../archive-tree.js'
import type { ShownArchive } from '../archives-dir.js'
import { type Answer, type Call, LATER } from '../core.js'
import type { EngineClient } from '../engine-client.js'
import { type Entry, Errno } from '../types.js'
import { Extents } from './extents.js'
import { rootId, type StagedNode } from './nodes.js'
import type { StagedTree } from './policy.js'
import { newestOf, populate, stored } from './series.js'
import type { Staging } from './staging.js'
import type { Trees } from './trees.js'

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
}

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

  /** `open`: byte strings of series to open when somebody looks, beside those that were open before. */
  constructor(staging: Staging, trees: Trees, client: EngineClient, host: SeriesHost, open: readonly string[]) {
    this.#staging = staging
    this.#trees = trees
    this.#client = client
    this.#host = host
    for (const series of open) if (!this.#top(series)) staging.toOpen.add(series)
  }

  set archives(archives: Iterable<ShownArchive>) {
    this.#archives = [...archives]
  }

  tick(): void {
    for (const series of this.#staging.toOpen) this.#openAgain(series)
    for (const [tree, version] of this.#toRelease) this.#release(tree, version)
  }

  /** A tree is an archive. */
  committed(tree: StagedTree): void {
    this.#toRelease.set(tree, tree.version)
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
    for (const name of this.#staging.toOpen) if (series === undefined || series === name) this.#openAgain(name)
    const name = series ?? this.#opening.keys().next().value
    const waiting = name === undefined ? undefined : this.#opening.get(name)
    if (!waiting) return work(call)
    const answer = call.defer()
    const { uid, gid, pid, umask = 0 } = call
    waiting.push(() => {
      const late = this.whenOpen(series, { uid, gid, pid, umask, defer: () => answer }, work)
      if (late !== LATER) answer(late)
    })
    return LATER
  }

  /** `mkdir live/NAME`: the newest archive of the series, or an empty directory. */
  open(key: string, mode: number, call: Call<Entry>): Answer<Entry> {
    const root = this.#staging.nodes.get(rootId)!
    const newest = newestOf(this.#archives.map(({ files }) => ({ name: files.info.name, timeNs: files.info.timeNs, files })), key)
    if (!newest || root.children!.has(key) || this.#host.refuses(key)) return this.#host.makeDirectory(key, mode, call)
    return newest.files.withTree(call, tree => {
      if (root.children!.has(key)) return Errno.EEXIST
      const { info } = newest.files
      const node = populate(this.#staging, key, tree)
      this.#trees.opened(key, info)
      this.#host.touch()
      return this.#host.entry(node)
    })
  }

  /** `rmdir live/NAME`: a series without changes is closed, however much is in it; its archives are the repository's. */
  close(key: string): boolean {
    const tree = this.#trees.find(key)
    if (tree?.state.kind !== 'committed' || this.#host.isInUse(tree)) return false
    this.#host.drop(tree)
    return true
  }

  /**
   * After a commit of a live tree: its files are chunks of the archive, so the spool files can go. Extents are laid over them first, which
   * changes nothing that anybody reads; the files go when the journal that says so is on disk.
   */
  #release(tree: StagedTree, version: number): void {
    const made = this.#archives.find(({ files }) => files.info.id === tree.made?.id)
    const top = this.#top(tree.name!)
    const isStill = (): boolean => tree.version === version && tree.state.kind === 'committed' && this.#trees.find(tree.name) === tree
    if (!isStill()) this.#toRelease.delete(tree)
    else if (made && top?.children) {
      this.#toRelease.delete(tree)
      const release = (archive: ArchiveTree): undefined => {
        if (!isStill()) return undefined
        const found = [...stored(this.#staging, top, archive)]
        if (found.length === 0) return undefined
        this.#staging.journal.together(() => {
          for (const [node, extents] of found) {
            const before = node.extents?.bytes ?? 0
            ;(node.extents ??= new Extents()).put(extents)
            this.#staging.journal.cloned(node.id, extents)
            this.#staging.grew(before - node.extents.bytes)
            if (node.place && node.extents.coveredFrom(0) >= node.size) {
              this.#staging.releasePlace(node.place)
              node.place = undefined
              node.bare = true
            }
          }
        })
        this.#client.request({ kind: 'sync', fds: [this.#staging.journal.fd] }, error => {
          if (error) return
          for (const [node] of found) {
            if (this.#staging.nodes.get(node.id) !== node || node.bare || !node.extents || node.extents.coveredFrom(0) < node.size) continue
            node.bare = true
            this.#staging.spool.remove(node.id)
          }
        })
        return undefined
      }
      made.files.withTree<void>({ uid: 0, gid: 0, pid: 0, defer: () => () => undefined }, release)
    }
  }

  #top(series: string): StagedNode | undefined {
    return this.#staging.nodes.child(this.#staging.nodes.get(rootId)!, series)
  }
}
