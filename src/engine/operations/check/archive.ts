/** One archive: its metadata object, its item stream with whatever gaps, the chunks of its items (archive.md §10, steps 4 to 6). */
import { type ArchiveMetadata, decodeMetadata } from '../../archive/archive-metadata.js'
import { ArchiveDamaged } from '../../archive/errors.js'
import type { Item } from '../../archive/item.js'
import type { ArchiveInfo } from '../../archive/manifest.js'
import { BorgError, IntegrityError } from '../../errors.js'
import { type ChunkId, idHex, idKey } from '../../ids.js'
import { unpackMap } from '../../msgpack.js'
import { bytesOf, shownText } from '../../text.js'
import { countSoundChunks, mendChunks, settleSizes } from './file-chunks.js'
import { damageText } from './finding.js'
import { readObject, type ScannedObject, scanObjects } from './object-scan.js'
import { RobustItems } from './robust-items.js'
import type { CheckState } from './state.js'

/** Item streams of more chunks than this are worth worker threads. */
const chunksWorthWorkers = 24

/**
 * Tells what is wrong with an archive, counts its references as they are after a repair, and plans that. `itemKeys`: those that the
 * manifest allows. BorgError for metadata of an unknown version: such an archive must not be touched.
 */
export async function examineArchive(state: CheckState, info: ArchiveInfo, itemKeys: ReadonlySet<string>): Promise<void> {
  const { known, plan } = state
  const metadata = await examineMetadata(state, info)
  if (!metadata) {
    plan.removals.add(info.name)
    plan.superseded.add(idKey(info.id))
    return
  }
  for await (const item of soundItems(state, metadata, itemKeys, info.name)) {
    if (!item.chunks || countSoundChunks(state, item)) continue
    const mended = mendChunks(state, item, await settleSizes(state, item), info.name)
    if (!mended) continue
    const facts = state.rewriteOf(info.name)
    if (mended.zeroed) facts.filesZeroed++
    if (mended.healed) facts.filesHealed++
    if (mended.corrected) facts.listsCorrected++
  }
  if (plan.rewrites.has(info.name)) {
    for (const id of [info.id, ...metadata.items]) plan.superseded.add(idKey(id))
  } else for (const id of [info.id, ...metadata.items]) if (known.has(id)) known.referTo(id, 0, 0)
}

/** The metadata if it is there and sound; its plaintext's size is known then. */
async function examineMetadata(state: CheckState, info: ArchiveInfo): Promise<ArchiveMetadata | undefined> {
  const about = { kind: 'archive', archive: info.name } as const
  const repair = 'the archive is removed from the manifest'
  if (!state.known.has(info.id)) {
    state.report({ severity: 'error', about, message: `Archive metadata block ${idHex(info.id)} is missing!`, repair })
    return undefined
  }
  const found = await readMetadata(state, info)
  if (found instanceof BorgError) {
    state.report({ severity: 'error', about, message: `Archive metadata block ${idHex(info.id)} is corrupted: ${damageText(found)}`, repair })
    return undefined
  }
  const required = state.context.key.tamRequired
  if (found.tam === 'wrong' || found.tam === 'unsupported' || (found.tam === 'absent' && required)) {
    // Borg 1.2.4 itself leaves such archives behind when it renames or recreates: no error, and no reason to take one away.
    state.report({ severity: 'warning', about, message: `Archive ${shownText(bytesOf(info.name))}: its authentication ${found.tam === 'absent' ? 'is missing' : 'does not verify'}. Borg 1.2.5 and later do not accept it.` })
  }
  return found
}

/** An error stands for damage. BorgError is thrown for an unknown version. */
export async function readMetadata(state: CheckState, info: ArchiveInfo): Promise<ArchiveMetadata | BorgError> {
  const found = await readObject(state.context, info.id)
  if (!('plain' in found)) return found.error
  state.known.setSize(info.id, found.plain.length)
  try {
    return decodeMetadata(found.plain, state.context.key, info.name)
  } catch (error) {
    if (!(error instanceof ArchiveDamaged) && !(error instanceof IntegrityError)) throw error
    if (hasOtherVersion(found.plain)) throw new BorgError('Error', `Unknown archive metadata version of archive ${shownText(bytesOf(info.name))}. A newer program is needed to check this repository.`)
    return error
  }
}

function hasOtherVersion(plain: Buffer): boolean {
  try {
    const version = unpackMap(plain).get('version')
    return typeof version === 'number' && version !== 1
  } catch {
    return false
  }
}

/**
 * The items that can be had. With `archive` (byte string) each loss is told and noted in the plan; without, nothing is told, and the
 * items are the same: what did not open the first time counts as missing since.
 */
export async function* soundItems(state: CheckState, metadata: ArchiveMetadata, itemKeys: ReadonlySet<string>, archive?: string): AsyncGenerator<Item> {
  const robust = new RobustItems(itemKeys)
  const tell = (text: string, id: ChunkId, index: number): void => {
    if (archive === undefined) return
    const message = `${text} [chunk: ${String(index).padStart(6, '0')}_${idHex(id)}]`
    state.report({ severity: 'error', about: { kind: 'archive', archive }, message, repair: 'the archive is written anew without what is lost' })
    state.rewriteOf(archive).itemsLost++
  }
  const { items } = metadata
  const present = items.map(id => state.known.has(id))
  let index = 0
  const passMissing = (): void => {
    for (; index < items.length && !present[index]; index++) {
      tell('item metadata chunk missing', items[index]!, index)
      robust.gap()
    }
  }
  for await (const { id, plain, failure } of streamChunks(state, items.filter((_, at) => present[at]))) {
    passMissing()
    if (failure && !failure.onlyOnce) {
      tell(damageText(failure.error), id, index)
      // Another archive may have to do without it as well; whoever counted it had read it.
      if (!state.known.isReferredTo(id)) state.giveUp(id)
      robust.gap()
    } else {
      state.known.setSize(id, plain!.length)
      for (const event of robust.feed(plain!)) {
        if (event.kind === 'item') yield event.item
        else if (event.kind === 'invalid') tell(`Did not get expected metadata dict when unpacking item metadata (${event.reason})`, id, index)
        else tell('Unpacker crashed while unpacking item metadata, trying to resync...', id, index)
      }
    }
    index++
  }
  passMissing()
  if (robust.endsEarly()) tell('The item metadata ends within an item', items.at(-1)!, items.length - 1)
}

async function* streamChunks(state: CheckState, ids: readonly ChunkId[]): AsyncGenerator<ScannedObject> {
  if (ids.length > chunksWorthWorkers) {
    for await (const batch of scanObjects(state.context, ids, { keep: 'all', checkCrc: false, signal: state.context.signal })) yield* batch
    return
  }
  for (const id of ids) {
    // Signals and other threads have their turn in between.
    await new Promise(resolve => setImmediate(resolve))
    const found = await readObject(state.context, id)
    yield 'plain' in found ? { id, size: found.plain.length, plain: found.plain, failure: undefined } : { id, size: 0, plain: undefined, failure: found }
  }
}

/** A second look at an archive that seemed sound, when chunks turned out to have other sizes than their first reference said. */
export async function findWrongSizes(state: CheckState, info: ArchiveInfo, itemKeys: ReadonlySet<string>): Promise<void> {
  const metadata = await readMetadata(state, info)
  if (metadata instanceof BorgError) return
  for await (const item of soundItems(state, metadata, itemKeys)) {
    for (const list of [item.chunks, item.chunksHealthy]) {
      for (let index = 0; list && index < list.length; index++) {
        const id = list.id(index)
        if (!state.wrongSizes.has(idKey(id)) || state.known.size(id) === list.size(index)) continue
        state.report({
          severity: 'error', about: { kind: 'item', archive: info.name, path: item.path },
          message: `${shownText(bytesOf(info.name))}: ${shownText(item.path)}: Chunk ${idHex(id)} has ${state.known.size(id)} bytes, but the item says ${list.size(index)}.`,
          repair: 'the size in the item is corrected',
        })
        state.rewriteOf(info.name).listsCorrected++
      }
    }
  }
  if (!state.plan.rewrites.has(info.name)) return
  for (const id of [info.id, ...metadata.items]) {
    state.known.release(id)
    state.plan.superseded.add(idKey(id))
  }
}
