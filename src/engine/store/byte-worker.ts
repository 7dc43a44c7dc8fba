/** The body of a byte worker: pure functions of bytes (docs/architecture.md). */
import { parentPort, receiveMessageOnPort } from 'node:worker_threads'
import { pack } from './pack-job.js'
import { Opener } from './open-job.js'
import type { FromWorker, ToWorker } from './jobs.js'
import { repack } from './repack-job.js'
import { seal, unseal } from './seal-job.js'
import { JobMemory, setUp, type WorkerState } from './worker-state.js'
import { messageOf } from '../errors.js'
import { collectGarbage } from '../shared-garbage.js'

const state: WorkerState = { key: undefined, codec: undefined, index: undefined, memory: new JobMemory() }
const port = parentPort!

const waiting: ToWorker[] = []
/** Open jobs run together with those that come meanwhile; all else is done strictly one by one: lzma, the only asynchronous method, must not let the next one overtake. */
const opener = new Opener(state, () => {
  for (let received = receiveMessageOnPort(port); received; received = receiveMessageOnPort(port)) waiting.push(received.message as ToWorker)
  let found = false
  for (let next = waiting[0]; next?.kind === 'open'; next = waiting[0]) {
    waiting.shift()
    const { job } = next
    opener.add(next, answer, error => fail(job, error))
    found = true
  }
  return found
})

let working = false
port.on('message', (message: ToWorker) => {
  waiting.push(message)
  if (!working) void work()
})

async function work(): Promise<void> {
  working = true
  for (let message = waiting[0]; message; message = waiting[0]) {
    if (message.kind === 'open') {
      await opener.run()
      continue
    }
    waiting.shift()
    if (message.kind === 'setup') setUp(state, message)
    else if (message.kind === 'rest') {
      state.memory.drop()
      collectGarbage()
    }
    else {
      try {
        answer(await run(message))
      } catch (error) {
        fail(message.job, error)
      }
    }
  }
  working = false
}

function answer(result: FromWorker): void {
  const data = result.kind === 'opened' ? result.data : undefined
  port.postMessage(result, data?.buffer instanceof ArrayBuffer && data.byteLength > 1 << 16 ? [data.buffer] : [])
}

function fail(job: number, error: unknown): void {
  port.postMessage({ kind: 'failed', job, message: messageOf(error) } satisfies FromWorker)
}

async function run(message: Exclude<ToWorker, { kind: 'setup' | 'rest' | 'open' }>): Promise<FromWorker> {
  switch (message.kind) {
    case 'pack': return pack(state, message)
    case 'repack': return repack(state, message)
    case 'seal': return { kind: 'sealed', job: message.job, ...seal(state.key!, message) }
    case 'unseal': return { kind: 'unsealed', job: message.job, ...unseal(state.key!, message) }
  }
}
