/** When a mount that was at work gives back what it keeps for further work: once, after nothing was asked of it for a while. */

export interface IdleTimer {
  /** The time begins anew, also after it was over. */
  refresh(): unknown
  close(): unknown
}

export interface IdleOptions {
  readonly afterMs: number
  /** Work that nobody asked for goes on: it is looked at again later. */
  busy(): boolean
  rest(): void
  /** setTimeout, or a test's. */
  readonly timer?: (callback: () => void, ms: number) => IdleTimer
}

export class IdlePhases {
  readonly #options: IdleOptions
  #underWay = 0
  #timer: IdleTimer | undefined
  #closed = false

  constructor(options: IdleOptions) {
    this.#options = options
  }

  /** What keeps memory for its like begins; `end` is called once for it. */
  begin(): void {
    this.#underWay++
  }

  end(): void {
    this.#underWay--
    if (this.#underWay > 0 || this.#closed) return
    if (this.#timer) this.#timer.refresh()
    else this.#timer = (this.#options.timer ?? unreferenced)(() => this.#over(), this.#options.afterMs)
  }

  close(): void {
    this.#closed = true
    this.#timer?.close()
  }

  #over(): void {
    // Else its end begins the time anew.
    if (this.#underWay > 0 || this.#closed) return
    if (this.#options.busy()) this.#timer!.refresh()
    else this.#options.rest()
  }
}

/** A mount that ends does not wait for it. */
function unreferenced(callback: () => void, ms: number): IdleTimer {
  return setTimeout(callback, ms).unref()
}
