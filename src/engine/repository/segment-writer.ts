/**
 * Appends to the log under Borg's rules (repository.md §3): when a file begins, and what is durable before what. A full file is made durable, with its
 * name, before the next one begins; short ones wait, so that the disk is asked once for all of them. Before the COMMIT that is about them all are.
 */
import { type BigIntStats, fstatSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { errnoOf } from '../errors.js'
import { native } from '../native.js'
import { files } from '../platform/files.js'
import { syncDirectory } from '../platform/save-file.js'
import { commitEntry, magic } from './entry.js'
import { giveSecondName } from './second-name.js'
import type { SegmentFolder } from './segment-folder.js'

/** Small entries gather up to this many bytes before they are written. */
const bufferBytes = 1 << 20
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

export class SegmentWriter {
  readonly #folder: SegmentFolder
  readonly #maxSize: number
  readonly #emptied: (segment: number) => void
  #end: WriteEnd | undefined
  readonly #pending: Uint8Array[] = []
  #pendingBytes = 0
  /**
   * Why something that was appended is not in its file, or not on the disk. Perhaps a reader was told, who flushes as well, and not who appended it. Nothing is
   * appended or committed until abandon().
   */
  #failure: { readonly error: unknown } | undefined
  /** Short files that are complete, but not durable yet. */
  readonly #left: WriteEnd[] = []
  readonly #durableFolders = new Set<string>()
  /** Files written since the last COMMIT that was confirmed, as they were when they were finished. */
  readonly #finished = new Map<number, string>()
  /** Number of the next file to begin. */
  #next = 0
  /** Asked before a file is begun; throws if nothing may be written. */
  guard: () => void = () => undefined

  /** `emptied` is told of a file that has no content any more, for who remembers some. */
  constructor(folder: SegmentFolder, maxSegmentSize: number, emptied: (segment: number) => void) {
    this.#folder = folder
    this.#maxSize = maxSegmentSize
    this.#emptied = emptied
  }

  /** The file in hand. `offset`: its bytes, those included that are not flushed. */
  get end(): { readonly segment: number; readonly offset: number } | undefined {
    return this.#end
  }

  /** The next file to begin is this. What was written before is nobody's concern any more. */
  startAt(segment: number): void {
    this.#finished.clear()
    this.#next = segment
  }

  /** Where the next entry will stand. Begins a new file where the rules want one. */
  position(options: { newSegment?: boolean } = {}): { segment: number; offset: number } {
    if (this.#failure) throw this.#failure.error
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
    try {
      files.writeAllOf(end.fd, parts)
    } catch (error) {
      this.#failure ??= { error }
      throw error
    }
    // The disk begins early, so that making the segment durable does not wait for all of it at once.
    if (end.offset - end.startedWriteback >= writebackBytes) {
      native().dropCache(end.fd, end.startedWriteback, end.offset - end.startedWriteback)
      end.startedWriteback = end.offset
    }
  }

  #begin(): WriteEnd {
    const { segment, path } = this.#nextFile()
    const fd = this.#asNew(() => files.open(path, 'ax'))
    try {
      files.writeAll(fd, magic)
    } catch (error) {
      // A file without its beginning must not be among those that are committed.
      this.#failure ??= { error }
      files.close(fd)
      throw error
    }
    return { segment, fd, path, offset: magic.length, startedWriteback: 0 }
  }

  /** Its number, which is taken from here on; its folder is there. */
  #nextFile(): { segment: number; path: string } {
    this.guard()
    const segment = this.#next++
    const path = this.#folder.pathOf(segment)
    const folder = dirname(path)
    if (!this.#durableFolders.has(folder)) {
      try {
        files.makeDirectory(folder)
      } catch (error) {
        if (errnoOf(error) !== 'EEXIST') throw error
      }
      // Also one that is there: who made it may have been killed before its name was durable.
      syncDirectory(this.#folder.path)
      this.#durableFolders.add(folder)
    }
    return { segment, path }
  }

  /**
   * Makes a whole file of `bytes` bytes the next one of the log, by a second name. Its content must not change any more; the COMMIT waits for it
   * as for what was appended. Its number; undefined if its entries have to be appended instead.
   */
  adopt(file: string, bytes: number): number | undefined {
    if (this.#end) this.#leaveEnd()
    const { segment, path } = this.#nextFile()
    if (!this.#asNew(() => giveSecondName(file, path))) {
      this.#next = segment
      return undefined
    }
    this.#left.push({ segment, fd: files.open(path, 'r'), path, offset: bytes, startedWriteback: bytes })
    return segment
  }

  #asNew<T>(make: () => T): T {
    try {
      return make()
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
      for (const folder of new Set(ends.map(({ path }) => dirname(path)))) syncDirectory(folder)
    } catch (error) {
      this.#failure ??= { error }
      throw error
    } finally {
      this.#end = undefined
      for (const { fd } of ends) files.close(fd)
    }
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
    if (this.#failure) throw this.#failure.error
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
        this.unmake(segment)
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

  /** Whether a file that was written since the last confirm() is still what was written: under its name there may be another client's. */
  isOurs(segment: number): boolean {
    const found = statSync(this.#folder.pathOf(segment), { bigint: true, throwIfNoEntry: false })
    return found !== undefined && identity(found) === this.#finished.get(segment)
  }

  /** Whether all of them are. */
  get allOurs(): boolean {
    return [...this.#finished.keys()].every(segment => this.isOurs(segment))
  }

  /** Drops what was not written yet; what was written lies above the last transaction and counts for nothing. */
  abandon(): void {
    this.#pending.length = 0
    this.#pendingBytes = 0
    this.#failure = undefined
    const ends = [...this.#left.splice(0), ...(this.#end ? [this.#end] : [])]
    this.#end = undefined
    for (const { fd } of ends) files.close(fd)
  }

  /** Empties a file, durably: what it commits, if anything, is committed no more. */
  unmake(segment: number): void {
    this.#emptied(segment)
    const fd = files.open(this.#folder.pathOf(segment), 'r+')
    try {
      files.truncateOpen(fd, 0)
      files.datasync(fd)
    } finally {
      files.close(fd)
    }
  }
}

/** Not the number of the inode alone: it is given to the next file as soon as one is gone. */
function identity({ ino, size, mtimeNs }: BigIntStats): string {
  return `${ino} ${size} ${mtimeNs}`
}
