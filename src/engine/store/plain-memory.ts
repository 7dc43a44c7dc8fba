/**
 * Memory for the plaintexts that a byte worker has under way: each has a place of its own until it is given on. One piece of memory is used again and
 * again, from its start, so that it costs no page faults and mostly is in the processor's cache.
 */

/** As much as a few of the longest chunks take. What nothing was put in never becomes memory. */
export const plainMemoryBytes = 24 << 20

/** Places begin at multiples of a cache line. */
const placeBytes = 64

interface Place {
  readonly start: number
  readonly end: number
}

export class PlainMemory {
  readonly #bytes: number
  #memory: Buffer | undefined
  /** Places taken, by their start: no more than there are entries under way. */
  readonly #places: Place[] = []

  constructor(bytes = plainMemoryBytes) {
    this.#bytes = bytes
  }

  /** Bytes taken, for tests. Not those for which there was no room. */
  get taken(): number {
    return this.#places.reduce((sum, { start, end }) => sum + end - start, 0)
  }

  /** Exactly `length` bytes, whatever is in them, until they are given back. Memory of their own where there is no room. */
  take(length: number): Buffer {
    const room = Math.ceil(length / placeBytes) * placeBytes
    let start = 0
    let index = 0
    for (; index < this.#places.length; index++) {
      const place = this.#places[index]!
      if (place.start - start >= room) break
      start = place.end
    }
    if (length === 0 || start + room > this.#bytes) return Buffer.allocUnsafeSlow(length)
    this.#memory ??= Buffer.allocUnsafeSlow(this.#bytes)
    this.#places.splice(index, 0, { start, end: start + room })
    return this.#memory.subarray(start, start + length)
  }

  /** What `take` gave, once, when nobody looks at it any more. */
  giveBack(memory: Buffer): void {
    if (memory.buffer !== this.#memory?.buffer) return
    const start = memory.byteOffset - this.#memory.byteOffset
    const index = this.#places.findIndex(place => place.start === start)
    if (index >= 0) this.#places.splice(index, 1)
  }

  /** All was given back. */
  clear(): void {
    this.#places.length = 0
  }

  /** The same, and nothing is kept for the next ones. */
  drop(): void {
    this.clear()
    this.#memory = undefined
  }
}
