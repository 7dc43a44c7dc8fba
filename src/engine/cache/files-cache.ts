/**
 * The memory of unchanged files, in Borg's file and format, so that both programs share it: CACHE/ID/files is a sequence of
 * [id hash of the absolute path, [age, inode, size, cmtime ns, [chunk ids]]]. Chunk sizes, which Borg takes from its chunks
 * index, are kept beside it for files of several chunks. Losing either costs time only.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { idBytes } from '../constants.js'
import { HashTable } from '../hashindex/hash-table.js'
import { type ChunkId, chunkId } from '../ids.js'
import type { Log } from '../log.js'
import { MsgReader, MsgWriter } from '../msgpack.js'
import { saveFile } from '../platform/save-file.js'
import { FileDigest, finalDigest, loadIntegrity } from '../repository/integrity.js'
import { errnoOf, IntegrityError, messageOf } from '../errors.js'
import { filesCacheName } from './cache-folder.js'
import type { ChunkIndex } from './chunk-index.js'
import { readTable } from './table-file.js'

export interface FilesCacheMode {
  /** Which time tells a change; undefined: files are always read, but remembered (rechunk) or not even that (disabled). */
  readonly time: 'ctime' | 'mtime' | undefined
  readonly size: boolean
  readonly inode: boolean
  readonly lookup: boolean
  readonly remember: boolean
}

const modes: Record<string, FilesCacheMode> = {
  'ctime,inode,size': { time: 'ctime', size: true, inode: true, lookup: true, remember: true },
  'inode,mtime,size': { time: 'mtime', size: true, inode: true, lookup: true, remember: true },
  'ctime,size': { time: 'ctime', size: true, inode: false, lookup: true, remember: true },
  'mtime,size': { time: 'mtime', size: true, inode: false, lookup: true, remember: true },
  'ctime,rechunk': { time: 'ctime', size: false, inode: false, lookup: false, remember: true },
  'mtime,rechunk': { time: 'mtime', size: false, inode: false, lookup: false, remember: true },
  size: { time: undefined, size: true, inode: false, lookup: true, remember: true },
  disabled: { time: undefined, size: false, inode: false, lookup: false, remember: false },
}

/** undefined for a text that is no mode; the order of its words is free. */
export function parseFilesCacheMode(text: string): FilesCacheMode | undefined {
  return modes[text.split(',').sort().join(',')]
}

/** What lstat said of a file. */
export interface SeenFile {
  readonly ino: bigint
  readonly size: number
  readonly mtimeNs: bigint
  readonly ctimeNs: bigint
}

export type Lookup =
  | { readonly state: 'unknown' | 'changed' }
  | { readonly state: 'unchanged'; readonly ids: readonly ChunkId[]; readonly sizes: readonly number[] }

interface Entry {
  /** The packed [age, …] array. */
  packed: Buffer
  /** Seen in this run: age 0. */
  seen: boolean
  cmtimeNs: bigint
}

const sizesName = 'borgfs-chunk-sizes'

/** The cache it belongs to, whose lock is held. */
export interface CacheOfFiles {
  readonly folder: string
  digests(name: string): string | undefined
  readonly index: ChunkIndex | undefined
}

export class FilesCache {
  readonly #cache: CacheOfFiles
  readonly name: string
  readonly #mode: FilesCacheMode
  readonly #ttl: number
  readonly #log: Log
  readonly #entries = new Map<string, Entry>()
  #sizes: HashTable | undefined
  #borgChunks: HashTable | undefined
  readonly #newSizes: [ChunkId, number][] = []
  #newestNs: bigint | undefined

  private constructor(cache: CacheOfFiles, mode: FilesCacheMode, env: NodeJS.ProcessEnv, log: Log) {
    this.#cache = cache
    this.#mode = mode
    this.name = filesCacheName(env)
    this.#ttl = /^\d+$/.test(env.BORG_FILES_CACHE_TTL ?? '') ? Number(env.BORG_FILES_CACHE_TTL) : 20
    this.#log = log
  }

  /** Reads what is there; a missing or damaged file is an empty cache, with a warning. */
  static async load(cache: CacheOfFiles, mode: FilesCacheMode, log: Log, env: NodeJS.ProcessEnv = process.env): Promise<FilesCache> {
    await loadIntegrity()
    const files = new FilesCache(cache, mode, env, log)
    if (mode.remember) files.#read()
    return files
  }

  /** False: files are not remembered, and there is nothing to save. */
  get remembers(): boolean {
    return this.#mode.remember
  }

  #read(): void {
    const path = join(this.#cache.folder, this.name)
    if (!existsSync(path)) return
    try {
      const bytes = readFileSync(path)
      const expected = finalDigest(this.#cache.digests(this.name))
      const digest = digestOf(this.name, bytes)
      if (expected !== undefined && digest.digests.final !== expected) throw new Error('its digest does not fit')
      const reader = new MsgReader(bytes)
      while (!reader.done) {
        if (reader.arrayHeader() !== 2) throw new IntegrityError('an entry is no pair')
        const hash = reader.rawByteString()
        const start = reader.position
        // Enough for write(), which comes after the commit and must not fail over what others wrote.
        const fields = new MsgReader(bytes, start)
        if (fields.arrayHeader() !== 5) throw new IntegrityError('an entry has not five fields')
        fields.number()
        reader.skip()
        this.#entries.set(hash, { packed: bytes.subarray(start, reader.position), seen: false, cmtimeNs: 0n })
      }
    } catch (error) {
      this.#entries.clear()
      this.#log.write('warning', 'borg.cache', `The files cache is corrupted. [${messageOf(error)}]`)
      this.#log.write('warning', 'borg.cache', 'Continuing without files cache - expect lower performance.')
    }
  }

  /** What is known of a file. `pathHash`: id hash of its absolute path. */
  lookup(pathHash: ChunkId, file: SeenFile): Lookup {
    try {
      return this.#lookup(pathHash, file)
    } catch (error) {
      // Not as it should be: the file is read, as if nothing were known of it.
      if (!(error instanceof IntegrityError)) throw error
      this.#entries.delete(pathHash.toString('latin1'))
      return { state: 'unknown' }
    }
  }

  #lookup(pathHash: ChunkId, file: SeenFile): Lookup {
    if (!this.#mode.lookup) return { state: 'unknown' }
    const entry = this.#entries.get(pathHash.toString('latin1'))
    if (!entry) return { state: 'unknown' }
    const reader = new MsgReader(entry.packed)
    if (reader.arrayHeader() !== 5) return { state: 'unknown' }
    reader.int()
    const [ino, size, cmtime] = [reader.bigint(), reader.number(), reader.bigint()]
    const { time } = this.#mode
    if (this.#mode.size && size !== file.size) return { state: 'changed' }
    if (this.#mode.inode && ino !== file.ino) return { state: 'changed' }
    if (time !== undefined && cmtime !== (time === 'ctime' ? file.ctimeNs : file.mtimeNs)) return { state: 'changed' }
    const count = reader.arrayHeader()
    const ids: ChunkId[] = [], sizes: number[] = []
    for (let index = 0; index < count; index++) {
      const raw = reader.raw()
      if (raw.length !== idBytes) throw new IntegrityError(`an id of ${raw.length} bytes`)
      const id = chunkId(raw)
      const chunkSize = count === 1 ? size : this.#sizeOf(id)
      // Without the sizes the chunks cannot be referred to: the file is read, and all its chunks are found.
      if (chunkSize === undefined) return { state: 'changed' }
      ids.push(id)
      sizes.push(chunkSize)
    }
    return { state: 'unchanged', ids, sizes }
  }

  /** The file was found unchanged and is referred to again. */
  confirm(pathHash: ChunkId, file: SeenFile): void {
    const entry = this.#entries.get(pathHash.toString('latin1'))!
    const reader = new MsgReader(entry.packed)
    reader.arrayHeader()
    reader.int()
    reader.int()
    const rest = entry.packed.subarray(reader.position)
    const cmtime = new MsgReader(rest)
    cmtime.int()
    entry.cmtimeNs = cmtime.bigint()
    const writer = new MsgWriter(32)
    writer.arrayHeader(5)
    writer.int(0)
    writer.int(file.ino)
    writer.verbatim(rest)
    entry.packed = writer.finish()
    entry.seen = true
  }

  /** The file was read. */
  remember(pathHash: ChunkId, file: SeenFile, ids: readonly ChunkId[], sizes: readonly number[]): void {
    if (!this.#mode.remember) return
    const cmtimeNs = this.#mode.time === 'mtime' ? file.mtimeNs : file.ctimeNs
    const writer = new MsgWriter(64 + 36 * ids.length)
    writer.arrayHeader(5)
    writer.int(0)
    writer.int(file.ino)
    writer.int(file.size)
    writer.int(cmtimeNs)
    writer.arrayHeader(ids.length)
    for (const id of ids) writer.raw(id)
    this.#entries.set(pathHash.toString('latin1'), { packed: writer.finish(), seen: true, cmtimeNs })
    if (ids.length > 1) for (const [index, id] of ids.entries()) this.#newSizes.push([id, sizes[index]!])
    if (this.#newestNs === undefined || cmtimeNs > this.#newestNs) this.#newestNs = cmtimeNs
  }

  #sizeOf(id: ChunkId): number | undefined {
    const sizes = this.#loadSizes()
    const bucket = sizes.find(id)
    if (bucket >= 0) return sizes.value(bucket, 0)
    // The chunks index has the sizes too. An outdated one is as good: an id stands for the same bytes for ever.
    const { index } = this.#cache
    if (index) return index.get(id)?.size
    this.#borgChunks ??= this.#table('chunks', 3, finalDigest(this.#cache.digests('chunks')) ?? 'unverified')
    const known = this.#borgChunks.find(id)
    return known < 0 ? undefined : this.#borgChunks.value(known, 1)
  }

  #loadSizes(): HashTable {
    return (this.#sizes ??= this.#table(sizesName, 1, undefined))
  }

  /** Empty if the file is missing, damaged, or not what `expected` says: it is not needed then. */
  #table(name: string, valueWords: number, expected: string | undefined): HashTable {
    try {
      return readTable(join(this.#cache.folder, name), name, valueWords, expected)
    } catch (error) {
      if (!(error instanceof IntegrityError) && errnoOf(error) !== 'ENOENT') throw error
      return new HashTable(valueWords)
    }
  }

  /**
   * After the commit; returns the text of the file's digests. Entries seen in this run that are not older than the newest file read are left out: they could still
   * change within the same clock tick (commands.md, create). Unseen ones age and go after the TTL.
   */
  write(): string {
    const newest = this.#newestNs ?? (1n << 63n) - 1n
    const writer = new MsgWriter(1 << 16)
    for (const [hash, entry] of this.#entries) {
      if (entry.seen) {
        if (entry.cmtimeNs >= newest) continue
        writer.arrayHeader(2)
        writer.rawByteString(hash)
        writer.verbatim(entry.packed)
      } else {
        const reader = new MsgReader(entry.packed)
        reader.arrayHeader()
        const age = reader.number() + 1
        if (age >= this.#ttl) continue
        writer.arrayHeader(2)
        writer.rawByteString(hash)
        writer.arrayHeader(5)
        writer.int(age)
        writer.verbatim(entry.packed.subarray(reader.position))
      }
    }
    saveFile(join(this.#cache.folder, this.name), writer.bytes, { mode: 0o600, durable: 'content' })
    this.#saveSizes()
    return digestOf(this.name, writer.bytes).json()
  }

  /** Not needed where the chunks index has them. */
  #saveSizes(): void {
    if (this.#newSizes.length === 0 || this.#cache.index) return
    const sizes = this.#loadSizes()
    for (const [id, size] of this.#newSizes) sizes.set(id, size)
    saveFile(join(this.#cache.folder, sizesName), [sizes.header(), sizes.bucketBytes], { mode: 0o600, durable: 'no' })
  }
}

function digestOf(name: string, bytes: Uint8Array): FileDigest {
  const digest = new FileDigest(name)
  digest.update(bytes)
  digest.part('final')
  return digest
}
