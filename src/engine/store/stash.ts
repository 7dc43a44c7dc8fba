/**
 * Chunks that wait outside the repository: whole PUT entries, sealed as the repository's own, in files of this client. What is staged for
 * an archive is made ready here while it arrives; at the commit the entries become the repository's as they are: whole files by a second
 * name where that can be, or else copied.
 *
 *   FOLDER/N   entries back to back, laid out as a segment file (repository.md §3). A file is written by one process only and never
 *              changed: what a killed process left is read from its beginning to the first entry that is not whole.
 *
 * The index is in memory: 44 bytes a chunk, outside the JavaScript heap. An entry is durable after sync().
 */
import { constants, fstatSync, readdirSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { idBytes, putHeaderBytes } from '../constants.js'
import { crc32 } from '../crc32.js'
import { IntegrityError } from '../errors.js'
import { HashTable, type SharedTable } from '../hashindex/hash-table.js'
import { type ChunkId, idHex } from '../ids.js'
import { InTurn } from '../in-turn.js'
import { files } from '../platform/files.js'
import { magic, tagPut, valueOf } from '../repository/entry.js'
import type { EntryFile } from '../repository/repository.js'
import { walkSegment } from '../repository/segment-walk.js'
import { AppendedFile } from './appended-file.js'

/** A file is given up when nothing in it is wanted any more, so they are not large. */
const maxFileBytes = 64 << 20
const maxRunBytes = 4 << 20
const maxEntriesOfFile = 1 << 20
/** More than fit into a file. An offset times this is an exact number. */
const manyEntries = 2 ** 22
/** Words of the index: file, offset, length of the entry. */
const fileWord = 0, offsetWord = 1, lengthWord = 2

export interface StashedEntry {
  readonly fd: number
  readonly offset: number
  /** Of the whole entry. */
  readonly length: number
}

interface StashFile {
  readonly fd: number
  bytes: number
  dirty: boolean
  /** A sync of it failed: the host may have given up what it had of it in memory, and a later sync would not say so. */
  doubtful: boolean
}

/** Of one run after the other. */
interface RunMemory {
  bytes: Buffer
}

/** The file that entries are appended to. */
interface CurrentFile {
  readonly number: number
  readonly file: StashFile
  readonly appended: AppendedFile
}

export class Stash {
  readonly folder: string
  readonly #index = new HashTable(3)
  readonly #files = new Map<number, StashFile>()
  #current: CurrentFile | undefined
  /** Entries are appended one after the other. */
  readonly #appends = new InTurn()
  readonly #syncs = new InTurn()
  #next = 1
  /** From here on they are this process' own. */
  readonly #firstOwn: number
  /** Jobs that read by descriptor, and descriptors to be closed when there is none. */
  #readers = 0
  readonly #toClose: number[] = []

  /** What an earlier process left is found again, and is durable from here on. Host errors. */
  constructor(folder: string) {
    this.folder = folder
    files.ensureDirectory(folder, 0o700)
    for (const number of readdirSync(folder).map(Number).filter(Number.isInteger).sort((a, b) => a - b)) this.#load(number)
    this.#firstOwn = this.#next
    if (this.#files.size > 0) files.syncDirectory(folder)
  }

  #load(number: number): void {
    this.#next = Math.max(this.#next, number + 1)
    const path = this.#path(number)
    const { count, tags, ids, offsets, sizes } = walkSegment({ path, segment: number, from: 0, limit: maxEntriesOfFile, checkCrc: true })
    if (count === 0) return files.remove(path)
    const fd = files.open(path, 'r')
    files.datasync(fd)
    let bytes = 0
    for (let index = 0; index < count; index++) {
      bytes = offsets[index]! + sizes[index]!
      if (tags[index] === tagPut) this.#index.set(ids.subarray(index * 32, index * 32 + 32), number, offsets[index]!, sizes[index]!)
    }
    this.#files.set(number, { fd, bytes, dirty: false, doubtful: false })
  }

  #path(number: number): string {
    return join(this.folder, String(number))
  }

  /** On disk. */
  get bytes(): number {
    let total = 0
    for (const { bytes } of this.#files.values()) total += bytes
    return total
  }

  get count(): number {
    return this.#index.size
  }

  has(id: ChunkId): boolean {
    return this.#index.has(id)
  }

  /** For other threads; stale when it grew. */
  shared(): SharedTable {
    return this.#index.shared()
  }

  /** Length of the object, as LocalRepository.storedSize. */
  storedSize(id: ChunkId): number | undefined {
    const bucket = this.#index.find(id)
    return bucket < 0 ? undefined : this.#index.value(bucket, lengthWord) - putHeaderBytes
  }

  /** For a job of another thread, within `reading`. */
  locate(id: ChunkId): StashedEntry | undefined {
    const bucket = this.#index.find(id)
    if (bucket < 0) return undefined
    return { fd: this.#files.get(this.#index.value(bucket, fileWord))!.fd, offset: this.#index.value(bucket, offsetWord), length: this.#index.value(bucket, lengthWord) }
  }

  /** Descriptors that `work` got from locate stay open until it has ended. */
  async reading<T>(work: () => Promise<T>): Promise<T> {
    this.#readers++
    try {
      return await work()
    } finally {
      if (--this.#readers === 0) for (const fd of this.#toClose.splice(0)) files.close(fd)
    }
  }

  /** The object of an entry; undefined if there is none. SegmentError if it is damaged. */
  get(id: ChunkId): Buffer | undefined {
    const place = this.locate(id)
    if (!place) return undefined
    return valueOf(readAt(place.fd, place.offset, place.length), id, 0, place.offset)
  }

  /**
   * Whole entries back to back; those of ids that are here are left out. Host errors: then none of them came. The memory is the caller's, who
   * leaves it alone until the end.
   */
  append(entries: Uint8Array, ids: readonly ChunkId[], lengths: ArrayLike<number>): Promise<void> {
    return this.#appends.run(() => {
      if (!ids.some(id => this.#index.has(id))) return this.#append(entries, ids, lengths)
      const { bytes, left } = this.#without(entries, ids, lengths)
      return left.length === 0 ? undefined : this.#append(bytes, left.map(({ id }) => id), left.map(({ length }) => length))
    })
  }

  /** What is not here yet: it came with an append that was not over when this one was asked for. */
  #without(entries: Uint8Array, ids: readonly ChunkId[], lengths: ArrayLike<number>): { bytes: Buffer; left: { readonly id: ChunkId; readonly length: number }[] } {
    const parts: Uint8Array[] = [], left: { readonly id: ChunkId; readonly length: number }[] = []
    let at = 0
    for (const [index, id] of ids.entries()) {
      const length = lengths[index]!
      if (!this.#index.has(id)) {
        parts.push(entries.subarray(at, at + length))
        left.push({ id, length })
      }
      at += length
    }
    return { bytes: Buffer.concat(parts), left }
  }

  async #append(entries: Uint8Array, ids: readonly ChunkId[], lengths: ArrayLike<number>): Promise<void> {
    if (this.#current && this.#current.file.bytes + entries.length > maxFileBytes) this.#finish()
    const { number, file, appended } = this.#current ??= this.#begin()
    try {
      await appended.append(entries, file.bytes)
    } catch (error) {
      // What was written of it is not read, and cut off if the disk lets us; the next entries go to a new file.
      this.#finish()
      if (file.bytes > magic.length) files.truncateOpen(file.fd, file.bytes)
      else this.#remove(number, file)
      throw error
    }
    let offset = file.bytes
    for (const [index, id] of ids.entries()) {
      this.#index.set(id, number, offset, lengths[index]!)
      offset += lengths[index]!
    }
    file.bytes = offset
    file.dirty = true
  }

  #begin(): CurrentFile {
    const number = this.#next++
    const path = this.#path(number)
    const fd = files.open(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL)
    try {
      files.writeAll(fd, magic, 0)
    } catch (error) {
      files.close(fd)
      files.remove(path)
      throw error
    }
    const file = { fd, bytes: magic.length, dirty: true, doubtful: false }
    this.#files.set(number, file)
    return { number, file, appended: new AppendedFile(path, fd) }
  }

  #finish(): void {
    this.#current?.appended.close()
    this.#current = undefined
  }

  /** Makes everything durable that was appended. Host errors; IntegrityError once the host has lost something. */
  sync(): Promise<void> {
    // One after the other: what another one is about passes for durable before it is.
    return this.#syncs.run(() => this.#sync())
  }

  async #sync(): Promise<void> {
    for (const [number, file] of [...this.#files]) if (file.doubtful) await this.#appends.run(() => this.#renew(number, file))
    for (const [number, file] of this.#files) {
      if (!file.dirty) continue
      file.dirty = false
      try {
        await this.reading(() => files.datasyncLater(file.fd))
      } catch (error) {
        file.dirty = file.doubtful = true
        // Nothing more goes to it, once what is just being written has come to an end.
        await this.#appends.run(() => this.#current?.number === number && this.#finish())
        throw error
      }
      this.#unnamed = true
    }
    // Also those of a sync before this one, which failed further on.
    if (this.#unnamed) files.syncDirectory(this.folder)
    this.#unnamed = false
  }
  /** Files are durable whose names may not be. */
  #unnamed = false

  /** Writes what is in a doubtful file anew, to another one, if it is whole. Somebody may have removed it meanwhile. */
  async #renew(number: number, file: StashFile): Promise<void> {
    if (this.#files.get(number) !== file) return
    const buckets = this.#bucketsOf(() => true).get(number)!.buckets
    for (const { bytes, ids, lengths } of this.#runsOf(file, buckets)) await this.#append(bytes, ids, lengths)
    this.#remove(number, file)
  }

  /** By file, the buckets of its entries that are asked for, and whether there are others. Small numbers only: there may be millions. */
  #bucketsOf(isWanted: (id: Uint8Array) => boolean): Map<number, { readonly buckets: number[]; bytes: number; hasOthers: boolean }> {
    const found = new Map<number, { readonly buckets: number[]; bytes: number; hasOthers: boolean }>()
    for (const number of this.#files.keys()) found.set(number, { buckets: [], bytes: 0, hasOthers: false })
    const id = Buffer.alloc(idBytes)
    for (const bucket of this.#index.buckets()) {
      const file = found.get(this.#index.value(bucket, fileWord))!
      this.#index.copyId(bucket, id)
      if (isWanted(id)) {
        file.buckets.push(bucket)
        file.bytes += this.#index.value(bucket, lengthWord)
      } else file.hasOthers = true
    }
    return found
  }

  /** Durable files of at least `minBytes` in which every entry is wanted: nothing is written to them any more. The stash must not grow meanwhile. */
  *wholeFiles(isWanted: (id: Uint8Array) => boolean, minBytes: number): Generator<EntryFile> {
    for (const [number, { buckets, bytes: entryBytes, hasOthers }] of this.#bucketsOf(isWanted)) {
      const file = this.#files.get(number)!
      const bytes = magic.length + entryBytes
      if (hasOthers || file.bytes < minBytes || file.dirty || file.doubtful) continue
      // Nothing else stands there: neither an entry that another file has as well, nor what a failed or a killed process left behind the last.
      if (bytes !== file.bytes || fstatSync(file.fd).size !== bytes) continue
      if (this.#current?.number === number) this.#finish()
      yield { path: this.#path(number), bytes, ids: buckets.map(bucket => this.#index.idAt(bucket)), offsets: buckets.map(bucket => this.#index.value(bucket, offsetWord)) }
    }
  }

  /**
   * The entries that are wanted, in the order in which they lie on disk, in runs of bounded size; each entry was compared with its CRC.
   * IntegrityError, host errors. A run's memory is used again for the next one. The stash must not grow meanwhile.
   */
  *runs(isWanted: (id: Uint8Array) => boolean): Generator<{ bytes: Buffer; ids: ChunkId[]; lengths: number[] }> {
    const memory: RunMemory = { bytes: Buffer.alloc(0) }
    for (const [number, { buckets }] of this.#bucketsOf(isWanted)) yield* this.#runsOf(this.#files.get(number)!, buckets, memory)
  }

  *#runsOf({ fd }: StashFile, buckets: readonly number[], memory: RunMemory = { bytes: Buffer.alloc(0) }): Generator<{ bytes: Buffer; ids: ChunkId[]; lengths: number[] }> {
    // The offset, and which of the buckets it is, in one number, which sorts without objects.
    const order = Float64Array.from(buckets, (bucket, index) => this.#index.value(bucket, offsetWord) * manyEntries + index).sort()
    const bucketAt = (index: number): number => buckets[order[index]! % manyEntries]!
    const offsetAt = (index: number): number => Math.floor(order[index]! / manyEntries)
    const lengthAt = (index: number): number => this.#index.value(bucketAt(index), lengthWord)
    for (let first = 0; first < order.length; ) {
      const start = offsetAt(first)
      let last = first + 1, end = start + lengthAt(first)
      for (; last < order.length && offsetAt(last) === end && end + lengthAt(last) - start <= maxRunBytes; last++) end += lengthAt(last)
      if (memory.bytes.length < end - start) memory.bytes = Buffer.allocUnsafeSlow(Math.max(maxRunBytes, end - start))
      const bytes = memory.bytes.subarray(0, end - start)
      readInto(fd, start, bytes)
      const ids: ChunkId[] = [], lengths: number[] = []
      for (let index = first; index < last; index++) {
        const id = this.#index.idAt(bucketAt(index)), length = lengthAt(index), from = offsetAt(index) - start
        const entry = bytes.subarray(from, from + length)
        if (entry.readUInt32LE(4) !== length || entry[8] !== tagPut || !id.equals(entry.subarray(9, putHeaderBytes)) || crc32(entry.subarray(4)) !== entry.readUInt32LE(0)) {
          throw new IntegrityError(`chunk ${idHex(id)} is damaged in the staging folder`)
        }
        ids.push(id)
        lengths.push(length)
      }
      yield { bytes, ids, lengths }
      first = last
    }
  }

  /** Removes the files in which nothing is wanted; `own`: of those that this process made. */
  keep(isWanted: (id: ChunkId) => boolean, own: boolean): void {
    if (this.#files.size === 0) return
    const wanted = new Set<number>()
    for (const bucket of this.#index.buckets()) {
      const number = this.#index.value(bucket, fileWord)
      if (!wanted.has(number) && isWanted(this.#index.idAt(bucket))) wanted.add(number)
    }
    const gone = [...this.#files].filter(([number]) => !wanted.has(number) && (!own || number >= this.#firstOwn))
    if (gone.length === 0) return
    const numbers = new Set(gone.map(([number]) => number))
    const ids = [...this.#index.entries()].filter(({ bucket }) => numbers.has(this.#index.value(bucket, fileWord))).map(({ id }) => id)
    for (const id of ids) this.#index.delete(id)
    for (const [number, file] of gone) this.#remove(number, file)
  }

  #remove(number: number, file: StashFile): void {
    this.#files.delete(number)
    if (this.#current?.number === number) this.#finish()
    if (this.#readers > 0) this.#toClose.push(file.fd)
    else files.close(file.fd)
    files.removeIfThere(this.#path(number))
  }

  close(): void {
    this.#finish()
    for (const { fd } of this.#files.values()) files.close(fd)
    this.#files.clear()
  }
}

function readAt(fd: number, offset: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length)
  readInto(fd, offset, bytes)
  return bytes
}

function readInto(fd: number, position: number, into: Uint8Array): void {
  for (let done = 0; done < into.length; ) {
    const count = readSync(fd, into, done, into.length - done, position + done)
    if (count === 0) throw new IntegrityError('a file of the staging folder is shorter than it was')
    done += count
  }
}
