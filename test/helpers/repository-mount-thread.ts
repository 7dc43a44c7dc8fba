/** The FUSE thread of repository-mount.ts: the drive's core behind the kernel loop. */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads'
import { EngineClient } from '../../src/fs/engine-client.js'
import type { MountView, ToFuse } from '../../src/fs/engine-port.js'
import { KernelLoop } from '../../src/fs/fuse/kernel/loop.js'
import { VirtualFs } from '../../src/fs/virtual-fs.js'

const { fd, wakeFd, port, view } = workerData as { fd: number; wakeFd: number; port: MessagePort; view: MountView }
const client = new EngineClient({ post: (message) => port.postMessage(message) })
const loop = new KernelLoop({
  fd, wakeFd, port, log: client,
  onMessage: (message) => client.deliver(message as ToFuse),
  tick: (nowMs) => fs.tick(nowMs),
})
const fs = new VirtualFs({ view, client, notices: loop.notices })
const end = loop.run(fs)
client.close()
fs.destroy()
parentPort!.postMessage(end)
port.close()
