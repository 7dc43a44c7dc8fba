/** An archive that a commit is to replace. What staged files are made of does not go with it. */
import type { ArchiveInfo } from '../../engine/archive/manifest.js'
import type { ChunkIndex } from '../../engine/cache/chunk-index.js'
import type { ClientCache } from '../../engine/cache/client-cache.js'
import { errnoOf, messageOf } from '../../engine/errors.js'
import type { Log } from '../../engine/log.js'
import type { StoreContext } from '../../engine/operations/store-archive.js'
import type { Stash } from '../../engine/store/stash.js'
import { bytesOf, shownText } from '../../engine/text.js'
import { wholeChunksOf } from './cloned-content.js'
import { stashDeparting } from './departing-chunks.js'
import type { FrozenTree } from './frozen.js'

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
      if (!options.stash || await stashDeparting({ needed, index, references: former.references, staying: wholeChunksOf(tree) }, repository, options.stash, options.log)) return former
      options.log.write('warning', 'borg.fuse', `Archive ${shownText(bytesOf(info.name))} stays beside the one that was to take its place: staged files need its data.`)
      cache.close()
      return undefined
    } catch (error) {
      cache.close()
      throw error
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
