/** Metadata and items of one archive. */
import type { ChunkReader, ReadManyOptions } from '../store/chunk-reader.js'
import type { RepoObjects } from '../store/repo-objects.js'
import type { Repository } from '../repository/repository.js'
import { type ArchiveMetadata, decodeMetadata } from './archive-metadata.js'
import { decodeItems } from './item-stream.js'
import type { Item } from './item.js'
import type { ArchiveInfo } from './manifest.js'

export interface ItemsOptions {
  /** Part items of checkpoints are left out otherwise. */
  readonly parts?: boolean
  /** Reads the stream through worker threads: pays for archives of many items. */
  readonly reader?: ChunkReader
}

export class ArchiveReader {
  readonly info: ArchiveInfo
  readonly metadata: ArchiveMetadata
  readonly #repository: Repository
  readonly #objects: RepoObjects

  private constructor(info: ArchiveInfo, metadata: ArchiveMetadata, repository: Repository, objects: RepoObjects) {
    this.info = info
    this.metadata = metadata
    this.#repository = repository
    this.#objects = objects
  }

  /** ObjectNotFound, IntegrityError, ArchiveDamaged. */
  static async open(info: ArchiveInfo, repository: Repository, objects: RepoObjects): Promise<ArchiveReader> {
    const plain = await objects.parse(info.id, await repository.get(info.id))
    return new ArchiveReader(info, decodeMetadata(plain, objects.key, info.name), repository, objects)
  }

  /** All items in order, streaming. Each stays valid. */
  async *items(options: ItemsOptions = {}): AsyncGenerator<Item> {
    for await (const item of decodeItems(this.stream(options.reader))) {
      if (item.part === undefined || options.parts) yield item
    }
  }

  /** The item stream as it is stored, chunk by chunk. With `borrowed` each is only valid until the next one is asked for. */
  stream(reader?: ChunkReader, options: ReadManyOptions = {}): AsyncGenerator<Buffer> {
    return reader ? reader.getMany(this.metadata.items.map(id => ({ id, size: undefined })), options) : this.#chunks()
  }

  async *#chunks(): AsyncGenerator<Buffer> {
    for (const id of this.metadata.items) yield await this.#objects.parse(id, await this.#repository.get(id))
  }
}
