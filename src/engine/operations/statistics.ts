/**
 * Sizes of archives and of the repository (archive.md §9), as Borg tells them: what is stored once comes from the client's chunks
 * index, sums over all archives from their metadata objects, so that parts of files that checkpoints made do not count twice.
 */
import type { ArchiveMetadata, ArchiveStats } from '../archive/archive-metadata.js'
import { decodeMetadata } from '../archive/archive-metadata.js'
import type { ArchiveInfo } from '../archive/manifest.js'
import { collectReferences } from '../cache/archive-references.js'
import type { ClientCache } from '../cache/client-cache.js'
import { BorgError } from '../errors.js'
import { idHex } from '../ids.js'
import type { LocalRepository } from '../repository/local-repository.js'
import { ChunkReader } from '../store/chunk-reader.js'
import type { Workers } from '../store/workers.js'
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
  /** Synced. */
  readonly cache: ClientCache
  /** --consider-part-files: references by part items count as well. */
  readonly considerParts: boolean
}

const maxMetadataBytes = 20971479
const noStats: ArchiveStats = { size: 0, csize: 0, nfiles: 0 }

/** Reads the metadata object of each archive; of those made before Borg 1.2 also the items, once in a cache's life. */
export async function collectStatistics(context: StatisticsContext): Promise<Statistics> {
  const { opened, workers, cache, considerParts } = context
  const infos = [...opened.manifest.archives.values()]
  let totalSize = 0, totalCsize = 0
  for await (const [info, outline] of readOutlines(infos, opened, workers, { items: false })) {
    if (outline instanceof BorgError) throw outline
    const stats = outline.stats ? sumOf(outline.stats, considerParts ? outline.partStats : undefined) : await oldStats(info, context)
    totalSize += stats.size
    totalCsize += stats.csize
  }
  const { uniqueSize, uniqueCsize, totalChunks, uniqueChunks } = cache.index!.summary()
  return { totalSize, totalCsize, uniqueSize, uniqueCsize, totalChunks, uniqueChunks }
}

/** The numbers of each archive, in the order given. Costs a pass over its items unless the cache has an index of it. */
export async function* collectArchiveNumbers(infos: readonly ArchiveInfo[], context: StatisticsContext): AsyncGenerator<readonly [ArchiveInfo, ArchiveNumbers]> {
  const { opened, workers, cache, considerParts } = context
  const { repository, objects } = opened
  for (const info of infos) {
    const metadata = decodeMetadata(await objects.parse(info.id, await repository.get(info.id)), objects.key, info.name)
    const stats = metadata.stats ? sumOf(metadata.stats, considerParts ? metadata.partStats : undefined) : await oldStats(info, context)
    const own = await cache.references(info, workers)
    yield [info, { metadata, stats, deduplicatedSize: own.uniqueWithin(cache.index!).csize, utilization: utilizationOf(info, repository) }]
  }
}

export function utilizationOf(info: ArchiveInfo, repository: LocalRepository): number {
  return (repository.storedSize(info.id) ?? 0) / maxMetadataBytes
}

function sumOf(stats: ArchiveStats, parts: ArchiveStats = noStats): ArchiveStats {
  return { size: stats.size + parts.size, csize: stats.csize + parts.csize, nfiles: stats.nfiles + parts.nfiles }
}

/** What an archive made before Borg 1.2 does not say itself: remembered in the cache, else counted. */
async function oldStats(info: ArchiveInfo, { opened, workers, cache, considerParts }: StatisticsContext): Promise<ArchiveStats> {
  const id = idHex(info.id)
  let sums = cache.oldSums.get(id)
  if (!sums) {
    const { files, parts } = await collectReferences(info, opened, new ChunkReader(opened.repository, workers))
    sums = { files: { ...files }, parts: { ...parts } }
    cache.oldSums.set(id, sums)
  }
  return sumOf(sums.files, considerParts ? sums.parts : undefined)
}
