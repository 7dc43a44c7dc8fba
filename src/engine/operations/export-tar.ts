/** `export-tar`: items of an archive as a tar (commands.md). No xattrs, ACLs and flags, and times in whole seconds: GNU's format has no more. */
import type { ArchiveReader } from '../archive/archive-reader.js'
import type { ChunkList } from '../archive/chunk-list.js'
import type { Item } from '../archive/item.js'
import type { Matcher } from '../patterns/matcher.js'
import { typeBlockDevice, typeCharDevice, typeDirectory, typeFifo, typeFile, typeMask, typeSymlink } from '../platform/attributes.js'
import { majorOf, minorOf } from '../platform/device-number.js'
import type { ChunkReader, WantedChunk } from '../store/chunk-reader.js'
import { endOfTar, gnuHeader, paddingOf, tarType, type TarType } from '../tar/gnu-header.js'
import { byteString } from '../text.js'
import { maxChunkless, stripped } from './extract.js'

export interface ExportTarOptions {
  readonly matcher: Matcher
  readonly stripComponents: number
  /** Part items are left out otherwise. */
  readonly parts: boolean
  readonly signal?: AbortSignal
}

export interface ExportTarListener {
  /** Each item that goes into the tar, before it does. The path is that of the archive. */
  item?(path: Buffer): void
  /** What no tar can hold. */
  unsupported?(path: Buffer, type: number): void
  /** Plaintext bytes of content so far. */
  progress?(bytes: number, path: Buffer): void
}

interface Selected {
  readonly item: Item
  /** In the tar. */
  readonly path: Buffer
  readonly type: TarType
  readonly chunks: ChunkList | undefined
  readonly linkName: Buffer
}

const types: Readonly<Record<number, TarType>> = {
  [typeFile]: tarType.file, [typeDirectory]: tarType.directory, [typeSymlink]: tarType.symlink, [typeFifo]: tarType.fifo, [typeCharDevice]: tarType.characterDevice, [typeBlockDevice]: tarType.blockDevice,
}
const nothing = Buffer.alloc(0)

export class TarExport {
  readonly #archive: ArchiveReader
  readonly #reader: ChunkReader
  readonly #options: ExportTarOptions
  readonly #listener: ExportTarListener
  /** Chosen and not in the tar yet; those with content wait for it. */
  readonly #queue: Selected[] = []
  /** Of first names that were not chosen: where their content is in the tar, or what it is. */
  readonly #firsts = new Map<string, { readonly path: Buffer } | { readonly chunks: ChunkList | undefined }>()
  #ended = false
  #bytes = 0
  #content = 0

  constructor(archive: ArchiveReader, reader: ChunkReader, options: ExportTarOptions, listener: ExportTarListener = {}) {
    this.#archive = archive
    this.#reader = reader
    this.#options = options
    this.#listener = listener
  }

  /** The tar, once. A piece is only valid until the next one is asked for. Throws at the first chunk that is missing or damaged. */
  async *pieces(): AsyncGenerator<Buffer> {
    for await (const piece of this.#entries()) {
      this.#bytes += piece.length
      yield piece
    }
    yield endOfTar(this.#bytes)
  }

  async *#entries(): AsyncGenerator<Buffer> {
    const items = this.#archive.items({ parts: this.#options.parts, reader: this.#reader })
    let index = 0
    try {
      do {
        for await (const plain of this.#reader.getMany(this.#wanted(items), { borrowed: true })) {
          this.#options.signal?.throwIfAborted()
          yield* this.#chunkless()
          const selected = this.#queue[0]!, chunks = selected.chunks!
          if (index === 0) yield this.#header(selected)
          yield plain
          this.#listener.progress?.(this.#content += plain.length, selected.item.path)
          if (++index < chunks.length) continue
          yield paddingOf(chunks.totalSize)
          this.#queue.shift()
          index = 0
        }
        yield* this.#chunkless()
      } while (!this.#ended)
    } finally {
      await items.return(undefined)
    }
  }

  /** Reads items ahead of their turn, as far as chunks are wanted. */
  async *#wanted(items: AsyncGenerator<Item>): AsyncGenerator<WantedChunk> {
    for (let chunkless = 0; chunkless < maxChunkless; ) {
      const { value: item, done } = await items.next()
      if (done) {
        this.#ended = true
        return
      }
      const selected = this.#select(item)
      if (!selected) continue
      this.#queue.push(selected)
      const { chunks } = selected
      if (!chunks || chunks.length === 0) {
        chunkless++
        continue
      }
      chunkless = 0
      yield* chunks
    }
  }

  *#chunkless(): Generator<Buffer> {
    for (let next; (next = this.#queue[0]) && !next.chunks?.length; this.#queue.shift()) yield this.#header(next)
  }

  /** Only files are hard links in a tar of Borg's; of devices and fifos each name is one of its own. */
  #select(item: Item): Selected | undefined {
    const { matcher, stripComponents } = this.#options
    const chosen = matcher.includes(item.path)
    const path = chosen ? stripped(item.path, stripComponents) : undefined
    const isFile = (item.mode & typeMask) === typeFile
    if (path === undefined) {
      if (isFile && item.source === undefined && item.hardlinkMaster !== false) this.#firsts.set(byteString(item.path), { chunks: item.chunks })
      return undefined
    }
    const type = types[item.mode & typeMask]
    if (type === undefined) {
      this.#listener.unsupported?.(item.path, item.mode & typeMask)
      return undefined
    }
    if (!isFile) return { item, path, type, chunks: undefined, linkName: (type === tarType.symlink && item.source) || nothing }
    if (item.source === undefined) return { item, path, type, chunks: item.chunks, linkName: nothing }
    const first = this.#firsts.get(byteString(item.source))
    const linkName = !first ? stripped(item.source, stripComponents) : 'path' in first ? first.path : undefined
    if (linkName) return { item, path, type: tarType.hardLink, chunks: undefined, linkName }
    // The first chosen name takes the content and becomes what the others link to.
    this.#firsts.set(byteString(item.source), { path })
    return { item, path, type, chunks: first && 'chunks' in first ? first.chunks : undefined, linkName: nothing }
  }

  #header({ item, path, type, chunks, linkName }: Selected): Buffer {
    this.#listener.item?.(item.path)
    const { mode, uid, gid, user, group, mtimeNs, rdev = 0 } = item
    return gnuHeader({
      type, name: path, linkName, mode: mode & 0o7777, uid, gid, user: user ?? nothing, group: group ?? nothing, size: chunks?.totalSize ?? 0,
      // Through a double, as Borg does it.
      mtimeSeconds: Math.trunc(Number(mtimeNs) / 1e9), major: majorOf(rdev), minor: minorOf(rdev),
    })
  }
}
