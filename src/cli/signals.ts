/**
 * Signals (commands.md §5). The first one asks the work in hand to end in order; a second one does not wait. SIGUSR1 asks what
 * is being done. Installed from start to end of a command: by itself Node would open a debugger's port at SIGUSR1.
 */
import { SignalError } from './exit.js'

const sentences = { SIGINT: 'Keyboard interrupt', SIGTERM: 'Received SIGTERM', SIGHUP: 'Received SIGHUP.' } as const
type Ending = keyof typeof sentences

/** How long a second signal waits for files to be closed and locks to be released. */
const patienceMs = 3000

export class Signals {
  readonly #first = new AbortController()
  readonly #stop = new AbortController()
  readonly #now = new AbortController()
  #orderly = false
  #count = 0
  readonly #handlers: (readonly [NodeJS.Signals, () => void])[] = []
  /** What SIGUSR1 does, if the command can tell anything. */
  onInfo: (() => void) | undefined

  constructor() {
    for (const name of Object.keys(sentences) as Ending[]) this.#handlers.push([name, () => this.#receive(name)])
    this.#handlers.push(['SIGUSR1', () => this.onInfo?.()])
    for (const [name, handler] of this.#handlers) process.on(name, handler)
  }

  /** Aborted by the first SIGINT, SIGTERM or SIGHUP; the reason is a SignalError. */
  get first(): AbortSignal {
    return this.#first.signal
  }

  /**
   * For commands that take the first SIGINT as a wish: `stop` is aborted by it and nothing else is. `now` is aborted by a
   * second SIGINT, and by SIGTERM and SIGHUP; whatever is not committed then is given up.
   */
  orderly(): { readonly stop: AbortSignal; readonly now: AbortSignal } {
    this.#orderly = true
    return { stop: this.#stop.signal, now: this.#now.signal }
  }

  #receive(name: Ending): void {
    const error = new SignalError(name, sentences[name])
    this.#count++
    if (this.#orderly && this.#count <= 2) {
      if (name === 'SIGINT' && this.#count === 1) {
        this.#stop.abort(error)
        return
      }
      this.#now.abort(error)
      this.#first.abort(error)
      // Should the work in hand be stuck, the locks of a dead process are no obstacle to the next one.
      setTimeout(() => this.#die(name), patienceMs).unref()
      return
    }
    if (this.#first.signal.aborted) this.#die(name)
    this.#first.abort(error)
  }

  /** By the signal itself: process.exit would wait for a thread that may be reading from a pipe for ever. */
  #die(name: Ending): void {
    this.uninstall()
    process.kill(process.pid, name)
  }

  uninstall(): void {
    for (const [name, handler] of this.#handlers) process.removeListener(name, handler)
  }
}
