/**
 * What can be saved of a damaged segment: from the magic on, every entry whose header is plausible and whose CRC fits is kept
 * (repository.md §7). Where an entry is damaged but the one behind it is sound, all of it is passed over; only where the chain is
 * broken every single byte is tried as a beginning. (Borg always tries every byte, and so takes entries for its own that lie within
 * a damaged value, as in the backup of a repository.)
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { idBytes, maxEntryBytes, putHeaderBytes } from '../constants.js'
import { crc32 } from '../crc32.js'
import { files } from '../platform/files.js'
import { replaceFile } from '../platform/save-file.js'
import { deleteBytes, headerBytes, magic, tagCommit, tagDelete, tagPut } from './entry.js'
import { RangeCrc } from './range-crc.js'
import type { SegmentEntries } from './segment-walk.js'

/** Room for the longest entry wherever it begins in the window's first part. */
const windowBytes = maxEntryBytes + (4 << 20)
const entriesAtOnce = 1 << 16
/** From then on ranges of more than the first are not gone through any more. */
const longBytes = 16 << 10, patientBytes = 256 << 20

class Window {
  readonly fileBytes: number
  readonly #fd: number
  readonly #bytes: Buffer
  #start = 0
  #length = 0
  /** Bytes of what turned out to be no entry. */
  #inVain = 0
  /** Of the bytes in hand, once it pays. */
  #crcs: RangeCrc | undefined

  constructor(fd: number) {
    this.#fd = fd
    this.fileBytes = fstatSync(fd).size
    this.#bytes = Buffer.allocUnsafeSlow(Math.min(windowBytes, Math.max(1, this.fileBytes)))
  }

  /** A view, valid until the next call. The range must lie within the file and be no longer than an entry. */
  view(offset: number, length: number): Buffer {
    if (offset < this.#start || offset + length > this.#start + this.#length) {
      this.#start = offset
      this.#length = 0
      this.#crcs = undefined
      const wanted = Math.min(this.#bytes.length, this.fileBytes - offset)
      while (this.#length < wanted) {
        const count = readSync(this.#fd, this.#bytes, this.#length, wanted - this.#length, offset + this.#length)
        if (count === 0) throw new Error(`a segment became shorter while it was read at ${offset + this.#length}`)
        this.#length += count
      }
    }
    return this.#bytes.subarray(offset - this.#start, offset - this.#start + length)
  }

  /** Length of the sound entry at `offset`, 0 if there is none. */
  entryAt(offset: number): number {
    if (offset + headerBytes > this.fileBytes) return 0
    const size = this.#plausibleSize(offset)
    if (size === 0) return 0
    const entry = this.view(offset, size)
    if (this.#crcOf(offset, entry) === entry.readUInt32LE(0)) return size
    this.#inVain += size
    return 0
  }

  /** Damage hardly ever looks like a long entry; a file can be made in which each byte begins one, so that their lengths must not count. */
  #crcOf(offset: number, entry: Buffer): number {
    if (entry.length < longBytes || this.#inVain < patientBytes) return crc32(entry.subarray(4))
    this.#crcs ??= new RangeCrc(this.#bytes.subarray(0, this.#length))
    const at = offset - this.#start
    return this.#crcs.of(at + 4, at + entry.length)
  }

  #plausibleSize(offset: number): number {
    const header = this.view(offset, headerBytes)
    const size = header.readUInt32LE(4)
    const tag = header[8]
    if (offset + size > this.fileBytes) return 0
    if (tag === tagPut) return size >= putHeaderBytes && size <= maxEntryBytes ? size : 0
    return (tag === tagDelete && size === deleteBytes) || (tag === tagCommit && size === headerBytes) ? size : 0
  }

  /** Where to go on behind the damaged entry at `offset`. */
  resume(offset: number): number {
    if (offset + headerBytes > this.fileBytes) return this.fileBytes
    const size = this.#plausibleSize(offset)
    const behind = offset + size
    return size > 0 && (behind === this.fileBytes || this.entryAt(behind) > 0) ? behind : offset + 1
  }
}

interface Kept {
  readonly offset: number
  readonly size: number
}

function* keptEntries(window: Window): Generator<Kept> {
  let offset = magic.length
  // Not even the magic and a COMMIT: nothing to look for (Borg).
  if (window.fileBytes < magic.length + headerBytes) return
  // Borg begins at byte 0 whatever it holds; a sound magic is no entry, so that beginning behind it finds the same.
  if (!window.view(0, magic.length).equals(magic)) offset = 0
  while (offset < window.fileBytes) {
    const size = window.entryAt(offset)
    if (size > 0) {
      yield { offset, size }
      offset += size
    } else offset = window.resume(offset)
  }
}

/**
 * Rewrites the file at `path` with the entries that are sound. The new file replaces the old one when it is durable: a crash
 * leaves either.
 */
export function salvageSegment(path: string): void {
  const source = openSync(path, 'r')
  try {
    const window = new Window(source)
    replaceFile(path, fd => {
      files.writeAll(fd, magic)
      // Neighbours are written together.
      let run = { offset: 0, size: 0 }
      const flush = (): void => files.writeAll(fd, window.view(run.offset, run.size))
      for (const { offset, size } of keptEntries(window)) {
        if (offset === run.offset + run.size && run.size + size <= maxEntryBytes) run = { offset: run.offset, size: run.size + size }
        else {
          if (run.size > 0) flush()
          run = { offset, size }
        }
      }
      if (run.size > 0) flush()
    })
  } finally {
    closeSync(source)
  }
}

/** What salvageSegment would keep, at the offsets where it lies now, in pieces of bounded size. Changes nothing. */
export function* salvageable(path: string): Generator<SegmentEntries> {
  const source = openSync(path, 'r')
  try {
    const window = new Window(source)
    let columns = emptyColumns()
    let count = 0
    const piece = (next: number): SegmentEntries => ({
      count, next, fileBytes: window.fileBytes,
      tags: columns.tags.subarray(0, count), ids: columns.ids.subarray(0, count * idBytes), offsets: columns.offsets.subarray(0, count), sizes: columns.sizes.subarray(0, count),
    })
    for (const { offset, size } of keptEntries(window)) {
      if (count === entriesAtOnce) {
        yield piece(offset)
        columns = emptyColumns()
        count = 0
      }
      const tag = window.view(offset, headerBytes)[8]!
      columns.tags[count] = tag
      if (tag !== tagCommit) columns.ids.set(window.view(offset + headerBytes, idBytes), count * idBytes)
      columns.offsets[count] = offset
      columns.sizes[count++] = size
    }
    yield piece(window.fileBytes)
  } finally {
    closeSync(source)
  }
}

function emptyColumns(): { tags: Uint8Array; ids: Uint8Array; offsets: Uint32Array; sizes: Uint32Array } {
  return { tags: new Uint8Array(entriesAtOnce), ids: new Uint8Array(entriesAtOnce * idBytes), offsets: new Uint32Array(entriesAtOnce), sizes: new Uint32Array(entriesAtOnce) }
}
