/**
 * Index and hints from the log: each entry in its order, the last one for an id wins (repository.md §4). Used where the state
 * files lag behind, and by check, which believes the log only.
 */
import { idBytes } from '../constants.js'
import type { HashTable } from '../hashindex/hash-table.js'
import { chunkId, type ChunkId } from '../ids.js'
import { tagDelete, tagPut } from './entry.js'
import type { Hints } from './hints.js'
import type { SegmentEntries } from './segment-walk.js'
import type { Segments } from './segments.js'

const idWords = idBytes / 4

export interface IndexAndHints {
  readonly index: HashTable
  readonly hints: Hints
}

/** Call before the entries of a segment. */
export function beginSegment({ hints }: IndexAndHints, segment: number): void {
  hints.segments.set(segment, 0)
}

/** Applies entries of one segment; may be called several times for its pieces, in order. */
export function applyEntries(into: IndexAndHints, segment: number, entries: SegmentEntries, segments: Segments): void {
  const { index, hints } = into
  const ids = Buffer.from(entries.ids.buffer, entries.ids.byteOffset, entries.ids.length)
  const words = new Uint32Array(entries.ids.buffer, entries.ids.byteOffset, entries.ids.length / 4)
  let live = 0
  for (let at = 0; at < entries.count; at++) {
    const tag = entries.tags[at]
    if (tag === tagPut) {
      const size = entries.sizes[at]!
      const older = index.exchange(words, at * idWords, segment, entries.offsets[at]!)
      live++
      hints.quotaUse += size
      if (older < 0) continue
      // As Borg, the size of the new entry stands for that of the old one.
      hints.addFreeable(older, size)
      if (older === segment) live--
      else {
        hints.addLive(older, -1)
        // A compaction moved it and was cut short before it saved the index: it is the same object still.
        if (segments.size(older) === 0) hints.quotaUse -= size
      }
    } else if (tag === tagDelete) {
      const id = chunkId(ids.subarray(at * idBytes, (at + 1) * idBytes))
      const bucket = index.find(id)
      if (bucket < 0) continue
      const older = index.value(bucket, 0)
      const freed = sizeOf(segments, older, index.value(bucket, 1))
      index.delete(id)
      if (freed === undefined) continue
      if (older === segment) live--
      else hints.addLive(older, -1)
      hints.addFreeable(older, freed)
      noteShadow(hints, id, older)
    }
  }
  hints.addLive(segment, live)
}

/** Call after the entries of a segment. */
export function endSegment({ hints }: IndexAndHints, segment: number, segments: Segments): void {
  if (hints.segments.get(segment) === 0) hints.compact.set(segment, segments.size(segment))
}

/** Size of the PUT that a DELETE met; undefined if its file is gone: then it was compacted, and is counted no more. */
function sizeOf(segments: Segments, segment: number, offset: number): number | undefined {
  return segments.size(segment) > 0 ? segments.entryLength(segment, offset) : undefined
}

/**
 * The shadow index of a replay knows only what was in the hints. An id that it does not know keeps its DELETEs for ever, which is
 * safe; one that it knows must know all its older PUTs, or compaction would drop a DELETE that is needed still.
 */
function noteShadow(hints: Hints, id: ChunkId, segment: number): void {
  if (hints.shadow.has(id)) hints.shadow.add(id, segment)
}

/** Applies the committed segments in (from, to]. SegmentError for a damaged one. */
export function replay(segments: Segments, into: IndexAndHints, from: number, to: number): void {
  for (const segment of segments.folder.numbers(from)) {
    if (segment > to) break
    beginSegment(into, segment)
    for (const entries of segments.walk(segment)) applyEntries(into, segment, entries, segments)
    endSegment(into, segment, segments)
  }
}
