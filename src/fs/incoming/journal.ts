/**
 * The journal of staged metadata: one record for each operation, handed to the kernel of the host before the operation is
 * answered, so that a killed process loses nothing; sync makes it durable. Where `putsOff` says so, what is told of new files most, and of
 * attributes, is handed over a little later, many at once (`catchUp`).
 */
import { fstatSync } from 'node:fs'
import { errnoOf, saysNoRoom } from '../../engine/errors.js'
import type { MsgValue } from '../../engine/msgpack.js'
import { native } from '../../engine/native.js'
import { files } from '../../engine/platform/files.js'
import { saveFile } from '../../engine/platform/save-file.js'
import { bytesOf } from '../../engine/text.js'
import type { BaseTree } from './base-tree.js'
import type { BundlePlace } from './bundles.js'
import type { Extents } from './extents.js'
import { maxRecordBytes, maxSearchedRecordBytes, RecordEncoder, recordKind, type RecordSeal } from './journal-records.js'
import type { MadeArchives } from './journal-replay.js'
import { baseFields, originFields, recordsOf, stateRecords } from './journal-state.js'
import type { MadeArchive } from './policy.js'
import type { NodeAttributes } from '../types.js'
import type { Nodes, Origin, StagedNode } from './nodes.js'
import { fieldBytes, maxRecordLength, RecordQueue } from './record-queue.js'
import { keepSize } from './spool.js'

const maxGatheredBytes = 4 << 20
/** More does not wait when something further is to be changed. */
const maxQueuedBytes = 64 << 10
const renewedSuffix = '-renewed'
/** Room is taken in such pieces, when there is less than that. */
const roomBytes = 256 << 10, lowRoomBytes = 128 << 10
/** What has to be left for whatever changes, for answers of the cutter, and for what makes room. */
export const changeRoomBytes = 96 << 10, cutRoomBytes = 64 << 10, removalRoomBytes = 4 << 10

/** The other one of two files that say the same. */
export interface Renewal {
  readonly fd: number
  /** When it was begun. */
  readonly length: number
  readonly isFormer: boolean
}

export class Journal {
  readonly #path: string
  readonly #encoder: RecordEncoder
  #fd: number

  private constructor(path: string, seal: RecordSeal | undefined) {
    this.#path = path
    this.#encoder = new RecordEncoder(seal)
    this.#fd = files.open(path, 'a', 0o600)
    this.#end = this.#allocated = fstatSync(this.#fd).size
  }

  /**
   * To be called before something is changed that records of up to `bytes` bytes are to tell of: ENOSPC or EDQUOT if they might not fit on the disk. Room is
   * taken in advance, so that what was changed can be told, and so that on a full disk there is some left for what makes room. Other host errors: so much was put
   * off that it has to be written first.
   */
  ready(bytes: number): void {
    if (this.#queue.bytes > maxQueuedBytes) this.catchUp()
    this.#encoder.prepare()
    if (this.#roomBytes >= Math.max(lowRoomBytes, bytes)) return
    const full = this.#take(Math.max(roomBytes, 2 * bytes))
    if (!full || this.#roomBytes >= bytes || !this.#take(bytes)) return
    if (bytes <= removalRoomBytes && this.giveRoom() && !this.#take(8 * removalRoomBytes)) return
    throw full
  }

  /** Gives what was kept for a full disk to whatever makes room; false if there is nothing. */
  giveRoom: () => boolean = () => false

  /** What is left for certain, also when all that was put off is written. */
  get #roomBytes(): number {
    return this.#allocated - this.#end - this.#queue.bytes
  }

  /** Room behind the end; the error of a full disk if there is none. */
  #take(more: number): Error | undefined {
    const bytes = this.#queue.bytes + more
    try {
      native().fallocate(this.#fd, keepSize, this.#end, bytes)
      this.#allocated = this.#end + bytes
      return undefined
    } catch (error) {
      if (saysNoRoom(errnoOf(error))) return error as Error
      // A file system that cannot.
      this.#allocated = Infinity
      return undefined
    }
  }
  /** Length of the file, and up to where it has room for certain. */
  #end: number
  #allocated: number

  /** Appends; if that fails, what was written of it goes again, or else all that follows would lie behind damage. */
  #write(bytes: Uint8Array): void {
    try {
      files.writeAll(this.#fd, bytes)
      this.#writeToOther(bytes)
      this.#end += bytes.length
    } catch (error) {
      try {
        files.truncateOpen(this.#fd, this.#end)
        this.#allocated = this.#end
      } catch {
        // Replay finds what follows.
        this.#end = fstatSync(this.#fd).size
      }
      throw error
    }
  }

  /** What is only to take the place of this one need not come to be. */
  #writeToOther(bytes: Uint8Array): void {
    const other = this.#other
    if (!other) return
    try {
      files.writeAll(other.fd, bytes)
    } catch (error) {
      if (other.isFormer) throw error
      this.endRenewal()
    }
  }

  /** Opens it for appending. */
  static open(path: string, seal?: RecordSeal): Journal {
    return new Journal(path, seal)
  }

  /** For fdatasync by another thread. */
  get fds(): readonly number[] {
    return this.#other ? [this.#fd, this.#other.fd] : [this.#fd]
  }

  /** Whether a node is one that no record speaks of yet. A record about it would be of no use at the next start. */
  isUnknown: (id: number) => boolean = () => false

  /** Whether a node has lost its last name. */
  isGone: (id: number) => boolean = () => false

  created(node: StagedNode, parent: number, name: string): void {
    this.#about(parent)
    const { mode, uid, gid, rdev, atimeNs, mtimeNs, ctimeNs, target } = node
    this.#appendLater([recordKind.made, node.id, parent, bytesOf(name), mode, uid, gid, rdev, atimeNs, mtimeNs, ctimeNs, target ?? null])
  }

  linked(id: number, parent: number, name: string): void {
    this.#about(id, parent)
    this.#append([recordKind.linked, id, parent, bytesOf(name)])
  }

  unlinked(parent: number, name: string): void {
    this.#about(parent)
    this.#append([recordKind.unlinked, parent, bytesOf(name)])
  }

  moved(parent: number, name: string, newParent: number, newName: string): void {
    this.#about(parent, newParent)
    this.#append([recordKind.moved, parent, bytesOf(name), newParent, bytesOf(newName)])
  }

  exchanged(parent: number, name: string, other: number, otherName: string): void {
    this.#about(parent, other)
    this.#append([recordKind.exchanged, parent, bytesOf(name), other, bytesOf(otherName)])
  }

  attributes(id: number, { mode, uid, gid, atimeNs, mtimeNs, ctimeNs }: NodeAttributes): void {
    if (this.#about(id)) this.#appendLater([recordKind.attributes, id, mode, uid, gid, atimeNs, mtimeNs, ctimeNs])
  }

  xattr(id: number, name: string, value: Buffer | undefined): void {
    if (this.#about(id)) this.#append([recordKind.xattr, id, bytesOf(name), value ?? null])
  }

  /** Parts of a file are chunks of the repository: over what was there. */
  cloned(id: number, extents: Extents): void {
    if (this.#about(id)) for (const rows of recordsOf(extents)) this.#append([recordKind.extents, id, rows])
  }

  /** The same of chunks that may be in the stash only. */
  stashed(id: number, extents: Extents): void {
    if (this.#about(id)) for (const rows of recordsOf(extents)) this.#append([recordKind.stashed, id, rows])
  }

  /** A small file has `size` bytes, which lie in a bundle; or nothing lies there any more. */
  placed(id: number, place: BundlePlace | undefined, size: number): void {
    if (!this.#about(id)) return
    if (!place) this.#append([recordKind.placed, id])
    else this.#appendLater([recordKind.placed, id, place.bundle, place.start, size])
  }

  /** A spool file, with the same content so far, took over from the bundle. Means nothing once the machine failed, until `placed` says that nothing lies there any more. */
  takenOver(id: number, boot: string): void {
    if (this.#about(id)) this.#append([recordKind.takenOver, id, bytesOf(boot)])
  }

  /** The spool file beneath a file's extents is durable. Counts until more are laid over it. */
  settled(id: number): void {
    if (this.#about(id)) this.#append([recordKind.settled, id])
  }

  /** A stretch of a file is not any more what was cloned: it was written to the spool, or cut off. */
  cut(id: number, start: number, end: number): void {
    if (this.#about(id)) this.#append([recordKind.cut, id, start, end])
  }

  /** A file that is chunks, all of it (`bare`) or in part, is about to be changed. Until that is `certain`, a failure of the machine undoes what follows the first of these records. */
  changing(id: number, boot: string, bare: boolean): void {
    if (this.#about(id)) this.#append([recordKind.changing, id, bytesOf(boot), Number(bare)])
  }

  /** What it became after the first `count` of these is durable. */
  certain(id: number, count: number): void {
    if (this.#about(id)) this.#append([recordKind.certain, id, count])
  }

  /** It is what it was before that one of them, counted from 0. */
  undone(id: number, index: number): void {
    if (this.#about(id)) this.#append([recordKind.undone, id, index])
  }

  /** A file that is all chunks has no spool file any more. */
  spoolGone(id: number): void {
    if (this.#about(id)) this.#append([recordKind.spoolGone, id])
  }

  /** A directory with all below it is gone: it became an archive. */
  dropped(parent: number, name: string): void {
    this.#append([recordKind.dropped, parent, bytesOf(name)])
  }

  /** A tree is an archive as it stands. */
  committed(tree: string | undefined, made: MadeArchive): void {
    this.#append([recordKind.committed, tree === undefined ? null : bytesOf(tree), bytesOf(made.name), Buffer.from(made.id, 'hex'), made.tree === undefined ? null : bytesOf(made.tree)])
  }

  /** It is not any more: comes before the first change. */
  changed(tree: string | undefined): void {
    this.#append([recordKind.changed, tree === undefined ? null : bytesOf(tree)])
  }

  /**
   * Ids of a block stand for what an archive has, which a series is to show. `committed` says that it does. May be said again, and should be before
   * the series changes: without this record a tree would have lost all that did not change.
   */
  based(base: BaseTree): void {
    this.#append(baseFields(base))
  }

  /** A series that was open is to be opened anew, by a later start if not by this one. */
  opening(series: string): void {
    this.#append([recordKind.opening, bytesOf(series)])
  }

  /** What a directory lies over now; undefined: over nothing any more. */
  origin(id: number, origin: Origin | undefined): void {
    this.#append(originFields(id, origin))
  }

  /** Whether it matters at the next start: what has no name any more will not be there. */
  #about(...ids: number[]): boolean {
    for (const id of ids) if (this.isUnknown(id)) throw new Error(`a record of the journal about node ${id}, which it does not know`)
    return !ids.every(id => this.isGone(id))
  }

  /**
   * To be called before the journal is synced: all that it says so far is in what `synced` is about. Undefined if nothing was said since the last time, or on a full
   * disk: without marks damage by the disk may cost more, but nothing else.
   */
  mark(): number | undefined {
    if (this.#isMarked || !this.#isTold([recordKind.mark, this.#marks + 1])) return undefined
    this.#isMarked = true
    return ++this.#marks
  }
  #marks = 0
  #isMarked = true

  /** The journal is durable as it was at that mark: damage before it is the disk's, and what comes behind counts as well. */
  synced(mark: number | undefined): void {
    if (mark === undefined) return
    const isLast = mark === this.#marks && this.#isMarked
    this.#isTold([recordKind.synced, mark])
    this.#isMarked = isLast
  }

  #isTold(fields: readonly MsgValue[]): boolean {
    try {
      this.#append(fields)
      return true
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      return false
    }
  }

  /**
   * Records of `work` are one: what a failing machine leaves of a write is all of them or none. If they are too much for that they are written in one piece
   * at least. `maxBytes`: longer ones are not found behind damage, so this is for what is worse in part than not at all.
   */
  whole(work: () => void, maxBytes = maxSearchedRecordBytes): void {
    if (this.#parts) return work()
    const parts: (readonly MsgValue[])[] = this.#parts = []
    try {
      work()
    } finally {
      this.#parts = undefined
    }
    const bytes = parts.reduce((sum, fields) => sum + fieldBytes(fields), 0)
    if (parts.length > 1 && bytes < Math.min(maxBytes, maxRecordBytes) * 0.9) this.#append([recordKind.whole, ...parts.map(fields => [...fields])])
    else this.together(() => {
      for (const fields of parts) this.#append(fields)
    })
  }
  #parts: (readonly MsgValue[])[] | undefined

  /** Records of `work` are written in large pieces. */
  together(work: () => void): void {
    if (this.#gathered) return work()
    this.catchUp()
    this.#gathered = []
    try {
      work()
      this.#flush()
    } finally {
      this.#gathered = undefined
      this.#gatheredBytes = 0
    }
  }
  #gathered: Buffer[] | undefined
  #gatheredBytes = 0

  #flush(): void {
    const bytes = Buffer.concat(this.#gathered!)
    this.#gathered = []
    this.#gatheredBytes = 0
    this.#write(bytes)
  }

  /** It left the box, or lost its name. */
  forgotten(tree: string | undefined): void {
    this.#append([recordKind.forgotten, tree === undefined ? null : bytesOf(tree)])
  }

  /** Nothing is staged: the records cancel each other out, and until this is durable they still do. What is told from here on begins anew. */
  empty(): void {
    files.truncateOpen(this.#fd, 0)
    this.#length = this.#least = this.#end = this.#allocated = 0
  }

  /** Bytes of it. */
  get length(): number {
    return this.#length
  }
  #length = 0

  /** What it had when it last said no more than it must. */
  get least(): number {
    return this.#least
  }
  #least = 0

  #append(fields: readonly MsgValue[]): void {
    if (this.#parts) return void this.#parts.push(fields)
    this.#isMarked = false
    if (this.#gathered) {
      const record = this.#encoder.encode(fields)
      this.#length += record.length
      this.#gathered.push(Buffer.from(record))
      this.#gatheredBytes += record.length
      if (this.#gatheredBytes > maxGatheredBytes) this.#flush()
      return
    }
    this.#writeQueued(fields)
  }

  /**
   * Whether records may wait for `catchUp`, which is then to be called when nothing is asked for a moment, and a few times a second. What a killed process had put off is lost with it: the last that was
   * made, written to small files and set of attributes. All other records, and whatever is made durable, come behind what was put off.
   */
  putsOff = false
  readonly #queue = new RecordQueue()

  /** What was put off of contents. Comes before any record is written: what records speak of is there. Host errors. */
  writeContents: () => void = () => {}

  get isPuttingOff(): boolean {
    // Only where there is room for them: or else nobody could be told any more that there was none.
    return this.putsOff && !this.#parts && !this.#gathered && this.#allocated !== Infinity
  }

  #appendLater(fields: MsgValue[]): void {
    if (!this.isPuttingOff || this.#roomBytes < maxRecordLength(fields)) return this.#append(fields)
    this.#isMarked = false
    this.#queue.add(fields)
  }

  /** Something was put off. */
  get isBehind(): boolean {
    return this.#queue.bytes > 0
  }

  /** Writes what was put off. Host errors: it still waits, and nothing else can be told before it. */
  catchUp(): void {
    if (this.isBehind) this.#writeQueued()
    else this.writeContents()
  }

  #writeQueued(...last: (readonly MsgValue[])[]): void {
    this.writeContents()
    const records = [...this.#queue.groups(), ...last]
    const bytes = records.length === 1 ? this.#encoder.encode(records[0]!) : Buffer.concat(records.map(fields => Buffer.from(this.#encoder.encode(fields))))
    this.#write(bytes)
    this.#length += bytes.length
    this.#queue.clear()
  }

  /** Replaces the journal by what is needed to make the nodes as they are. `toOpen`: see `opening`. Waits for the disk. */
  rewrite(nodes: Nodes, archives: MadeArchives = new Map(), toOpen: Iterable<string> = []): void {
    this.#queue.clear()
    const records = Array.from(stateRecords(nodes, archives, toOpen), fields => Buffer.from(this.#encoder.encode(fields)))
    this.#length = this.#least = records.reduce((sum, { length }) => sum + length, 0)
    files.close(this.#fd)
    try {
      saveFile(this.#path, Buffer.concat(records), { mode: 0o600 })
    } finally {
      this.#fd = files.open(this.#path, 'a', 0o600)
      this.#end = this.#allocated = fstatSync(this.#fd).size
    }
  }

  /**
   * Begins another file that says the same as this one, in fewer records. Until `endRenewal` all that is told goes to both, and both are to be synced (`fds`), so
   * that it does not matter which of them a crash leaves. The order: it is synced, it takes the place (`placeRenewed`), that is synced. Host errors: then
   * nothing was begun.
   */
  beginRenewal(nodes: Nodes, archives: MadeArchives): Renewal {
    // Or else the new one would say it twice.
    this.catchUp()
    const path = this.#path + renewedSuffix
    files.removeIfThere(path)
    const fd = files.open(path, 'a', 0o600)
    let length = 0, gathered: Buffer[] = [], bytes = 0
    const flush = (): void => {
      files.writeAll(fd, Buffer.concat(gathered))
      ;[gathered, bytes] = [[], 0]
    }
    try {
      for (const fields of stateRecords(nodes, archives, [])) {
        const record = Buffer.from(this.#encoder.encode(fields))
        gathered.push(record)
        length += record.length
        if ((bytes += record.length) > maxGatheredBytes) flush()
      }
      flush()
    } catch (error) {
      files.close(fd)
      files.removeIfThere(path)
      throw error
    }
    this.#lengthBefore = this.#length
    return this.#other = { fd, length, isFormer: false }
  }
  /** The file that is to take the place of this one, or the one whose place this one took. */
  #other: Renewal | undefined
  /** May be asked to be synced by somebody still. */
  #retired: number | undefined
  /** When the renewal began. */
  #lengthBefore = 0

  get isBeingRenewed(): boolean {
    return this.#other !== undefined
  }

  /** It took its place, but may not have the name for good. */
  get isPlaced(): boolean {
    return this.#other?.isFormer === true
  }

  /** False if it was given up meanwhile. Host errors: it is as before. */
  placeRenewed(other: Renewal): boolean {
    if (this.#other !== other) return false
    // The room for what was put off is in the former one.
    this.catchUp()
    files.rename(this.#path + renewedSuffix, this.#path)
    this.#other = { fd: this.#fd, length: 0, isFormer: true }
    this.#length -= this.#lengthBefore - other.length
    this.#least = other.length
    this.#fd = other.fd
    this.#end = this.#allocated = fstatSync(this.#fd).size
    return true
  }

  /** The new one has the name for good; or, where it does not have it yet, it is given up. */
  endRenewal(): void {
    if (!this.#other) return
    if (this.#retired !== undefined) files.close(this.#retired)
    this.#retired = this.#other.fd
    const { isFormer } = this.#other
    this.#other = undefined
    if (isFormer) return
    try {
      files.removeIfThere(this.#path + renewedSuffix)
    } catch {
      // It is made anew the next time, and goes at the next start.
    }
  }

  /** What an earlier process left of one. */
  static removeRenewed(path: string): void {
    files.removeIfThere(path + renewedSuffix)
  }

  close(): void {
    this.endRenewal()
    if (this.#retired !== undefined) files.close(this.#retired)
    files.close(this.#fd)
  }
}
