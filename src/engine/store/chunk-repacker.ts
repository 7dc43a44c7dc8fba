/**
 * Compresses stored chunks by another method: decoded, compressed and sealed by the byte workers in batches, put in the place of
 * the old ones here. An id stands for the plaintext, so whoever refers to a chunk need not know. The old entry stays in its
 * segment until it is compacted: a transaction that fails leaves everything as it was.
 */
import { putHeaderBytes } from '../constants.js'
import type { Codec } from '../codec/codec.js'
import type { Key } from '../crypto/key.js'
import type { NonceSource } from '../crypto/nonces.js'
import { HashTable } from '../hashindex/hash-table.js'
import type { ChunkId } from '../ids.js'
import { ObjectNotFound } from '../repository/errors.js'
import type { LocalRepository } from '../repository/local-repository.js'
import type { Transaction } from '../repository/repository.js'
import { errorOf, openJob } from './chunk-reader.js'
import type { Workers } from './workers.js'

const batchBytes = 1 << 20
const batchCount = 128
const maxBytesInFlight = 16 << 20

interface WantedChunk {
  readonly id: ChunkId
  readonly size: number
}

export interface RepackerOptions {
  readonly repository: LocalRepository
  readonly key: Key
  readonly nonces: NonceSource
  readonly codec: Codec
  readonly workers: Workers
  /** Also what is compressed by the wanted method already, at whatever level. */
  readonly always: boolean
}

export class ChunkRepacker {
  readonly #options: RepackerOptions
  /** Each chunk is looked at once, however many archives refer to it: 36 bytes a chunk. */
  readonly #seen = new HashTable(1)
  /** Chunks of later segments were written by this run: they are as wanted. */
  readonly #lastOldSegment: number
  #tx: Transaction | undefined
  #batch: WantedChunk[] = []
  #batchBytes = 0
  #bytesInFlight = 0
  #all: Promise<void> = Promise.resolve()
  readonly #inFlight = new Set<Promise<void>>()
  /** To be told when the batch in hand was handed over. */
  readonly #marks: (() => void)[] = []
  readonly #outputs: SharedArrayBuffer[] = []
  #waiting: (() => void)[] = []
  #flushPlanned = false

  constructor(options: RepackerOptions) {
    this.#options = options
    this.#lastOldSegment = options.repository.transactionId
  }

  /** The transaction that it writes to from now on. */
  begin(tx: Transaction): void {
    this.#tx = tx
    this.#options.workers.setCodec(this.#options.codec)
    this.#all = Promise.resolve()
    this.#dropBatch()
  }

  /** ObjectNotFound. `size`: plaintext bytes, as the chunk list tells. */
  add(id: ChunkId, size: number): void {
    if (this.#seen.has(id)) return
    const { repository } = this.#options
    const place = repository.entryPosition(id)
    if (!place) throw new ObjectNotFound(id, repository.location)
    this.#seen.set(id, 1)
    if (place.segment > this.#lastOldSegment) return
    this.#batch.push({ id, size })
    this.#batchBytes += size
    this.#bytesInFlight += size
    if (this.#batchBytes >= batchBytes || this.#batch.length >= batchCount) this.#flush()
    else this.#planFlush()
  }

  /** Resolves when all that was added so far is stored, which may take until its batch is full or a moment has passed. The first failure is thrown. */
  settled(): Promise<void> {
    return this.#batch.length === 0 ? this.#all : new Promise((resolve, reject) => this.#marks.push(() => void this.#all.then(resolve, reject)))
  }

  /** Resolves when nothing of this is under way any more, be it stored or not. Nobody may roll the transaction back before. */
  async idle(): Promise<void> {
    this.#dropBatch()
    for (const mark of this.#marks.splice(0)) mark()
    await Promise.allSettled(this.#inFlight)
  }

  #dropBatch(): void {
    this.#batch = []
    this.#bytesInFlight -= this.#batchBytes
    this.#batchBytes = 0
  }

  /** Resolves when more may be added: what is in flight is bounded. */
  async room(): Promise<void> {
    while (this.#bytesInFlight > maxBytesInFlight) {
      this.#flush()
      await new Promise<void>(resolve => this.#waiting.push(resolve))
    }
  }

  #planFlush(): void {
    if (this.#flushPlanned) return
    this.#flushPlanned = true
    // Whoever waits for a few chunks must not wait for others that may never come.
    setTimeout(() => {
      this.#flushPlanned = false
      this.#flush()
    }, 5)
  }

  #flush(): void {
    if (this.#batch.length > 0) {
      const batch = this.#batch
      this.#batch = []
      const bytes = this.#batchBytes
      this.#batchBytes = 0
      const done: Promise<void> = this.#repack(batch).finally(() => {
        this.#inFlight.delete(done)
        this.#bytesInFlight -= bytes
        for (const wake of this.#waiting.splice(0)) wake()
      })
      this.#inFlight.add(done)
      this.#all = Promise.all([this.#all, done]).then(() => undefined)
      // Awaited by whoever asks for it; until then a failure is not unhandled.
      this.#all.catch(() => undefined)
    }
    for (const mark of this.#marks.splice(0)) mark()
  }

  async #repack(batch: readonly WantedChunk[]): Promise<void> {
    const { repository, key, codec, nonces, workers, always } = this.#options
    const tx = this.#tx!
    let bound = 0, blocks = 0
    for (const { size } of batch) {
      const payload = codec.maxPayload(size)
      blocks += Math.ceil(payload / 16)
      bound += key.sealedLength(payload) + putHeaderBytes
    }
    const nonce = key.encrypted ? await nonces.take(blocks) : 0n
    const output = this.#takeOutput(bound)
    try {
      const { lengths, failures } = await repository.leased(lease => {
        const located = batch.map(chunk => {
          const place = repository.locate(chunk.id)
          return { ...place, fd: lease.fd(place.segment), chunk }
        })
        return workers.repack({ ...openJob(located), nonce, output, always })
      })
      if (failures[0]) throw errorOf(failures[0])
      const ids: ChunkId[] = [], taken: number[] = []
      let total = 0
      for (const [index, { id }] of batch.entries()) {
        const length = lengths[index]!
        if (length === 0) continue
        ids.push(id)
        taken.push(length)
        total += length
      }
      // In one go: nobody may find an id missing in between, and store it on his own.
      if (ids.length > 0) await Promise.all([...ids.map(id => tx.delete(id)), tx.putEntries(new Uint8Array(output, 0, total), ids, taken)])
    } finally {
      this.#outputs.push(output)
    }
  }

  #takeOutput(bytes: number): SharedArrayBuffer {
    const at = this.#outputs.findIndex(output => output.byteLength >= bytes)
    if (at >= 0) return this.#outputs.splice(at, 1)[0]!
    // A larger one replaces a smaller one, so that their number stays that of the batches in flight.
    this.#outputs.pop()
    return new SharedArrayBuffer(Math.max(2 * batchBytes, 2 ** Math.ceil(Math.log2(bytes))))
  }
}
