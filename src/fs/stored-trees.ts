/**
 * Trees of archives in the client's cache folder (CACHE/ID/borgfs-trees/ARCHIVEID), so that the next mount need not read the archive's
 * items again. An archive never changes under its id, and what may differ between mounts is not in the columns (tree-view.ts). Only a
 * convenience: whatever is wrong with a file, the tree is built anew.
 *
 *   sealed blocks | sealed head | salt 32 | length of the sealed head u32le | magic 8
 *
 * The blocks are the columns one after the other, each in blocks of at most 1 MiB, and the chunk rows last, which are read only when a
 * file is opened. The head (block 0) is JSON: what the tree was made from, the image's layout, the length of each block, the names in the root.
 */
import { randomBytes } from 'node:crypto'
import { closeSync, fstatSync, openSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Key } from '../engine/crypto/key.js'
import { purposeKey } from '../engine/crypto/keys.js'
import { errnoOf, messageOf } from '../engine/errors.js'
import type { Log } from '../engine/log.js'
import { files } from '../engine/platform/files.js'
import { replaceFileLater } from '../engine/platform/save-file.js'
import type { MemoryBlock } from '../engine/store/jobs.js'
import { blocksOf, readInto, roomToSeal, seal, sealBlock, unseal, unsealBlock } from '../engine/store/seal-job.js'
import type { Workers } from '../engine/store/workers.js'
import { type RootListing, rootListingOf } from './root-listing.js'
import { chunkRowBytes } from './tree-columns.js'
import { columnPlace, columnsOf, type ImageColumn, imageColumns, layoutWords, type TreeImage } from './tree-image.js'

export interface StoredTreesOptions {
  readonly folder: string
  readonly key: Key
  readonly workers: Workers
  /** All files together; what was used longest ago goes first. 0: nothing is kept. */
  readonly maxBytes: number
  readonly log: Log
  /** Smaller trees are built as fast as they are opened. */
  readonly minRows?: number
  /** Up to so many bytes are sealed or opened in the thread that asks. */
  readonly inlineBytes?: number
}

const magic = Buffer.from('BFSTREE3')
const saltBytes = 32, tailBytes = saltBytes + 4 + magic.length
const purpose = 'stored tree'
const standardMinRows = 1000
/** What is more than the first is done by the byte workers, in jobs of the second size. */
const standardInlineBytes = 4 << 20, jobBytes = 4 << 20
const maxHeadBytes = 16 << 20
/** Of columns that mostly go up from row to row. */
const rising = new Set<ImageColumn>(['parent', 'nameStart', 'first', 'nextSibling'])

interface Head {
  readonly source: string
  readonly layout: readonly number[]
  readonly lengths: readonly number[]
  readonly root?: RootListing | undefined
}

export class StoredTrees {
  readonly #options: StoredTreesOptions
  /** Files being written, by archive id. */
  readonly #saving = new Map<string, Promise<void>>()

  constructor(options: StoredTreesOptions) {
    this.#options = options
  }

  get inUse(): boolean {
    return this.#options.maxBytes > 0
  }

  /**
   * The columns without chunk rows, undefined if there is no file that can be used. `source` says what the tree is made from: a file
   * that was made from something else is not used.
   */
  open(archive: string, source: string): Promise<TreeImage | undefined> {
    return this.#read(archive, source, async (fd, file) => {
      const image = new SharedArrayBuffer(file.layout[2]!)
      await this.#unseal(fd, file, columnBlocks(file.layout, image), 0)
      return { layout: file.layout, image, chunks: undefined }
    })
  }

  /** The names in the root of the same tree, which are there much sooner; undefined also where there are too many. */
  rootListing(archive: string, source: string): Promise<RootListing | undefined> {
    return this.#read(archive, source, (_fd, { root }) => Promise.resolve(root))
  }

  /** The chunk rows of the same tree. */
  openChunks(archive: string, source: string): Promise<SharedArrayBuffer | undefined> {
    return this.#read(archive, source, async (fd, file) => {
      const chunks = new SharedArrayBuffer(file.layout[1]! * chunkRowBytes)
      await this.#unseal(fd, file, blocksOf(chunks, 0, chunks.byteLength, false), columnBlocks(file.layout, noMemory).length)
      return chunks
    })
  }

  /** Keeps a tree, beside what else goes on. Errors are a line in the log. */
  save(archive: string, source: string, tree: TreeImage): Promise<void> {
    const { maxBytes, minRows = standardMinRows, log } = this.#options
    if (maxBytes === 0 || tree.layout[0]! < minRows || this.#saving.has(archive)) return Promise.resolve()
    const saving = this.#write(archive, source, tree)
      .catch((error: unknown) => log.write('debug', 'borg.fuse', `The tree of archive ${archive} cannot be kept: ${messageOf(error)}`))
      .finally(() => this.#saving.delete(archive))
    this.#saving.set(archive, saving)
    return saving
  }

  /** The same files under another id: renamed, or with another comment. */
  rename(from: string, to: string): void {
    try {
      files.rename(join(this.#options.folder, from), join(this.#options.folder, to))
    } catch (error) {
      this.#debug(`The tree of archive ${from} is not kept`, error)
    }
  }

  /** Removes the trees of archives that are gone, what interrupted runs left, and what is more than `maxBytes`. */
  tidy(archives: ReadonlySet<string>): void {
    const { folder } = this.#options
    try {
      for (const name of readdirSync(folder)) {
        const unfinished = name.endsWith('.tmp')
        // Another mount may be writing it right now.
        const isOld = unfinished && Date.now() - statSync(join(folder, name)).mtimeMs > staleMs
        if (unfinished ? isOld : !archives.has(name)) files.removeIfThere(join(folder, name))
      }
      this.#bound(undefined)
    } catch (error) {
      this.#debug('Trees of archives that are gone cannot be removed', error)
    }
  }

  async #read<T>(archive: string, source: string, read: (fd: number, file: OpenFile) => Promise<T>): Promise<T | undefined> {
    if (!this.inUse) return undefined
    const path = join(this.#options.folder, archive)
    let fd: number | undefined
    try {
      fd = openSync(path, 'r')
      const file = this.#head(fd)
      if (file.source !== source) throw new Error('it was made of another archive')
      const value = await read(fd, file)
      this.#touch(fd)
      return value
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      // The one that is built instead takes its place.
      this.#debug(`The kept tree of archive ${archive} cannot be used`, error)
      return undefined
    } finally {
      if (fd !== undefined) closeSync(fd)
    }
  }

  #head(fd: number): OpenFile {
    const { size } = fstatSync(fd)
    const tail = readAt(fd, size - tailBytes, tailBytes)
    if (!tail.subarray(saltBytes + 4).equals(magic)) throw new Error('it has another format')
    const salt = tail.subarray(0, saltBytes)
    const headBytes = tail.readUInt32LE(saltBytes), blocksEnd = size - tailBytes - headBytes
    if (headBytes > maxHeadBytes || blocksEnd < 0) throw new Error('its head is too long')
    const plain = unsealBlock(purposeKey(this.#options.key, salt, purpose), 0, readAt(fd, blocksEnd, headBytes))
    const head = JSON.parse(plain.toString()) as Head
    if (head.layout.length !== layoutWords) throw new Error('it has another layout')
    const layout = Float64Array.from(head.layout), lengths = Uint32Array.from(head.lengths)
    const positions = new Float64Array(lengths.length + 1)
    for (const [index, length] of lengths.entries()) positions[index + 1] = positions[index]! + length
    if (positions[lengths.length] !== blocksEnd) throw new Error('it has another length')
    return { source: head.source, salt, layout, lengths, positions, root: head.root }
  }

  /** Blocks `first` and following of the file, numbered from 1 as the head is block 0. */
  async #unseal(fd: number, { salt, lengths, positions }: OpenFile, blocks: readonly MemoryBlock[], first: number): Promise<void> {
    const { key, workers, inlineBytes = standardInlineBytes } = this.#options
    const inline = bytesOf(blocks) <= inlineBytes
    const jobs: Promise<void>[] = []
    for (const { start, part } of parts(blocks)) {
      const at = first + start
      const job = { salt, purpose, first: 1 + at, blocks: part, fd, position: positions[at]!, lengths: lengths.slice(at, at + part.length) }
      if (inline) unseal(key, job)
      else jobs.push(workers.unseal(job))
    }
    // The descriptor is closed afterwards: none may still be reading.
    for (const result of await Promise.allSettled(jobs)) if (result.status === 'rejected') throw result.reason
  }

  async #write(archive: string, source: string, tree: TreeImage): Promise<void> {
    const { folder, key, workers, maxBytes, inlineBytes = standardInlineBytes } = this.#options
    const { layout, image, chunks } = tree
    if (!chunks) return
    const salt = randomBytes(saltBytes)
    const blocks = [...columnBlocks(layout, image), ...blocksOf(chunks, 0, chunks.byteLength, false)]
    const inline = bytesOf(blocks) <= inlineBytes && !workers.started
    files.ensureDirectory(folder, 0o700)
    // Not synced: what a crash leaves of it does not unseal, and is built anew.
    await replaceFileLater(join(folder, archive), async fd => {
      const lengths: number[] = []
      let total = 0
      // One job at a time: nobody waits for this, but others may for the workers.
      const fileKey = purposeKey(key, salt, purpose)
      const output = new SharedArrayBuffer(Math.max(0, ...Array.from(parts(blocks), ({ part }) => roomToSeal(fileKey, part))))
      fileKey.wipe()
      for (const { start, part } of parts(blocks)) {
        const job = { salt, purpose, first: 1 + start, blocks: part, output }
        const sealed = inline ? seal(key, job) : await workers.seal(job)
        lengths.push(...sealed.lengths)
        const bytes = sealed.lengths.reduce((sum, length) => sum + length, 0)
        total += bytes
        if (total > maxBytes) throw new Error(`it is larger than ${maxBytes} bytes`)
        files.writeAll(fd, new Uint8Array(output, 0, bytes))
      }
      const head = sealBlock(purposeKey(key, salt, purpose), 0, Buffer.from(JSON.stringify({ source, layout: [...layout], lengths, root: rootListingOf(columnsOf(tree)) } satisfies Head)))
      const headBytes = Buffer.alloc(4)
      headBytes.writeUInt32LE(head.length)
      files.writeAllOf(fd, [head, salt, headBytes, magic])
    }, { mode: 0o600, durable: 'no' })
    this.#bound(archive)
  }

  /** The least recently used go until the rest is small enough. */
  #bound(latest: string | undefined): void {
    const { folder, maxBytes } = this.#options
    const found = readdirSync(folder).filter(name => !name.endsWith('.tmp')).flatMap(name => {
      const stat = statSync(join(folder, name), { throwIfNoEntry: false })
      return stat ? [{ name, size: stat.size, usedMs: name === latest ? Infinity : stat.mtimeMs }] : []
    })
    let total = found.reduce((sum, { size }) => sum + size, 0)
    found.sort((a, b) => a.usedMs - b.usedMs)
    for (const { name, size } of found) {
      if (total <= maxBytes) return
      files.removeIfThere(join(folder, name))
      total -= size
    }
  }

  #touch(fd: number): void {
    try {
      files.touch(fd)
    } catch (error) {
      this.#debug('The use of a kept tree cannot be noted', error)
    }
  }

  #debug(what: string, error: unknown): void {
    if (errnoOf(error) !== 'ENOENT') this.#options.log.write('debug', 'borg.fuse', `${what}: ${messageOf(error)}`)
  }
}

interface OpenFile {
  readonly source: string
  readonly salt: Uint8Array
  readonly layout: Float64Array
  readonly lengths: Uint32Array
  /** Of each block, and the end. */
  readonly positions: Float64Array
  readonly root: RootListing | undefined
}

const noMemory = new SharedArrayBuffer(0)
const staleMs = 3600_000

function columnBlocks(layout: Float64Array, image: SharedArrayBuffer): MemoryBlock[] {
  return (Object.keys(imageColumns) as ImageColumn[]).flatMap(name => blocksOf(image, ...columnPlace(layout, name), rising.has(name)))
}

function bytesOf(blocks: readonly { readonly length: number }[]): number {
  return blocks.reduce((sum, { length }) => sum + length, 0)
}

/** Runs of blocks that are worth a job. */
function* parts(blocks: readonly MemoryBlock[]): Generator<{ start: number; part: readonly MemoryBlock[] }> {
  let start = 0, bytes = 0
  for (const [index, { length }] of blocks.entries()) {
    bytes += length
    if (bytes < jobBytes && index + 1 < blocks.length) continue
    yield { start, part: blocks.slice(start, index + 1) }
    start = index + 1
    bytes = 0
  }
}

function readAt(fd: number, position: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length)
  readInto(fd, position, bytes)
  return bytes
}
