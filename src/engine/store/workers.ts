/** The pool of byte workers, as many as there are cores: jobs in, results out, in any order. */
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import type { Codec } from '../codec/codec.js'
import type { Key } from '../crypto/key.js'
import { native } from '../native.js'
import type { SharedTable } from '../hashindex/hash-table.js'
import { InTurn } from '../in-turn.js'
import { SharedTableReader } from '../hashindex/shared-table-reader.js'
import { giveBackShared, outgrown } from '../shared-garbage.js'
import { open } from './open-job.js'
import { pack } from './pack-job.js'
import { JobMemory, type WorkerState } from './worker-state.js'
import type { FromWorker, JobFailed, OpenJob, OpenResult, PackJob, PackResult, RepackJob, RepackResult, SealJob, SealResult, ToWorker, UnsealJob, WorkerRest, WorkerSetup } from './jobs.js'
import { ProvenObjects } from './proven-objects.js'

type JobResult = Exclude<FromWorker, JobFailed>

interface Waiting {
  readonly resolve: (result: JobResult) => void
  readonly reject: (error: Error) => void
}

interface Member {
  readonly worker: Worker
  /** A short list. In a map they would grow old: the tables that a JavaScript map goes through refer to each other, and so to all jobs. */
  readonly jobs: Queued[]
}

type NewJob = Omit<PackJob, 'job'> | Omit<OpenJob, 'job'> | Omit<RepackJob, 'job'> | Omit<SealJob, 'job'> | Omit<UnsealJob, 'job'>
interface Queued {
  readonly message: ToWorker & { job: number }
  readonly waiting: Waiting
  readonly bytes: number
}

/** A chunk that is opened in less time than it takes to wake a thread and be woken by it. */
const quickBytes = 64 << 10
/**
 * A further thread costs 10 MB and, until it runs, as much time as this many bytes of work. Where all jobs together have less, as those of many tiny
 * files do, one that is there keeps up with this thread: unless it needs so long for a job that it must be the disk that it waits for.
 */
const bytesPerThread = 256 << 10, patienceMs = 250
/** Compression that is quick, and the bytes that are compressed while a file is read. */
const quickCodecs: ReadonlySet<string> = new Set(['none', 'lz4'])
const fileCostBytes = 16 << 10
/** Jobs given to a worker at a time: one to work on, one to go on with at once. */
const jobsPerWorker = 2

export class Workers {
  readonly #count: number
  readonly #setup: { material: NonNullable<WorkerSetup['material']>; codec?: string; index?: SharedTable; proven?: SharedArrayBuffer }
  readonly #members: Member[] = []
  /** Demand goes before what is only expected to be wanted. */
  readonly #urgent: Queued[] = []
  readonly #queue: Queued[] = []
  /** What all jobs given and waiting have to work on, but for what is done aside. */
  #bytes = 0
  /** When the last result came, or a job was given to a worker that had none. A first job also waits for its thread to start, which tells nothing. */
  #answeredMs: number | undefined
  #nextJob = 1
  /** Outgrown tables, and the jobs that may still look into them. */
  #releases: { readonly buffer: SharedArrayBuffer; readonly jobs: Set<number> }[] = []
  /** For small jobs in this thread, and the stored bytes that may still be opened here. */
  readonly #here: WorkerState
  #bytesHere = 512 << 10
  #packBytesHere = 2 << 20
  #indexHere: SharedTable | undefined
  readonly #turnsHere = new InTurn()
  #closed = false

  /** `rereads`: what was read is remembered, and costs less the next time (ProvenObjects; 512 KiB). */
  constructor(options: { key: Key; codec?: Codec; count?: number; rereads?: boolean }) {
    this.#count = options.count ?? availableParallelism()
    this.#here = { key: options.key, codec: options.codec, index: undefined, memory: new JobMemory() }
    this.#setup = { material: options.key.material(), ...(options.codec && { codec: options.codec.spec }), ...(options.rereads && { proven: new ProvenObjects().memory }) }
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
    this.#here.codec = codec
    this.#tell({ kind: 'setup', codec: codec.spec })
  }

  /** Where ids are looked up from now on. Jobs already given still use the older table, which only costs work. */
  setIndex(index: SharedTable): void {
    const { index: known } = this.#setup
    if (known && known.buffer === index.buffer && known.path === index.path) return
    this.#setup.index = index
    this.#tell({ kind: 'setup', index })
    if (known?.buffer && outgrown.has(known.buffer)) this.#releaseAfterJobs(known.buffer)
  }

  /** Jobs that a worker has already look into the older table; each after them, into the newer one. */
  #releaseAfterJobs(buffer: SharedArrayBuffer): void {
    const jobs = new Set<number>()
    for (const member of this.#members) for (const { message } of member.jobs) jobs.add(message.job)
    if (jobs.size === 0) giveBackShared(buffer)
    else this.#releases.push({ buffer, jobs })
  }

  /** The job is done, or lost with its worker. */
  #jobEnded(job: number): void {
    for (const release of this.#releases) {
      release.jobs.delete(job)
      if (release.jobs.size === 0) giveBackShared(release.buffer)
    }
    this.#releases = this.#releases.filter(({ jobs }) => jobs.size > 0)
  }

  /** `aside`: it is little beside what this thread has to do anyway. Until there are threads for something else, it is done here. */
  pack(job: Omit<PackJob, 'job' | 'kind'>, aside: boolean): Promise<PackResult> {
    if (!this.#closed && this.#members.length === 0 && this.#isSmallPack(job, aside)) return this.#packHere({ kind: 'pack', job: 0, ...job })
    return this.#run({ kind: 'pack', ...job }, false, aside ? 0 : undefined) as Promise<PackResult>
  }

  #packHere(job: PackJob): Promise<PackResult> {
    return this.#afterLastHere(() => {
      const { index } = this.#setup
      if (index !== this.#indexHere) {
        this.#here.index?.close()
        this.#here.index = index && new SharedTableReader(index)
        this.#indexHere = index
      }
      return pack(this.#here, job)
    })
  }

  /** Whoever stores a file or two is done before a thread would have started. */
  #isSmallPack(job: Omit<PackJob, 'job' | 'kind'>, aside: boolean): boolean {
    if (!quickCodecs.has(this.#here.codec?.spec ?? '')) return false
    if (aside) return true
    const cost = bytesOf({ kind: 'pack', ...job }) + (job.files?.length ?? 0) * fileCostBytes
    if (cost > this.#packBytesHere) return false
    this.#packBytesHere -= cost
    return true
  }

  /** `urgent`: before what is not. `alone`: somebody waits for this and for nothing else, so that a quick one need not go to another thread and back. */
  open(job: Omit<OpenJob, 'job' | 'kind'>, options: { urgent?: boolean; alone?: boolean } = {}): Promise<OpenResult> {
    if (!this.#closed && (this.#members.length === 0 ? this.#isSmall(job) : options.alone && this.#isQuick(job))) return this.#openHere({ kind: 'open', job: 0, ...job })
    return this.#run({ kind: 'open', ...job }, options.urgent ?? true) as Promise<OpenResult>
  }

  /** One after the other, as in a thread of their own: they share their memory. */
  #openHere(job: OpenJob): Promise<OpenResult> {
    return this.#afterLastHere(() => open(this.#here, job))
  }

  #afterLastHere<T>(work: () => Promise<T>): Promise<T> {
    this.#jobsHere++
    return this.#turnsHere.run(async () => {
      try {
        return await work()
      } finally {
        this.#jobsHere--
      }
    })
  }
  #jobsHere = 0

  /** A job that this thread does sooner than another one wakes, if it is the only one. */
  #isQuick({ entryLengths, sizes }: Omit<OpenJob, 'job' | 'kind'>): boolean {
    if (this.#jobsHere > 0 || entryLengths.length > 1) return false
    return entryLengths[0]! <= quickBytes && sizes[0]! <= quickBytes
  }

  /** Whoever reads a file or two is done before a thread would have started. */
  #isSmall(job: Omit<OpenJob, 'job' | 'kind'>): boolean {
    const bytes = sumOf(job.entryLengths)
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

  #run(job: NewJob, urgent: boolean, bytes = bytesOf(job)): Promise<JobResult> {
    if (this.#closed) return Promise.reject(new Error('the byte workers are closed'))
    return new Promise((resolve, reject) => {
      const queued: Queued = { message: { ...job, job: this.#nextJob++ }, waiting: { resolve, reject }, bytes }
      this.#bytes += queued.bytes
      ;(urgent ? this.#urgent : this.#queue).push(queued)
      this.#give()
    })
  }

  #give(): void {
    for (;;) {
      const queue = this.#urgent.length > 0 ? this.#urgent : this.#queue
      if (queue.length === 0) return
      let idlest = this.#members[0]
      for (const member of this.#members) if (member.jobs.length < idlest!.jobs.length) idlest = member
      // As many threads as there is work for.
      if (!idlest || (idlest.jobs.length > 0 && this.#members.length < this.#count && this.#isWorthThread())) this.#members.push((idlest = this.#begin()))
      if (idlest.jobs.length >= jobsPerWorker) return
      if (idlest.jobs.length === 0 && this.#answeredMs !== undefined) this.#answeredMs = performance.now()
      const queued = queue.shift()!
      idlest.jobs.push(queued)
      idlest.worker.ref()
      idlest.worker.postMessage(queued.message)
    }
  }

  #isWorthThread(): boolean {
    return this.#bytes >= bytesPerThread * this.#members.length || (this.#answeredMs !== undefined && performance.now() - this.#answeredMs >= patienceMs)
  }

  /** Whether there is anything to be done or under way. */
  get busy(): boolean {
    return this.#jobsHere > 0 || this.#bytes > 0 || this.#urgent.length > 0 || this.#queue.length > 0 || this.#members.some(({ jobs }) => jobs.length > 0)
  }

  /** Nobody expects any job for a while: the threads stay, but keep no memory for the next one. Does nothing to what is under way. */
  rest(): void {
    if (this.#jobsHere === 0) this.#here.memory.drop()
    this.#tell({ kind: 'rest' })
  }

  #tell(setup: WorkerSetup | WorkerRest): void {
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
    const member: Member = { worker, jobs: [] }
    // An idle pool must not keep a finished command alive.
    worker.unref()
    worker.on('message', (message: FromWorker) => this.#receive(member, message))
    worker.on('error', error => this.#lose(member, error))
    worker.on('exit', code => this.#lose(member, new Error(`a worker thread ended with code ${code}`)))
    worker.postMessage({ kind: 'setup', ...this.#setup } satisfies WorkerSetup)
    return member
  }

  #receive(member: Member, message: FromWorker): void {
    const at = member.jobs.findIndex(queued => queued.message.job === message.job)
    const [queued] = at < 0 ? [] : member.jobs.splice(at, 1)
    const waiting = queued?.waiting
    this.#bytes -= queued?.bytes ?? 0
    if (this.#releases.length > 0) this.#jobEnded(message.job)
    // One that is being ended is awaited: an answer that comes meanwhile must not let the process end before that.
    if (!this.#closed) {
      if (member.jobs.length === 0) member.worker.unref()
      this.#give()
    }
    this.#answeredMs = performance.now()
    if (message.kind === 'failed') waiting?.reject(new Error(message.message))
    else waiting?.resolve(message)
  }

  /** A worker died: what it had in hand fails, and a new one takes its place, at once if jobs wait that nobody else may come for. */
  #lose(member: Member, error: Error): void {
    const at = this.#members.indexOf(member)
    if (at < 0) return
    this.#members.splice(at, 1)
    for (const { message, waiting, bytes } of member.jobs.splice(0)) {
      this.#bytes -= bytes
      this.#jobEnded(message.job)
      waiting.reject(error)
    }
    if (!this.#closed) this.#give()
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#here.index?.close()
    const members = this.#members.splice(0)
    await Promise.all(members.map(({ worker }) => worker.terminate()))
    // Also those that no worker had yet: somebody may wait for them.
    const left = [...members.flatMap(({ jobs }) => jobs), ...this.#urgent.splice(0), ...this.#queue.splice(0)]
    for (const { waiting } of left) waiting.reject(new Error('the byte workers are closed'))
  }
}

function bytesOf(job: NewJob): number {
  switch (job.kind) {
    case 'pack': return job.pieces ? job.pieces.reduce((sum, { length }) => sum + length, 0) : job.files!.reduce((sum, { size }) => sum + size, 0)
    case 'open':
    case 'repack': return sumOf(job.entryLengths)
    case 'seal':
    case 'unseal': return job.blocks.reduce((sum, { length }) => sum + length, 0)
  }
}

function sumOf(lengths: Uint32Array): number {
  let sum = 0
  for (const length of lengths) sum += length
  return sum
}
