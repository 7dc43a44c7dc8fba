/**
 * Starts the FUSE thread. Apart from the rest, because bin/borgfs.js does so before it loads anything else: the mount waits for this
 * thread longer than for the repository.
 */
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads'

export interface FuseThread {
  readonly port: MessagePort
  readonly worker: Worker
}

/** It loads its code and waits for what it is to serve: MountSession.start. Nobody waits for it before. */
export function startFuseThread(): FuseThread {
  const { port1: port, port2 } = new MessageChannel()
  const worker = new Worker(new URL('./fuse/kernel/worker.js', import.meta.url), { workerData: { port: port2 }, transferList: [port2], trackUnmanagedFds: false })
  // Whatever goes wrong before it serves must not find the process waiting for it.
  worker.unref()
  port.unref()
  return { port, worker }
}
