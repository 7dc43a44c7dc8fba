/**
 * Everything that must be true of a repository at any moment, looked at without worker threads or locks: what `check
 * --verify-data` of either program would say, and more (nonces, caches).
 */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { ArchiveReader } from '../../src/engine/archive/archive-reader.js'
import { CacheConfig } from '../../src/engine/cache/cache-config.js'
import { readTable } from '../../src/engine/cache/table-file.js'
import { ChunkIndex } from '../../src/engine/cache/chunk-index.js'
import { Passphrases } from '../../src/engine/crypto/passphrase.js'
import { manifestId, type ChunkId } from '../../src/engine/ids.js'
import type { Log } from '../../src/engine/log.js'
import { openRepository, type OpenedRepository } from '../../src/engine/operations/open.js'
import { placesOf } from '../../src/engine/platform/places.js'
import { tagPut } from '../../src/engine/repository/entry.js'
import { finalDigest } from '../../src/engine/repository/integrity.js'
import { LocalRepository } from '../../src/engine/repository/local-repository.js'
import { Segments } from '../../src/engine/repository/segments.js'
import { loadState } from '../../src/engine/repository/state.js'

export interface Audit {
  /** Name -> digest of all items with the contents of their chunks; parts, which depend on when a checkpoint was made, are read only. */
  readonly archives: ReadonlyMap<string, string>
  /** Sentences; empty when all is well. */
  readonly problems: readonly string[]
  /** Pairs of different objects, named by their beginnings, that share values of the counter. */
  readonly reusedNonces: readonly string[]
}

export const silentLog: Log = { write: () => undefined }

export async function openForAudit(path: string, env: NodeJS.ProcessEnv): Promise<OpenedRepository<LocalRepository>> {
  const repository = await LocalRepository.open(path, { lock: 'none', lockWaitMs: 0, log: silentLog })
  const prompt = { ask: () => Promise.resolve(undefined), say: () => undefined, confirm: () => Promise.resolve(true) }
  return openRepository(repository, { places: placesOf(env), passphrases: new Passphrases(env, prompt), questions: prompt, operation: 'read' })
}

/**
 * Throws if the repository cannot be opened, or what an archive refers to cannot be read. Changes nothing there. `knownReuse` are
 * reused nonces that are none of borgfs's doing.
 */
export async function audit(path: string, env: NodeJS.ProcessEnv, scratch: string, knownReuse: ReadonlySet<string> = new Set()): Promise<Audit> {
  const problems: string[] = []
  const opened = await openForAudit(path, env)
  const { repository, manifest, objects } = opened
  // What proves that a COMMIT was lost must never be left by a crash, or such a repository would refuse its writers.
  if (repository.lostCommit) problems.push(`transaction ${repository.lostCommit.transaction} seems to have lost its COMMIT`)
  const archives = new Map<string, string>()
  const references = new Map<string, number>()
  const refer = (id: ChunkId): void => void references.set(id.toString('hex'), (references.get(id.toString('hex')) ?? 0) + 1)
  for (const info of manifest.archives.values()) {
    const hash = createHash('sha256')
    refer(info.id)
    const reader = await ArchiveReader.open(info, repository, objects)
    for (const id of reader.metadata.items) refer(id)
    for await (const item of reader.items({ parts: true })) {
      const { chunks, ...facts } = item
      const part = item.part !== undefined
      if (!part) hash.update(JSON.stringify(facts, (_key, value: unknown) => (typeof value === 'bigint' ? String(value) : value instanceof Map ? [...(value as Map<unknown, unknown>)] : value)))
      for (let index = 0; index < (chunks?.length ?? 0); index++) {
        const id = chunks!.id(index)
        refer(id)
        const plain = await objects.parse(id, await repository.get(id))
        if (plain.length !== chunks!.size(index)) problems.push(`a chunk of ${plain.length} bytes is said to have ${chunks!.size(index)}`)
        if (!part) hash.update(plain)
      }
    }
    archives.set(info.name, hash.digest('hex'))
  }

  const known = new Set<string>()
  for (let after: ChunkId | undefined; ;) {
    const ids = await repository.list(after, 1000)
    for (const id of ids) {
      known.add(id.toString('hex'))
      try {
        await objects.parse(id, await repository.get(id))
      } catch (error) {
        problems.push(`object ${id.toString('hex')}: ${String(error)}`)
      }
    }
    after = ids.at(-1)
    if (!after) break
  }
  for (const id of references.keys()) if (!known.has(id)) problems.push(`${id} is referred to but missing`)
  for (const id of known) if (!references.has(id) && id !== manifestId.toString('hex')) problems.push(`${id} is an orphan`)

  const nonces = await nonceProblems(opened, path)
  problems.push(...await indexProblems(path, scratch), ...nonces.problems, ...cacheProblems(opened, env, references))
  problems.push(...nonces.reused.filter(pair => !knownReuse.has(pair)).map(pair => `nonces are used twice, by ${pair}`))
  await repository.close()
  opened.key.wipe()
  return { archives, problems, reusedNonces: nonces.reused }
}

function segmentsOf(path: string, configured = path): Segments {
  const perDir = /^segments_per_dir = (\d+)$/m.exec(readFileSync(join(configured, 'config'), 'utf8'))
  return new Segments(path, { segmentsPerDir: Number(perDir?.[1] ?? 1000), maxSegmentSize: 1 << 30 })
}

/** The index as loaded (from its files, and the log above) must be the one that the log alone gives. */
async function indexProblems(path: string, scratch: string): Promise<string[]> {
  rmSync(scratch, { recursive: true, force: true })
  mkdirSync(scratch, { recursive: true })
  symlinkSync(join(path, 'data'), join(scratch, 'data'))
  const [first, second] = [segmentsOf(path), segmentsOf(scratch, path)]
  const [loaded, replayed] = [await loadState(path, path, first, silentLog), await loadState(scratch, scratch, second, silentLog)]
  const rows = ({ state: { index } }: typeof loaded): string[] => [...index.entries()].map(({ id, bucket }) => `${id.toString('hex')} ${index.value(bucket, 0)} ${index.value(bucket, 1)}`).sort()
  const [a, b] = [rows(loaded), rows(replayed)]
  first.close()
  second.close()
  rmSync(scratch, { recursive: true, force: true })
  const [inA, inB] = [new Set(a), new Set(b)]
  return [...a.filter(row => !inB.has(row)).map(row => `index only: ${row}`), ...b.filter(row => !inA.has(row)).map(row => `log only: ${row}`)]
}

/** No counter value that was ever used, in a transaction that was lost too, may be given out again. */
async function nonceProblems({ repository, key, security }: OpenedRepository<LocalRepository>, path: string): Promise<{ problems: string[]; reused: string[] }> {
  const reused: string[] = []
  if (!key.encrypted) return { problems: [], reused }
  const free = [await repository.freeNonce(), await security.freeNonce()].reduce<bigint>((most, mark) => (mark !== undefined && mark > most ? mark : most), 0n)
  const segments = segmentsOf(path)
  const problems: string[] = []
  const used: { readonly start: bigint; readonly end: bigint; readonly object: Buffer }[] = []
  for (const segment of segments.folder.numbers()) {
    const bytes = readFileSync(segments.folder.pathOf(segment))
    for (let at = 8, size: number; at + 9 <= bytes.length; at += size) {
      size = bytes.readUInt32LE(at + 4)
      // The torn end of a transaction that was lost.
      if (size < 9 || at + size > bytes.length || crc32(bytes.subarray(at + 4, at + size)) !== bytes.readUInt32LE(at)) break
      if (bytes[at + 8] !== tagPut) continue
      const object = bytes.subarray(at + 41, at + size)
      const start = key.nonceOf(object)
      const end = start + BigInt(Math.ceil((object.length - 41) / 16))
      if (end > free) problems.push(`nonces up to ${end} are used, but ${free} counts as free [segment ${segment}, offset ${at}]`)
      used.push({ start, end, object })
    }
  }
  segments.close()
  used.sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0))
  const name = (object: Buffer): string => object.toString('hex', 25, 41)
  let open: typeof used = []
  for (const each of used) {
    open = open.filter(({ end }) => end > each.start)
    // Compaction copies objects as they are.
    for (const { object } of open) if (!each.object.equals(object)) reused.push([name(object), name(each.object)].sort().join(' and '))
    open.push(each)
  }
  return { problems, reused }
}

/** A chunks index that either program would believe must count right. */
function cacheProblems({ repository, manifest }: OpenedRepository<LocalRepository>, env: NodeJS.ProcessEnv, references: ReadonlyMap<string, number>): string[] {
  const id = repository.id.toString('hex')
  const folder = join(placesOf(env).cache, id)
  if (!existsSync(join(folder, 'config'))) return []
  let index: ChunkIndex
  try {
    const config = CacheConfig.load(join(folder, 'config'), id)
    if (config.manifest !== manifest.id.toString('hex')) return []
    const digest = finalDigest(config.digests('chunks'))
    if (digest === undefined) return []
    index = new ChunkIndex(readTable(join(folder, 'chunks'), 'chunks', 3, digest))
  } catch {
    // Damaged, and known to be.
    return []
  }
  const problems: string[] = []
  const counted = new Map<string, number>()
  for (const { id: chunk, bucket } of index.table.entries()) counted.set(chunk.toString('hex'), index.table.value(bucket, 0))
  for (const [chunk, count] of references) if (counted.get(chunk) !== count) problems.push(`the cache counts ${counted.get(chunk) ?? 0} references to ${chunk}, there are ${count}`)
  for (const chunk of counted.keys()) if (!references.has(chunk)) problems.push(`the cache knows ${chunk}, which nobody refers to`)
  return problems
}

/** In front of a cache without a whole config Borg ends with a traceback: no crash of ours may leave one. */
export function cacheConfigProblems(caches: string): string[] {
  if (!existsSync(caches)) return []
  return readdirSync(caches).filter(name => /^[0-9a-f]{64}$/.test(name)).flatMap(id => {
    try {
      CacheConfig.load(join(caches, id, 'config'), id)
      return []
    } catch (error) {
      return [`the config of the cache cannot be read: ${(error as Error).message}`]
    }
  })
}

/** Leftovers that no later run would clean up. */
export function leftovers(folder: string): string[] {
  return readdirSync(folder, { recursive: true }).map(String).filter(name => /\.tmp$|\.new-|lock\.exclusive\.|lock\.roster$|lock\.exclusive$/.test(name))
}
