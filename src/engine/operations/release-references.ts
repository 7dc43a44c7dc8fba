/**
 * Taking away an archive's references: each is counted down in the client's chunks index, and what nothing refers to any more is
 * deleted from the repository. For delete and prune, recreate, and archives that others replace.
 */
import type { ChunkIndex } from '../cache/chunk-index.js'
import { idBytes } from '../constants.js'
import { BorgError } from '../errors.js'
import { type ChunkId, chunkId, idHex } from '../ids.js'
import { ObjectNotFound } from '../repository/errors.js'
import type { LocalRepository } from '../repository/local-repository.js'
import type { Transaction } from '../repository/repository.js'

export interface ReleaseOptions {
  /** A chunk that the index knows less often than it is released: ChunksIndexError, or it keeps its count and its object. */
  readonly unknown: 'refuse' | 'keep'
  /** A chunk whose object is gone already: ReleaseError, or what was to go is gone. */
  readonly missing: 'refuse' | 'pass'
}

export class ReferenceRelease {
  readonly #repository: LocalRepository
  readonly #index: ChunkIndex
  readonly #tx: Transaction
  readonly #options: ReleaseOptions
  #deleting: Promise<void>[] = []

  constructor(repository: LocalRepository, index: ChunkIndex, tx: Transaction, options: ReleaseOptions) {
    this.#repository = repository
    this.#index = index
    this.#tx = tx
    this.#options = options
  }

  /** One reference. What it took, and whether it was the last; undefined if the index keeps it. */
  one(id: ChunkId): { readonly size: number; readonly csize: number; readonly last: boolean } | undefined {
    const index = this.#index
    const bucket = index.releaseAt(id, 0)
    if (bucket < 0) {
      if (this.#options.unknown === 'keep') return undefined
      throw new ChunksIndexError(id)
    }
    const released = { size: index.sizeIn(bucket), csize: index.csizeIn(bucket), last: index.remaining(bucket) === 0 }
    if (released.last) this.drop(id)
    return released
  }

  /** All references that an index counts, a chunk's together or not at all. */
  async all({ table }: ChunkIndex): Promise<void> {
    for (const bucket of table.buckets()) {
      const id = chunkId(Buffer.from(table.idAt(bucket)))
      const count = table.value(bucket, 0)
      if (this.#index.refcount(id) < count) {
        if (this.#options.unknown === 'keep') continue
        throw new ChunksIndexError(id)
      }
      for (let released = 0; released < count; released++) this.one(id)
      if (this.#deleting.length >= deletionsAtOnce) await this.settled()
    }
    await this.settled()
  }

  /** A chunk that was counted down to nothing, its entry still in the index. */
  drop(id: ChunkId): void {
    this.#index.remove(id)
    if (this.#repository.has(id)) this.delete(id)
    else if (this.#options.missing === 'refuse') throw new ReleaseError(id, this.#repository.location)
  }

  /** drop for chunks whose ids lie one behind the other. */
  dropMany(ids: Uint8Array): void {
    const deleted = this.#tx.deleteMany(ids).then(missing => {
      if (missing.length > 0 && this.#options.missing === 'refuse') throw new ReleaseError(ids.subarray(missing[0]! * idBytes, (missing[0]! + 1) * idBytes), this.#repository.location)
    })
    // Awaited by settled(); until then its failure is not unhandled.
    deleted.catch(() => undefined)
    this.#deleting.push(deleted)
  }

  /** Deletes an object that nothing counted. */
  delete(id: ChunkId): void {
    const deleted = this.#tx.delete(id)
    // Awaited by settled(); until then its failure is not unhandled.
    deleted.catch(() => undefined)
    this.#deleting.push(deleted)
  }

  /** Resolves when all that was deleted so far is; the first failure is thrown. To be awaited before anything is committed. */
  async settled(): Promise<void> {
    const deleting = this.#deleting
    this.#deleting = []
    await Promise.all(deleting)
  }
}

const deletionsAtOnce = 4096

/** The index is not believed any more after this, and made anew by the next command that needs it. */
export class ChunksIndexError extends BorgError {
  constructor(id: Uint8Array) {
    super('ChunksIndexError', `Chunk ID ${idHex(id)} missing from chunks index, corrupted chunks index - aborting transaction. The index will be built anew: run the command again.`)
  }
}

/** A chunk that the index knows is missing in the repository. */
export class ReleaseError extends ObjectNotFound {
  constructor(id: Uint8Array, location: string) {
    super(id, location)
    this.message += ' Nothing was deleted. Run "borg check --repair" on the repository, or delete with --force.'
  }
}
