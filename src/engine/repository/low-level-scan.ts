/**
 * Segment files read as they lie, for debugging and rescue (commands.md §10): in the order of the disk, and without asking whether
 * something was committed, deleted or replaced since.
 */
import { type ChunkId } from '../ids.js'
import { magic, readHeader, headerBytes, keyAt, tagCommit, tagPut, valueOf } from './entry.js'
import { SegmentError } from './errors.js'
import type { LocalRepository } from './local-repository.js'
import { Segments } from './segments.js'

export interface LowLevelEntry {
  readonly segment: number
  readonly offset: number
  readonly tag: number
  readonly id: ChunkId | undefined
  /** The stored object of a PUT, CRC checked. */
  readonly object: Buffer | undefined
}

export interface LowLevelScanOptions {
  /** Only this segment. */
  readonly segment?: number | undefined
  /** Only what stands at this offset. */
  readonly offset?: number | undefined
  /** Told of a segment that cannot be read on: the next one is. */
  damaged(segment: number, path: string, error: SegmentError): void
}

function segmentsOf(repository: LocalRepository): Segments {
  const { segmentsPerDir, maxSegmentSize } = repository.config
  return new Segments(repository.path, { segmentsPerDir, maxSegmentSize })
}

/** Every entry of the segment files. */
export function* scanEntries(repository: LocalRepository, options: LowLevelScanOptions): Generator<LowLevelEntry> {
  const segments = segmentsOf(repository)
  try {
    for (const segment of segments.folder.numbers()) {
      if (options.segment !== undefined && segment !== options.segment) continue
      try {
        for (const { offset, tag, size } of headers(segments, segment, options.offset)) {
          if (options.offset !== undefined && offset > options.offset) break
          const entry = segments.read(segment, offset, size)
          const id = tag === tagCommit ? undefined : keyAt(entry, 0)
          yield { segment, offset, tag, id, object: tag === tagPut ? valueOf(entry, id!, segment, offset) : undefined }
        }
      } catch (error) {
        if (!(error instanceof SegmentError)) throw error
        options.damaged(segment, segments.folder.pathOf(segment), error)
      }
    }
  } finally {
    segments.close()
  }
}

/** Ids of the objects that there are, in the order of the disk: reading them so is a single pass over it. What follows a damaged header in a segment is left out. */
export function* idsInDiskOrder(repository: LocalRepository): Generator<ChunkId> {
  const segments = segmentsOf(repository)
  try {
    for (const segment of segments.folder.numbers()) {
      try {
        for (const { offset, tag, id } of headers(segments, segment)) {
          if (tag !== tagPut) continue
          const current = repository.entryPosition(id!)
          if (current && current.segment === segment && current.offset === offset) yield id!
        }
      } catch (error) {
        if (!(error instanceof SegmentError)) throw error
      }
    }
  } finally {
    segments.close()
  }
}

/** Headers and ids one after the other, without looking at values. */
function* headers(segments: Segments, segment: number, from?: number): Generator<{ offset: number; tag: number; size: number; id: ChunkId | undefined }> {
  const bytes = segments.size(segment)
  if (from === undefined && !segments.read(segment, 0, Math.min(bytes, magic.length)).equals(magic)) throw new SegmentError('Invalid segment magic', segment, 0)
  for (let offset = from ?? magic.length; offset < bytes; ) {
    const head = segments.read(segment, offset, Math.min(headerBytes + 32, bytes - offset))
    if (head.length < headerBytes) throw new SegmentError('Segment entry header short read', segment, offset)
    const { tag, size } = readHeader(head, 0, segment, offset)
    if (offset + size > bytes) {
      const error = new SegmentError('Segment entry data short read', segment, offset)
      error.message += `: expected ${size - headerBytes}, got ${bytes - offset - headerBytes} bytes`
      throw error
    }
    yield { offset, tag, size, id: tag === tagCommit ? undefined : keyAt(head, 0) }
    offset += size
  }
}
