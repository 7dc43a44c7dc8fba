/** `create`: sources -> one archive (commands.md create). Knows no terminal: what happens is told to a listener. */
import { statSync } from 'node:fs'
import { hostname } from 'node:os'
import { ChunkList } from '../archive/chunk-list.js'
import type { Item } from '../archive/item.js'
import { formatTimestamp, nowMicros } from '../archive/timestamps.js'
import type { FilesCache } from '../cache/files-cache.js'
import type { ByteSource, ChunkerParams } from '../chunker/chunker.js'
import type { ChunkId } from '../ids.js'
import { native } from '../native.js'
import { storedPath } from '../patterns/path-text.js'
import { type FileStat, typeBlockDevice, typeCharDevice, typeDirectory, typeFifo, typeFile, typeMask, typeSocket, typeSymlink, unpackAttributes } from '../platform/attributes.js'
import { userNameOf } from '../platform/owner.js'
import { escapedBytes, escapedText } from '../text.js'
import type { ArchiveEntry, Outcome } from './archive-entry.js'
import type { StoreListener } from './archive-pipeline.js'
import { fileItem, type ItemOptions } from './file-item.js'
import { storeArchive, type StoreContext, type StoredArchive } from './store-archive.js'
import { listed, walk, type WalkFailure, type WalkOptions, type WalkRun, type WalkStep } from './walk.js'

/** Status letters of output.md §3. */
export type Status = 'A' | 'M' | 'U' | 'C' | 'E' | 'd' | 'b' | 'c' | 'f' | 's' | 'h' | 'i' | '-' | 'x'

export interface CreateListener extends StoreListener {
  /** In the order of `--list`: children before their directory. */
  status?(letter: Status, path: Buffer): void
  /** Something could not be read; the run goes on and ends with a warning. */
  warning?(path: Buffer, operation: string, error: { readonly code: string; readonly errno: number; readonly reason?: string }): void
  changed?(path: Buffer): void
}

export interface CreateOptions extends ItemOptions {
  readonly roots: readonly Buffer[]
  readonly walk: WalkOptions
  readonly readSpecial: boolean
  readonly dryRun: boolean
  /** Instead of roots: paths that are taken one by one. `finished` is called after the last one and may throw. */
  readonly listed?: { readonly paths: AsyncIterable<Buffer>; readonly finished?: () => Promise<void> }
  /** For the root `-`. `finished` is called after its last byte; should it throw, nothing is saved. */
  readonly stdin?: { readonly finished?: () => Promise<void>;  readonly source: ByteSource; readonly name: Buffer; readonly mode: number; readonly uid: number; readonly gid: number; readonly user: Buffer | null; readonly group: Buffer | null }
}

export interface ArchiveOrigin {
  readonly comment: Buffer
  readonly cmdline: readonly Buffer[]
  readonly chunkerParams: ChunkerParams
  /** --timestamp, microseconds; else the moment of the start. */
  readonly timestampMicros?: number
}

/** Start and end as stored, and the facts of this host and user (archive.md §3). */
export function archiveFacts(origin: ArchiveOrigin, startMicros: number, env: NodeJS.ProcessEnv = process.env) {
  const duration = nowMicros() - startMicros
  const start = origin.timestampMicros ?? startMicros
  return {
    comment: origin.comment, cmdline: origin.cmdline, chunkerParams: origin.chunkerParams,
    hostname: Buffer.from(env.BORG_HOSTNAME ?? hostname().split('.')[0]!),
    username: Buffer.from(env.BORG_USERNAME ?? loginName(env)),
    time: formatTimestamp(start), timeEnd: formatTimestamp(start + duration),
  }
}

/** Of an archive whose making begins now, for storeArchive. A checkpoint is of the moment, whatever time and comment the archive is to have. */
export function createdFacts(origin: ArchiveOrigin): (checkpoint: boolean) => ReturnType<typeof archiveFacts> {
  const start = nowMicros()
  const interim: ArchiveOrigin = { comment: Buffer.alloc(0), cmdline: origin.cmdline, chunkerParams: origin.chunkerParams }
  return checkpoint => archiveFacts(checkpoint ? interim : origin, start)
}

/** As Python's getpass.getuser; the number of a user who has no name, where that fails. */
function loginName(env: NodeJS.ProcessEnv): string {
  const named = env.LOGNAME || env.USER || env.LNAME || env.USERNAME
  if (named) return named
  const uid = process.getuid!()
  return userNameOf(uid)?.toString() ?? String(uid)
}

export async function createArchive(context: StoreContext, name: string, origin: ArchiveOrigin, options: CreateOptions, filesCache: FilesCache | undefined, listener: CreateListener): Promise<StoredArchive> {
  return storeArchive(context, name, new Source(context, options, filesCache, listener).entries(), createdFacts(origin), listener)
}

/** What would be stored; opens no file. */
export async function dryRun(options: CreateOptions, listener: CreateListener): Promise<void> {
  const kept: Buffer[] = []
  for (const root of options.roots) {
    if (options.stdin && isDash(root)) listener.status?.('-', options.stdin.name)
    else kept.push(root)
  }
  for await (const run of steps(kept, options)) for (const step of run) {
    if (step.kind === 'excluded') listener.status?.('x', step.path)
    else if (step.kind === 'failed') tellFailure(listener, step.path, step.failure, step.quiet)
    else if (step.kind === 'left') listener.status?.('-', step.path)
    else if ((step.stat.mode & typeMask) !== typeDirectory && (step.stat.mode & typeMask) !== typeSocket) listener.status?.('-', step.path)
  }
}

function steps(roots: readonly Buffer[], options: CreateOptions): AsyncGenerator<WalkRun> {
  return options.listed ? listed(options.listed.paths, options.walk) : walk(roots, options.walk)
}

function isDash(root: Buffer): boolean {
  return root.length === 1 && root[0] === 0x2d
}

function tellFailure(listener: CreateListener, path: Buffer, failure: WalkFailure, quiet: boolean): void {
  listener.warning?.(path, failure.operation, failure)
  if (!quiet) listener.status?.('E', path)
}

const letters: Record<number, Status> = { [typeDirectory]: 'd', [typeBlockDevice]: 'b', [typeCharDevice]: 'c', [typeFifo]: 'f', [typeSymlink]: 's' }

class Source {
  readonly #context: StoreContext
  readonly #options: CreateOptions
  readonly #cache: FilesCache | undefined
  readonly #listener: CreateListener
  readonly #cwd = Buffer.from(process.cwd())
  /** First stored path of each inode that has further links. */
  readonly #links = new Map<string, Buffer>()

  constructor(context: StoreContext, options: CreateOptions, cache: FilesCache | undefined, listener: CreateListener) {
    this.#context = context
    this.#options = options
    this.#cache = cache
    this.#listener = listener
  }

  /** In runs, as the walk gives them. */
  async *entries(): AsyncGenerator<Iterable<ArchiveEntry>> {
    const { stdin, roots } = this.#options
    const walked: Buffer[] = []
    for (const root of roots) {
      if (stdin && isDash(root)) {
        yield [this.#stdinEntry(stdin)]
        await stdin.finished?.()
      } else walked.push(root)
    }
    for await (const run of steps(walked, this.#options)) yield this.#entriesOf(run)
    await this.#options.listed?.finished?.()
  }

  *#entriesOf(run: WalkRun): Generator<ArchiveEntry> {
    for (const step of run) {
      const entry = this.#entryOf(step)
      if (entry) yield entry
    }
  }

  #entryOf(step: WalkStep): ArchiveEntry | undefined {
    switch (step.kind) {
      case 'object': return this.#objectEntry(step.path, step.stat, step.attributes)
      case 'left': return { done: () => this.#listener.status?.('d', step.path) }
      case 'excluded': return { done: () => this.#listener.status?.('x', step.path) }
      case 'failed': return { done: () => tellFailure(this.#listener, step.path, step.failure, step.quiet) }
    }
  }

  #stdinEntry(stdin: NonNullable<CreateOptions['stdin']>): ArchiveEntry {
    const now = BigInt(Math.floor(Date.now() / 1000)) * 1_000_000_000n
    const item: Item = {
      path: stdin.name, mode: (stdin.mode & 0o7777) | typeFile, uid: stdin.uid, gid: stdin.gid, user: stdin.user, group: stdin.group,
      mtimeNs: now, ctimeNs: now, atimeNs: now,
    }
    // Part items of checkpoints are without it, as Borg's.
    const revise = (chunks: ChunkList): Promise<ChunkList> => {
      item.hardlinkMaster = false
      return Promise.resolve(chunks)
    }
    return { item, content: { kind: 'source', source: stdin.source }, revise, done: outcome => this.#tell(outcome, 'i', stdin.name) }
  }

  #objectEntry(path: Buffer, stat: FileStat, packed: Buffer | undefined): ArchiveEntry | undefined {
    let type = stat.mode & typeMask
    if (type === typeSocket) return undefined
    const target = type === typeSymlink && this.#options.readSpecial ? specialTarget(path) : undefined
    if (target) {
      type = target.mode & typeMask
      stat = { ...stat, ...target }
      packed = undefined
    }
    const special = this.#options.readSpecial && isSpecial(type)
    const item = fileItem(this.#stored(path), special ? { ...stat, mode: (stat.mode & 0o7777) | typeFile } : stat, unpackAttributes(packed), this.#options)
    if (special) type = typeFile
    if (type === typeDirectory) return { item }
    if (type === typeSymlink) return this.#symlinkEntry(item, path)
    // Regular files, fifos and devices may have several names.
    if (stat.nlink > 1 && !special) {
      const identity = `${stat.dev}:${stat.ino}`
      const first = this.#links.get(identity)
      if (first) {
        item.source = first
        return { item, done: () => this.#listener.status?.('h', path) }
      }
      item.hardlinkMaster = true
      this.#links.set(identity, item.path)
      const entry = this.#contentEntry(item, path, stat, type, false)
      return {
        ...entry,
        done: outcome => {
          // Should the first name fail, the next one is read.
          if (outcome.kind === 'failed') this.#links.delete(identity)
          entry.done?.(outcome)
        },
      }
    }
    item.hardlinkMaster = false
    return this.#contentEntry(item, path, stat, type, special)
  }

  #symlinkEntry(item: Item, path: Buffer): ArchiveEntry {
    try {
      item.source = native().readLink(path)
    } catch (error) {
      const { code, errno } = error as NodeJS.ErrnoException
      return { done: () => tellFailure(this.#listener, path, { code: code ?? 'EIO', errno: Math.abs(errno ?? 5), operation: 'readlink' }, false) }
    }
    return { item, done: () => this.#listener.status?.('s', path) }
  }

  #contentEntry(item: Item, path: Buffer, stat: FileStat, type: number, special: boolean): ArchiveEntry {
    if (type !== typeFile) return { item, done: () => this.#listener.status?.(letters[type] ?? 'E', path) }
    if (special) return { item, content: { kind: 'file', path, size: Infinity, ino: stat.ino, special: true }, done: outcome => this.#tell(outcome, 'A', path) }
    const content = { kind: 'file', path, size: stat.size, ino: stat.ino, dev: stat.dev } as const
    if (!this.#cache) return { item, content, done: outcome => this.#tell(outcome, 'A', path) }

    const pathHash = this.#context.opened.key.idHash(this.#absolute(path))
    const known = this.#cache.lookup(pathHash, stat)
    if (known.state === 'unchanged') {
      const chunks = this.#reuse(known.ids, known.sizes)
      if (chunks) {
        this.#cache.confirm(pathHash, stat)
        return { item, content: { kind: 'chunks', chunks }, done: () => this.#listener.status?.('U', path) }
      }
    }
    return {
      item, content,
      done: outcome => {
        if (outcome.kind === 'stored' && !outcome.changed) this.#cache!.remember(pathHash, stat, item.chunks!)
        this.#tell(outcome, known.state === 'unknown' ? 'A' : 'M', path)
      },
    }
  }

  /** The chunks of an unchanged file, undefined if the repository has lost one: then the file is read. */
  #reuse(ids: readonly ChunkId[], sizes: readonly number[]): ChunkList | undefined {
    const { repository } = this.#context.opened
    const chunks = new ChunkList(Math.max(1, ids.length))
    for (const [index, id] of ids.entries()) {
      const csize = repository.storedSize(id)
      if (csize === undefined) return undefined
      chunks.add(id, sizes[index]!, csize)
    }
    return chunks
  }

  #tell(outcome: Outcome, letter: Status, path: Buffer): void {
    if (outcome.kind === 'failed') {
      this.#listener.warning?.(path, outcome.error.syscall === 'open' ? 'open' : 'read', outcome.error)
      this.#listener.status?.('E', path)
      return
    }
    this.#listener.status?.(letter, path)
    if (outcome.changed) {
      this.#listener.changed?.(path)
      this.#listener.status?.('C', path)
    }
  }

  #stored(path: Buffer): Buffer {
    // Nearly every path is below a root that was made normal already.
    const first = path[0]
    if (first !== 0x2f && first !== 0x2e) return path
    return escapedBytes(storedPath(escapedText(path)))
  }

  #absolute(path: Buffer): Buffer {
    return path[0] === 0x2f ? path : Buffer.concat([this.#cwd, slash, path])
  }
}

function isSpecial(type: number): boolean {
  return type === typeFifo || type === typeCharDevice || type === typeBlockDevice
}

/** What a symlink leads to, if that is a special file: --read-special reads it under the link's name. */
function specialTarget(path: Buffer): Pick<FileStat, 'mode' | 'uid' | 'gid' | 'ino' | 'dev' | 'mtimeNs' | 'atimeNs' | 'ctimeNs'> | undefined {
  const found = statSync(path, { bigint: true, throwIfNoEntry: false })
  if (!found || !isSpecial(Number(found.mode) & typeMask)) return undefined
  return {
    mode: Number(found.mode), uid: Number(found.uid), gid: Number(found.gid), ino: found.ino, dev: found.dev,
    mtimeNs: found.mtimeNs, atimeNs: found.atimeNs, ctimeNs: found.ctimeNs,
  }
}

const slash = Buffer.from('/')
