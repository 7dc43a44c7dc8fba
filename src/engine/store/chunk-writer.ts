/**
 * Stores chunks: hashed, looked up, compressed and sealed by the byte workers in batches, appended to the repository here.
 * What the repository has already is only referred to.
 */
import { idBytes, putHeaderBytes } from '../constants.js'
import type { Codec } from '../codec/codec.js'
import type { Key } from '../crypto/key.js'
import type { NonceSource } from '../crypto/nonces.js'
import { type ChunkId, chunkId, idHex } from '../ids.js'
import type { LocalRepository } from '../repository/local-repository.js'
import type { Transaction } from '../repository/repository.js'
import { type FileError, fileChanged, fileFailed, fileOther, type FilePiece, type PackResult, type Piece } from './jobs.js'
import type { Workers } from './workers.js'

export interface StoredChunk {
  readonly id: ChunkId
  readonly size: number
  /** Length of the stored object. */
  readonly csize: number
  readonly isNew: boolean
}

/** How a small file fared: stored as one chunk (none if empty), failed, or to be read as a stream because it is no small file any more. */
export type FileResult =
  | { readonly kind: 'stored'; readonly chunk: StoredChunk | undefined; readonly changed: boolean }
  | { readonly kind: 'failed'; readonly error: FileError }
  | { readonly kind: 'other' }

interface Pending<P, R> {
  readonly piece: P
  readonly size: number
  resolve(result: R): void
  reject(error: unknown): void
  release?(): void
}
type PendingPiece = Pending<Piece, StoredChunk> & { readonly aside: boolean }
/** A small file, and who is told once how it fared. Not a promise: there are too many of them. */
export type PendingFile = Pending<FilePiece, FileResult>

const fileBatchBytes = 1 << 20
/** Some of the usual long ones, so that the worker has about four to hash side by side. */
const pieceBatchBytes = 8 << 20
const pieceBatchCount = 128, fileBatchCount = 64
/** Plaintext bytes handed to workers and not stored yet. */
const maxBytesInFlight = 32 << 20

/** What it asks of where chunks go: a repository, or what stands before one. */
export type ChunkHome = Pick<LocalRepository, 'has' | 'storedSize' | 'sharedIndex'>

export class ChunkWriter {
  readonly #repository: ChunkHome
  readonly #tx: Pick<Transaction, 'putEntries'>
  readonly #key: Key
  readonly #nonces: Pick<NonceSource, 'take'>
  readonly #codec: Codec
  readonly #workers: Workers
  readonly #outputs: SharedArrayBuffer[]
  #pieces: PendingPiece[] = []
  #pieceBytes = 0
  #files: PendingFile[] = []
  #fileBytes = 0
  #bytesInFlight = 0
  /** Batches under way. A count, as a set of them would grow old: the tables that a JavaScript set goes through refer to each other. */
  #batches = 0
  #waiting: (() => void)[] = []
  #flushPlanned = false
  /** csize of everything stored anew, for deduplicated sizes. */
  newBytes = 0
  newCount = 0

  /** `outputs`: memory for what workers make, kept by who makes one writer after the other: new memory is filled with zeros first. */
  constructor(options: { repository: ChunkHome; transaction: Pick<Transaction, 'putEntries'>; key: Key; nonces: Pick<NonceSource, 'take'>; codec: Codec; workers: Workers; outputs?: SharedArrayBuffer[] }) {
    this.#outputs = options.outputs ?? []
    this.#repository = options.repository
    this.#tx = options.transaction
    this.#key = options.key
    this.#nonces = options.nonces
    this.#codec = options.codec
    this.#workers = options.workers
    this.#workers.setCodec(options.codec)
    this.#workers.setIndex(this.#repository.sharedIndex())
  }

  /** Resolves when a further chunk may be added, undefined if that is now: what is in flight is bounded. */
  room(): Promise<void> | undefined {
    return this.#bytesInFlight > maxBytesInFlight ? this.#roomLater() : undefined
  }

  async #roomLater(): Promise<void> {
    while (this.#bytesInFlight > maxBytesInFlight) {
      if (!this.#workersAreBusy) this.flush()
      await new Promise<void>(resolve => this.#waiting.push(resolve))
    }
  }

  /** Stores one chunk. Shared memory is used as it is, until `release` is called; other memory is copied. `aside`: see Workers.pack. */
  add(bytes: Buffer, release?: () => void, aside = false): Promise<StoredChunk> {
    const piece: Piece = bytes.buffer instanceof SharedArrayBuffer ? { memory: bytes.buffer, offset: bytes.byteOffset, length: bytes.length }
      : { memory: new Uint8Array(bytes), offset: 0, length: bytes.length }
    return new Promise((resolve, reject) => {
      this.#pieces.push({ piece, size: bytes.length, resolve, reject, aside, ...(release ? { release } : {}) })
      this.#pieceBytes += bytes.length
      this.#bytesInFlight += bytes.length
      if (this.#pieceBytes >= pieceBatchBytes || this.#pieces.length >= pieceBatchCount) this.#flushPieces()
      else this.#planFlush()
    })
  }

  /** Stores a file that fits one chunk; a worker reads it. */
  addFile(file: PendingFile): void {
    this.#files.push(file)
    this.#fileBytes += file.size
    this.#bytesInFlight += file.size + 4096
    if (this.#fileBytes >= fileBatchBytes || this.#files.length >= fileBatchCount) this.#flushFiles()
  }

  /** addFile for one who has few. */
  storeFile(piece: FilePiece): Promise<FileResult> {
    return new Promise((resolve, reject) => this.addFile({ piece, size: piece.size, resolve, reject }))
  }

  /** Hands over whatever waits, and resolves when some of what was added is stored, if anything is under way. */
  async progress(): Promise<void> {
    this.flush()
    if (this.#batches > 0) await new Promise<void>(resolve => this.#waiting.push(resolve))
  }

  /** Hands over whatever waits for a fuller batch. */
  flush(): void {
    this.#flushPieces()
    this.#flushFiles()
  }

  /** Resolves when everything added is stored, or could not be, which those who added it are told. */
  async drain(): Promise<void> {
    for (;;) {
      await this.progress()
      if (this.#batches === 0 && this.#pieces.length === 0 && this.#files.length === 0) return
    }
  }

  /** Nobody gains by less than a full batch then: it would only wait. */
  get #workersAreBusy(): boolean {
    return this.#batches >= 2 * this.#workers.count
  }

  #planFlush(): void {
    if (this.#flushPlanned) return
    this.#flushPlanned = true
    // Whoever adds chunks one by one and waits for each must not wait for others. A batch that ends looks again.
    setImmediate(() => {
      this.#flushPlanned = false
      if (!this.#workersAreBusy) this.#flushPieces()
    })
  }

  #flushPieces(): void {
    if (this.#pieces.length === 0) return
    const batch = this.#pieces
    this.#pieces = []
    this.#pieceBytes = 0
    this.#start(this.#pack(batch, { pieces: batch.map(({ piece }) => piece) }, false), batch, 0)
  }

  #flushFiles(): void {
    if (this.#files.length === 0) return
    const batch = this.#files
    this.#files = []
    this.#fileBytes = 0
    this.#start(this.#pack(batch, { files: batch.map(({ piece }) => piece) }, false), batch, 4096)
  }

  #start(done: Promise<void>, batch: readonly (PendingPiece | PendingFile)[], overhead: number): void {
    this.#batches++
    void done
      .catch((error: unknown) => {
        for (const pending of batch) pending.reject(error)
      })
      .finally(() => {
        this.#batches--
        if (this.#pieces.length > 0) this.#planFlush()
        for (const pending of batch) {
          this.#bytesInFlight -= pending.size + overhead
          pending.release?.()
        }
        const waiting = this.#waiting
        this.#waiting = []
        for (const wake of waiting) wake()
      })
  }

  async #pack(batch: readonly (PendingPiece | PendingFile)[], work: { pieces: Piece[] } | { files: FilePiece[] }, force: boolean): Promise<void> {
    let bound = 0
    let blocks = 0
    for (const { size } of batch) {
      const payload = this.#codec.maxPayload(size)
      blocks += Math.ceil(payload / 16)
      bound += this.#key.sealedLength(payload) + putHeaderBytes
    }
    const nonce = this.#key.encrypted ? await this.#nonces.take(blocks) : 0n
    const output = this.#takeOutput(bound)
    try {
      const result = await this.#workers.pack({ ...work, nonce, output, force }, batch.every(pending => 'aside' in pending && pending.aside))
      await this.#store(batch, work, result, output, force)
    } finally {
      this.#outputs.push(output)
    }
  }

  async #store(batch: readonly (PendingPiece | PendingFile)[], work: { pieces: Piece[] } | { files: FilePiece[] }, result: PackResult, output: SharedArrayBuffer, force: boolean): Promise<void> {
    const bytes = Buffer.from(output)
    const entries: Buffer[] = [], ids: ChunkId[] = [], lengths: number[] = []
    const isNew = new Uint8Array(batch.length)
    let at = 0
    const inThisBatch = new Set<string>()
    for (let index = 0; index < batch.length; index++) {
      const length = result.lengths[index]!
      if (length === 0) continue
      const id = idAt(result, index)
      const key = id.toString('latin1')
      // Another batch may have stored the same chunk meanwhile.
      if (!this.#repository.has(id) && !inThisBatch.has(key)) {
        inThisBatch.add(key)
        entries.push(bytes.subarray(at, at + length))
        ids.push(id)
        lengths.push(length)
        isNew[index] = 1
        this.newBytes += length - putHeaderBytes
        this.newCount++
      }
      at += length
    }
    if (entries.length > 0) {
      await this.#tx.putEntries(contiguous(entries, at) ? bytes.subarray(0, at) : Buffer.concat(entries), ids, lengths)
      this.#workers.setIndex(this.#repository.sharedIndex())
    }
    const lost: number[] = []
    for (const [index, pending] of batch.entries()) {
      const state = result.states?.[index]
      if (state === fileFailed) (pending as PendingFile).resolve({ kind: 'failed', error: result.errors![index]! })
      else if (state === fileOther) (pending as PendingFile).resolve({ kind: 'other' })
      else {
        const size = result.sizes[index]!
        let chunk: StoredChunk | undefined
        if (size > 0 || state === undefined) {
          const id = idAt(result, index)
          const csize = isNew[index] === 1 ? result.lengths[index]! - putHeaderBytes : this.#repository.storedSize(id)
          if (csize === undefined) {
            lost.push(index)
            continue
          }
          chunk = { id, size, csize, isNew: isNew[index] === 1 }
        }
        if (state === undefined) (pending as PendingPiece).resolve(chunk!)
        else (pending as PendingFile).resolve({ kind: 'stored', chunk, changed: state === fileChanged })
      }
    }
    if (lost.length === 0) return
    // The worker looked into an index from before these were deleted: they are stored now, whatever it knows.
    if (force) throw new Error(`chunk ${idHex(idAt(result, lost[0]!))} was stored but is not in the repository`)
    await this.#pack(lost.map(index => batch[index]!), 'pieces' in work ? { pieces: lost.map(index => work.pieces[index]!) } : { files: lost.map(index => work.files[index]!) }, true)
  }

  #takeOutput(bytes: number): SharedArrayBuffer {
    const at = this.#outputs.findIndex(output => output.byteLength >= bytes)
    if (at >= 0) return this.#outputs.splice(at, 1)[0]!
    // A larger one replaces a smaller one, so that their number stays that of the batches in flight.
    this.#outputs.pop()
    return new SharedArrayBuffer(Math.max(2 * fileBatchBytes, 2 ** Math.ceil(Math.log2(bytes))))
  }
}

function idAt(result: PackResult, index: number): ChunkId {
  return chunkId(Buffer.from(result.ids.buffer, result.ids.byteOffset + index * idBytes, idBytes))
}

/** Whether the entries are the whole run [0, end) of their buffer. */
function contiguous(entries: readonly Buffer[], end: number): boolean {
  let length = 0
  for (const entry of entries) length += entry.length
  return length === end
}
