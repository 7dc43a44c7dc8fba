/**
 * The staging folder of one repository: nodes, their journal and their spooled contents, recovered at start. In the thread that
 * answers the kernel; nothing here waits for a disk to be durable.
 */
import { fstatSync, statfsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { FileCipher } from '../../engine/crypto/file-cipher.js'
import { keyFromMaterial } from '../../engine/crypto/keys.js'
import type { SharedTable } from '../../engine/hashindex/hash-table.js'
import { files } from '../../engine/platform/files.js'
import { syncDirectory } from '../../engine/platform/save-file.js'
import { bootId } from '../../engine/platform/process-id.js'
import { type BundlePlace, Bundles } from './bundles.js'
import type { Errno, NodeAttributes } from '../types.js'
import { hostErrno } from './contents.js'
import { FoundContents, type Undone } from './found-contents.js'
import { errnoOf, ioError, saysNoRoom } from '../../engine/errors.js'
import { type FinishedTree, journalName, markName } from './frozen.js'
import { changeRoomBytes, Journal } from './journal.js'
import { type MadeArchives, replay } from './journal-replay.js'
import { attributesOf, isFile, type NodeFacts, Nodes, rootId, type StagedNode } from './nodes.js'
import type { Place } from './policy.js'
import { Spool } from './spool.js'
import { giveRoom, withRoom } from './staging-room.js'
import { type StagingKeys, takeNonces } from './staging-keys.js'

export interface StagingOptions {
  readonly folder: string
  /** Bytes that may be staged; undefined: as the disk allows. */
  readonly maxBytes: number | undefined
  readonly rootFacts: NodeFacts
  /** Ids of all archives in the repository: what was staged for one of them is safe there. */
  readonly archiveIds: ReadonlySet<string>
  /** A tree whose archive was committed just before an earlier process ended. */
  readonly finished?: FinishedTree | undefined
  readonly place: Place
  /** Absent where the repository is not encrypted. */
  readonly keys?: StagingKeys | undefined
  /** Where chunks are that the repository or the stash has: of what was not durable when the host failed, chunks may be missing. */
  readonly chunks?: readonly SharedTable[] | undefined
  /** What the stash takes on disk. */
  readonly stashBytes?: number | undefined
  /** Which start of the machine this is, if not the real one. */
  readonly boot?: string | undefined
  /** live: id of the newest archive of a series. */
  readonly newest?: ((series: string) => string | undefined) | undefined
  /** What is told of new files may be written a little later: `catchUp` is called when nothing is asked for a moment, and a few times a second. */
  readonly putsOff?: boolean
}

export class Staging {
  readonly folder: string
  readonly keys: StagingKeys | undefined
  readonly nodes: Nodes
  readonly journal: Journal
  readonly spool: Spool
  readonly bundles: Bundles
  readonly boot: string
  /** What the stash takes on disk, as last heard. */
  stashBytes: number
  /** What earlier processes made of trees that changed since. */
  readonly made: MadeArchives = new Map()
  /** live: series that were open, whose files are to be taken from their newest archives. */
  readonly toOpen = new Set<string>()
  /** live: of which the journal says only that. */
  readonly #unopened: Set<string>
  /** Journal records that could not be used. */
  readonly lostRecords: number
  /** Files that the failure of the machine made what they were before they were changed last. */
  readonly undone: readonly Undone[]
  readonly #maxBytes: number
  #bytes = 0
  #afterSync: { readonly work: () => void; readonly node: StagedNode | undefined }[] = []
  /** Spool files of nobody, with their sizes: they go when the journal that says so is on disk. Before, a crash might bring their names back. */
  #needless: { readonly bytes: number; remove(): void }[] = []
  /** The mark is needless as well, since so many of them were. */
  #needlessMark: number | undefined
  #marks = 0

  constructor(options: StagingOptions) {
    this.folder = options.folder
    files.ensureDirectory(options.folder, 0o700)
    this.#maxBytes = options.maxBytes ?? Infinity
    this.nodes = new Nodes(options.rootFacts)
    this.boot = options.boot ?? bootId()
    this.keys = options.keys
    const cipher = this.keys && new FileCipher(this.keys.contents)
    this.spool = new Spool(options.folder, cipher)
    this.bundles = new Bundles(options.folder, cipher)
    this.stashBytes = options.stashBytes ?? 0
    const path = join(options.folder, journalName)
    Journal.removeRenewed(path)
    const recordKey = this.keys && keyFromMaterial(this.keys.records)
    const before = statSync(path, { throwIfNoEntry: false })
    const known = new Set<string>()
    let behindDamage: number | undefined
    this.lostRecords = replay(path, this.nodes, this.made, recordKey, known, at => behindDamage = at)
    if (behindDamage !== undefined) files.truncate(path, behindDamage)
    const finished = options.finished && !known.has(options.finished.archive) ? options.finished : undefined
    this.nodes.passOver(this.spool.highestId)
    const found = new FoundContents(this.spool, this.bundles, this.boot, options.chunks ?? [])
    found.adopt(this.nodes)
    this.undone = found.undone
    this.#countBytes()
    this.journal = Journal.open(path, recordKey && { key: recordKey, takeNonces: () => withRoom(options.folder, () => takeNonces(this.keys!)) })
    this.journal.giveRoom = () => giveRoom(options.folder)
    this.journal.writeContents = () => this.bundles.catchUp()
    this.journal.isUnknown = id => this.nodes.peek(id)?.known === false
    this.journal.isGone = id => this.nodes.peek(id)?.nlink === 0
    if (options.place === 'live') this.#dropOutdated(options, finished)
    else this.#dropArchived(options, finished)
    this.nodes.dropBases()
    // An empty one that was there before says nothing already, and is as durable.
    if (before?.size !== 0 || fstatSync(this.journal.fds[0]!).size > 0) this.#shortenJournal()
    this.#unopened = new Set(this.toOpen)
    this.#mayPutOff = options.putsOff ?? false
    this.putsOff = true
    this.removeMark()
    this.spool.removeOrphans(id => hasSpool(this.nodes.get(id)))
    this.bundles.removeOrphans()
  }

  #countBytes(): void {
    for (const node of this.nodes.all()) {
      if (!isFile(node)) continue
      if (!node.place && !node.bare) this.lookForHoles(node)
      this.#bytes += stagedBytes(node)
    }
  }

  /** On a full disk it stays as it is, which says the same but for what is to be opened. */
  #shortenJournal(): void {
    try {
      this.journal.rewrite(this.nodes, this.made, this.toOpen)
    } catch (error) {
      if (!saysNoRoom(errnoOf(error))) throw error
      this.journal.together(() => {
        for (const series of this.toOpen) this.journal.opening(series)
        for (const { id, index } of this.undone) this.journal.undone(id, index)
      })
      // What it says to be needless goes now.
      for (const fd of this.journal.fds) files.datasync(fd)
    }
  }

  /**
   * Trees that an archive holds as they are. The mark of a commit under way (`finished`) counts only if the journal never knew of that
   * archive: what happened to the tree after it did is in the journal, and a new one may have its name by now.
   */
  #dropArchived({ archiveIds }: StagingOptions, finished: FinishedTree | undefined): void {
    if (finished) this.drop(finished.tree)
    for (const [tree, { made, changed }] of [...this.made]) {
      if (!archiveIds.has(made.id)) this.made.delete(tree)
      else if (!changed) this.drop(tree)
    }
  }

  /** Series that did not change begin anew with their newest archive, and so do those that were being opened. */
  #dropOutdated({ newest }: StagingOptions, finished: FinishedTree | undefined): void {
    if (finished?.tree !== undefined) {
      this.made.set(finished.tree, { made: { name: finished.archiveName, id: finished.archive, tree: finished.tree }, changed: false })
    }
    for (const [series, { changed, opening }] of [...this.made]) {
      // What lies over no archive is all there is, if all of the series were deleted.
      const isAll = !this.nodes.peek(this.nodes.childId(rootId, series ?? '') ?? 0)?.origin
      if (series === undefined || (!opening && (changed || (isAll && newest?.(series) === undefined)))) continue
      this.drop(series)
      this.toOpen.add(series)
    }
  }

  /** False: what comes is written at once, or refused. */
  set putsOff(putsOff: boolean) {
    this.journal.putsOff = this.bundles.putsOff = putsOff && this.#mayPutOff
  }
  readonly #mayPutOff: boolean

  /** Something was put off. */
  get isBehind(): boolean {
    return this.journal.isBehind || this.bundles.isBehind
  }

  /** Gives the host what was put off. Host errors: it still waits, and changes are refused. */
  catchUp(): void {
    this.journal.catchUp()
  }

  /** To be called before a node is changed: the journal hears of what is as a base has it, and of the directories above. Its base must be whole. */
  adopt(node: StagedNode): void {
    // Without recursion: directories may lie one in the other by the ten thousand.
    const waiting = [node]
    for (let next = waiting.at(-1); next; next = waiting.at(-1)) {
      // Without a name, but open: it is nobody's business any more but of who has it open.
      if (!next.known && next.nlink === 0) {
        this.nodes.fill(next)
        next.known = true
      }
      const places = next.known ? [] : this.#placesOf(next)
      const above = places.flatMap(([directory]) => (directory.known ? [] : [directory]))
      waiting.push(...above)
      if (above.length > 0) continue
      waiting.pop()
      if (!next.known) this.#adopt(next, places)
    }
  }

  /** Where a base has a node. */
  #placesOf(node: StagedNode): (readonly [directory: StagedNode, name: string])[] {
    const { nodes } = this
    const base = nodes.baseOf(node.id)
    if (!base?.whole || nodes.peek(node.id) !== node) throw ioError('the archive beneath is not there')
    return base.places(base.rowOf(node.id)).map(([directory, name]) => [nodes.get(base.directoryId(directory))!, name] as const)
  }

  /** The directories are known. */
  #adopt(node: StagedNode, places: readonly (readonly [directory: StagedNode, name: string])[]): void {
    const { nodes, journal } = this
    nodes.fill(node)
    const above = places[0]?.[0].origin?.path
    if (node.origin && above !== undefined) node.origin.path ??= above === '' ? places[0]![1] : `${above}/${places[0]![1]}`
    node.known = true
    try {
      if (node.extents) journal.ready(changeRoomBytes + 2 * node.extents.rows.length)
      journal.whole(() => {
        for (const [index, [directory, name]] of places.entries()) {
          if (index === 0) journal.created(node, directory.id, name)
          else journal.linked(node.id, directory.id, name)
          nodes.enter(node, directory, name, index === 0)
        }
        for (const [attribute, value] of node.xattrs ?? []) journal.xattr(node.id, attribute, value)
        if (node.extents) journal.cloned(node.id, node.extents)
      }, Infinity)
    } catch (error) {
      // On a full disk: it is as before.
      node.known = false
      for (const [directory, name] of places) directory.children!.delete(name)
      throw error
    }
  }

  /** The journal hears first: what it could not take is not so. Host errors. */
  setAttributes(node: StagedNode, change: Partial<NodeAttributes>): void {
    const after = { ...attributesOf(node), ...change }
    this.journal.attributes(node.id, after)
    this.#assign(node, after)
  }

  /** The same with an xattr; undefined: it has no such xattr any more. */
  setXattr(node: StagedNode, name: string, value: Buffer | undefined, change?: Partial<NodeAttributes>): void {
    const after = change && { ...attributesOf(node), ...change }
    this.journal.whole(() => {
      this.journal.xattr(node.id, name, value)
      if (after) this.journal.attributes(node.id, after)
    })
    if (value) (node.xattrs ??= new Map<string, Buffer>()).set(name, value)
    else node.xattrs?.delete(name)
    if (after) this.#assign(node, after)
  }

  /** What changed of a file's attributes as it was written. */
  recordTimes(node: StagedNode): void {
    if (node.dirty) this.setAttributes(node, {})
  }

  #assign(node: StagedNode, after: NodeAttributes): void {
    Object.assign(node, after)
    node.dirty = false
  }

  /** The journal has what the mark said: it goes as spool files do. */
  forgetMark(): void {
    this.#needlessMark = ++this.#marks
  }

  /** The journal, long as it is, says as much as an empty one. */
  get saysNothing(): boolean {
    return this.journal.length > maxEmptyJournalBytes && !this.waitsForSync && this.#isSaid
  }

  /** Nothing is staged, and nothing is to be said of what was. */
  get #isSaid(): boolean {
    return this.#isEmpty && !this.hasNeedless && this.made.size === 0 && this.#unopened.size === 0
  }

  get #isEmpty(): boolean {
    return this.nodes.get(rootId)!.children!.size === 0
  }

  /** It says much more than has to be said: a drive may stay for months, with something staged in it all the time. */
  get isJournalLong(): boolean {
    const { count } = this.nodes
    return count <= maxRenewedNodes && this.journal.length > longJournalBytes + count * bytesOfNode + 4 * this.journal.least && this.#unopened.size === 0 && this.toOpen.size === 0
  }

  /** The journal says of a series that it is open, which it was to become. */
  opened(series: string): void {
    this.#unopened.delete(series)
  }

  /** There is going to be a new mark. */
  keepMark(): void {
    this.#needlessMark = undefined
  }

  get hasNeedless(): boolean {
    return this.#needless.length > 0 || this.#needlessMark !== undefined
  }

  /** Bytes that wait for the journal to be synced. */
  get needlessBytes(): number {
    return this.#needless.reduce((sum, { bytes }) => sum + bytes, 0)
  }

  /** To be called before the journal is synced; what it gives is to be called when it is durable as it was now. */
  beforeSync(): () => void {
    const [count, mark] = [this.#needless.length, this.#needlessMark]
    const last = this.#needless[count - 1]
    return () => {
      // Another sync may have been faster.
      const known = last ? this.#needless.indexOf(last) : -1
      const gone = this.#needless.splice(0, known + 1)
      for (const { remove } of gone) remove()
      if (mark === undefined || this.#needlessMark !== mark) return
      this.removeMark()
    }
  }

  /** The journal says durably what it said. Host errors. */
  removeMark(): void {
    this.#needlessMark = undefined
    files.removeIfThere(join(this.folder, markName))
  }

  /**
   * Takes a committed tree out: its names, its spool files. Returns the names that left incoming/ itself. Whoever has a file of it open for
   * reading goes on reading it; `forget` is for when it is closed.
   */
  drop(name: string | undefined): string[] {
    const root = this.nodes.get(rootId)!
    const names = name !== undefined ? [name] : [...root.children!].filter(([, id]) => !this.nodes.get(id)?.children).map(([loose]) => loose)
    const there = names.filter(gone => this.nodes.child(root, gone))
    // A journal that forgot the archive and kept the tree would show both.
    this.journal.whole(() => {
      for (const gone of there) this.journal.dropped(rootId, gone)
      this.journal.forgotten(name)
    })
    for (const gone of there) for (const node of this.nodes.dropTree(root, gone)) if (node.opens === 0) this.#removeContents(node)
    this.nodes.dropBases()
    this.made.delete(name)
    return names
  }

  /** Room for `more` further bytes. */
  mayGrow(more: number): boolean {
    return this.#bytes + this.stashBytes + more <= this.#maxBytes
  }

  /** Runs what changes a file's contents: how much of it is staged is known again afterwards, also if it throws. */
  counting<T>(node: StagedNode, work: () => T): T {
    const before = stagedBytes(node)
    try {
      return work()
    } finally {
      this.#bytes += stagedBytes(node) - before
    }
  }

  /** How much of a file with a spool file is nothing: a size is soon set, and takes no room. Host errors. */
  lookForHoles(node: StagedNode): void {
    node.holes = Math.max(0, node.size - (node.extents?.bytes ?? 0) - this.spool.stat(node.id).blocks * 512)
  }

  /** A node without names and handles. */
  forget(node: StagedNode): void {
    this.nodes.forget(node.id)
    this.#removeContents(node)
  }

  #removeContents(node: StagedNode): void {
    if (!isFile(node) || !node.known) return
    this.#bytes -= stagedBytes(node)
    const { id, size, bare, place, former } = node
    if (place || former || !bare) {
      if (!place) this.spool.close(id)
      this.#needless.push({
        bytes: size,
        remove: () => {
          if (place) this.bundles.release(place)
          else this.spool.remove(id)
          if (former) this.bundles.release(former.place)
        },
      })
    }
    node.place = node.former = undefined
  }

  /**
   * Runs `work`, which removes what the journal and the stash have made needless, when both are durable as they are now. `node`: whose spool file
   * that is about; not while a failure of the machine may make the file what it was before.
   */
  afterSync(work: () => void, node?: StagedNode): void {
    this.#afterSync.push({ work, node })
  }

  /**
   * To be called when extents were laid over a file. Tells later, when they are durable, whether they hold the whole file, so that what lies beneath may go: not if anything was done
   * to it since, which is not durable with them.
   */
  holdsWhole(node: StagedNode): () => boolean {
    const { extents, cutCount, size } = node
    const isWhole = extents !== undefined && extents.coveredFrom(0) >= size
    return () => isWhole && this.nodes.get(node.id) === node && !node.bare && node.cutCount === cutCount && node.size === size && node.befores.length === 0
  }

  /** The extents hold the whole file, durably, and it is nothing else if the machine fails: what lies beneath goes. Host errors: it stays. */
  removeSpool(node: StagedNode): void {
    const { id, former } = node
    this.journal.whole(() => {
      if (former) this.journal.placed(id, undefined, 0)
      this.journal.spoolGone(id)
    })
    if (former) this.releasePlace(former.place)
    node.former = undefined
    node.bare = node.spoolGone = true
    this.spool.remove(id)
  }

  releasePlace(place: BundlePlace): void {
    this.afterSync(() => this.bundles.release(place))
  }

  get waitsForSync(): boolean {
    return this.#afterSync.length > 0
  }

  /** What waits for everything to be durable, for whoever makes it so: `done` if that went well, `again` if not. */
  takeAfterSync(): { done(): void; again(): void } {
    const mayGo = ({ node }: { node: StagedNode | undefined }): boolean => !node?.befores.length || this.nodes.peek(node.id) !== node
    const works = this.#afterSync.filter(mayGo)
    this.#afterSync = this.#afterSync.filter(entry => !mayGo(entry))
    return {
      done: () => {
        // What cannot be removed now goes at the next start.
        for (const { work } of works) hostErrno(work)
      },
      again: () => {
        this.#afterSync = [...works, ...this.#afterSync]
      },
    }
  }

  statfs(): { blocks: number; bfree: number; bavail: number; files: number; ffree: number; bsize: number } {
    const { blocks, bfree, bavail, files, ffree, bsize } = statfsSync(this.folder)
    const left = Math.max(0, Math.floor((this.#maxBytes - this.#bytes - this.stashBytes) / bsize))
    return { blocks, bfree: Math.min(bfree, left), bavail: Math.min(bavail, left), files, ffree, bsize }
  }

  /** A journal with anything in it means that something is not saved. The mark goes first, for good: see `Durability`. */
  #leaveNothing(): void {
    if (this.journal.length === 0 || !this.#isSaid) return
    try {
      this.removeMark()
      syncDirectory(this.folder)
      this.journal.empty()
    } catch (error) {
      // The next mount tidies up.
      if (errnoOf(error) === undefined) throw error
    }
  }

  /** Why what was put off is lost, if it is. */
  close(): Errno | undefined {
    // What was cut just before it became an archive still waits to be let go.
    const isEmpty = this.#isEmpty
    const lost = hostErrno(() => this.catchUp())
    if (this.hasNeedless || (isEmpty && !this.bundles.isEmpty)) {
      const synced = this.beforeSync()
      try {
        for (const fd of this.journal.fds) files.datasync(fd)
        synced()
        if (isEmpty) this.bundles.clear()
      } catch (error) {
        // The next mount tidies up.
        if (errnoOf(error) === undefined) throw error
      }
    }
    if (!lost) this.#leaveNothing()
    this.spool.closeAll()
    this.bundles.closeAll()
    this.journal.close()
    return lost
  }
}

const maxEmptyJournalBytes = 1 << 20
const longJournalBytes = 16 << 20
/** Much more than a node takes in a journal that is as short as can be: to write it anew is to be worth it. */
const bytesOfNode = 2048
/** Whoever asks something waits meanwhile, some 10 µs for each. */
const maxRenewedNodes = 200_000

/** What of a file counts as staged: not what are chunks, nor what is nothing. */
function stagedBytes({ size, extents, holes }: StagedNode): number {
  return Math.max(0, size - (extents?.bytes ?? 0) - holes)
}

function hasSpool(node: StagedNode | undefined): boolean {
  return node !== undefined && isFile(node) && !node.place
}
