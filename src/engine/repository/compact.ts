/**
 * Compaction (repository.md §6): what is live in sparse segments is appended to new ones, then the old files go. Order is what makes
 * it safe against a kill at any moment:
 *
 *   1. copies are durable,   2. a COMMIT behind them is durable,   3. the files they came from are deleted, lowest first
 *
 * again and again, each time the target segment is full, and once at the end; then the state files are written. Until 2 the copies
 * count for nothing, after it they stand for the originals; files that are left over are compacted the next time.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { BorgError } from '../errors.js'
import { chunkId, type ChunkId } from '../ids.js'
import { formatSize } from '../size-text.js'
import { idBytes } from '../constants.js'
import { crc32 } from '../crc32.js'
import { headerBytes, magic, readHeader, tagCommit, tagPut } from './entry.js'
import { SegmentError } from './errors.js'
import type { LocalRepository } from './local-repository.js'
import type { Segments } from './segments.js'
import type { RepositoryState } from './state.js'

export interface CompactOptions {
  /** Segments are copied if more than this share of them can be freed; 10 is Borg's default. */
  readonly thresholdPercent: number
  /** Also removes the many 17-byte segments that some versions of Borg left. */
  readonly cleanupCommits?: boolean
  /** Ends it between two segments; what was compacted by then stays so. */
  readonly signal?: AbortSignal
}

/** `log`: Borg's messages, of its logger `borg.repository`. */
export interface CompactListener {
  log?(level: 'debug' | 'info' | 'warning', message: string): void
  /** Segments done of all that were looked at; Borg's text is `Compacting segments %3.0f%%`, msgid `repository.compact_segments`. */
  progress?(done: number, total: number): void
  progressFinished?(): void
}

const commitSegmentBytes = magic.length + headerBytes
const windowBytes = 4 << 20

/**
 * Frees space. Does nothing to a repository in append-only mode, as Borg. Needs the exclusive lock. SegmentError for a damaged segment,
 * InsufficientFreeSpace; then nothing is lost, and what was compacted before stays so.
 */
export function compactRepository(repository: LocalRepository, options: CompactOptions, listener: CompactListener): Promise<void> {
  if (repository.appendOnly) return Promise.resolve()
  return repository.exclusively(() => new Compaction(repository, options, listener).run())
}

class Compaction {
  readonly #repository: LocalRepository
  readonly #segments: Segments
  readonly #state: RepositoryState
  readonly #options: CompactOptions
  readonly #listener: CompactListener
  /** Copied segments whose copies are not committed yet. */
  #unused: number[] = []
  /** Those of them whose DELETEs are needed no more once the files before are gone. */
  readonly #dropsDeletes = new Set<number>()

  constructor(repository: LocalRepository, options: CompactOptions, listener: CompactListener) {
    this.#repository = repository
    this.#segments = repository.segments
    this.#state = repository.committedState!
    this.#options = options
    this.#listener = listener
  }

  async run(): Promise<void> {
    const { hints, transaction } = this.#state
    const before = hints.quotaUse
    if (this.#options.cleanupCommits) this.#markCommits()
    const all = [...hints.compact.keys()].sort((a, b) => a - b)
    const sparse = all.filter(segment => this.#isSparse(segment))
    // The last COMMIT alone would only be replaced by another one.
    if (sparse.some(segment => segment !== transaction || this.#segments.size(segment) > commitSegmentBytes)) {
      this.#repository.ensureFreeSpace()
      await this.#compact(all, new Set(sparse))
    }
    this.#log('info', `compaction freed about ${formatSize(before - hints.quotaUse)} repository space.`)
  }

  #markCommits(): void {
    const { hints } = this.#state
    for (const segment of this.#segments.folder.all()) {
      if (this.#segments.size(segment) !== commitSegmentBytes) continue
      hints.segments.set(segment, 0)
      hints.compact.set(segment, headerBytes)
    }
  }

  #isSparse(segment: number): boolean {
    const { hints } = this.#state
    const bytes = this.#segments.size(segment)
    if (bytes === 0) {
      this.#log('warning', `segment ${segment} not found, but listed in compaction data`)
      hints.compact.delete(segment)
      // What a deletion that was cut short may leave: an empty file, which Borg's check takes for damage.
      this.#segments.remove(segment)
      return false
    }
    const free = hints.compact.get(segment)!
    const ratio = free / bytes
    const sparse = ratio > this.#options.thresholdPercent / 100
    const start = sparse ? `compacting segment ${segment} with usage count ${hints.segments.get(segment) ?? 0}` : `not compacting segment ${segment}`
    this.#log('debug', `${start} (maybe freeable: ${(ratio * 100).toFixed(2)}% [${free} bytes])`)
    return sparse
  }

  async #compact(all: readonly number[], sparse: ReadonlySet<number>): Promise<void> {
    this.#log('debug', `Compaction started (threshold is ${Math.floor(this.#options.thresholdPercent)}%).`)
    try {
      for (const [done, segment] of all.entries()) {
        this.#listener.progress?.(done, all.length)
        if (!sparse.has(segment)) continue
        this.#copy(segment)
        this.#unused.push(segment)
        // Signals are heard here only.
        await new Promise(resolve => setImmediate(resolve))
        if (this.#options.signal?.aborted) break
      }
    } finally {
      this.#listener.progressFinished?.()
    }
    this.#finish()
    this.#options.signal?.throwIfAborted()
    this.#log('debug', 'compaction completed.')
  }

  /** Appends what must stay of a segment. */
  #copy(segment: number): void {
    const { index, hints } = this.#state
    for (const { bytes, offset, tag } of soundEntries(this.#segments, segment)) {
      if (tag === tagCommit) continue
      const id = chunkId(bytes.subarray(headerBytes, headerBytes + idBytes))
      const bucket = index.find(id)
      if (tag === tagPut) {
        if (bucket >= 0 && index.value(bucket, 0) === segment && index.value(bucket, 1) === offset) {
          const place = this.#append(bytes)
          index.set(id, place.segment, place.offset)
          hints.addLive(place.segment, 1)
          hints.addLive(segment, -1)
        } else {
          // It goes with this file.
          hints.shadow.drop(id, segment)
          hints.quotaUse -= bytes.length
        }
      } else if (bucket < 0 && this.#mustStay(id, segment)) {
        const place = this.#append(bytes)
        hints.addFreeable(place.segment, bytes.length)
        hints.addLive(place.segment, 0)
      } else if (bucket < 0) {
        this.#dropsDeletes.add(segment)
        hints.shadow.forgetIfEmpty(id)
      }
    }
    const live = hints.segments.get(segment) ?? 0
    if (live !== 0) {
      throw new BorgError('Error', `Segment ${segment} of ${this.#repository.location} should hold ${live} more objects than it does: its index or hints do not fit. Nothing is lost; run "borg check --repair" and compact again.`)
    }
  }

  /**
   * Whether the DELETE of an id that is gone is needed still: while an older file may hold a PUT of it, a replay from there would bring
   * the object back. Files do not always vanish in the order they are deleted in, after a crash.
   */
  #mustStay(id: ChunkId, segment: number): boolean {
    return (this.#state.hints.shadow.hasBelow(id, segment) ?? true) || segment > this.#state.transaction
  }

  #append(bytes: Buffer): { segment: number; offset: number } {
    if (this.#segments.writer.full) {
      this.#repository.assertLocked()
      this.#transferred(this.#segments.writer.commitHere())
    }
    const place = this.#segments.writer.position()
    this.#segments.writer.append(bytes)
    return place
  }

  /** A COMMIT was written: what was copied from may go. */
  #transferred(commit: number): void {
    const { hints } = this.#state
    if (!this.#repository.confirmCommit(commit)) this.#repository.assertLocked()
    hints.addLive(commit, 0)
    hints.addFreeable(commit, headerBytes)
    this.#log('debug', `wrote commit at segment ${commit}`)
    for (const segment of this.#unused) {
      this.#log('debug', `deleting unused segment ${segment}`)
      // A power failure may undo removals in any order. A PUT that came back when its DELETE is gone for good would make a replay
      // bring the object back.
      if (this.#dropsDeletes.delete(segment)) this.#segments.folder.syncRemovals()
      this.#segments.remove(segment)
      hints.segments.delete(segment)
      hints.compact.delete(segment)
    }
    this.#segments.folder.syncRemovals()
    this.#unused = []
  }

  #finish(): void {
    const { index, hints } = this.#state
    this.#repository.assertLocked()
    const transaction = this.#segments.writer.commit()
    this.#transferred(transaction)
    this.#segments.folder.removeEmptyDirectories(transaction)
    this.#repository.committed({ index, hints, transaction })
  }

  #log(level: 'debug' | 'info' | 'warning', message: string): void {
    this.#listener.log?.(level, message)
  }
}

interface SoundEntry {
  /** The whole entry, valid until the next step. */
  readonly bytes: Buffer
  readonly offset: number
  readonly tag: number
}

/** Entries of a segment with their bytes, each verified in the memory that is then written. SegmentError at the first damage. */
function* soundEntries(segments: Segments, segment: number): Generator<SoundEntry> {
  const fd = openSync(segments.folder.pathOf(segment), 'r')
  try {
    const fileBytes = fstatSync(fd).size
    let window = Buffer.allocUnsafeSlow(Math.min(windowBytes, fileBytes))
    let start = 0, length = 0
    const need = (offset: number, count: number): Buffer => {
      if (offset + count > fileBytes) throw new SegmentError('Segment entry data short read', segment, offset)
      if (offset < start || offset + count > start + length) {
        // Entries handed out lie in the window until they are written.
        segments.writer.flush()
        if (count > window.length) window = Buffer.allocUnsafeSlow(count)
        start = offset
        length = 0
        for (const wanted = Math.min(window.length, fileBytes - offset); length < wanted; ) {
          const read = readSync(fd, window, length, wanted - length, start + length)
          if (read === 0) throw new SegmentError('Segment entry data short read', segment, offset)
          length += read
        }
      }
      return window.subarray(offset - start, offset - start + count)
    }
    if (fileBytes < magic.length || !need(0, magic.length).equals(magic)) throw new SegmentError('Invalid segment magic', segment, 0)
    for (let offset = magic.length; offset < fileBytes; ) {
      const { size, crc, tag } = readHeader(need(offset, headerBytes), 0, segment, offset)
      const bytes = need(offset, size)
      if (crc32(bytes.subarray(4)) !== crc) throw new SegmentError('Segment entry checksum mismatch', segment, offset)
      yield { bytes, offset, tag }
      offset += size
    }
    segments.writer.flush()
  } finally {
    closeSync(fd)
  }
}
