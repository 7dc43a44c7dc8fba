/** The FUSE thread of mount-child.ts: a MemoryFs behind the kernel loop, steered by messages. */
import { parentPort, workerData } from 'node:worker_threads'
import { KernelLoop } from '../../src/fs/fuse/kernel/loop.js'
import { obey, prefill } from './mount-commands.js'
import type { MountChildSettings } from './mount.js'
import { MemoryFs } from './memory-fs.js'

const { fd, wakeFd, port, settings } = workerData as {
  fd: number; wakeFd: number; port: import('node:worker_threads').MessagePort; settings: MountChildSettings
}
let ticks = 0
const fs = new MemoryFs(settings.memory)
prefill(fs, settings)
const loop = new KernelLoop({
  fd, wakeFd, port,
  onMessage(message) {
    port.postMessage(obey(fs, loop.notices, message, { ticks }))
  },
  tick: () => ticks++,
  tickMs: 20,
  log: { write: (level, topic, message) => port.postMessage({ log: `${level} ${topic}: ${message}` }) },
  onlyUid: settings.onlyUid,
})
const end = loop.run(fs)
fs.destroy()
parentPort!.postMessage({ end, handles: fs.handleCount })
port.close()
