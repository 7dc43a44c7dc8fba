/**
 * Entries on their way into an archive: contents are stored side by side, items are written in order, and from time to time what there is becomes a
 * checkpoint.
 */
import type { ArchiveStats } from '../archive/archive-metadata.js'
import { ArchiveWriter, type ReferenceCounter } from '../archive/archive-writer.js'
import type { Item } from '../archive/item.js'
import type { Chunker } from '../chunker/chunker.js'
import type { Codec } from '../codec/codec.js'
import { type ChunkId, idKey } from '../ids.js'
import type { LocalRepository } from '../repository/local-repository.js'
import type { Transaction } from '../repository/repository.js'
import { ChunkWriter } from '../store/chunk-writer.js'
import type { Workers } from '../store/workers.js'
import type { ArchiveEntries, ArchiveEntry, Content } from './archive-entry.js'
import { CheckpointClock, type CheckpointOptions, Stopped } from './checkpoints.js'
import { type ContentResult, ContentStore, type PartSaver, SmallFile } from './content-store.js'
import type { OpenedRepository } from './open.js'

export interface PipelineContext {
  readonly opened: OpenedRepository<LocalRepository>
  readonly workers: Workers
  readonly codec: Codec
  readonly chunker: Chunker
  readonly signal?: AbortSignal
  /** Absent: all or nothing. */
  readonly checkpoints?: CheckpointOptions
}

/** What an archive in the making has. */
export interface ProgressState {
  readonly stats: ArchiveStats
  /** csize of what was new. */
  readonly newBytes: number
  /** Of the last item. */
  readonly path: Buffer
}

export interface StoreListener {
  /** After each item. */
  progress?(state: ProgressState): void
  /** As a large file is read: bytes so far, of how many if that is known. */
  reading?(path: Buffer, done: number, total: number | undefined): void
}

/**
 * Entries for each byte worker, and as many for this thread, whose content is under way; bounds what lies between reading and writing. More than the workers have in hand, and few enough to be
 * young when they go: what waits longer is kept by V8 until its next long collection.
 */
const maxPendingOfWorker = 128

interface PendingEntry {
  readonly entry: ArchiveEntry
  readonly content: Promise<ContentResult> | ContentResult | SmallFile | undefined
}

export class ArchivePipeline {
  readonly writer: ChunkWriter
  readonly archive: ArchiveWriter
  readonly #contents: ContentStore
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

  /** `counter` is told of every reference that the archive makes. `canSave`: false where a checkpoint would have no name. */
  constructor(context: PipelineContext, tx: Transaction, counter: ReferenceCounter | undefined, listener: StoreListener, save: () => Promise<() => Promise<void>>, canSave: boolean) {
    const { opened: { repository, key, nonces, objects }, codec, workers, chunker, signal } = context
    this.writer = new ChunkWriter({ repository, transaction: tx, key, nonces, codec, workers })
    this.archive = new ArchiveWriter(this.writer, objects, counter)
    this.#contents = new ContentStore(this.writer, chunker, this.#partSaver(), signal)
    this.#maxPending = maxPendingOfWorker * (workers.count + 1)
    this.#listener = listener
    this.#signal = signal
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
    if (!this.#contents.isSmall(entry.content!)) await content
    else await this.writer.room()
    this.#pending.push({ entry, content })
    if (this.#pending.length >= this.#maxPending) await this.#finish(this.#maxPending >> 1)
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
        const result = content instanceof SmallFile ? (content.result ?? await this.#contents.settled(content)) : content instanceof Promise ? await this.#settled(content) : content
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
      }
      const stored = this.#add(item)
      if (stored) return stored.then(() => this.#written(entry, result))
    }
    this.#written(entry, result)
    return undefined
  }

  #add(item: Item): Promise<void> | undefined {
    if (this.#orphans.size > 0 && item.chunks) for (const { id } of item.chunks) this.#orphans.delete(idKey(id))
    return this.archive.addItem(item)
  }

  #partSaver(): PartSaver {
    return {
      due: () => this.#canSave && (this.#clock?.due ?? false),
      reading: (path, done, total) => this.#listener.reading?.(path, done, total),
      save: async part => {
        // All that stands before it in the archive.
        await this.#finish(0)
        await this.#add(part)
        await this.#checkpoint()
      },
      add: async part => this.#add(part),
      abandoned: id => this.#orphans.set(idKey(id), id),
    }
  }

  #written({ item, done }: ArchiveEntry, result: Exclude<ContentResult, { kind: 'failed' }> | undefined): void {
    if (item) this.#listener.progress?.({ stats: this.archive.stats, newBytes: this.writer.newBytes, path: item.path })
    done?.({ kind: 'stored', changed: result?.changed ?? false })
  }

  #read(content: Content, { item, revise }: ArchiveEntry): Promise<ContentResult> | ContentResult | SmallFile {
    const found = this.#contents.store(content, item)
    if (!revise) return found
    return this.#revised(found instanceof SmallFile ? this.#contents.settled(found) : found, revise)
  }

  async #revised(content: Promise<ContentResult> | ContentResult, revise: NonNullable<ArchiveEntry['revise']>): Promise<ContentResult> {
    const result = await content
    return result.kind === 'chunks' ? { ...result, chunks: await revise(result.chunks) } : result
  }

  /** What only failed files brought in would be found as orphaned by a check. */
  async removeOrphans(tx: Transaction): Promise<void> {
    for (const id of this.#orphans.values()) await tx.delete(id)
    this.#orphans.clear()
  }
}
