/**
 * One entry of a segment file (repository.md §3):
 *
 *   0  CRC-32 of all that follows   4  size of the whole entry   8  tag   9  key (PUT, DELETE)   41  value (PUT)
 */
import { idBytes, maxEntryBytes, putHeaderBytes } from '../constants.js'
import { type ChunkId, chunkId } from '../ids.js'
import { crc32 } from '../crc32.js'
import { native } from '../native.js'
import { SegmentError } from './errors.js'

export const magic = Buffer.from('BORG_SEG')
export const tagPut = 0, tagDelete = 1, tagCommit = 2
export const headerBytes = 9
export const deleteBytes = headerBytes + idBytes
/** Always the same bytes. */
export const commitEntry = Buffer.from('40f43c250900000002', 'hex')

/** Fills the 41 bytes before a value that stands at `offset` + 41 in `target` already. Returns the entry's length. */
export function framePutInPlace(target: Buffer, offset: number, id: Uint8Array, valueLength: number): number {
  const length = putHeaderBytes + valueLength
  target.writeUInt32LE(length, offset + 4)
  target[offset + 8] = tagPut
  target.set(id, offset + headerBytes)
  target.writeUInt32LE(crc32(target.subarray(offset + 4, offset + length)), offset)
  return length
}

/** The complete entry. */
export function framePut(id: Uint8Array, value: Uint8Array): Buffer {
  const entry = Buffer.allocUnsafe(putHeaderBytes + value.length)
  entry.set(value, putHeaderBytes)
  framePutInPlace(entry, 0, id, value.length)
  return entry
}

export function frameDelete(id: Uint8Array): Buffer {
  const entry = Buffer.allocUnsafe(deleteBytes)
  entry.writeUInt32LE(deleteBytes, 4)
  entry[8] = tagDelete
  entry.set(id, headerBytes)
  entry.writeUInt32LE(crc32(entry.subarray(4)), 0)
  return entry
}

/** DELETE entries of ids that lie one behind the other. */
export function frameDeletes(ids: Uint8Array): Buffer {
  const entries = Buffer.allocUnsafeSlow(ids.length / idBytes * deleteBytes)
  native().frameDeletes(ids, entries)
  return entries
}

/** Value of a PUT entry, a view of it. SegmentError if size, tag, key or CRC are not what they should be. */
export function valueOf(entry: Buffer, id: Uint8Array, segment: number, offset: number, options: { checkCrc: boolean } = { checkCrc: true }): Buffer {
  if (entry.length < putHeaderBytes) throw new SegmentError('Segment entry header short read', segment, offset)
  const length = entry.readUInt32LE(4)
  if (length !== entry.length) throw new SegmentError(`Invalid segment entry size ${length}`, segment, offset)
  if (entry[8] !== tagPut) throw new SegmentError('Invalid segment entry header, is not for wanted id', segment, offset)
  if (entry.compare(id, 0, idBytes, headerBytes, putHeaderBytes) !== 0) throw new SegmentError('Invalid segment entry header, is not for wanted id', segment, offset)
  if (options.checkCrc && crc32(entry.subarray(4)) !== entry.readUInt32LE(0)) throw new SegmentError('Segment entry checksum mismatch', segment, offset)
  return entry.subarray(putHeaderBytes)
}

export interface EntryHeader {
  readonly crc: number
  /** Of the whole entry. */
  readonly size: number
  readonly tag: number
}

/** Header of the entry at `at`. SegmentError for sizes and tags that never occur. */
export function readHeader(bytes: Buffer, at: number, segment: number, offset: number): EntryHeader {
  const size = bytes.readUInt32LE(at + 4)
  const tag = bytes[at + 8]!
  if (size > maxEntryBytes) throw new SegmentError(`Invalid segment entry size ${size} - too big`, segment, offset)
  if (size < headerBytes) throw new SegmentError(`Invalid segment entry size ${size} - too small`, segment, offset)
  if (tag > tagCommit) throw new SegmentError('Invalid segment entry header', segment, offset)
  if ((tag === tagCommit && size !== headerBytes) || (tag === tagDelete && size !== deleteBytes) || (tag === tagPut && size < putHeaderBytes)) {
    throw new SegmentError(`Invalid segment entry size ${size} of tag ${tag}`, segment, offset)
  }
  return { crc: bytes.readUInt32LE(at), size, tag }
}

export function keyAt(bytes: Buffer, at: number): ChunkId {
  return chunkId(Buffer.from(bytes.subarray(at + headerBytes, at + putHeaderBytes)))
}
