/** Appends a transaction's entries, and keeps index and hints in step with them (repository.md §3, §4). */
import { idBytes, maxObjectBytes } from '../constants.js'
import { BorgError } from '../errors.js'
import { absent } from '../hashindex/bucket-layout.js'
import { type ChunkId, manifestId } from '../ids.js'
import { formatSize } from '../size-text.js'
import { deleteBytes, frameDelete, frameDeletes, framePut, magic } from './entry.js'
import { ObjectNotFound, StorageQuotaExceeded } from './errors.js'
import type { EntryFile, Transaction } from './repository.js'
import type { Segments } from './segments.js'
import type { RepositoryState } from './state.js'

export interface TransactionOptions {
  /** Of the repository, for messages. */
  readonly location: string
  /** Bytes; 0 for none. */
  readonly quota: number
  /** Makes durable what was appended so far; sets `changed` back. */
  readonly commit: () => void
}

export class LocalTransaction implements Transaction {
  /** Something was appended that is not committed. */
  changed = false
  #doomed: BorgError | undefined
  readonly #segments: Segments
  readonly #state: RepositoryState
  readonly #options: TransactionOptions

  /** `state` is changed as it goes. */
  constructor(segments: Segments, state: RepositoryState, options: TransactionOptions) {
    this.#segments = segments
    this.#state = state
    this.#options = options
  }

  put(id: ChunkId, object: Uint8Array): Promise<void> {
    if (object.length > maxObjectBytes) throw new BorgError('Error', `An object of ${object.length} bytes is too large for a repository (${maxObjectBytes} at most).`)
    const newSegment = isManifest(id)
    if (this.#state.index.has(id)) {
      const segment = this.#delete(id, newSegment)
      // Borg leaves the older PUT out of its shadow index, and so brings objects back that were replaced and then deleted, when it
      // compacts only the later segments. The manifest alone is replaced often; it is never deleted.
      if (!newSegment) this.#state.hints.shadow.add(id, segment)
    }
    this.#append(id, framePut(id, object), newSegment)
    this.#segments.writer.flush()
    return Promise.resolve()
  }

  putEntries(bytes: Uint8Array, ids: readonly ChunkId[], lengths: ArrayLike<number>): Promise<void> {
    let at = 0
    for (const [index, id] of ids.entries()) {
      const length = lengths[index]!
      this.#append(id, bytes.subarray(at, at + length), false)
      at += length
    }
    // The buffer is only borrowed.
    this.#segments.writer.flush()
    return Promise.resolve()
  }

  #append(id: ChunkId, entry: Uint8Array, newSegment: boolean): void {
    const { index, hints } = this.#state
    this.changed = true
    const { segment, offset } = this.#segments.writer.position({ newSegment })
    this.#segments.writer.append(entry)
    index.set(id, segment, offset)
    hints.addLive(segment, 1)
    this.#use(entry.length)
  }

  adopt({ path, bytes, ids, offsets }: EntryFile): boolean {
    const segment = this.#segments.writer.adopt(path, bytes)
    if (segment === undefined) return false
    this.changed = true
    const { index, hints } = this.#state
    for (const [entry, id] of ids.entries()) index.set(id, segment, offsets[entry]!)
    hints.addLive(segment, ids.length)
    this.#use(bytes - magic.length)
    return true
  }

  #use(bytes: number): void {
    const { hints } = this.#state
    hints.quotaUse += bytes
    const { quota, location } = this.#options
    if (quota > 0 && hints.quotaUse > quota) {
      this.#doomed = new StorageQuotaExceeded(location, `(${formatSize(quota)}) has been exceeded (${formatSize(hints.quotaUse)})`)
      throw this.#doomed
    }
  }

  /** Nothing is committed after the quota was exceeded, whoever caught the error. */
  throwIfDoomed(): void {
    if (this.#doomed) throw this.#doomed
  }

  delete(id: ChunkId): Promise<void> {
    if (!this.#state.index.has(id)) throw new ObjectNotFound(id, this.#options.location)
    const segment = this.#delete(id, isManifest(id))
    this.#state.hints.shadow.add(id, segment)
    return Promise.resolve()
  }

  deleteMany(ids: Uint8Array): Promise<readonly number[]> {
    return new Promise(resolve => resolve(this.#deleteMany(ids)))
  }

  /** What delete does for each, without a step of its own for each. */
  #deleteMany(ids: Uint8Array): readonly number[] {
    const { index, hints } = this.#state
    this.changed = true
    const taken = index.takeOut(ids)
    const missing: number[] = []
    for (let at = 0; at < taken.length; at += 2) if (taken[at] === absent) missing.push(at / 2)
    const there = missing.length === 0 ? ids : without(ids, missing, idBytes)
    const places = missing.length === 0 ? taken : without(taken, missing, 2)
    const lengths = this.#segments.entryLengths(places)
    for (let first = 0, end = 0; first < lengths.length; first = end) {
      const segment = places[2 * first]!
      let bytes = 0
      for (; end < lengths.length && places[2 * end] === segment; end++) bytes += lengths[end]!
      hints.addLive(segment, first - end)
      hints.addFreeable(segment, bytes)
    }
    hints.shadow.addMany(there, places, 2)
    const entries = frameDeletes(there)
    for (let at = 0; at < entries.length; ) {
      const { segment } = this.#segments.writer.position()
      const end = Math.min(entries.length, at + this.#segments.writer.roomFor(deleteBytes) * deleteBytes)
      this.#segments.writer.append(entries.subarray(at, end))
      hints.addFreeable(segment, end - at)
      if (!hints.segments.has(segment)) hints.segments.set(segment, 0)
      at = end
    }
    return missing
  }

  /** Returns the segment of the PUT that is over. What it takes counts against the quota until compaction frees it. */
  #delete(id: ChunkId, newSegment: boolean): number {
    const { index, hints } = this.#state
    this.changed = true
    const bucket = index.find(id)
    const [segment, offset] = [index.value(bucket, 0), index.value(bucket, 1)]
    const size = this.#segments.entryLength(segment, offset)
    index.delete(id)
    hints.addLive(segment, -1)
    hints.addFreeable(segment, size)
    const place = this.#segments.writer.position({ newSegment })
    this.#segments.writer.append(frameDelete(id))
    hints.addFreeable(place.segment, deleteBytes)
    if (!hints.segments.has(place.segment)) hints.segments.set(place.segment, 0)
    return segment
  }

  checkpoint(): Promise<void> {
    this.#options.commit()
    return Promise.resolve()
  }
}

/** Rows of `width` elements, but those of these numbers, which ascend. */
function without<A extends Uint8Array | Uint32Array>(rows: A, numbers: readonly number[], width: number): A {
  const left = rows.slice() as A
  let to = 0
  for (let row = 0, next = 0; row * width < rows.length; row++) {
    if (row === numbers[next]) next++
    else left.set(rows.subarray(row * width, (row + 1) * width), width * to++)
  }
  return left.subarray(0, to * width) as A
}

function isManifest(id: ChunkId): boolean {
  return id.equals(manifestId)
}
