/** The log of numbered segment files (repository.md §3): appending under Borg's rules, reading by position. */
import { type BigIntStats, fstatSync, readdirSync, readSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { errnoOf } from '../errors.js'
import { files } from '../platform/files.js'
import { syncDirectory } from '../platform/save-file.js'
import { idBytes, putHeaderBytes } from '../constants.js'
import { commitEntry, headerBytes, magic, readHeader, tagCommit, tagPut } from './entry.js'
import { SegmentError } from './errors.js'
import { SegmentDescriptors, type SegmentLease } from './segment-descriptors.js'
import { type SegmentEntries, walkSegment } from './segment-walk.js'
import { native } from '../native.js'

/** Small entries gather up to this many bytes before they are written. */
const bufferBytes = 1 << 20
/** 41 bytes each. */
const entriesAtOnce = 1 << 16
const windowBytes = 1 << 16
/** Shorter segments are always read through to see whether they are sound. */
const longBytes = 1 << 20
/** Read at once where headers do not follow each other. */
const strayBytes = 1 << 12
const writebackBytes = 16 << 20

interface WriteEnd {
  readonly segment: number
  readonly fd: number
  readonly path: string
  /** Bytes in the file including what is buffered. */
  offset: number
  /** Bytes that the kernel was asked to write out. */
  startedWriteback: number
}

export class Segments {
  readonly #folder: string
  readonly #perDirectory: number
  readonly #maxSize: number
  readonly #descriptors = new SegmentDescriptors(segment => this.path(segment))
  #end: WriteEnd | undefined
  readonly #window = { segment: -1, start: 0, length: 0, bytes: Buffer.allocUnsafeSlow(windowBytes) }
  readonly #pending: Uint8Array[] = []
  #pendingBytes = 0
  /** Short files that are complete, but not durable yet. */
  readonly #left: WriteEnd[] = []
  readonly #durableFolders = new Set<string>()
  /** Files written since the last COMMIT that was confirmed, as they were when they were finished. */
  readonly #finished = new Map<number, string>()
  /** Folders with removals that a power failure may undo. */
  readonly #removedFrom = new Set<string>()
  /** Number of the next segment file to begin. */
  next = 0
  /** Asked before a file is begun; throws if nothing may be written. */
  guard: () => void = () => undefined

  constructor(repositoryFolder: string, options: { segmentsPerDir: number; maxSegmentSize: number }) {
    this.#folder = join(repositoryFolder, 'data')
    this.#perDirectory = options.segmentsPerDir
    this.#maxSize = options.maxSegmentSize
  }

  path(segment: number): string {
    return join(this.#folder, String(Math.floor(segment / this.#perDirectory)), String(segment))
  }

  /** Numbers of the non-empty segment files above `after`, ascending. */
  numbers(after = -1): number[] {
    return this.files().filter(segment => segment > after && this.size(segment) > 0)
  }

  /** Ascending, empty ones included: what a full disk leaves when not even the magic could be written. */
  files(): number[] {
    return directories(this.#folder).flatMap(name => this.#filesIn(name)).sort((a, b) => a - b)
  }

  /** The same, highest first, directory by directory: whoever only wants the end of the log looks at that. */
  *#descending(): Generator<number> {
    for (const name of directories(this.#folder).reverse()) yield* this.#filesIn(name).reverse()
  }

  #filesIn(directory: string): number[] {
    return readdirSync(join(this.#folder, directory)).filter(name => /^\d+$/.test(name)).map(Number).sort((a, b) => a - b)
  }

  /** Number of the first non-empty segment file, undefined without one. */
  first(): number | undefined {
    for (const name of directories(this.#folder)) for (const segment of this.#filesIn(name)) if (this.size(segment) > 0) return segment
    return undefined
  }

  /** Bytes of a segment file, 0 if it is missing. */
  size(segment: number): number {
    if (this.#end?.segment === segment) return this.#end.offset
    try {
      return statSync(this.path(segment)).size
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return 0
      throw error
    }
  }

  // --- reading ---

  /** For one positional read, at once. What is still buffered is written first. */
  #descriptor(segment: number): number {
    if (this.#end?.segment === segment) this.flush()
    return this.#descriptors.borrow(segment)
  }

  /** Descriptors for a job of another thread; see SegmentDescriptors.leased. What is still buffered is written first. */
  leased<T>(work: (lease: SegmentLease) => Promise<T>): Promise<T> {
    return this.#descriptors.leased(lease => {
      this.flush()
      return work(lease)
    })
  }

  /** `length` bytes at `offset`. SegmentError if the file is missing or ends before. */
  read(segment: number, offset: number, length: number): Buffer {
    const bytes = Buffer.allocUnsafe(length)
    let done = 0
    try {
      const fd = this.#descriptor(segment)
      while (done < length) {
        const count = readSync(fd, bytes, done, length - done, offset + done)
        if (count === 0) break
        done += count
      }
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error
      throw new SegmentError('Segment is missing', segment, offset)
    }
    if (done < length) throw new SegmentError(`Segment entry data short read [expected: ${length}, read: ${done}]`, segment, offset)
    return bytes
  }

  /**
   * Length of the whole entry at `offset`, from its header. Entries that are asked for one after the other mostly lie close
   * together: one read serves many.
   */
  entryLength(segment: number, offset: number): number {
    if (this.#end?.segment === segment) this.flush()
    const window = this.#window
    let at = offset - window.start
    if (window.segment !== segment || at < 0 || at + headerBytes > window.length) {
      const goesOn = window.segment === segment && at >= 0 && at < windowBytes
      window.segment = -1
      try {
        window.length = readSync(this.#descriptor(segment), window.bytes, 0, goesOn ? windowBytes : strayBytes, offset)
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') throw error
        throw new SegmentError('Segment is missing', segment, offset)
      }
      window.segment = segment
      window.start = offset
      at = 0
      if (window.length < headerBytes) {
        window.segment = -1
        throw new SegmentError('Segment entry header short read', segment, offset)
      }
    }
    return window.bytes.readUInt32LE(at + 4)
  }

  /** The same of many: places[2 * n] is the segment and places[2 * n + 1] the offset of entry n. */
  entryLengths(places: Uint32Array): Uint32Array {
    this.flush()
    const count = places.length / 2
    const lengths = new Uint32Array(count)
    for (let first = 0, end = 1; first < count; first = end++) {
      const segment = places[2 * first]!
      while (end < count && places[2 * end] === segment) end++
      let read: number
      try {
        read = native().entryLengths(this.#descriptor(segment), places, 2 * first + 1, 2, end - first, lengths.subarray(first, end))
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') throw error
        throw new SegmentError('Segment is missing', segment, places[2 * first + 1]!)
      }
      if (read < end - first) throw new SegmentError('Segment entry header short read', segment, places[2 * (first + read) + 1]!)
    }
    return lengths
  }

  /** Whether a PUT of this id stands there; false as well if the file is missing or ends before. */
  holds(segment: number, offset: number, id: Uint8Array): boolean {
    try {
      const header = this.read(segment, offset, putHeaderBytes)
      return header[8] === tagPut && header.compare(id, 0, idBytes, headerBytes) === 0
    } catch (error) {
      if (error instanceof SegmentError) return false
      throw error
    }
  }

  /** The whole entry at `offset`, its length taken from its header. */
  readEntry(segment: number, offset: number): Buffer {
    const header = readHeader(this.read(segment, offset, headerBytes), 0, segment, offset)
    return this.read(segment, offset, header.size)
  }

  /**
   * The entries of a segment file in pieces of bounded size, values CRC-checked. SegmentError at the first thing that is not as
   * it should be, before any entry is given: a damaged segment counts for nothing.
   */
  *walk(segment: number, options: { checkCrc?: boolean } = {}): Generator<SegmentEntries> {
    let entries: SegmentEntries
    for (let from = 0; ; from = entries.next) {
      entries = walkSegment({ path: this.path(segment), segment, from, limit: entriesAtOnce, checkCrc: from === 0 && options.checkCrc !== false })
      if (entries.damage !== undefined) throw SegmentError.of(entries.damage)
      yield entries
      if (entries.next >= entries.fileBytes) return
    }
  }

  /** Whether the file ends with a COMMIT, is sound, and has nothing but COMMITs after the first one. */
  isCommitted(segment: number): boolean {
    try {
      if (!this.#endsWithCommit(segment)) return false
      let committed = false
      for (const { tags } of this.walk(segment)) {
        for (const tag of tags) {
          if (tag === tagCommit) committed = true
          else if (committed) return false
        }
      }
      return committed
    } catch (error) {
      if (error instanceof SegmentError) return false
      throw error
    }
  }

  /**
   * Number of the highest committed segment, -1 if there is none. `known`: a transaction that had committed when its index was
   * written, so that a long segment is not read through again.
   */
  lastCommitted(known = -1): number {
    for (const segment of this.#descending()) {
      const long = segment === known && this.size(segment) > longBytes
      if (long ? this.#endsWithCommit(segment) : this.isCommitted(segment)) return segment
    }
    return -1
  }

  #endsWithCommit(segment: number): boolean {
    const bytes = this.size(segment)
    return bytes >= magic.length + commitEntry.length && this.read(segment, bytes - commitEntry.length, commitEntry.length).equals(commitEntry)
  }

  // --- writing ---

  /** Where the next entry will stand. Begins a new file where the rules want one. */
  position(options: { newSegment?: boolean } = {}): { segment: number; offset: number } {
    if (this.#end && this.#end.offset > this.#maxSize) this.#closeEnd()
    else if (this.#end && options.newSegment && this.#end.offset > magic.length) this.#leaveEnd()
    this.#end ??= this.#begin()
    return { segment: this.#end.segment, offset: this.#end.offset }
  }

  /** How many entries of so many bytes may be appended after position() before it must be asked again. */
  roomFor(entryBytes: number): number {
    return Math.floor((this.#maxSize - this.#end!.offset) / entryBytes) + 1
  }

  /** Whether position() would begin a new file because the one in hand is full. */
  get full(): boolean {
    return this.#end !== undefined && this.#end.offset > this.#maxSize
  }

  /** Appends bytes at position(). They are kept by reference until flushed, and must not change until then. */
  append(bytes: Uint8Array): void {
    const end = this.#end!
    this.#pending.push(bytes)
    this.#pendingBytes += bytes.length
    end.offset += bytes.length
    if (this.#pendingBytes >= bufferBytes) this.flush()
  }

  /** Hands everything to the kernel. */
  flush(): void {
    if (this.#pendingBytes === 0) return
    const parts = this.#pending.splice(0)
    this.#pendingBytes = 0
    const end = this.#end!
    files.writeAllOf(end.fd, parts)
    // The disk begins early, so that making the segment durable does not wait for all of it at once.
    if (end.offset - end.startedWriteback >= writebackBytes) {
      native().dropCache(end.fd, end.startedWriteback, end.offset - end.startedWriteback)
      end.startedWriteback = end.offset
    }
  }

  #begin(): WriteEnd {
    this.guard()
    const segment = this.next++
    const path = this.path(segment)
    const folder = dirname(path)
    if (!this.#durableFolders.has(folder)) {
      try {
        files.makeDirectory(folder)
      } catch (error) {
        if (errnoOf(error) !== 'EEXIST') throw error
      }
      // Also one that is there: who made it may have been killed before its name was durable.
      syncDirectory(this.#folder)
      this.#durableFolders.add(folder)
    }
    const fd = this.#openNew(path)
    files.writeAll(fd, magic)
    return { segment, fd, path, offset: magic.length, startedWriteback: 0 }
  }

  #openNew(path: string): number {
    try {
      return files.open(path, 'ax')
    } catch (error) {
      // Another client took the number since the guard was asked: it will say more.
      if (errnoOf(error) === 'EEXIST') this.guard()
      throw error
    }
  }

  /** The file in hand is complete. One that is short waits, so that the disk is asked once for all that the COMMIT needs. */
  #leaveEnd(): void {
    if (this.#end!.offset > bufferBytes) return this.#closeEnd()
    this.flush()
    this.#left.push(this.#end!)
    this.#end = undefined
  }

  /** Makes the file in hand and those left before it durable, with their names. */
  #closeEnd(): void {
    const ends = [...this.#left.splice(0), ...(this.#end ? [this.#end] : [])]
    try {
      this.flush()
      // All are on their way to the disk before the first is waited for.
      if (ends.length > 1) for (const { fd, offset } of ends) native().startWriteback(fd, 0, offset)
      for (const { segment, fd, offset } of ends) {
        files.datasync(fd)
        this.#finished.set(segment, identity(fstatSync(fd, { bigint: true })))
        // A backup is rarely read soon: its pages need not push others out (Borg does the same).
        if (offset > bufferBytes) native().dropCache(fd, 0, offset)
      }
    } finally {
      this.#end = undefined
      for (const { fd } of ends) files.close(fd)
    }
    for (const folder of new Set(ends.map(({ path }) => dirname(path)))) syncDirectory(folder)
  }

  /** The final COMMIT, in a segment of its own, after everything else is durable. Returns its number, the transaction id. */
  commit(): number {
    this.#closeEnd()
    // The guard is asked here, as late as can be: between this and the COMMIT nothing takes long.
    const { segment } = this.position()
    this.#appendCommit(segment)
    return segment
  }

  /**
   * An intermediate COMMIT in the file in hand, which is closed by it. What it commits is durable before it is written. Returns
   * the file's number, the transaction id.
   */
  commitHere(): number {
    if (this.#left.length > 0) throw new Error('a file without COMMIT is left that this one would be about')
    const { segment, fd } = this.#end!
    this.flush()
    files.datasync(fd)
    this.guard()
    this.#appendCommit(segment)
    return segment
  }

  /**
   * Of a COMMIT that failed half-way nobody knows whether it will be there after a power failure: it is unmade, durably, before
   * anything that it commits is removed.
   */
  #appendCommit(segment: number): void {
    try {
      this.append(commitEntry)
      this.#closeEnd()
    } catch (error) {
      try {
        this.#unmake(segment)
      } catch {
        // Then it stays, with all that it commits: the transaction did succeed, whatever is said about it.
      }
      throw error
    }
  }

  /** What the last COMMIT commits is there: the writer's lock was held all the time. */
  confirm(): void {
    this.#finished.clear()
  }

  /**
   * For a COMMIT, by the number that commit() gave, that was written when the lock was held no more: what it commits may have been removed
   * by another client. True if that has seen it, built on it and left it whole: it stands. Else it is taken back.
   */
  standsOrWithdrawn(transaction: number): boolean {
    const ours = (segment: number): boolean => {
      const found = statSync(this.path(segment), { bigint: true, throwIfNoEntry: false })
      return found !== undefined && identity(found) === this.#finished.get(segment)
    }
    if (this.committedAbove(transaction) !== undefined) return [...this.#finished.keys()].every(ours)
    // Under its name there may be the other client's file.
    if (!ours(transaction)) return false
    this.#unmake(transaction)
    this.remove(transaction)
    this.syncRemovals()
    return false
  }

  /** Drops what was not written yet; what was written lies above the last transaction and counts for nothing. */
  abandonEnd(): void {
    this.#pending.length = 0
    this.#pendingBytes = 0
    const ends = [...this.#left.splice(0), ...(this.#end ? [this.#end] : [])]
    this.#end = undefined
    for (const { fd } of ends) files.close(fd)
  }

  /** Deletes a file; where even that takes space that is not there, as on copy-on-write file systems, it is emptied first. */
  remove(segment: number): void {
    this.forget(segment)
    const path = this.path(segment)
    this.#removedFrom.add(dirname(path))
    try {
      files.removeIfThere(path)
    } catch (error) {
      if (errnoOf(error) !== 'ENOSPC' && errnoOf(error) !== 'EDQUOT') throw error
      // A copy of the repository by hard links has the same content.
      if (statSync(path).nlink > 1) throw error
      files.truncate(path, 0)
      files.remove(path)
    }
  }

  /** Removes what an aborted transaction left above `transaction`, highest first. */
  removeAbove(transaction: number): void {
    for (const segment of this.#descending()) {
      if (segment <= transaction) break
      this.remove(segment)
    }
    this.#finished.clear()
    this.next = transaction + 1
  }

  /** What was removed so far stays removed. */
  syncRemovals(): void {
    for (const folder of this.#removedFrom) syncDirectory(folder)
    this.#removedFrom.clear()
  }

  #unmake(segment: number): void {
    this.#window.segment = -1
    const fd = files.open(this.path(segment), 'r+')
    try {
      files.truncateOpen(fd, 0)
      files.datasync(fd)
    } finally {
      files.close(fd)
    }
  }

  /** Number of the highest committed segment above `transaction`; undefined if there is none, as it should be. */
  committedAbove(transaction: number): number | undefined {
    for (const segment of this.#descending()) {
      if (segment <= transaction) return undefined
      if (this.isCommitted(segment)) return segment
    }
    return undefined
  }

  /** Removes what a repair that was killed left beside the segments: each may be as large as one. */
  removeTemporaries(): void {
    for (const name of directories(this.#folder)) {
      for (const file of readdirSync(join(this.#folder, name))) if (/^\d+-\w+\.tmp$/.test(file)) files.removeIfThere(join(this.#folder, name, file))
    }
  }

  /** Removes directories that became empty. That of `transaction` stays: Borg makes one only for its first segment. */
  removeEmptyFolders(transaction: number): void {
    const current = Math.floor(transaction / this.#perDirectory)
    let removed = false
    for (const name of directories(this.#folder)) {
      if (Number(name) >= current || readdirSync(join(this.#folder, name)).length > 0) continue
      files.removeDirectory(join(this.#folder, name))
      removed = true
    }
    if (removed) syncDirectory(this.#folder)
  }

  /** A file's content was replaced under its name. */
  forget(segment: number): void {
    this.#window.segment = -1
    this.#descriptors.forget(segment)
  }

  /** Forgets descriptors: files may have been replaced by another client. */
  closeReaders(): void {
    this.#window.segment = -1
    this.#descriptors.forgetAll()
  }

  close(): void {
    this.abandonEnd()
    this.closeReaders()
  }
}

/** Not the number of the inode alone: it is given to the next file as soon as one is gone. */
function identity({ ino, size, mtimeNs }: BigIntStats): string {
  return `${ino} ${size} ${mtimeNs}`
}

/** In the order of their numbers. */
function directories(folder: string): string[] {
  try {
    return readdirSync(folder).filter(name => /^\d+$/.test(name)).sort((a, b) => Number(a) - Number(b))
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return []
    throw error
  }
}
