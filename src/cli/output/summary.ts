/** What info and --stats say of repositories and archives, as text and as JSON (output.md §4, §5). */
import type { ArchiveInfo } from '../../engine/archive/manifest.js'
import { parseTimestamp } from '../../engine/archive/timestamps.js'
import { keyTypeOf } from '../../engine/crypto/key-types.js'
import type { OpenedRepository } from '../../engine/operations/open.js'
import type { ArchiveNumbers, Statistics } from '../../engine/operations/statistics.js'
import type { LocalRepository } from '../../engine/repository/local-repository.js'
import { bytesOf, shownText } from '../../engine/text.js'
import type { CommandContext } from '../context.js'
import { indentedJson } from './log.js'
import { print } from './stdout.js'
import { formatDuration, formatSize, formatTime, isoTime } from './units.js'

export const dashes = '-'.repeat(78)
type Opened = OpenedRepository<LocalRepository>

export function printJson(value: unknown): void {
  print(`${indentedJson(value)}\n`)
}

/** Keys `repository` and `encryption`. */
export function repositoryJson(opened: Opened): Record<string, unknown> {
  const { key, keyfile, manifest, repository } = opened
  return {
    encryption: { mode: key.mode, ...(keyfile === undefined ? {} : { keyfile }) },
    repository: { id: repository.id.toString('hex'), last_modified: wholeSeconds(manifest.timestamp), location: repository.location },
  }
}

/** Key `cache`. */
export function cacheJson(folder: string, statistics: Statistics): Record<string, unknown> {
  return {
    cache: {
      path: folder,
      stats: {
        total_chunks: statistics.totalChunks, total_csize: statistics.totalCsize, total_size: statistics.totalSize,
        total_unique_chunks: statistics.uniqueChunks, unique_csize: statistics.uniqueCsize, unique_size: statistics.uniqueSize,
      },
    },
  }
}

export function archiveJson(info: ArchiveInfo, numbers: ArchiveNumbers, options: { duration?: number; full?: boolean }): Record<string, unknown> {
  const { metadata, stats } = numbers
  return {
    command_line: metadata.cmdline.map(shownText), duration: options.duration ?? durationOf(metadata.time, metadata.timeEnd),
    end: wholeSeconds(metadata.timeEnd), id: info.id.toString('hex'), limits: { max_archive_size: numbers.utilization }, name: shownText(bytesOf(info.name)),
    start: wholeSeconds(metadata.time),
    stats: { compressed_size: stats.csize, deduplicated_size: numbers.deduplicatedSize, nfiles: stats.nfiles, original_size: stats.size },
    ...(options.full ? {
      chunker_params: metadata.chunkerParams ?? null, comment: shownText(metadata.comment), hostname: shownText(metadata.hostname), username: shownText(metadata.username),
    } : {}),
  }
}

/** JSON times of archives end `.000000`. */
export function wholeSeconds(stored: string): string {
  const micros = parseTimestamp(stored) ?? 0
  return isoTime(Math.floor(micros / 1e6) * 1e6)
}

export function durationOf(start: string, end: string): number {
  return ((parseTimestamp(end) ?? 0) - (parseTimestamp(start) ?? 0)) / 1e6
}

export function encryptedText(opened: Opened): string {
  const type = keyTypeOf(opened.key.type)!
  // As Borg says it, authenticated BLAKE2b included.
  return type.mode === 'none' || type.mode === 'authenticated' ? 'No' : `Yes (${type.displayName})`
}

function row(label: string, ...values: string[]): string {
  return label.padEnd(15) + values.map(value => ` ${value.padStart(20)}`).join('')
}

export function statsRow(context: CommandContext, label: string, ...bytes: number[]): string {
  return row(label, ...bytes.map(value => formatSize(value, { iec: context.iec })))
}

/** Of a repository whose other archives are not known. */
export type PartialStatistics = Pick<Statistics, 'uniqueChunks'>

export function tableLines(context: CommandContext, statistics: Statistics | PartialStatistics, archiveRow: { size: number; csize: number; deduplicated: number } | undefined): string[] {
  const unknown = 'unknown'
  const complete = 'totalSize' in statistics
  return [
    dashes,
    '                       Original size      Compressed size    Deduplicated size',
    ...(archiveRow ? [statsRow(context, 'This archive:', archiveRow.size, archiveRow.csize, archiveRow.deduplicated)] : []),
    complete ? statsRow(context, 'All archives:', statistics.totalSize, statistics.totalCsize, statistics.uniqueCsize) : row('All archives:', unknown, unknown, unknown),
    '',
    '                       Unique chunks         Total chunks',
    row('Chunk index:', String(statistics.uniqueChunks), complete ? String(statistics.totalChunks) : unknown),
  ]
}

export function statsBlock(opened: Opened, info: ArchiveInfo, statistics: Statistics | PartialStatistics, numbers: ArchiveNumbers, context: CommandContext, duration: number): string[] {
  const { metadata, utilization, stats, deduplicatedSize } = numbers
  return [
    dashes,
    `Repository: ${opened.repository.location}`,
    `Archive name: ${shownText(bytesOf(info.name))}`,
    `Archive fingerprint: ${info.id.toString('hex')}`,
    `Time (start): ${archiveTime(metadata.time)}`,
    `Time (end):   ${archiveTime(metadata.timeEnd)}`,
    `Duration: ${formatDuration(duration)}`,
    `Number of files: ${stats.nfiles}`,
    `Utilization of max. archive size: ${Math.round(utilization * 100)}%`,
    ...tableLines(context, statistics, { size: stats.size, csize: stats.csize, deduplicated: deduplicatedSize }),
    dashes,
  ]
}

/** Name, time and id of an archive as delete and prune list it. */
export function archiveLine(info: ArchiveInfo): string {
  return `${shownText(bytesOf(info.name)).padEnd(36)} ${archiveTime(info.time)} [${info.id.toString('hex')}]`
}

export function archiveTime(stored: string): string {
  return formatTime(parseTimestamp(stored) ?? 0)
}
