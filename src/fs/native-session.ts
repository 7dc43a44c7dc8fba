/**
 * A mount through fuse-native, which must live in the main thread: filesystem and engine share it, and speak by the same messages
 * as across threads, so that nothing above knows the difference.
 */
import type { Log } from '../engine/log.js'
import { makeDrive } from './drive.js'
import { EngineClient } from './engine-client.js'
import type { ToEngine, ToFuse } from './engine-port.js'
import { limits, mountFuseNative } from './fuse/fuse-native/adapter.js'
import { noNotices, type Session } from './fuse/transport.js'
import { type RunningMount, type SessionOptions, stopMount } from './mount-session.js'
import { MountService } from './mount-service.js'

const tickMs = 250

export class NativeSession implements RunningMount {
  readonly ended: Promise<readonly string[]>
  readonly #session: Session
  readonly #service: MountService
  readonly #log: Log

  private constructor(session: Session, service: MountService, ended: Promise<readonly string[]>, log: Log) {
    this.#session = session
    this.#service = service
    this.ended = ended
    this.#log = log
  }

  /** Mounts and serves; says what this transport cannot do. */
  static async start(options: SessionOptions): Promise<NativeSession> {
    const { log } = options
    for (const sentence of limits()) log.write('warning', 'borg.fuse', `fuse-native: ${sentence}`)
    // Messages arrive later, as they would from another thread: nobody is called back from within his own call.
    const service: MountService = new MountService({ ...options.service, channel: { post: (message: ToFuse) => void setImmediate(() => {
      client.deliver(message)
      fs.tick(performance.now())
    }) } })
    const client = new EngineClient({ post: (message: ToEngine) => void setImmediate(() => service.receive(message)) })
    const fs = makeDrive(options.view, options.parts, client, noNotices)
    const session = await mountFuseNative(fs, options.mount, log)
    const timer = setInterval(() => fs.tick(performance.now()), tickMs)
    const ended = session.closed.then(async () => {
      clearInterval(timer)
      fs.unserved()
      const kept = await service.finishAnew()
      await service.close()
      fs.destroy()
      return kept
    })
    return new NativeSession(session, service, ended, log)
  }

  lookAgain(): Promise<void> {
    return this.#service.lease.check()
  }

  stop(): Promise<readonly string[]> {
    return stopMount(this.#session, () => this.#service.finish(), this.#log)
  }
}
