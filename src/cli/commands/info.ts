/** `info` (commands.md, output.md §4). */
import type { ArchiveInfo } from '../../engine/archive/manifest.js'
import { collectArchiveNumbers, collectStatistics } from '../../engine/operations/statistics.js'
import { bytesOf, shownText } from '../../engine/text.js'
import type { Command } from '../command.js'
import { archiveName, choosesArchives, selectArchives } from '../context.js'
import { syncListener } from '../output/progress.js'
import { print } from '../output/stdout.js'
import { archiveJson, archiveTime, cacheJson, durationOf, encryptedText, printJson, repositoryJson, tableLines } from '../output/summary.js'
import { formatDuration } from '../output/units.js'

export const info: Command = async context => {
  const location = context.location('either')
  const opened = await context.open(location, 'shared', 'read')
  const { workers, cache } = await context.openCache(opened)
  await cache.sync(workers, syncListener(context))
  const source = { opened, workers, cache, considerParts: context.flag('consider-part-files') }
  const filtered = choosesArchives(context)
  let wanted: ArchiveInfo[] | undefined
  if (location.archive !== undefined) wanted = [opened.manifest.get(archiveName(location.archive))]
  else if (filtered) wanted = await selectArchives(context, opened.manifest.archives.values(), { hideCheckpoints: false })

  const statistics = await collectStatistics(source)
  if (wanted === undefined) {
    if (context.flag('json')) {
      printJson({ ...repositoryJson(opened), ...cacheJson(cache.folder, statistics), security_dir: opened.security.path })
      return
    }
    const lines = [
      `Repository ID: ${opened.repository.id.toString('hex')}`, `Location: ${opened.repository.location}`, `Encrypted: ${encryptedText(opened)}`,
      ...(opened.keyfile === undefined ? [] : [`Key file: ${opened.keyfile}`]), `Cache: ${cache.folder}`, `Security dir: ${opened.security.path}`,
      ...tableLines(context, statistics, undefined),
    ]
    print(`${lines.join('\n')}\n`)
    return
  }
  const rows: Record<string, unknown>[] = []
  let first = true
  for await (const [archive, numbers] of collectArchiveNumbers(wanted, source)) {
    if (context.flag('json')) {
      rows.push(archiveJson(archive, numbers, { full: true }))
      continue
    }
    const { metadata, stats, deduplicatedSize, utilization } = numbers
    const lines = [
      `Archive name: ${shownText(bytesOf(archive.name))}`, `Archive fingerprint: ${archive.id.toString('hex')}`, `Comment: ${shownText(metadata.comment)}`,
      `Hostname: ${shownText(metadata.hostname)}`, `Username: ${shownText(metadata.username)}`,
      `Time (start): ${archiveTime(metadata.time)}`, `Time (end): ${archiveTime(metadata.timeEnd)}`,
      `Duration: ${formatDuration(durationOf(metadata.time, metadata.timeEnd))}`, `Number of files: ${stats.nfiles}`,
      `Command line: ${metadata.cmdline.map(word => shellQuoted(shownText(word))).join(' ')}`,
      `Utilization of maximum supported archive size: ${Math.round(utilization * 100)}%`,
      ...tableLines(context, statistics, { size: stats.size, csize: stats.csize, deduplicated: deduplicatedSize }),
    ]
    print(`${first ? '' : '\n'}${lines.join('\n')}\n`)
    first = false
  }
  if (context.flag('json')) printJson({ ...repositoryJson(opened), ...cacheJson(cache.folder, statistics), archives: rows })
}

/** As Python's shlex.quote. */
export function shellQuoted(word: string): string {
  return word !== '' && /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`
}

