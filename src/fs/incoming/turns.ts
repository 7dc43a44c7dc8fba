/** Work that is done one after the other, where each tells when it is done. */
export class Turns {
  readonly #waiting: (() => void)[] = []
  #taken = false
  #starting = false

  /** Some work is under way. */
  get taken(): boolean {
    return this.#taken
  }

  /** Begins with `work`, now or when all before it are done. It must call `end` once, at any time. */
  take(work: () => void): void {
    this.#waiting.push(work)
    this.#next()
  }

  end(): void {
    this.#taken = false
    this.#next()
  }

  /** Without recursion, if many end as soon as they begin. */
  #next(): void {
    if (this.#starting) return
    this.#starting = true
    try {
      while (!this.#taken && this.#waiting.length > 0) {
        this.#taken = true
        this.#waiting.shift()!()
      }
    } finally {
      this.#starting = false
    }
  }
}
