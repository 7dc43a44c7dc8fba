/** The thread behind notices.ts: writes each message to the device, in order, for as long as a write may take. */
import { writeSync } from 'node:fs'
import { workerData } from 'node:worker_threads'
import { errnoOf } from '../../../engine/errors.js'
import { native } from '../../../engine/native.js'
import type { NoticesThreadData, PostedNotice } from './notices.js'

const { fd, port, queued, wakeFd } = workerData as NoticesThreadData

port.on('message', (message: PostedNotice | null) => {
  if (!message) return port.close()
  const { bytes, answer } = message
  try {
    writeSync(fd, bytes)
  } catch (error) {
    // ENOENT: the kernel knows no such inode or name, so there was nothing to forget. EINVAL, ENOTDIR: it changed its kind meanwhile.
    // A notice is at most a lost optimisation or, with the mount gone, of no interest.
    if (errnoOf(error) === 'ENODEV' || errnoOf(error) === 'ENOTCONN') port.close()
  } finally {
    Atomics.sub(queued, 0, bytes.length)
    if (answer !== undefined) {
      port.postMessage(answer)
      native().signalEventFd(wakeFd)
    }
  }
})
