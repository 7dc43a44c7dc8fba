/**
 * The shadow index of the hints: for an id that was deleted, the segments that still hold PUTs of it. Compaction needs it to know
 * which DELETEs must stay. It grows with every deleted object, so it lies in a table outside the JavaScript heap; only ids with
 * several such segments, which are rare, are kept as objects.
 */
import { maxValue } from '../hashindex/bucket-layout.js'
import { HashTable } from '../hashindex/hash-table.js'
import { idBytes } from '../constants.js'
import { type ChunkId, chunkId, idKey } from '../ids.js'
import { MsgpackError, type MsgReader, type MsgWriter } from '../msgpack.js'
import { native } from '../native.js'

/** Values that are no segment: a list without any, and one that stands in #several. */
const none = maxValue, several = maxValue - 1
/** Of an entry with one segment, at most: raw header 3, id, array header 1, integer 5. */
const packedBytes = 41

export class ShadowIndex {
  readonly #table: HashTable
  readonly #several = new Map<string, number[]>()

  /** `capacity`: ids expected. */
  constructor(capacity = 0) {
    this.#table = new HashTable(1, capacity)
  }

  get size(): number {
    return this.#table.size
  }

  has(id: ChunkId): boolean {
    return this.#table.find(id) >= 0
  }

  /** Undefined for an id that is not known, which is not the same as an empty list. */
  get(id: ChunkId): readonly number[] | undefined {
    const bucket = this.#table.find(id)
    return bucket < 0 ? undefined : this.#at(bucket, id)
  }

  #at(bucket: number, id: ChunkId): readonly number[] {
    const value = this.#table.value(bucket, 0)
    return value === none ? [] : value === several ? this.#several.get(idKey(id))! : [value]
  }

  set(id: ChunkId, segments: readonly number[]): void {
    if (segments.length > 1 || segments[0]! >= several) {
      this.#several.set(idKey(id), [...segments])
      this.#table.set(id, several)
    } else {
      this.#several.delete(idKey(id))
      this.#table.set(id, segments[0] ?? none)
    }
  }

  add(id: ChunkId, segment: number): void {
    const bucket = this.#table.find(id)
    if (bucket < 0 && segment < several) this.#table.set(id, segment)
    else this.set(id, bucket < 0 ? [segment] : [...this.#at(bucket, id), segment])
  }

  /** add for ids that lie one behind the other, segments[0], segments[stride] … */
  addMany(ids: Uint8Array, segments: Uint32Array, stride: number): void {
    const odd = segments.some((segment, at) => at % stride === 0 && segment >= several)
    const each = odd ? Array.from({ length: ids.length / idBytes }, (_, number) => number) : this.#table.enterMany(ids, segments, stride)
    for (const number of each) this.add(chunkId(ids.subarray(number * idBytes, (number + 1) * idBytes)), segments[number * stride]!)
  }

  /** Whether a PUT of the id lies in a segment below `segment`; undefined for an id that is not known. */
  hasBelow(id: ChunkId, segment: number): boolean | undefined {
    const bucket = this.#table.find(id)
    if (bucket < 0) return undefined
    const value = this.#table.value(bucket, 0)
    return value === several ? this.#several.get(idKey(id))!.some(other => other < segment) : value < segment
  }

  /** The PUT in `segment` is gone; the id stays known, even without any. */
  drop(id: ChunkId, segment: number): void {
    const bucket = this.#table.find(id)
    if (bucket < 0) return
    if (this.#table.value(bucket, 0) === segment) {
      this.#table.setValue(bucket, 0, none)
      return
    }
    const known = this.#at(bucket, id)
    const at = known.indexOf(segment)
    if (at >= 0) this.set(id, known.toSpliced(at, 1))
  }

  /** Forgets an id that has no PUT any more. */
  forgetIfEmpty(id: ChunkId): void {
    const bucket = this.#table.find(id)
    if (bucket >= 0 && this.#table.value(bucket, 0) === none) this.#table.delete(id)
  }

  /** The map that hints hold. */
  pack(writer: MsgWriter): void {
    writer.mapHeader(this.size)
    const packed = Buffer.allocUnsafeSlow(this.size * packedBytes)
    const [bytes, count] = native().packShadow(this.#table.bucketBytes, several, packed)
    writer.verbatim(packed.subarray(0, bytes))
    // Most have one segment.
    if (count === this.size) return
    for (const { id, bucket } of this.#table.entries()) {
      if (this.#table.value(bucket, 0) < several) continue
      const segments = this.#at(bucket, id)
      writer.raw(id)
      writer.arrayHeader(segments.length)
      for (const segment of segments) writer.int(segment)
    }
  }

  /** The inverse. MsgpackError. */
  static unpack(reader: MsgReader): ShadowIndex {
    const entries = reader.mapHeader()
    // No more than the bytes that are left can hold: the count is not to be trusted.
    const expected = Math.min(entries, Math.floor((reader.end - reader.position) / idBytes))
    const shadow = new ShadowIndex(expected)
    const ids = Buffer.allocUnsafeSlow(expected * idBytes), segments = new Uint32Array(expected)
    let left = entries
    while (left > 0) {
      const room = Math.min(left, expected)
      const [bytes, count] = native().unpackShadow(reader.bytes.subarray(0, reader.end), reader.position, ids.subarray(0, room * idBytes), segments)
      reader.position += bytes
      left -= count
      if (count > 0) shadow.addMany(ids.subarray(0, count * idBytes), segments.subarray(0, count), 1)
      if (left === 0) break
      const id = reader.raw()
      if (id.length !== idBytes) throw new MsgpackError(`hints with an id of ${id.length} bytes`)
      const several: number[] = []
      for (let length = reader.arrayHeader(); length > 0; length--) several.push(reader.number())
      shadow.set(chunkId(id), several)
      left--
    }
    return shadow
  }

  *entries(): Generator<{ id: ChunkId; segments: readonly number[] }> {
    for (const { id, bucket } of this.#table.entries()) yield { id, segments: this.#at(bucket, id) }
  }
}
