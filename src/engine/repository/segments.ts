/**
 * The log of numbered segment files (repository.md §3): reading by position, and which of them are committed. Its files are the
 * `folder`'s, its end is the `writer`'s.
 */
import { readSync } from 'node:fs'
import { join } from 'node:path'
import { errnoOf } from '../errors.js'
import { idBytes, putHeaderBytes } from '../constants.js'
import { commitEntry, headerBytes, magic, readHeader, tagCommit, tagPut } from './entry.js'
import { SegmentError } from './errors.js'
import { SegmentDescriptors, type SegmentLease } from './segment-descriptors.js'
import { SegmentFolder } from './segment-folder.js'
import { type SegmentEntries, walkSegment } from './segment-walk.js'
import { SegmentWriter } from './segment-writer.js'
import { native } from '../native.js'

/** 41 bytes each. */
const entriesAtOnce = 1 << 16
const windowBytes = 1 << 16
/** Shorter segments are always read through to see whether they are sound. */
const longBytes = 1 << 20
/** Read at once where headers do not follow each other. */
const strayBytes = 1 << 12

export class Segments {
  readonly folder: SegmentFolder
  readonly writer: SegmentWriter
  readonly #descriptors = new SegmentDescriptors(segment => this.folder.pathOf(segment))
  readonly #window = { segment: -1, start: 0, length: 0, bytes: Buffer.allocUnsafeSlow(windowBytes) }

  constructor(repositoryFolder: string, options: { segmentsPerDir: number; maxSegmentSize: number }) {
    this.folder = new SegmentFolder(join(repositoryFolder, 'data'), options.segmentsPerDir)
    this.writer = new SegmentWriter(this.folder, options.maxSegmentSize, () => (this.#window.segment = -1))
  }

  /** Bytes of a segment file, those included that are not written yet; 0 if it is missing. */
  size(segment: number): number {
    const { end } = this.writer
    return end?.segment === segment ? end.offset : this.folder.size(segment)
  }

  // --- reading ---

  /** For one positional read, at once. What is still buffered is written first. */
  #descriptor(segment: number): number {
    if (this.writer.end?.segment === segment) this.writer.flush()
    return this.#descriptors.borrow(segment)
  }

  /** Descriptors for a job of another thread; see SegmentDescriptors.leased. What is still buffered is written first. */
  leased<T>(work: (lease: SegmentLease) => Promise<T>): Promise<T> {
    return this.#descriptors.leased(lease => {
      this.writer.flush()
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
    if (this.writer.end?.segment === segment) this.writer.flush()
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
    this.writer.flush()
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
      entries = walkSegment({ path: this.folder.pathOf(segment), segment, from, limit: entriesAtOnce, checkCrc: from === 0 && options.checkCrc !== false })
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
    for (const segment of this.folder.descending()) {
      const long = segment === known && this.size(segment) > longBytes
      if (long ? this.#endsWithCommit(segment) : this.isCommitted(segment)) return segment
    }
    return -1
  }

  #endsWithCommit(segment: number): boolean {
    const bytes = this.size(segment)
    return bytes >= magic.length + commitEntry.length && this.read(segment, bytes - commitEntry.length, commitEntry.length).equals(commitEntry)
  }

  // --- COMMITs that are to be no more, and what is above the last one ---

  /**
   * For a COMMIT, by the number that commit() gave, that was written when the lock was held no more: what it commits may have been removed
   * by another client. True if that has seen it, built on it and left it whole: it stands. Else it is taken back.
   */
  standsOrWithdrawn(transaction: number): boolean {
    if (this.committedAbove(transaction) !== undefined) return this.writer.allOurs
    if (!this.writer.isOurs(transaction)) return false
    this.writer.unmake(transaction)
    this.remove(transaction)
    this.folder.syncRemovals()
    return false
  }

  /** Removes what an aborted transaction left above `transaction`, highest first. */
  removeAbove(transaction: number): void {
    for (const segment of this.folder.descending()) {
      if (segment <= transaction) break
      this.remove(segment)
    }
    this.writer.startAt(transaction + 1)
  }

  /** Number of the highest committed segment above `transaction`; undefined if there is none, as it should be. */
  committedAbove(transaction: number): number | undefined {
    for (const segment of this.folder.descending()) {
      if (segment <= transaction) return undefined
      if (this.isCommitted(segment)) return segment
    }
    return undefined
  }

  /** Deletes a file; see SegmentFolder.remove. */
  remove(segment: number): void {
    this.forget(segment)
    this.folder.remove(segment)
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
    this.writer.abandon()
    this.closeReaders()
  }
}
