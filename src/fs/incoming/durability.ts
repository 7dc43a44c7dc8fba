/** What is staged becomes durable: a file or all of it when somebody asks, everything from time to time; and what that made needless goes. */
import { errnoOf } from '../../engine/errors.js'
import { files } from '../../engine/platform/files.js'
import { type Answer, type Call, LATER } from '../core.js'
import type { EngineClient } from '../engine-client.js'
import type { EngineRequest, WireError } from '../engine-port.js'
import { errnoByCode, wireError } from '../errno.js'
import { Errno } from '../types.js'
import { type Contents, hostErrno, tidyUp } from './contents.js'
import type { MadeArchives } from './journal-replay.js'
import type { StagedNode } from './nodes.js'
import type { Staging } from './staging.js'
import { keepRoom } from './staging-room.js'

/** After the first change since the last time. What the disk needs comes on top. */
const syncAfterMs = 3000
/** So often it is looked whether the journal is to be written anew, and so often that is done at most. */
const lookAtJournalMs = 10_000, renewAgainMs = 300_000
/** More is not kept for so long that it is of no use. */
const maxNeedlessBytes = 64 << 20
/** With more of them all is synced, which takes less time than one after the other. */
const maxSuccessors = 32

export class Durability {
  readonly #staging: Staging
  readonly #contents: Contents
  readonly #client: EngineClient
  #unsynced: { readonly sinceMs: number } | undefined
  #syncing = false
  #syncTold = false
  /**
   * The disk failed to write what it had been given. The host has given up what it had of that in memory, and a later sync would go well without it: so nothing is taken for durable any more, and what
   * durable things would make needless stays. The next mount begins with what is on the disk.
   */
  #hasLost = false
  #releaseAtMs: number | undefined
  /** Once without delay: a disk may be full before anything is synced. */
  #hasKeptRoom = false
  /**
   * Files that took the name of another one and may not be durable: who writes aside and renames (rsync, many editors) does not sync, but counts on finding the one or the other. The journal says what the name stands for
   * now, and is made durable for whoever has anything synced; so these go along, as in other file systems.
   */
  readonly #successors = new Set<StagedNode>()
  /** What archives were made of trees, as the journal is to say it when it is written anew. */
  archives: () => MadeArchives = () => new Map()

  constructor(staging: Staging, contents: Contents, client: EngineClient) {
    this.#staging = staging
    this.#contents = contents
    this.#client = client
    // What an earlier process left may not be.
    if (staging.nodes.count > 1) this.noteChange()
  }

  /** Something was staged, or changed. */
  noteChange(): void {
    this.#unsynced ??= { sinceMs: performance.now() }
  }

  /** A file took the name of another one. */
  noteSuccessor(node: StagedNode): void {
    this.#successors.add(node)
  }

  /** What was closed is durable within five seconds, also if nobody asks for it. In the engine's thread, which waits for the disk. */
  tick(nowMs: number): void {
    if (this.#hasLost) return
    if (this.#unsynced && !this.#hasKeptRoom) {
      this.#hasKeptRoom = true
      keepRoom(this.#staging.folder)
    }
    this.#release(nowMs)
    if (!this.#syncing && !this.#staging.journal.isBeingRenewed && this.#staging.saysNothing) this.#emptyJournal()
    if (nowMs >= this.#lookAtMs) this.#renewJournal(nowMs)
    if (this.#syncing || !(this.#unsynced || this.#staging.hasNeedless)) return
    const isDue = !this.#unsynced || nowMs - this.#unsynced.sinceMs >= syncAfterMs || this.#staging.needlessBytes > maxNeedlessBytes
    if (isDue) this.#sync()
  }

  /** All that changed so far. */
  #sync(): void {
    this.#syncing = true
    const wasUnsynced = this.#unsynced !== undefined
    if (this.#unsynced) keepRoom(this.#staging.folder)
    const moved = this.#contents.waitForSpools
    const synced = this.#unsynced ? this.#beforeSync() : whenWell(this.#staging.beforeSync())
    const ended = (error: WireError | undefined): void => {
      this.#syncing = false
      if (error && wasUnsynced) this.noteChange()
      if (error && !this.#hasLost && !this.#syncTold) {
        this.#syncTold = true
        this.#client.write('warning', 'borg.fuse', `The staging folder cannot be made durable from time to time (${error.message}): a power failure may cost what was copied in during the last half minute and not synced.`)
      }
      this.#wakeSynced(!error)
    }
    const done = (error: WireError | undefined): void => {
      // What the journal could not take is told again.
      if (hostErrno(() => synced(!error))) this.noteChange()
      this.#syncWhatWasTold(error, moved, ended)
    }
    // Before it is asked: if that fails at once, it is noted again.
    this.#unsynced = undefined
    // Otherwise all is on disk but what the journal says of trees that left.
    if (wasUnsynced) this.#syncFolder(done)
    else this.syncJournal([], done)
  }

  /** Calls `done` when what changed so far is durable, or cannot be made so. */
  whenDurable(done: () => void): void {
    if (this.#hasLost || (!this.#syncing && !this.#unsynced)) return done()
    const waits = { again: this.#syncing && this.#unsynced !== undefined, done }
    this.#waiting.push(waits)
    if (!this.#syncing) this.#sync()
  }
  /** `again`: something had changed since the sync that is under way began. */
  #waiting: { again: boolean; readonly done: () => void }[] = []

  #wakeSynced(well: boolean): void {
    const waiting = this.#waiting
    this.#waiting = waiting.filter(({ again }) => again && well)
    for (const entry of waiting) {
      if (entry.again && well) entry.again = false
      else entry.done()
    }
    // Whoever was called may have begun one.
    if (this.#waiting.length > 0 && !this.#syncing) this.#sync()
  }

  /** All that is staged. */
  syncAll(call: Call<void>): Answer<void> {
    if (this.#hasLost) return Errno.EIO
    const answer = call.defer()
    const moved = this.#contents.waitForSpools
    const synced = this.#beforeSync()
    this.#syncFolder(error => {
      this.#answerSync(error, hostErrno(() => synced(!error)), moved, answer)
    })
    return LATER
  }

  /** One file, or the names alone. The disk may take its time: the engine thread waits for it. The journal comes last: what it speaks of is there. */
  sync(node: StagedNode | undefined, call: Call<void>): Answer<void> {
    if (this.#hasLost) return Errno.EIO
    const { journal } = this.#staging
    let names: ReturnType<Staging['spool']['unsyncedNames']>
    let descriptors: ReturnType<Contents['descriptors']> | undefined
    const failed = hostErrno(() => {
      names = this.#staging.spool.unsyncedNames()
      descriptors = node && this.#contents.descriptors(node)
    })
    if (failed) return failed
    const moved = node !== undefined && this.#contents.waitsForSpool(node)
    const settle = node && this.#contents.beforeSync(node)
    const answer = call.defer()
    const mark = journal.mark()
    const synced = this.#staging.beforeSync()
    this.syncJournal([...(descriptors?.fds ?? []), ...(names ? [names.fd] : [])], error => {
      descriptors?.done(error === undefined)
      if (!error) {
        names?.synced()
        tidyUp(this.#client, synced)
        journal.synced(mark)
      }
      this.#answerSync(error, settle && hostErrno(() => settle(!error)), moved, answer)
    })
    return LATER
  }

  /** Makes these durable, then the journal, which says by what name they are to be found; and with it the successors. */
  syncJournal(fds: readonly number[], done: (error: WireError | undefined) => void): void {
    const { journal, nodes } = this.#staging
    if (this.#successors.size > maxSuccessors) return this.#syncFolder(done)
    const lent: ReturnType<Contents['descriptors']>[] = []
    const failed = hostErrno(() => {
      for (const node of this.#successors) if (nodes.get(node.id) === node) lent.push(this.#contents.descriptors(node))
    })
    const giveBack = (well: boolean): void => {
      for (const { done } of lent) done(well)
    }
    if (failed) {
      giveBack(false)
      return this.#syncFolder(done)
    }
    this.#ask({ kind: 'sync', fds: [...fds, ...lent.flatMap(each => each.fds), ...journal.fds] }, error => {
      giveBack(!error)
      done(error)
    })
  }

  #syncFolder(done: (error: WireError | undefined) => void): void {
    this.#ask({ kind: 'sync-folder', folder: this.#staging.folder }, done)
  }

  /** Asks the disk for what makes the journal durable, and the successors that there are now. */
  #ask(request: Extract<EngineRequest, { kind: 'sync' | 'sync-folder' }>, done: (error: WireError | undefined) => void): void {
    const successors = [...this.#successors]
    try {
      this.#staging.catchUp()
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      return done(wireError(error))
    }
    this.#client.request(request, error => {
      if (!error) for (const node of successors) this.#successors.delete(node)
      this.#noteLoss(error)
      done(error)
    })
  }

  /**
   * A drive may stay for months. The mark of the last commit must be gone for good before, also where a commit that came to nothing had it kept: beside an
   * empty journal it would speak of whatever tree has that name by then.
   */
  #emptyJournal(): void {
    const { journal } = this.#staging
    const { length } = journal
    let isGone = false
    tidyUp(this.#client, () => {
      this.#staging.removeMark()
      isGone = true
    })
    if (!isGone) return
    this.#syncing = true
    this.#syncNames(well => {
      this.#syncing = false
      if (well && this.#staging.saysNothing && !journal.isBeingRenewed && journal.length === length) tidyUp(this.#client, () => journal.empty())
      this.#wakeSynced(true)
    })
  }

  /** Names in the staging folder itself. */
  #syncNames(done: (well: boolean) => void): void {
    let fd: number | undefined
    tidyUp(this.#client, () => fd = files.open(this.#staging.folder, 'r'))
    if (fd === undefined) return done(false)
    const folder = fd
    this.#client.request({ kind: 'sync', fds: [folder] }, error => {
      files.close(folder)
      this.#noteLoss(error)
      done(!error)
    })
  }

  /** The order of Journal.beginRenewal. What fails is tried again later. */
  #renewJournal(nowMs: number): void {
    const { journal, nodes } = this.#staging
    this.#lookAtMs = nowMs + lookAtJournalMs
    if (journal.isPlaced) this.#nameJournal()
    if (nowMs < this.#renewAtMs || journal.isBeingRenewed || !this.#staging.isJournalLong) return
    this.#renewAtMs = nowMs + renewAgainMs
    tidyUp(this.#client, () => {
      const renewal = journal.beginRenewal(nodes, this.archives())
      this.syncJournal([], error => {
        if (error || hostErrno(() => journal.placeRenewed(renewal))) {
          if (!journal.isPlaced) journal.endRenewal()
        } else if (journal.isPlaced) this.#nameJournal()
      })
    })
  }
  #lookAtMs = 0
  #renewAtMs = 0

  /** The folder is made durable, in which the new journal has its name. */
  #nameJournal(): void {
    if (this.#isNaming) return
    this.#isNaming = true
    this.#syncNames(well => {
      this.#isNaming = false
      if (well) this.#staging.journal.endRenewal()
    })
  }
  #isNaming = false

  /** What the journal and the stash made needless goes when they are durable. */
  #release(nowMs: number): void {
    if (!this.#staging.waitsForSync) return
    this.#releaseAtMs ??= nowMs + syncAfterMs
    if (nowMs < this.#releaseAtMs) return
    this.#releaseAtMs = Infinity
    const waiting = this.#staging.takeAfterSync()
    this.syncJournal([], error => {
      this.#releaseAtMs = undefined
      if (error) waiting.again()
      else waiting.done()
    })
  }

  /** Before all that is staged is made durable; what it gives is for afterwards: whether it is. */
  #beforeSync(): (well: boolean) => void {
    const { journal } = this.#staging
    const mark = journal.mark()
    const [remove, settle] = [this.#staging.beforeSync(), this.#contents.beforeSync()]
    return well => {
      if (well) {
        journal.synced(mark)
        tidyUp(this.#client, remove)
      }
      settle(well)
    }
  }

  /** `untold`: the journal could not hear of all. */
  #answerSync(error: WireError | undefined, untold: Errno | undefined, moved: boolean, answer: (value: Errno | undefined) => void): void {
    if (!error && moved && untold) return answer(untold)
    this.#syncWhatWasTold(error, moved, failed => answer(failed ? errnoByCode(failed.code) : undefined))
  }

  #noteLoss(error: WireError | undefined): void {
    if (error?.code !== 'EIO' || this.#hasLost) return
    this.#hasLost = true
    this.#client.write('error', 'borg.fuse', `The disk of the staging folder failed to write (${error.message}): what was copied into the drive in the last minutes may be lost, and no fsync will say that it is not. Look at that disk, mount the drive anew, and copy it again.`)
  }

  /** What the journal heard of only after the sync has to become durable as well. */
  #syncWhatWasTold(error: WireError | undefined, moved: boolean, done: (error: WireError | undefined) => void): void {
    if (error || !moved) done(error)
    else this.syncJournal([], done)
  }
}

function whenWell(work: () => void): (well: boolean) => void {
  return well => {
    if (well) work()
  }
}
