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

  *entries(): Generator<{ id: ChunkId; segments: readonly number[] }> {
    for (const { id, bucket } of this.#table.entries()) yield { id, segments: this.#at(bucket, id) }
  }
}
