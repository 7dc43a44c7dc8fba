/** The thread behind notices.ts: writes each message to the device, in order, for as long as a write may take. */
import { writeSync } from 'node:fs'
import { workerData } from 'node:worker_threads'
import { errnoOf } from '../../../engine/errors.js'
import type { NoticesThreadData } from './notices.js'

const { fd, port, queued } = workerData as NoticesThreadData

port.on('message', (message: Uint8Array | null) => {
  if (!message) return port.close()
  try {
    writeSync(fd, message)
  } catch (error) {
    // ENOENT: the kernel knows no such inode or name, so there was nothing to forget. EINVAL, ENOTDIR: it changed its kind meanwhile.
    // A notice is at most a lost optimisation or, with the mount gone, of no interest.
    if (errnoOf(error) === 'ENODEV' || errnoOf(error) === 'ENOTCONN') port.close()
  } finally {
    Atomics.sub(queued, 0, message.length)
  }
})
