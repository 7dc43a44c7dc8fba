/** A request that waits for something in incoming/ or live/, and is answered in any case. */
import { messageOf } from '../../engine/errors.js'
import type { Log } from '../../engine/log.js'
import { type Answer, type Call, LATER } from '../core.js'
import { Errno } from '../types.js'

export class WaitingCall<T> {
  readonly #call: Omit<Call<T>, 'defer'>
  readonly #answer: (answer: T | Errno) => void
  readonly #log: Log

  /** Defers `call`, whose operation must answer LATER. */
  constructor(call: Call<T>, log: Log) {
    const { uid, gid, pid, umask = 0 } = call
    this.#call = { uid, gid, pid, umask }
    this.#answer = call.defer()
    this.#log = log
  }

  /** What was waited for is over. An error of the program is told and is EIO for whoever asked: those who wait behind are served all the same. */
  run(work: (call: Call<T>) => Answer<T>): void {
    let answer: Answer<T>
    try {
      answer = work({ ...this.#call, defer: () => this.#answer })
    } catch (error) {
      this.#log.write('error', 'borg.fuse', `A request that had waited failed: ${error instanceof Error ? error.stack ?? messageOf(error) : messageOf(error)}`)
      answer = Errno.EIO
    }
    if (answer !== LATER) this.#answer(answer)
  }
}
