/**
 * Renaming an archive, or giving it another comment (archive.md §11): a new metadata object with a valid TAM, and the manifest's entry
 * moved with its time. One transaction; items and contents are not touched.
 */
import { changedMetadata, decodeMetadata } from '../archive/archive-metadata.js'
import { ensureNewName } from '../archive/archive-writer.js'
import type { ArchiveInfo } from '../archive/manifest.js'
import type { ClientCache } from '../cache/client-cache.js'
import { maxObjectBytes } from '../constants.js'
import { BorgError } from '../errors.js'
import type { LocalRepository } from '../repository/local-repository.js'
import { bytesOf, shownText } from '../text.js'
import type { OpenedRepository } from './open.js'
import { rememberCommit } from './remember-commit.js'

/**
 * Names are byte strings; exclusive lock held, cache synced. ArchiveDoesNotExist, ArchiveAlreadyExists, a sentence about a name that
 * is no good; errors of damaged metadata. On any throw nothing changed.
 */
export async function renameArchive(opened: OpenedRepository<LocalRepository>, cache: ClientCache, oldName: string, newName: string): Promise<ArchiveInfo> {
  const { manifest } = opened
  const old = manifest.get(oldName)
  ensureNewName(manifest, newName)
  return rewriteMetadata(opened, cache, old, { name: newName })
}

/** As renameArchive. The id of the archive is another one afterwards. */
export async function setComment(opened: OpenedRepository<LocalRepository>, cache: ClientCache, name: string, comment: Buffer): Promise<ArchiveInfo> {
  return rewriteMetadata(opened, cache, opened.manifest.get(name), { comment })
}

async function rewriteMetadata(opened: OpenedRepository<LocalRepository>, cache: ClientCache, old: ArchiveInfo, changes: { readonly name?: string; readonly comment?: Buffer }): Promise<ArchiveInfo> {
  const { repository, manifest, objects, key } = opened
  const index = cache.index
  if (!index) throw new Error('changing an archive needs a synced cache')
  const oldName = old.name, newName = changes.name ?? oldName
  const before = new Map(manifest.archives)
  // Another name may have the same archive, which Borg counts once: from now on these are two, each with references of its own.
  const shared = [...manifest.archives.values()].some(({ name, id }) => name !== oldName && id.equals(old.id))
  let renamed: ArchiveInfo
  try {
    renamed = await repository.transaction(async tx => {
      const metadata = decodeMetadata(await objects.parse(old.id, await repository.get(old.id)), key, oldName)
      const plain = changedMetadata(metadata, changes, key)
      if (plain.length > maxObjectBytes - 64) throw new BorgError('Error', `Archive ${shownText(bytesOf(oldName))} has too many items for a longer ${changes.name === undefined ? 'comment' : 'name'}: its metadata would not fit an object.`)
      const id = key.idHash(plain)
      // The comment that it has already, and no encryption that would make another TAM of it.
      if (id.equals(old.id)) return old
      const object = await objects.seal(plain)
      await tx.put(id, object)
      index.add(id, plain.length, object.length)
      if (!shared && index.release(old.id) === 0) {
        index.remove(old.id)
        await tx.delete(old.id)
      }
      const info = { name: newName, id, time: old.time }
      manifest.archives.delete(oldName)
      manifest.archives.set(newName, info)
      await manifest.write(tx, objects)
      return info
    })
  } catch (error) {
    cache.rollback()
    manifest.archives.clear()
    for (const [name, info] of before) manifest.archives.set(name, info)
    throw error
  }
  rememberCommit(opened)
  if (shared) cache.discard()
  else cache.commit()
  return renamed
}
