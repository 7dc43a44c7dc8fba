/** A repository in a directory of this machine: assembles log, state, lock and config (repository.md). */
import { appendFileSync, mkdirSync, readdirSync, readFileSync, statfsSync, statSync } from 'node:fs'
import { randomBytes } from 'node:crypto'
import { dirname, join, resolve } from 'node:path'
import { putHeaderBytes, maxEntryBytes, maxObjectBytes } from '../constants.js'
import { BorgError, errnoOf, IntegrityError } from '../errors.js'
import { formatNonce, parseNonce } from '../crypto/nonces.js'
import { type ChunkId, manifestId } from '../ids.js'
import type { Log } from '../log.js'
import type { HashTable, SharedTable } from '../hashindex/hash-table.js'
import { saveFile } from '../platform/save-file.js'
import { configDefaults, RepositoryConfig } from './config.js'
import { deleteBytes, frameDelete, framePut, headerBytes, magic, valueOf } from './entry.js'
import {
  AlreadyExists, AtticRepository, DoesNotExist, InsufficientFreeSpace, ObjectNotFound, ParentPathDoesNotExist, PathAlreadyExists, PathPermissionDenied,
  SegmentError, StorageQuotaExceeded,
} from './errors.js'
import { Lock, type LockKind } from './lock.js'
import type { Repository, Transaction } from './repository.js'
import { Segments } from './segments.js'
import { indexFileBytes, loadState, type LoadOptions, newestIndex, type RepositoryState, saveState, tellDamage } from './state.js'

export interface OpenOptions {
  readonly lock: LockKind | 'none'
  readonly lockWaitMs: number
  readonly log: Log
  /** Largest index file that is read whole at once; a larger one is looked into where it lies. */
  readonly smallIndexBytes?: number
}

export interface CreateOptions {
  readonly appendOnly?: boolean
  readonly storageQuota?: number
  readonly makeParentDirs?: boolean
}

/** Where an object's entry lies, for reading it in another thread. `fd` stays the repository's property. */
export interface EntryLocation {
  readonly fd: number
  readonly segment: number
  readonly offset: number
  /** Bytes of the whole entry. */
  readonly length: number
}

export class LocalRepository implements Repository {
  readonly path: string
  readonly location: string
  readonly local = true
  readonly config: RepositoryConfig
  readonly #log: Log
  readonly #lock: Lock
  readonly #segments: Segments
  readonly #smallIndexBytes: number | undefined
  #state: RepositoryState
  /** Transaction that refresh() last told of, or that the repository was opened with. */
  #toldTransaction: number
  /** Open or queued transactions, one after the other. */
  #queue: Promise<unknown> = Promise.resolve()

  private constructor(path: string, config: RepositoryConfig, lock: Lock, segments: Segments, state: RepositoryState, options: OpenOptions) {
    this.path = path
    this.location = path
    this.config = config
    this.#lock = lock
    this.#segments = segments
    this.#state = state
    this.#toldTransaction = state.transaction
    this.#smallIndexBytes = options.smallIndexBytes
    this.#log = options.log
  }

  /** Makes an empty repository; the path may be an empty directory. */
  static create(path: string, options: CreateOptions = {}): void {
    const folder = resolve(path)
    refuseExisting(folder)
    try {
      if (options.makeParentDirs) mkdirSync(dirname(folder), { recursive: true })
      mkdirSync(folder)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') throw new ParentPathDoesNotExist(folder)
      if (errnoOf(error) === 'EACCES') throw new PathPermissionDenied(folder)
      if (errnoOf(error) !== 'EEXIST') throw error
    }
    saveFile(join(folder, 'README'), Buffer.from('This is a Borg Backup repository.\nSee https://borgbackup.readthedocs.io/\n'))
    mkdirSync(join(folder, 'data'))
    const values = new Map(configDefaults)
    if (options.appendOnly) values.set('append_only', '1')
    if (options.storageQuota) values.set('storage_quota', String(options.storageQuota))
    values.set('id', randomBytes(32).toString('hex'))
    new RepositoryConfig(join(folder, 'config'), folder, values).save()
  }

  static async open(path: string, options: OpenOptions): Promise<LocalRepository> {
    const folder = resolve(path)
    try {
      if (!statSync(folder).isDirectory()) throw new DoesNotExist(folder)
    } catch (error) {
      if (['ENOENT', 'ENOTDIR', 'ELOOP'].includes(errnoOf(error) ?? '')) throw new DoesNotExist(folder)
      if (errnoOf(error) === 'EACCES') throw new PathPermissionDenied(folder)
      throw error
    }
    // Before anything is written, a lock directory included, it must be a repository.
    const config = RepositoryConfig.load(folder, folder)
    const lock = new Lock(join(folder, 'lock'), options.log)
    if (options.lock !== 'none') await lock.acquire(options.lock, options.lockWaitMs)
    try {
      const segments = new Segments(folder, { segmentsPerDir: config.segmentsPerDir, maxSegmentSize: config.maxSegmentSize })
      refuseAttic(folder, segments)
      const { state, stale } = loadState(folder, folder, segments, options.log, { trusting: options.lock !== 'exclusive', smallBytes: options.smallIndexBytes })
      if (stale && options.lock === 'exclusive') saveState(folder, state)
      return new LocalRepository(folder, config, lock, segments, state, options)
    } catch (error) {
      lock.release()
      throw error
    }
  }

  get id(): Buffer {
    return this.config.id
  }

  get objectCount(): number {
    return this.#state.index.size
  }

  get transactionId(): number {
    return this.#state.transaction
  }

  /** For byte workers; take it anew after the index grew. */
  sharedIndex(): SharedTable {
    return this.#state.index.shared()
  }

  // --- locks, for a mount that holds one only while it works ---

  get lockHeld(): LockKind | undefined {
    return this.#lock.held
  }

  /** Takes or changes the lock. Call refresh() after taking it anew. */
  acquireLock(kind: LockKind, waitMs: number): Promise<void> {
    return this.#lock.acquire(kind, waitMs)
  }

  releaseLock(): void {
    this.#lock.release()
  }

  // --- reading ---

  has(id: ChunkId): boolean {
    return this.#place(id) !== undefined
  }

  get(id: ChunkId): Promise<Buffer> {
    return new Promise(resolve => resolve(this.getSync(id)))
  }

  getSync(id: ChunkId): Buffer {
    const { segment, offset } = this.#placeOf(id)
    return valueOf(this.#segments.readEntry(segment, offset), id, segment, offset)
  }

  async *getMany(ids: Iterable<ChunkId>): AsyncIterable<Buffer> {
    for (const id of ids) yield this.getSync(id)
  }

  /** ObjectNotFound; SegmentError if the entry's header is damaged. */
  locate(id: ChunkId): EntryLocation {
    const { segment, offset } = this.#placeOf(id)
    const length = this.#segments.entryLength(segment, offset)
    if (length < putHeaderBytes || length > maxEntryBytes) throw new SegmentError(`Invalid segment entry size ${length}`, segment, offset)
    return { fd: this.#segments.descriptor(segment), segment, offset, length }
  }

  storedSize(id: ChunkId): number | undefined {
    const place = this.#place(id)
    return place && this.#segments.entryLength(place.segment, place.offset) - putHeaderBytes
  }

  list(after: ChunkId | undefined, limit: number): Promise<ChunkId[]> {
    this.#completeState()
    const { index } = this.#state
    const start = after === undefined ? 0 : index.find(after) + 1
    const ids: ChunkId[] = []
    for (const { id } of index.entries(start)) {
      ids.push(id)
      if (ids.length >= limit) break
    }
    return Promise.resolve(ids)
  }

  #placeOf(id: ChunkId): { segment: number; offset: number } {
    const place = this.#place(id)
    if (!place) throw new ObjectNotFound(id, this.location)
    return place
  }

  /**
   * Where the index has an object, undefined for one that there is not. An index that was not verified is only believed where
   * the entry that it points to is the one that was wanted; else it is verified now, and made anew if it is damaged.
   */
  #place(id: ChunkId): { segment: number; offset: number } | undefined {
    if (this.#state.complete) {
      try {
        const place = placeIn(this.#state.index, id)
        if (place && this.#segments.holds(place.segment, place.offset, id)) return place
        this.#completeState()
      } catch (error) {
        if (!(error instanceof IntegrityError) && errnoOf(error) === undefined) throw error
        this.#completeState()
      }
    }
    return placeIn(this.#state.index, id)
  }

  /** Verifies an index that was not, and reads the hints. What is damaged is made anew from the segments. */
  #completeState(): void {
    const { complete, index, transaction } = this.#state
    if (!complete) return
    try {
      this.#state = complete()
    } catch (error) {
      // Another client's new index may have taken this one's place, and the file have gone with it (network file systems).
      const replaced = newestIndex(this.path) !== transaction
      if (!replaced) tellDamage(this.#log, error)
      this.#segments.closeReaders()
      this.#state = this.#loadState({ rebuild: !replaced })
      index.close()
    }
  }

  #loadState(options: LoadOptions): RepositoryState {
    return loadState(this.path, this.location, this.#segments, this.#log, { ...options, smallBytes: this.#smallIndexBytes }).state
  }

  lastTransaction(): Promise<number> {
    return Promise.resolve(newestIndex(this.path))
  }

  refresh(): Promise<boolean> {
    const { transaction } = this.#state
    const newest = newestIndex(this.path)
    if (newest !== transaction || this.#segments.lastCommitted(newest) !== newest) {
      this.#segments.closeReaders()
      const { index } = this.#state
      this.#state = this.#loadState({ trusting: true })
      index.close()
    }
    const changed = this.#state.transaction !== this.#toldTransaction
    this.#toldTransaction = this.#state.transaction
    return Promise.resolve(changed)
  }

  // --- writing ---

  transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    const run = this.#queue.then(() => this.#transact(work))
    this.#queue = run.catch(() => undefined)
    return run
  }

  async #transact<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    if (this.#lock.held !== 'exclusive') throw new Error('a transaction needs the exclusive lock')
    this.#completeState()
    this.#segments.removeAbove(this.#state.transaction)
    const tx: LocalTransaction = new LocalTransaction(this.#segments, this.#state, this.config, this.location, () => this.#commit(tx))
    try {
      const result = await work(tx)
      this.#commit(tx)
      return result
    } catch (error) {
      this.#rollBack()
      throw error
    }
  }

  #commit(tx: LocalTransaction): void {
    if (!tx.changed) return
    tx.ensureFreeSpace(this.path)
    const { index, hints } = this.#state
    const transaction = this.#segments.commit()
    hints.segments.set(transaction, 0)
    hints.addFreeable(transaction, headerBytes)
    this.#state = { index, hints, transaction }
    this.#toldTransaction = transaction
    // From here on the transaction is durable: state files that cannot be written are made anew by the next client.
    if (this.config.appendOnly) {
      appendFileSync(join(this.path, 'transactions'), `transaction ${transaction}, UTC time ${new Date().toISOString().replace(/\.(\d+)Z$/, '.$1000')}\n`)
    }
    try {
      saveState(this.path, this.#state)
    } catch (error) {
      if (errnoOf(error) !== 'ENOSPC' && errnoOf(error) !== 'EDQUOT') throw error
      this.#log.write('warning', 'borg.repository', `The disk is full: the index of ${this.location} was not saved and will be rebuilt when the repository is opened next.`)
    }
    tx.changed = false
  }

  #rollBack(): void {
    this.#segments.abandonEnd()
    this.#segments.closeReaders()
    // The space of what was written goes back at once; on a full disk that is what makes the next attempt possible.
    const committed = this.#segments.lastCommitted()
    try {
      this.#segments.removeAbove(committed)
    } catch {
      // The next transaction removes it.
    }
    const { index } = this.#state
    this.#state = this.#loadState({})
    index.close()
  }

  // --- key and nonce ---

  loadKey(): Promise<string | undefined> {
    return Promise.resolve(this.config.get('key')?.trim() || undefined)
  }

  saveKey(text: string): Promise<void> {
    this.config.set('key', text)
    this.config.save()
    return Promise.resolve()
  }

  freeNonce(): Promise<bigint | undefined> {
    const path = join(this.path, 'nonce')
    try {
      return Promise.resolve(parseNonce(readFileSync(path, 'latin1'), path))
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return Promise.resolve(undefined)
      throw error
    }
  }

  async reserveNonces(next: bigint, expected: bigint | undefined): Promise<void> {
    if (this.#lock.held !== 'exclusive') throw new Error('reserving nonces needs the exclusive lock')
    if ((await this.freeNonce()) !== expected) throw new BorgError('Error', `The nonce reservation of ${this.location} changed while it was locked. Run the command again.`)
    saveFile(join(this.path, 'nonce'), Buffer.from(formatNonce(next)))
  }

  close(): Promise<void> {
    this.#state.index.close()
    this.#segments.close()
    this.#lock.release()
    return Promise.resolve()
  }
}

class LocalTransaction implements Transaction {
  changed = false
  readonly #segments: Segments
  readonly #state: RepositoryState
  readonly #config: RepositoryConfig
  readonly #location: string

  readonly #commit: () => void

  constructor(segments: Segments, state: RepositoryState, config: RepositoryConfig, location: string, commit: () => void) {
    this.#segments = segments
    this.#state = state
    this.#config = config
    this.#location = location
    this.#commit = commit
  }

  put(id: ChunkId, object: Uint8Array): Promise<void> {
    if (object.length > maxObjectBytes) throw new BorgError('Error', `An object of ${object.length} bytes is too large for a repository (${maxObjectBytes} at most).`)
    const newSegment = isManifest(id)
    if (this.#state.index.has(id)) this.#delete(id, newSegment)
    this.#append(id, framePut(id, object), newSegment, false)
    this.#segments.flush()
    return Promise.resolve()
  }

  putEntries(bytes: Uint8Array, ids: readonly ChunkId[], lengths: ArrayLike<number>): Promise<void> {
    let at = 0
    for (const [index, id] of ids.entries()) {
      const length = lengths[index]!
      this.#append(id, bytes.subarray(at, at + length), false, false)
      at += length
    }
    // The buffer is only borrowed.
    this.#segments.flush()
    return Promise.resolve()
  }

  #append(id: ChunkId, entry: Uint8Array, newSegment: boolean, copy: boolean): void {
    const { index, hints } = this.#state
    this.changed = true
    const { segment, offset } = this.#segments.position({ newSegment })
    this.#segments.append(entry, { copy })
    index.set(id, segment, offset)
    hints.addLive(segment, 1)
    hints.quotaUse += entry.length
    const quota = this.#config.storageQuota
    if (quota > 0 && hints.quotaUse > quota) throw new StorageQuotaExceeded(this.#location, `(${megabytes(quota)}) has been exceeded (${megabytes(hints.quotaUse)})`)
  }

  delete(id: ChunkId): Promise<void> {
    if (!this.#state.index.has(id)) throw new ObjectNotFound(id, this.#location)
    this.#delete(id, isManifest(id))
    return Promise.resolve()
  }

  #delete(id: ChunkId, newSegment: boolean): void {
    const { index, hints } = this.#state
    this.changed = true
    const bucket = index.find(id)
    const [segment, offset] = [index.value(bucket, 0), index.value(bucket, 1)]
    this.#segments.flush()
    const size = this.#segments.entryLength(segment, offset)
    index.delete(id)
    hints.addShadow(id, segment)
    hints.addLive(segment, -1)
    hints.addFreeable(segment, size)
    hints.quotaUse -= size
    const place = this.#segments.position({ newSegment })
    this.#segments.append(frameDelete(id), { copy: false })
    hints.addFreeable(place.segment, deleteBytes)
    if (!hints.segments.has(place.segment)) hints.segments.set(place.segment, 0)
  }

  checkpoint(): Promise<void> {
    this.#commit()
    return Promise.resolve()
  }

  /** What a commit and the compaction after it may need (repository.md §4). InsufficientFreeSpace. */
  ensureFreeSpace(path: string): void {
    const { index, hints } = this.#state
    let required = 4 * indexFileBytes(index) + 10 * (hints.segments.size + hints.compact.size) + 4096 + this.#config.additionalFreeSpace
    if (!this.#config.appendOnly) {
      const fullSegment = this.#config.maxSegmentSize + maxEntryBytes
      let copied = fullSegment
      if (hints.compact.size < 10) {
        copied = 0
        for (const [segment, free] of hints.compact) copied += Math.max(0, this.#segments.size(segment) - free)
      }
      required += Math.min(copied, fullSegment)
    }
    const { bavail, bsize } = statfsSync(path)
    const available = bavail * bsize
    if (available < required) throw new InsufficientFreeSpace(path, `(required: ${megabytes(required)}, available: ${megabytes(available)})`)
  }
}

function placeIn(index: HashTable, id: ChunkId): { segment: number; offset: number } | undefined {
  const bucket = index.find(id)
  return bucket < 0 ? undefined : { segment: index.value(bucket, 0), offset: index.value(bucket, 1) }
}

function isManifest(id: ChunkId): boolean {
  return id.equals(manifestId)
}

function megabytes(bytes: number): string {
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : bytes >= 1e6 ? `${(bytes / 1e6).toFixed(2)} MB` : `${(bytes / 1e3).toFixed(2)} kB`
}

/** A repository here or in a directory above is refused, and so is anything but an empty directory. */
function refuseExisting(folder: string): void {
  for (let parent = folder; ; parent = dirname(parent)) {
    if (looksLikeRepository(parent)) throw new AlreadyExists(parent)
    if (parent === dirname(parent)) break
  }
  try {
    if (readdirSync(folder).length > 0) throw new PathAlreadyExists(folder)
  } catch (error) {
    if (errnoOf(error) === 'ENOTDIR') throw new PathAlreadyExists(folder)
    if (errnoOf(error) !== 'ENOENT') throw error
  }
}

function looksLikeRepository(folder: string): boolean {
  try {
    return /Borg(?: Backup)? repository/.test(readFileSync(join(folder, 'README')).toString('latin1', 0, 100))
  } catch {
    return false
  }
}

function refuseAttic(folder: string, segments: Segments): void {
  const first = segments.first()
  if (first === undefined) return
  try {
    if (segments.read(first, 0, magic.length).toString('latin1') === 'ATTICSEG') throw new AtticRepository(folder)
  } catch (error) {
    if (!(error instanceof SegmentError)) throw error
  }
}
