/** What an archive refers to is given back: counted down in the chunks index, and deleted where nothing refers to it any more. */
import type { ArchiveInfo } from '../archive/manifest.js'
import { collectReferences } from '../cache/archive-references.js'
import type { ChunkIndex } from '../cache/chunk-index.js'
import { BorgError } from '../errors.js'
import { idHex } from '../ids.js'
import type { LocalRepository } from '../repository/local-repository.js'
import type { Transaction } from '../repository/repository.js'
import type { ChunkReader } from '../store/chunk-reader.js'
import type { OpenedRepository } from './open.js'

/**
 * Reads the archive's items: what another index says of them is not believed where chunks are deleted by it. The manifest entry
 * is the caller's. Errors of damaged metadata; a sentence if the index does not know a chunk.
 */
export async function releaseArchive(info: ArchiveInfo, opened: OpenedRepository<LocalRepository>, reader: ChunkReader, index: ChunkIndex, tx: Transaction): Promise<void> {
  const { index: own } = await collectReferences(info, opened, reader)
  for (const { id, bucket } of own.table.entries()) {
    const known = index.refcount(id)
    const count = own.table.value(bucket, 0)
    if (known < count) throw new BorgError('Error', `Chunk ID ${idHex(id)} missing from chunks index, corrupted chunks index - aborting transaction.`)
    let left = known
    for (let released = 0; released < count; released++) left = index.release(id)
    if (left > 0) continue
    index.remove(id)
    // A chunk that was lost before cannot be lost now.
    if (opened.repository.has(id)) await tx.delete(id)
  }
}
