/** `recreate` (commands.md). */
import { nowMicros, formatTimestamp } from '../../engine/archive/timestamps.js'
import { ClientCache } from '../../engine/cache/client-cache.js'
import { parseChunkerParams } from '../../engine/chunker/params.js'
import { parseCompression } from '../../engine/codec/spec.js'
import { BorgError } from '../../engine/errors.js'
import { type RecreateListener, type RecreateOptions, Recreater, temporarySuffix } from '../../engine/operations/recreate.js'
import type { StoredArchive } from '../../engine/operations/store-archive.js'
import { expandPlaceholders } from '../../engine/placeholders.js'
import { Workers } from '../../engine/store/workers.js'
import { bytesOf, escapedBytes, shownText } from '../../engine/text.js'
import type { Command } from '../command.js'
import { archiveName, type CommandContext, loadMatcher, selectArchives } from '../context.js'
import { checkpointsOf, listFilter, parseTimestampOption } from '../archive-options.js'
import { ArchiveProgressLine, cacheSteps, syncListener } from '../output/progress.js'
import { flushOutput, print } from '../output/stdout.js'
import type { StatisticsContext } from '../../engine/operations/statistics.js'
import { statsBlock } from '../output/summary.js'

export const recreate: Command = async context => {
  const { log } = context
  const location = context.location('either')
  const dryRun = context.flag('dry-run')
  const chunkerText = context.text('chunker-params'), comment = context.text('comment'), target = context.text('target')
  const timestampMicros = parseTimestampOption(context)
  const { matcher } = await loadMatcher(context, context.positional('paths'))
  const codec = context.parsed('compression', parseCompression)
  const options: RecreateOptions = {
    matcher, codec, dryRun, excludeCaches: context.flag('exclude-caches'), excludeIfPresent: context.list('exclude-if-present'), keepExcludeTags: context.flag('keep-exclude-tags'),
    recompress: context.text('recompress') as RecreateOptions['recompress'], cmdline: context.argv.map(escapedBytes),
    ...(chunkerText === undefined ? {} : { chunkerParams: context.parsed('chunker-params', parseChunkerParams) }),
    ...(comment === undefined ? {} : { comment: escapedBytes(expandPlaceholders(comment)) }),
    ...(timestampMicros === undefined ? {} : { timestampMicros }),
  }
  const opened = await context.open(location, 'exclusive', 'check')
  const workers = new Workers({ key: opened.key, codec })
  context.atEnd(() => workers.close())
  let cache: ClientCache | undefined
  if (!dryRun) {
    cache = await ClientCache.open(opened, { places: context.places, log, lockWaitMs: context.lockWaitMs, env: context.env, steps: cacheSteps(context) })
    context.atEnd(() => cache!.close())
    await cache.sync(workers, syncListener(context))
  }
  const progress = context.flag('progress') ? new ArchiveProgressLine(log, context.iec) : undefined
  const { stop, now } = context.signals.orderly()
  const recreater = new Recreater({ opened, workers, cache, signal: now, checkpoints: checkpointsOf(context, stop) }, options, listenerOf(context, progress))

  const one = async (name: string): Promise<boolean> => {
    const start = nowMicros()
    const done = await recreater.recreate(name, target === undefined ? undefined : archiveName(expandPlaceholders(target)))
    if (done === undefined) return false
    progress?.finish()
    if (done !== 'dry' && context.flag('stats') && (log.threshold === 'info' || log.threshold === 'debug')) await tellStatistics(context, { opened, workers, cache: cache!, considerParts: false }, done, start)
    return true
  }
  if (location.archive !== undefined) {
    const name = archiveName(location.archive)
    if (isTemporary(name)) throw new BorgError('Error', `Refusing to work on temporary archive of prior recreate: ${shownText(bytesOf(name))}`)
    if (await one(name)) return
    throw new BorgError('Error', 'Nothing to do. Archive was not processed.\nSpecify at least one pattern, PATH, --comment, re-compression or re-chunking option.')
  }
  if (target !== undefined) throw new BorgError('Error', '--target: Need to specify single archive')
  for (const { name } of await selectArchives(context, opened.manifest.archives.values(), { hideCheckpoints: false })) {
    if (isTemporary(name)) continue
    const shown = shownText(bytesOf(name))
    print(`Processing ${shown}\n`)
    flushOutput()
    if (!(await one(name))) log.message('info', 'borg.archiver', `Skipped archive ${shown}: Nothing to do. Archive was not processed.`)
  }
}

function isTemporary(name: string): boolean {
  return name.endsWith(temporarySuffix)
}

function listenerOf(context: CommandContext, progress: ArchiveProgressLine | undefined): RecreateListener {
  const status = listFilter(context)
  return {
    ...(status ? { status } : {}),
    ...(progress ? { progress: state => progress.update(state) } : {}),
  }
}

/** The times are those of this run. */
async function tellStatistics(context: CommandContext, source: StatisticsContext, stored: StoredArchive, start: number): Promise<void> {
  const { collectStatistics, recreationNumbers } = await import('../../engine/operations/statistics.js')
  const statistics = await collectStatistics(source)
  const numbers = await recreationNumbers(stored, source.opened)
  const end = nowMicros()
  const metadata = { ...numbers.metadata, time: formatTimestamp(start), timeEnd: formatTimestamp(end) }
  const lines = statsBlock(source.opened, stored.info, statistics, { ...numbers, metadata }, context, (end - start) / 1e6)
  for (const line of lines) if (!line.includes('Original size')) context.log.message('info', 'borg.archive', line)
}
