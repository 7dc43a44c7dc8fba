/** `info` (commands.md, output.md §4). */
import type { ArchiveInfo } from '../../engine/archive/manifest.js'
import { collectForArchives, collectStatistics } from '../../engine/operations/statistics.js'
import { ensureCacheFolder } from '../../engine/cache/cache-folder.js'
import { Workers } from '../../engine/store/workers.js'
import { bytesOf, shownText } from '../../engine/text.js'
import type { Command } from '../command.js'
import { archiveName, selectArchives } from '../context.js'
import { print } from '../output/stdout.js'
import { archiveJson, archiveTime, cacheJson, durationOf, encryptedText, printJson, repositoryJson, tableLines } from '../output/summary.js'
import { formatDuration } from '../output/units.js'

export const info: Command = async context => {
  const location = context.location('either')
  const opened = await context.open(location, 'shared', 'read')
  const folder = await ensureCacheFolder(context.places, opened.repository.id, context.log, context.lockWaitMs, context.env)
  const workers = new Workers({ key: opened.key })
  context.atEnd(() => workers.close())
  const filtered = ['first', 'last', 'glob-archives', 'prefix'].some(name => context.text(name) !== undefined)
  let wanted: ArchiveInfo[] | undefined
  if (location.archive !== undefined) wanted = [opened.manifest.get(archiveName(location.archive))]
  else if (filtered) wanted = await selectArchives(context, opened.manifest.archives.values(), { hideCheckpoints: false })

  if (wanted === undefined) {
    const statistics = await collectStatistics(opened, workers)
    if (context.flag('json')) {
      const json = { ...repositoryJson(opened), ...cacheJson(folder, statistics), security_dir: opened.security.path }
      printJson(json)
      return
    }
    const lines = [
      `Repository ID: ${opened.repository.id.toString('hex')}`, `Location: ${opened.repository.location}`, `Encrypted: ${encryptedText(opened)}`,
      ...(opened.keyfile === undefined ? [] : [`Key file: ${opened.keyfile}`]), `Cache: ${folder}`, `Security dir: ${opened.security.path}`,
      ...tableLines(context, statistics, undefined),
    ]
    print(`${lines.join('\n')}\n`)
    return
  }
  const all = await collectForArchives(opened, workers, wanted)
  if (context.flag('json')) {
    const statistics = all[0] ?? (await collectStatistics(opened, workers))
    printJson({ ...repositoryJson(opened), ...cacheJson(folder, statistics), archives: wanted.map((archive, index) => archiveJson(archive, all[index]!.archive!, context, { full: true })) })
    return
  }
  for (const [index, archive] of wanted.entries()) {
    const { metadata, stats, deduplicatedSize, utilization } = all[index]!.archive!
    const lines = [
      `Archive name: ${shownText(bytesOf(archive.name))}`, `Archive fingerprint: ${archive.id.toString('hex')}`, `Comment: ${shownText(metadata.comment)}`,
      `Hostname: ${shownText(metadata.hostname)}`, `Username: ${shownText(metadata.username)}`,
      `Time (start): ${archiveTime(metadata.time)}`, `Time (end): ${archiveTime(metadata.timeEnd)}`,
      `Duration: ${formatDuration(durationOf(metadata.time, metadata.timeEnd))}`, `Number of files: ${stats.nfiles}`,
      `Command line: ${metadata.cmdline.map(word => shellQuoted(shownText(word))).join(' ')}`,
      `Utilization of maximum supported archive size: ${Math.round(utilization * 100)}%`,
      ...tableLines(context, all[index]!, { size: stats.size, csize: stats.csize, deduplicated: deduplicatedSize }),
    ]
    print(`${index > 0 ? '\n' : ''}${lines.join('\n')}\n`)
  }
}

/** As Python's shlex.quote. */
export function shellQuoted(word: string): string {
  return word !== '' && /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`
}

