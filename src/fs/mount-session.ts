/**
 * A mount of an opened repository through the kernel transport, from the engine thread: starts the FUSE thread, answers it,
 * ends in order. What is staged is committed before the end, and only then the repository is let go.
 */
import type { MessagePort, Worker } from 'node:worker_threads'
import type { Log } from '../engine/log.js'
import { errnoOf, messageOf } from '../engine/errors.js'
import { native } from '../engine/native.js'
import type { DriveParts } from './drive.js'
import { type Attachment, attach } from './fuse/kernel/attach.js'
import type { FuseThread } from './fuse-thread.js'
import type { FuseThreadData } from './fuse/kernel/worker.js'
import type { MountOptions } from './fuse/transport.js'
import type { MountView, ToEngine, ToFuse } from './engine-port.js'
import { MountService, type MountServiceOptions } from './mount-service.js'

/** A staging folder on a disk that hangs must not keep the process for ever. */
const tidyingMs = 30_000

export interface SessionOptions {
  readonly mount: MountOptions
  readonly view: MountView
  readonly service: Omit<MountServiceOptions, 'channel'>
  readonly parts: DriveParts
  readonly onlyUid: number | undefined
  readonly log: Log
}

/** A mount that is being served, by whichever transport. */
export interface RunningMount {
  /** Resolves when the mount is gone and what was staged is an archive or kept: the sentences of what was kept. */
  readonly ended: Promise<readonly string[]>
  /** For whoever misses an object: looks whether another client moved it. */
  lookAgain(): Promise<void>
  /**
   * Unmounts and commits; the sentences of what was kept. If programs are still inside, the mount goes when they leave, which nobody waits for
   * here; but for what is committed, however long that takes: whoever goes on may end the process.
   */
  stop(): Promise<readonly string[]>
}

export class MountSession implements RunningMount {
  /** Resolves when the mount is gone, by whomever, and everything staged was committed or kept. The sentences of what was kept. */
  readonly ended: Promise<readonly string[]>
  readonly #attachment: Attachment
  readonly #service: MountService
  readonly #log: Log

  private constructor(attachment: Attachment, service: MountService, ended: Promise<readonly string[]>, log: Log) {
    this.#attachment = attachment
    this.#service = service
    this.ended = ended
    this.#log = log
  }

  /** Mounts and serves. Errors leave no mount behind. */
  static async start({ port, worker }: FuseThread, options: SessionOptions): Promise<MountSession> {
    const { log } = options
    const attachment = await attach(options.mount)
    const wakeFd = native().eventFd()
    const service = new MountService({
      ...options.service,
      channel: {
        post(message: ToFuse, transfer) {
          port.postMessage(message, transfer ? [...transfer] : [])
          native().signalEventFd(wakeFd)
        },
      },
    })
    worker.ref()
    port.ref()
    port.postMessage({ fd: attachment.fd, wakeFd, view: options.view, parts: options.parts, onlyUid: options.onlyUid, checksAcls: options.mount.defaultPermissions } satisfies FuseThreadData)
    let serving: (() => void) | undefined
    const started = new Promise<void>((resolve, reject) => {
      serving = resolve
      worker.once('error', reject)
      worker.once('exit', () => reject(new Error('the FUSE thread ended before it served')))
    })
    const unserved = new Promise<void>((resolve, reject) => {
      port.on('message', (message: ToEngine | { type: 'unserved' }) => {
        if (message.type === 'unserved') resolve()
        else {
          serving?.()
          service.receive(message)
        }
      })
      worker.on('error', error => {
        log.write('error', 'borg.fuse', `The FUSE thread failed: ${errnoOf(error) === undefined ? error.stack ?? messageOf(error) : messageOf(error)}`)
        reject(error)
      })
    })
    unserved.catch(() => undefined)
    try {
      await started
    } catch (error) {
      await attachment.unmount({ lazy: true }).catch(() => undefined)
      attachment.close()
      throw error
    }
    const session = new MountSession(attachment, service, MountSession.#end(unserved, service, port, worker, attachment), log)
    return session
  }

  static async #end(unserved: Promise<void>, service: MountService, port: MessagePort, worker: Worker, attachment: Attachment): Promise<readonly string[]> {
    let kept: readonly string[] = []
    const exited = new Promise<void>(resolve => worker.once('exit', () => resolve()))
    try {
      await unserved
      kept = await Promise.race([service.finishAnew(), exited.then(() => Promise.reject(new Error('the FUSE thread ended before it had finished')))])
      port.postMessage({ type: 'end' })
    } catch {
      // The thread is gone; what was staged is in its journal.
      await attachment.unmount({ lazy: true }).catch(() => undefined)
    }
    await service.close()
    // It still tidies up the staging folder.
    let timer: NodeJS.Timeout | undefined
    await Promise.race([exited, new Promise(resolve => (timer = setTimeout(resolve, tidyingMs)))])
    clearTimeout(timer)
    await worker.terminate()
    attachment.close()
    return kept
  }

  /** For whoever misses an object: looks whether another client moved it. */
  lookAgain(): Promise<void> {
    return this.#service.lease.check()
  }

  stop(): Promise<readonly string[]> {
    // If the FUSE thread is gone nothing is finished any more.
    return stopMount(this.#attachment, () => Promise.race([this.#service.finish(), this.ended]), this.#log)
  }
}

/** See RunningMount.stop, for any transport. */
export async function stopMount(mount: Pick<Attachment, 'unmount'>, finish: () => Promise<readonly string[]>, log: Log): Promise<readonly string[]> {
  try {
    await mount.unmount()
    return await finish()
  } catch (error) {
    log.write('warning', 'borg.fuse', messageOf(error))
    const kept = await finish()
    await mount.unmount({ lazy: true })
    return kept
  }
}
