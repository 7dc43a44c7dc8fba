/**
 * The transactional key-value store (repository.md) as the rooms above see it. LocalRepository is the only one today; what a remote one could
 * not do at once is asynchronous here.
 */
import type { ChunkId } from '../ids.js'
import type { Log } from '../log.js'

export interface Repository {
  /** 32 bytes. */
  readonly id: Buffer
  /** As shown to people: absolute path, or canonical URL. */
  readonly location: string
  /** True for a directory on this machine. */
  readonly local: boolean
  /** Where warnings about it go. */
  readonly log: Log
  has(id: ChunkId): boolean | Promise<boolean>
  /** The stored object. ObjectNotFound; IntegrityError if the entry's CRC, size or key is wrong. */
  get(id: ChunkId): Promise<Buffer>
  /** In the order asked, reading ahead where that helps. */
  getMany(ids: Iterable<ChunkId>): AsyncIterable<Buffer>
  /** Length of the stored object (csize) without reading it, undefined if absent. */
  storedSize(id: ChunkId): number | undefined | Promise<number | undefined>
  /** Ids after `after` in index order, at most `limit`. */
  list(after: ChunkId | undefined, limit: number): Promise<ChunkId[]>
  readonly objectCount: number
  /** Commits when `work` returns, rolls back when it throws. Needs the exclusive lock. One at a time: a second call queues. */
  transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T>
  /** Number of the last commit, -1 for an empty repository; as on disk now, for noticing other clients. */
  lastTransaction(): Promise<number>
  /** Re-reads the state if another client committed. True if something changed. Holding a lock. */
  refresh(): Promise<boolean>
  /** The base64 text of a repokey, undefined if there is none (config key `key`). */
  loadKey(): Promise<string | undefined>
  saveKey(text: string): Promise<void>
  /** The file `nonce`, undefined if missing (crypto.md §4). */
  freeNonce(): Promise<bigint | undefined>
  /** Compare and set: throws if the stored value is not `expected` any more. Durable on return. */
  reserveNonces(next: bigint, expected: bigint | undefined): Promise<void>
  close(): Promise<void>
}

/** A file that lies as a segment file does (repository.md §3), written elsewhere: PUT entries behind the magic, and nothing else. */
export interface EntryFile {
  readonly path: string
  readonly bytes: number
  readonly ids: readonly ChunkId[]
  /** Where each entry stands. */
  readonly offsets: readonly number[]
}

export interface Transaction {
  /** Replaces an object of the same id. */
  put(id: ChunkId, object: Uint8Array): Promise<void>
  /**
   * Whole PUT entries made elsewhere (worker threads frame and CRC them): `bytes` holds them back to back, `ids[i]` the
   * key and `lengths[i]` the length of entry i. Ids already present are the caller's mistake. The buffer is borrowed
   * until the promise settles.
   */
  putEntries(bytes: Uint8Array, ids: readonly ChunkId[], lengths: ArrayLike<number>): Promise<void>
  /**
   * Makes a whole file part of the repository without copying it. Ids already present are the caller's mistake; the file must never change
   * again, and may lose the name it has after the COMMIT. False if that is not possible here: its entries have to be put.
   */
  adopt(file: EntryFile): boolean
  delete(id: ChunkId): Promise<void>
  /** Deletes objects whose ids lie one behind the other. The numbers of those that were not there. */
  deleteMany(ids: Uint8Array): Promise<readonly number[]>
  /** Commits what is written so far and goes on. */
  checkpoint(): Promise<void>
}
