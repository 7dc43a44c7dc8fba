/** The body of a byte worker: pure functions of bytes, one job after the other (docs/architecture.md). */
import { parentPort } from 'node:worker_threads'
import { pack } from './pack-job.js'
import { open } from './open-job.js'
import type { FromWorker, ToWorker } from './jobs.js'
import { repack } from './repack-job.js'
import { seal, unseal } from './seal-job.js'
import { JobMemory, setUp, type WorkerState } from './worker-state.js'
import { messageOf } from '../errors.js'

const state: WorkerState = { key: undefined, codec: undefined, index: undefined, memory: new JobMemory() }
const port = parentPort!

// Jobs are taken strictly one by one: lzma, the only asynchronous method, must not let the next one overtake.
let chain: Promise<void> = Promise.resolve()
port.on('message', (message: ToWorker) => {
  chain = chain.then(() => work(message))
})

async function work(message: ToWorker): Promise<void> {
  if (message.kind === 'setup') return setUp(state, message)
  try {
    const result = await run(message)
    const data = result.kind === 'opened' ? result.data : undefined
    const transfer = data?.buffer instanceof ArrayBuffer && data.byteLength > 1 << 16 ? [data.buffer] : []
    port.postMessage(result, transfer)
  } catch (error) {
    port.postMessage({ kind: 'failed', job: message.job, message: messageOf(error) } satisfies FromWorker)
  }
}

async function run(message: Exclude<ToWorker, { kind: 'setup' }>): Promise<FromWorker> {
  switch (message.kind) {
    case 'pack': return pack(state, message)
    case 'repack': return repack(state, message)
    case 'open': return open(state, message)
    case 'seal': return { kind: 'sealed', job: message.job, ...seal(state.key!, message) }
    case 'unseal': return { kind: 'unsealed', job: message.job, ...unseal(state.key!, message) }
  }
}
