/** The body of a thread that walks segments for check: a job in, columns out. */
import { parentPort } from 'node:worker_threads'
import { walkSegment, type WalkFailed, type WalkJob } from './segment-walk.js'

const port = parentPort!

port.on('message', (job: WalkJob) => {
  try {
    const entries = walkSegment(job)
    port.postMessage(entries, [entries.tags.buffer, entries.ids.buffer, entries.offsets.buffer, entries.sizes.buffer] as ArrayBuffer[])
  } catch (error) {
    // A clone of an Error would lose its code.
    const { message, code, path } = error as NodeJS.ErrnoException
    port.postMessage({ failed: message, code, path } satisfies WalkFailed)
  }
})
