/**
 * One pass over a segment file (repository.md §3): every header, size, tag and CRC, in the order of the file, in a window of
 * fixed size. What it finds comes in columns, which other threads hand over without a copy. Used by check, by replay and by
 * compaction's bookkeeping; knows nothing of indexes.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { idBytes, maxEntryBytes, putHeaderBytes } from '../constants.js'
import { crc32 } from '../crc32.js'
import { deleteBytes, headerBytes, magic, tagCommit, tagDelete, tagPut } from './entry.js'
import { SegmentError } from './errors.js'

const windowBytes = 256 << 10
const magicText = magic.toString('latin1')

export interface SegmentEntries {
  readonly count: number
  readonly tags: Uint8Array
  /** 32 bytes for each entry; zeros for a COMMIT. */
  readonly ids: Uint8Array
  readonly offsets: Uint32Array
  /** Of whole entries. */
  readonly sizes: Uint32Array
  /** Where the columns end; the length of the file if they hold all its entries. */
  readonly next: number
  readonly fileBytes: number
  /** Sentence of the first damage, as Borg says it; then the entries are those before it. */
  readonly damage?: string
}

export interface WalkJob {
  readonly path: string
  readonly segment: number
  /** Offset of the first entry wanted; 0 checks the magic as well. */
  readonly from: number
  /** Entries at most in the columns. With `checkCrc` the rest of the file is verified all the same. */
  readonly limit: number
  readonly checkCrc: boolean
}

/** An error of the disk on its way between threads. */
export interface WalkFailed {
  readonly failed: string
  readonly code: string | undefined
  readonly path: string | undefined
}

/** Columns that grow. */
class Columns {
  #capacity: number
  count = 0
  tags: Uint8Array
  ids: Uint8Array
  offsets: Uint32Array
  sizes: Uint32Array

  constructor(capacity: number) {
    this.#capacity = capacity
    this.tags = new Uint8Array(capacity)
    this.ids = new Uint8Array(capacity * idBytes)
    this.offsets = new Uint32Array(capacity)
    this.sizes = new Uint32Array(capacity)
  }

  /** The key is entered at once: the window that holds it may be gone when the entry turns out to be sound. */
  note(tag: number, id: Uint8Array | undefined, offset: number, size: number): void {
    if (this.count === this.#capacity) this.#grow()
    this.tags[this.count] = tag
    if (id) this.ids.set(id, this.count * idBytes)
    this.offsets[this.count] = offset
    this.sizes[this.count] = size
  }

  #grow(): void {
    const old = { tags: this.tags, ids: this.ids, offsets: this.offsets, sizes: this.sizes }
    this.#capacity *= 2
    this.tags = new Uint8Array(this.#capacity)
    this.ids = new Uint8Array(this.#capacity * idBytes)
    this.offsets = new Uint32Array(this.#capacity)
    this.sizes = new Uint32Array(this.#capacity)
    this.tags.set(old.tags)
    this.ids.set(old.ids)
    this.offsets.set(old.offsets)
    this.sizes.set(old.sizes)
  }
}

/** Damage is part of the answer, errors of the disk are thrown. Blocks the thread it runs in. */
export function walkSegment(job: WalkJob): SegmentEntries {
  const fd = openSync(job.path, 'r')
  try {
    return new Walk(fd, job).run()
  } finally {
    closeSync(fd)
  }
}

class Walk {
  readonly #fd: number
  readonly #job: WalkJob
  readonly #fileBytes: number
  readonly #window = Buffer.allocUnsafeSlow(windowBytes)
  #start = 0
  #length = 0

  constructor(fd: number, job: WalkJob) {
    this.#fd = fd
    this.#job = job
    this.#fileBytes = fstatSync(fd).size
  }

  run(): SegmentEntries {
    const { from, limit, checkCrc } = this.#job
    const fileBytes = this.#fileBytes
    const columns = new Columns(Math.min(limit, 1024))
    let offset = from
    let next: number | undefined
    let damage: string | undefined
    try {
      if (from === 0) {
        this.#fill(0)
        if (this.#window.toString('latin1', 0, Math.min(magic.length, this.#length)) !== magicText) this.#fail('Invalid segment magic', 0)
        offset = magic.length
      }
      while (offset < fileBytes) {
        if (columns.count === limit) {
          next ??= offset
          if (!checkCrc) break
        }
        const size = this.#entry(offset, next === undefined ? columns : undefined)
        if (next === undefined) columns.count++
        offset += size
      }
    } catch (error) {
      if (!(error instanceof SegmentError)) throw error
      damage = error.message
    }
    const { count, tags, ids, offsets, sizes } = columns
    return {
      count, tags: tags.subarray(0, count), ids: ids.subarray(0, count * idBytes), offsets: offsets.subarray(0, count), sizes: sizes.subarray(0, count),
      next: next ?? offset, fileBytes, ...(damage === undefined ? {} : { damage }),
    }
  }

  /** Size of the sound entry at `offset`. SegmentError with the sentences and in the order of Borg. */
  #entry(offset: number, columns: Columns | undefined): number {
    if (offset + putHeaderBytes > this.#start + this.#length && this.#start + this.#length < this.#fileBytes) this.#fill(offset)
    const at = offset - this.#start
    const window = this.#window
    if (this.#length - at < headerBytes) this.#fail('Invalid segment entry header', offset, `: unpack requires a buffer of ${headerBytes} bytes`)
    const crc = window.readUInt32LE(at)
    const size = window.readUInt32LE(at + 4)
    const tag = window[at + 8]!
    if (size > maxEntryBytes) this.#fail(`Invalid segment entry size ${size} - too big`, offset)
    if (size < headerBytes) this.#fail(`Invalid segment entry size ${size} - too small`, offset)
    if (offset + size > this.#fileBytes) {
      this.#fail('Segment entry data short read', offset, `: expected ${size - headerBytes}, got ${this.#fileBytes - offset - headerBytes} bytes`)
    }
    // With its key in the window: what comes after the header belongs to this entry, if it is long enough.
    columns?.note(tag, tag === tagCommit || size < putHeaderBytes ? undefined : window.subarray(at + headerBytes, at + putHeaderBytes), offset, size)
    if (this.#job.checkCrc && this.#crc(offset, size) !== crc) this.#fail('Segment entry checksum mismatch', offset)
    if (tag !== tagPut && tag !== tagDelete && tag !== tagCommit) this.#fail('Invalid segment entry header, did not get acceptable tag', offset)
    if ((tag === tagCommit && size !== headerBytes) || (tag === tagDelete && size !== deleteBytes) || (tag === tagPut && size < putHeaderBytes)) {
      // Borg writes none of these; with a good CRC they are somebody's malice.
      this.#fail(`Invalid segment entry size ${size} of tag ${tag}`, offset)
    }
    return size
  }

  /** CRC of the entry without its CRC field; slides the window along. */
  #crc(offset: number, size: number): number {
    const end = offset + size
    let position = offset + 4
    let crc = 0
    while (position < end) {
      if (position >= this.#start + this.#length) this.#fill(position)
      const stop = Math.min(end, this.#start + this.#length)
      crc = crc32(this.#window.subarray(position - this.#start, stop - this.#start), crc)
      position = stop
    }
    return crc
  }

  #fill(position: number): void {
    this.#start = position
    this.#length = 0
    const wanted = Math.min(windowBytes, this.#fileBytes - position)
    while (this.#length < wanted) {
      const count = readSync(this.#fd, this.#window, this.#length, wanted - this.#length, position + this.#length)
      // The file was truncated under our eyes: by nobody who respects the lock.
      if (count === 0) this.#fail('Segment entry data short read', position)
      this.#length += count
    }
  }

  #fail(detail: string, offset: number, more = ''): never {
    throw new SegmentError(detail, this.#job.segment, offset, more)
  }
}
