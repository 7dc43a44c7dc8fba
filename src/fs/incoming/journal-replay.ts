/** A journal becomes the nodes that it speaks of. */
import { closeSync, existsSync, openSync, readSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import type { Key } from '../../engine/crypto/key.js'
import { IntegrityError } from '../../engine/errors.js'
import { type MsgValue, unpack } from '../../engine/msgpack.js'
import { byteString } from '../../engine/text.js'
import { goBack, keepBefore, leaveBundle, withoutFormer } from './before.js'
import { Extents } from './extents.js'
import { headerBytes, maxRecordBytes, maxSearchedRecordBytes, recordKind } from './journal-records.js'
import { type NodeFacts, type Nodes, rootId, type StagedNode, typeDirectory, typeMask } from './nodes.js'
import type { MadeArchive } from './policy.js'

/** What is looked at at a time holds any record. */
const lookBytes = headerBytes + maxRecordBytes

/** What a journal says of the archives made of trees, by the tree's name (undefined: loose files). */
export type MadeArchives = Map<string | undefined, { made: MadeArchive; changed: boolean; opening?: boolean }>

/**
 * Applies a journal to empty nodes. Damaged records cost what they said and no more; a torn end is normal. But behind what was synced last a failing machine
 * may have kept any part of what was written, and what follows a gap there may mean nothing without it: there it ends at the first damage, and `cutOff` is
 * called with that place. Returns how many records could not be used. `archives` receives which trees are archives already. `key`: of sealed
 * records; plain ones, which an older version wrote, come before them.
 */
export function replay(path: string, nodes: Nodes, archives: MadeArchives = new Map(), key?: Key, known: Set<string> = new Set(), cutOff: (at: number) => void = () => {}): number {
  if (!existsSync(path)) return 0
  const fd = openSync(path, 'r')
  try {
    return replayAll(fd, nodes, archives, key, known, cutOff)
  } finally {
    closeSync(fd)
  }
}

/** A stretch of the file: a drive that stays for months has a journal that is longer than memory, or than Node reads at a time. */
class Window {
  readonly #fd: number
  readonly #memory = Buffer.allocUnsafeSlow(2 * lookBytes)
  #position: number
  bytes: Buffer = this.#memory.subarray(0, 0)
  /** The file ends where the window ends. */
  isLast = false

  constructor(fd: number, position: number) {
    this.#fd = fd
    this.#position = position
  }

  /** Where in the file the window begins. */
  get start(): number {
    return this.#position - this.bytes.length
  }

  /** `at` is a place in the window; it begins there now, and has a whole record if there is one. */
  moveTo(at: number): void {
    let length = this.bytes.copy(this.#memory, 0, at)
    while (length < this.#memory.length && !this.isLast) {
      const count = readSync(this.#fd, this.#memory, length, this.#memory.length - length, this.#position)
      this.#position += count
      length += count
      this.isLast = count === 0
    }
    this.bytes = this.#memory.subarray(0, length)
  }
}

function replayAll(fd: number, nodes: Nodes, archives: MadeArchives, key: Key | undefined, known: Set<string>, cutOff: (at: number) => void): number {
  let lost = 0, sealed = false
  /** Up to where it was synced, as far as that matters yet. */
  let syncedTo: number | undefined
  const gone = new Set<number>()
  for (const found of records(fd, 0)) {
    if (found.payload === undefined) {
      lost++
      syncedTo ??= lastSynced(fd, found.at, key)
      if (found.at < syncedTo) continue
      cutOff(found.at)
      return lost
    }
    try {
      const { payload } = found
      const isSealed = key !== undefined && payload[0] === key.type
      // Whoever may write to the folder but has no key must not add anything.
      if (sealed && !isSealed) throw new IntegrityError('a plain record among sealed ones')
      sealed ||= isSealed
      if (!apply(opened(payload, key), nodes, archives, known, gone)) lost++
    } catch {
      lost++
    }
  }
  return lost
}

function opened(payload: Buffer, key: Key | undefined): MsgValue {
  return unpack(key !== undefined && payload[0] === key.type ? key.open(payload, noId) : Buffer.from(payload))
}

/** The place of the last mark behind `from` of which a record says that it was synced. Infinity if there are no marks at all: an older version, or nothing was synced yet. */
function lastSynced(fd: number, from: number, key: Key | undefined): number {
  const marks = new Map<MsgValue | undefined, number>()
  let synced = 0
  for (const { at, record } of intactRecords(fd, from, key)) {
    if (record[0] === recordKind.mark) marks.set(record[1], at)
    else if (record[0] === recordKind.synced) synced = Math.max(synced, marks.get(record[1]) ?? 0)
  }
  if (marks.size > 0) return synced
  for (const { at, record } of intactRecords(fd, 0, key)) {
    if (at >= from) break
    if (record[0] === recordKind.mark) return synced
  }
  return Infinity
}

function* intactRecords(fd: number, from: number, key: Key | undefined): Generator<{ readonly at: number; readonly record: readonly MsgValue[] }> {
  for (const { at, payload } of records(fd, from)) {
    let record: MsgValue | undefined
    try {
      record = payload && opened(payload, key)
    } catch {
      // No more intact than damage is.
    }
    if (Array.isArray(record)) yield { at, record }
  }
}

/** Records from a place on, as they lie there; without payload where there is damage. */
function* records(fd: number, from: number): Generator<{ readonly at: number; readonly payload?: Buffer }> {
  const window = new Window(fd, from)
  for (let at = 0; ; ) {
    if (!window.isLast && window.bytes.length - at < lookBytes) {
      window.moveTo(at)
      at = 0
    }
    const { bytes } = window
    if (at + headerBytes > bytes.length) return
    const length = bytes.readUInt32LE(at)
    const payload = bytes.subarray(at + headerBytes, at + headerBytes + length)
    if (length === 0 || length > maxRecordBytes || payload.length < length || crc32(payload) !== bytes.readUInt32LE(at + 4)) {
      yield { at: window.start + at }
      // Where the next record begins is found by its checksum.
      const next = nextRecord(bytes, at + 1)
      if (next < 0 && window.isLast) return
      at = next < 0 ? Math.max(at + 1, bytes.length - maxSearchedRecordBytes - headerBytes) : next
      continue
    }
    yield { at: window.start + at, payload }
    at += headerBytes + length
  }
}

const noId = Buffer.alloc(32)

/** Bytes that are looked through for the checksum of a record before the rest is given up: what is left of a journal is not worth minutes. */
const maxSearchedBytes = 1 << 30

function nextRecord(bytes: Buffer, from: number): number {
  let searched = 0
  for (let at = from; at + headerBytes < bytes.length; at++) {
    const length = bytes.readUInt32LE(at)
    if (length === 0 || length > maxSearchedRecordBytes || at + headerBytes + length > bytes.length) continue
    if ((searched += length) > maxSearchedBytes) return -1
    if (crc32(bytes.subarray(at + headerBytes, at + headerBytes + length)) === bytes.readUInt32LE(at + 4)) return at
  }
  return -1
}

/**
 * False if the record speaks of something that is not there, because the record that made it was lost. `gone`: ids of what lost its last name, where somebody
 * may have gone on with what was open.
 */
function apply(record: MsgValue, nodes: Nodes, archives: MadeArchives, known: Set<string>, gone: Set<number>): boolean {
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
  const forget = (id: number): void => {
    nodes.forget(id)
    gone.add(id)
  }
  if (aboutOne.has(record[0]) && gone.has(number(1))) return true
  switch (record[0]) {
    case recordKind.made: {
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
    case recordKind.linked: {
      const [node, parent] = [nodes.get(number(1)), directory(2)]
      if (!node || !parent || node.children || parent.children!.has(name(3))) return false
      nodes.link(node, parent, name(3))
      return true
    }
    case recordKind.unlinked: {
      const parent = directory(1)
      forgetTree(parent, 2)
      const node = parent && nodes.unlink(parent, name(2))
      if (node && node.nlink === 0) forget(node.id)
      // Of what lies beneath nothing is here yet.
      return node !== undefined || parent?.origin !== undefined
    }
    case recordKind.moved: {
      const [parent, newParent] = [directory(1), directory(3)]
      if (!parent || !newParent || !nodes.child(parent, name(2))) return false
      // A directory below itself would be a tree without end.
      const moving = nodes.child(parent, name(2))!
      if (moving.children && nodes.isWithin(newParent, moving)) return false
      const over = nodes.child(newParent, name(4))
      if (over?.children && (over.children.size > 0 || nodes.isWithin(parent, over))) return false
      if (over && over !== nodes.child(parent, name(2))) {
        nodes.unlink(newParent, name(4))
        if (over.nlink === 0) forget(over.id)
      }
      nodes.move(parent, name(2), newParent, name(4))
      const moved = parent.id === rootId ? archives.get(name(2)) : undefined
      forgetTree(parent, 2)
      forgetTree(newParent, 4)
      // Under another name it makes another archive, but still in the place of the former one.
      if (moved && newParent.id === rootId) archives.set(name(4), { ...moved, changed: true })
      return true
    }
    case recordKind.exchanged: {
      const [parent, other] = [directory(1), directory(3)]
      if (!parent || !other || !nodes.child(parent, name(2)) || !nodes.child(other, name(4))) return false
      const [a, b] = [nodes.child(parent, name(2))!, nodes.child(other, name(4))!]
      if ((a.children && nodes.isWithin(other, a)) || (b.children && nodes.isWithin(parent, b))) return false
      nodes.exchange(parent, name(2), other, name(4))
      forgetTree(parent, 2)
      forgetTree(other, 4)
      return true
    }
    case recordKind.attributes: {
      const node = nodes.get(number(1))
      if (!node) return false
      // What it is does not change, or a file would be a directory without entries.
      if ((number(2) & typeMask) !== (node.mode & typeMask)) return false
      Object.assign(node, { mode: number(2), uid: number(3), gid: number(4), atimeNs: time(5), mtimeNs: time(6), ctimeNs: time(7) })
      return true
    }
    case recordKind.xattr: {
      const node = nodes.get(number(1))
      if (!node) return false
      if (Buffer.isBuffer(record[3])) (node.xattrs ??= new Map()).set(name(2), record[3])
      else node.xattrs?.delete(name(2))
      return true
    }
    case recordKind.extents:
    case recordKind.stashed: {
      const node = nodes.get(number(1))
      const extents = new Extents(bytes(2))
      if (!node || node.children || !extents.isSound) return false
      ;(node.extents ??= new Extents()).put(extents)
      node.settled = false
      if (record[0] === recordKind.stashed) node.stashed = true
      // It was cut: what is in the bundle is older from here on.
      if (node.place) node.cut = { upTo: 0, inFlight: undefined, ranges: [], left: true }
      return true
    }
    case recordKind.placed: {
      const node = nodes.get(number(1))
      if (!node || node.children) return false
      node.place = record.length > 2 ? { bundle: number(2), start: number(3) } : undefined
      if (node.place) node.size = number(4)
      node.cut = node.former = undefined
      if (!node.place) node.befores = withoutFormer(node.befores)
      return true
    }
    case recordKind.takenOver: {
      const node = nodes.get(number(1))
      if (!node?.place) return false
      leaveBundle(node, node.place, name(2))
      node.cut = undefined
      return true
    }
    case recordKind.settled: {
      const node = nodes.get(number(1))
      if (node) node.settled = true
      return node !== undefined
    }
    case recordKind.cut: {
      const node = nodes.get(number(1))
      if (!node) return false
      node.extents?.remove(number(2), number(3))
      // It was cut into chunks, and lies there no more; before the change it may.
      if (node.place && node.cut) node.place = node.cut = undefined
      return true
    }
    case recordKind.changing: {
      const node = nodes.get(number(1))
      if (!node || node.children) return false
      keepBefore(node, name(2), number(3) !== 0)
      return true
    }
    case recordKind.certain: {
      const node = nodes.get(number(1))
      if (node) node.befores = node.befores.slice(number(2))
      return node !== undefined
    }
    case recordKind.undone: {
      const node = nodes.get(number(1))
      const before = node?.befores[number(2)]
      if (!before) return false
      goBack(node!, before)
      return true
    }
    case recordKind.spoolGone: {
      const node = nodes.get(number(1))
      if (node) node.spoolGone = true
      return node !== undefined
    }
    case recordKind.dropped: {
      const parent = directory(1)
      const node = parent && nodes.child(parent, name(2))
      if (!node) return false
      for (const { node: { id } } of nodes.walk(node)) gone.add(id)
      nodes.dropTree(parent, name(2))
      for (const id of gone) if (nodes.peek(id)) gone.delete(id)
      nodes.dropBases()
      forgetTree(parent, 2)
      return true
    }
    case recordKind.committed:
      known.add(bytes(3).toString('hex'))
      archives.set(optionalName(1), { made: { name: name(2), id: bytes(3).toString('hex'), tree: optionalName(4) }, changed: false })
      if (record[1] !== null) noteOrigins(nodes, name(1))
      return true
    case recordKind.changed: {
      const known = archives.get(optionalName(1))
      if (known) known.changed = true
      // Where the record that it is there was lost.
      if (known && nodes.bases.length > 0) known.opening = false
      return known !== undefined
    }
    case recordKind.base: {
      const known = nodes.bases.find(({ firstId }) => firstId === number(3))
      if (known) return known.archive === bytes(2).toString('hex')
      const base = nodes.addBase(name(1), bytes(2).toString('hex'), number(4), number(3))
      // The record that came first may be lost.
      for (const node of base ? nodes.all() : []) if (node.children && base!.has(node.id)) node.origin ??= { base: base!, row: base!.rowOf(node.id), path: undefined }
      if (base) noteOrigins(nodes, base.series)
      if (base && !archives.has(base.series)) archives.set(base.series, { made: { name: '', id: '', tree: undefined }, changed: false, opening: true })
      return base !== undefined
    }
    case recordKind.origin: {
      const node = directory(1)
      if (!node) return false
      const base = record.length > 2 ? nodes.baseOf(number(2)) : undefined
      node.origin = base && base.firstId === number(2) && number(3) < base.rowCount ? { base, row: number(3), path: record[4] === null ? undefined : name(4) } : undefined
      if (node.origin) node.origin.base.placed(node.origin.row, node.id)
      else node.hidden = undefined
      return record.length === 2 || node.origin !== undefined
    }
    // Its directory, and what it lies over, come when it is open.
    case recordKind.opening:
      archives.set(name(1), { made: { name: '', id: '', tree: undefined }, changed: true, opening: true })
      return true
    case recordKind.mark:
    case recordKind.synced: return true
    // It is there or it is not.
    case recordKind.whole: return record.slice(1).map(part => apply(part, nodes, archives, known, gone)).every(Boolean)
    case recordKind.forgotten:
      archives.delete(optionalName(1))
      return true
  }
  return false
}

/** Kinds of records about what stands second in them. */
const aboutOne: ReadonlySet<MsgValue | undefined> = new Set([
  recordKind.attributes, recordKind.xattr, recordKind.extents, recordKind.stashed, recordKind.placed, recordKind.takenOver, recordKind.settled, recordKind.cut, recordKind.changing, recordKind.certain, recordKind.undone, recordKind.spoolGone,
])

function joined(directory: string, name: string): string {
  return directory === '' ? name : `${directory}/${name}`
}

/** A tree is an archive: its directories are there where they are now. */
function noteOrigins(nodes: Nodes, tree: string): void {
  const top = nodes.child(nodes.get(rootId)!, tree)
  if (top) for (const { node, path } of nodes.walk(top)) if (node.origin) node.origin.path = path === '.' ? '' : path
}
