/** Opens many objects on all cores and goes on behind those that are damaged. */
import { BorgError, errnoOf, IntegrityError, messageOf } from '../../errors.js'
import type { ChunkId } from '../../ids.js'
import type { EntryLocation, LocalRepository } from '../../repository/local-repository.js'
import type { SegmentLease } from '../../repository/segment-descriptors.js'
import { openJob } from '../../store/chunk-reader.js'
import type { RepoObjects } from '../../store/repo-objects.js'
import type { Workers } from '../../store/workers.js'

export interface ScannedObject {
  readonly id: ChunkId
  /** Plaintext bytes, 0 for a failed one. */
  readonly size: number
  readonly plain: Buffer | undefined
  readonly failure: ObjectFailure | undefined
}

/** Why an object cannot be had. */
export interface ObjectFailure {
  readonly error: BorgError
  /** The entry itself is missing or its header, CRC or length is wrong; else the object in it does not open. */
  readonly inEntry: boolean
  /** Read a second time it was good: the medium or the memory is not to be trusted. */
  readonly onlyOnce: boolean
}

export interface ScanOptions {
  /** Which plaintexts are given. */
  readonly keep: 'all' | 'none' | 'archives'
  readonly checkCrc: boolean
  readonly signal?: AbortSignal | undefined
}

export interface ScanSource {
  readonly repository: LocalRepository
  readonly objects: RepoObjects
  readonly workers: Workers
}

/** Some chunks of the longest kind each, so that a worker has always some to hash side by side; less where plaintexts come back. */
const batchBytes = 8 << 20, keptBatchBytes = 2 << 20
const batchCount = 256
const maxBatches = 24

/** In the order asked, a batch at a time. A host that cannot read (EIO and the like) is no damage of the repository: that is thrown. */
export async function* scanObjects(source: ScanSource, ids: Iterable<ChunkId>, options: ScanOptions): AsyncGenerator<readonly ScannedObject[]> {
  const limit = Math.min(source.workers.count * 3, maxBatches)
  const groups = grouped(source.repository, ids, options.keep === 'all' ? keptBatchBytes : batchBytes)
  const underWay: Promise<ScannedObject[]>[] = []
  try {
    for (let ended = false; ; ) {
      while (!ended && underWay.length < limit) {
        const { value, done } = groups.next()
        if (done) ended = true
        else {
          const batch = openBatch(source, value, options)
          batch.catch(() => undefined)
          underWay.push(batch)
        }
      }
      const next = underWay.shift()
      if (!next) return
      yield await next
      options.signal?.throwIfAborted()
    }
  } finally {
    await Promise.allSettled(underWay)
  }
}

/** Ids with the places of their entries, where those can be told. */
interface Group {
  readonly ids: ChunkId[]
  readonly places: (EntryLocation | undefined)[]
}

function* grouped(repository: LocalRepository, ids: Iterable<ChunkId>, maxBytes: number): Generator<Group> {
  let group: Group = { ids: [], places: [] }
  let bytes = 0
  for (const id of ids) {
    let place: EntryLocation | undefined
    try {
      place = repository.locate(id)
    } catch (error) {
      if (errnoOf(error) !== undefined && errnoOf(error) !== 'ENOENT') throw error
    }
    if (group.ids.length > 0 && (bytes >= maxBytes || group.ids.length >= batchCount)) {
      yield group
      group = { ids: [], places: [] }
      bytes = 0
    }
    group.ids.push(id)
    group.places.push(place)
    bytes += place?.length ?? 0
  }
  if (group.ids.length > 0) yield group
}

/** The entries of a group, each with its descriptor. One whose file cannot be opened has no place any more. */
function openPlaces({ ids, places }: Group, lease: SegmentLease) {
  const located = []
  for (const [index, place] of places.entries()) {
    if (!place) continue
    try {
      located.push({ ...place, fd: lease.fd(place.segment), chunk: { id: ids[index]!, size: undefined } })
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error
      places[index] = undefined
    }
  }
  return located
}

async function openBatch(source: ScanSource, group: Group, { keep, checkCrc }: ScanOptions): Promise<ScannedObject[]> {
  const { ids, places } = group
  const result = await source.repository.leased(async lease => {
    const located = openPlaces(group, lease)
    return located.length > 0 ? source.workers.open({ ...openJob(located), checkCrc, ...(keep === 'all' ? {} : { keep }) }) : undefined
  })
  const failed = result && result.failures.length > 0 ? new Set(result.failures.map(({ index }) => index)) : undefined
  const kept = keep === 'archives' ? new Set(result?.kept) : undefined
  const scanned: ScannedObject[] = []
  let at = 0
  let number = 0
  for (const [index, id] of ids.entries()) {
    const entry = places[index] ? number++ : -1
    if (!result || entry < 0 || failed?.has(entry)) {
      scanned.push(await readAgain(source, id, entry >= 0))
      continue
    }
    const size = result.lengths[entry]!
    let plain: Buffer | undefined
    if (keep === 'all' || kept?.has(entry)) {
      plain = Buffer.from(result.data.buffer, result.data.byteOffset + at, size)
      at += size
    }
    scanned.push({ id, size, plain, failure: undefined })
  }
  return scanned
}

/** The second look at an object that a worker could not open, with CRC and all. */
async function readAgain(source: ScanSource, id: ChunkId, wasRead: boolean): Promise<ScannedObject> {
  const found = await readObject(source, id)
  if (!('plain' in found)) return { id, size: 0, plain: undefined, failure: found }
  const error = new IntegrityError(`Chunk ${id.toString('hex')}: it could not be read at first, but the second time`)
  return { id, size: found.plain.length, plain: found.plain, failure: { error, inEntry: !wasRead, onlyOnce: true } }
}

/** One object in this thread. Host errors are thrown. */
export async function readObject({ repository, objects }: Pick<ScanSource, 'repository' | 'objects'>, id: ChunkId): Promise<{ readonly plain: Buffer; readonly csize: number } | ObjectFailure> {
  let object: Buffer
  try {
    object = repository.getSync(id)
  } catch (error) {
    return { error: damageOf(error, `Segment of chunk ${id.toString('hex')}`), inEntry: true, onlyOnce: false }
  }
  try {
    return { plain: await objects.parse(id, object), csize: object.length }
  } catch (error) {
    return { error: damageOf(error, `Chunk ${id.toString('hex')}`), inEntry: false, onlyOnce: false }
  }
}

function damageOf(error: unknown, what: string): BorgError {
  if (error instanceof BorgError) return error
  // A segment that is gone is damage; a disk that does not answer is not.
  if (errnoOf(error) === 'ENOENT') return new IntegrityError(`${what} is missing`)
  if (errnoOf(error) !== undefined) throw error
  return new IntegrityError(`${what}: ${messageOf(error)}`)
}
