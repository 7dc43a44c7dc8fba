/** hints.T: what compaction and the quota need to know (repository.md §5). Map keys are integers and raw ids. */
import { MsgReader, MsgWriter, MsgpackError } from '../msgpack.js'
import { ShadowIndex } from './shadow-index.js'

export class Hints {
  /** Segment -> live PUT entries. */
  readonly segments = new Map<number, number>()
  /** Segment -> bytes that compaction would free. */
  readonly compact = new Map<number, number>()
  /** Deleted id -> segments that hold PUTs of it still. */
  shadow = new ShadowIndex()
  /** Bytes of all live PUT entries. */
  quotaUse = 0

  addLive(segment: number, count: number): void {
    this.segments.set(segment, (this.segments.get(segment) ?? 0) + count)
  }

  addFreeable(segment: number, bytes: number): void {
    this.compact.set(segment, (this.compact.get(segment) ?? 0) + bytes)
  }

  pack(): Buffer {
    const writer = new MsgWriter(4096)
    writer.mapHeader(5)
    writer.raw('version')
    writer.int(2)
    writer.raw('segments')
    integerMap(writer, this.segments)
    writer.raw('compact')
    integerMap(writer, this.compact)
    writer.raw('storage_quota_use')
    writer.int(this.quotaUse)
    writer.raw('shadow_index')
    this.shadow.pack(writer)
    return writer.finish()
  }

  /** MsgpackError for damage and for versions other than 2: then the segments are read again. */
  static unpack(bytes: Buffer): Hints {
    const hints = new Hints()
    const reader = new MsgReader(bytes)
    let version: number | undefined
    for (let count = reader.mapHeader(); count > 0; count--) {
      switch (reader.rawByteString()) {
        case 'version': version = reader.number(); break
        case 'segments': readIntegerMap(reader, hints.segments); break
        case 'compact': readIntegerMap(reader, hints.compact); break
        case 'storage_quota_use': hints.quotaUse = reader.number(); break
        case 'shadow_index': hints.shadow = ShadowIndex.unpack(reader); break
        default: reader.skip()
      }
    }
    if (version !== 2) throw new MsgpackError(`hints of version ${version ?? 'unknown'}`)
    return hints
  }
}

function integerMap(writer: MsgWriter, map: ReadonlyMap<number, number>): void {
  writer.mapHeader(map.size)
  for (const [key, value] of map) {
    writer.int(key)
    writer.int(value)
  }
}

function readIntegerMap(reader: MsgReader, into: Map<number, number>): void {
  for (let count = reader.mapHeader(); count > 0; count--) {
    const key = reader.number()
    into.set(key, reader.number())
  }
}
