/**
 * The chunk lists of an item against what is there (archive.md §10, step 6): a missing chunk gives way to zeros and is remembered
 * in chunks_healthy, one that came back heals the file.
 */
import { ChunkList } from '../../archive/chunk-list.js'
import type { Item } from '../../archive/item.js'
import { type ChunkId, idHex, idKey } from '../../ids.js'
import { bytesOf, shownText } from '../../text.js'
import { readObject } from './object-scan.js'
import type { CheckState } from './state.js'

/** Buckets of the list in hand. */
let buckets = new Uint32Array(1024)

/** The usual case at once: all there, with the sizes that are known. False if a closer look is needed; then nothing was counted. */
export function countSoundChunks(state: CheckState, item: Item): boolean {
  const chunks = item.chunks!
  if (item.chunksHealthy) return false
  const { known } = state
  if (buckets.length < chunks.length) buckets = new Uint32Array(chunks.length * 2)
  let total = 0
  for (let index = 0; index < chunks.length; index++) {
    const bucket = known.find(chunks.id(index))
    if (bucket < 0) return false
    const size = chunks.size(index), knownSize = known.sizeAt(bucket)
    if (size !== knownSize && knownSize !== 0) return false
    buckets[index] = bucket
    total += size
  }
  if (item.size !== undefined && item.size !== total) return false
  for (let index = 0; index < chunks.length; index++) known.refer(buckets[index]!, chunks.size(index), chunks.csize(index))
  return true
}

/** What a repair makes of an item's lists. */
export interface MendedChunks {
  readonly chunks: ChunkList
  readonly healthy: ChunkList | undefined
  readonly zeroed: boolean
  readonly healed: boolean
  readonly corrected: boolean
}

/** Tells which entries disagree in size with the chunks they name, having asked the chunks themselves. */
export async function settleSizes(state: CheckState, item: Item): Promise<ReadonlySet<string>> {
  const wrong = new Set<string>()
  const { known } = state
  for (const list of [item.chunks, item.chunksHealthy]) {
    for (let index = 0; list && index < list.length; index++) {
      const id = list.id(index)
      const size = known.size(id)
      if (size === 0 || size === list.size(index)) continue
      const found = await readObject(state.context, id)
      // A chunk that does not open: which of the two is right is not to be known, and --verify-data is what finds that.
      if (!('plain' in found)) continue
      if (found.plain.length !== size) {
        known.setSize(id, found.plain.length)
        state.wrongSizes.add(idKey(id))
      }
      if (found.plain.length !== list.size(index)) wrong.add(idKey(id))
    }
  }
  return wrong
}

/**
 * Looks at each chunk of an item with chunks. With `archive` (byte string, for messages) what is odd is told and references are
 * counted as they will be after a repair; without, nothing is told or counted, and the answer is the same. Undefined if the lists
 * stay as they are. Zero chunks that are needed are entered in the plan. `wrong`: what settleSizes said of the item.
 */
export function mendChunks(state: CheckState, item: Item, wrong: ReadonlySet<string>, archive?: string): MendedChunks | undefined {
  const { known, plan } = state
  const current = item.chunks!
  const tell = (severity: 'error' | 'warning' | 'info', text: string, repair?: string): void => {
    if (archive === undefined) return
    const message = `${shownText(bytesOf(archive))}: ${shownText(item.path)}: ${text}`
    state.report({ severity, about: { kind: 'item', archive, path: item.path }, message, ...(repair ? { repair } : {}) })
  }
  const refer = (id: ChunkId, size: number, csize: number): void => {
    if (archive !== undefined) known.referTo(id, size, csize)
  }
  const zeros = (size: number): ChunkId => {
    const id = state.zeroId(size)
    if (!known.has(id)) {
      plan.zeroChunks.set(idKey(id), size)
      known.enter(id, size)
    }
    return id
  }

  let healthyList = item.chunksHealthy
  let listRemoved = false
  if (healthyList && healthyList.length !== current.length) {
    tell('warning', 'Invalid chunks_healthy metadata removed!')
    healthyList = undefined
    listRemoved = true
  }
  const mended = new ChunkList(Math.max(1, current.length))
  const healthy = new ChunkList(Math.max(1, current.length))
  let offset = 0
  let changed = listRemoved, zeroed = false, healed = false, corrected = false, whole = true
  for (let index = 0; index < current.length; index++) {
    const wanted = healthyList ?? current
    const id = wanted.id(index), currentId = current.id(index)
    let size = wanted.size(index)
    if (wrong.has(idKey(id)) && known.size(id) !== size) {
      tell('error', `Chunk ${idHex(id)} has ${known.size(id)} bytes, but the item says ${size}.`, 'the size in the item is corrected')
      size = known.size(id)
      corrected = changed = true
    }
    healthy.add(id, size, wanted.csize(index))
    const where = `(Byte ${offset}-${offset + size}, Chunk ${idHex(id)})`
    const replaced = !currentId.equals(id)
    const use = (chosen: ChunkId, csize: number): void => {
      mended.add(chosen, size, csize)
      refer(chosen, size, csize)
    }
    if (known.has(id)) {
      if (replaced) {
        tell('info', `Healed previously missing file chunk! ${where}.`, 'the chunk takes its place again')
        healed = changed = true
      }
      use(id, wanted.csize(index))
    } else if (!replaced) {
      tell('error', `New missing file chunk detected ${where}. Replacing with all-zero chunk.`, 'an all-zero chunk takes its place')
      const zeroId = zeros(size)
      // Zeros that were lost are back as they were.
      if (!zeroId.equals(id)) {
        zeroed = changed = true
        whole = false
      }
      use(zeroId, known.csize(zeroId))
    } else {
      whole = false
      tell('info', `Previously missing file chunk is still missing ${where}. It has an all-zero replacement chunk already.`)
      if (known.has(currentId)) use(currentId, current.csize(index))
      else {
        tell('warning', `Missing all-zero replacement chunk detected (Byte ${offset}-${offset + size}, Chunk ${idHex(currentId)}). Generating new replacement chunk.`, 'an all-zero chunk takes its place')
        if (archive !== undefined) state.problems = true
        const zeroId = zeros(size)
        if (!zeroId.equals(currentId)) zeroed = changed = true
        use(zeroId, known.csize(zeroId))
      }
    }
    offset += size
  }
  if (healthyList && whole) {
    tell('info', 'Completely healed previously damaged file!')
    healed = changed = true
  }
  if (item.size !== undefined && item.size !== mended.totalSize) {
    // Kept as it is, so that extract can warn about it.
    tell('warning', `size inconsistency detected: size ${item.size}, chunks size ${mended.totalSize}`)
  }
  if (!changed) return undefined
  return { chunks: mended, healthy: whole ? undefined : healthy, zeroed, healed, corrected }
}
