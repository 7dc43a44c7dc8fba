/**
 * The memory of unchanged files, in Borg's file and format, so that both programs share it: CACHE/ID/files is a sequence of
 * [id hash of the absolute path, [age, inode, size, cmtime ns, [chunk ids]]]. Chunk sizes, which Borg takes from its chunks
 * index, are kept beside it for files of several chunks. Losing either costs time only. In memory a file takes a record of 32 bytes and
 * 32 for each chunk, and a bucket of 36, outside the JavaScript heap (file-records.ts).
 */
import { closeSync, existsSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { type ChunkList, rowBytes } from '../archive/chunk-list.js'
import { idBytes } from '../constants.js'
import { HashTable } from '../hashindex/hash-table.js'
import type { ChunkId } from '../ids.js'
import type { Log } from '../log.js'
import { MsgpackError, MsgReader, MsgWriter } from '../msgpack.js'
import { replaceFile, writePieces } from '../platform/save-file.js'
import { FileDigest, finalDigest, loadIntegrity } from '../repository/integrity.js'
import { errnoOf, IntegrityError, messageOf } from '../errors.js'
import { filesCacheName } from './cache-folder.js'
import type { ChunkIndex } from './chunk-index.js'
import { FileRecords, full, maxAge, seen } from './file-records.js'
import { readTable, writeTable } from './table-file.js'

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
  /** By path hash: where its record lies. */
  #entries = new HashTable(1)
  #records = new FileRecords()
  #sizes: HashTable | undefined
  #sizesChanged = false
  #borgChunks: HashTable | undefined
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
      const digest = new FileDigest(this.name)
      for (const reader of entriesOf(path, digest)) {
        if (reader.arrayHeader() !== 2) throw new IntegrityError('an entry is no pair')
        const hash = reader.raw()
        if (hash.length !== idBytes) throw new Error('a path hash of another length')
        if (reader.arrayHeader() !== 5) throw new Error('an entry that is not of five values')
        const [age, ino, size, cmtimeNs, count] = [reader.number(), reader.bigint(), reader.number(), reader.bigint(), reader.arrayHeader()]
        // An id takes more than a byte: the reader was led over the whole entry, so that there are so many.
        const record = this.#records.add(ino, size, cmtimeNs, Math.max(0, Math.min(age, maxAge)), count)
        for (let index = 0; index < count; index++) {
          const at = reader.skipRaw(idBytes)
          if (record !== full) this.#records.setId(record, index, reader.bytes, at)
        }
        // No file has such numbers: it is as good as unknown.
        if (record !== full && ino >= 0n && size >= 0 && cmtimeNs < 1n << 63n) this.#entries.set(hash, record)
      }
      digest.part('final')
      const expected = finalDigest(this.#cache.digests(this.name))
      if (expected !== undefined && digest.digests.final !== expected) throw new Error('its digest does not fit')
    } catch (error) {
      this.#entries = new HashTable(1)
      this.#records = new FileRecords()
      this.#log.write('warning', 'borg.cache', `The files cache is corrupted. [${messageOf(error)}]`)
      this.#log.write('warning', 'borg.cache', 'Continuing without files cache - expect lower performance.')
    }
  }

  /** What is known of a file. `pathHash`: id hash of its absolute path. The ids are views of the cache's memory. */
  lookup(pathHash: ChunkId, file: SeenFile): Lookup {
    try {
      return this.#lookup(pathHash, file)
    } catch (error) {
      // The tables that know the sizes are not as they should be: the file is read, as if nothing were known of it.
      if (!(error instanceof IntegrityError)) throw error
      return unknown
    }
  }

  #lookup(pathHash: ChunkId, file: SeenFile): Lookup {
    if (!this.#mode.lookup) return unknown
    const bucket = this.#entries.find(pathHash)
    if (bucket < 0) return unknown
    const records = this.#records, record = this.#entries.value(bucket, 0)
    const { time } = this.#mode
    const size = records.size(record)
    if (this.#mode.size && size !== file.size) return changed
    if (this.#mode.inode && records.ino(record) !== file.ino) return changed
    if (time !== undefined && records.cmtimeNs(record) !== (time === 'ctime' ? file.ctimeNs : file.mtimeNs)) return changed
    const count = records.count(record)
    const ids: ChunkId[] = [], sizes: number[] = []
    for (let index = 0; index < count; index++) {
      const id = records.id(record, index)
      const chunkSize = count === 1 ? size : this.#sizeOf(id)
      // Without the sizes the chunks cannot be referred to: the file is read, and all its chunks are found.
      if (chunkSize === undefined) return changed
      ids.push(id)
      sizes.push(chunkSize)
    }
    return { state: 'unchanged', ids, sizes }
  }

  /** The file was found unchanged and is referred to again. */
  confirm(pathHash: ChunkId, file: SeenFile): void {
    this.#records.confirm(this.#entries.value(this.#entries.find(pathHash), 0), file.ino)
  }

  /** The file was read. */
  remember(pathHash: ChunkId, file: SeenFile, chunks: ChunkList): void {
    if (!this.#mode.remember) return
    const cmtimeNs = this.#mode.time === 'mtime' ? file.mtimeNs : file.ctimeNs
    const record = this.#records.add(file.ino, file.size, cmtimeNs, seen, chunks.length)
    // It will be read again.
    if (record === full) return
    const { bytes } = chunks
    for (let index = 0; index < chunks.length; index++) this.#records.setId(record, index, bytes, index * rowBytes)
    this.#entries.set(pathHash, record)
    // Not needed where the chunks index has them.
    if (chunks.length > 1 && !this.#cache.index) {
      const known = this.#loadSizes()
      for (let index = 0; index < chunks.length; index++) known.set(chunks.id(index), chunks.size(index))
      this.#sizesChanged = true
    }
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

  /** After the commit; returns the text of the file's digests. */
  write(): string {
    const digest = new FileDigest(this.name)
    replaceFile(join(this.#cache.folder, this.name), fd => writePieces(fd, this.#pieces(digest)), { mode: 0o600, durable: 'content' })
    digest.part('final')
    if (this.#sizesChanged) writeTable(join(this.#cache.folder, sizesName), sizesName, this.#loadSizes())
    return digest.json()
  }

  /**
   * The bytes of the file. Entries seen in this run that are not older than the newest file read are left out: they could still
   * change within the same clock tick (commands.md, create). Unseen ones age and go after the TTL.
   */
  *#pieces(digest: FileDigest): Generator<Uint8Array> {
    const newest = this.#newestNs ?? (1n << 63n) - 1n
    const records = this.#records
    const writer = new MsgWriter(pieceBytes + (16 << 10))
    const hash = Buffer.alloc(idBytes)
    for (const bucket of this.#entries.buckets()) {
      const record = this.#entries.value(bucket, 0)
      const cmtimeNs = records.cmtimeNs(record)
      let age = records.age(record)
      if (age === seen) {
        if (cmtimeNs >= newest) continue
        age = 0
      } else if (++age >= this.#ttl) continue
      this.#entries.copyId(bucket, hash)
      writer.arrayHeader(2)
      writer.raw(hash)
      writer.arrayHeader(5)
      writer.int(age)
      writer.int(records.ino(record))
      writer.int(records.size(record))
      writer.int(cmtimeNs)
      records.writeIds(record, writer)
      if (writer.length < pieceBytes) continue
      digest.update(writer.bytes)
      yield writer.bytes
      writer.clear()
    }
    digest.update(writer.bytes)
    yield writer.bytes
  }
}

/** A reader at each entry of the file in turn, which must be left at the entry's end. Error for bytes that are no entries. */
function* entriesOf(path: string, digest: FileDigest): Generator<MsgReader> {
  const fd = openSync(path, 'r')
  try {
    let window = Buffer.allocUnsafeSlow(readBytes)
    let held = 0
    for (;;) {
      const count = readSync(fd, window, held, window.length - held, null)
      digest.update(window.subarray(held, held + count))
      held += count
      const ended = count === 0
      const reader = new MsgReader(window, 0, held)
      let complete = 0
      for (;;) {
        // An entry that goes on behind the window is skipped first, so that nobody begins with it.
        if (reader.done) break
        try {
          reader.skip()
        } catch (error) {
          if (!ended && error instanceof MsgpackError) break
          throw error
        }
        const end = reader.position
        reader.position = complete
        yield reader
        complete = end
        reader.position = end
      }
      if (ended) return
      const rest = window.subarray(complete, held)
      if (complete === 0 && held === window.length) window = Buffer.concat([rest, Buffer.allocUnsafeSlow(window.length)])
      else rest.copy(window)
      held = rest.length
    }
  } finally {
    closeSync(fd)
  }
}

const unknown: Lookup = { state: 'unknown' }, changed: Lookup = { state: 'changed' }
const pieceBytes = 256 << 10, readBytes = 256 << 10
