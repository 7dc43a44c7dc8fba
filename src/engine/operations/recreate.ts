/**
 * `recreate`: an archive is written anew with fewer items, other chunks, another compression or comment (archive.md §11), and takes
 * the place of the old one in the same transaction: whoever is killed has either the one or the other. Borg goes by way of an
 * archive NAME.recreate, which can be left over; here that name is only that of checkpoints.
 */
import type { ArchiveFacts } from '../archive/archive-metadata.js'
import { ArchiveReader } from '../archive/archive-reader.js'
import { ensureNewName } from '../archive/archive-writer.js'
import { ChunkList } from '../archive/chunk-list.js'
import type { Item } from '../archive/item.js'
import type { ArchiveInfo } from '../archive/manifest.js'
import { formatTimestamp, nowMicros } from '../archive/timestamps.js'
import { collectReferences } from '../cache/archive-references.js'
import type { ClientCache } from '../cache/client-cache.js'
import type { ByteSource, ChunkerParams } from '../chunker/chunker.js'
import { chunkerFor } from '../chunker/params.js'
import type { Codec } from '../codec/codec.js'
import { defaultChunkerParams } from '../constants.js'
import type { LocalRepository } from '../repository/local-repository.js'
import type { Matcher } from '../patterns/matcher.js'
import { isHardLinkable, typeBlockDevice, typeCharDevice, typeDirectory, typeFifo, typeFile, typeMask, typeSymlink } from '../platform/attributes.js'
import { ChunkReader, type WantedChunk } from '../store/chunk-reader.js'
import { ChunkRepacker } from '../store/chunk-repacker.js'
import type { Workers } from '../store/workers.js'
import type { ArchiveEntry } from './archive-entry.js'
import type { StoreListener } from './archive-pipeline.js'
import type { CheckpointOptions } from './checkpoints.js'
import { archiveFacts } from './create.js'
import { maxChunkless } from './extract.js'
import type { OpenedRepository } from './open.js'
import { ReferenceRelease } from './release-references.js'
import { storeArchive, type StoredArchive } from './store-archive.js'
import { type TagOptions, withTaggedDirectories } from './tagged-directories.js'

export type RecompressMode = 'never' | 'if-different' | 'always'

export interface RecreateOptions extends TagOptions {
  readonly matcher: Matcher
  readonly codec: Codec
  readonly recompress: RecompressMode
  /** Absent: files keep their chunks. */
  readonly chunkerParams?: ChunkerParams
  /** Absent: that of the archive is kept. */
  readonly comment?: Buffer
  readonly timestampMicros?: number
  readonly cmdline: readonly Buffer[]
  readonly dryRun: boolean
}

export interface RecreateContext {
  readonly opened: OpenedRepository<LocalRepository>
  readonly workers: Workers
  /** Synced, unless it is a dry run. */
  readonly cache: ClientCache | undefined
  /** Aborted: what is not committed is given up. */
  readonly signal: AbortSignal
  readonly checkpoints: CheckpointOptions
}

export interface RecreateListener extends StoreListener {
  /** In the archive's order. A: with content or a hard link, d s h b c f, x: left out, -: would be kept. */
  status?(letter: string, path: Buffer): void
}

interface Selected {
  readonly item: Item
  readonly kept: boolean
}

export const temporarySuffix = '.recreate'

export class Recreater {
  readonly #context: RecreateContext
  readonly #options: RecreateOptions
  readonly #listener: RecreateListener
  readonly #reader: ChunkReader
  readonly #repacker: ChunkRepacker | undefined

  constructor(context: RecreateContext, options: RecreateOptions, listener: RecreateListener) {
    this.#context = context
    this.#options = options
    this.#listener = listener
    const { repository, key, nonces } = context.opened
    this.#reader = new ChunkReader(repository, context.workers)
    if (options.recompress !== 'never') {
      this.#repacker = new ChunkRepacker({ repository, key, nonces, codec: options.codec, workers: context.workers, always: options.recompress === 'always' })
    }
  }

  /**
   * Names are byte strings. Without `target` the new archive takes the old one's place. undefined if the options ask for no change.
   * Errors of a damaged archive, and on any throw nothing changed but what a checkpoint has.
   */
  async recreate(name: string, target?: string): Promise<StoredArchive | 'dry' | undefined> {
    const { opened } = this.#context
    const { repository, manifest, objects } = opened
    const info = manifest.get(name)
    const archive = await ArchiveReader.open(info, repository, objects)
    const temporary = target ?? name + temporarySuffix
    // That of a run of Borg which did not come to its end.
    if (manifest.archives.has(temporary) || target !== undefined) ensureNewName(manifest, temporary)
    const { chunkerParams: wanted, dryRun } = this.#options
    const present = archive.metadata.chunkerParams
    const rechunk = wanted !== undefined && wanted.join() !== present?.join()
    const matcher = this.#options.excludeCaches || this.#options.excludeIfPresent.length > 0
      ? await withTaggedDirectories(archive, this.#reader, this.#options.matcher, this.#options) : this.#options.matcher
    if (matcher.includesEverything && !this.#repacker && !rechunk && this.#options.comment === undefined && target === undefined) return undefined
    const items = new Selection(archive, this.#reader, matcher)
    if (dryRun) {
      for await (const { item, kept } of items.all()) this.#listener.status?.(kept ? '-' : 'x', item.path)
      return 'dry'
    }
    return this.#store(archive, items, rechunk ? wanted : undefined, target)
  }

  async #store(archive: ArchiveReader, items: Selection, rechunk: ChunkerParams | undefined, target: string | undefined): Promise<StoredArchive> {
    const { opened, workers, cache, signal, checkpoints } = this.#context
    const { manifest, key } = opened
    const { codec } = this.#options
    const { info } = archive
    const index = cache!.index!
    const chunkerParams = rechunk ?? archive.metadata.chunkerParams ?? defaultChunkerParams
    const chunker = chunkerFor(chunkerParams, key.chunkSeed)
    const repacker = this.#repacker
    // Where no content is read there is nothing that a checkpoint could save.
    const withContent = repacker !== undefined || rechunk !== undefined
    const stop = withContent || !checkpoints.stop ? signal : AbortSignal.any([signal, checkpoints.stop])
    const entries = rechunk ? this.#rechunked(items, chunker.singleChunkBytes, repacker) : repacker ? this.#recompressed(items, repacker) : this.#unchanged(items)
    const start = nowMicros()
    return storeArchive(
      { opened, workers, codec, chunker, signal: stop, cache: { client: cache! }, ...(withContent ? { checkpoints } : {}) },
      target ?? info.name, entries, checkpoint => this.#facts(archive, chunkerParams, start, checkpoint), this.#listener,
      {
        replace: target === undefined,
        countItems: true,
        checkpointsOf: target ?? info.name + temporarySuffix,
        begin: tx => repacker?.begin(tx),
        finish: async tx => {
          await repacker?.settled()
          if (target === undefined && !isShared(info, manifest.archives.values())) {
            // What another index says of the archive is not believed where chunks are deleted by it.
            const { index: own } = await collectReferences(info, opened, this.#reader)
            // A chunk that was lost before cannot be lost now.
            await new ReferenceRelease(opened.repository, index, tx, { unknown: 'refuse', missing: 'pass' }).all(own)
          }
        },
      },
    )
  }

  #facts({ metadata }: ArchiveReader, chunkerParams: ChunkerParams, start: number, checkpoint: boolean): ArchiveFacts {
    const { cmdline, comment, timestampMicros } = this.#options
    const facts = archiveFacts({ comment: comment ?? metadata.comment, cmdline: metadata.cmdline, chunkerParams, ...(timestampMicros === undefined ? {} : { timestampMicros }) }, start)
    if (checkpoint) return { ...facts, comment: Buffer.alloc(0), cmdline: [...cmdline], time: formatTimestamp(start), timeEnd: formatTimestamp(nowMicros()) }
    const cwd = metadata.map.get('cwd')
    return {
      ...facts, ...(timestampMicros === undefined ? { time: metadata.time, timeEnd: metadata.timeEnd } : {}), recreateCmdline: cmdline,
      ...(cwd === undefined ? {} : { further: new Map([['cwd', cwd]]) }),
    }
  }

  /** Metadata only. */
  async *#unchanged(items: Selection): AsyncGenerator<Iterable<ArchiveEntry>> {
    const index = this.#context.cache!.index!
    for await (const { item, kept } of items.all()) {
      if (kept && item.chunks) {
        // A chunk may have been compressed anew since, or its stored size never been known.
        const chunks = new ChunkList(Math.max(1, item.chunks.length))
        for (const { id, size, csize } of item.chunks) chunks.add(id, size, index.get(id)?.csize || csize || (this.#context.opened.repository.storedSize(id) ?? 0))
        item.chunks = chunks
      }
      yield [this.#entry(item, kept)]
    }
  }

  async *#recompressed(items: Selection, repacker: ChunkRepacker): AsyncGenerator<Iterable<ArchiveEntry>> {
    try {
      for await (const { item, kept } of items.all()) {
        if (!kept || !item.chunks) {
          yield [this.#entry(item, kept)]
          continue
        }
        await addAll(item.chunks, repacker)
        yield [{ ...this.#entry(item, kept), content: { kind: 'chunks', chunks: this.#settled(item.chunks, repacker) } }]
      }
    } finally {
      await repacker.settled().catch(() => undefined)
      await repacker.idle()
    }
  }

  /** The list with what the chunks take when all that was added so far is stored. */
  async #settled(chunks: ChunkList, repacker: ChunkRepacker): Promise<ChunkList> {
    const { repository } = this.#context.opened
    await repacker.settled()
    const list = new ChunkList(Math.max(1, chunks.length))
    for (const { id, size, csize } of chunks) list.add(id, size, repository.storedSize(id) ?? csize)
    return list
  }

  async *#rechunked(selection: Selection, smallBytes: number, repacker: ChunkRepacker | undefined): AsyncGenerator<Iterable<ArchiveEntry>> {
    const items = selection.all()
    let count = 0
    try {
      do {
        count = 0
        for await (const run of this.#rechunkedItems(items, smallBytes, repacker)) {
          count++
          yield run
        }
      } while (count > 0)
    } finally {
      await items.return(undefined)
      await repacker?.idle()
    }
  }

  /** Of the next ones, until many in a row have no content; none when all are done. */
  async *#rechunkedItems(items: AsyncGenerator<Selected>, smallBytes: number, repacker: ChunkRepacker | undefined): AsyncGenerator<Iterable<ArchiveEntry>> {
    // Chunks that come out and are stored already have the compression that they have.
    const revised = repacker && {
      revise: async (chunks: ChunkList): Promise<ChunkList> => {
        await addAll(chunks, repacker)
        return this.#settled(chunks, repacker)
      },
    }
    // Items whose chunks are being read; the reader asks for the chunks of many files ahead.
    const ahead: Selected[] = []
    async function* wanted(): AsyncGenerator<WantedChunk> {
      for (let chunkless = 0; chunkless < maxChunkless; ) {
        const { value: selected, done } = await items.next()
        if (done) return
        ahead.push(selected)
        const { chunks } = selected.item
        chunkless = selected.kept && chunks && chunks.length > 0 ? 0 : chunkless + 1
        if (selected.kept && chunks) for (const { id, size } of chunks) yield { id, size }
      }
    }
    const plains = this.#reader.getMany(wanted())
    let next = await plains.next()
    const take = async (): Promise<Buffer> => {
      if (next.done) throw new Error('a chunk was not read')
      const plain = next.value
      next = await plains.next()
      return plain
    }
    while (ahead.length > 0) {
      const { item, kept } = ahead.shift()!
      const entry: ArchiveEntry = { ...this.#entry(item, kept), ...revised }
      if (!kept || !item.chunks) {
        yield [entry]
        continue
      }
      // It stands for the chunks that there are no more.
      delete item.chunksHealthy
      let left = item.chunks.length
      const size = item.chunks.totalSize
      if (size <= smallBytes) {
        const parts: Buffer[] = []
        for (; left > 0; left--) parts.push(await take())
        yield [{ ...entry, content: { kind: 'bytes', bytes: parts.length === 1 ? parts[0]! : Buffer.concat(parts) } }]
      } else {
        let rest: Buffer = Buffer.alloc(0)
        const source: ByteSource = {
          read: async into => {
            if (rest.length === 0) {
              if (left === 0) return 0
              left--
              rest = await take()
            }
            const count = Math.min(into.length, rest.length)
            into.set(rest.subarray(0, count))
            rest = rest.subarray(count)
            return count
          },
        }
        yield [{ ...entry, content: { kind: 'source', source, size } }]
      }
    }
  }

  #entry(item: Item, kept: boolean): ArchiveEntry {
    const { status } = this.#listener
    if (!kept) return { done: () => status?.('x', item.path) }
    return { item, done: () => status?.(letterOf(item.mode), item.path) }
  }
}

async function addAll(chunks: ChunkList, repacker: ChunkRepacker): Promise<void> {
  for (let index = 0; index < chunks.length; index++) {
    repacker.add(chunks.id(index), chunks.size(index))
    await repacker.room()
  }
}

const letters: Record<number, string> = {
  [typeFile]: 'A', [typeDirectory]: 'd', [typeSymlink]: 's', [typeBlockDevice]: 'b', [typeCharDevice]: 'c', [typeFifo]: 'f',
}

function letterOf(mode: number): string {
  return letters[mode & typeMask] ?? '?'
}

/** Two names of one archive count as one reference (Borg). */
function isShared(info: ArchiveInfo, archives: Iterable<ArchiveInfo>): boolean {
  for (const other of archives) if (other.name !== info.name && other.id.equals(info.id)) return true
  return false
}

/** The items that are kept, with hard links that lost their first name put right (archive.md §11). Part items go. */
class Selection {
  readonly #archive: ArchiveReader
  readonly #reader: ChunkReader
  readonly #matcher: Matcher

  constructor(archive: ArchiveReader, reader: ChunkReader, matcher: Matcher) {
    this.#archive = archive
    this.#reader = reader
    this.#matcher = matcher
  }

  async *all(): AsyncGenerator<Selected> {
    const isSubset = !this.#matcher.includesEverything
    /** First names that were left out, by path: what the first kept one takes over. */
    const masters = new Map<string, { chunks: ChunkList | undefined; healthy: ChunkList | undefined; heir: Buffer | undefined }>()
    for await (const item of this.#archive.items({ reader: this.#reader })) {
      if (!isSubset) {
        yield { item, kept: true }
        continue
      }
      const linkable = isHardLinkable(item.mode)
      const path = item.path.toString('latin1')
      if (!this.#matcher.includes(item.path)) {
        if (linkable && item.hardlinkMaster !== false && !item.source) masters.set(path, { chunks: item.chunks, healthy: item.chunksHealthy, heir: undefined })
        yield { item, kept: false }
        continue
      }
      const master = linkable && item.source ? masters.get(item.source.toString('latin1')) : undefined
      if (master?.heir) item.source = master.heir
      else if (master) {
        if (master.chunks) item.chunks = master.chunks
        if (master.healthy) item.chunksHealthy = master.healthy
        delete item.source
        master.heir = Buffer.from(item.path)
        master.chunks = master.healthy = undefined
      }
      yield { item, kept: true }
    }
  }
}
