/**
 * The engine thread's half of chunking while files arrive: what was staged is cut, hashed and looked up; chunks that the repository has are
 * only named, new ones are compressed, sealed as the repository's objects and put into the stash (engine/store/stash.ts). Files stay where
 * they are until whoever asked has noted the result.
 *
 * Sealing needs counter values of the repository, which nobody else may ever use. They are taken from a reservation that this process made
 * durably under the exclusive lock (crypto.md §4), for a moment and only when nobody else has a lock: a reservation is good for 4 GiB.
 * Without one, nothing is sealed: files wait as they are until the commit, as they do while another client works on the repository.
 *
 * Nothing is cut while this process changes the repository: what a transaction that may still fail has put there would pass for known.
 */
import { closeSync, openSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import type { Chunker, CutChunk } from '../../engine/chunker/chunker.js'
import type { Codec } from '../../engine/codec/codec.js'
import { FileCipher } from '../../engine/crypto/file-cipher.js'
import { idBytes } from '../../engine/constants.js'
import { BorgError } from '../../engine/errors.js'
import { chunkId } from '../../engine/ids.js'
import { InTurn } from '../../engine/in-turn.js'
import type { OpenedRepository } from '../../engine/operations/open.js'
import type { LocalRepository } from '../../engine/repository/local-repository.js'
import { ChunkWriter, type StoredChunk } from '../../engine/store/chunk-writer.js'
import { RangeSource } from '../../engine/store/sealed-file.js'
import type { Stash } from '../../engine/store/stash.js'
import type { Workers } from '../../engine/store/workers.js'
import { type CutReply, type CutRequest, cutKnown, cutStashed } from '../engine-port.js'
import type { RepositoryLease } from '../repository-lease.js'
import { Extents } from './extents.js'

/** Counter values asked for at a time: 256 MiB of sealed bytes. */
const nonceBlocks = 1 << 24
/** Left to others on the disk of the staging folder. */
const spareBytes = 32 << 20
/** Of one range, whose chunks are under way. */
const settledAtOnce = 64

export interface CutterOptions {
  readonly stash: Stash
  readonly workers: Workers
  readonly codec: Codec
  /** Used by nobody else but by commits, during which nothing is cut. */
  readonly chunker: Chunker
  /** With the manifest that is current. */
  opened(): OpenedRepository<LocalRepository>
}

export class Cutter {
  readonly stash: Stash
  readonly #options: CutterOptions
  #nonces: { next: bigint; readonly end: bigint } | undefined
  /** Jobs under way, and those who wait for none. */
  #active = 0
  readonly #idle: (() => void)[] = []
  #quiet: Promise<unknown> | undefined
  /** Memory for what workers make, for one request after the other. */
  #outputs: SharedArrayBuffer[] = []
  /** Ranges one after the other: they share the chunker. */
  readonly #ranges = new InTurn()

  constructor(options: CutterOptions) {
    this.#options = options
    this.stash = options.stash
  }

  /**
   * Host errors of the files or of the stash, LockTimeout where counter values or a current view of the repository are not to be had now.
   * `rangeCut` hears where the last chunk of a range ends, when the next one may be asked for.
   */
  async cut(request: CutRequest, lease: RepositoryLease, rangeCut: (end: number) => void): Promise<CutReply> {
    while (this.#quiet) await this.#quiet
    this.#active++
    try {
      return await lease.reading(async () => {
        // Without a lock somebody may just be deleting what seems to be there.
        if (!lease.locked) throw notNow()
        await this.#ensureRoom(request)
        const { opened, workers, codec, stash } = this.#options
        const { repository, key } = opened()
        const writer = new ChunkWriter({
          key, codec, workers, outputs: this.#outputs, nonces: { take: blocks => this.#take(blocks, lease) },
          repository: { has: id => repository.has(id) || stash.has(id), storedSize: id => repository.storedSize(id) ?? stash.storedSize(id), sharedIndex: () => repository.sharedIndex() },
          transaction: {
            putEntries: (entries, ids, lengths) => stash.append(entries, ids, lengths),
          },
        })
        const stored = request.files ? await storeFiles(writer, request.files) : await this.#storeRange(writer, request.range!, rangeCut)
        return this.#reply(stored, request.range?.from ?? 0, repository)
      })
    } finally {
      this.#active--
      if (this.#active === 0) for (const wake of this.#idle.splice(0)) wake()
    }
  }

  /** Nothing was cut for a while: memory that was kept for more of it goes. */
  rest(): void {
    this.#outputs = []
  }

  /** Runs `work`, which changes the repository, when nothing is being cut; what is to be cut meanwhile waits. */
  async whileQuiet<T>(work: () => Promise<T>): Promise<T> {
    while (this.#quiet) await this.#quiet
    const result = (async () => {
      if (this.#active > 0) await new Promise<void>(resolve => this.#idle.push(resolve))
      return work()
    })()
    const over = result.then(() => {}, () => {}).finally(() => {
      if (this.#quiet === over) this.#quiet = undefined
    })
    this.#quiet = over
    return result
  }

  /**
   * Drops stashed chunks that are not among `ids` (32 bytes each) or that the repository has. `own`: only what this process put there.
   * Returns what the stash takes on disk then.
   */
  async keep(ids: Uint8Array, own: boolean): Promise<number> {
    await this.whileQuiet(() => {
      const wanted = new Set<string>()
      // Most are not there: clones of archives are among them.
      for (let at = 0; at < ids.length && this.stash.count > 0; at += idBytes) {
        const id = chunkId(Buffer.from(ids.buffer, ids.byteOffset + at, idBytes))
        if (this.stash.has(id)) wanted.add(id.toString('latin1'))
      }
      const { repository } = this.#options.opened()
      this.stash.keep(id => wanted.has(Buffer.from(id).toString('latin1')) && !repository.has(chunkId(Buffer.from(id))), own)
      return Promise.resolve()
    })
    return this.stash.bytes
  }

  /** For a while a file lies there twice: that must not be what fills the disk. */
  async #ensureRoom({ files, range }: CutRequest): Promise<void> {
    const bytes = range ? range.to - range.from : files!.reduce((sum, { size }) => sum + size, 0)
    const { bavail, bsize } = await statfs(this.stash.folder)
    if (bavail * bsize < bytes + spareBytes) throw Object.assign(new Error('the disk of the staging folder is nearly full'), { code: 'ENOSPC', errno: -28 })
  }

  async #take(blocks: number, lease: RepositoryLease): Promise<bigint> {
    const count = BigInt(blocks)
    if (!this.#nonces || this.#nonces.next + count > this.#nonces.end) {
      const wanted = Math.max(blocks, nonceBlocks)
      const { nonces } = this.#options.opened()
      const start = nonces.takeReserved(wanted) ?? await lease.exclusively(0, async () => nonces.take(wanted))
      this.#nonces = { next: start, end: start + BigInt(wanted) }
    }
    const { next } = this.#nonces
    this.#nonces.next = next + count
    return next
  }

  /** Chunks from `from` on; the last one only if the file ends there, else where it ends is not known yet. */
  async #storeRange(writer: ChunkWriter, range: NonNullable<CutRequest['range']>, rangeCut: (end: number) => void): Promise<StoredChunk[]> {
    const stored: StoredChunk[] = []
    const pending: Promise<StoredChunk>[] = []
    let end = range.from
    const add = async ({ bytes, release }: CutChunk): Promise<void> => {
      end += bytes.length
      const added = writer.add(bytes, release)
      added.catch(() => undefined)
      pending.push(added)
      if (pending.length >= settledAtOnce) stored.push(...await Promise.all(pending.splice(0, settledAtOnce / 2)))
      await writer.room()
    }
    try {
      await this.#ranges.run(() => this.#cutRange(range, add))
      rangeCut(end)
      await writer.drain()
      stored.push(...await Promise.all(pending))
      return stored
    } finally {
      await writer.drain().catch(() => undefined)
    }
  }

  async #cutRange({ path, from, to, final, seal }: NonNullable<CutRequest['range']>, add: (chunk: CutChunk) => Promise<void>): Promise<void> {
    const fd = openSync(path, 'r')
    try {
      const source = new RangeSource(fd, from, to, seal && { cipher: new FileCipher(seal.key), file: seal.file })
      let held: CutChunk | undefined
      try {
        for await (const chunk of this.#options.chunker.split(source)) {
          // From here on it is the other one that is held, whatever becomes of this one.
          const before = held
          held = chunk
          if (before) await add(before)
        }
        if (held && final) {
          const last = held
          held = undefined
          await add(last)
        }
      } finally {
        held?.release()
      }
    } finally {
      closeSync(fd)
    }
  }

  #reply(stored: readonly (StoredChunk | undefined)[], from: number, repository: LocalRepository): CutReply {
    const extents = new Extents()
    const states = new Uint8Array(stored.length)
    let at = from
    for (const [index, chunk] of stored.entries()) {
      if (!chunk) continue
      const { id, size, csize } = chunk
      extents.push(at, size, 0, id, size, csize)
      states[index] = repository.has(id) ? cutKnown : cutStashed
      at += size
    }
    return { rows: new Uint8Array(extents.rows), states, stashBytes: this.stash.bytes }
  }
}

async function storeFiles(writer: ChunkWriter, files: NonNullable<CutRequest['files']>): Promise<(StoredChunk | undefined)[]> {
  const results = files.map(file => writer.storeFile(file))
  for (const result of results) result.catch(() => undefined)
  await writer.drain().catch(() => undefined)
  const stored: (StoredChunk | undefined)[] = []
  for (const result of results) {
    const outcome = await result
    // One that cannot be read is left to the commit, which says so.
    stored.push(outcome.kind === 'stored' ? outcome.chunk : undefined)
  }
  return stored
}

function notNow(): BorgError {
  return new BorgError('LockTimeout', 'the repository is in use')
}
