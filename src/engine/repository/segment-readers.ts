/**
 * Walks segments in threads of their own, as many as there are cores, and gives the results in the order asked. Each segment is
 * read by one thread from front to back: that is what disks like, and a thread verifies faster than most of them deliver.
 */
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { type SegmentEntries, walkSegment, type WalkFailed, type WalkJob } from './segment-walk.js'

/** Below this many bytes starting threads costs more than they save: one verifies some 10 GB/s. */
const worthThreadsBytes = 1 << 30

interface Job {
  readonly job: WalkJob
  readonly resolve: (entries: SegmentEntries) => void
  readonly reject: (error: Error) => void
}

export class SegmentReaders {
  readonly #count: number
  readonly #idle: Worker[] = []
  readonly #busy = new Map<Worker, Job>()
  readonly #queue: Job[] = []
  #closed = false

  /** `bytes` and `segments`: what will be read in all. */
  constructor(bytes: number, segments: number) {
    this.#count = bytes < worthThreadsBytes || segments < 2 ? 0 : Math.min(availableParallelism(), segments)
  }

  /** Jobs worth giving before the first result is awaited. */
  get ahead(): number {
    return this.#count === 0 ? 1 : this.#count + 1
  }

  walk(job: WalkJob): Promise<SegmentEntries> {
    if (this.#closed) return Promise.reject(new Error('the segment readers are closed'))
    if (this.#count === 0) return new Promise(resolve => resolve(walkSegment(job)))
    return new Promise((resolve, reject) => {
      this.#queue.push({ job, resolve, reject })
      this.#give()
    })
  }

  #give(): void {
    while (this.#queue.length > 0) {
      const worker = this.#idle.pop() ?? (this.#busy.size < this.#count ? this.#begin() : undefined)
      if (!worker) return
      const job = this.#queue.shift()!
      this.#busy.set(worker, job)
      worker.postMessage(job.job)
    }
  }

  #begin(): Worker {
    const worker = new Worker(new URL('./segment-worker.js', import.meta.url))
    worker.on('message', (result: SegmentEntries | WalkFailed) => {
      const job = this.#busy.get(worker)
      this.#busy.delete(worker)
      this.#idle.push(worker)
      this.#give()
      if ('failed' in result) job?.reject(Object.assign(new Error(result.failed), { code: result.code, path: result.path }))
      else job?.resolve(result)
    })
    const lost = (error: Error): void => {
      const job = this.#busy.get(worker)
      this.#busy.delete(worker)
      if (this.#idle.includes(worker)) this.#idle.splice(this.#idle.indexOf(worker), 1)
      job?.reject(error)
    }
    worker.on('error', lost)
    worker.on('exit', code => lost(new Error(`a thread that reads segments ended with code ${code}`)))
    return worker
  }

  async close(): Promise<void> {
    this.#closed = true
    const workers = [...this.#idle.splice(0), ...this.#busy.keys()]
    await Promise.all(workers.map(worker => worker.terminate()))
  }
}
