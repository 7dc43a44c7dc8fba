/**
 * The one way an archive is made, by `create` and by the drive's incoming/: entries come in the archive's order, contents are
 * stored side by side, items are written in order, then metadata, manifest, COMMIT.
 */
import { closeSync, fstatSync, open, read } from 'node:fs'
import type { ArchiveFacts, ArchiveStats } from '../archive/archive-metadata.js'
import { ArchiveWriter, ensureNewName } from '../archive/archive-writer.js'
import { ChunkList } from '../archive/chunk-list.js'
import type { Item } from '../archive/item.js'
import type { ArchiveInfo } from '../archive/manifest.js'
import type { ClientCache, SavedFile } from '../cache/client-cache.js'
import type { ByteSource, Chunker } from '../chunker/chunker.js'
import type { Codec } from '../codec/codec.js'
import { errnoOf, messageOf } from '../errors.js'
import { type ChunkId, idKey } from '../ids.js'
import { adviceDontNeed, adviceSequential, native } from '../native.js'
import type { Log } from '../log.js'
import type { LocalRepository } from '../repository/local-repository.js'
import type { Transaction } from '../repository/repository.js'
import { ChunkWriter, type StoredChunk } from '../store/chunk-writer.js'
import type { FileError } from '../store/jobs.js'
import type { Workers } from '../store/workers.js'
import type { OpenedRepository } from './open.js'

/** Where an item's bytes come from. */
export type Content =
  /** A regular file, opened here; `size` and `ino` as lstat saw them. `special`: read whatever it is (--read-special). */
  | { readonly kind: 'file'; readonly path: Buffer; readonly size: number; readonly ino: bigint; readonly special?: boolean }
  | { readonly kind: 'source'; readonly source: ByteSource }
  | { readonly kind: 'chunks'; readonly chunks: ChunkList }

export type Outcome =
  | { readonly kind: 'stored'; readonly changed: boolean }
  | { readonly kind: 'failed'; readonly error: FileError }

export interface ArchiveEntry {
  /** Without chunks and size where there is content. Absent: only `done` is called, in order. */
  readonly item?: Item
  readonly content?: Content
  /** Called in the order of the entries, when the item was written or could not be. */
  readonly done?: (outcome: Outcome) => void
}

export interface StoreContext {
  readonly opened: OpenedRepository<LocalRepository>
  readonly workers: Workers
  readonly codec: Codec
  readonly chunker: Chunker
  readonly signal?: AbortSignal
  /** For what goes wrong after the COMMIT, when nothing may be called failed any more. */
  readonly log?: Log
  /** Kept current: its files cache always, its chunks index if that was loaded. Its lock is held. */
  readonly cache?: { readonly client: ClientCache; readonly files?: SavedFile }
}

export interface StoreListener {
  /** After each item. */
  progress?(state: { stats: ArchiveStats; newBytes: number; path: Buffer }): void
}

export interface StoredArchive {
  readonly info: ArchiveInfo
  readonly stats: ArchiveStats
  /** csize of all chunks that were new, metadata included. */
  readonly newBytes: number
  readonly newChunks: number
}

/** Entries whose content is under way; bounds what lies between reading and writing. */
const maxPending = 2048

/**
 * Makes archive `name` (byte string) in one transaction; the exclusive lock is held. `facts` is asked at the end, when the end
 * time is known. ArchiveAlreadyExists before anything is read. On any throw nothing is saved.
 */
export async function storeArchive(context: StoreContext, name: string, entries: AsyncIterable<ArchiveEntry> | Iterable<ArchiveEntry>, facts: () => ArchiveFacts, listener: StoreListener = {}): Promise<StoredArchive> {
  const { repository, manifest, objects, key, security } = context.opened
  ensureNewName(manifest, name)
  objects.codec = context.codec
  const before = new Map(manifest.archives)
  const { cache } = context
  let stored: StoredArchive
  try {
    stored = await repository.transaction(async tx => {
      const pipeline = new Pipeline(context, tx, listener)
      await pipeline.run(entries)
      const info = await pipeline.archive.save(name, facts(), tx, manifest)
      await pipeline.removeOrphans(tx)
      await manifest.write(tx, objects)
      return { info, stats: pipeline.archive.stats, newBytes: pipeline.writer.newBytes, newChunks: pipeline.writer.newCount }
    })
  } catch (error) {
    cache?.client.rollback()
    manifest.archives.clear()
    for (const [kept, info] of before) manifest.archives.set(kept, info)
    throw error
  }
  try {
    security.save(repository.location, key, manifest)
  } catch (error) {
    if (errnoOf(error) === undefined || !context.log) throw error
    context.log.write('warning', 'borg.archiver', `The archive is saved, but not what this client remembers of the repository: ${messageOf(error)}`)
  }
  cache?.client.commit(cache.files)
  return stored
}

interface PendingEntry {
  readonly entry: ArchiveEntry
  readonly content: Promise<ContentResult> | ContentResult | undefined
}
type ContentResult =
  | { readonly kind: 'chunks'; readonly chunks: ChunkList; readonly changed: boolean }
  | { readonly kind: 'failed'; readonly error: FileError }

class Pipeline {
  readonly writer: ChunkWriter
  readonly archive: ArchiveWriter
  readonly #chunker: Chunker
  readonly #listener: StoreListener
  readonly #signal: AbortSignal | undefined
  readonly #pending: PendingEntry[] = []
  /** New chunks of files that failed half-way, unless an item refers to them all the same. */
  readonly #orphans = new Map<string, ChunkId>()

  constructor(context: StoreContext, tx: Transaction, listener: StoreListener) {
    const { repository, key, nonces, objects } = context.opened
    this.writer = new ChunkWriter({ repository, transaction: tx, key, nonces, codec: context.codec, workers: context.workers })
    this.archive = new ArchiveWriter(this.writer, objects, context.cache?.client.index)
    this.#chunker = context.chunker
    this.#listener = listener
    this.#signal = context.signal
  }

  async run(entries: AsyncIterable<ArchiveEntry> | Iterable<ArchiveEntry>): Promise<void> {
    try {
      for await (const entry of entries) {
        this.#signal?.throwIfAborted()
        let content: PendingEntry['content']
        if (entry.content) {
          content = this.#read(entry.content)
          if (content instanceof Promise) {
            // Awaited in order below; until then a failure is not unhandled.
            content.catch(() => undefined)
            // One large file at a time goes through the chunker.
            if (!this.#isSmall(entry.content)) await content
            else await this.writer.room()
          }
        }
        this.#pending.push({ entry, content })
        if (this.#pending.length >= maxPending) await this.#finish(maxPending / 2)
      }
      this.writer.flush()
      await this.#finish(0)
    } catch (error) {
      await this.writer.drain().catch(() => undefined)
      throw error
    }
  }

  #isSmall(content: Content): boolean {
    return content.kind === 'file' && !content.special && content.size <= this.#chunker.singleChunkBytes
  }

  async #finish(keep: number): Promise<void> {
    if (keep === 0) this.writer.flush()
    while (this.#pending.length > keep) {
      const batch = this.#pending.splice(0, Math.min(256, this.#pending.length - keep))
      for (const { entry, content } of batch) {
        const result = content instanceof Promise ? await this.#settled(content) : content
        await this.#write(entry, result)
      }
    }
  }

  /** A batch that is not full yet would never be sent while its first file is waited for. */
  #settled(content: Promise<ContentResult>): Promise<ContentResult> {
    this.writer.flush()
    return content
  }

  async #write(entry: ArchiveEntry, result: ContentResult | undefined): Promise<void> {
    if (result?.kind === 'failed') {
      entry.done?.({ kind: 'failed', error: result.error })
      return
    }
    const { item } = entry
    if (item) {
      if (result) {
        item.chunks = result.chunks
        item.size = result.chunks.totalSize
        if (this.#orphans.size > 0) for (const { id } of result.chunks) this.#orphans.delete(idKey(id))
      }
      const stored = this.archive.addItem(item)
      if (stored) await stored
      this.#listener.progress?.({ stats: this.archive.stats, newBytes: this.writer.newBytes, path: item.path })
    }
    entry.done?.({ kind: 'stored', changed: result?.changed ?? false })
  }

  #read(content: Content): Promise<ContentResult> | ContentResult {
    if (content.kind === 'chunks') return { kind: 'chunks', chunks: content.chunks, changed: false }
    if (content.kind === 'source') return this.#cut(content.source)
    return this.#isSmall(content) ? this.#readSmall(content) : this.#readLarge(content)
  }

  async #readSmall(content: Extract<Content, { kind: 'file' }>): Promise<ContentResult> {
    const result = await this.writer.addFile({ path: content.path, size: content.size, ino: content.ino })
    if (result.kind === 'failed') return result
    if (result.kind === 'other') return this.#readLarge(content)
    const chunks = new ChunkList()
    if (result.chunk) chunks.add(result.chunk.id, result.chunk.size, result.chunk.csize)
    return { kind: 'chunks', chunks, changed: result.changed }
  }

  async #readLarge(content: Extract<Content, { kind: 'file' }>): Promise<ContentResult> {
    let fd: number
    try {
      fd = content.special ? await openSpecial(content.path) : native().openForReading(content.path)
    } catch (error) {
      return failed(error, 'open')
    }
    try {
      const before = fstatSync(fd, { bigint: true })
      const result = await this.#cut(new DescriptorSource(fd))
      if (result.kind === 'failed' || content.special) return result
      const after = fstatSync(fd, { bigint: true })
      return { ...result, changed: after.ctimeNs !== before.ctimeNs || after.size !== before.size }
    } finally {
      closeSync(fd)
    }
  }

  /** Stores a source chunk by chunk. A failing source is a result; a failing repository throws. */
  async #cut(source: ByteSource): Promise<ContentResult> {
    const stored: Promise<StoredChunk>[] = []
    let problem: unknown
    const guarded = new GuardedSource(source)
    try {
      for await (const chunk of this.#chunker.split(guarded)) {
        const added = this.writer.add(chunk.bytes, () => chunk.release())
        added.catch(() => undefined)
        stored.push(added)
        await this.writer.room()
        this.#signal?.throwIfAborted()
      }
    } catch (error) {
      if (error !== guarded.problem) throw error
      problem = error
    }
    this.writer.flush()
    const chunks = new ChunkList(Math.max(1, stored.length))
    for (const chunk of await Promise.all(stored)) {
      chunks.add(chunk.id, chunk.size, chunk.csize)
      if (problem !== undefined && chunk.isNew) this.#orphans.set(idKey(chunk.id), chunk.id)
    }
    return problem === undefined ? { kind: 'chunks', chunks, changed: false } : failed(problem, 'read')
  }

  /** What only failed files brought in would be found as orphaned by a check. */
  async removeOrphans(tx: Transaction): Promise<void> {
    for (const id of this.#orphans.values()) await tx.delete(id)
  }
}

/** Tells errors of the source from those of the repository: the two must never share a fate. */
class GuardedSource implements ByteSource {
  readonly #inner: ByteSource
  readonly fd?: number
  problem: unknown

  constructor(inner: ByteSource) {
    this.#inner = inner
    if (inner.fd !== undefined) this.fd = inner.fd
  }

  async read(into: Uint8Array): Promise<number> {
    try {
      return await this.#inner.read(into)
    } catch (error) {
      this.problem = error
      throw error
    }
  }
}

/** Reads an open descriptor from its start on; it stays the caller's. What was read is not kept in the host's memory. */
export class DescriptorSource implements ByteSource {
  readonly fd: number
  #position = 0
  #forgotten = 0

  constructor(fd: number) {
    this.fd = fd
    native().advise(fd, 0, 0, adviceSequential)
  }

  read(into: Uint8Array): Promise<number> {
    return new Promise((resolve, reject) => read(this.fd, into, 0, into.length, null, (error, count) => {
      if (error) return reject(error)
      this.#position += count
      // A backup must not push out of memory what people work with (Borg does the same).
      if (count === 0 || this.#position - this.#forgotten >= forgetBytes) {
        native().advise(this.fd, this.#forgotten, this.#position - this.#forgotten, adviceDontNeed)
        this.#forgotten = this.#position
      }
      resolve(count)
    }))
  }
}

const forgetBytes = 8 << 20

/** Following symlinks and blocking is what --read-special is for: the writer of a fifo may come later. */
function openSpecial(path: Buffer): Promise<number> {
  return new Promise((resolve, reject) => open(path, 'r', (error, fd) => (error ? reject(error) : resolve(fd))))
}

function failed(error: unknown, syscall: string): ContentResult {
  const { code, errno } = error as NodeJS.ErrnoException
  if (errnoOf(error) === undefined) throw error
  return { kind: 'failed', error: { code: code ?? 'EIO', errno: Math.abs(errno ?? 5), syscall } }
}
