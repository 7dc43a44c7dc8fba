/**
 * Deleting archives, for `delete` and `prune` (archive.md §11): each reference of an archive is counted down in the client's
 * chunks index, and what nothing refers to any more is deleted from the repository. All archives of a run are one transaction
 * (or one per checkpoint interval), written in this order: DELETEs, manifest, COMMIT, and only then security folder and cache.
 * Killed before the COMMIT, nothing happened; killed after it, the cache is outdated, which costs its next user time.
 */
import type { ArchiveOutline } from '../archive/archive-metadata.js'
import { ArchiveDoesNotExist, damagedArchive } from '../archive/errors.js'
import type { ArchiveInfo } from '../archive/manifest.js'
import { type ChunkIndex, chunkWords, csizeWord } from '../cache/chunk-index.js'
import type { ClientCache } from '../cache/client-cache.js'
import { referenceRow, ReferenceStream } from '../cache/item-references.js'
import { idBytes } from '../constants.js'
import { BorgError } from '../errors.js'
import { type ChunkId, idKey } from '../ids.js'
import type { LocalRepository } from '../repository/local-repository.js'
import type { Transaction } from '../repository/repository.js'
import type { Workers } from '../store/workers.js'
import { bytesOf, shownText } from '../text.js'
import { readObjects, readOutlines } from './archive-outlines.js'
import type { OpenedRepository } from './open.js'
import { ChunksIndexError, ReferenceRelease, ReleaseError } from './release-references.js'
import { rememberCommit } from './remember-commit.js'

export interface DeletionContext {
  readonly opened: OpenedRepository<LocalRepository>
  readonly workers: Workers
  /** Synced: it has the chunks index of the manifest as it is. */
  readonly cache: ClientCache
}

export interface DeletionOptions {
  /** An archive that is damaged is deleted all the same, as far as it can be read. */
  readonly force: boolean
  /** Commit when so much time has passed since the last commit; 0 = only at the end. */
  readonly checkpointIntervalMs: number
  /** Whether references by part items count in the sums. */
  readonly considerParts: boolean
}

export interface DeletionListener {
  /** Item chunks of the archive in hand. */
  progress?(done: number, total: number): void
  finished?(): void
  /** The archive is gone from the manifest, but could not be read to its end: some space stays in use until `check --repair`. */
  damaged?(info: ArchiveInfo): void
}

/** What was deleted, in bytes: over all references, and what nothing else refers to. */
export interface DeletedSums {
  size: number
  csize: number
  uniqueCsize: number
}

/**
 * Runs `steps`, which deletes archives of `doomed` in their order, in one transaction; committed when it returns, undone up to
 * the last checkpoint when it throws. `doomed` has no archive twice; exclusive lock held.
 */
export async function deleteArchives(context: DeletionContext, doomed: readonly ArchiveInfo[], options: DeletionOptions, listener: DeletionListener, steps: (deletion: ArchiveDeletion) => Promise<void>): Promise<DeletedSums> {
  const { opened, cache } = context
  const { repository, manifest } = opened
  if (!cache.index) throw new Error('deleting needs a synced cache')
  let kept = new Map(manifest.archives)
  const sums: DeletedSums = { size: 0, csize: 0, uniqueCsize: 0 }
  let deletion: ArchiveDeletion | undefined
  try {
    await repository.transaction(async tx => {
      deletion = new ArchiveDeletion(context, cache.index!, tx, doomed, options, listener, sums, () => {
        kept = new Map(manifest.archives)
      })
      await steps(deletion)
      await deletion.writeManifest()
    })
  } catch (error) {
    cache.rollback()
    manifest.archives.clear()
    for (const [name, info] of kept) manifest.archives.set(name, info)
    // Neither this program nor Borg shall stumble over it again.
    if (error instanceof ChunksIndexError) cache.discard()
    throw error
  } finally {
    await deletion?.close()
  }
  if (deletion?.committing) saveCaches(context)
  return sums
}

function saveCaches({ opened, cache }: DeletionContext): void {
  rememberCommit(opened)
  cache.commit()
}

export class ArchiveDeletion {
  readonly #context: DeletionContext
  readonly #index: ChunkIndex
  readonly #tx: Transaction
  readonly #options: DeletionOptions
  readonly #listener: DeletionListener
  readonly #sums: DeletedSums
  readonly #references: ReferenceRelease
  readonly #committed: () => void
  readonly #streams: AsyncGenerator<DoomedArchive>
  /** How many names of the manifest have each archive id. */
  readonly #names = new Map<string, number>()
  #lastCommitMs = performance.now()
  #uncommitted = 0
  /** Whether the transaction's own commit has something to commit. */
  committing = false

  constructor(context: DeletionContext, index: ChunkIndex, tx: Transaction, doomed: readonly ArchiveInfo[], options: DeletionOptions, listener: DeletionListener, sums: DeletedSums, committed: () => void) {
    this.#context = context
    this.#index = index
    this.#tx = tx
    this.#options = options
    this.#listener = listener
    this.#sums = sums
    this.#references = new ReferenceRelease(context.opened.repository, index, tx, { unknown: 'refuse', missing: options.force ? 'pass' : 'refuse' })
    this.#committed = committed
    this.#streams = doomedArchives(doomed, context.opened, context.workers)
    for (const { id } of context.opened.manifest.archives.values()) this.#names.set(idKey(id), (this.#names.get(idKey(id)) ?? 0) + 1)
  }

  /** Deletes the next archive of the list. Without force: ObjectNotFound, IntegrityError, ArchiveDamaged for a damaged one. */
  async delete(info: ArchiveInfo): Promise<void> {
    const next = await this.#streams.next()
    if (next.done || next.value.info !== info) throw new Error('archives must be deleted in the order announced')
    const { archives } = this.#context.opened.manifest
    if (!archives.has(info.name)) throw new ArchiveDoesNotExist(shownText(bytesOf(info.name)))
    const names = this.#names.get(idKey(info.id))!
    this.#names.set(idKey(info.id), names - 1)
    // References are counted once however many names an archive has: the last one takes them along.
    if (names === 1) await this.#releaseArchive(next.value)
    archives.delete(info.name)
    this.#uncommitted++
  }

  async #releaseArchive({ info, outline, chunks }: DoomedArchive): Promise<void> {
    // Nothing of it was counted, nothing is to be released.
    if (this.#context.cache.isUncounted(info.id)) {
      this.#releaseMetadata(info.id)
      await this.#references.settled()
      this.#listener.damaged?.(info)
      return
    }
    let problem: BorgError | undefined
    const references = new ReferenceStream((bytes, rows) => this.#releaseMany(bytes, rows))
    let done = 0
    try {
      if (outline instanceof BorgError) throw outline
      for await (const [id, plain] of chunks()) {
        this.#listener.progress?.(done++, outline.items.length)
        if (plain instanceof BorgError) throw plain
        this.#release(id)
        references.feed(plain)
        await this.#references.settled()
      }
      references.end()
    } catch (error) {
      // A wrong count is no matter of this archive.
      if (!(error instanceof BorgError) || error instanceof ChunksIndexError || error instanceof ReleaseError) throw error
      problem = error
    }
    this.#listener.finished?.()
    if (problem && !this.#options.force) throw damagedArchive(shownText(bytesOf(info.name)), problem, ', nothing was deleted. Run "borg check --repair" on the repository, or delete the archive with --force.')
    if (!(outline instanceof BorgError)) this.#release(info.id)
    else this.#releaseMetadata(info.id)
    await this.#references.settled()
    if (problem) this.#listener.damaged?.(info)
  }

  /** Of an archive that cannot be read: its object may be missing, or shared with nobody. */
  #releaseMetadata(id: ChunkId): void {
    if (this.#index.refcount(id) === 0) {
      if (this.#context.opened.repository.has(id)) this.#references.delete(id)
    } else this.#release(id)
  }

  #releaseMany(bytes: Buffer, references: Uint32Array): void {
    const { considerParts } = this.#options
    const { size, csize, last, unknown } = this.#index.releaseMany(bytes, references, considerParts)
    this.#sums.size += size
    this.#sums.csize += csize
    if (last.length > 0) {
      const ids = Buffer.allocUnsafe(last.length * idBytes)
      let to = 0
      for (const row of last) to += bytes.copy(ids, to, references[row]!, references[row]! + idBytes)
      const taken = this.#index.takeOut(ids)
      let at = csizeWord
      for (const row of last) {
        if (considerParts || references[row + referenceRow.part] === 0) this.#sums.uniqueCsize += taken[at]!
        at += chunkWords
      }
      this.#references.dropMany(ids)
    }
    if (unknown !== undefined) throw new ChunksIndexError(bytes.subarray(references[unknown]!, references[unknown]! + idBytes))
  }

  #release(id: ChunkId): void {
    const { size, csize, last } = this.#references.one(id)!
    this.#sums.size += size
    this.#sums.csize += csize
    if (last) this.#sums.uniqueCsize += csize
  }

  /** Commits what was deleted so far if the interval is over. */
  async maybeCheckpoint(): Promise<boolean> {
    const { checkpointIntervalMs } = this.#options
    if (checkpointIntervalMs === 0 || performance.now() - this.#lastCommitMs < checkpointIntervalMs) return false
    await this.checkpoint()
    return true
  }

  async checkpoint(): Promise<void> {
    await this.writeManifest()
    await this.#tx.checkpoint()
    this.#committed()
    this.committing = false
    this.#lastCommitMs = performance.now()
    saveCaches(this.#context)
  }

  /** What is committed next must know what is gone. */
  async writeManifest(): Promise<void> {
    const { manifest, objects } = this.#context.opened
    if (this.#uncommitted === 0) return
    await manifest.write(this.#tx, objects)
    this.#uncommitted = 0
    this.committing = true
  }

  async close(): Promise<void> {
    await this.#streams.return(undefined)
  }
}

interface DoomedArchive {
  readonly info: ArchiveInfo
  readonly outline: ArchiveOutline | BorgError
  /** The item stream with the ids of its chunks, from its beginning. At most once; only until the next archive is asked for. */
  chunks(): AsyncGenerator<readonly [ChunkId, Buffer | BorgError]>
}

/** Archives whose item streams are read in one go, ahead of the consumer. */
const archivesPerGo = 128
const itemChunksPerGo = 4096

/**
 * The archives in order. Their metadata and items are read ahead of what is asked, across the borders of archives: most item streams
 * are a chunk or two.
 */
async function* doomedArchives(infos: readonly ArchiveInfo[], opened: OpenedRepository<LocalRepository>, workers: Workers): AsyncGenerator<DoomedArchive> {
  let group: (readonly [ArchiveInfo, ArchiveOutline | BorgError])[] = []
  let itemChunks = 0
  for await (const entry of readOutlines(infos, opened, workers, { items: true })) {
    group.push(entry)
    if (!(entry[1] instanceof BorgError)) itemChunks += entry[1].items.length
    if (group.length < archivesPerGo && itemChunks < itemChunksPerGo) continue
    yield* withStreams(group, opened, workers)
    group = []
    itemChunks = 0
  }
  yield* withStreams(group, opened, workers)
}

async function* withStreams(group: readonly (readonly [ArchiveInfo, ArchiveOutline | BorgError])[], opened: OpenedRepository<LocalRepository>, workers: Workers): AsyncGenerator<DoomedArchive> {
  const ids = group.flatMap(([, outline]) => (outline instanceof BorgError ? [] : outline.items))
  const plains = readObjects(ids, opened, workers)
  try {
    for (const [info, outline] of group) {
      const items = outline instanceof BorgError ? [] : outline.items
      let left = items.length
      yield {
        info, outline,
        async *chunks() {
          for (const id of items) {
            const { value, done } = await plains.next()
            left--
            if (done) throw new Error('an item chunk did not come')
            yield [id, value] as const
          }
        },
      }
      // Of an archive that was not read to its end.
      while (left-- > 0) await plains.next()
    }
  } finally {
    await plains.return(undefined)
  }
}
