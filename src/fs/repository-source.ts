/**
 * What a mount shows of an opened repository, from the engine's rooms: the archive list, trees, chunks. The manifest is the one
 * last loaded; a change by another client makes a new one (`reload`), which whoever commits must use (`opened`).
 */
import { createHash } from 'node:crypto'
import { setImmediate as nextTurn, setTimeout as pause } from 'node:timers/promises'
import { statfs } from 'node:fs/promises'
import type { Item } from '../engine/archive/item.js'
import { ArchiveReader } from '../engine/archive/archive-reader.js'
import type { ArchiveMetadata } from '../engine/archive/archive-metadata.js'
import { type ArchiveInfo as ManifestEntry, isValidArchiveName, Manifest } from '../engine/archive/manifest.js'
import { parseTimestamp } from '../engine/archive/timestamps.js'
import { IntegrityError, messageOf } from '../engine/errors.js'
import { idHex } from '../engine/ids.js'
import type { Log } from '../engine/log.js'
import type { OpenedRepository } from '../engine/operations/open.js'
import { collectArchiveNumbers } from '../engine/operations/statistics.js'
import type { ClientCache } from '../engine/cache/client-cache.js'
import { groupIdOf, userIdOf } from '../engine/platform/owner.js'
import type { LocalRepository } from '../engine/repository/local-repository.js'
import { ChunkReader } from '../engine/store/chunk-reader.js'
import type { Stash } from '../engine/store/stash.js'
import type { Workers } from '../engine/store/workers.js'
import { bytesOf, byteString } from '../engine/text.js'
import { ChunkLoads } from './chunk-loads.js'
import type { ArchiveHead, ArchiveInfo, ChunksReply, ChunksRequest } from './engine-port.js'
import { clampedNs, Errno, type StatFs } from './types.js'
import { FsError } from './errno.js'
import type { MountSource, Reading } from './mount-service.js'
import { ArchiveTree } from './archive-tree.js'
import type { StoredTrees } from './stored-trees.js'
import { TreeBuilder } from './tree-builder.js'
import type { ArchiveTreeData } from './tree-columns.js'
import { buildTree, columnsOf, type TreeImage } from './tree-image.js'
import type { ShapeOptions, ViewOptions } from './tree-options.js'
import { shownTree } from './tree-view.js'
import { isMergedId, mergedId, VersionNames } from './versions.js'

/** Options of the mount that decide what trees look like; the rest follows from the archive. */
export interface SourceOptions extends Omit<ViewOptions, 'rootTimeNs' | 'owners'> {
  readonly showParts: boolean
  /** Which archives, in which order; default all by time. */
  readonly choose?: ((archives: ManifestEntry[]) => ManifestEntry[]) | undefined
  /** Which items and under which path, made anew for each archive because patterns may count. */
  readonly selection?: (() => Pick<ShapeOptions, 'select' | 'sourcePath'>) | undefined
  readonly log: Log
  /** Where trees of whole archives are kept for later mounts. */
  readonly trees?: StoredTrees | undefined
  /** Chunks that are staged and not in the repository yet. */
  readonly stash?: Stash | undefined
  /** Borg's versions view: one tree of all chosen archives, shown as if it were an archive. */
  readonly versions?: boolean
}

/** Opens the client's cache of a repository; whoever asks closes it. */
export type CacheOpener = (opened: OpenedRepository<LocalRepository>) => Promise<ClientCache>

/** Shorter item streams are decoded sooner here than worker threads are asked. */
const chunksWorthWorkers = 256
/** So long at most this thread is busy with items without looking around. */
const sliceMs = 5
/** Archives whose metadata is kept, so that head and tree read it once. */
const maxReaders = 8

export class RepositorySource implements MountSource {
  #opened: OpenedRepository<LocalRepository>
  readonly #options: SourceOptions
  readonly #workers: Workers
  readonly #openCache: CacheOpener
  readonly #reader: ChunkReader
  readonly #loads: ChunkLoads
  #archives: ArchiveInfo[] = []
  #byId = new Map<string, ManifestEntry>()
  /** Those that were there when the mount began, by id: when each was begun, and from what its tree is made. */
  readonly #first = new Map<string, { readonly time: string; source?: string }>()
  #mergedId = ''
  /** By archive id; the one used last is last. */
  readonly #readers = new Map<string, ArchiveReader>()

  /** `lookAgain`: see ChunkLoads. */
  constructor(opened: OpenedRepository<LocalRepository>, workers: Workers, options: SourceOptions, lookAgain: () => Promise<void>, openCache: CacheOpener) {
    this.#opened = opened
    this.#openCache = openCache
    this.#options = options
    this.#workers = workers
    this.#reader = new ChunkReader(opened.repository, workers)
    this.#loads = new ChunkLoads(opened.repository, workers, lookAgain, options.stash)
    this.#list()
    for (const [id, { time }] of this.#byId) this.#first.set(id, { time })
  }

  /** With the manifest that is current. */
  get opened(): OpenedRepository<LocalRepository> {
    return this.#opened
  }

  archives(): readonly ArchiveInfo[] {
    return this.#archives
  }

  /** IntegrityError if the manifest is older than the one before: somebody put back an old state. */
  async reload(): Promise<void> {
    const { repository, objects, manifest } = this.#opened
    const object = await Manifest.readObject(repository)
    const fresh = await Manifest.load(object, objects, repository.location, 'read')
    if (fresh.timestamp < manifest.timestamp) throw new IntegrityError('the manifest is older than the one read before')
    this.#opened = { ...this.#opened, manifest: fresh }
    this.listAgain()
  }

  /** To be called after the current manifest was changed in place by a commit of this process. */
  listAgain(): void {
    this.#list()
    this.tidyTrees()
  }

  async head(archive: string): Promise<ArchiveHead> {
    if (isMergedId(archive)) return { facts: { comment: noBytes, hostname: noBytes, username: noBytes }, root: undefined }
    const reader = await this.#open(archive)
    const { metadata } = reader
    let root: Item | undefined
    for await (const item of reader.items()) {
      if (byteString(item.path) === '.') root = item
      break
    }
    const facts = {
      comment: metadata.comment, hostname: metadata.hostname, username: metadata.username,
      ...(metadata.stats && { originalSize: metadata.stats.size, fileCount: metadata.stats.nfiles }),
    }
    const listing = this.#options.selection ? undefined : await this.#keptTrees?.rootListing(archive, sourceOf(reader))
    if (!root) return { facts, root: undefined, listing }
    // Through a tree of this one item, so that owners, umask and selection are applied as they will be in the whole one.
    const builder = new TreeBuilder(this.#shape())
    builder.add(root)
    const { mode, uid, gid, atimeNs, mtimeNs, ctimeNs } = new ArchiveTree(shownTree(builder.finish(), this.#view(metadata)), 0).attr(0)
    return { facts, root: { mode, uid, gid, atimeNs, mtimeNs, ctimeNs }, listing }
  }

  /** Its chunk rows may be missing, where they are kept: see treeChunks. */
  tree(archive: string, reading: Reading): Promise<ArchiveTreeData> {
    return isMergedId(archive) ? this.#mergedTree(archive, reading) : reading(() => this.#archiveTree(archive))
  }

  async #archiveTree(archive: string): Promise<ArchiveTreeData> {
    const reader = await this.#open(archive)
    const view = this.#view(reader.metadata)
    const shape = this.#shape()
    if (!shape.select) return shownTree(columnsOf(await this.#keptTrees?.open(archive, sourceOf(reader)) ?? await this.#build(archive, reader)), view)
    const builder = new TreeBuilder(shape)
    await this.#addItems(builder, reader)
    return shownTree(builder.finish(), view)
  }

  /** Chunk rows of a tree that came without. */
  async treeChunks(archive: string): Promise<Uint8Array> {
    const reader = await this.#open(archive)
    return new Uint8Array(await this.#keptTrees?.openChunks(archive, sourceOf(reader)) ?? (await this.#build(archive, reader)).chunks!)
  }

  /** Makes the tree of an archive that was just made, for the next mount, beside what else goes on. */
  keepTree(archive: string): void {
    if (!this.#keptTrees) return
    const keep = async (): Promise<void> => {
      try {
        await this.#build(archive, await this.#open(archive))
      } catch (error) {
        this.#options.log.write('debug', 'borg.fuse', `The tree of archive ${archive} cannot be kept: ${messageOf(error)}`)
      }
    }
    this.#keeping = this.#keeping.then(keep)
  }
  /** One after the other. */
  #keeping: Promise<void> = Promise.resolve()

  /** The same files under another id. */
  renameTree(from: string, to: string): void {
    this.#keptTrees?.rename(from, to)
  }

  /** Drops what is kept of archives that are gone. */
  tidyTrees(): void {
    this.#options.trees?.tidy(new Set(Array.from(this.#opened.manifest.archives.values(), ({ id }) => idHex(id))))
  }

  /** Keeps no memory for further reads. */
  rest(): void {
    this.#reader.rest()
  }

  /** Resolves when nothing is being kept any more. */
  async settled(): Promise<void> {
    await this.#keeping
    await Promise.all(this.#saving)
  }

  /** Part items change the tree; nobody wants them often. */
  get #keptTrees(): StoredTrees | undefined {
    return this.#options.showParts || !this.#options.trees?.inUse ? undefined : this.#options.trees
  }

  async #build(archive: string, reader: ArchiveReader): Promise<TreeImage> {
    const tree = await buildTree(reader.stream(this.#readAhead(reader), { borrowed: true, jobBytes: treeJobBytes }), this.#options)
    // What is left out is said in the log, each time.
    const trees = tree.complete ? this.#keptTrees : undefined
    if (trees) {
      // Whoever waits for the tree goes on first.
      const saving: Promise<void> = pause(afterwardsMs).then(() => trees.save(archive, sourceOf(reader), tree)).finally(() => this.#saving.delete(saving))
      this.#saving.add(saving)
    }
    return tree
  }
  readonly #saving = new Set<Promise<void>>()

  /**
   * Archives in the order in which they were chosen, by which versions are numbered. Nobody is kept waiting for the lock, or for this thread,
   * until all of them are read. ESTALE if the list is not the one that was asked about.
   */
  async #mergedTree(id: string, reading: Reading): Promise<ArchiveTreeData> {
    const { selection, showParts, log, timeNs } = this.#options
    const ids = [...this.#byId.keys()]
    const isWholeMount = this.#options.versions === true
    const stale = () => new FsError(Errno.ESTALE, 'the list of archives has changed')
    if (this.#mergedId !== id) throw stale()
    const names = new VersionNames()
    let current: Required<Pick<ShapeOptions, 'select' | 'sourcePath'>> | undefined
    const builder = new TreeBuilder({ showParts, log, select: item => current!.select!(item), sourcePath: source => current!.sourcePath!(source) })
    for (const archive of ids) {
      // Patterns may count, so each archive has its own.
      current = names.over(selection?.()) as typeof current
      await reading(async () => {
        if (!this.#byId.has(archive)) {
          // A mount of nothing else shows what is left; elsewhere the new list has a tree of its own.
          if (isWholeMount) return
          throw stale()
        }
        await this.#addItems(builder, await this.#open(archive))
      })
      await nextTurn()
    }
    return shownTree(builder.finish(), this.#viewAt(timeNs))
  }

  async #addItems(builder: TreeBuilder, reader: ArchiveReader): Promise<void> {
    const ahead = this.#readAhead(reader)
    let sinceMs = performance.now()
    for await (const item of reader.items({ parts: this.#options.showParts, ...(ahead && { reader: ahead }) })) {
      builder.add(item)
      // Whoever asks this thread for something else is not kept waiting until all is read.
      if (performance.now() - sinceMs < sliceMs) continue
      await nextTurn()
      sinceMs = performance.now()
    }
  }

  #readAhead(reader: ArchiveReader): ChunkReader | undefined {
    return reader.metadata.items.length > chunksWorthWorkers ? this.#reader : undefined
  }

  async deduplicatedSize(archive: string): Promise<number> {
    const info = this.#entryOf(archive)
    // It changes with every transaction, whichever archive that is about.
    const transaction = await this.#opened.repository.lastTransaction()
    if (transaction !== this.#sizesOf) this.#sizes.clear()
    this.#sizesOf = transaction
    let size = this.#sizes.get(archive)
    if (size === undefined) {
      size = await this.#countDeduplicated(info)
      this.#sizes.set(archive, size)
    }
    return size
  }

  async #countDeduplicated(info: ManifestEntry): Promise<number> {
    const cache = await this.#openCache(this.#opened)
    try {
      await cache.sync(this.#workers)
      for await (const [, numbers] of collectArchiveNumbers([info], { opened: this.#opened, workers: this.#workers, cache, considerParts: false })) return numbers.deduplicatedSize
      throw new Error('no numbers of an archive')
    } finally {
      cache.close()
    }
  }
  readonly #sizes = new Map<string, number>()
  #sizesOf = -1

  chunks(request: ChunksRequest, slab: SharedArrayBuffer): Promise<ChunksReply> {
    return this.#loads.load(request, slab)
  }

  async statfs(): Promise<StatFs> {
    const { blocks, bfree, bavail, files, ffree, bsize } = await statfs(this.#opened.repository.path)
    return { blocks, bfree, bavail, files, ffree, bsize, frsize: bsize, namelen: 255 }
  }

  #shape(): ShapeOptions {
    const { selection, showParts, log } = this.#options
    return { showParts, log, ...selection?.() }
  }

  #view(metadata: ArchiveMetadata): ViewOptions {
    return this.#viewAt(clampedNs(timeNs(metadata.time)))
  }

  #viewAt(rootTimeNs: bigint): ViewOptions {
    return { ...this.#options, rootTimeNs, owners: { user: userIdOf, group: groupIdOf } }
  }

  async #open(archive: string): Promise<ArchiveReader> {
    const info = this.#entryOf(archive)
    let reader = this.#readers.get(archive)
    reader ??= await ArchiveReader.open(info, this.#opened.repository, this.#opened.objects)
    const first = this.#first.get(archive)
    if (first) {
      // Rows of the tree are inode numbers: those that were given are those of these items.
      const source = sourceOf(reader)
      if ((first.source ??= source) !== source) throw new FsError(Errno.ESTALE, 'what is in the archive has changed')
    }
    this.#readers.delete(archive)
    this.#readers.set(archive, reader)
    if (this.#readers.size > maxReaders) this.#readers.delete(this.#readers.keys().next().value!)
    return reader
  }

  /** Where the mount is of chosen archives it knows them by the ids that they had: what was renamed since, or got a comment, has another. */
  #entryOf(archive: string): ManifestEntry {
    const info = this.#byId.get(archive) ?? this.#entryOfRenamed(archive)
    if (!info) throw new FsError(Errno.ESTALE, `archive ${archive} is not in the repository any more`)
    return info
  }

  #entryOfRenamed(archive: string): ManifestEntry | undefined {
    const time = this.#first.get(archive)?.time
    if (time === undefined) return undefined
    const gone = [...this.#first].filter(([id, first]) => first.time === time && !this.#byId.has(id))
    const come = [...this.#byId].filter(([id, entry]) => entry.time === time && !this.#first.has(id))
    // Which is which of several that were begun at the same moment (`--timestamp`) nothing tells.
    return gone.length === 1 && come.length === 1 ? come[0]![1] : undefined
  }

  #list(): void {
    const sorted = this.#opened.manifest.sorted()
    const chosen = this.#options.choose ? this.#options.choose(sorted) : sorted
    this.#byId = new Map(chosen.map((info) => [idHex(info.id), info]))
    // A mount of nothing else is asked for it by the id that it had at the beginning.
    if (!this.#options.versions || this.#mergedId === '') this.#mergedId = mergedId(chosen.map(({ id }) => idHex(id)))
    this.#archives = this.#options.versions ? [{ name: Buffer.from('versions'), id: this.#mergedId, timeNs: this.#options.timeNs, merged: true }] : chosen.map((info) => ({ name: shownName(info.name), id: idHex(info.id), timeNs: timeNs(info.time) }))
  }
}

const noBytes = Buffer.alloc(0)
const afterwardsMs = 300
/** A tree is made as fast as its items come; more of them at a time would only take memory. */
const treeJobBytes = 1 << 20

/** What a tree is made from: the chunks of the item stream. */
function sourceOf({ metadata: { items } }: ArchiveReader): string {
  const hash = createHash('sha256')
  for (const id of items) hash.update(id)
  return hash.digest('hex')
}

/** One that no directory can have, which only a hostile manifest tells, would make the whole root unreadable. */
function shownName(name: string): Uint8Array {
  return isValidArchiveName(bytesOf(name)) ? bytesOf(name) : bytesOf(name.slice(0, maxShownName).replace(/[/\0]/g, '_') || '_')
}
const maxShownName = 200

function timeNs(text: string): bigint {
  return BigInt(parseTimestamp(text) ?? 0) * 1000n
}
