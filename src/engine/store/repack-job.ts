/** Entries of segments -> the same plaintext in entries compressed by another method, without leaving the worker. */
import { methodOf } from '../codec/decompress.js'
import { plainHeader } from '../codec/none.js'
import type { OpenFailure, RepackJob, RepackResult } from './jobs.js'
import { failureOf, payloadOf, plaintextOf, readRun, runEnd } from './open-job.js'
import { type Output, sealEntry } from './pack-job.js'
import type { WorkerState } from './worker-state.js'

export async function repack(state: WorkerState, job: RepackJob): Promise<RepackResult> {
  const count = job.fds.length
  const lengths = new Uint32Array(count)
  const failures: OpenFailure[] = []
  const output: Output = { target: Buffer.from(job.output), used: 0, nonce: job.nonce }
  for (let first = 0; first < count; ) {
    const end = runEnd(job, first)
    const start = job.offsets[first]!
    let run: Buffer | undefined
    let problem: unknown
    try {
      run = readRun(state, job.fds[first]!, start, job.offsets[end - 1]! + job.entryLengths[end - 1]! - start)
    } catch (error) {
      problem = error
    }
    for (let index = first; index < end; index++) {
      try {
        if (!run) throw problem
        const at = job.offsets[index]! - start
        const { id, payload } = payloadOf(state, job, index, run.subarray(at, at + job.entryLengths[index]!))
        const before = methodOf(payload)
        const plain = await plaintextOf(state, job, index, id, payload, size => state.memory.plains.take(size))
        const compressed = await state.codec!.compress(plain)
        // What the method made of these bytes counts: those that do not shrink are stored as they are by any method.
        if (!job.always && methodOf(compressed === plain ? plainHeader : compressed) === before) continue
        lengths[index] = sealEntry(state.key!, id, plain, compressed, output)
      } catch (error) {
        failures.push(failureOf(index, error))
      } finally {
        // One plaintext at a time.
        state.memory.plains.clear()
      }
    }
    first = end
  }
  return { kind: 'repacked', job: job.job, lengths, failures }
}
