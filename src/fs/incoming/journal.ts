/**
 * The journal of staged metadata: one record for each operation, handed to the kernel of the host before the operation is
 * answered, so that a killed process loses nothing; sync makes it durable.
 *
 *   record: uint32le length of the payload, uint32le CRC-32 of the payload, payload = msgpack array [kind, …]
 *
 * Where the repository is encrypted the payload is sealed (an envelope of crypto.md §3, with keys of the staging folder): names, times,
 * xattrs. An envelope begins with its type, which no msgpack array does.
 */
import { existsSync, fstatSync, readFileSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import type { Key } from '../../engine/crypto/key.js'
import { type MsgValue, MsgWriter, unpack } from '../../engine/msgpack.js'
import { errnoOf, IntegrityError } from '../../engine/errors.js'
import { native } from '../../engine/native.js'
import { files } from '../../engine/platform/files.js'
import { saveFile } from '../../engine/platform/save-file.js'
import { byteString, bytesOf } from '../../engine/text.js'
import type { BaseTree } from './base-tree.js'
import type { BundlePlace } from './bundles.js'
import { extentBytes, Extents } from './extents.js'
import type { MadeArchive } from './policy.js'
import { keepSize } from './spool.js'
import { type NodeFacts, Nodes, type Origin, rootId, type StagedNode, typeDirectory, typeMask } from './nodes.js'

const headerBytes = 8
const maxGatheredBytes = 4 << 20
const maxRecordBytes = 16 << 20
/** Room is taken in such pieces, when there is less than that. */
const roomBytes = 256 << 10, lowRoomBytes = 128 << 10
/** What has to be left for whatever changes, for answers of the cutter, and for what makes room. */
export const changeRoomBytes = 96 << 10, cutRoomBytes = 64 << 10, removalRoomBytes = 4 << 10

/** Kinds of records. */
const kindNew = 1, kindLink = 2, kindUnlink = 3, kindMove = 4, kindExchange = 5, kindAttributes = 6, kindXattr = 7, kindDrop = 8, kindCommitted = 9, kindChanged = 10, kindForgotten = 11, kindExtents = 12, kindCut = 13, kindOpening = 14, kindSettled = 15, kindPlaced = 16, kindStashed = 17, kindTakenOver = 18, kindBase = 19, kindOrigin = 20
/** Rows of one record: what a damaged one costs, and short enough to be found behind damage. */
const maxRowsPerRecord = 1000

/** What a journal says of the archives made of trees, by the tree's name (undefined: loose files). */
export type MadeArchives = Map<string | undefined, { made: MadeArchive; changed: boolean; opening?: boolean }>

/** What seals records. */
export interface RecordSeal {
  readonly key: Key
  /** Called before the first record is sealed. Nobody else ever used the nonce that it returns, or one that follows. */
  takeNonces(): bigint
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
   * taken in advance, so that what was changed can be told, and so that on a full disk there is some left for what makes room.
   */
  ready(bytes: number): void {
    if (this.#allocated - this.#end >= lowRoomBytes) return
    const full = this.#take(roomBytes)
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
      const code = errnoOf(error)
      if (code === 'ENOSPC' || code === 'EDQUOT') return error as Error
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
    this.#append([kindNew, node.id, parent, bytesOf(name), mode, uid, gid, rdev, atimeNs, mtimeNs, ctimeNs, target ?? null])
  }

  linked(id: number, parent: number, name: string): void {
    this.#about(id, parent)
    this.#append([kindLink, id, parent, bytesOf(name)])
  }

  unlinked(parent: number, name: string): void {
    this.#about(parent)
    this.#append([kindUnlink, parent, bytesOf(name)])
  }

  moved(parent: number, name: string, newParent: number, newName: string): void {
    this.#about(parent, newParent)
    this.#append([kindMove, parent, bytesOf(name), newParent, bytesOf(newName)])
  }

  exchanged(parent: number, name: string, other: number, otherName: string): void {
    this.#about(parent, other)
    this.#append([kindExchange, parent, bytesOf(name), other, bytesOf(otherName)])
  }

  attributes(node: StagedNode): void {
    const { id, mode, uid, gid, atimeNs, mtimeNs, ctimeNs } = node
    this.#about(id)
    this.#append([kindAttributes, id, mode, uid, gid, atimeNs, mtimeNs, ctimeNs])
  }

  xattr(id: number, name: string, value: Buffer | undefined): void {
    this.#about(id)
    this.#append([kindXattr, id, bytesOf(name), value ?? null])
  }

  /** Parts of a file are chunks of the repository: over what was there. */
  cloned(id: number, extents: Extents): void {
    this.#about(id)
    for (const rows of recordsOf(extents)) this.#append([kindExtents, id, rows])
  }

  /** The same of chunks that may be in the stash only. */
  stashed(id: number, extents: Extents): void {
    this.#about(id)
    for (const rows of recordsOf(extents)) this.#append([kindStashed, id, rows])
  }

  /** A small file has `size` bytes, which lie in a bundle; or nothing lies there any more. */
  placed(id: number, place: BundlePlace | undefined, size: number): void {
    this.#about(id)
    this.#append(place ? [kindPlaced, id, place.bundle, place.start, size] : [kindPlaced, id])
  }

  /** A spool file, with the same content so far, took over from the bundle. Means nothing once the machine failed, until `placed` says that nothing lies there any more. */
  takenOver(id: number, boot: string): void {
    this.#about(id)
    this.#append([kindTakenOver, id, bytesOf(boot)])
  }

  /** The spool file beneath a file's extents is durable. Counts until more are laid over it. */
  settled(id: number): void {
    this.#about(id)
    this.#append([kindSettled, id])
  }

  /** A stretch of a file is not any more what was cloned: it was written to the spool, or cut off. */
  cut(id: number, start: number, end: number): void {
    this.#about(id)
    this.#append([kindCut, id, start, end])
  }

  /** A directory with all below it is gone: it became an archive. */
  dropped(parent: number, name: string): void {
    this.#append([kindDrop, parent, bytesOf(name)])
  }

  /** A tree is an archive as it stands. */
  committed(tree: string | undefined, made: MadeArchive): void {
    this.#append([kindCommitted, tree === undefined ? null : bytesOf(tree), bytesOf(made.name), Buffer.from(made.id, 'hex'), made.tree === undefined ? null : bytesOf(made.tree)])
  }

  /** It is not any more: comes before the first change. */
  changed(tree: string | undefined): void {
    this.#append([kindChanged, tree === undefined ? null : bytesOf(tree)])
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
    this.#append([kindOpening, bytesOf(series)])
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
    this.#append([kindForgotten, tree === undefined ? null : bytesOf(tree)])
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

  /** Replaces the journal by what is needed to make the nodes as they are. `toOpen`: series that are to be opened again, by a later start if not by this one. */
  rewrite(nodes: Nodes, archives: MadeArchives = new Map(), toOpen: Iterable<string> = []): void {
    const records: Buffer[] = []
    const seen = new Set<number>()
    const add = (fields: readonly MsgValue[]): void => void records.push(Buffer.from(this.#encoder.encode(fields)))
    const origins: StagedNode[] = []
    for (const series of toOpen) add([kindOpening, bytesOf(series)])
    for (const base of nodes.bases) add(baseFields(base))
    const visit = (directory: StagedNode): void => {
      for (const [name, id] of directory.children!) {
        const node = nodes.get(id)
        if (!node) continue
        if (seen.has(id)) {
          add([kindLink, id, directory.id, bytesOf(name)])
          continue
        }
        seen.add(id)
        add([kindNew, id, directory.id, bytesOf(name), node.mode, node.uid, node.gid, node.rdev, node.atimeNs, node.mtimeNs, node.ctimeNs, node.target ?? null])
        for (const [attribute, value] of node.xattrs ?? []) add([kindXattr, id, bytesOf(attribute), value])
        if (node.place) add([kindPlaced, id, node.place.bundle, node.place.start, node.size])
        if (node.former) {
          const { place, size, boot } = node.former
          add([kindPlaced, id, place.bundle, place.start, size])
          add([kindTakenOver, id, bytesOf(boot)])
        }
        if (node.extents) for (const rows of recordsOf(node.extents)) add([node.stashed ? kindStashed : kindExtents, id, rows])
        if (node.extents && node.settled) add([kindSettled, id])
        if (node.origin || (node.children && nodes.baseOf(id))) {
          origins.push(node)
          add(originFields(id, node.origin))
          for (const hidden of node.hidden ?? []) add([kindUnlink, id, bytesOf(hidden)])
        }
        if (node.children) visit(node)
        // What happened in a directory changed its times.
        if (node.children) add([kindAttributes, id, node.mode, node.uid, node.gid, node.atimeNs, node.mtimeNs, node.ctimeNs])
      }
    }
    visit(nodes.get(rootId)!)
    for (const [tree, { made, changed }] of archives) {
      const name = tree === undefined ? null : bytesOf(tree)
      add([kindCommitted, name, bytesOf(made.name), Buffer.from(made.id, 'hex'), made.tree === undefined ? null : bytesOf(made.tree)])
      if (changed) add([kindChanged, name])
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
  return [kindBase, bytesOf(series), Buffer.from(archive, 'hex'), firstId, rowCount]
}

function originFields(id: number, origin: Origin | undefined): MsgValue[] {
  if (!origin) return [kindOrigin, id]
  const { base, row, path } = origin
  return [kindOrigin, id, base.firstId, row, path === undefined ? base.attached ? base.tree.pathOf(row) : null : bytesOf(path)]
}

class RecordEncoder {
  readonly #writer = new MsgWriter(1024)
  readonly #seal: RecordSeal | undefined
  #nonce: bigint | undefined
  #memory = Buffer.alloc(4096)

  constructor(seal: RecordSeal | undefined) {
    this.#seal = seal
  }

  /** The record, in memory that the next one takes. */
  encode(fields: readonly MsgValue[]): Buffer {
    const writer = this.#writer
    writer.clear()
    writer.verbatim(zeroHeader)
    writer.arrayHeader(fields.length)
    for (const field of fields) writer.value(field)
    const record = this.#seal ? this.#sealed(this.#seal, writer.bytes.subarray(headerBytes)) : writer.bytes
    record.writeUInt32LE(record.length - headerBytes, 0)
    record.writeUInt32LE(crc32(record.subarray(headerBytes)), 4)
    return record
  }

  #sealed({ key, takeNonces }: RecordSeal, payload: Uint8Array): Buffer {
    this.#nonce ??= takeNonces()
    const length = headerBytes + key.sealedLength(payload.length)
    if (this.#memory.length < length) this.#memory = Buffer.alloc(2 * length)
    key.sealInto(payload, this.#nonce, this.#memory, headerBytes)
    this.#nonce += BigInt(Math.ceil(payload.length / 16))
    return this.#memory.subarray(0, length)
  }
}

function* recordsOf(extents: Extents): Generator<Buffer> {
  const { rows } = extents
  for (let at = 0; at < rows.length; at += maxRowsPerRecord * extentBytes) yield rows.subarray(at, at + maxRowsPerRecord * extentBytes)
}

const zeroHeader = Buffer.alloc(headerBytes)

/**
 * Applies a journal to empty nodes. Damaged records cost what they said and no more; a torn end is normal. Returns how many
 * records could not be used. `archives` receives which trees are archives already. `key`: of sealed records; plain ones, which an older
 * version wrote, come before them.
 */
export function replay(path: string, nodes: Nodes, archives: MadeArchives = new Map(), key?: Key, known: Set<string> = new Set()): number {
  if (!existsSync(path)) return 0
  const bytes = readFileSync(path)
  let lost = 0, sealed = false
  for (let at = 0; at + headerBytes <= bytes.length; ) {
    const length = bytes.readUInt32LE(at)
    const payload = bytes.subarray(at + headerBytes, at + headerBytes + length)
    if (length === 0 || length > maxRecordBytes || payload.length < length || crc32(payload) !== bytes.readUInt32LE(at + 4)) {
      // Where the next record begins is found by its checksum.
      const next = nextRecord(bytes, at + 1)
      lost++
      if (next < 0) break
      at = next
      continue
    }
    try {
      const isSealed = key !== undefined && payload[0] === key.type
      // Whoever may write to the folder but has no key must not add anything.
      if (sealed && !isSealed) throw new IntegrityError('a plain record among sealed ones')
      sealed ||= isSealed
      if (!apply(unpack(isSealed ? key.open(payload, noId) : Buffer.from(payload)), nodes, archives, known)) lost++
    } catch {
      lost++
    }
    at += headerBytes + length
  }
  return lost
}

const noId = Buffer.alloc(32)

/** Bytes that are looked through for the checksum of a record before the rest is given up: what is left of a journal is not worth minutes. */
const maxSearchedBytes = 1 << 30

function nextRecord(bytes: Buffer, from: number): number {
  let searched = 0
  for (let at = from; at + headerBytes < bytes.length; at++) {
    const length = bytes.readUInt32LE(at)
    if (length === 0 || length > 65536 || at + headerBytes + length > bytes.length) continue
    if ((searched += length) > maxSearchedBytes) return -1
    if (crc32(bytes.subarray(at + headerBytes, at + headerBytes + length)) === bytes.readUInt32LE(at + 4)) return at
  }
  return -1
}

/** False if the record speaks of something that is not there, because the record that made it was lost. */
function apply(record: MsgValue, nodes: Nodes, archives: MadeArchives, known: Set<string>): boolean {
  if (!Array.isArray(record)) return false
  const number = (index: number): number => {
    const value = record[index]
    if (typeof value !== 'number') throw new IntegrityError('a record of the journal lacks a number')
    return value
  }
  const time = (index: number): bigint => {
    const value = record[index]
    return typeof value === 'bigint' ? value : BigInt(number(index))
  }
  const bytes = (index: number): Buffer => {
    const value = record[index]
    if (!Buffer.isBuffer(value)) throw new IntegrityError('a record of the journal lacks a name')
    return value
  }
  const name = (index: number): string => byteString(bytes(index))
  const optionalName = (index: number): string | undefined => (record[index] === null ? undefined : name(index))
  /** A tree whose name is gone or another's is nobody's archive. */
  const forgetTree = (parent: StagedNode | undefined, index: number): void => {
    if (parent?.id === rootId) archives.delete(name(index))
  }
  const directory = (index: number): StagedNode | undefined => {
    const node = nodes.get(number(index))
    return node?.children ? node : undefined
  }
  switch (record[0]) {
    case kindNew: {
      const parent = directory(2)
      // The root is nobody's child, and an id is given once.
      if (!parent || parent.children!.has(name(3)) || number(1) <= rootId || nodes.get(number(1))) return false
      const facts: NodeFacts = {
        mode: number(4), uid: number(5), gid: number(6), rdev: number(7), atimeNs: time(8), mtimeNs: time(9), ctimeNs: time(10),
        target: Buffer.isBuffer(record[11]) ? record[11] : undefined,
      }
      const node = nodes.add(parent, name(3), facts, number(1))
      const base = node.children && nodes.baseOf(node.id)
      if (base) {
        const row = base.rowOf(node.id)
        const above = parent.origin?.path
        node.origin = { base, row, path: row === 0 ? '' : above === undefined ? undefined : joined(above, name(3)) }
      }
      if (parent.id === rootId && !base) {
        // Whatever else was lost: what is new is in no archive.
        if ((facts.mode & typeMask) === typeDirectory) archives.delete(name(3))
        else if (archives.has(undefined)) archives.get(undefined)!.changed = true
      }
      return true
    }
    case kindLink: {
      const [node, parent] = [nodes.get(number(1)), directory(2)]
      if (!node || !parent || node.children || parent.children!.has(name(3))) return false
      nodes.link(node, parent, name(3))
      return true
    }
    case kindUnlink: {
      const parent = directory(1)
      forgetTree(parent, 2)
      const node = parent && nodes.unlink(parent, name(2))
      if (node && node.nlink === 0) nodes.forget(node.id)
      // Of what lies beneath nothing is here yet.
      return node !== undefined || parent?.origin !== undefined
    }
    case kindMove: {
      const [parent, newParent] = [directory(1), directory(3)]
      if (!parent || !newParent || !nodes.child(parent, name(2))) return false
      // A directory below itself would be a tree without end.
      const moving = nodes.child(parent, name(2))!
      if (moving.children && nodes.isWithin(newParent, moving)) return false
      const over = nodes.child(newParent, name(4))
      if (over?.children && (over.children.size > 0 || nodes.isWithin(parent, over))) return false
      if (over && over !== nodes.child(parent, name(2))) {
        nodes.unlink(newParent, name(4))
        if (over.nlink === 0) nodes.forget(over.id)
      }
      nodes.move(parent, name(2), newParent, name(4))
      const moved = parent.id === rootId ? archives.get(name(2)) : undefined
      forgetTree(parent, 2)
      forgetTree(newParent, 4)
      // Under another name it makes another archive, but still in the place of the former one.
      if (moved && newParent.id === rootId) archives.set(name(4), { ...moved, changed: true })
      return true
    }
    case kindExchange: {
      const [parent, other] = [directory(1), directory(3)]
      if (!parent || !other || !nodes.child(parent, name(2)) || !nodes.child(other, name(4))) return false
      const [a, b] = [nodes.child(parent, name(2))!, nodes.child(other, name(4))!]
      if ((a.children && nodes.isWithin(other, a)) || (b.children && nodes.isWithin(parent, b))) return false
      nodes.exchange(parent, name(2), other, name(4))
      forgetTree(parent, 2)
      forgetTree(other, 4)
      return true
    }
    case kindAttributes: {
      const node = nodes.get(number(1))
      if (!node) return false
      // What it is does not change, or a file would be a directory without entries.
      if ((number(2) & typeMask) !== (node.mode & typeMask)) return false
      Object.assign(node, { mode: number(2), uid: number(3), gid: number(4), atimeNs: time(5), mtimeNs: time(6), ctimeNs: time(7) })
      return true
    }
    case kindXattr: {
      const node = nodes.get(number(1))
      if (!node) return false
      if (Buffer.isBuffer(record[3])) (node.xattrs ??= new Map()).set(name(2), record[3])
      else node.xattrs?.delete(name(2))
      return true
    }
    case kindExtents:
    case kindStashed: {
      const node = nodes.get(number(1))
      const extents = new Extents(bytes(2))
      if (!node || node.children || !extents.isSound) return false
      ;(node.extents ??= new Extents()).put(extents)
      node.settled = false
      if (record[0] === kindStashed) node.stashed = true
      // It was cut: what is in the bundle is older from here on.
      if (node.place) node.cut = { upTo: 0, inFlight: undefined, ranges: [], left: true }
      return true
    }
    case kindPlaced: {
      const node = nodes.get(number(1))
      if (!node || node.children) return false
      node.place = record.length > 2 ? { bundle: number(2), start: number(3) } : undefined
      if (node.place) node.size = number(4)
      node.cut = node.former = undefined
      return true
    }
    case kindTakenOver: {
      const node = nodes.get(number(1))
      if (!node?.place) return false
      node.former = { place: node.place, size: node.size, boot: name(2) }
      node.place = node.cut = undefined
      return true
    }
    case kindSettled: {
      const node = nodes.get(number(1))
      if (node) node.settled = true
      return node !== undefined
    }
    case kindCut: {
      const node = nodes.get(number(1))
      if (!node) return false
      node.extents?.remove(number(2), number(3))
      return true
    }
    case kindDrop: {
      const parent = directory(1)
      const node = parent && nodes.child(parent, name(2))
      if (!node) return false
      dropTree(nodes, parent, name(2))
      nodes.dropBases()
      forgetTree(parent, 2)
      return true
    }
    case kindCommitted:
      known.add(bytes(3).toString('hex'))
      archives.set(optionalName(1), { made: { name: name(2), id: bytes(3).toString('hex'), tree: optionalName(4) }, changed: false })
      if (record[1] !== null) noteOrigins(nodes, name(1))
      return true
    case kindChanged: {
      const known = archives.get(optionalName(1))
      if (known) known.changed = true
      // Where the record that it is there was lost.
      if (known && nodes.bases.length > 0) known.opening = false
      return known !== undefined
    }
    case kindBase: {
      const known = nodes.bases.find(({ firstId }) => firstId === number(3))
      if (known) return known.archive === bytes(2).toString('hex')
      const base = nodes.addBase(name(1), bytes(2).toString('hex'), number(4), number(3))
      // The record that came first may be lost.
      for (const node of base ? nodes.all() : []) if (node.children && base!.has(node.id)) node.origin ??= { base: base!, row: base!.rowOf(node.id), path: undefined }
      if (base) noteOrigins(nodes, base.series)
      if (base && !archives.has(base.series)) archives.set(base.series, { made: { name: '', id: '', tree: undefined }, changed: false, opening: true })
      return base !== undefined
    }
    case kindOrigin: {
      const node = directory(1)
      if (!node) return false
      const base = record.length > 2 ? nodes.baseOf(number(2)) : undefined
      node.origin = base && base.firstId === number(2) && number(3) < base.rowCount ? { base, row: number(3), path: record[4] === null ? undefined : name(4) } : undefined
      if (node.origin) node.origin.base.placed(node.origin.row, node.id)
      else node.hidden = undefined
      return record.length === 2 || node.origin !== undefined
    }
    // Its directory, and what it lies over, come when it is open.
    case kindOpening:
      archives.set(name(1), { made: { name: '', id: '', tree: undefined }, changed: true, opening: true })
      return true
    case kindForgotten:
      archives.delete(optionalName(1))
      return true
  }
  return false
}

function joined(directory: string, name: string): string {
  return directory === '' ? name : `${directory}/${name}`
}

/** A tree is an archive: its directories are there where they are now. */
function noteOrigins(nodes: Nodes, tree: string): void {
  const top = nodes.child(nodes.get(rootId)!, tree)
  if (top) for (const { node, path } of nodes.walk(top)) if (node.origin) node.origin.path = path === '.' ? '' : path
}

/** Forgets a name with all below it. Returns the files whose last name that was; such as are open stay nodes until they are closed. */
export function dropTree(nodes: Nodes, parent: StagedNode, name: string): StagedNode[] {
  const gone: StagedNode[] = []
  const node = nodes.unlink(parent, name)
  if (!node) return gone
  for (const child of [...(node.children?.keys() ?? [])]) gone.push(...dropTree(nodes, node, child))
  if (node.children || node.nlink === 0) {
    if (node.opens === 0) nodes.forget(node.id)
    if (!node.children) gone.push(node)
  }
  return gone
}
