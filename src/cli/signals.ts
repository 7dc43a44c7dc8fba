/**
 * Signals (commands.md §5). The first one asks the work in hand to end in order, if that takes care of signals, and else ends the process
 * between two steps of it; a second one does not wait. SIGUSR1 asks what is being done. Installed from start to end of a command: by itself Node would open a debugger's port at SIGUSR1.
 */
import { type EndingSignal, endingSignals, SignalError } from './exit.js'
import { writeFully } from './output/stdout.js'

/** Variables that tell a drive who waits for it to serve: a descriptor, or the process number of bin/borgfs, which waits for signals. */
export const waitingFd = 'BORGFS_READY_FD', waitingShell = 'BORGFS_READY_PID'

/** From here on whoever waits can pass signals on. */
export function tellListening(env: NodeJS.ProcessEnv): void {
  if (env[waitingFd] !== undefined) writeFully(Number(env[waitingFd]), Buffer.from('listening\n'))
  else if (Number(env[waitingShell]) === process.ppid) process.kill(process.ppid, 'SIGUSR2')
}

/** How long a second signal waits for files to be closed and locks to be released. */
const patienceMs = 3000

export class Signals {
  readonly #first = new AbortController()
  readonly #stop = new AbortController()
  readonly #now = new AbortController()
  #orderly = false
  #answered = false
  #count = 0
  readonly #handlers: (readonly [NodeJS.Signals, () => void])[] = []
  /** What SIGUSR1 does, if the command can tell anything. */
  onInfo: (() => void) | undefined
  /**
   * Called by the first signal while no command answers: it waits for a lock, a passphrase or somebody's answer, reads, or does what may be
   * cut off anywhere, as by a kill. Ends the process before anything else happens in it.
   */
  onUnanswered: ((reason: SignalError) => void) | undefined

  constructor() {
    for (const name of endingSignals) this.#handlers.push([name, () => this.#receive(name)])
    this.#handlers.push(['SIGUSR1', () => this.onInfo?.()])
    for (const [name, handler] of this.#handlers) process.on(name, handler)
  }

  /** Aborted by the first SIGINT, SIGTERM or SIGHUP; the reason is a SignalError. */
  get first(): AbortSignal {
    return this.#first.signal
  }

  /** From here on the command itself ends soon after the signal that is returned, which is `first`. */
  answer(): AbortSignal {
    this.#answered = true
    return this.first
  }

  /**
   * For commands that take the first SIGINT as a wish: `stop` is aborted by it and nothing else is. `now` is aborted by a
   * second SIGINT, and by SIGTERM and SIGHUP; whatever is not committed then is given up.
   */
  orderly(): { readonly stop: AbortSignal; readonly now: AbortSignal } {
    this.#orderly = true
    this.#answered = true
    return { stop: this.#stop.signal, now: this.#now.signal }
  }

  #receive(name: EndingSignal): void {
    const error = new SignalError(name)
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
    if (!this.#answered) this.onUnanswered?.(error)
  }

  /** By the signal itself: process.exit would wait for a thread that may be reading from a pipe for ever. */
  #die(name: EndingSignal): void {
    this.uninstall()
    process.kill(process.pid, name)
  }

  uninstall(): void {
    for (const [name, handler] of this.#handlers) process.removeListener(name, handler)
  }
}
