/**
 * The shadow index of the hints: for an id that was deleted, the segments that still hold PUTs of it. Compaction needs it to know
 * which DELETEs must stay. It grows with every deleted object, so it lies in a table outside the JavaScript heap; only ids with
 * several such segments, which are rare, are kept as objects.
 */
import { HashTable, maxValue } from '../hashindex/hash-table.js'
import { type ChunkId, idKey } from '../ids.js'

/** Values that are no segment: a list without any, and one that stands in #several. */
const none = maxValue, several = maxValue - 1

export class ShadowIndex {
  readonly #table = new HashTable(1)
  readonly #several = new Map<string, number[]>()

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
    this.set(id, [...(this.get(id) ?? []), segment])
  }

  /** The PUT in `segment` is gone; the id stays known, even without any. */
  drop(id: ChunkId, segment: number): void {
    const known = this.get(id)
    const at = known?.indexOf(segment) ?? -1
    if (at >= 0) this.set(id, known!.toSpliced(at, 1))
  }

  forget(id: ChunkId): void {
    this.#several.delete(idKey(id))
    this.#table.delete(id)
  }

  *entries(): Generator<{ id: ChunkId; segments: readonly number[] }> {
    for (const { id, bucket } of this.#table.entries()) yield { id, segments: this.#at(bucket, id) }
  }
}
