/** The engine thread's half of changing archives as directories: rename, comment, deletion, each a transaction (incoming.md §6). */
import type { ArchiveInfo as ManifestEntry } from '../engine/archive/manifest.js'
import type { ClientCache } from '../engine/cache/client-cache.js'
import { deleteArchives } from '../engine/operations/delete.js'
import type { OpenedRepository } from '../engine/operations/open.js'
import { renameArchive, setComment } from '../engine/operations/rename.js'
import { idHex } from '../engine/ids.js'
import type { LocalRepository } from '../engine/repository/local-repository.js'
import type { Workers } from '../engine/store/workers.js'
import { byteString } from '../engine/text.js'
import type { ArchiveChangeRequest } from './engine-port.js'
import { FsError } from './errno.js'
import { Errno } from './types.js'

export interface ChangeContext {
  readonly opened: OpenedRepository<LocalRepository>
  readonly workers: Workers
  /** Closed here. */
  openCache(): Promise<ClientCache>
}

/** The archive as it is now, undefined if it was deleted. The exclusive lock is held. On any throw nothing changed. */
export async function changeArchive({ opened, workers, openCache }: ChangeContext, { archive, change }: ArchiveChangeRequest): Promise<ManifestEntry | undefined> {
  const info = [...opened.manifest.archives.values()].find(({ id }) => idHex(id) === archive)
  if (!info) throw new FsError(Errno.ENOENT, `archive ${archive} is not in the repository any more`)
  const cache = await openCache()
  try {
    await cache.sync(workers)
    switch (change.kind) {
      case 'rename': return await renameArchive(opened, cache, info.name, byteString(change.name))
      case 'comment': return await setComment(opened, cache, info.name, Buffer.from(change.comment))
      case 'delete':
        await deleteArchives({ opened, workers, cache }, [info], { force: false, checkpointIntervalMs: 0, considerParts: false }, {}, deletion => deletion.delete(info))
        return undefined
    }
  } finally {
    cache.close()
  }
}
