/** The metadata objects of many archives, one after the other: read through the byte workers where there are enough of them. */
import { type ArchiveOutline, decodeOutline } from '../archive/archive-metadata.js'
import type { ArchiveInfo } from '../archive/manifest.js'
import { BorgError } from '../errors.js'
import type { ChunkId } from '../ids.js'
import type { LocalRepository } from '../repository/local-repository.js'
import { ChunkReader } from '../store/chunk-reader.js'
import type { Workers } from '../store/workers.js'
import type { OpenedRepository } from './open.js'

/** Threads take longer to start than so many stored bytes of so many objects to be opened here; and messages to travel, once they run. */
const worthStartingBytes = 16 << 20
const worthStartingCount = 8000
const worthSendingBytes = 128 << 10

/** Objects asked of the workers at a time; bounds what of them is in memory. */
const groupSize = 1000

/** The plaintexts of objects in the order given, by the byte workers where that pays; instead of a damaged one its error. */
export async function* readObjects(ids: readonly ChunkId[], opened: OpenedRepository<LocalRepository>, workers: Workers): AsyncGenerator<Buffer | BorgError> {
  const { repository, objects } = opened
  if (worthWorkers(ids, repository, workers)) {
    const reader = new ChunkReader(repository, workers)
    for (let start = 0; start < ids.length; start += groupSize) yield* reader.getEach(ids.slice(start, start + groupSize))
    return
  }
  for (const id of ids) {
    let plain: Buffer | BorgError
    try {
      plain = await objects.parse(id, repository.getSync(id))
    } catch (error) {
      if (!(error instanceof BorgError)) throw error
      plain = error
    }
    yield plain
  }
}

function worthWorkers(ids: readonly ChunkId[], repository: LocalRepository, workers: Workers): boolean {
  if (ids.length > worthStartingCount) return true
  const worth = workers.started ? worthSendingBytes : worthStartingBytes
  let bytes = 0
  for (const id of ids) {
    try {
      bytes += repository.storedSize(id) ?? 0
    } catch (error) {
      // A damaged entry is told in its turn.
      if (!(error instanceof BorgError)) throw error
    }
    if (bytes > worth) return true
  }
  return false
}

/** The plaintext of each archive's metadata object, in the order given; instead of a damaged one its error. */
export async function* readMetadataObjects(infos: readonly ArchiveInfo[], opened: OpenedRepository<LocalRepository>, workers: Workers): AsyncGenerator<readonly [ArchiveInfo, Buffer | BorgError]> {
  let next = 0
  for await (const plain of readObjects(infos.map(({ id }) => id), opened, workers)) yield [infos[next++]!, plain]
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
