/** Everything that one archive refers to: its metadata object, the chunks of its item stream, the chunks of its items. */
import { type ArchiveMetadata, decodeMetadata } from '../archive/archive-metadata.js'
import type { ArchiveInfo } from '../archive/manifest.js'
import type { LocalRepository } from '../repository/local-repository.js'
import type { ChunkReader } from '../store/chunk-reader.js'
import type { RepoObjects } from '../store/repo-objects.js'
import { ChunkIndex } from './chunk-index.js'
import { ItemReferences, type ItemSums } from './item-references.js'

export interface ArchiveReferences {
  readonly metadata: ArchiveMetadata
  readonly index: ChunkIndex
  readonly files: ItemSums
  readonly parts: ItemSums
}

/** Costs a pass over the archive's items. ObjectNotFound, IntegrityError, ArchiveDamaged. */
export async function collectReferences(info: ArchiveInfo, opened: { readonly repository: LocalRepository; readonly objects: RepoObjects }, reader: ChunkReader): Promise<ArchiveReferences> {
  const { repository, objects } = opened
  const index = new ChunkIndex()
  const object = await repository.get(info.id)
  const plain = await objects.parse(info.id, object)
  index.add(info.id, plain.length, object.length)
  const metadata = decodeMetadata(plain, objects.key, info.name)
  const references = new ItemReferences((bytes, offset, size, csize) => index.addAt(bytes, offset, size, csize))
  let position = 0
  for await (const chunk of reader.getMany(metadata.items.map(id => ({ id, size: undefined })))) {
    const id = metadata.items[position++]!
    index.add(id, chunk.length, repository.storedSize(id) ?? 0)
    references.feed(chunk)
  }
  references.end()
  index.completeSizes(id => repository.storedSize(id))
  return { metadata, index, files: references.files, parts: references.parts }
}
