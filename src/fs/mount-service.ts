/**
 * The engine thread's end of a mount: answers what the FUSE thread asks and tells it when the list of archives changes. It
 * owns when the repository is locked (RepositoryLease); what the answers are is the source's business.
 */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import type { Log } from '../engine/log.js'
import { messageOf } from '../engine/errors.js'
import { files } from '../engine/platform/files.js'
import { letGoShared } from '../engine/shared-garbage.js'
import type {
  ArchiveChangeReply, ArchiveChangeRequest, ArchiveHead, ArchiveInfo, ChunksReply, ChunksRequest, CommitReply, CommitRequest, EngineChannel, EngineRequest, Progress, ToEngine, ToFuse,
} from './engine-port.js'
import { wireError } from './errno.js'
import type { Cutter } from './incoming/cutter.js'
import { IdlePhases, type IdleOptions } from './idle-phases.js'
import { type LockableRepository, RepositoryLease } from './repository-lease.js'
import type { ArchiveTreeData } from './tree-columns.js'
import type { StatFs } from './types.js'

/** Runs work with the lock that could be had (RepositoryLease.reading). */
export type Reading = <T>(work: () => Promise<T>) => Promise<T>

/** Where answers come from: repository-source.ts, or a fake in tests. Called with the lock that the lease could get. */
export interface MountSource {
  /** Of the manifest as last loaded, in listing order. */
  archives(): readonly ArchiveInfo[]
  /** Loads the manifest again: the repository changed. */
  reload(): Promise<void>
  head(archive: string): Promise<ArchiveHead>
  /** Takes the lock itself, because it may have to read much. */
  tree(archive: string, reading: Reading): Promise<ArchiveTreeData>
  treeChunks(archive: string): Promise<Uint8Array>
  deduplicatedSize(archive: string): Promise<number>
  /** Never rejects for single chunks: those are failures in the reply. */
  chunks(request: ChunksRequest, slab: SharedArrayBuffer): Promise<ChunksReply>
  statfs(): Promise<StatFs>
}

/** They keep no memory for their like. */
const lightRequests: ReadonlySet<EngineRequest['kind']> = new Set(['start', 'statfs', 'sync', 'sync-folder'])

/** For commits that are tried again anyway: the staged tree cannot be changed meanwhile. */
const shortWaitMs = 1000

export interface MountServiceOptions {
  readonly source: MountSource
  readonly repository: LockableRepository
  /** The repository was opened with the shared lock. */
  readonly locked: boolean
  /** `-o lock=hold`. */
  readonly holdLock: boolean
  /** `-o refresh`, ms. 0: never look for other clients' archives. */
  readonly refreshMs: number
  readonly channel: EngineChannel<ToFuse>
  readonly log: Log
  /** Makes an archive of a staged tree; holds the exclusive lock meanwhile. Absent where nothing can be written. */
  readonly commit?: (request: CommitRequest, progress: (percent: number) => void) => Promise<CommitReply>
  /** Absent where nothing can be written. */
  readonly cutter?: Cutter | undefined
  /** Absent where nothing can be written. */
  readonly changeArchive?: (request: ArchiveChangeRequest) => Promise<ArchiveInfo | undefined>
  /** Gives back memory when nothing was asked for a while. */
  readonly idle?: IdleOptions
  /** How long somebody who waits for a commit is let wait for the lock. */
  readonly lockWaitMs: number
}

export class MountService {
  readonly lease: RepositoryLease
  readonly #options: MountServiceOptions
  readonly #log: Log
  readonly #idle: IdlePhases | undefined
  #slab: SharedArrayBuffer | undefined
  #timer: NodeJS.Timeout | undefined
  #shown: string
  #finished: ((kept: readonly string[]) => void) | undefined
  #finishing: Promise<readonly string[]> | undefined
  #closed = false

  constructor(options: MountServiceOptions) {
    this.#options = options
    this.#log = options.log
    this.#idle = options.idle && new IdlePhases(options.idle)
    this.#shown = listKey(options.source.archives())
    this.lease = new RepositoryLease(options.repository, {
      locked: options.locked, hold: options.holdLock, log: options.log, changed: () => this.#reload(),
    })
    if (options.refreshMs > 0) this.#timer = setTimeout(() => void this.#look(), options.refreshMs)
  }

  /** One message of the FUSE thread. */
  receive(message: ToEngine): void {
    switch (message.type) {
      case 'request':
        void this.#answer(message.id, message.request)
        break
      case 'log':
        this.#log.write(message.level, message.topic, message.message)
        break
      case 'finished':
        this.#finished?.(message.kept)
        break
    }
  }

  /** Has everything staged committed; resolves with the sentences of what is kept. Asking again joins the first. */
  finish(): Promise<readonly string[]> {
    return this.#finishing ?? this.finishAnew()
  }

  /** The same for what came since it was asked last: a drive that is in use is served on for a while. */
  finishAnew(): Promise<readonly string[]> {
    const ask = (): Promise<readonly string[]> => new Promise((resolve) => {
      this.#finished = resolve
      this.#options.channel.post({ type: 'finish' })
    })
    return this.#finishing = this.#finishing ? this.#finishing.then(ask) : ask()
  }

  /** Pushes the list if it differs from the one the FUSE thread has. To be called after every change of the manifest. */
  publish(): void {
    const archives = this.#options.source.archives()
    const key = listKey(archives)
    if (key === this.#shown || this.#closed) return
    this.#shown = key
    this.#options.channel.post({ type: 'archives', archives })
  }

  /** Stops looking and lets go of the lock; the source and the repository stay open. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    this.#idle?.close()
    await this.lease.close()
  }

  async #answer(id: number, request: EngineRequest): Promise<void> {
    const { channel } = this.#options
    const idle = lightRequests.has(request.kind) ? undefined : this.#idle
    idle?.begin()
    try {
      const value = await this.#value(request, progress => this.#closed || channel.post({ type: 'progress', id, progress }))
      if (this.#closed) return
      // It is the FUSE thread's from now on.
      if (request.kind === 'tree') letGoShared(sharedBytes(value as ArchiveTreeData))
      const transfer = request.kind === 'chunks' ? transferable((value as ChunksReply).data) : undefined
      channel.post({ type: 'reply', id, value: request.kind === 'commit' || request.kind === 'change-archive' ? this.#withArchives(value as CommitReply | ArchiveChangeReply) : value }, transfer)
    } catch (error) {
      if (!this.#closed) channel.post({ type: 'error', id, error: wireError(error) })
    } finally {
      idle?.end()
    }
  }

  #value(request: EngineRequest, progress: (progress: Progress) => void): Promise<unknown> | unknown {
    const { source, commit, changeArchive, cutter, lockWaitMs } = this.#options
    switch (request.kind) {
      case 'start':
        this.#slab = request.slab
        return undefined
      case 'head': return this.lease.reading(() => source.head(request.archive))
      case 'tree': return source.tree(request.archive, work => this.lease.reading(work))
      case 'tree-chunks': return this.lease.reading(() => source.treeChunks(request.archive))
      case 'deduplicated-size': return this.lease.reading(() => source.deduplicatedSize(request.archive))
      case 'chunks': {
        const slab = this.#slab
        if (!slab) throw new Error('chunks were asked for before the slab was handed over')
        return this.lease.reading(() => source.chunks(request, slab))
      }
      case 'cut':
      case 'keep-stashed':
        if (!cutter) throw new Error('this mount is read-only')
        return request.kind === 'cut' ? cutter.cut(request, this.lease, end => progress({ kind: 'cut', end })) : cutter.keep(request.ids, request.own)
      case 'statfs': return source.statfs()
      case 'sync': return this.#makeDurable(request.fds)
      case 'sync-folder': return syncFolder(request.folder)
      case 'change-archive':
        if (!changeArchive) throw new Error('this mount is read-only')
        return this.#exclusively(lockWaitMs, async () => ({ archive: await changeArchive(request) }))
      case 'commit':
        if (!commit) throw new Error('this mount is read-only')
        return this.#exclusively(request.patient ? lockWaitMs : Math.min(lockWaitMs, shortWaitMs), () => {
          progress({ kind: 'committing', percent: 0 })
          return commit(request, percent => progress({ kind: 'committing', percent }))
        }, holder => progress({ kind: 'waiting', holder }))
    }
  }

  /** The cutter first: it may need the lock for a moment to come to an end. */
  #exclusively<T>(waitMs: number, work: () => Promise<T>, waiting?: (holder: string | undefined) => void): Promise<T> {
    const run = (): Promise<T> => this.lease.exclusively(waitMs, work, waiting)
    return this.#options.cutter ? this.#options.cutter.whileQuiet(run) : run()
  }

  /** Chunks before what refers to them. */
  async #makeDurable(fds: readonly number[]): Promise<void> {
    await this.#options.cutter?.stash.sync()
    for (const fd of fds) await files.datasyncLater(fd)
  }

  /** The list goes with the reply: the FUSE thread must have it before it hears from the kernel again. */
  #withArchives<T extends CommitReply | ArchiveChangeReply>(reply: T): T {
    const archives = this.#options.source.archives()
    this.#shown = listKey(archives)
    return { ...reply, archives }
  }

  async #reload(): Promise<void> {
    await this.#options.source.reload()
    this.publish()
  }

  /** Who looks without a lock may do so in the middle of somebody's commit, when one file is gone and the next is not there: only what does not pass is told, once. */
  async #look(): Promise<void> {
    try {
      await this.lease.check()
      this.#failedLooks = 0
    } catch (error) {
      if (++this.#failedLooks === toldLook) this.#log.write('warning', 'borg.fuse', `The repository could not be looked at: ${messageOf(error)}`)
    }
    const { refreshMs } = this.#options
    if (!this.#closed) this.#timer = setTimeout(() => void this.#look(), this.#failedLooks === 0 ? refreshMs : Math.min(refreshMs, lookAgainMs))
  }
  /** In a row. */
  #failedLooks = 0
}

const lookAgainMs = 1000, toldLook = 3

/** syncfs(2), which Node does not have, by way of coreutils. */
async function syncFolder(folder: string): Promise<void> {
  try {
    await promisify(execFile)('sync', ['-f', folder], { env: { ...process.env, LC_ALL: 'C' } })
  } catch (error) {
    // The program says it in words.
    throw /Input\/output error/.test(String((error as { stderr?: unknown }).stderr)) ? Object.assign(new Error('EIO: sync -f'), { code: 'EIO' }) : error
  }
}

function listKey(archives: readonly ArchiveInfo[]): string {
  return archives.map((info) => `${info.id} ${Buffer.from(info.name).toString('latin1')}`).join('\n')
}

function sharedBytes(tree: ArchiveTreeData): number {
  const buffers = new Set<ArrayBufferLike>()
  for (const column of Object.values(tree)) if (ArrayBuffer.isView(column)) buffers.add(column.buffer)
  let bytes = 0
  for (const { byteLength } of buffers) bytes += byteLength
  return bytes
}

/** The memory of a reply if it is its own and can change hands. */
function transferable(data: Uint8Array): ArrayBuffer[] | undefined {
  const { buffer } = data
  return buffer instanceof ArrayBuffer && data.byteLength === buffer.byteLength && data.byteLength > 0 ? [buffer] : undefined
}
