/**
 * The one way an archive is made, by `create` and by the drive's incoming/: entries come in the archive's order, contents are
 * stored side by side, items are written in order, then metadata, manifest, COMMIT.
 */
import { closeSync, fstatSync, open, read } from 'node:fs'
import type { ArchiveFacts, ArchiveStats } from '../archive/archive-metadata.js'
import { ArchiveWriter, ensureNewName } from '../archive/archive-writer.js'
import { ChunkList } from '../archive/chunk-list.js'
import type { Item } from '../archive/item.js'
import { type ArchiveInfo, isValidArchiveName } from '../archive/manifest.js'
import type { ChunkIndex } from '../cache/chunk-index.js'
import type { ClientCache, SavedFile } from '../cache/client-cache.js'
import type { ByteSource, Chunker } from '../chunker/chunker.js'
import type { Codec } from '../codec/codec.js'
import { FileCipher } from '../crypto/file-cipher.js'
import { errnoOf } from '../errors.js'
import { type ChunkId, idKey } from '../ids.js'
import { adviceDontNeed, adviceSequential, native } from '../native.js'
import type { Log } from '../log.js'
import type { LocalRepository } from '../repository/local-repository.js'
import type { Transaction } from '../repository/repository.js'
import { ChunkWriter, type FileResult, type PendingFile, type StoredChunk } from '../store/chunk-writer.js'
import type { FileError, FilePiece } from '../store/jobs.js'
import { type FileSeal, RangeSource } from '../store/sealed-file.js'
import type { Workers } from '../store/workers.js'
import { bytesOf } from '../text.js'
import { CheckpointClock, type CheckpointOptions, checkpointName, Stopped } from './checkpoints.js'
import type { OpenedRepository } from './open.js'
import { ChunksIndexError, ReferenceRelease } from './release-references.js'
import { rememberCommit } from './remember-commit.js'

/** Where an item's bytes come from. */
export type Content =
  /**
   * A regular file, opened here; `size` and `ino` as lstat saw them. `special`: read whatever it is (--read-special). `seal`: it lies
   * encrypted on disk, and `size` is that of its content. `position`: it is a part of that file, and no more than one chunk (`ino` is not
   * looked at then).
   */
  | { readonly kind: 'file'; readonly path: Buffer; readonly size: number; readonly ino: bigint; readonly special?: boolean; readonly seal?: FileSeal; readonly position?: number }
  | { readonly kind: 'source'; readonly source: ByteSource; readonly size?: number }
  /** All of a small file: one chunk, none if it is empty. */
  | { readonly kind: 'bytes'; readonly bytes: Buffer }
  /** Stored already, or about to be: then the promise must not fail before it is awaited in its turn. */
  | { readonly kind: 'chunks'; readonly chunks: ChunkList | Promise<ChunkList> }
  /** One after the other: chunks that are in the repository, and sources that are cut on their own. */
  | { readonly kind: 'parts'; readonly parts: readonly (ChunkList | ByteSource)[] }

export type Outcome =
  | { readonly kind: 'stored'; readonly changed: boolean }
  | { readonly kind: 'failed'; readonly error: FileError }

export interface ArchiveEntry {
  /** Without chunks and size where there is content. Absent: only `done` is called, in order. */
  readonly item?: Item
  readonly content?: Content
  /** What becomes of the chunks when they are stored, before the item is written. */
  readonly revise?: (chunks: ChunkList) => Promise<ChunkList>
  /** Called in the order of the entries, when the item was written or could not be. */
  readonly done?: (outcome: Outcome) => void
}

export interface StoreContext {
  readonly opened: OpenedRepository<LocalRepository>
  readonly workers: Workers
  readonly codec: Codec
  readonly chunker: Chunker
  readonly signal?: AbortSignal
  /** For what goes wrong after the COMMIT, when nothing may be called failed any more. Absent: the repository's. */
  readonly log?: Log
  /** Kept current: its files cache always, its chunks index if that was loaded. Its lock is held. */
  readonly cache?: { readonly client: ClientCache; readonly files?: SavedFile }
  /** Absent: all or nothing. */
  readonly checkpoints?: CheckpointOptions
  /** Deleted in the same transaction; the new archive may have its name. Needs `cache` with its index loaded. `references`: all that it refers to. */
  readonly replaces?: { readonly info: ArchiveInfo; readonly references: ChunkIndex }
}

export interface StoreListener {
  /** After each item. */
  progress?(state: { stats: ArchiveStats; newBytes: number; path: Buffer }): void
  /** As a large file is read: bytes so far, of how many if that is known. */
  reading?(path: Buffer, done: number, total: number | undefined): void
}

export interface StoreOptions {
  /** The archive stands for the one of that name. */
  readonly replace?: boolean
  /** As Borg's `recreate` sums up: the item stream is counted with the contents. */
  readonly countItems?: boolean
  /** Name that checkpoints are called after, if not the archive's. */
  readonly checkpointsOf?: string
  /** Called when all items are stored, before the manifest is written: what else the same transaction is to do. */
  readonly finish?: (tx: Transaction, writer: ChunkWriter) => Promise<void>
  /** Called when the transaction begins. What it stores beside the writer it adds to the writer's sums. */
  readonly begin?: (tx: Transaction, writer: ChunkWriter) => Promise<void> | void
}

export interface StoredArchive {
  readonly info: ArchiveInfo
  readonly stats: ArchiveStats
  /** csize of all chunks that were new, metadata included. */
  readonly newBytes: number
  readonly newChunks: number
}

/** In the archive's order; in runs where there are many that need no waiting for. */
export type ArchiveEntries = Iterable<ArchiveEntry> | AsyncIterable<Iterable<ArchiveEntry>>

/**
 * Entries for each byte worker, and as many for this thread, whose content is under way; bounds what lies between reading and writing. More than the workers have in hand, and few enough to be
 * young when they go: what waits longer is kept by V8 until its next long collection.
 */
const maxPendingOfWorker = 128

/**
 * Makes archive `name` (byte string) in one transaction; the exclusive lock is held. `facts` is asked at the end, when the end
 * time is known, and for each checkpoint. ArchiveAlreadyExists before anything is read. On any throw nothing is saved but the
 * last checkpoint.
 */
export async function storeArchive(context: StoreContext, name: string, entries: ArchiveEntries, facts: (checkpoint: boolean) => ArchiveFacts, listener: StoreListener = {}, options: StoreOptions = {}): Promise<StoredArchive> {
  const { manifest, objects } = context.opened
  const { cache, replaces } = context
  if (!options.replace && replaces?.info.name !== name) ensureNewName(manifest, name)
  objects.codec = context.codec
  const saved = new SavedState(context)
  let stored: StoredArchive
  try {
    if (replaces) manifest.archives.delete(replaces.info.name)
    stored = await context.opened.repository.transaction(async tx => {
      const checkpoint = checkpointName(manifest, options.checkpointsOf ?? name)
      const pipeline: Pipeline = new Pipeline(context, tx, listener, async () => {
        const info = await pipeline.archive.save(checkpoint, facts(true), tx, manifest)
        await manifest.write(tx, objects)
        await tx.checkpoint()
        saved.committed()
        // The next commit, be it of a checkpoint or of the archive, no longer has this one.
        return async () => {
          manifest.archives.delete(checkpoint)
          await tx.delete(info.id)
          if (cache?.client.index?.release(info.id) === 0) cache.client.index.remove(info.id)
        }
      }, isValidArchiveName(bytesOf(checkpoint)))
      pipeline.archive.countsItems = options.countItems ?? false
      await options.begin?.(tx, pipeline.writer)
      await pipeline.run(entries)
      const info = await pipeline.archive.save(name, facts(false), tx, manifest, { replace: options.replace ?? false })
      await pipeline.removeOrphans(tx)
      await options.finish?.(tx, pipeline.writer)
      // After everything new was counted: what both refer to stays.
      // Borg counts an archive that has two names once: the other name keeps it.
      if (replaces && ![...manifest.archives.values()].some(({ id }) => id.equals(replaces.info.id))) {
        await new ReferenceRelease(context.opened.repository, cache!.client.index!, tx, { unknown: 'keep', missing: 'pass' }).all(replaces.references)
      }
      await manifest.write(tx, objects)
      return { info, stats: pipeline.archive.stats, newBytes: pipeline.writer.newBytes, newChunks: pipeline.writer.newCount }
    })
  } catch (error) {
    cache?.client.rollback()
    saved.restore()
    if (error instanceof ChunksIndexError) cache?.client.discard()
    throw error
  }
  saved.committed()
  return stored
}

/** What is in memory beside the repository's own state, and must follow its commits and roll-backs. */
class SavedState {
  readonly #context: StoreContext
  #archives: ReadonlyMap<string, ArchiveInfo>

  constructor(context: StoreContext) {
    this.#context = context
    this.#archives = new Map(context.opened.manifest.archives)
  }

  /** The order matters: a cache that is newer than its repository would count as an attack. */
  committed(): void {
    const { opened, cache, log } = this.#context
    this.#archives = new Map(opened.manifest.archives)
    rememberCommit(opened, log)
    cache?.client.commit(cache.files)
  }

  restore(): void {
    const { archives } = this.#context.opened.manifest
    archives.clear()
    for (const [name, info] of this.#archives) archives.set(name, info)
  }
}

interface PendingEntry {
  readonly entry: ArchiveEntry
  readonly content: Promise<ContentResult> | ContentResult | SmallFile | undefined
}
type ContentResult =
  | { readonly kind: 'chunks'; readonly chunks: ChunkList; readonly changed: boolean }
  | { readonly kind: 'failed'; readonly error: FileError }
type FileContent = Extract<Content, { kind: 'file' }>

/** A file that a byte worker reads. */
class SmallFile implements PendingFile {
  readonly content: FileContent
  readonly piece: FilePiece
  /** When it is known, one of: how it fared; that it is no small file any more; what went wrong with the repository. */
  result: ContentResult | undefined = undefined
  isOther = false
  problem: { readonly error: unknown } | undefined = undefined

  constructor(content: FileContent) {
    this.content = content
    const { path, size, ino, seal, position } = content
    // Most have neither.
    this.piece = seal || position !== undefined ? { path, size, ino, ...(seal && { seal }), ...(position !== undefined && { position }) } : { path, size, ino }
  }

  get size(): number {
    return this.content.size
  }

  resolve(result: FileResult): void {
    if (result.kind === 'other') this.isOther = true
    else if (result.kind === 'failed') this.result = result
    else {
      const chunks = new ChunkList()
      if (result.chunk) chunks.add(result.chunk.id, result.chunk.size, result.chunk.csize)
      this.result = { kind: 'chunks', chunks, changed: result.changed }
    }
  }

  reject(error: unknown): void {
    this.problem = { error }
  }
}

class Pipeline {
  readonly writer: ChunkWriter
  readonly archive: ArchiveWriter
  readonly #chunker: Chunker
  readonly #listener: StoreListener
  readonly #signal: AbortSignal | undefined
  readonly #pending: PendingEntry[] = []
  readonly #maxPending: number
  readonly #tx: Transaction
  readonly #clock: CheckpointClock | undefined
  /** Commits what there is; the function it gives makes ready for going on. */
  readonly #save: () => Promise<() => Promise<void>>
  readonly #canSave: boolean
  /** Known at the last checkpoint: without anything new another one would be of no use. */
  #savedCount = 0
  /** New chunks of files that failed half-way, unless an item refers to them all the same. */
  readonly #orphans = new Map<string, ChunkId>()

  constructor(context: StoreContext, tx: Transaction, listener: StoreListener, save: () => Promise<() => Promise<void>>, canSave: boolean) {
    const { repository, key, nonces, objects } = context.opened
    this.writer = new ChunkWriter({ repository, transaction: tx, key, nonces, codec: context.codec, workers: context.workers })
    this.archive = new ArchiveWriter(this.writer, objects, context.cache?.client.index)
    this.#chunker = context.chunker
    this.#maxPending = maxPendingOfWorker * (context.workers.count + 1)
    this.#listener = listener
    this.#signal = context.signal
    this.#tx = tx
    this.#save = save
    this.#canSave = canSave
    this.#clock = context.checkpoints && new CheckpointClock(context.checkpoints)
  }

  async run(entries: ArchiveEntries): Promise<void> {
    try {
      for await (const run of Symbol.asyncIterator in entries ? entries : [entries]) {
        for (const entry of run) {
          this.#signal?.throwIfAborted()
          if (this.#clock?.due) await this.#checkpointBetween()
          const taken = this.#take(entry)
          if (taken) await taken
        }
      }
      await this.#finish(0)
      if (this.#clock?.stopping) await this.#checkpointBetween()
    } catch (error) {
      await this.writer.drain().catch(() => undefined)
      throw error
    }
  }

  /** A promise if there is something to wait for before the next one. */
  #take(entry: ArchiveEntry): Promise<void> | undefined {
    const content = entry.content && this.#read(entry.content, entry)
    if (content instanceof Promise) return this.#takeLater(entry, content)
    // With nothing before it on its way there is no need to remember it.
    if (this.#pending.length === 0 && !(content instanceof SmallFile)) return this.#write(entry, content)
    this.#pending.push({ entry, content })
    if (this.#pending.length >= this.#maxPending) return this.#finish(this.#maxPending >> 1)
    return content instanceof SmallFile ? this.writer.room() : undefined
  }

  async #takeLater(entry: ArchiveEntry, content: Promise<ContentResult>): Promise<void> {
    // Awaited in order below; until then a failure is not unhandled.
    content.catch(() => undefined)
    // One large file at a time goes through the chunker.
    if (!this.#isSmall(entry.content!)) await content
    else await this.writer.room()
    this.#pending.push({ entry, content })
    if (this.#pending.length >= this.#maxPending) await this.#finish(this.#maxPending >> 1)
  }

  #isSmall(content: Content): boolean {
    return content.kind === 'file' ? !content.special && content.size <= this.#chunker.singleChunkBytes : content.kind !== 'source' && content.kind !== 'parts'
  }

  /** Between two entries. All that was begun is brought to its end first: a checkpoint must not leave chunks that nothing refers to. */
  async #checkpointBetween(): Promise<void> {
    const stopping = this.#clock!.stopping
    if (!stopping && (this.writer.newCount === this.#savedCount || !this.#canSave)) return
    await this.#finish(0)
    if (this.archive.count > 0 && this.#canSave) await this.#checkpoint()
    if (stopping) throw new Stopped()
  }

  async #checkpoint(): Promise<void> {
    const stopping = this.#clock!.stopping
    await this.#clock!.run(async () => {
      await this.writer.drain()
      await this.removeOrphans(this.#tx)
      const goOn = await this.#save()
      if (!stopping) await goOn()
    })
    this.#savedCount = this.writer.newCount
    if (stopping) throw new Stopped()
  }

  async #finish(keep: number): Promise<void> {
    if (keep === 0) this.writer.flush()
    while (this.#pending.length > keep) {
      for (const { entry, content } of this.#pending.splice(0, Math.min(64, this.#pending.length - keep))) {
        const result = content instanceof SmallFile ? (content.result ?? await this.#settledSmall(content)) : content instanceof Promise ? await this.#settled(content) : content
        const written = this.#write(entry, result)
        if (written) await written
      }
    }
  }

  /** A batch that is not full yet would never be sent while its first file is waited for. */
  #settled(content: Promise<ContentResult>): Promise<ContentResult> {
    this.writer.flush()
    return content
  }

  async #settledSmall(file: SmallFile): Promise<ContentResult> {
    while (!file.result && !file.problem && !file.isOther) await this.writer.progress()
    if (file.problem) throw file.problem.error
    // Others are under way beside it: this is no place for a checkpoint.
    return file.result ?? this.#readLarge(file.content, undefined)
  }

  /** A promise only if chunks of the item stream are to be stored. */
  #write(entry: ArchiveEntry, result: ContentResult | undefined): Promise<void> | undefined {
    if (result?.kind === 'failed') {
      entry.done?.({ kind: 'failed', error: result.error })
      return undefined
    }
    const { item } = entry
    if (item) {
      if (result) {
        item.chunks = result.chunks
        item.size = result.chunks.totalSize
        if (this.#orphans.size > 0) for (const { id } of result.chunks) this.#orphans.delete(idKey(id))
      }
      const stored = this.archive.addItem(item)
      if (stored) return stored.then(() => this.#written(entry, result))
    }
    this.#written(entry, result)
    return undefined
  }

  #written({ item, done }: ArchiveEntry, result: Exclude<ContentResult, { kind: 'failed' }> | undefined): void {
    if (item) this.#listener.progress?.({ stats: this.archive.stats, newBytes: this.writer.newBytes, path: item.path })
    done?.({ kind: 'stored', changed: result?.changed ?? false })
  }

  #read(content: Content, { item, revise }: ArchiveEntry): Promise<ContentResult> | ContentResult | SmallFile {
    const found = this.#readContent(content, item)
    if (!revise) return found
    return this.#revised(found instanceof SmallFile ? this.#settledSmall(found) : found, revise)
  }

  #readContent(content: Content, item: Item | undefined): Promise<ContentResult> | ContentResult | SmallFile {
    switch (content.kind) {
      case 'chunks': {
        const { chunks } = content
        return chunks instanceof Promise ? chunks.then(found => ({ kind: 'chunks', chunks: found, changed: false })) : { kind: 'chunks', chunks, changed: false }
      }
      case 'parts': return this.#join(content.parts)
      case 'bytes': return this.#store(content.bytes)
      case 'source': return this.#cut(content.source, item, content.size)
      case 'file': return this.#isSmall(content) ? this.#readSmall(content) : this.#readLarge(content, item)
    }
  }

  async #revised(content: Promise<ContentResult> | ContentResult, revise: NonNullable<ArchiveEntry['revise']>): Promise<ContentResult> {
    const result = await content
    return result.kind === 'chunks' ? { ...result, chunks: await revise(result.chunks) } : result
  }

  async #store(bytes: Buffer): Promise<ContentResult> {
    const chunks = new ChunkList()
    if (bytes.length > 0) {
      const { id, size, csize } = await this.writer.add(bytes)
      chunks.add(id, size, csize)
    }
    return { kind: 'chunks', chunks, changed: false }
  }

  async #join(parts: readonly (ChunkList | ByteSource)[]): Promise<ContentResult> {
    const chunks = new ChunkList(Math.max(1, parts.length))
    for (const part of parts) {
      const result = part instanceof ChunkList ? { kind: 'chunks' as const, chunks: part } : await this.#cut(part, undefined, undefined)
      if (result.kind === 'failed') return result
      for (const { id, size, csize } of result.chunks) chunks.add(id, size, csize)
    }
    return { kind: 'chunks', chunks, changed: false }
  }

  #readSmall(content: FileContent): SmallFile {
    const file = new SmallFile(content)
    this.writer.addFile(file)
    return file
  }

  async #readLarge(content: FileContent, item: Item | undefined): Promise<ContentResult> {
    let fd: number
    try {
      fd = content.special ? await openSpecial(content.path) : native().openForReading(content.path)
    } catch (error) {
      return failed(error, 'open')
    }
    try {
      const before = fstatSync(fd, { bigint: true })
      const result = await this.#cut(content.seal ? new RangeSource(fd, 0, content.seal.size, { cipher: new FileCipher(content.seal.key), file: content.seal.file }) : new DescriptorSource(fd), item, content.special ? undefined : content.size)
      if (result.kind === 'failed' || content.special) return result
      const after = fstatSync(fd, { bigint: true })
      return { ...result, changed: after.ctimeNs !== before.ctimeNs || after.size !== before.size }
    } finally {
      closeSync(fd)
    }
  }

  /**
   * Stores a source chunk by chunk. A failing source is a result; a failing repository throws. Given its item, checkpoints may
   * be made on the way: what is stored so far then stands in the archive as a part item, and so does the rest at the end.
   */
  async #cut(source: ByteSource, item: Item | undefined, size: number | undefined): Promise<ContentResult> {
    const stored: Promise<StoredChunk>[] = []
    const chunks = new ChunkList(8)
    /** New chunks since the last part. */
    let fresh: ChunkId[] = []
    const settle = async (count: number): Promise<void> => {
      if (count === stored.length) this.writer.flush()
      for (const chunk of await Promise.all(stored.splice(0, count))) {
        chunks.add(chunk.id, chunk.size, chunk.csize)
        if (chunk.isNew) fresh.push(chunk.id)
      }
    }
    let parts = 0, inParts = 0, done = 0
    const writePart = async (whole: Item): Promise<void> => {
      const rest = chunks.from(inParts)
      inParts = chunks.length
      fresh = []
      for (const { id } of rest) this.#orphans.delete(idKey(id))
      await this.archive.addItem(partOf(whole, ++parts, rest))
    }
    let problem: unknown
    const guarded = new GuardedSource(source)
    try {
      for await (const chunk of this.#chunker.split(guarded)) {
        done += chunk.bytes.length
        const added = this.writer.add(chunk.bytes, () => chunk.release())
        added.catch(() => undefined)
        stored.push(added)
        if (stored.length >= 2 * settledAtOnce) await settle(settledAtOnce)
        await this.writer.room()
        this.#signal?.throwIfAborted()
        if (!item) continue
        this.#listener.reading?.(item.path, done, size)
        if (this.#clock?.due && this.#canSave) {
          await settle(stored.length)
          // All that stands before it in the archive.
          await this.#finish(0)
          await writePart(item)
          await this.#checkpoint()
        }
      }
    } catch (error) {
      if (error !== guarded.problem) throw error
      problem = error
    }
    await settle(stored.length)
    if (problem !== undefined) {
      for (const id of fresh) this.#orphans.set(idKey(id), id)
      return failed(problem, 'read')
    }
    if (item && parts > 0 && inParts < chunks.length) await writePart(item)
    return { kind: 'chunks', chunks, changed: false }
  }

  /** What only failed files brought in would be found as orphaned by a check. */
  async removeOrphans(tx: Transaction): Promise<void> {
    for (const id of this.#orphans.values()) await tx.delete(id)
    this.#orphans.clear()
  }
}

/** What Borg writes of a file in the middle of it: what lstat said, not what has to be looked up. */
function partOf({ xattrs: _, aclAccess: _a, aclDefault: _d, bsdflags: _f, ...item }: Item, part: number, chunks: ChunkList): Item {
  return { ...item, path: Buffer.concat([item.path, Buffer.from(`.borg_part_${part}`)]), part, chunks, size: chunks.totalSize }
}

/** Chunks of one file whose promises are taken in at a time. */
const settledAtOnce = 1024

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
