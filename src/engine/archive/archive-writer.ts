/** Builds one archive: item stream, statistics, metadata object, manifest entry. */
import { itemsChunkerParams, maxObjectBytes } from '../constants.js'
import { BorgError } from '../errors.js'
import { rowBytes } from './chunk-list.js'
import type { ChunkId } from '../ids.js'
import type { Transaction } from '../repository/repository.js'
import type { ChunkWriter } from '../store/chunk-writer.js'
import type { RepoObjects } from '../store/repo-objects.js'
import { bytesOf, shownText } from '../text.js'
import { type ArchiveFacts, type ArchiveStats, encodeMetadata, noStats } from './archive-metadata.js'
import { ArchiveAlreadyExists } from './errors.js'
import { ItemStreamWriter } from './item-stream.js'
import type { Item } from './item.js'
import { type ArchiveInfo, isValidArchiveName, type Manifest } from './manifest.js'

/** Who counts references; the client's chunks index. */
export interface ReferenceCounter {
  add(id: Uint8Array, size: number, csize: number): void
  /** add for an id that lies in other bytes. */
  addAt(bytes: Uint8Array, offset: number, size: number, csize: number): void
}

const maxItemsChunkBytes = 2 ** itemsChunkerParams[2]

/** Sums that grow. */
type Sums = { -readonly [field in keyof ArchiveStats]: ArchiveStats[field] }

export class ArchiveWriter {
  readonly #writer: ChunkWriter
  readonly #counter: ReferenceCounter | undefined
  readonly #objects: RepoObjects
  readonly #stream: ItemStreamWriter
  readonly #items: Promise<ChunkId>[] = []
  /** For chunks of the item stream on their way to the byte workers; used again and again, and larger than most of them need. */
  readonly #memory: Buffer[] = []
  readonly #files: Sums = { ...noStats }
  /** What part items refer to, beside the whole files. */
  readonly #parts: Sums = { ...noStats }
  #count = 0
  /** Whether the item stream counts among what the files take: Borg's `recreate` stores such sums, its `create` does not. */
  countsItems = false

  /** `counter` is told of every reference that the archive makes, its own objects included. */
  constructor(writer: ChunkWriter, objects: RepoObjects, counter?: ReferenceCounter) {
    this.#writer = writer
    this.#counter = counter
    this.#objects = objects
    this.#stream = new ItemStreamWriter(objects.key.chunkSeed, async chunk => {
      await writer.room()
      const memory = this.#memory.pop() ?? Buffer.from(new SharedArrayBuffer(maxItemsChunkBytes))
      chunk.copy(memory)
      this.#items.push(writer.add(memory.subarray(0, chunk.length), () => this.#memory.push(memory), true).then(({ id, size, csize }) => {
        counter?.add(id, size, csize)
        if (this.countsItems) {
          this.#files.size += size
          this.#files.csize += csize
        }
        return id
      }))
    })
  }

  get stats(): ArchiveStats {
    return { ...this.#files }
  }

  /** Items given so far. */
  get count(): number {
    return this.#count
  }

  /** Items in the order of the archive, complete with their chunks. A promise only now and then, when chunks of the stream are stored. */
  addItem(item: Item): Promise<void> | undefined {
    this.#count++
    if (item.chunks) {
      const counter = this.#counter
      const sums = item.part === undefined ? this.#files : this.#parts
      sums.nfiles++
      const { bytes } = item.chunks
      for (let index = 0; index < item.chunks.length; index++) {
        const [size, csize] = [item.chunks.size(index), item.chunks.csize(index)]
        sums.size += size
        sums.csize += csize
        counter?.addAt(bytes, index * rowBytes, size, csize)
      }
    }
    return this.#stream.add(item)
  }

  /**
   * Stores the rest and the metadata object, and enters the archive into the manifest, which the caller then writes. More items
   * may follow, and another save: that is what a checkpoint is. `replace`: the name is that of an archive which this one stands for.
   */
  async save(name: string, facts: ArchiveFacts, tx: Transaction, manifest: Manifest, options: { replace?: boolean } = {}): Promise<ArchiveInfo> {
    if (!options.replace) ensureNewName(manifest, name)
    await this.#stream.flush(true)
    await this.#writer.drain()
    const items = await Promise.all(this.#items)
    const plain = encodeMetadata(name, facts, this.#files, items, this.#objects.key, this.#parts)
    if (plain.length > maxObjectBytes - 64) throw new BorgError('Error', `Archive ${shownText(bytesOf(name))} has too many items: its metadata would not fit an object.`)
    const id = this.#objects.key.idHash(plain)
    const object = await this.#objects.seal(plain)
    await tx.put(id, object)
    this.#counter?.add(id, plain.length, object.length)
    const info = { name, id, time: facts.time }
    manifest.archives.set(name, info)
    return info
  }
}

/** ArchiveAlreadyExists; BorgError for a name that some Borg could not read. */
export function ensureNewName(manifest: Manifest, name: string): void {
  const bytes = bytesOf(name)
  if (!isValidArchiveName(bytes)) throw new BorgError('CommandError', `Invalid archive name: "${shownText(bytes)}" (1 to 255 bytes without a slash)`, 2)
  if (manifest.archives.has(name)) throw new ArchiveAlreadyExists(shownText(bytes))
}
