/**
 * Sizes of archives and of the repository (archive.md §9), as Borg tells them: what is stored once comes from the client's chunks
 * index, sums over all archives from their metadata objects, so that parts of files that checkpoints made do not count twice.
 */
import type { ArchiveMetadata, ArchiveStats } from '../archive/archive-metadata.js'
import { decodeMetadata } from '../archive/archive-metadata.js'
import { damagedArchive } from '../archive/errors.js'
import type { ArchiveInfo } from '../archive/manifest.js'
import type { ArchiveSums } from '../cache/archive-sums.js'
import { collectReferences } from '../cache/archive-references.js'
import type { ClientCache } from '../cache/client-cache.js'
import { BorgError } from '../errors.js'
import { idFromKey, idKey } from '../ids.js'
import type { LocalRepository } from '../repository/local-repository.js'
import { ChunkReader } from '../store/chunk-reader.js'
import type { Workers } from '../store/workers.js'
import { bytesOf, shownText } from '../text.js'
import { readOutlines } from './archive-outlines.js'
import type { OpenedRepository } from './open.js'

/** Of the whole repository. */
export interface Statistics {
  readonly totalSize: number
  readonly totalCsize: number
  readonly uniqueSize: number
  readonly uniqueCsize: number
  readonly totalChunks: number
  readonly uniqueChunks: number
}

export interface ArchiveNumbers {
  readonly metadata: ArchiveMetadata
  readonly stats: ArchiveStats
  /** csize of what only this archive refers to. */
  readonly deduplicatedSize: number
  /** Share of the largest possible metadata object. */
  readonly utilization: number
}

export interface StatisticsContext {
  readonly opened: OpenedRepository<LocalRepository>
  readonly workers: Workers
  /** Synced, but for creationNumbers. */
  readonly cache: ClientCache
  /** --consider-part-files: references by part items count as well. */
  readonly considerParts: boolean
}

const maxMetadataBytes = 20971479
const noStats: ArchiveStats = { size: 0, csize: 0, nfiles: 0 }

/** Reads the metadata objects of archives that the cache does not know yet; of those made before Borg 1.2 also the items. */
export async function collectStatistics(context: StatisticsContext): Promise<Statistics> {
  const { opened, workers, cache, considerParts } = context
  const infos = [...opened.manifest.archives.values()]
  let totalSize = 0, totalCsize = 0
  const add = (sums: ArchiveSums): void => {
    const { size, csize } = shown(sums, considerParts)
    totalSize += size
    totalCsize += csize
  }
  const unknown: ArchiveInfo[] = []
  for (const info of infos) {
    const known = cache.sums.get(info.id)
    if (known) add(known)
    else unknown.push(info)
  }
  for await (const [info, outline] of readOutlines(unknown, opened, workers, { items: false })) {
    if (outline instanceof BorgError) throw damagedArchive(shownText(bytesOf(info.name)), outline, '. Run "borg check --repair" on the repository.')
    const sums = outline.stats ? { files: outline.stats, parts: outline.partStats ?? noStats } : await countedSums(info, context)
    cache.sums.set(info.id, sums)
    add(sums)
  }
  if (unknown.length > 0) cache.sums.save(infos.map(({ id }) => id))
  const { uniqueSize, uniqueCsize, totalChunks, uniqueChunks } = cache.index!.summary()
  return { totalSize, totalCsize, uniqueSize, uniqueCsize, totalChunks, uniqueChunks }
}

/** The numbers of each archive, in the order given. Costs a pass over its items unless the cache has an index of it. */
export async function* collectArchiveNumbers(infos: readonly ArchiveInfo[], context: StatisticsContext): AsyncGenerator<readonly [ArchiveInfo, ArchiveNumbers]> {
  const { opened, workers, cache, considerParts } = context
  const { repository, objects } = opened
  for (const info of infos) {
    const metadata = decodeMetadata(await objects.parse(info.id, await repository.get(info.id)), objects.key, info.name)
    const sums = metadata.stats ? { files: metadata.stats, parts: metadata.partStats ?? noStats } : cache.sums.get(info.id) ?? (await countedSums(info, context))
    const stats = shown(sums, considerParts)
    const own = await cache.references(info, workers)
    yield [info, { metadata, stats, deduplicatedSize: own.uniqueWithin(cache.index!).csize, utilization: utilizationOf(info, repository) }]
  }
}

/**
 * What `recreate` says of the archive it made, which is not what `info` says (output.md §4): sizes with the metadata object, which is new, as it has the command
 * line in it.
 */
export async function recreationNumbers({ info, stats, newBytes }: { readonly info: ArchiveInfo; readonly stats: ArchiveStats; readonly newBytes: number }, opened: OpenedRepository<LocalRepository>): Promise<ArchiveNumbers> {
  const { repository, objects } = opened
  const object = await repository.get(info.id)
  const plain = await objects.parse(info.id, object)
  return {
    metadata: decodeMetadata(plain, objects.key, info.name), stats: { ...stats, size: stats.size + plain.length, csize: stats.csize + object.length },
    deduplicatedSize: newBytes + object.length, utilization: utilizationOf(info, repository),
  }
}

/** What `create` says: the same, and what came in new without the item stream. */
export async function creationNumbers(stored: { readonly info: ArchiveInfo; readonly stats: ArchiveStats; readonly newBytes: number }, { opened, cache }: StatisticsContext): Promise<ArchiveNumbers> {
  const numbers = await recreationNumbers(stored, opened)
  let { deduplicatedSize } = numbers
  const counts = new Map<string, number>()
  for (const id of numbers.metadata.items) counts.set(idKey(id), (counts.get(idKey(id)) ?? 0) + 1)
  for (const [key, count] of counts) {
    const chunk = cache.index?.get(idFromKey(key))
    if (chunk?.refcount === count) deduplicatedSize -= chunk.csize
  }
  return { ...numbers, deduplicatedSize }
}

function utilizationOf(info: ArchiveInfo, repository: LocalRepository): number {
  return (repository.storedSize(info.id) ?? 0) / maxMetadataBytes
}

function shown({ files, parts }: ArchiveSums, considerParts: boolean): ArchiveStats {
  return considerParts ? { size: files.size + parts.size, csize: files.csize + parts.csize, nfiles: files.nfiles + parts.nfiles } : files
}

/** What an archive made before Borg 1.2 does not say itself. */
async function countedSums(info: ArchiveInfo, { opened, workers }: StatisticsContext): Promise<ArchiveSums> {
  return collectReferences(info, opened, new ChunkReader(opened.repository, workers))
}
