/**
 * Does what was planned, in one transaction: whoever is killed in it, or whose disk is full, has the repository as it was. First
 * what is damaged goes, so that it can be stored again; then come zero chunks, archives written anew, and what nobody refers to any
 * more; the manifest, which makes all that true, is the last entry before the COMMIT.
 */
import { ItemStreamWriter } from '../../archive/item-stream.js'
import type { ArchiveInfo, Manifest } from '../../archive/manifest.js'
import { packWithTam } from '../../crypto/tam.js'
import { maxObjectBytes } from '../../constants.js'
import { BorgError } from '../../errors.js'
import { type ChunkId, idFromKey, idKey } from '../../ids.js'
import { pack, type MsgValue } from '../../msgpack.js'
import type { Transaction } from '../../repository/repository.js'
import { bytesOf, shownText } from '../../text.js'
import { readMetadata, soundItems } from './archive.js'
import { mendChunks, settleSizes } from './file-chunks.js'
import type { CheckState } from './state.js'

/** Objects that nothing refers to, apart from the manifest. */
export interface Unused {
  readonly orphaned: number
  readonly superseded: number
}

export function countUnused(state: CheckState): Unused {
  let orphaned = 0, superseded = 0
  for (const id of state.known.unused()) {
    if (state.plan.superseded.has(idKey(id))) superseded++
    else orphaned++
  }
  return { orphaned, superseded }
}

/** `deleteUnused`: all archives were examined, so what has no reference is nobody's. `committing` is called before the COMMIT. */
export async function repairArchives(state: CheckState, manifest: Manifest, options: { deleteUnused: boolean; committing: () => void }): Promise<void> {
  const { repository, objects } = state.context
  const { plan } = state
  const before = new Map(manifest.archives)
  try {
    await repository.transaction(async tx => {
      for (const id of plan.defects.values()) if (repository.has(id)) await tx.delete(id)
      for (const [id, size] of plan.zeroChunks) await store(state, tx, idFromKey(id), Buffer.alloc(size))
      for (const name of plan.removals) manifest.archives.delete(name)
      for (const name of plan.rewrites.keys()) {
        const info = manifest.get(name)
        manifest.archives.set(name, await rewriteArchive(state, tx, info, manifest.itemKeys))
      }
      if (options.deleteUnused) await deleteUnused(state, tx)
      state.say('info', 'Writing Manifest.')
      await manifest.write(tx, objects)
      options.committing()
    })
  } catch (error) {
    manifest.archives.clear()
    for (const [name, info] of before) manifest.archives.set(name, info)
    throw error
  }
}

/** Once stored an object is there for all who want the same bytes. */
async function store(state: CheckState, tx: Transaction, id: ChunkId, plain: Buffer): Promise<void> {
  const { repository, objects } = state.context
  if (repository.has(id)) {
    state.known.setCsize(id, repository.storedSize(id) ?? 0)
    return
  }
  const object = await objects.seal(plain)
  await tx.put(id, object)
  state.known.setCsize(id, object.length)
}

async function rewriteArchive(state: CheckState, tx: Transaction, info: ArchiveInfo, itemKeys: ReadonlySet<string>): Promise<ArchiveInfo> {
  const { key, signal } = state.context
  const metadata = await readMetadata(state, info)
  if (metadata instanceof BorgError) throw metadata
  const ids: ChunkId[] = []
  const add = async (plain: Buffer): Promise<ChunkId> => {
    const id = key.idHash(plain)
    state.known.referTo(id, plain.length, 0)
    await store(state, tx, id, plain)
    return id
  }
  const writer = new ItemStreamWriter(key.chunkSeed, async chunk => void ids.push(await add(chunk)))
  for await (const item of soundItems(state, metadata, itemKeys)) {
    signal?.throwIfAborted()
    const mended = item.chunks && mendChunks(state, item, await settleSizes(state, item))
    if (mended) {
      item.chunks = mended.chunks
      if (mended.healthy) item.chunksHealthy = mended.healthy
      else delete item.chunksHealthy
    }
    const full = writer.add(item)
    if (full) await full
  }
  await writer.flush(true)

  const map = new Map<string, MsgValue>(metadata.map)
  map.set('items', ids)
  // Vouched for anew only if it was before: what did not verify, or nobody vouched for, is not made genuine by a repair.
  const plain = metadata.tam === 'valid' ? packWithTam(map, key, 'archive', saltOf(map)) : pack(map)
  if (plain.length > maxObjectBytes - 64) throw new BorgError('Error', `Archive ${shownText(bytesOf(info.name))} has too many items: its metadata would not fit an object.`)
  return { ...info, id: await add(plain) }
}

function saltOf(map: ReadonlyMap<string, MsgValue>): Buffer | undefined {
  const tam = map.get('tam')
  const salt = tam instanceof Map ? tam.get('salt') : undefined
  return Buffer.isBuffer(salt) ? Buffer.from(salt) : undefined
}

async function deleteUnused(state: CheckState, tx: Transaction): Promise<void> {
  const { repository } = state.context
  const { orphaned, superseded } = countUnused(state)
  if (orphaned + superseded === 0) return
  state.say('info', `Deleting ${orphaned} orphaned and ${superseded} superseded objects...`)
  for (const id of state.known.unused()) if (repository.has(id)) await tx.delete(id)
  state.say('info', 'Finished deleting orphaned/superseded objects.')
}
