/** The metadata object of an archive (archive.md §3). */
import type { ChunkerParams } from '../chunker/chunker.js'
import { chunkerParamsFrom } from '../chunker/params.js'
import type { Key } from '../crypto/key.js'
import { packWithTam, type TamState, unpackWithTam } from '../crypto/tam.js'
import { type ChunkId, chunkId } from '../ids.js'
import type { MsgValue } from '../msgpack.js'
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

/** ArchiveDamaged if a needed entry is missing or of the wrong kind. `name`: byte string, for messages. */
export function decodeMetadata(plain: Buffer, key: Key, name: string): ArchiveMetadata {
  const damaged = (detail: string): never => {
    throw new ArchiveDamaged(shownText(bytesOf(name)), detail)
  }
  const { map, tam } = unpackWithTam(plain, key, 'archive')
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
