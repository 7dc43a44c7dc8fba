/** A repository in a directory of this machine: assembles log, state, lock and config (repository.md). */
import { readdirSync, readFileSync, statfsSync } from 'node:fs'
import { randomBytes } from 'node:crypto'
import { dirname, join, resolve } from 'node:path'
import { putHeaderBytes, maxEntryBytes, maxObjectBytes } from '../constants.js'
import { BorgError, errnoOf, IntegrityError, messageOf } from '../errors.js'
import { formatNonce, parseNonce } from '../crypto/nonces.js'
import { type ChunkId, manifestId } from '../ids.js'
import type { Log } from '../log.js'
import type { HashTable, MemoryTable, SharedTable } from '../hashindex/hash-table.js'
import { files, removeTree } from '../platform/files.js'
import { saveFile, syncDirectory } from '../platform/save-file.js'
import { formatSize } from '../size-text.js'
import { configDefaults, RepositoryConfig } from './config.js'
import { deleteBytes, frameDelete, framePut, headerBytes, magic, valueOf } from './entry.js'
import {
  AlreadyExists, AppendOnly, AtticRepository, ChangedMeanwhile, CommitLost, InsufficientFreeSpace, ObjectNotFound, ParentPathDoesNotExist, PathAlreadyExists, PathPermissionDenied,
  SegmentError, StorageQuotaExceeded,
} from './errors.js'
import type { Hints } from './hints.js'
import { Lock, type LockKind } from './lock.js'
import type { Repository, Transaction } from './repository.js'
import { findRepository, lockPath } from './repository-home.js'
import type { SegmentLease } from './segment-descriptors.js'
import { Segments } from './segments.js'
import { indexFileBytes, loadState, type LoadOptions, type LostCommit, lostCommit, newestIndex, type RepositoryState, saveState, StateFileDamaged } from './state.js'

export interface OpenOptions {
  readonly lock: LockKind | 'none'
  readonly lockWaitMs: number
  readonly log: Log
  /** Opens also what cannot be read otherwise, for check(): reading then throws what stood in the way, until check repaired it. */
  readonly forCheck?: boolean
  /** Told of the config before the lock is taken and the index is read, for what can go on meanwhile. Another client may still change it. */
  readonly found?: (config: RepositoryConfig) => void
  /** Nothing in the repository is changed, not even an index that lags behind. */
  readonly readOnly?: boolean
  /** Largest index file that is read whole at once; a larger one is looked into where it lies. */
  readonly smallIndexBytes?: number
}

export interface CreateOptions {
  readonly appendOnly?: boolean
  readonly storageQuota?: number
  readonly makeParentDirs?: boolean
}

/** Where an object's entry lies. */
export interface EntryLocation {
  readonly segment: number
  readonly offset: number
  /** Bytes of the whole entry. */
  readonly length: number
}

const readme = 'This is a Borg Backup repository.\nSee https://borgbackup.readthedocs.io/\n'

export class LocalRepository implements Repository {
  readonly path: string
  readonly location: string
  readonly local = true
  readonly config: RepositoryConfig
  readonly log: Log
  readonly #lock: Lock
  readonly #segments: Segments
  /** As loaded or made, or why there is none. */
  #loaded: RepositoryState | Error
  #readOnly: boolean
  /** What is newer than #loaded, and should not be. */
  #lost: LostCommit | undefined
  readonly #smallIndexBytes: number | undefined
  /** Transaction that refresh() last told of, or that the repository was opened with. */
  #toldTransaction: number
  /** Open or queued transactions, one after the other. */
  #queue: Promise<unknown> = Promise.resolve()

  private constructor(path: string, config: RepositoryConfig, lock: Lock, segments: Segments, state: RepositoryState | Error, options: OpenOptions) {
    this.path = path
    this.location = path
    this.config = config
    this.#lock = lock
    this.#segments = segments
    this.#loaded = state
    this.#readOnly = options.readOnly ?? false
    this.#smallIndexBytes = options.smallIndexBytes
    this.#toldTransaction = state instanceof Error ? -1 : state.transaction
    this.log = options.log
    segments.guard = () => lock.requireExclusive()
  }

  get #state(): RepositoryState {
    if (this.#loaded instanceof Error) throw this.#loaded
    return this.#loaded
  }

  set #state(state: RepositoryState) {
    this.#loaded = state
  }

  /**
   * Makes an empty repository; the path may be an empty directory, or hold what an init left that was killed early. Leaves nothing when it
   * fails. Returns what removes it again, for when what makes it useful fails.
   */
  static create(path: string, options: CreateOptions = {}): () => void {
    const folder = resolve(path)
    refuseExisting(folder)
    let made = false
    const undo = (): void => {
      if (made) files.removeTree(folder)
      // It was the person's own, and may be a mountpoint.
      else for (const name of readdirSync(folder)) files.removeTree(join(folder, name))
    }
    try {
      if (options.makeParentDirs) files.ensureDirectory(dirname(folder))
      files.makeDirectory(folder)
      made = true
      syncDirectory(dirname(folder))
    } catch (error) {
      if (made) tryAll(undo)
      if (errnoOf(error) === 'ENOENT') throw new ParentPathDoesNotExist(folder)
      if (errnoOf(error) === 'EACCES') throw new PathPermissionDenied(folder)
      if (errnoOf(error) !== 'EEXIST') throw error
    }
    try {
      saveFile(join(folder, 'README'), Buffer.from(readme))
      files.ensureDirectory(join(folder, 'data'))
      const values = new Map(configDefaults)
      if (options.appendOnly) values.set('append_only', '1')
      if (options.storageQuota) values.set('storage_quota', String(options.storageQuota))
      values.set('id', randomBytes(32).toString('hex'))
      new RepositoryConfig(join(folder, 'config'), folder, values).save()
    } catch (error) {
      tryAll(undo)
      throw error
    }
    return undo
  }

  static async open(path: string, options: OpenOptions): Promise<LocalRepository> {
    // Before anything is written, a lock directory included, it must be a repository.
    const { folder, config: unlocked } = findRepository(path)
    options.found?.(unlocked)
    const lock = new Lock(lockPath(folder), options.log)
    if (options.lock !== 'none') await lock.acquire(options.lock, options.lockWaitMs)
    try {
      // Another client may have changed it while we waited.
      const config = options.lock === 'none' ? unlocked : RepositoryConfig.load(folder, folder)
      const segments = new Segments(folder, { segmentsPerDir: config.segmentsPerDir, maxSegmentSize: config.maxSegmentSize })
      refuseAttic(folder, segments)
      let state: RepositoryState | Error, stale = false
      try {
        const trusting = options.lock !== 'exclusive' && !options.forCheck
        ;({ state, stale } = loadState(folder, folder, segments, options.log, { trusting, smallBytes: options.smallIndexBytes }))
      } catch (error) {
        if (!options.forCheck || !(error instanceof BorgError)) throw error
        state = error
      }
      const repository = new LocalRepository(folder, config, lock, segments, state, options)
      repository.#noteLost()
      // Somebody died between his COMMIT and this. The files that prove a lost one stay.
      if (stale && !repository.#lost && !(state instanceof Error) && options.lock === 'exclusive' && !options.readOnly) repository.committed(state)
      return repository
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

  /** Verified and in memory, for passes over all of it. */
  indexInMemory(): MemoryTable {
    return this.#completeState().index.inMemory()
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

  /** HOST@PID of others who have a lock. */
  otherHolders(): string[] {
    return this.#lock.others()
  }

  /** See Lock.watch. */
  watchLock(touched: () => void): () => void {
    return this.#lock.watch(touched)
  }

  // --- reading ---

  has(id: ChunkId): boolean {
    return this.entryPosition(id) !== undefined
  }

  get(id: ChunkId): Promise<Buffer> {
    return new Promise(resolve => resolve(this.getSync(id)))
  }

  getSync(id: ChunkId): Buffer {
    const { segment, offset } = this.#positionOf(id)
    return valueOf(this.#segments.readEntry(segment, offset), id, segment, offset)
  }

  async *getMany(ids: Iterable<ChunkId>): AsyncIterable<Buffer> {
    for (const id of ids) yield this.getSync(id)
  }

  /** ObjectNotFound; SegmentError if the entry's header is damaged. */
  locate(id: ChunkId): EntryLocation {
    const { segment, offset } = this.#positionOf(id)
    const length = this.#segments.entryLength(segment, offset)
    if (length < putHeaderBytes || length > maxEntryBytes) throw new SegmentError(`Invalid segment entry size ${length}`, segment, offset)
    return { segment, offset, length }
  }

  /**
   * Runs `work`, which has entries read in another thread, with descriptors that stay open until it has ended. It must locate and
   * ask for all of them before it first awaits. Waits while too many files are open.
   */
  leased<T>(work: (lease: SegmentLease) => Promise<T>): Promise<T> {
    return this.#segments.leased(work)
  }

  #positionOf(id: ChunkId): { segment: number; offset: number } {
    const position = this.entryPosition(id)
    if (!position) throw new ObjectNotFound(id, this.location)
    return position
  }

  /**
   * Segment and offset of an object's entry, undefined if there is none. An index that was not verified is only believed where
   * the entry that it points to is the one that was wanted; else it is verified now, and made anew if it is damaged.
   */
  entryPosition(id: ChunkId): { segment: number; offset: number } | undefined {
    if (this.#state.complete) {
      try {
        const position = positionIn(this.#state.index, id)
        if (position && this.#segments.holds(position.segment, position.offset, id)) return position
      } catch (error) {
        if (!(error instanceof IntegrityError) && errnoOf(error) === undefined) throw error
      }
      this.#completeState()
    }
    return positionIn(this.#state.index, id)
  }

  /** Verifies an index that was not, and reads the hints. What is damaged is made anew from the segments. */
  #completeState(): RepositoryState {
    const { complete, index, transaction } = this.#state
    if (!complete) return this.#state
    try {
      this.#state = complete()
    } catch (error) {
      if (!(error instanceof StateFileDamaged)) throw error
      // Another client's new index may have taken this one's place, and the file have gone with it (network file systems).
      const replaced = newestIndex(this.path) !== transaction
      if (!replaced) this.log.write('warning', 'borg.repository', error.message)
      this.#segments.closeReaders()
      this.#state = this.#load({ rebuild: !replaced })
      index.close()
    }
    return this.#state
  }

  #load(options: LoadOptions): RepositoryState {
    return loadState(this.path, this.location, this.#segments, this.log, { ...options, smallBytes: this.#smallIndexBytes }).state
  }

  /** What compaction needs to know, as of the last commit; not to be changed. */
  get hints(): Readonly<Hints> {
    return this.#completeState().hints
  }

  storedSize(id: ChunkId): number | undefined {
    const position = this.entryPosition(id)
    return position && this.#segments.entryLength(position.segment, position.offset) - putHeaderBytes
  }

  list(after: ChunkId | undefined, limit: number): Promise<ChunkId[]> {
    const { index } = this.#completeState()
    const start = after === undefined ? 0 : index.find(after) + 1
    const ids: ChunkId[] = []
    for (const { id } of index.entries(start)) {
      ids.push(id)
      if (ids.length >= limit) break
    }
    return Promise.resolve(ids)
  }

  lastTransaction(): Promise<number> {
    return Promise.resolve(newestIndex(this.path))
  }

  refresh(): Promise<boolean> {
    const newest = newestIndex(this.path)
    if (this.#loaded instanceof Error || newest !== this.#loaded.transaction || this.#segments.lastCommitted(newest) !== newest) {
      this.#segments.closeReaders()
      const before = this.#loaded
      this.#state = this.#load({ trusting: true })
      this.#noteLost()
      if (!(before instanceof Error)) before.index.close()
    }
    const changed = this.#state.transaction !== this.#toldTransaction
    this.#toldTransaction = this.#state.transaction
    return Promise.resolve(changed)
  }

  /** Told once: who reads goes on with what there is. */
  #noteLost(): void {
    const lost = lostCommit(this.path, this.#segments)
    if (lost && lost.transaction !== this.#lost?.transaction) {
      const remedy = lost.segments.length > 0 ? `Run "borg check --repair ${this.location}" to have it back.` : 'All its segments are gone as well: restore them from a copy, unless they were removed on purpose.'
      this.log.write('warning', 'borg.repository', `Transaction ${lost.transaction} of ${this.location} was saved, but its COMMIT is damaged or missing: you see transaction ${lost.left}. ${remedy}`)
    }
    this.#lost = lost
  }

  // --- writing ---

  transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    return this.exclusively(async () => {
      const tx: LocalTransaction = new LocalTransaction(this.#segments, this.#state, this.config, this.location, () => this.#commit(tx))
      const result = await work(tx)
      this.#commit(tx)
      return result
    })
  }

  /** Before anything that other clients will see or miss. LockLost if the exclusive lock was broken under us. */
  assertLocked(): void {
    this.#lock.requireExclusive()
  }

  /**
   * Right after a COMMIT, before its state is saved and anything is removed because of it: if the lock was broken between the last
   * look at it and the COMMIT, another client may have removed what it commits (then it is taken back: LockLost), or may have built on it:
   * then it stands, but nothing further may be done. True if the lock is held.
   */
  confirmCommit(transaction: number): boolean {
    const held = this.#lock.stillHeld()
    if (!held && !this.#segments.standsOrWithdrawn(transaction)) this.assertLocked()
    this.#segments.confirm()
    return held
  }

  /** Runs `work` as a transaction of its own kind, which commits by itself: what it did not commit is rolled back when it throws. */
  exclusively<T>(work: () => Promise<T>): Promise<T> {
    const run = this.#queue.then(() => this.#exclusively(work))
    this.#queue = run.catch(() => undefined)
    return run
  }

  async #exclusively<T>(work: () => Promise<T>): Promise<T> {
    if (this.#readOnly) throw new Error('a repository that was opened for reading only is not changed')
    this.assertLocked()
    // Who held a lock that was broken meanwhile may not know of another client's transaction: it must not be swept away.
    if (this.#segments.committedAbove(this.#state.transaction) !== undefined) throw new ChangedMeanwhile(this.location)
    // Nor what once was committed, and is in the way of nobody but us.
    if (this.#lost && this.#lost.segments.length > 0) throw new CommitLost(this.location, this.#lost.transaction)
    this.#completeState()
    this.#segments.removeAbove(this.#state.transaction)
    this.#tellQuota()
    try {
      return await work()
    } catch (error) {
      const ours = this.#lock.stillHeld()
      this.#rollBack(ours)
      if (!ours) this.#lock.requireExclusive()
      throw error
    }
  }

  #commit(tx: LocalTransaction): void {
    tx.throwIfDoomed()
    if (!tx.changed) return
    this.ensureFreeSpace()
    this.#tellQuota()
    this.assertLocked()
    const { index, hints } = this.#state
    const transaction = this.#segments.commit()
    const held = this.confirmCommit(transaction)
    hints.segments.set(transaction, 0)
    hints.addFreeable(transaction, headerBytes)
    // The state files are by now those of whoever has the lock.
    if (held) this.committed({ index, hints, transaction })
    else this.#state = { index, hints, transaction }
    tx.changed = false
  }

  /** Takes over and saves the state of a transaction whose COMMIT is durable. */
  committed(state: RepositoryState): void {
    this.#state = state
    this.#lost = undefined
    this.#toldTransaction = state.transaction
    // It must not be called failed any more.
    try {
      if (this.appendOnly) this.#logTransaction(state.transaction)
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      this.log.write('warning', 'borg.repository', `The transaction is saved, but could not be noted in the file transactions of ${this.location}: ${messageOf(error)}`)
    }
    trySaveState(this.path, this.location, state, this.log)
  }

  /** Append-only repositories keep a list of their transactions, by which one finds the way back. */
  #logTransaction(transaction: number): void {
    const fd = files.open(join(this.path, 'transactions'), 'a')
    try {
      files.writeAll(fd, Buffer.from(`transaction ${transaction}, UTC time ${new Date().toISOString().replace(/\.(\d+)Z$/, '.$1000')}\n`))
    } finally {
      files.close(fd)
    }
  }

  #tellQuota(): void {
    const quota = this.config.storageQuota
    if (quota > 0) this.log.write('info', 'borg.repository', `Storage quota: ${formatSize(this.#state.hints.quotaUse)} out of ${formatSize(quota)} used.`)
  }

  /** What a commit and the compaction after it may need (repository.md §4). InsufficientFreeSpace. */
  ensureFreeSpace(): void {
    const { index, hints } = this.#state
    let required = 4 * indexFileBytes(index) + 10 * (hints.segments.size + hints.compact.size) + 4096 + this.config.additionalFreeSpace
    if (!this.appendOnly) {
      const fullSegment = this.config.maxSegmentSize + maxEntryBytes
      let copied = fullSegment
      if (hints.compact.size < 10) {
        copied = 0
        for (const [segment, free] of hints.compact) copied += Math.max(0, this.#segments.size(segment) - free)
      }
      required += Math.min(copied, fullSegment)
    }
    let available: number
    try {
      const { bavail, bsize } = statfsSync(this.path)
      available = bavail * bsize
    } catch (error) {
      this.log.write('warning', 'borg.repository', `Failed to check free space before committing: ${messageOf(error)}`)
      return
    }
    if (available < required) throw new InsufficientFreeSpace(this.path, `(required: ${formatSize(required)}, available: ${formatSize(available)})`)
  }

  /** `ours`: the lock is still held, so that what lies above the last COMMIT is nobody else's. */
  #rollBack(ours: boolean): void {
    this.#segments.abandonEnd()
    this.#segments.closeReaders()
    try {
      // The space of what was written goes back at once; on a full disk that is what makes the next attempt possible. The last
      // COMMIT may be newer than the state: compaction commits before it has finished. It is never older, unless it was damaged meanwhile.
      if (ours) this.#segments.removeAbove(Math.max(this.#segments.lastCommitted(), this.#state.transaction))
    } catch {
      // The next transaction removes it.
    }
    const before = this.#loaded
    try {
      this.#loaded = this.#load({})
      this.#noteLost()
    } catch (error) {
      // What made the transaction fail is the news, not this; who goes on with the repository will hear of it.
      this.#loaded = error instanceof Error ? error : new Error(messageOf(error))
    }
    if (!(before instanceof Error)) before.index.close()
  }

  // --- key and nonce ---

  loadKey(): Promise<string | undefined> {
    return Promise.resolve(this.config.keyText)
  }

  saveKey(text: string): Promise<void> {
    // Borg changes keys under the shared lock, or none.
    this.#lock.refuseIfLost()
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
    this.assertLocked()
    if ((await this.freeNonce()) !== expected) throw new BorgError('Error', `The nonce reservation of ${this.location} changed while it was locked. Run the command again.`)
    saveFile(join(this.path, 'nonce'), Buffer.from(formatNonce(next)))
    // Another client that broke the lock meanwhile may have reserved the same.
    this.assertLocked()
  }

  // --- for check and compaction, in this room ---

  get segments(): Segments {
    return this.#segments
  }

  get appendOnly(): boolean {
    return this.config.appendOnly
  }

  get readOnly(): boolean {
    return this.#readOnly
  }

  /** The state at the last commit, undefined if it could not be had. */
  get committedState(): RepositoryState | undefined {
    return this.#loaded instanceof Error ? undefined : this.#completeState()
  }

  /** A newer transaction than committedState, whose COMMIT is not to be found. */
  get lostCommit(): LostCommit | undefined {
    return this.#lost
  }

  /** Takes over what was rebuilt or compacted. */
  adoptState(state: RepositoryState): void {
    if (!(this.#loaded instanceof Error) && this.#loaded.index !== state.index) this.#loaded.index.close()
    this.#state = state
    this.#lost = undefined
    this.#segments.closeReaders()
  }

  async close(): Promise<void> {
    if (!(this.#loaded instanceof Error)) this.#loaded.index.close()
    this.#segments.close()
    this.#lock.release()
  }

  /**
   * Removes the whole repository; the exclusive lock is held and gone afterwards. AppendOnly. The config goes first: what a
   * crash leaves behind is no repository to anybody any more.
   */
  destroy(): void {
    this.#lock.requireExclusive()
    if (this.config.appendOnly) throw new AppendOnly(this.location, 'Nothing was deleted.')
    this.#segments.close()
    files.remove(join(this.path, 'config'))
    syncDirectory(this.path)
    this.#lock.release()
    removeTree(this.path)
  }
}

class LocalTransaction implements Transaction {
  changed = false
  #doomed: BorgError | undefined
  readonly #segments: Segments
  readonly #state: RepositoryState
  readonly #quota: number
  readonly #location: string
  readonly #commit: () => void

  constructor(segments: Segments, state: RepositoryState, config: RepositoryConfig, location: string, commit: () => void) {
    this.#segments = segments
    this.#state = state
    this.#quota = config.storageQuota
    this.#location = location
    this.#commit = commit
  }

  put(id: ChunkId, object: Uint8Array): Promise<void> {
    if (object.length > maxObjectBytes) throw new BorgError('Error', `An object of ${object.length} bytes is too large for a repository (${maxObjectBytes} at most).`)
    const newSegment = isManifest(id)
    if (this.#state.index.has(id)) {
      const segment = this.#delete(id, newSegment)
      // Borg leaves the older PUT out of its shadow index, and so brings objects back that were replaced and then deleted, when it
      // compacts only the later segments. The manifest alone is replaced often; it is never deleted.
      if (!newSegment) this.#state.hints.shadow.add(id, segment)
    }
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
    if (this.#quota > 0 && hints.quotaUse > this.#quota) {
      this.#doomed = new StorageQuotaExceeded(this.#location, `(${formatSize(this.#quota)}) has been exceeded (${formatSize(hints.quotaUse)})`)
      throw this.#doomed
    }
  }

  /** Nothing is committed after the quota was exceeded, whoever caught the error. */
  throwIfDoomed(): void {
    if (this.#doomed) throw this.#doomed
  }

  delete(id: ChunkId): Promise<void> {
    if (!this.#state.index.has(id)) throw new ObjectNotFound(id, this.#location)
    const segment = this.#delete(id, isManifest(id))
    this.#state.hints.shadow.add(id, segment)
    return Promise.resolve()
  }

  /** Returns the segment of the PUT that is over. What it takes counts against the quota until compaction frees it. */
  #delete(id: ChunkId, newSegment: boolean): number {
    const { index, hints } = this.#state
    this.changed = true
    const bucket = index.find(id)
    const [segment, offset] = [index.value(bucket, 0), index.value(bucket, 1)]
    const size = this.#segments.entryLength(segment, offset)
    index.delete(id)
    hints.addLive(segment, -1)
    hints.addFreeable(segment, size)
    const place = this.#segments.position({ newSegment })
    this.#segments.append(frameDelete(id), { copy: false })
    hints.addFreeable(place.segment, deleteBytes)
    if (!hints.segments.has(place.segment)) hints.segments.set(place.segment, 0)
    return segment
  }

  checkpoint(): Promise<void> {
    this.#commit()
    return Promise.resolve()
  }
}

function positionIn(index: HashTable, id: ChunkId): { segment: number; offset: number } | undefined {
  const bucket = index.find(id)
  return bucket < 0 ? undefined : { segment: index.value(bucket, 0), offset: index.value(bucket, 1) }
}

/** The state files only save time: a disk that does not take them is worth a warning, and the next client makes them anew. */
function trySaveState(folder: string, location: string, state: RepositoryState, log: Log): void {
  try {
    saveState(folder, state)
  } catch (error) {
    // IntegrityError: the file that the index lay in cannot be read any more.
    if (errnoOf(error) === undefined && !(error instanceof IntegrityError)) throw error
    const why = errnoOf(error) === 'ENOSPC' || errnoOf(error) === 'EDQUOT' ? 'The disk is full' : messageOf(error)
    log.write('warning', 'borg.repository', `${why}: the index of ${location} was not saved and will be rebuilt when the repository is opened next.`)
  }
}

function isManifest(id: ChunkId): boolean {
  return id.equals(manifestId)
}

/** A repository here or in a directory above is refused, and so is anything but an empty directory. */
function refuseExisting(folder: string): void {
  const begun = isBegun(folder)
  for (let parent = begun ? dirname(folder) : folder; ; parent = dirname(parent)) {
    if (looksLikeRepository(parent)) throw new AlreadyExists(parent)
    if (parent === dirname(parent)) break
  }
  if (begun) return
  try {
    if (readdirSync(folder).length > 0) throw new PathAlreadyExists(folder)
  } catch (error) {
    if (errnoOf(error) === 'ENOTDIR') throw new PathAlreadyExists(folder)
    if (errnoOf(error) !== 'ENOENT') throw error
  }
}

/** What an init leaves that was killed before the config was there: nothing else is in it, so that nothing is lost by going on. */
function isBegun(folder: string): boolean {
  try {
    const names = readdirSync(folder)
    return names.length > 0 && names.every(name => {
      const path = join(folder, name)
      if (name === 'data') return readdirSync(path).length === 0
      if (name === 'README') return readme.startsWith(readFileSync(path, 'latin1'))
      return /^(?:README|config)-[0-9a-f]{8}\.tmp$/.test(name)
    })
  } catch {
    return false
  }
}

/** What fails is left; the error that led here is the news. */
function tryAll(undo: () => void): void {
  try {
    undo()
  } catch {
    // As said.
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
