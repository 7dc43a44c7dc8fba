/** Who waits for something that is asked for once, however many want it. */
export class Waiters<Answer extends readonly unknown[]> {
  readonly #waiting: ((...answer: Answer) => void)[] = []

  get any(): boolean {
    return this.#waiting.length > 0
  }

  /** True for the first, who has to ask. */
  add(waiter: (...answer: Answer) => void): boolean {
    return this.#waiting.push(waiter) === 1
  }

  /** Tells all, in the order in which they came. Who comes meanwhile waits anew. What one of them throws is thrown when all were told. */
  tell(...answer: Answer): void {
    const faults: unknown[] = []
    for (const waiter of this.#waiting.splice(0)) {
      try {
        waiter(...answer)
      } catch (fault) {
        faults.push(fault)
      }
    }
    if (faults.length > 0) throw faults[0]
  }
}
