/**
 * Where contents become chunks: small files are read by the byte workers, others cut here as they are read. What cannot be read is a result, a
 * failing repository throws.
 */
import { type BigIntStats, closeSync, fstatSync } from 'node:fs'
import { ChunkList } from '../archive/chunk-list.js'
import type { Item } from '../archive/item.js'
import type { ByteSource, Chunker } from '../chunker/chunker.js'
import { FileCipher } from '../crypto/file-cipher.js'
import { errnoOf } from '../errors.js'
import type { ChunkId } from '../ids.js'
import { native } from '../native.js'
import type { ChunkWriter, FileResult, PendingFile, StoredChunk } from '../store/chunk-writer.js'
import type { FileError, FilePiece } from '../store/jobs.js'
import { RangeSource } from '../store/sealed-file.js'
import type { Content } from './archive-entry.js'
import { DescriptorSource, GuardedSource, openSpecial } from './file-source.js'

export type ContentResult =
  | { readonly kind: 'chunks'; readonly chunks: ChunkList; readonly changed: boolean }
  | { readonly kind: 'failed'; readonly error: FileError }
type FileContent = Extract<Content, { kind: 'file' }>

/** Checkpoints in the midst of a file, and what becomes of its chunks when it fails. */
export interface PartSaver {
  /** A checkpoint is to be made now. */
  due(): boolean
  /** Bytes so far, of how many if that is known. */
  reading(path: Buffer, done: number, total: number | undefined): void
  /** Writes the part, behind all that stands before it in the archive, and makes the checkpoint. */
  save(part: Item): Promise<void>
  /** Writes what comes after the last checkpoint. */
  add(part: Item): Promise<void>
  /** A new chunk that no part has. */
  abandoned(id: ChunkId): void
}

/** A file that a byte worker reads. */
export class SmallFile implements PendingFile {
  readonly content: FileContent
  readonly piece: FilePiece
  /** When it is known, one of: how it fared; that it is no small file any more; what went wrong with the repository. */
  result: ContentResult | undefined = undefined
  isOther = false
  problem: { readonly error: unknown } | undefined = undefined

  constructor(content: FileContent) {
    this.content = content
    const { path, size, ino, dev, seal, position } = content
    // Most have neither.
    this.piece = seal || position !== undefined ? { path, size, ino, dev, ...(seal && { seal }), ...(position !== undefined && { position }) } : { path, size, ino, dev }
  }

  get size(): number {
    return this.content.size
  }

  resolve(result: FileResult): void {
    if (result.kind === 'other') this.isOther = true
    else if (result.kind === 'failed') this.result = result
    else {
      const chunks = new ChunkList()
      if (result.chunk) chunks.add(result.chunk.id, result.chunk.size, result.chunk.csize)
      this.result = { kind: 'chunks', chunks, changed: result.changed }
    }
  }

  reject(error: unknown): void {
    this.problem = { error }
  }
}

export class ContentStore {
  readonly #writer: ChunkWriter
  readonly #chunker: Chunker
  readonly #signal: AbortSignal | undefined
  readonly #parts: PartSaver

  constructor(writer: ChunkWriter, chunker: Chunker, parts: PartSaver, signal: AbortSignal | undefined) {
    this.#writer = writer
    this.#chunker = chunker
    this.#parts = parts
    this.#signal = signal
  }

  /** It can wait for its turn while others are read. */
  isSmall(content: Content): boolean {
    return content.kind === 'file' ? !content.special && content.size <= this.#chunker.singleChunkBytes : content.kind !== 'source' && content.kind !== 'parts'
  }

  /** Begins to store it. `item`: where parts of it may stand in the archive. */
  store(content: Content, item: Item | undefined): Promise<ContentResult> | ContentResult | SmallFile {
    switch (content.kind) {
      case 'chunks': {
        const { chunks } = content
        return chunks instanceof Promise ? chunks.then(found => ({ kind: 'chunks', chunks: found, changed: false })) : { kind: 'chunks', chunks, changed: false }
      }
      case 'parts': return this.#join(content.parts)
      case 'bytes': return this.#storeOne(content.bytes)
      case 'source': return this.#cut(content.source, item, content.size)
      case 'file': return this.isSmall(content) ? this.#readSmall(content) : this.#readLarge(content, item)
    }
  }

  /** How a small file fared. */
  async settled(file: SmallFile): Promise<ContentResult> {
    while (!file.result && !file.problem && !file.isOther) await this.#writer.progress()
    if (file.problem) throw file.problem.error
    // Others are under way beside it: this is no place for a checkpoint.
    return file.result ?? this.#readLarge(file.content, undefined)
  }

  async #storeOne(bytes: Buffer): Promise<ContentResult> {
    const chunks = new ChunkList()
    if (bytes.length > 0) {
      const { id, size, csize } = await this.#writer.add(bytes)
      chunks.add(id, size, csize)
    }
    return { kind: 'chunks', chunks, changed: false }
  }

  async #join(parts: readonly (ChunkList | ByteSource)[]): Promise<ContentResult> {
    const chunks = new ChunkList(Math.max(1, parts.length))
    for (const part of parts) {
      const result = part instanceof ChunkList ? { kind: 'chunks' as const, chunks: part } : await this.#cut(part, undefined, undefined)
      if (result.kind === 'failed') return result
      for (const { id, size, csize } of result.chunks) chunks.add(id, size, csize)
    }
    return { kind: 'chunks', chunks, changed: false }
  }

  #readSmall(content: FileContent): SmallFile {
    const file = new SmallFile(content)
    this.#writer.addFile(file)
    return file
  }

  async #readLarge(content: FileContent, item: Item | undefined): Promise<ContentResult> {
    let fd: number
    try {
      fd = content.special ? await openSpecial(content.path) : native().openForReading(content.path)
    } catch (error) {
      return failed(error, 'open')
    }
    const { seal } = content
    const source = seal ? new RangeSource(fd, 0, seal.size, { cipher: new FileCipher(seal.key), file: seal.file }) : new DescriptorSource(fd)
    try {
      const before = fstatSync(fd, { bigint: true })
      const exchanged = content.special ? undefined : exchange(before, content)
      if (exchanged !== undefined) return { kind: 'failed', error: { code: 'ESTALE', errno: 116, syscall: 'open', reason: `${exchanged} (race condition), skipping file` } }
      const result = await this.#cut(source, item, content.special ? undefined : content.size)
      if (result.kind === 'failed' || content.special) return result
      const after = fstatSync(fd, { bigint: true })
      return { ...result, changed: after.ctimeNs !== before.ctimeNs || after.size !== before.size }
    } finally {
      // What waits for a writer may do so for ever.
      if (source instanceof DescriptorSource && !content.special) await source.end()
      closeSync(fd)
    }
  }

  /**
   * Stores a source chunk by chunk. A failing source is a result; a failing repository throws. Given its item, checkpoints may
   * be made on the way: what is stored so far then stands in the archive as a part item, and so does the rest at the end.
   */
  async #cut(source: ByteSource, item: Item | undefined, size: number | undefined): Promise<ContentResult> {
    const stored: Promise<StoredChunk>[] = []
    const chunks = new ChunkList(8)
    /** Which chunks are new. Not their ids: a file may have any number of them, and those of its parts need not be known. */
    let isNew = new Uint8Array(64)
    const settle = async (count: number): Promise<void> => {
      if (count === stored.length) this.#writer.flush()
      for (const chunk of await Promise.all(stored.splice(0, count))) {
        if (chunks.length === isNew.length) isNew = grown(isNew)
        isNew[chunks.length] = Number(chunk.isNew)
        chunks.add(chunk.id, chunk.size, chunk.csize)
      }
    }
    let partCount = 0, inParts = 0, done = 0
    const nextPart = (whole: Item): Item => {
      const rest = chunks.from(inParts)
      inParts = chunks.length
      return partOf(whole, ++partCount, rest)
    }
    let problem: unknown
    const guarded = new GuardedSource(source)
    try {
      for await (const chunk of this.#chunker.split(guarded)) {
        done += chunk.bytes.length
        const added = this.#writer.add(chunk.bytes, () => chunk.release())
        added.catch(() => undefined)
        stored.push(added)
        if (stored.length >= 2 * settledAtOnce) await settle(settledAtOnce)
        await this.#writer.room()
        this.#signal?.throwIfAborted()
        if (!item) continue
        this.#parts.reading(item.path, done, size)
        if (this.#parts.due()) {
          await settle(stored.length)
          await this.#parts.save(nextPart(item))
        }
      }
    } catch (error) {
      if (error !== guarded.problem) throw error
      problem = error
    }
    await settle(stored.length)
    if (problem !== undefined) {
      for (let index = inParts; index < chunks.length; index++) if (isNew[index]) this.#parts.abandoned(chunks.id(index))
      return failed(problem, 'read')
    }
    if (item && partCount > 0 && inParts < chunks.length) await this.#parts.add(nextPart(item))
    return { kind: 'chunks', chunks, changed: false }
  }
}

/** What is another than what lstat saw at the path: its content must not be stored as that of what was there, be it by accident or on purpose. */
function exchange(opened: BigIntStats, { ino, dev, position }: FileContent): string | undefined {
  if (!opened.isFile()) return 'file type changed'
  return position === undefined && (opened.ino !== ino || (dev !== undefined && opened.dev !== dev)) ? 'file inode changed' : undefined
}

/** What Borg writes of a file in the middle of it: what lstat said, not what has to be looked up. */
function partOf({ xattrs: _, aclAccess: _a, aclDefault: _d, bsdflags: _f, ...item }: Item, part: number, chunks: ChunkList): Item {
  return { ...item, path: Buffer.concat([item.path, Buffer.from(`.borg_part_${part}`)]), part, chunks, size: chunks.totalSize }
}

function grown(flags: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const more = new Uint8Array(2 * flags.length)
  more.set(flags)
  return more
}

/** Chunks of one file whose promises are taken in at a time. */
const settledAtOnce = 1024

function failed(error: unknown, syscall: string): ContentResult {
  const { code, errno } = error as NodeJS.ErrnoException
  if (errnoOf(error) === undefined) throw error
  return { kind: 'failed', error: { code: code ?? 'EIO', errno: Math.abs(errno ?? 5), syscall } }
}
