/** Numbers that a seed repeats: a failure is told by seed and count, and comes again. */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = (seed ^ 0x9e3779b9) >>> 0 || 1
  }

  /** uint32 (xorshift, multiplied). */
  next(): number {
    let x = this.#state
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    this.#state = x >>> 0
    return Math.imul(this.#state, 0x2c1b3c6d) >>> 0
  }

  /** 0 … limit - 1. */
  below(limit: number): number {
    return limit <= 1 ? 0 : this.next() % limit
  }

  /** True once in `n` times. */
  oneIn(n: number): boolean {
    return this.below(n) === 0
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!
  }

  /** Mostly small. */
  size(limit: number): number {
    return this.below(2 ** this.below(Math.ceil(Math.log2(limit + 1)) + 1)) % (limit + 1)
  }
}
