/** The engine thread's half of changing archives as directories: rename, comment, deletion, each a transaction (incoming.md §6). */
import type { ArchiveInfo as ManifestEntry } from '../engine/archive/manifest.js'
import type { ClientCache } from '../engine/cache/client-cache.js'
import { deleteArchives } from '../engine/operations/delete.js'
import type { OpenedRepository } from '../engine/operations/open.js'
import { renameArchive, setComment } from '../engine/operations/rename.js'
import { idHex } from '../engine/ids.js'
import type { LocalRepository } from '../engine/repository/local-repository.js'
import type { Log } from '../engine/log.js'
import type { Stash } from '../engine/store/stash.js'
import type { Workers } from '../engine/store/workers.js'
import { byteString } from '../engine/text.js'
import type { ArchiveChangeRequest } from './engine-port.js'
import { FsError } from './errno.js'
import { stashDeparting } from './incoming/departing-chunks.js'
import { Errno } from './types.js'

export interface ChangeContext {
  readonly opened: OpenedRepository<LocalRepository>
  readonly workers: Workers
  /** What staged files need of an archive that is deleted goes there. */
  readonly stash?: Stash | undefined
  readonly log: Log
  /** Closed here. */
  openCache(): Promise<ClientCache>
}

/** The archive as it is now, undefined if it was deleted. The exclusive lock is held. On any throw nothing changed. */
export async function changeArchive({ opened, workers, stash, log, openCache }: ChangeContext, { archive, change }: ArchiveChangeRequest): Promise<ManifestEntry | undefined> {
  const info = [...opened.manifest.archives.values()].find(({ id }) => idHex(id) === archive)
  if (!info) throw new FsError(Errno.ENOENT, `archive ${archive} is not in the repository any more`)
  const cache = await openCache()
  try {
    const index = await cache.sync(workers)
    switch (change.kind) {
      case 'rename': return await renameArchive(opened, cache, info.name, byteString(change.name))
      case 'comment': return await setComment(opened, cache, info.name, Buffer.from(change.comment))
      case 'delete':
        if (stash && !await stashDeparting({ needed: change.needed, index, references: await cache.references(info, workers), staying: [] }, opened.repository, stash, log)) {
          throw new FsError(Errno.ENOSPC, 'staged files need its data, which the staging folder cannot take')
        }
        await deleteArchives({ opened, workers, cache }, [info], { force: false, checkpointIntervalMs: 0, considerParts: false }, {}, deletion => deletion.delete(info))
        return undefined
    }
  } finally {
    cache.close()
  }
}
