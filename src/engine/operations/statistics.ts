/**
 * Sizes of archives and of the repository (archive.md §9): counted over all references of all archives. Costs a pass over every
 * archive's items; memory: 44 bytes for each distinct chunk.
 */
import { type ArchiveMetadata, type ArchiveStats } from '../archive/archive-metadata.js'
import { ArchiveReader } from '../archive/archive-reader.js'
import type { Item } from '../archive/item.js'
import type { ArchiveInfo } from '../archive/manifest.js'
import { HashTable } from '../hashindex/hash-table.js'
import type { LocalRepository } from '../repository/local-repository.js'
import { ChunkReader } from '../store/chunk-reader.js'
import type { Workers } from '../store/workers.js'
import { decodeItems } from '../archive/item-stream.js'
import type { OpenedRepository } from './open.js'

export interface ArchiveNumbers {
  readonly metadata: ArchiveMetadata
  readonly stats: ArchiveStats
  /** csize of what only this archive refers to. */
  readonly deduplicatedSize: number
  /** Share of the largest possible metadata object. */
  readonly utilization: number
}

export interface Statistics {
  readonly totalSize: number
  readonly totalCsize: number
  readonly uniqueSize: number
  readonly uniqueCsize: number
  readonly totalChunks: number
  readonly uniqueChunks: number
  /** Of the archive asked for. */
  readonly archive: ArchiveNumbers | undefined
}

const maxMetadataBytes = 20971479
const refcount = 0, sizeWord = 1, csizeWord = 2

/** Counts everything; `only` is the archive whose own share is wanted. */
export async function collectStatistics(opened: OpenedRepository<LocalRepository>, workers: Workers, only?: ArchiveInfo): Promise<Statistics> {
  const [several] = await collectForArchives(opened, workers, only ? [only] : [])
  return several ?? (await collectForArchives(opened, workers, [undefined]))[0]!
}

/** The same for several archives with one pass over the repository. */
export async function collectForArchives(opened: OpenedRepository<LocalRepository>, workers: Workers, wanted: readonly (ArchiveInfo | undefined)[]): Promise<Statistics[]> {
  if (wanted.length === 0) return []
  const { repository, manifest, objects } = opened
  const reader = new ChunkReader(repository, workers)
  const all = new HashTable(3)
  let totalSize = 0, totalCsize = 0, totalChunks = 0
  const own = new Map<ArchiveInfo, { table: HashTable; reader: ArchiveReader; sums: ArchiveStats }>()
  for (const info of manifest.archives.values()) {
    const archive = await ArchiveReader.open(info, repository, objects)
    const isWanted = wanted.some(other => other?.name === info.name)
    const table = isWanted ? new HashTable(3) : undefined
    let size = 0, csize = 0, nfiles = 0
    const count = (id: Uint8Array, chunkSize: number, chunkCsize: number): void => {
      totalChunks++
      add(all, id, chunkSize, chunkCsize)
      if (table) add(table, id, chunkSize, chunkCsize)
    }
    count(info.id, 0, repository.storedSize(info.id) ?? 0)
    for await (const item of itemsWithChunks(archive, reader, (index, plainSize) => {
      const id = archive.metadata.items[index]!
      count(id, plainSize, repository.storedSize(id) ?? 0)
    })) {
      if (!item.chunks) continue
      if (item.part === undefined) nfiles++
      for (let index = 0; index < item.chunks.length; index++) {
        const [id, chunkSize] = [item.chunks.id(index), item.chunks.size(index)]
        const chunkCsize = item.chunks.csize(index) || (repository.storedSize(id) ?? 0)
        count(id, chunkSize, chunkCsize)
        if (item.part === undefined) {
          size += chunkSize
          csize += chunkCsize
        }
      }
    }
    const stats = archive.metadata.stats ?? { size, csize, nfiles }
    totalSize += stats.size + (archive.metadata.partStats?.size ?? 0)
    totalCsize += stats.csize + (archive.metadata.partStats?.csize ?? 0)
    if (table) own.set(info, { table, reader: archive, sums: stats })
  }
  let uniqueSize = 0, uniqueCsize = 0
  for (const { bucket } of all.entries()) {
    uniqueSize += all.value(bucket, sizeWord)
    uniqueCsize += all.value(bucket, csizeWord)
  }
  const base = { totalSize, totalCsize, uniqueSize, uniqueCsize, totalChunks, uniqueChunks: all.size }
  return wanted.map(info => {
    const found = info && [...own].find(([other]) => other.name === info.name)
    if (!found) return { ...base, archive: undefined }
    const [foundInfo, { table, reader: archive, sums }] = found
    let deduplicatedSize = 0
    for (const { id, bucket } of table.entries()) {
      if (all.value(all.find(id), refcount) === table.value(bucket, refcount)) deduplicatedSize += table.value(bucket, csizeWord)
    }
    return { ...base, archive: { metadata: archive.metadata, stats: sums, deduplicatedSize, utilization: (repository.storedSize(foundInfo.id) ?? 0) / maxMetadataBytes } }
  })
}

/** Items with a call for each chunk of the stream as it passes. */
async function* itemsWithChunks(archive: ArchiveReader, reader: ChunkReader, passed: (index: number, size: number) => void): AsyncGenerator<Item> {
  const { items } = archive.metadata
  async function* chunks(): AsyncGenerator<Buffer> {
    let index = 0
    for await (const plain of reader.getMany(items.map(id => ({ id, size: undefined })))) {
      passed(index++, plain.length)
      yield plain
    }
  }
  yield* decodeItems(chunks())
}

function add(table: HashTable, id: Uint8Array, size: number, csize: number): void {
  const bucket = table.find(id)
  if (bucket < 0) table.set(id, 1, size, csize)
  else table.setValue(bucket, refcount, table.value(bucket, refcount) + 1)
}
