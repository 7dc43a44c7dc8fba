/** The metadata objects of many archives, one after the other: read through the byte workers where there are enough of them. */
import { type ArchiveOutline, decodeOutline } from '../archive/archive-metadata.js'
import type { ArchiveInfo } from '../archive/manifest.js'
import { BorgError } from '../errors.js'
import type { LocalRepository } from '../repository/local-repository.js'
import { ChunkReader } from '../store/chunk-reader.js'
import type { Workers } from '../store/workers.js'
import type { OpenedRepository } from './open.js'

/** Threads take longer to start than this many objects to read. */
const worthWorkers = 150

/** Objects read at a time; bounds what of them is in memory. */
const groupSize = 1000

/** The plaintext of each archive's metadata object, in the order given; instead of a damaged one its error. */
export async function* readMetadataObjects(infos: readonly ArchiveInfo[], opened: OpenedRepository<LocalRepository>, workers: Workers): AsyncGenerator<readonly [ArchiveInfo, Buffer | BorgError]> {
  const { repository, objects } = opened
  if (infos.length < worthWorkers) {
    for (const info of infos) {
      let plain: Buffer | BorgError
      try {
        plain = await objects.parse(info.id, repository.getSync(info.id))
      } catch (error) {
        if (!(error instanceof BorgError)) throw error
        plain = error
      }
      yield [info, plain]
    }
    return
  }
  const reader = new ChunkReader(repository, workers)
  for (let start = 0; start < infos.length; start += groupSize) {
    const group = infos.slice(start, start + groupSize)
    let next = 0
    for await (const plain of reader.getEach(group.map(({ id }) => id))) yield [group[next++]!, plain]
  }
}

/** What counting and deleting need of each archive; instead of a damaged one its error. */
export async function* readOutlines(infos: readonly ArchiveInfo[], opened: OpenedRepository<LocalRepository>, workers: Workers, options: { items: boolean }): AsyncGenerator<readonly [ArchiveInfo, ArchiveOutline | BorgError]> {
  for await (const [info, plain] of readMetadataObjects(infos, opened, workers)) {
    if (plain instanceof BorgError) {
      yield [info, plain]
      continue
    }
    let outline: ArchiveOutline | BorgError
    try {
      outline = decodeOutline(plain, info.name, options)
    } catch (error) {
      if (!(error instanceof BorgError)) throw error
      outline = error
    }
    yield [info, outline]
  }
}
