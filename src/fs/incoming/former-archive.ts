/**
 * An archive that a commit is to replace. Chunks go with it to which nothing else in the repository refers; but staged files may be made of them still:
 * of parts of them, where something was written in between, and of all of them, where a file was cloned in another tree. Those go to the stash first.
 */
import type { ArchiveInfo } from '../../engine/archive/manifest.js'
import type { ChunkIndex } from '../../engine/cache/chunk-index.js'
import type { ClientCache } from '../../engine/cache/client-cache.js'
import { idBytes } from '../../engine/constants.js'
import { errnoOf, messageOf } from '../../engine/errors.js'
import { HashTable } from '../../engine/hashindex/hash-table.js'
import { type ChunkId, chunkId } from '../../engine/ids.js'
import type { Log } from '../../engine/log.js'
import type { StoreContext } from '../../engine/operations/store-archive.js'
import { framePut } from '../../engine/repository/entry.js'
import type { LocalRepository } from '../../engine/repository/local-repository.js'
import type { Stash } from '../../engine/store/stash.js'
import { bytesOf, shownText } from '../../engine/text.js'
import { wholeChunksOf } from './cloned-content.js'
import type { FrozenTree } from './frozen.js'

/** Written to the stash at a time. */
const runBytes = 4 << 20

export interface FormerOptions {
  readonly log: Log
  readonly stash?: Stash | undefined
  openCache(): Promise<ClientCache>
}

export class FormerArchive {
  readonly info: ArchiveInfo
  /** Open, with its index loaded. */
  readonly cache: ClientCache
  readonly references: ChunkIndex

  private constructor(info: ArchiveInfo, cache: ClientCache, references: ChunkIndex) {
    this.info = info
    this.cache = cache
    this.references = references
  }

  /**
   * `needed`: packed ids of what staged files are made of, those of `tree`, which takes its place, among them. Undefined if it has to stay, because the
   * staging folder has no room for what would go with it. The exclusive lock is held.
   */
  static async open(info: ArchiveInfo, needed: Uint8Array, tree: FrozenTree, { opened: { repository }, workers }: StoreContext, options: FormerOptions): Promise<FormerArchive | undefined> {
    const cache = await options.openCache()
    try {
      // Who else refers to its chunks has to be known, as before any deletion.
      const index = await cache.sync(workers)
      const former = new FormerArchive(info, cache, await cache.references(info, workers))
      if (!options.stash || await stashed(former.#lastOnes(needed, tree, index), repository, options.stash, options.log)) return former
      options.log.write('warning', 'borg.fuse', `Archive ${shownText(bytesOf(info.name))} stays beside the one that was to take its place: staged files need its data.`)
      cache.close()
      return undefined
    } catch (error) {
      cache.close()
      throw error
    }
  }

  /** What is needed and would go: only this archive refers to it, and the new one will not. */
  *#lastOnes(needed: Uint8Array, tree: FrozenTree, index: ChunkIndex): Generator<ChunkId> {
    const staying = new HashTable(1)
    for (const id of wholeChunksOf(tree)) staying.set(id, 0)
    for (let at = 0; at < needed.length; at += idBytes) {
      const id = chunkId(Buffer.from(needed.subarray(at, at + idBytes)))
      const count = this.references.refcount(id)
      if (count === 0 || index.refcount(id) > count || staying.has(id)) continue
      yield id
      // Not again.
      staying.set(id, 0)
    }
  }

  /** The archive is made, or is not: that cannot be otherwise any more. */
  close(log: Log): void {
    try {
      this.cache.close()
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      log.write('warning', 'borg.fuse', `The lock of the cache could not be released: ${messageOf(error)}`)
    }
  }
}

/** Whether the stash has all of them, durably. */
async function stashed(ids: Iterable<ChunkId>, repository: LocalRepository, stash: Stash, log: Log): Promise<boolean> {
  let entries: Buffer[] = [], own: ChunkId[] = [], bytes = 0, any = false
  const flush = async (): Promise<void> => {
    if (own.length > 0) await stash.append(Buffer.concat(entries), own, entries.map(({ length }) => length))
    ;[entries, own, bytes] = [[], [], 0]
  }
  try {
    for (const id of ids) {
      if (!repository.has(id)) continue
      any = true
      if (stash.has(id)) continue
      entries.push(framePut(id, await repository.get(id)))
      own.push(id)
      bytes += entries.at(-1)!.length
      if (bytes >= runBytes) await flush()
    }
    await flush()
    if (any) await stash.sync()
    return true
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    log.write('warning', 'borg.fuse', `The staging folder cannot take data of an archive: ${messageOf(error)}`)
    return false
  }
}
