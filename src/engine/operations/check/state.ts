/** What the steps of the archives' phase share: what is known of the objects, what was found, and what a repair will do. */
import { maxValue } from '../../hashindex/bucket-layout.js'
import { HashTable } from '../../hashindex/hash-table.js'
import { type ChunkId, chunkId, idKey } from '../../ids.js'
import type { Key } from '../../crypto/key.js'
import type { LocalRepository } from '../../repository/local-repository.js'
import type { RepoObjects } from '../../store/repo-objects.js'
import type { Workers } from '../../store/workers.js'
import type { ArchivesCheckListener, Finding } from './finding.js'

export interface CheckContext {
  readonly repository: LocalRepository
  readonly key: Key
  readonly objects: RepoObjects
  readonly workers: Workers
  readonly listener: ArchivesCheckListener
  readonly signal?: AbortSignal | undefined
}

/** What a repair does, in this order and in one transaction. Each archive is named by its byte string. */
export interface RepairPlan {
  /** Objects that cannot be opened. */
  readonly defects: Map<string, ChunkId>
  /** Chunks of zeros that take the place of missing ones: id -> bytes. */
  readonly zeroChunks: Map<string, number>
  /** Archives whose items or chunk lists change. */
  readonly rewrites: Map<string, RewriteFacts>
  /** Archives without readable metadata. */
  readonly removals: Set<string>
  /** Ids of metadata that rewritten and removed archives leave behind: no orphans, but nobody's once that is done. */
  readonly superseded: Set<string>
}

export interface RewriteFacts {
  itemsLost: number
  filesZeroed: number
  filesHealed: number
  listsCorrected: number
}

const refcountWord = 0, sizeWord = 1, csizeWord = 2

/**
 * Every object that may be referred to: 44 bytes each, outside the JS heap. An id that is not here counts as missing, be it
 * not in the repository or damaged there. Plaintext sizes are 0 until somebody tells them.
 */
class KnownObjects {
  readonly #table: HashTable

  constructor(repository: LocalRepository) {
    // Some room for what a repair adds.
    this.#table = new HashTable(3, Math.ceil(repository.objectCount * 1.1))
    this.#table.addIds(repository.indexInMemory())
  }

  get count(): number {
    return this.#table.size
  }

  has(id: Uint8Array): boolean {
    return this.#table.has(id)
  }

  /** Bucket of an id, -1 if it is missing. Valid until the next add or remove. */
  find(id: Uint8Array): number {
    return this.#table.find(id)
  }

  sizeAt(bucket: number): number {
    return this.#table.value(bucket, sizeWord)
  }

  refer(bucket: number, size: number, csize: number): void {
    const table = this.#table
    const count = table.value(bucket, refcountWord)
    if (count < maxValue) table.setValue(bucket, refcountWord, count + 1)
    if (table.value(bucket, sizeWord) === 0) table.setValue(bucket, sizeWord, size)
    if (table.value(bucket, csizeWord) === 0) table.setValue(bucket, csizeWord, csize)
  }

  /** One reference more to an object that a repair is going to store, or has stored, if it is not there. */
  referTo(id: Uint8Array, size: number, csize: number): void {
    if (this.#table.find(id) < 0) this.#table.set(id, 0, size, csize)
    this.refer(this.#table.find(id), size, csize)
  }

  /** What a repair is going to store. */
  enter(id: Uint8Array, size: number): void {
    this.#table.set(id, 0, size, 0)
  }

  /** One reference less. */
  release(id: Uint8Array): void {
    const bucket = this.#table.find(id)
    const count = bucket < 0 ? 0 : this.#table.value(bucket, refcountWord)
    if (count > 0 && count < maxValue) this.#table.setValue(bucket, refcountWord, count - 1)
  }

  size(id: Uint8Array): number {
    const bucket = this.#table.find(id)
    return bucket < 0 ? 0 : this.sizeAt(bucket)
  }

  setSize(id: Uint8Array, size: number): void {
    const bucket = this.#table.find(id)
    if (bucket >= 0) this.#table.setValue(bucket, sizeWord, size)
  }

  csize(id: Uint8Array): number {
    const bucket = this.#table.find(id)
    return bucket < 0 ? 0 : this.#table.value(bucket, csizeWord)
  }

  setCsize(id: Uint8Array, csize: number): void {
    const bucket = this.#table.find(id)
    if (bucket >= 0) this.#table.setValue(bucket, csizeWord, csize)
  }

  isReferredTo(id: Uint8Array): boolean {
    const bucket = this.#table.find(id)
    return bucket >= 0 && this.#table.value(bucket, refcountWord) > 0
  }

  remove(id: Uint8Array): void {
    this.#table.delete(id)
  }

  /** Ids that nothing refers to; each a copy. Nothing may be added or removed meanwhile. */
  *unused(): Generator<ChunkId> {
    for (const bucket of this.#table.buckets()) if (this.#table.value(bucket, refcountWord) === 0) yield chunkId(Buffer.from(this.#table.idAt(bucket)))
  }
}

export class CheckState {
  readonly context: CheckContext
  readonly known: KnownObjects
  readonly plan: RepairPlan = { defects: new Map(), zeroChunks: new Map(), rewrites: new Map(), removals: new Set(), superseded: new Set() }
  /** An error was found. */
  problems = false
  /** Chunks whose size the first reference to them told wrongly. */
  readonly wrongSizes = new Set<string>()
  readonly #zeroIds = new Map<number, ChunkId>()

  constructor(context: CheckContext) {
    this.context = context
    this.known = new KnownObjects(context.repository)
  }

  report(finding: Finding): void {
    if (finding.severity === 'error') this.problems = true
    this.context.listener.log?.(finding.severity, finding.message)
    this.context.listener.finding?.(finding)
  }

  say(level: 'debug' | 'info' | 'warning' | 'error', message: string): void {
    this.context.listener.log?.(level, message)
  }

  /** From now on the object counts as missing, and a repair deletes it. */
  giveUp(id: ChunkId): void {
    this.plan.defects.set(idKey(id), id)
    this.known.remove(id)
  }

  /** Id of a chunk of so many zero bytes. */
  zeroId(size: number): ChunkId {
    let id = this.#zeroIds.get(size)
    if (!id) {
      id = this.context.key.idHash(Buffer.alloc(size))
      this.#zeroIds.set(size, id)
    }
    return id
  }

  rewriteOf(archive: string): RewriteFacts {
    let facts = this.plan.rewrites.get(archive)
    if (!facts) {
      facts = { itemsLost: 0, filesZeroed: 0, filesHealed: 0, listsCorrected: 0 }
      this.plan.rewrites.set(archive, facts)
    }
    return facts
  }
}
