/** The metadata object of an archive (archive.md §3). */
import type { ChunkerParams } from '../chunker/chunker.js'
import { chunkerParamsFrom } from '../chunker/params.js'
import type { Key } from '../crypto/key.js'
import { packWithTam, type TamState, unpackWithTam } from '../crypto/tam.js'
import { type ChunkId, chunkId } from '../ids.js'
import { KnownKeys, MsgpackError, MsgReader, type MsgValue, unpackMap } from '../msgpack.js'
import { shownText, bytesOf } from '../text.js'
import { ArchiveDamaged } from './errors.js'

export interface ArchiveStats {
  readonly size: number
  readonly csize: number
  readonly nfiles: number
}

export interface ArchiveMetadata {
  /** Byte string. */
  readonly name: string
  readonly comment: Buffer
  readonly hostname: Buffer
  readonly username: Buffer
  readonly cmdline: readonly Buffer[]
  /** UTC texts as stored; end falls back to start. */
  readonly time: string
  readonly timeEnd: string
  readonly chunkerParams: ChunkerParams | undefined
  /** Missing in archives made before Borg 1.2. */
  readonly stats: ArchiveStats | undefined
  readonly partStats: ArchiveStats | undefined
  readonly items: readonly ChunkId[]
  readonly tam: TamState
  /** Everything as stored, for rewriting. */
  readonly map: ReadonlyMap<string, MsgValue>
}

/**
 * ArchiveDamaged if a needed entry is missing or of the wrong kind. `name`: byte string, for messages. `tam: false`: nobody asks what
 * the tag is worth, and it counts as absent (the object itself was authenticated when it was opened).
 */
export function decodeMetadata(plain: Buffer, key: Key, name: string, options: { tam: boolean } = { tam: true }): ArchiveMetadata {
  const damaged = (detail: string): never => {
    throw new ArchiveDamaged(shownText(bytesOf(name)), detail)
  }
  const { map, tam } = options.tam ? unpackWithTam(plain, key, 'archive') : { map: unpackMap(plain), tam: 'absent' as const }
  if (map.get('version') !== 1) damaged('its version is unknown')
  const raw = (field: string): Buffer | undefined => {
    const value = map.get(field)
    return Buffer.isBuffer(value) ? value : undefined
  }
  const time = raw('time')?.toString('latin1') ?? damaged('time is missing')
  const items = map.get('items')
  if (!Array.isArray(items)) return damaged('items is missing')
  return {
    name: raw('name')?.toString('latin1') ?? damaged('name is missing'),
    comment: raw('comment') ?? Buffer.alloc(0), hostname: raw('hostname') ?? Buffer.alloc(0), username: raw('username') ?? Buffer.alloc(0),
    cmdline: rawArray(map.get('cmdline')),
    time, timeEnd: raw('time_end')?.toString('latin1') ?? time,
    chunkerParams: chunkerParamsFrom(map.get('chunker_params')),
    stats: stats(map, ''), partStats: stats(map, '_parts'),
    items: items.map(id => (Buffer.isBuffer(id) && id.length === 32 ? chunkId(id) : damaged('items has an entry that is no id'))),
    tam, map,
  }
}

function rawArray(value: MsgValue | undefined): Buffer[] {
  return Array.isArray(value) ? value.filter(Buffer.isBuffer) : []
}

/** Borg takes `nfiles` as the sign that all six exist. */
function stats(map: ReadonlyMap<string, MsgValue>, suffix: string): ArchiveStats | undefined {
  if (!map.has('nfiles')) return undefined
  const number = (name: string): number => {
    const value = map.get(name + suffix)
    return typeof value === 'number' ? value : 0
  }
  return { size: number('size'), csize: number('csize'), nfiles: number('nfiles') }
}

/** The little that counting and deleting need: unpacked without the rest, and whatever its tag is worth. */
export interface ArchiveOutline {
  readonly items: readonly ChunkId[]
  /** Missing in archives made before Borg 1.2. */
  readonly stats: ArchiveStats | undefined
  readonly partStats: ArchiveStats | undefined
}

const statsKeys = ['size', 'csize', 'nfiles', 'size_parts', 'csize_parts', 'nfiles_parts']
const outlineKeys = new KnownKeys(['items', 'version', ...statsKeys])

/** ArchiveDamaged. `name`: byte string, for messages. `items: false` leaves them out. */
export function decodeOutline(plain: Buffer, name: string, options: { items: boolean }): ArchiveOutline {
  const numbers = new Map<string, number>()
  let items: ChunkId[] | undefined
  let version = 0
  try {
    const reader = new MsgReader(plain)
    for (let count = reader.mapHeader(); count > 0; count--) {
      const key = reader.key(outlineKeys)
      if (key === 'version') version = reader.number()
      else if (statsKeys.includes(key)) numbers.set(key, reader.number())
      else if (key === 'items' && options.items) {
        items = []
        for (let left = reader.arrayHeader(); left > 0; left--) {
          const id = reader.raw()
          if (id.length !== 32) throw new MsgpackError(`an id of ${id.length} bytes`)
          items.push(chunkId(id))
        }
      } else reader.skip()
    }
  } catch (error) {
    if (!(error instanceof MsgpackError)) throw error
    throw new ArchiveDamaged(shownText(bytesOf(name)), error.message)
  }
  if (version !== 1) throw new ArchiveDamaged(shownText(bytesOf(name)), 'its version is unknown')
  if (options.items && !items) throw new ArchiveDamaged(shownText(bytesOf(name)), 'items is missing')
  const sums = (suffix: string): ArchiveStats | undefined => numbers.has('nfiles')
    ? { size: numbers.get(`size${suffix}`) ?? 0, csize: numbers.get(`csize${suffix}`) ?? 0, nfiles: numbers.get(`nfiles${suffix}`) ?? 0 } : undefined
  return { items: items ?? [], stats: sums(''), partStats: sums('_parts') }
}

/** What a new archive says of itself. Times as stored. */
export interface ArchiveFacts {
  readonly comment: Buffer
  readonly hostname: Buffer
  readonly username: Buffer
  readonly cmdline: readonly Buffer[]
  readonly time: string
  readonly timeEnd: string
  readonly chunkerParams: ChunkerParams
  /** Of an archive that was made from another one: the command line that did so. */
  readonly recreateCmdline?: readonly Buffer[]
  /** Further entries, kept as they were. */
  readonly further?: ReadonlyMap<string, MsgValue>
}

export const noStats: ArchiveStats = { size: 0, csize: 0, nfiles: 0 }

/** Plaintext of the metadata object, with a fresh TAM. `parts`: what part items refer to once more. */
export function encodeMetadata(name: string, facts: ArchiveFacts, statistics: ArchiveStats, items: readonly ChunkId[], key: Key, parts: ArchiveStats = noStats): Buffer {
  const [word, ...numbers] = facts.chunkerParams
  return packWithTam(new Map<string, MsgValue>([
    ['version', 1], ['name', bytesOf(name)], ['comment', facts.comment], ['items', [...items]], ['cmdline', [...facts.cmdline]],
    ['hostname', facts.hostname], ['username', facts.username], ['time', Buffer.from(facts.time)], ['time_end', Buffer.from(facts.timeEnd)],
    ['chunker_params', [Buffer.from(word), ...numbers]],
    ['size', statistics.size], ['csize', statistics.csize], ['nfiles', statistics.nfiles],
    ['size_parts', parts.size], ['csize_parts', parts.csize], ['nfiles_parts', parts.nfiles],
    ...(facts.recreateCmdline ? [['recreate_cmdline', [...facts.recreateCmdline]] satisfies [string, MsgValue]] : []),
    ...(facts.further ?? []),
  ]), key, 'archive')
}

/** Plaintext of the same archive with another name or comment, with a fresh TAM; everything else is kept, unknown entries too. */
export function changedMetadata(metadata: ArchiveMetadata, changes: { readonly name?: string; readonly comment?: Buffer }, key: Key): Buffer {
  const map = new Map(metadata.map)
  if (changes.name !== undefined) map.set('name', bytesOf(changes.name))
  if (changes.comment !== undefined) map.set('comment', changes.comment)
  return packWithTam(map, key, 'archive')
}
