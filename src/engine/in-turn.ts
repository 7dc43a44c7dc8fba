/** Work that is done one after the other. */
export class InTurn {
  #last: Promise<unknown> = Promise.resolve()

  /** A failure is the caller's and stops nobody behind it. */
  run<T>(work: () => T | Promise<T>): Promise<T> {
    const done = this.#last.then(work)
    this.#last = done.catch(() => undefined)
    return done
  }
}
