/**
 * A repository in a directory of this machine: assembles segments, state, lock and config (repository.md). Says in which order a transaction
 * looks at the lock, makes its COMMIT, and saves what it made of the state.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { maxEntryBytes, putHeaderBytes } from '../constants.js'
import { formatNonce, parseNonce } from '../crypto/nonces.js'
import { BorgError, errnoOf, IntegrityError, messageOf } from '../errors.js'
import type { HashTable, MemoryTable, SharedTable } from '../hashindex/hash-table.js'
import type { ChunkId } from '../ids.js'
import { InTurn } from '../in-turn.js'
import type { Log } from '../log.js'
import { files, removeTree } from '../platform/files.js'
import { saveFile, syncDirectory } from '../platform/save-file.js'
import { formatSize } from '../size-text.js'
import { RepositoryConfig } from './config.js'
import { headerBytes, magic, valueOf } from './entry.js'
import { AppendOnly, AtticRepository, ChangedMeanwhile, CommitLost, ObjectNotFound, SegmentError } from './errors.js'
import { ensureFreeSpace } from './free-space.js'
import type { Hints } from './hints.js'
import { KnownState } from './known-state.js'
import { Lock, type LockKind } from './lock.js'
import type { Repository, Transaction } from './repository.js'
import { findRepository, lockPath } from './repository-home.js'
import type { SegmentLease } from './segment-descriptors.js'
import { Segments } from './segments.js'
import { type LostCommit, newestIndex, type RepositoryState } from './state.js'
import { LocalTransaction } from './transaction.js'

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

/** Where an object's entry lies. */
export interface EntryLocation {
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
  readonly log: Log
  readonly #lock: Lock
  readonly #segments: Segments
  readonly #known: KnownState
  readonly readOnly: boolean
  /** Open or queued transactions, one after the other. */
  readonly #transactions = new InTurn()

  private constructor(path: string, config: RepositoryConfig, lock: Lock, segments: Segments, known: KnownState, options: OpenOptions) {
    this.path = path
    this.location = path
    this.config = config
    this.#lock = lock
    this.#segments = segments
    this.#known = known
    this.readOnly = options.readOnly ?? false
    this.log = options.log
    segments.writer.guard = () => lock.requireExclusive()
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
      const place = { path: folder, location: folder, segments, log: options.log, smallIndexBytes: options.smallIndexBytes }
      const { known, stale } = KnownState.load(place, { trusting: options.lock !== 'exclusive' && !options.forCheck, orWhy: options.forCheck ?? false })
      const repository = new LocalRepository(folder, config, lock, segments, known, options)
      // Somebody died between his COMMIT and this. The files that prove a lost one stay.
      if (stale && !known.lost && options.lock === 'exclusive' && !options.readOnly) repository.committed(known.current)
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
    return this.#known.current.index.size
  }

  get transactionId(): number {
    return this.#known.current.transaction
  }

  /** For byte workers; take it anew after the index grew. */
  sharedIndex(): SharedTable {
    return this.#known.current.index.shared()
  }

  /** Verified and in memory, for passes over all of it. */
  indexInMemory(): MemoryTable {
    return this.#known.complete().index.inMemory()
  }

  // --- locks, for a mount that holds one only while it works ---

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
    if (this.#known.current.complete) {
      try {
        const position = positionIn(this.#known.current.index, id)
        if (position && this.#segments.holds(position.segment, position.offset, id)) return position
      } catch (error) {
        if (!(error instanceof IntegrityError) && errnoOf(error) === undefined) throw error
      }
      this.#known.complete()
    }
    return positionIn(this.#known.current.index, id)
  }

  /** What compaction needs to know, as of the last commit; not to be changed. */
  get hints(): Readonly<Hints> {
    return this.#known.complete().hints
  }

  storedSize(id: ChunkId): number | undefined {
    const position = this.entryPosition(id)
    return position && this.#segments.entryLength(position.segment, position.offset) - putHeaderBytes
  }

  list(after: ChunkId | undefined, limit: number): Promise<ChunkId[]> {
    const { index } = this.#known.complete()
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
    return Promise.resolve(this.#known.refresh())
  }

  // --- writing ---

  transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    return this.exclusively(async () => {
      const tx: LocalTransaction = new LocalTransaction(this.#segments, this.#known.current, { location: this.location, quota: this.config.storageQuota, commit: () => this.#commit(tx) })
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
    this.#segments.writer.confirm()
    return held
  }

  /** Runs `work` as a transaction of its own kind, which commits by itself: what it did not commit is rolled back when it throws. */
  exclusively<T>(work: () => Promise<T>): Promise<T> {
    return this.#transactions.run(() => this.#exclusively(work))
  }

  async #exclusively<T>(work: () => Promise<T>): Promise<T> {
    if (this.readOnly) throw new Error('a repository that was opened for reading only is not changed')
    this.assertLocked()
    // Who held a lock that was broken meanwhile may not know of another client's transaction: it must not be swept away.
    if (this.#segments.committedAbove(this.#known.current.transaction) !== undefined) throw new ChangedMeanwhile(this.location)
    // Nor what once was committed, and is in the way of nobody but us.
    const { lost } = this.#known
    if (lost && lost.segments.length > 0) throw new CommitLost(this.location, lost.transaction)
    this.#segments.removeAbove(this.#known.complete().transaction)
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
    const { index, hints } = this.#known.current
    const transaction = this.#segments.writer.commit()
    const held = this.confirmCommit(transaction)
    hints.segments.set(transaction, 0)
    hints.addFreeable(transaction, headerBytes)
    // The state files are by now those of whoever has the lock.
    if (held) this.committed({ index, hints, transaction })
    else this.#known.committedUnlocked({ index, hints, transaction })
    tx.changed = false
  }

  /** Takes over and saves the state of a transaction whose COMMIT is durable. */
  committed(state: RepositoryState): void {
    this.#known.committed(state)
    // It must not be called failed any more.
    try {
      if (this.appendOnly) this.#logTransaction(state.transaction)
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      this.log.write('warning', 'borg.repository', `The transaction is saved, but could not be noted in the file transactions of ${this.location}: ${messageOf(error)}`)
    }
    this.#known.trySave()
  }

  /** Append-only repositories keep a list of their transactions, by which one finds the way back. */
  #logTransaction(transaction: number): void {
    const line = `transaction ${transaction}, UTC time ${new Date().toISOString().replace(/\.(\d+)Z$/, '.$1000')}\n`
    files.write(join(this.path, 'transactions'), line, { append: true })
  }

  #tellQuota(): void {
    const quota = this.config.storageQuota
    if (quota > 0) this.log.write('info', 'borg.repository', `Storage quota: ${formatSize(this.#known.current.hints.quotaUse)} out of ${formatSize(quota)} used.`)
  }

  /** What a commit and the compaction after it may need. InsufficientFreeSpace. */
  ensureFreeSpace(): void {
    ensureFreeSpace(this.path, this.#known.current, this.#segments, this.config, this.log)
  }

  /** `ours`: the lock is still held, so that what lies above the last COMMIT is nobody else's. */
  #rollBack(ours: boolean): void {
    this.#segments.writer.abandon()
    this.#segments.closeReaders()
    try {
      // The space of what was written goes back at once; on a full disk that is what makes the next attempt possible. The last
      // COMMIT may be newer than the state: compaction commits before it has finished. It is never older, unless it was damaged meanwhile.
      if (ours) this.#segments.removeAbove(Math.max(this.#segments.lastCommitted(), this.#known.current.transaction))
    } catch {
      // The next transaction removes it.
    }
    this.#known.rollBack()
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

  /** The state at the last commit, undefined if it could not be had. */
  get committedState(): RepositoryState | undefined {
    return this.#known.completeIfAny
  }

  /** A newer transaction than committedState, whose COMMIT is not to be found. */
  get lostCommit(): LostCommit | undefined {
    return this.#known.lost
  }

  /** Takes over what was rebuilt or compacted. */
  adoptState(state: RepositoryState): void {
    this.#known.adopt(state)
  }

  async close(): Promise<void> {
    this.#known.close()
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

function positionIn(index: HashTable, id: ChunkId): { segment: number; offset: number } | undefined {
  const bucket = index.find(id)
  return bucket < 0 ? undefined : { segment: index.value(bucket, 0), offset: index.value(bucket, 1) }
}

function refuseAttic(folder: string, segments: Segments): void {
  const first = segments.folder.first()
  if (first === undefined) return
  try {
    if (segments.read(first, 0, magic.length).toString('latin1') === 'ATTICSEG') throw new AtticRepository(folder)
  } catch (error) {
    if (!(error instanceof SegmentError)) throw error
  }
}
