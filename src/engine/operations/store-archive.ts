/**
 * The one way an archive is made, by `create` and by the drive's incoming/: entries come in the archive's order, contents are
 * stored side by side, items are written in order, then metadata, manifest, COMMIT.
 */
import type { ArchiveFacts, ArchiveStats } from '../archive/archive-metadata.js'
import { ensureNewName } from '../archive/archive-writer.js'
import { type ArchiveInfo, isValidArchiveName } from '../archive/manifest.js'
import type { ChunkIndex } from '../cache/chunk-index.js'
import type { ClientCache, SavedFile } from '../cache/client-cache.js'
import type { Log } from '../log.js'
import type { Transaction } from '../repository/repository.js'
import type { ChunkWriter } from '../store/chunk-writer.js'
import { bytesOf } from '../text.js'
import type { ArchiveEntries } from './archive-entry.js'
import { ArchivePipeline, type PipelineContext, type StoreListener } from './archive-pipeline.js'
import { checkpointName } from './checkpoints.js'
import { ChunksIndexError, ReferenceRelease } from './release-references.js'
import { rememberCommit } from './remember-commit.js'

export interface StoreContext extends PipelineContext {
  /** For what goes wrong after the COMMIT, when nothing may be called failed any more. Absent: the repository's. */
  readonly log?: Log
  /** Kept current: its files cache always, its chunks index if that was loaded. Its lock is held. */
  readonly cache?: { readonly client: ClientCache; readonly files?: SavedFile }
  /** Deleted in the same transaction; the new archive may have its name. Needs `cache` with its index loaded. `references`: all that it refers to. */
  readonly replaces?: { readonly info: ArchiveInfo; readonly references: ChunkIndex }
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
      const pipeline: ArchivePipeline = new ArchivePipeline(context, tx, cache?.client.index, listener, async () => {
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
