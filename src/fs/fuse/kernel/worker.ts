/** The body of the FUSE thread: makes the filesystem, serves it until it is unmounted, then lets incoming/ finish. */
import { type MessagePort, workerData } from 'node:worker_threads'
import { type DriveParts, makeDrive } from '../../drive.js'
import { EngineClient } from '../../engine-client.js'
import type { MountView, ToEngine, ToFuse } from '../../engine-port.js'
import { NativeDirectoryLoans } from './directory-loans.js'
import { KernelLoop } from './loop.js'
import { NativeTreeAnswers } from './tree-answers.js'

export interface FuseThreadData {
  readonly fd: number
  readonly wakeFd: number
  readonly view: MountView
  readonly parts: DriveParts
  readonly onlyUid: number | undefined
  readonly checksAcls: boolean
}

const tickMs = 250

/** The thread is started, and its code loaded, before it is known what it will serve. */
const { port } = workerData as { port: MessagePort }
port.once('message', serve)

function serve({ fd, wakeFd, view, parts, onlyUid, checksAcls }: FuseThreadData): void {
  const client = new EngineClient({ post: (message: ToEngine, transfer) => port.postMessage(message, transfer ? [...transfer] : []) })
  const receive = (message: ToFuse): void => {
    client.deliver(message)
    fs.tick(performance.now())
  }
  const loop = new KernelLoop({
    fd, wakeFd, port, onlyUid, checksAcls, log: client, tickMs,
    onMessage: message => receive(message as ToFuse),
    tick: nowMs => fs.tick(nowMs),
  })
  // Whom the kernel lets ask and we do not is only known to the dispatcher.
  const isForAll = onlyUid === undefined
  const fs = makeDrive(view, parts, client, loop.notices, isForAll ? new NativeTreeAnswers() : undefined, isForAll ? new NativeDirectoryLoans() : undefined)

  port.postMessage({ type: 'log', level: 'debug', topic: 'borg.fuse', message: 'serving' } satisfies ToEngine)
  const end = loop.run(fs)
  if (end === 'unmounted') fs.unserved()
  // From here on messages come by the event loop: commits that are still to be made, then the end.
  port.on('message', (message: ToFuse | { type: 'end' }) => {
    if (message.type === 'end') {
      fs.destroy()
      port.close()
    } else receive(message)
  })
  port.postMessage({ type: 'unserved', end })
}
