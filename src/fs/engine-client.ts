/**
 * The FUSE thread's end of the engine port. Requests are answered by callback, from `deliver`, which the thread's loop calls
 * for each message it drained. Nothing here waits.
 */
import type { Log, LogLevel } from '../engine/log.js'
import type { ArchiveInfo, EngineChannel, EngineReplies, EngineRequest, Progress, ToEngine, ToFuse, WireError } from './engine-port.js'

type Kind = EngineRequest['kind']
type Callback = (error: WireError | undefined, value: unknown) => void

export class EngineClient implements Log {
  /** Called with each complete new list of archives. */
  onArchives: ((archives: readonly ArchiveInfo[]) => void) | undefined
  /** Called when everything staged is to be committed; `finished` must follow. */
  onFinish: (() => void) | undefined
  readonly #channel: EngineChannel<ToEngine>
  readonly #waiting = new Map<number, Callback>()
  readonly #listeners = new Map<number, (progress: Progress) => void>()
  #next = 1
  #closed = false

  constructor(channel: EngineChannel<ToEngine>) {
    this.#channel = channel
  }

  /**
   * Asks; `done` is called exactly once with an error or the value: from `deliver`, or at once with EIO after `close`. `progress`
   * hears of a commit, or of a range that is cut, before that.
   */
  request<K extends Kind>(request: Extract<EngineRequest, { kind: K }>,
    done: (error: WireError | undefined, value: EngineReplies[K]) => void, progress?: (progress: Progress) => void): void {
    const id = this.#next++
    this.#waiting.set(id, done as Callback)
    if (progress) this.#listeners.set(id, progress)
    if (this.#closed) this.#settle(id, closedError, undefined)
    else this.#channel.post({ type: 'request', id, request })
  }

  /** One message of the engine thread. */
  deliver(message: ToFuse): void {
    switch (message.type) {
      case 'reply': return this.#settle(message.id, undefined, message.value)
      case 'error': return this.#settle(message.id, message.error, undefined)
      case 'progress': return this.#listeners.get(message.id)?.(message.progress)
      case 'archives': return this.onArchives?.(message.archives)
      case 'finish': return this.onFinish ? this.onFinish() : this.finished([])
    }
  }

  write(level: LogLevel, topic: string, message: string): void {
    if (!this.#closed) this.#channel.post({ type: 'log', level, topic, message })
  }

  /** The answer to onFinish. */
  finished(kept: readonly string[]): void {
    this.#channel.post({ type: 'finished', kept })
  }

  /** The engine thread is gone or going: whoever waits gets an error now. */
  close(): void {
    this.#closed = true
    for (const id of [...this.#waiting.keys()]) this.#settle(id, closedError, undefined)
  }

  #settle(id: number, error: WireError | undefined, value: unknown): void {
    const done = this.#waiting.get(id)
    if (!done) return
    this.#waiting.delete(id)
    this.#listeners.delete(id)
    done(error, value)
  }
}

const closedError: WireError = { code: 'EIO', msgid: undefined, message: 'The mount is being closed.' }
