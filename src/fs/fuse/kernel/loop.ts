/**
 * The FUSE thread: waits in the kernel for a request or a wake-up, answers, and never returns to the event loop until the
 * file system is unmounted. So promises, timers and `on('message')` of this thread do nothing meanwhile; work comes in by
 * messages on `port`, each followed by a signal on `wakeFd`, and `tick` stands in for timers.
 */
import { randomInt } from 'node:crypto'
import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads'
import { type Log, silentLog } from '../../../engine/log.js'
import { native } from '../../../engine/native.js'
import type { FsCore, KernelNotices } from '../../core.js'
import { useGeneration } from './answers.js'
import { Dispatcher } from './dispatch.js'
import { Notices } from './notices.js'
import { Replies } from './replies.js'

export interface KernelLoopOptions {
  /** The device, as attach() made it. The loop does not close it. */
  readonly fd: number
  /** From native().eventFd(). */
  readonly wakeFd: number
  readonly port?: MessagePort | undefined
  /** Each message of the port. */
  readonly onMessage?: ((message: unknown) => void) | undefined
  /** Called at least every `tickMs`, also under load, after messages, and soon where the core is behind. Monotonic milliseconds. */
  readonly tick?: ((nowMs: number) => void) | undefined
  readonly tickMs?: number
  readonly log?: Log
  /** For `allow_root`: the one user beside root. */
  readonly onlyUid?: number | undefined
  /** With `default_permissions`: the kernel goes by ACLs too. */
  readonly checksAcls?: boolean
}

/** Under load the clock is read once in so many requests, if nothing was put off. */
const requestsBetweenClocks = 32

export class KernelLoop {
  /** For the core, which is made after the loop and may use them at any time from this thread. */
  readonly notices: KernelNotices
  readonly #options: KernelLoopOptions
  readonly #notices: Notices
  readonly #log: Log
  #stopped = false

  constructor(options: KernelLoopOptions) {
    this.#options = options
    this.#log = options.log ?? silentLog
    this.#notices = new Notices(options.fd, options.wakeFd)
    this.notices = this.#notices
  }

  /** Makes `run` return soon; from a message handler or an operation. The mount stays, unserved: for tests and emergencies. */
  stop(): void {
    this.#stopped = true
  }

  /**
   * Blocks until the file system is unmounted ('unmounted') or stop() ('stopped'). Errors of the core are logged and become
   * EIO. Afterwards the thread's event loop turns again; the core is not destroyed, it may have things to finish.
   */
  run(core: FsCore): 'unmounted' | 'stopped' {
    const { fd, wakeFd, tickMs = 1000 } = this.#options
    const { openDevice, receiveRequest } = native()
    useGeneration(randomInt(1, 2 ** 31))
    const { log, onlyUid, checksAcls = false } = this.#options
    const dispatcher = new Dispatcher(core, new Replies(fd), { ...(log && { log }), onlyUid, checksAcls })
    const device = openDevice(fd, wakeFd, dispatcher.slot.bytes, tickMs)
    let replyLength = 0
    let nextTickMs = performance.now() + tickMs
    let untilClock = requestsBetweenClocks
    // What was posted before the loop began.
    this.#drain()
    const lend = (): void => core.lend?.()
    const takeBack = (): void => core.takeBack?.()
    while (!this.#stopped) {
      this.#guard(lend)
      let length: number
      try {
        length = receiveRequest(device, replyLength, core.isBehind === true)
      } finally {
        this.#guard(takeBack)
      }
      replyLength = 0
      if (length > 0) {
        try {
          replyLength = dispatcher.handle(length)
        } catch (error) {
          this.#failed(error)
        }
        if (--untilClock > 0 && !core.isBehind) continue
        untilClock = requestsBetweenClocks
        if (performance.now() < nextTickMs) continue
      } else if (length === -1) {
        this.#notices.close()
        return 'unmounted'
      } else if (length < 0) {
        dispatcher.notTaken(-1 - length)
        continue
      } else {
        this.#drain()
      }
      const nowMs = performance.now()
      nextTickMs = nowMs + tickMs
      this.#guard(() => this.#options.tick?.(nowMs))
    }
    this.#notices.close()
    return 'stopped'
  }

  #drain(): void {
    this.#guard(() => this.#notices.drain())
    const { port, onMessage } = this.#options
    if (!port) return
    for (;;) {
      const received = receiveMessageOnPort(port) as { message: unknown } | undefined
      if (!received) return
      this.#guard(() => onMessage?.(received.message))
    }
  }

  #guard(work: () => void): void {
    try {
      work()
    } catch (error) {
      this.#failed(error)
    }
  }

  #failed(error: unknown): void {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
    this.#log.write('error', 'fuse', `The mount goes on after an error: ${text}`)
  }
}
