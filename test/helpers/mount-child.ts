/**
 * Serves a MemoryFs at a mountpoint. Started by mount.ts, told what to do over the IPC channel, ends when unmounted. The
 * kernel transport runs in a thread of its own as in the product, fuse-native in this one, as it must.
 */
import { MessageChannel, Worker } from 'node:worker_threads'
import { native } from '../../src/engine/native.js'
import { mountFuseNative } from '../../src/fs/fuse/fuse-native/adapter.js'
import { attach, prepareMountpoint } from '../../src/fs/fuse/kernel/attach.js'
import { defaultMountOptions, type MountOptions } from '../../src/fs/fuse/transport.js'
import { MemoryFs } from './memory-fs.js'
import { obey, prefill } from './mount-commands.js'
import type { MountChildSettings } from './mount.js'

const settings = JSON.parse(process.argv[2]!) as MountChildSettings
const log = { write: (level: string, topic: string, message: string) => say({ log: `${level} ${topic}: ${message}` }) }

function say(message: unknown): void {
  if (process.connected) process.send!(message)
}

async function main(): Promise<void> {
  const mountpoint = await prepareMountpoint(settings.mountpoint, log)
  const options: MountOptions = { ...defaultMountOptions, ...settings.options, mountpoint }
  if (settings.transport === 'fuse-native') await serveByFuseNative(options)
  else await serveByKernel(options)
}

async function serveByKernel(options: MountOptions): Promise<void> {
  const attachment = await attach(options)
  const wakeFd = native().eventFd()
  const { port1, port2 } = new MessageChannel()
  const worker = new Worker(new URL('./mount-thread.js', import.meta.url), {
    workerData: { fd: attachment.fd, wakeFd, port: port2, settings }, transferList: [port2],
  })
  port1.on('message', say)
  worker.on('message', (end: unknown) => say(end))
  worker.on('error', (error) => say({ failed: error.stack }))
  let unmounting: Promise<void> | undefined
  worker.on('exit', () => {
    port1.close()
    void attachment.close().then(() => unmounting).then(hangUp)
  })
  process.on('message', (message: { unmount?: { lazy?: boolean } }) => {
    if (message.unmount) {
      unmounting = attachment.unmount(message.unmount).then(() => say({ unmounted: true }), (error: Error) => say({ failed: error.message }))
    } else {
      port1.postMessage(message)
      native().signalEventFd(wakeFd)
    }
  })
  process.once('disconnect', () => void attachment.unmount({ lazy: true }))
  say({ ready: true })
}

async function serveByFuseNative(options: MountOptions): Promise<void> {
  const fs = new MemoryFs(settings.memory)
  prefill(fs, settings)
  const session = await mountFuseNative(fs, options, log)
  let unmounting: Promise<void> | undefined
  process.on('message', (message: { unmount?: { lazy?: boolean } }) => {
    if (message.unmount) unmounting = session.unmount(message.unmount).then(() => say({ unmounted: true }), (error: Error) => say({ failed: error.message }))
    else say(obey(fs, session.notices, message, { ticks: 0 }))
  })
  process.once('disconnect', () => void session.unmount({ lazy: true }))
  say({ ready: true })
  const end = await session.closed
  fs.destroy()
  say({ end, handles: fs.handleCount })
  await unmounting
  // Its threads keep the event loop alive. The channel is emptied first.
  process.once('disconnect', () => process.exit(0))
  if (process.connected) process.disconnect()
  else process.exit(0)
}

function hangUp(): void {
  if (process.connected) process.disconnect()
}

main().catch((error: Error) => {
  say({ failed: error.message })
  hangUp()
})
