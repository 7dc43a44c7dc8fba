/** `extract`: items of an archive -> files below a directory (commands.md extract, archive.md §5-7). */
import { closeSync, ftruncateSync, writeSync } from 'node:fs'
import type { ArchiveReader } from '../archive/archive-reader.js'
import { ChunkList } from '../archive/chunk-list.js'
import type { Item } from '../archive/item.js'
import { errorText } from '../errno-text.js'
import { byteString, bytesOf, escapedText, shownText } from '../text.js'
import { blake2b256 } from '../crypto/blake2b.js'
import { errnoOf, saysNoRoom } from '../errors.js'
import { HashTable } from '../hashindex/hash-table.js'
import { native } from '../native.js'
import type { Matcher } from '../patterns/matcher.js'
import { typeBlockDevice, typeCharDevice, typeDirectory, typeFifo, typeFile, typeMask, typeSymlink } from '../platform/attributes.js'
import type { ChunkReader, WantedChunk } from '../store/chunk-reader.js'
import { restoreAttributes, type RestoreOptions } from './restore-attributes.js'
import { isHostilePath, itself, Target } from './target.js'

export interface ExtractOptions extends RestoreOptions {
  readonly matcher: Matcher
  readonly stripComponents: number
  readonly dryRun: boolean
  readonly sparse: boolean
  /** Part items are left out otherwise. */
  readonly parts: boolean
  /** Contents go here, one after the other, and nothing is made. */
  readonly output?: (bytes: Buffer) => void
  readonly signal?: AbortSignal
  /** Directories that are kept to be finished at the end, when nothing changes them any more. */
  readonly maxDirectories?: number
}

export interface ExtractListener {
  /** Each selected item, before it is extracted. Paths are those below the target. */
  item?(path: Buffer): void
  warning?(path: Buffer, text: string): void
  /** Plaintext bytes written so far. */
  progress?(bytes: number, path: Buffer): void
}

/** From this size on a file is written by the byte workers. */
const largeBytes = 4 << 20
const noBytes = Buffer.alloc(0)
/** Items without content that wait for the content of those before them; an archive may have millions in a row. */
export const maxChunkless = 4096
const standardMaxDirectories = 1 << 14
const slash = 0x2f

interface Selected {
  readonly item: Item
  /** Where it goes, after --strip-components. */
  readonly path: Buffer
  /** Content to be written: the item's own, or that of a hard link master that was not selected. */
  readonly chunks: ChunkList | undefined
  /** Path below the target of the first link. */
  readonly linkTo: Buffer | undefined
}

/** Throws at the first chunk that is missing or damaged; what was extracted before stays. */
export async function extractArchive(archive: ArchiveReader, reader: ChunkReader, folder: string, options: ExtractOptions, listener: ExtractListener): Promise<void> {
  const target = options.dryRun || options.output ? undefined : new Target(folder)
  const run = new Extraction(archive, reader, target, folder, options, listener)
  try {
    await run.run()
  } finally {
    run.closeFile()
    target?.close()
  }
}

/** Bytes that extractArchive will write or put out: what `progress` comes to. Costs a pass over the items. */
export async function extractedBytes(archive: ArchiveReader, reader: ChunkReader, { matcher, stripComponents, parts }: Pick<ExtractOptions, 'matcher' | 'stripComponents' | 'parts'>): Promise<number> {
  /** First names that are left out: the first link to one that is not takes its content. */
  const left = new Map<string, number>()
  let total = 0
  for await (const item of archive.items({ parts, reader })) {
    const chosen = matcher.includes(item.path) && stripped(item.path, stripComponents) !== undefined
    const bytes = item.chunks?.totalSize ?? 0
    if (!chosen) {
      if (bytes > 0 && item.hardlinkMaster !== false) left.set(byteString(item.path), bytes)
    } else if (item.source !== undefined && (item.mode & typeMask) !== typeSymlink) {
      total += left.get(byteString(item.source)) ?? 0
      left.delete(byteString(item.source))
    } else total += bytes
  }
  return total
}

class Extraction {
  readonly #archive: ArchiveReader
  readonly #reader: ChunkReader
  readonly #target: Target | undefined
  readonly #folder: string
  readonly #options: ExtractOptions
  readonly #listener: ExtractListener
  /** Selected and not extracted yet; those with chunks wait for them. */
  readonly #queue: Selected[] = []
  /** Made, and not what their items say yet. */
  #directories: Selected[] = []
  /** By hash: the paths of possible masters that were extracted to just these. There are as many as files: outside of the heap. */
  readonly #extracted = new HashTable(1)
  /** Stored path of any other -> where it was extracted to, or what it would hold. */
  readonly #masters = new Map<string, { path: Buffer } | { chunks: ChunkList | undefined }>()
  /** The file at which #wanted stopped. */
  #large: Selected | undefined
  /** All items were selected. */
  #ended = false
  #fd = -1
  #written = 0
  #chunkIndex = 0
  #total = 0
  #skipping = false

  constructor(archive: ArchiveReader, reader: ChunkReader, target: Target | undefined, folder: string, options: ExtractOptions, listener: ExtractListener) {
    this.#folder = folder
    this.#archive = archive
    this.#reader = reader
    this.#target = target
    this.#options = options
    this.#listener = listener
  }

  async run(): Promise<void> {
    const items = this.#archive.items({ parts: this.#options.parts, reader: this.#reader })
    try {
      do {
        for await (const plain of this.#reader.getMany(this.#wanted(items), { borrowed: true })) {
          this.#options.signal?.throwIfAborted()
          this.#passChunkless()
          this.#takeChunk(this.#queue[0]!, plain)
        }
        this.#passChunkless()
        await this.#extractLarge()
      } while (!this.#ended)
    } finally {
      await items.return(undefined)
    }
    // Directories last, the deepest first: whatever is made in them changes their times.
    this.#finishDirectories(this.#directories)
  }

  #finishDirectories(directories: readonly Selected[]): void {
    for (const { item, path } of directories.toReversed()) this.#guarded(item, () => this.#finishDirectory(item, path))
  }

  /** There may be millions: those that the archive has left are finished, as Borg does it with each as soon as that. */
  #boundDirectories(current: Buffer): void {
    if (this.#directories.length < (this.#options.maxDirectories ?? standardMaxDirectories)) return
    const isAround = ({ path }: Selected): boolean => isDot(path) || (current.length > path.length && current[path.length] === slash && current.compare(path, 0, path.length, 0, path.length) === 0)
    this.#finishDirectories(this.#directories.filter(directory => !isAround(directory)))
    this.#directories = this.#directories.filter(isAround)
  }

  /** Reads items ahead of their extraction, as far as chunks are wanted, and up to the next large file, or many items without chunks. */
  async *#wanted(items: AsyncGenerator<Item>): AsyncGenerator<WantedChunk> {
    for (let chunkless = 0; chunkless < maxChunkless; ) {
      const { value: item, done } = await items.next()
      if (done) {
        this.#ended = true
        return
      }
      const selected = this.#select(item)
      if (!selected) continue
      const { chunks } = selected
      if (this.#target && chunks && chunks.totalSize >= largeBytes) {
        this.#large = selected
        return
      }
      this.#queue.push(selected)
      if (!chunks || chunks.length === 0) {
        chunkless++
        continue
      }
      chunkless = 0
      yield* chunks
    }
  }

  /** A large file has the byte workers for itself: they write what they decoded. */
  async #extractLarge(): Promise<void> {
    const selected = this.#large
    if (!selected) return
    this.#large = undefined
    const { item } = selected
    this.#announce(selected)
    if (!this.#guarded(item, () => this.#begin(selected))) return
    try {
      this.#written = await this.#reader.writeTo(this.#fd, selected.chunks!, {
        sparse: this.#options.sparse, signal: this.#options.signal,
        passed: bytes => this.#listener.progress?.(this.#total += bytes, item.path),
      })
      this.#guarded(item, () => this.#finishFile(selected))
    } catch (error) {
      this.#guarded(item, () => {
        throw error
      })
    }
    this.closeFile()
  }

  #select(stored: Item): Selected | undefined {
    const { matcher, stripComponents } = this.#options
    const type = stored.mode & typeMask
    const isLink = type !== typeSymlink && stored.source !== undefined
    const path = stripped(stored.path, stripComponents)
    const chosen = matcher.includes(stored.path) && path !== undefined
    // People are told of it as it is called in the target.
    const item = stripComponents > 0 && path !== undefined ? { ...stored, path } : stored
    if (!isLink) {
      // hardlink_master missing (old archives, import-tar): any object may turn out to be one.
      if (item.hardlinkMaster !== false && type !== typeDirectory && type !== typeSymlink) {
        if (chosen && stripComponents === 0) this.#extracted.set(pathHash(stored.path), 0)
        else this.#masters.set(byteString(stored.path), chosen ? { path: path! } : { chunks: item.chunks })
      }
      return chosen ? { item, path: path!, chunks: item.chunks, linkTo: undefined } : undefined
    }
    if (!chosen) return undefined
    const source = item.source!
    if (this.#extracted.has(pathHash(source))) return { item, path: path!, chunks: undefined, linkTo: source }
    const master = this.#masters.get(byteString(source))
    if (master && 'path' in master) return { item, path: path!, chunks: undefined, linkTo: master.path }
    if (!master) {
      this.#listener.warning?.(item.path, `hard link to ${escapedText(source)}, which is not in the archive`)
      return undefined
    }
    // The first selected name takes the content and becomes what the others link to.
    this.#masters.set(byteString(source), { path: path! })
    return { item, path: path!, chunks: master.chunks, linkTo: undefined }
  }

  /** Extracts what waits for no chunk, up to the next that does. */
  #passChunkless(): void {
    while (this.#queue.length > 0) {
      const next = this.#queue[0]!
      if (next.chunks && next.chunks.length > 0) return
      this.#queue.shift()
      this.#announce(next)
      this.#guarded(next.item, () => this.#make(next))
    }
  }

  #announce({ item }: Selected): void {
    this.#listener.item?.(item.path)
    if (item.chunksHealthy) this.#listener.warning?.(item.path, 'File has damaged (all-zero) chunks. Try running borg check --repair.')
  }

  #takeChunk(selected: Selected, plain: Buffer): void {
    if (this.#chunkIndex === 0) {
      this.#announce(selected)
      this.#skipping = !this.#guarded(selected.item, () => this.#begin(selected))
      this.#written = 0
    }
    if (!this.#skipping && !this.#guarded(selected.item, () => this.#write(plain))) this.#skipping = true
    this.#total += plain.length
    this.#listener.progress?.(this.#total, selected.item.path)
    if (++this.#chunkIndex < selected.chunks!.length) return
    this.#chunkIndex = 0
    this.#queue.shift()
    if (!this.#skipping) this.#guarded(selected.item, () => this.#finishFile(selected))
    this.closeFile()
  }

  #begin({ path }: Selected): void {
    if (!this.#target) return
    this.#ensureSafe(path)
    this.#fd = this.#target.createFile(path)
  }

  #write(plain: Buffer): void {
    this.#options.output?.(plain)
    if (this.#fd < 0) return
    if (this.#options.sparse && native().isZero(plain)) {
      this.#written += plain.length
      return
    }
    for (let done = 0; done < plain.length; ) done += writeSync(this.#fd, plain, done, plain.length - done, this.#written + done)
    this.#written += plain.length
  }

  #finishFile({ item }: Selected): void {
    if (this.#fd < 0) return
    if (this.#options.sparse) ftruncateSync(this.#fd, this.#written)
    if (item.size !== undefined && item.source === undefined && item.size !== this.#written) {
      this.#listener.warning?.(item.path, `size inconsistency detected: size ${item.size}, chunks size ${this.#written}`)
    }
    restoreAttributes(item, this.#fd, itself, this.#options, text => this.#listener.warning?.(item.path, text))
  }

  closeFile(): void {
    if (this.#fd >= 0) closeSync(this.#fd)
    this.#fd = -1
  }

  /** Everything that has no content to wait for. */
  #make(selected: Selected): void {
    const { item, path, linkTo } = selected
    const target = this.#target
    if (!target) return
    this.#ensureSafe(path)
    const warn = (text: string): void => this.#listener.warning?.(item.path, text)
    const type = item.mode & typeMask
    if (linkTo) {
      this.#ensureSafe(linkTo)
      target.link(linkTo, path)
      return
    }
    switch (type) {
      case typeDirectory:
        if (!isDot(path)) target.makeDirectory(path)
        this.#boundDirectories(path)
        this.#directories.push(selected)
        return
      case typeFile: {
        const fd = target.createFile(path)
        try {
          restoreAttributes(item, fd, itself, this.#options, warn)
        } finally {
          closeSync(fd)
        }
        return
      }
      case typeSymlink:
        target.symlink(path, item.source ?? Buffer.alloc(0))
        break
      case typeFifo: case typeCharDevice: case typeBlockDevice:
        target.makeNode(path, item.mode & (typeMask | 0o600), item.rdev ?? 0)
        break
      default:
        warn(`Unknown archive item type 0o${item.mode.toString(8)}`)
        return
    }
    const { parent, name } = target.at(path)
    restoreAttributes(item, parent, name, this.#options, warn)
  }

  #finishDirectory(item: Item, path: Buffer): void {
    const fd = this.#target!.openDirectory(isDot(path) ? Buffer.from('.') : path)
    try {
      restoreAttributes(item, fd, itself, this.#options, text => this.#listener.warning?.(item.path, text))
    } finally {
      closeSync(fd)
    }
  }

  #ensureSafe(path: Buffer): void {
    if (isHostilePath(path)) throw Object.assign(new Error('its path leads outside of the target'), { code: 'EXDEV', errno: 18 })
  }

  /** Runs a step on the host's files: what fails there is a warning, and the next item is tried. */
  #guarded(item: Item, step: () => void): boolean {
    try {
      step()
      return true
    } catch (error) {
      const code = errnoOf(error)
      if (code === undefined) throw error
      // A full disk will not get better by going on.
      if (saysNoRoom(code)) throw error
      if (code === 'ELOOP' || code === 'ENOTDIR' || code === 'EXDEV') this.#listener.warning?.(item.path, 'not extracted: its path leads through a symlink or outside of the target')
      else this.#listener.warning?.(item.path, this.#complaint(item, error as NodeJS.ErrnoException & { code: string }))
      return false
    }
  }

  /** As Borg words it: the operation has a name where a file is concerned. */
  #complaint(item: Item, error: NodeJS.ErrnoException & { code: string }): string {
    const isLink = item.source !== undefined && (item.mode & typeMask) !== typeSymlink
    const operation = isLink ? 'link: ' : (item.mode & typeMask) !== typeFile ? '' : error.syscall === 'mkdirat' ? 'makedirs: ' : error.syscall === 'write' ? 'write: ' : 'open: '
    return `${operation}${errorText({ code: error.code, errno: error.errno ?? 5 })}: '${this.#folder}/${shownText(item.path)}'`
  }
}

function pathHash(path: Buffer): Buffer {
  return blake2b256(noBytes, path)
}

function isDot(path: Buffer): boolean {
  return path.length === 1 && path[0] === 0x2e
}

/** Without the first `count` components; undefined if nothing is left. */
export function stripped(path: Buffer, count: number): Buffer | undefined {
  if (count === 0) return path
  const rest = path.toString('latin1').split('/').slice(count).join('/')
  return rest === '' ? undefined : bytesOf(rest)
}
