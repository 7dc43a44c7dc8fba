/**
 * The journal of staged metadata: one record for each operation, handed to the kernel of the host before the operation is
 * answered, so that a killed process loses nothing; sync makes it durable.
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
import { extentBytes, type Extents } from './extents.js'
import { RecordEncoder, recordKind, type RecordSeal } from './journal-records.js'
import type { MadeArchives } from './journal-replay.js'
import type { MadeArchive } from './policy.js'
import { type NodeAttributes, type Nodes, type Origin, rootId, type StagedNode } from './nodes.js'
import { keepSize } from './spool.js'

const maxGatheredBytes = 4 << 20
/** Room is taken in such pieces, when there is less than that. */
const roomBytes = 256 << 10, lowRoomBytes = 128 << 10
/** What has to be left for whatever changes, for answers of the cutter, and for what makes room. */
export const changeRoomBytes = 96 << 10, cutRoomBytes = 64 << 10, removalRoomBytes = 4 << 10
/** Rows of one record: what a damaged one costs, and short enough to be found behind damage. */
const maxRowsPerRecord = 1000

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
   * taken in advance, so that what was changed can be told, and so that on a full disk there is some left for what makes room.
   */
  ready(bytes: number): void {
    if (this.#allocated - this.#end >= Math.max(lowRoomBytes, bytes)) return
    const full = this.#take(Math.max(roomBytes, bytes))
    if (!full || this.#allocated - this.#end >= bytes || !this.#take(bytes)) return
    if (bytes <= removalRoomBytes && this.giveRoom() && !this.#take(8 * removalRoomBytes)) return
    throw full
  }

  /** Gives what was kept for a full disk to whatever makes room; false if there is nothing. */
  giveRoom: () => boolean = () => false

  /** Room behind the end; the error of a full disk if there is none. */
  #take(bytes: number): Error | undefined {
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

  /** Opens it for appending. */
  static open(path: string, seal?: RecordSeal): Journal {
    return new Journal(path, seal)
  }

  /** For fdatasync by another thread. */
  get fd(): number {
    return this.#fd
  }

  /** Whether a node is one that no record speaks of yet. A record about it would be of no use at the next start. */
  isUnknown: (id: number) => boolean = () => false

  created(node: StagedNode, parent: number, name: string): void {
    this.#about(parent)
    const { mode, uid, gid, rdev, atimeNs, mtimeNs, ctimeNs, target } = node
    this.#append([recordKind.made, node.id, parent, bytesOf(name), mode, uid, gid, rdev, atimeNs, mtimeNs, ctimeNs, target ?? null])
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
    this.#about(id)
    this.#append([recordKind.attributes, id, mode, uid, gid, atimeNs, mtimeNs, ctimeNs])
  }

  xattr(id: number, name: string, value: Buffer | undefined): void {
    this.#about(id)
    this.#append([recordKind.xattr, id, bytesOf(name), value ?? null])
  }

  /** Parts of a file are chunks of the repository: over what was there. */
  cloned(id: number, extents: Extents): void {
    this.#about(id)
    for (const rows of recordsOf(extents)) this.#append([recordKind.extents, id, rows])
  }

  /** The same of chunks that may be in the stash only. */
  stashed(id: number, extents: Extents): void {
    this.#about(id)
    for (const rows of recordsOf(extents)) this.#append([recordKind.stashed, id, rows])
  }

  /** A small file has `size` bytes, which lie in a bundle; or nothing lies there any more. */
  placed(id: number, place: BundlePlace | undefined, size: number): void {
    this.#about(id)
    this.#append(place ? [recordKind.placed, id, place.bundle, place.start, size] : [recordKind.placed, id])
  }

  /** A spool file, with the same content so far, took over from the bundle. Means nothing once the machine failed, until `placed` says that nothing lies there any more. */
  takenOver(id: number, boot: string): void {
    this.#about(id)
    this.#append([recordKind.takenOver, id, bytesOf(boot)])
  }

  /** The spool file beneath a file's extents is durable. Counts until more are laid over it. */
  settled(id: number): void {
    this.#about(id)
    this.#append([recordKind.settled, id])
  }

  /** A stretch of a file is not any more what was cloned: it was written to the spool, or cut off. */
  cut(id: number, start: number, end: number): void {
    this.#about(id)
    this.#append([recordKind.cut, id, start, end])
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

  #about(...ids: number[]): void {
    for (const id of ids) if (this.isUnknown(id)) throw new Error(`a record of the journal about node ${id}, which it does not know`)
  }

  /** Records of `work` are written in large pieces. */
  together(work: () => void): void {
    if (this.#gathered) return work()
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
    this.#length = this.#end = this.#allocated = 0
  }

  /** Bytes of it. */
  get length(): number {
    return this.#length
  }
  #length = 0

  #append(fields: readonly MsgValue[]): void {
    const record = this.#encoder.encode(fields)
    this.#length += record.length
    if (this.#gathered) {
      this.#gathered.push(Buffer.from(record))
      this.#gatheredBytes += record.length
      if (this.#gatheredBytes > maxGatheredBytes) this.#flush()
      return
    }
    this.#write(record)
  }

  /** Replaces the journal by what is needed to make the nodes as they are. `toOpen`: see `opening`. */
  rewrite(nodes: Nodes, archives: MadeArchives = new Map(), toOpen: Iterable<string> = []): void {
    const records: Buffer[] = []
    const seen = new Set<number>()
    const add = (fields: readonly MsgValue[]): void => void records.push(Buffer.from(this.#encoder.encode(fields)))
    const origins: StagedNode[] = []
    for (const series of toOpen) add([recordKind.opening, bytesOf(series)])
    for (const base of nodes.bases) add(baseFields(base))
    const root = nodes.get(rootId)!
    // Without recursion: directories may lie one in the other by the ten thousand.
    const open = [{ directory: root, entries: root.children!.entries() }]
    for (let last = open.at(-1); last; last = open.at(-1)) {
      const { directory, entries } = last
      for (const [name, id] of entries) {
        const node = nodes.get(id)
        if (!node) continue
        if (seen.has(id)) {
          add([recordKind.linked, id, directory.id, bytesOf(name)])
          continue
        }
        seen.add(id)
        add([recordKind.made, id, directory.id, bytesOf(name), node.mode, node.uid, node.gid, node.rdev, node.atimeNs, node.mtimeNs, node.ctimeNs, node.target ?? null])
        for (const [attribute, value] of node.xattrs ?? []) add([recordKind.xattr, id, bytesOf(attribute), value])
        if (node.place) add([recordKind.placed, id, node.place.bundle, node.place.start, node.size])
        if (node.former) {
          const { place, size, boot } = node.former
          add([recordKind.placed, id, place.bundle, place.start, size])
          add([recordKind.takenOver, id, bytesOf(boot)])
        }
        if (node.extents) for (const rows of recordsOf(node.extents)) add([node.stashed ? recordKind.stashed : recordKind.extents, id, rows])
        if (node.extents && node.settled) add([recordKind.settled, id])
        if (node.origin || (node.children && nodes.baseOf(id))) {
          origins.push(node)
          add(originFields(id, node.origin))
          for (const hidden of node.hidden ?? []) add([recordKind.unlinked, id, bytesOf(hidden)])
        }
        if (!node.children) continue
        open.push({ directory: node, entries: node.children.entries() })
        break
      }
      if (open.at(-1) !== last) continue
      open.pop()
      // What happened in a directory changed its times.
      const { id, mode, uid, gid, atimeNs, mtimeNs, ctimeNs } = directory
      if (directory !== root) add([recordKind.attributes, id, mode, uid, gid, atimeNs, mtimeNs, ctimeNs])
    }
    for (const [tree, { made, changed }] of archives) {
      const name = tree === undefined ? null : bytesOf(tree)
      add([recordKind.committed, name, bytesOf(made.name), Buffer.from(made.id, 'hex'), made.tree === undefined ? null : bytesOf(made.tree)])
      if (changed) add([recordKind.changed, name])
    }
    for (const base of nodes.bases) add(baseFields(base))
    // After what says that a tree is an archive, from which follows where its directories were then.
    for (const { id, origin } of origins) add(originFields(id, origin))
    this.#length = records.reduce((sum, { length }) => sum + length, 0)
    files.close(this.#fd)
    try {
      saveFile(this.#path, Buffer.concat(records), { mode: 0o600 })
    } finally {
      this.#fd = files.open(this.#path, 'a', 0o600)
      this.#end = this.#allocated = fstatSync(this.#fd).size
    }
  }

  close(): void {
    files.close(this.#fd)
  }
}

function baseFields({ series, archive, firstId, rowCount }: BaseTree): MsgValue[] {
  return [recordKind.base, bytesOf(series), Buffer.from(archive, 'hex'), firstId, rowCount]
}

function originFields(id: number, origin: Origin | undefined): MsgValue[] {
  if (!origin) return [recordKind.origin, id]
  const { base, row, path } = origin
  return [recordKind.origin, id, base.firstId, row, path === undefined ? base.attached ? base.tree.pathOf(row) : null : bytesOf(path)]
}

function* recordsOf(extents: Extents): Generator<Buffer> {
  const { rows } = extents
  for (let at = 0; at < rows.length; at += maxRowsPerRecord * extentBytes) yield rows.subarray(at, at + maxRowsPerRecord * extentBytes)
}
