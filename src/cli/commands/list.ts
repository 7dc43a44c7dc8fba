/** `list` (commands.md, output.md §1, §2). */
import { type ArchiveMetadata, decodeMetadata } from '../../engine/archive/archive-metadata.js'
import { ArchiveReader } from '../../engine/archive/archive-reader.js'
import type { Item } from '../../engine/archive/item.js'
import { type ArchiveInfo, hexOf } from '../../engine/archive/manifest.js'
import { parseTimestamp } from '../../engine/archive/timestamps.js'
import { BorgError } from '../../engine/errors.js'
import type { ChunkIndex } from '../../engine/cache/chunk-index.js'
import { readMetadataObjects } from '../../engine/operations/archive-outlines.js'
import type { OpenedRepository } from '../../engine/operations/open.js'
import type { LocalRepository } from '../../engine/repository/local-repository.js'
import { streamingXxh64 } from '../../engine/repository/integrity.js'
import { ChunkReader } from '../../engine/store/chunk-reader.js'
import { Workers } from '../../engine/store/workers.js'
import { bytesOf, shownByteString, shownText } from '../../engine/text.js'
import type { Command } from '../command.js'
import { archiveName, type CommandContext, loadMatcher, selectArchives } from '../context.js'
import { type FormatValue, RowFormat } from '../output/format.js'
import { ContentHashes, contentKeys, itemJsonValue, itemRowKeys, itemValue, type RowContext, uniqueKeys } from '../output/item-row.js'
import { pythonJson } from '../output/log.js'
import { syncListener } from '../output/progress.js'
import { print } from '../output/stdout.js'
import { printJson, repositoryJson, wholeSeconds } from '../output/summary.js'
import { shellQuoted } from './info.js'

/** Item streams of more chunks than this are worth worker threads. */
const chunksWorthWorkers = 24

export const list: Command = async context => {
  const location = context.location('either')
  if (location.archive === undefined) {
    if (context.flag('json-lines')) throw new BorgError('CommandError', 'The --json-lines option is only valid for listing archive contents, not archives.', 4)
    await listArchives(context, await context.open(location, 'shared', 'read'))
  } else {
    if (context.flag('json')) throw new BorgError('CommandError', 'The --json option is only valid for listing archives, not archive contents.', 4)
    await listItems(context, await context.open(location, 'shared', 'read'), archiveName(location.archive))
  }
}

const metadataKeys = new Set(['end', 'command_line', 'hostname', 'username', 'comment', 'bcomment', 'tam'])
const archiveKeys = new Set(['archive', 'name', 'barchive', 'id', 'start', 'time', ...metadataKeys])

async function listArchives(context: CommandContext, opened: OpenedRepository<LocalRepository>): Promise<void> {
  const format = new RowFormat(context.text('format') ?? (context.flag('short') ? '{archive}{NL}' : '{archive:<36} {time} [{id}]{NL}'))
  format.check(archiveKeys)
  const needsMetadata = [...format.keys].some(key => metadataKeys.has(key))
  const rows: Record<string, unknown>[] = []
  const found = visible(context, await selectArchives(context, opened.manifest.archives.values(), { hideCheckpoints: false }))
  const json = context.flag('json')
  const text = json ? undefined : format.rows(archiveValue)
  const tell = (info: ArchiveInfo, metadata?: ArchiveMetadata): void => {
    if (text) return print(text({ info, metadata }))
    const name = shownByteString(info.name)
    const row: Record<string, unknown> = { archive: name, barchive: name, id: hexOf(info), name, start: wholeSeconds(info.time), time: wholeSeconds(info.time) }
    for (const key of format.keys) {
      if (!metadataKeys.has(key)) continue
      row[key] = key === 'end' ? wholeSeconds(metadata!.timeEnd) : key === 'command_line' ? metadata!.cmdline.map(shownText) : archiveValue(key)({ info, metadata })
    }
    rows.push(row)
  }
  if (needsMetadata) for await (const [info, metadata] of withMetadata(context, found, opened, format.keys.has('tam'))) tell(info, metadata)
  else for (const info of found) tell(info)
  if (json) printJson({ archives: rows, ...repositoryJson(opened) })
}

interface ArchiveRow {
  readonly info: ArchiveInfo
  /** There if one of metadataKeys is asked for. */
  readonly metadata: ArchiveMetadata | undefined
}

function archiveValue(key: string): (row: ArchiveRow) => FormatValue {
  switch (key) {
    case 'id': return ({ info }) => hexOf(info)
    case 'start': case 'time': return ({ info }) => wholeSecond(info.time)
    case 'end': return ({ metadata }) => wholeSecond(metadata!.timeEnd)
    case 'command_line': return ({ metadata }) => metadata!.cmdline.map(word => shellQuoted(shownText(word))).join(' ')
    case 'hostname': return ({ metadata }) => shownText(metadata!.hostname)
    case 'username': return ({ metadata }) => shownText(metadata!.username)
    case 'comment': case 'bcomment': return ({ metadata }) => shownText(metadata!.comment)
    case 'tam': return ({ metadata }) => (metadata!.tam === 'valid' ? 'verified' : 'none')
  }
  return ({ info }) => shownByteString(info.name)
}

/** Borg's formats have no fractions of archive times. */
function wholeSecond(stored: string): FormatValue {
  return { micros: Math.floor((parseTimestamp(stored) ?? 0) / 1e6) * 1e6 }
}

async function* withMetadata(context: CommandContext, infos: readonly ArchiveInfo[], opened: OpenedRepository<LocalRepository>, tam: boolean): AsyncGenerator<readonly [ArchiveInfo, ArchiveMetadata]> {
  const workers = new Workers({ key: opened.key })
  context.atEnd(() => workers.close())
  for await (const [info, plain] of readMetadataObjects(infos, opened, workers)) {
    if (plain instanceof BorgError) throw plain
    yield [info, decodeMetadata(plain, opened.key, info.name, { tam })]
  }
}

/** list hides every name that contains `.checkpoint`. */
function visible(context: CommandContext, archives: readonly ArchiveInfo[]): readonly ArchiveInfo[] {
  return context.flag('consider-checkpoints') ? archives : archives.filter(({ name }) => !name.includes('.checkpoint'))
}

async function listItems(context: CommandContext, opened: OpenedRepository<LocalRepository>, name: string): Promise<void> {
  const info = opened.manifest.get(name)
  const { matcher } = await loadMatcher(context, context.positional('paths'))
  const jsonLines = context.flag('json-lines')
  const format = new RowFormat(context.text('format') ?? (context.flag('short') ? '{path}{NL}' : '{mode} {user:6} {group:6} {size:8} {mtime} {path}{extra}{NL}'))
  if (!jsonLines) format.check(itemRowKeys)
  const archive = await ArchiveReader.open(info, opened.repository, opened.objects)
  const hashKeys = [...format.keys].filter(key => contentKeys.has(key))
  const counted = [...format.keys].some(key => uniqueKeys.has(key))
  let reader: ChunkReader | undefined
  let chunks: ChunkIndex | undefined
  if (counted) {
    const { workers, cache } = await context.openCache(opened)
    chunks = await cache.sync(workers, syncListener(context))
    reader = new ChunkReader(opened.repository, workers)
  } else if (archive.metadata.items.length > chunksWorthWorkers || hashKeys.length > 0) {
    const workers = new Workers({ key: opened.key })
    context.atEnd(() => workers.close())
    reader = new ChunkReader(opened.repository, workers)
  }
  const base = { archiveId: info.id.toString('hex'), archiveName: shownText(bytesOf(info.name)), ...(chunks ? { chunks } : {}) }
  const extraKeys = [...format.keys].filter(key => itemRowKeys.has(key) && !jsonAlways.has(key) && !jsonNever.has(key))

  for await (const item of archive.items({ parts: context.flag('consider-part-files'), ...(reader ? { reader } : {}) })) {
    if (!matcher.includes(item.path)) continue
    const row: RowContext = { ...base, content: hashKeys.length > 0 ? await hashContent(item, hashKeys, reader!) : undefined }
    if (jsonLines) print(`${pythonJson(jsonRow(item, extraKeys, row))}\n`)
    else print(format.fill(key => itemValue(item, key, row)))
  }
}

const jsonAlways = new Set(['type', 'mode', 'user', 'group', 'uid', 'gid', 'path', 'source', 'linktarget', 'flags'])
const jsonNever = new Set(['extra', 'health', 'bpath', 'archiveid', 'archivename'])

function jsonRow(item: Item, extraKeys: readonly string[], row: RowContext): Record<string, unknown> {
  const value = (key: string): string | number => itemJsonValue(item, key, row)
  const json: Record<string, unknown> = {
    type: value('type'), mode: value('mode'), user: value('user'), group: value('group'), uid: item.uid, gid: item.gid, path: value('path'),
    healthy: item.chunksHealthy === undefined, source: value('source'), linktarget: value('linktarget'), flags: value('flags'),
  }
  for (const key of extraKeys) json[key] = value(key)
  return json
}

async function hashContent(item: Item, keys: readonly string[], reader: ChunkReader): Promise<Map<string, string> | undefined> {
  if (!item.chunks) return undefined
  const hashes = new ContentHashes(keys, keys.includes('xxh64') ? await streamingXxh64() : undefined)
  for await (const plain of reader.getMany([...item.chunks].map(({ id, size }) => ({ id, size })))) hashes.update(plain)
  return hashes.finish()
}
