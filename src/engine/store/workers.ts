/** The pool of byte workers, as many as there are cores: jobs in, results out, in any order. */
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import type { Codec } from '../codec/codec.js'
import type { Key } from '../crypto/key.js'
import { native } from '../native.js'
import type { SharedTable } from '../hashindex/hash-table.js'
import { open } from './open-job.js'
import { JobMemory, type WorkerState } from './worker-state.js'
import type { FromWorker, JobFailed, OpenJob, OpenResult, PackJob, PackResult, RepackJob, RepackResult, SealJob, SealResult, ToWorker, UnsealJob, WorkerSetup } from './jobs.js'

type JobResult = Exclude<FromWorker, JobFailed>

interface Waiting {
  readonly resolve: (result: JobResult) => void
  readonly reject: (error: Error) => void
}

interface Member {
  readonly worker: Worker
  readonly jobs: Map<number, Waiting>
}

type NewJob = Omit<PackJob, 'job'> | Omit<OpenJob, 'job'> | Omit<RepackJob, 'job'> | Omit<SealJob, 'job'> | Omit<UnsealJob, 'job'>
interface Queued {
  readonly message: ToWorker & { job: number }
  readonly waiting: Waiting
  readonly transfer: ArrayBuffer[]
}

/** A chunk that is opened in less time than it takes to wake a thread and be woken by it. */
const quickBytes = 64 << 10
/** Jobs given to a worker at a time: one to work on, one to go on with at once. */
const jobsPerWorker = 2

export class Workers {
  readonly #count: number
  readonly #setup: { material: NonNullable<WorkerSetup['material']>; codec?: string; index?: SharedTable }
  readonly #members: Member[] = []
  /** Demand goes before what is only expected to be wanted. */
  readonly #urgent: Queued[] = []
  readonly #queue: Queued[] = []
  #nextJob = 1
  /** For small jobs in this thread, and the stored bytes that may still be opened here. */
  readonly #here: WorkerState
  #bytesHere = 512 << 10
  #lastHere: Promise<unknown> = Promise.resolve()
  #closed = false

  constructor(options: { key: Key; codec?: Codec; count?: number }) {
    this.#count = options.count ?? availableParallelism()
    this.#here = { key: options.key, codec: undefined, index: undefined, memory: new JobMemory() }
    this.#setup = { material: options.key.material(), ...(options.codec ? { codec: options.codec.spec } : {}) }
  }

  get count(): number {
    return this.#count
  }

  /** Whether threads are there: what begins with few bytes need not start them. */
  get started(): boolean {
    return this.#members.length > 0
  }

  /** Starts the threads now, so that they are ready when the first job comes. */
  start(): void {
    while (this.#members.length < this.#count) this.#members.push(this.#begin())
  }

  setCodec(codec: Codec): void {
    this.#setup.codec = codec.spec
    this.#tell({ kind: 'setup', codec: codec.spec })
  }

  /** Where ids are looked up from now on. Jobs already given still use the older table, which only costs work. */
  setIndex(index: SharedTable): void {
    const { index: known } = this.#setup
    if (known && known.buffer === index.buffer && known.path === index.path) return
    this.#setup.index = index
    this.#tell({ kind: 'setup', index })
  }

  pack(job: Omit<PackJob, 'job' | 'kind'>): Promise<PackResult> {
    return this.#run({ kind: 'pack', ...job }, false) as Promise<PackResult>
  }

  /** `urgent`: before what is not. `alone`: somebody waits for this and for nothing else, so that a quick one need not go to another thread and back. */
  open(job: Omit<OpenJob, 'job' | 'kind'>, options: { urgent?: boolean; alone?: boolean } = {}): Promise<OpenResult> {
    if (!this.#closed && (this.#members.length === 0 ? this.#isSmall(job) : options.alone && this.#isQuick(job))) return this.#openHere({ kind: 'open', job: 0, ...job })
    return this.#run({ kind: 'open', ...job }, options.urgent ?? true) as Promise<OpenResult>
  }

  /** One after the other, as in a thread of their own: they share their memory. */
  #openHere(job: OpenJob): Promise<OpenResult> {
    this.#jobsHere++
    const opened = this.#lastHere.then(() => open(this.#here, job)).finally(() => this.#jobsHere--)
    this.#lastHere = opened.catch(() => undefined)
    return opened
  }
  #jobsHere = 0

  /** A job that this thread does sooner than another one wakes, if it is the only one. */
  #isQuick({ entryLengths, sizes }: Omit<OpenJob, 'job' | 'kind'>): boolean {
    if (this.#jobsHere > 0 || entryLengths.length > 1) return false
    return entryLengths[0]! <= quickBytes && sizes[0]! <= quickBytes
  }

  /** Whoever reads a file or two is done before a thread would have started. */
  #isSmall(job: Omit<OpenJob, 'job' | 'kind'>): boolean {
    let bytes = 0
    for (const length of job.entryLengths) bytes += length
    if (bytes > this.#bytesHere) return false
    this.#bytesHere -= bytes
    return true
  }

  repack(job: Omit<RepackJob, 'job' | 'kind'>): Promise<RepackResult> {
    return this.#run({ kind: 'repack', ...job }, false) as Promise<RepackResult>
  }

  seal(job: Omit<SealJob, 'job' | 'kind'>): Promise<SealResult> {
    return this.#run({ kind: 'seal', ...job }, false) as Promise<SealResult>
  }

  async unseal(job: Omit<UnsealJob, 'job' | 'kind'>): Promise<void> {
    await this.#run({ kind: 'unseal', ...job }, true)
  }

  #run(job: NewJob, urgent: boolean): Promise<JobResult> {
    if (this.#closed) return Promise.reject(new Error('the byte workers are closed'))
    return new Promise((resolve, reject) => {
      ;(urgent ? this.#urgent : this.#queue).push({ message: { ...job, job: this.#nextJob++ }, waiting: { resolve, reject }, transfer: [] })
      this.#give()
    })
  }

  #give(): void {
    for (;;) {
      const queue = this.#urgent.length > 0 ? this.#urgent : this.#queue
      if (queue.length === 0) return
      let idlest = this.#members[0]
      for (const member of this.#members) if (member.jobs.size < idlest!.jobs.size) idlest = member
      // As many threads as there is work for: starting one costs as much as opening a few megabytes.
      if (!idlest || (idlest.jobs.size > 0 && this.#members.length < this.#count)) this.#members.push((idlest = this.#begin()))
      if (idlest.jobs.size >= jobsPerWorker) return
      const { message, waiting, transfer } = queue.shift()!
      idlest.jobs.set(message.job, waiting)
      idlest.worker.ref()
      idlest.worker.postMessage(message, transfer)
    }
  }

  #tell(setup: WorkerSetup): void {
    for (const { worker } of this.#members) worker.postMessage(setup)
  }

  #begin(): Member {
    // lz4-napi brings an allocator of its own, which would give every chunk's memory back at once only to fault it in again
    // (native/addon.cc does the same for the rest). It reads the environment when it is loaded, in whichever thread.
    process.env.MIMALLOC_PURGE_DELAY ??= '100000'
    process.env.MIMALLOC_ALLOW_DECOMMIT ??= '0'
    native()
    const worker = new Worker(new URL('./byte-worker.js', import.meta.url), {
      // Descriptors come from the addon, which Node cannot know of.
      trackUnmanagedFds: false,
    })
    const member: Member = { worker, jobs: new Map() }
    // An idle pool must not keep a finished command alive.
    worker.unref()
    worker.on('message', (message: FromWorker) => this.#receive(member, message))
    worker.on('error', error => this.#lose(member, error))
    worker.on('exit', code => this.#lose(member, new Error(`a worker thread ended with code ${code}`)))
    worker.postMessage({ kind: 'setup', ...this.#setup } satisfies WorkerSetup)
    return member
  }

  #receive(member: Member, message: FromWorker): void {
    const waiting = member.jobs.get(message.job)
    member.jobs.delete(message.job)
    if (member.jobs.size === 0) member.worker.unref()
    this.#give()
    if (message.kind === 'failed') waiting?.reject(new Error(message.message))
    else waiting?.resolve(message)
  }

  /** A worker died: what it had in hand fails, a new one takes its place at the next job. */
  #lose(member: Member, error: Error): void {
    const at = this.#members.indexOf(member)
    if (at < 0) return
    this.#members.splice(at, 1)
    for (const waiting of member.jobs.values()) waiting.reject(error)
    member.jobs.clear()
  }

  async close(): Promise<void> {
    this.#closed = true
    const members = this.#members.splice(0)
    await Promise.all(members.map(({ worker }) => worker.terminate()))
    for (const { jobs } of members) for (const waiting of jobs.values()) waiting.reject(new Error('the byte workers are closed'))
  }
}
