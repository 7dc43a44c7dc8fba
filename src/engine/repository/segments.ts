/** The log of numbered segment files (repository.md §3): appending under Borg's rules, reading by position. */
import { closeSync, fstatSync, openSync, readdirSync, readSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { crc32 } from 'node:zlib'
import { LRUCache } from 'lru-cache'
import { errnoOf } from '../errors.js'
import { files } from '../platform/files.js'
import { syncDirectory } from '../platform/save-file.js'
import { idBytes, putHeaderBytes } from '../constants.js'
import { commitEntry, headerBytes, keyAt, magic, readHeader, tagCommit, tagPut, type EntryHeader } from './entry.js'
import { SegmentError } from './errors.js'
import type { ChunkId } from '../ids.js'
import { native } from '../native.js'

const maxOpenSegments = 64
/** Small entries gather up to this many bytes before they are written. */
const bufferBytes = 1 << 20
const scanBytes = 1 << 20
const windowBytes = 1 << 16
const writebackBytes = 16 << 20

/** One entry met by a scan. The value is a view that the next step overwrites. */
export interface ScannedEntry extends EntryHeader {
  readonly offset: number
  readonly id: ChunkId | undefined
}

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
  readonly #open = new LRUCache<number, number>({ max: maxOpenSegments, dispose: fd => closeSync(fd) })
  #end: WriteEnd | undefined
  readonly #window = { segment: -1, start: 0, length: 0, bytes: Buffer.allocUnsafeSlow(windowBytes) }
  readonly #pending: Uint8Array[] = []
  #pendingBytes = 0
  /** Number of the next segment file to begin. */
  next = 0

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
    const found: number[] = []
    for (const name of directories(this.#folder)) {
      for (const segment of this.#filesIn(name)) if (segment > after) found.push(segment)
    }
    return found.filter(segment => this.size(segment) > 0)
  }

  /**
   * Numbers of all segment files, highest first, directory by directory: whoever only wants the end of the log looks at that.
   * Empty ones included: what a full disk leaves when not even the magic could be written.
   */
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

  /** Descriptor for positional reads; stays the property of this object. What is still buffered is written first. */
  descriptor(segment: number): number {
    if (this.#end?.segment === segment) this.flush()
    let fd = this.#open.get(segment)
    if (fd === undefined) {
      fd = openSync(this.path(segment), 'r')
      this.#open.set(segment, fd)
    }
    return fd
  }

  /** `length` bytes at `offset`. SegmentError if the file is missing or ends before. */
  read(segment: number, offset: number, length: number): Buffer {
    const bytes = Buffer.allocUnsafe(length)
    let done = 0
    try {
      const fd = this.descriptor(segment)
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
      window.segment = segment
      window.start = offset
      window.length = readSync(this.descriptor(segment), window.bytes, 0, window.bytes.length, offset)
      at = 0
      if (window.length < headerBytes) {
        window.segment = -1
        throw new SegmentError('Segment entry header short read', segment, offset)
      }
    }
    return window.bytes.readUInt32LE(at + 4)
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

  /** Walks a segment file. SegmentError at the first thing that is not as it should be. Values are CRC-checked. */
  *scan(segment: number): Generator<ScannedEntry> {
    const fd = openSync(this.path(segment), 'r')
    try {
      const fileBytes = fstatSync(fd).size
      let window = Buffer.alloc(0)
      let windowStart = 0
      const need = (offset: number, length: number): Buffer => {
        if (offset + length > fileBytes) throw new SegmentError('Segment entry data short read', segment, offset)
        if (offset < windowStart || offset + length > windowStart + window.length) {
          window = Buffer.allocUnsafe(Math.min(fileBytes - offset, Math.max(scanBytes, length)))
          windowStart = offset
          for (let done = 0; done < window.length; ) {
            const count = readSync(fd, window, done, window.length - done, offset + done)
            if (count === 0) throw new SegmentError('Segment entry data short read', segment, offset)
            done += count
          }
        }
        return window.subarray(offset - windowStart, offset - windowStart + length)
      }
      if (fileBytes < magic.length || !need(0, magic.length).equals(magic)) throw new SegmentError('Invalid segment magic', segment, 0)
      for (let offset = magic.length; offset < fileBytes; ) {
        const header = readHeader(need(offset, headerBytes), 0, segment, offset)
        const entry = need(offset, header.size)
        if (crc32(entry.subarray(4)) !== header.crc) throw new SegmentError('Segment entry checksum mismatch', segment, offset)
        yield { ...header, offset, id: header.tag === tagCommit ? undefined : keyAt(entry, 0) }
        offset += header.size
      }
    } finally {
      closeSync(fd)
    }
  }

  /** Whether the file ends with a COMMIT, is sound, and has nothing but COMMITs after the first one. */
  isCommitted(segment: number): boolean {
    try {
      if (!this.#endsWithCommit(segment)) return false
      let committed = false
      for (const entry of this.scan(segment)) {
        if (entry.tag === tagCommit) committed = true
        else if (committed) return false
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
      const long = segment === known && this.size(segment) > scanBytes
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
    if (this.#end && (this.#end.offset > this.#maxSize || (options.newSegment && this.#end.offset > magic.length))) this.closeEnd()
    this.#end ??= this.#begin()
    return { segment: this.#end.segment, offset: this.#end.offset }
  }

  /** Appends bytes at position(). They are kept by reference until flushed: `copy` unless they will not change. */
  append(bytes: Uint8Array, options: { copy: boolean }): void {
    const end = this.#end!
    this.#pending.push(options.copy ? Buffer.from(bytes) : bytes)
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
    const segment = this.next++
    const path = this.path(segment)
    const folder = dirname(path)
    try {
      files.makeDirectory(folder)
      syncDirectory(this.#folder)
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error
    }
    const fd = files.open(path, 'ax')
    files.writeAll(fd, magic)
    return { segment, fd, path, offset: magic.length, startedWriteback: 0 }
  }

  /** Makes the file in hand durable, with its name. */
  closeEnd(): void {
    if (!this.#end) return
    const end = this.#end
    try {
      this.flush()
      files.datasync(end.fd)
      // A backup is rarely read soon: its pages need not push others out (Borg does the same).
      if (end.offset > bufferBytes) native().dropCache(end.fd, 0, end.offset)
    } finally {
      this.#end = undefined
      files.close(end.fd)
    }
    syncDirectory(dirname(end.path))
  }

  /** The final COMMIT, in a segment of its own, after everything else is durable. Returns its number, the transaction id. */
  commit(): number {
    this.closeEnd()
    const { segment } = this.position()
    this.append(commitEntry, { copy: false })
    this.closeEnd()
    return segment
  }

  /** Drops what was not written yet; what was written lies above the last transaction and counts for nothing. */
  abandonEnd(): void {
    this.#pending.length = 0
    this.#pendingBytes = 0
    if (!this.#end) return
    const fd = this.#end.fd
    this.#end = undefined
    files.close(fd)
  }

  /** Deletes a file: emptied first, so that a name that comes back after a crash holds nothing. */
  remove(segment: number): void {
    this.#open.delete(segment)
    this.#window.segment = -1
    try {
      files.truncate(this.path(segment), 0)
      files.remove(this.path(segment))
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error
    }
  }

  /** Removes what an aborted transaction left above `transaction`, highest first. */
  removeAbove(transaction: number): void {
    for (const segment of this.#descending()) {
      if (segment <= transaction) break
      this.remove(segment)
    }
    this.next = transaction + 1
  }

  /** Forgets descriptors: files may have been replaced by another client. */
  closeReaders(): void {
    this.#window.segment = -1
    this.#open.clear()
  }

  close(): void {
    this.abandonEnd()
    this.closeReaders()
  }
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
