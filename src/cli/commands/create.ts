/** `create` (commands.md). */
import { statSync } from 'node:fs'
import { parseCompression } from '../../engine/codec/spec.js'
import { chunkerFor, parseChunkerParams } from '../../engine/chunker/params.js'
import { ensureNewName } from '../../engine/archive/archive-writer.js'
import { FilesCache, parseFilesCacheMode } from '../../engine/cache/files-cache.js'
import { BorgError, CommandError } from '../../engine/errors.js'
import { type CreateListener, createArchive, type CreateOptions, dryRun } from '../../engine/operations/create.js'
import { DescriptorSource } from '../../engine/operations/store-archive.js'
import { expandPlaceholders } from '../../engine/placeholders.js'
import { ClientCache } from '../../engine/cache/client-cache.js'
import { groupIdOf, userIdOf } from '../../engine/platform/owner.js'
import { Workers } from '../../engine/store/workers.js'
import { escapedBytes, shownText } from '../../engine/text.js'
import type { Command } from '../command.js'
import { archiveName, type CommandContext, loadMatcher } from '../context.js'
import { SignalError, warningCode, warningOfErrno } from '../exit.js'
import { ArchiveProgressLine, syncListener } from '../output/progress.js'
import { archiveJson, cacheJson, printJson, repositoryJson, statsBlock } from '../output/summary.js'
import { errorText } from '../output/errno-text.js'

export const create: Command = async context => {
  const { log } = context
  const timestampMicros = parseTimestampOption(context)
  const location = context.location('archive', timestampMicros)
  const { matcher, roots } = await loadMatcher(context, [])
  const typed = [...context.positional('paths'), ...roots]
  if (typed.length === 0) throw context.complaint('Need at least one PATH argument.')
  for (const unsupported of ['content-from-command', 'paths-from-stdin', 'paths-from-command']) {
    if (context.flag(unsupported)) throw new CommandError(`borgfs create cannot do --${unsupported} yet. Use borg for it: both work on the same repositories.`)
  }
  const params = parseChunkerParams(context.text('chunker-params')!)
  const codec = parseCompression(context.text('compression')!)
  const mode = parseFilesCacheMode(context.text('files-cache')!)
  if (!mode) throw context.usage(`argument --files-cache: invalid FilesCacheMode value: '${context.text('files-cache')}'`)
  const json = context.flag('json')
  const options: CreateOptions = {
    roots: typed.map(escapedBytes),
    walk: {
      matcher, oneFileSystem: context.flag('one-file-system'), excludeNodump: context.flag('exclude-nodump'), excludeCaches: context.flag('exclude-caches'),
      excludeIfPresent: context.list('exclude-if-present'), keepExcludeTags: context.flag('keep-exclude-tags'),
      noXattrs: context.flag('noxattrs'), noAcls: context.flag('noacls'), noFlags: context.flag('noflags') || context.flag('nobsdflags'),
    },
    readSpecial: context.flag('read-special'), dryRun: context.flag('dry-run'),
    numericIds: context.flag('numeric-ids') || context.flag('numeric-owner'), atime: context.flag('atime'), noCtime: context.flag('noctime'),
    ...(typed.includes('-') ? { stdin: stdinEntry(context) } : {}),
  }
  const progress = context.flag('progress') ? new ArchiveProgressLine(log, context.iec) : undefined
  const listener = listenerOf(context, progress)

  if (options.dryRun) {
    if (context.flag('stats')) log.message('warning', 'borg.archiver', 'Ignoring --stats. It is not supported when using --dry-run.')
    await dryRun(options, listener)
    return
  }
  log.message('info', 'borg.archiver', `Creating archive at "${location.text}"`)
  const opened = await context.open(location, 'exclusive', 'write')
  const name = archiveName(location.archive!)
  ensureNewName(opened.manifest, name)
  const workers = new Workers({ key: opened.key, codec })
  context.atEnd(() => workers.close())
  const cache = await ClientCache.open(opened, { places: context.places, log, lockWaitMs: context.lockWaitMs, env: context.env })
  context.atEnd(() => cache.close())
  const counted = context.flag('stats') || json
  // A cache that was current stays so; one that was not is nobody's need but for the numbers.
  if (counted || opened.manifest.archives.size === 0) await cache.sync(workers, syncListener(context))
  else cache.load()
  const filesCache = await FilesCache.load(cache, mode, log, context.env)
  const started = Date.now()
  const chunker = chunkerFor(params, opened.key.chunkSeed, { sparse: context.flag('sparse') })
  const comment = expandPlaceholders(context.text('comment') ?? '', timestampMicros === undefined ? {} : { nowMicros: timestampMicros })
  let stored
  try {
    stored = await createArchive({
      opened, workers, codec, chunker, log, signal: context.signal, cache: { client: cache, ...(filesCache.remembers ? { files: filesCache } : {}) },
    }, name, {
      comment: escapedBytes(comment), cmdline: context.argv.map(escapedBytes), chunkerParams: params, ...(timestampMicros === undefined ? {} : { timestampMicros }),
    }, options, filesCache, listener)
  } catch (error) {
    // The first Ctrl-C is a wish to stop in order: nothing of this run is kept.
    if (context.signal.aborted && context.signal.reason instanceof SignalError && context.signal.reason.signal === 'SIGINT') throw new BorgError('Error', 'Got Ctrl-C / SIGINT.')
    throw error
  }
  progress?.finish()
  if (!context.flag('stats') && !json) return
  const { collectStatistics } = await import('../../engine/operations/statistics.js')
  const statistics = await collectStatistics(opened, workers, stored.info)
  const duration = (Date.now() - started) / 1000
  if (json) {
    printJson({
      ...repositoryJson(opened), ...cacheJson(cache.folder, statistics),
      archive: archiveJson(stored.info, statistics.archive!, context, { duration }),
    })
    return
  }
  log.always('borg.output.stats')
  for (const line of statsBlock(opened, stored.info, statistics, context, { duration, size: stored.stats.size, csize: stored.stats.csize, newBytes: stored.newBytes })) {
    log.message('info', 'borg.output.stats', line)
  }
}

function listenerOf(context: CommandContext, progress: ArchiveProgressLine | undefined): CreateListener {
  const { log } = context
  const list = context.flag('list')
  const filter = context.text('filter')
  if (list) log.always('borg.output.list')
  return {
    ...(list ? { status: (letter, path) => {
      if (filter !== undefined && !filter.includes(letter)) return
      if (log.json) log.object({ type: 'file_status', status: letter, path: shownText(path) })
      else log.message('info', 'borg.output.list', `${letter} ${shownText(path)}`)
    } } : {}),
    warning: (path, operation, error) => {
      const name = shownText(path).split('/').pop()!
      log.message('warning', 'borg.archiver', `${shownText(path)}: ${operation ? `${operation}: ` : ''}${errorText(error)}: '${name}'`)
      context.exit.warn(warningOfErrno(error.code))
    },
    changed: path => {
      log.message('warning', 'borg.archiver', `${shownText(path)}: file changed while we backed it up`)
      context.exit.warn(warningCode.fileChanged)
    },
    ...(progress ? { progress: state => progress.update({
      originalSize: state.stats.size, compressedSize: state.stats.csize, deduplicatedSize: state.newBytes, fileCount: state.stats.nfiles, path: state.path,
    }) } : {}),
  }
}

function stdinEntry(context: CommandContext): NonNullable<CreateOptions['stdin']> {
  const [user, group] = [Buffer.from(context.text('stdin-user')!), Buffer.from(context.text('stdin-group')!)]
  const [uid, gid] = [userIdOf(user), groupIdOf(group)]
  if (uid === undefined) throw new BorgError('Error', `Error: no such user: ${user.toString()}`)
  if (gid === undefined) throw new BorgError('Error', `Error: no such group: ${group.toString()}`)
  return { source: new DescriptorSource(0), name: escapedBytes(context.text('stdin-name')!), mode: parseInt(context.text('stdin-mode')!, 8), uid, gid, user, group }
}

/** --timestamp in microseconds: one of the UTC forms, or the mtime of a path (commands.md §8). */
function parseTimestampOption(context: CommandContext): number | undefined {
  const text = context.text('timestamp')
  if (text === undefined) return undefined
  const match = /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d))?(?:Z|\+00:00)?)?$/.exec(text)
  if (match) {
    const [, year, month, day, hour = '0', minute = '0', second = '0'] = match
    return Date.UTC(Number(year), Number(month) - 1, Number(day), Number(hour), Number(minute), Number(second)) * 1000
  }
  const ordinal = /^(\d{4})-(\d{3})$/.exec(text)
  if (ordinal) return Date.UTC(Number(ordinal[1]), 0, Number(ordinal[2])) * 1000
  try {
    return Math.floor(statSync(text).mtimeMs / 1000) * 1e6
  } catch {
    throw context.usage(`argument --timestamp: invalid timestamp value: '${text}'`)
  }
}

