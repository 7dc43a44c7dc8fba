/** `create` (commands.md). */
import { statSync } from 'node:fs'
import { parseCompression } from '../../engine/codec/spec.js'
import { chunkerFor, parseChunkerParams } from '../../engine/chunker/params.js'
import { ensureNewName } from '../../engine/archive/archive-writer.js'
import { FilesCache, parseFilesCacheMode } from '../../engine/cache/files-cache.js'
import { BorgError } from '../../engine/errors.js'
import type { ByteSource } from '../../engine/chunker/chunker.js'
import type { Location } from '../../engine/location.js'
import { type CreateListener, createArchive, type CreateOptions, dryRun } from '../../engine/operations/create.js'
import { LaterCommand, separated } from '../../engine/operations/command-source.js'
import { DescriptorSource } from '../../engine/operations/file-source.js'
import { identityOf } from '../../engine/operations/walk.js'
import { expandPlaceholders } from '../../engine/placeholders.js'
import { groupIdOf, userIdOf } from '../../engine/platform/owner.js'
import { escapedBytes, shownText } from '../../engine/text.js'
import type { Command } from '../command.js'
import { archiveName, type CommandContext, loadMatcher } from '../context.js'
import { checkpointsOf, listFilter, parseTimestampOption } from '../archive-options.js'
import { tellCreated } from '../created-archive.js'
import { warningCode, warningOfErrno } from '../exit.js'
import { ArchiveProgressLine, syncListener } from '../output/progress.js'
import { formatSize } from '../output/units.js'
import { errorText } from '../../engine/errno-text.js'

export const create: Command = async context => {
  const { log } = context
  const timestampMicros = parseTimestampOption(context)
  const location = context.location('archive', timestampMicros)
  const { matcher, roots } = await loadMatcher(context, [])
  const fromCommand = context.flag('content-from-command'), pathsFromCommand = context.flag('paths-from-command'), pathsFromStdin = context.flag('paths-from-stdin')
  // As they were typed: what lies below a later one and was walked already is passed over.
  const typed = context.args.ordered.some(({ beforeOperands }) => beforeOperands) ? [...roots, ...context.positional('paths')] : [...context.positional('paths'), ...roots]
  if (typed.length > 0 && pathsFromStdin) throw context.complaint('Must not pass PATH with ``--paths-from-stdin``.')
  if (typed.length === 0 && (fromCommand || pathsFromCommand)) throw context.complaint('No command given.')
  if (typed.length === 0 && !pathsFromStdin) throw context.complaint('Need at least one PATH argument.')
  const input = fromCommand ? 'content' : pathsFromCommand || pathsFromStdin ? 'paths' : 'roots'
  const params = context.parsed('chunker-params', parseChunkerParams)
  const codec = context.parsed('compression', parseCompression)
  const mode = parseFilesCacheMode(context.text('files-cache')!)
  if (!mode) throw context.usage(`argument --files-cache: invalid FilesCacheMode value: '${context.text('files-cache')}'`)
  const json = context.flag('json')
  const options: { -readonly [key in keyof CreateOptions]: CreateOptions[key] } = {
    roots: input === 'content' ? [Buffer.from('-')] : input === 'paths' ? [] : typed.map(escapedBytes),
    walk: {
      matcher, oneFileSystem: context.flag('one-file-system'), excludeNodump: context.flag('exclude-nodump'), excludeCaches: context.flag('exclude-caches'),
      excludeIfPresent: context.list('exclude-if-present'), keepExcludeTags: context.flag('keep-exclude-tags'),
      noXattrs: context.flag('noxattrs'), noAcls: context.flag('noacls'), noFlags: context.flag('noflags'),
      skip: ownFolders(context, location),
    },
    readSpecial: context.flag('read-special'), dryRun: context.flag('dry-run'),
    numericIds: context.flag('numeric-ids'), atime: context.flag('atime'), noCtime: context.flag('noctime'),
  }
  if (input === 'content') options.stdin = stdinEntry(context, new LaterCommand(typed))
  else if (input === 'paths') {
    const source = pathsFromCommand ? new LaterCommand(typed) : undefined
    options.listed = {
      paths: separated(source ?? new DescriptorSource(0), escapedBytes(unescaped(context.text('paths-delimiter') ?? '') || '\n')),
      ...(source ? { finished: () => source.finished() } : {}),
    }
  } else if (typed.includes('-')) options.stdin = stdinEntry(context, new DescriptorSource(0))
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
  const { workers, cache } = await context.openCache(opened, codec)
  const counted = context.flag('stats') || json
  // JSON has no word for unknown numbers.
  const known = cache.inSync || json || !context.flag('no-cache-sync')
  if (!known) log.message('warning', 'borg.cache', 'Note: --no-cache-sync is an experimental feature.')
  // A cache that was current stays so; one that was not is nobody's need but for the numbers.
  if ((counted && known) || opened.manifest.archives.size === 0) await cache.sync(workers, syncListener(context))
  else cache.load()
  const filesCache = await FilesCache.load(cache, mode, log, context.env)
  const started = Date.now()
  const chunker = chunkerFor(params, opened.key.chunkSeed, { sparse: context.flag('sparse') })
  const comment = expandPlaceholders(context.text('comment') ?? '', timestampMicros === undefined ? {} : { nowMicros: timestampMicros })
  const { stop, now } = context.signals.orderly()
  const stored = await createArchive({
    opened, workers, codec, chunker, signal: now, cache: { client: cache, ...(filesCache.remembers ? { files: filesCache } : {}) },
    checkpoints: checkpointsOf(context, stop),
  }, name, {
    comment: escapedBytes(comment), cmdline: context.argv.map(escapedBytes), chunkerParams: params, ...(timestampMicros === undefined ? {} : { timestampMicros }),
  }, options, filesCache, listener)
  progress?.finish()
  await tellCreated(context, { opened, workers, cache }, stored, { started, known })
}

function listenerOf(context: CommandContext, progress: ArchiveProgressLine | undefined): CreateListener {
  const { log } = context
  const status = listFilter(context)
  return {
    ...(status ? { status } : {}),
    warning: (path, operation, error) => {
      const name = shownText(path).split('/').pop()!
      log.message('warning', 'borg.archiver', `${shownText(path)}: ${error.reason ?? `${operation ? `${operation}: ` : ''}${errorText(error)}: '${name}'`}`)
      context.exit.warn(error.reason === undefined ? warningOfErrno(error.code) : warningCode.raceCondition)
    },
    changed: path => {
      log.message('warning', 'borg.archiver', `${shownText(path)}: file changed while we backed it up`)
      context.exit.warn(warningCode.fileChanged)
    },
    reading: (path, done, total) => (context.signals.onInfo = () => tellPosition(log, path, done, total)),
    ...(progress ? { progress: state => progress.update(state) } : {}),
  }
}

/** The answer to SIGUSR1. */
function tellPosition(log: CommandContext['log'], path: Buffer, done: number, total: number | undefined): void {
  log.message('info', 'borg.archiver', `${shownText(path)} ${formatSize(done)}/${total === undefined ? '???' : formatSize(total)}`)
}

function stdinEntry(context: CommandContext, source: ByteSource & { finished?(): Promise<void> }): NonNullable<CreateOptions['stdin']> {
  const [user, group] = [Buffer.from(context.text('stdin-user')!), Buffer.from(context.text('stdin-group')!)]
  const [uid, gid] = [userIdOf(user), groupIdOf(group)]
  if (uid === undefined) throw new BorgError('Error', `Error: no such user: ${user.toString()}`)
  if (gid === undefined) throw new BorgError('Error', `Error: no such group: ${group.toString()}`)
  return { source, ...(source.finished ? { finished: () => source.finished!() } : {}), name: escapedBytes(context.text('stdin-name')!), mode: context.octal('stdin-mode'), uid, gid, user, group }
}

/** The cache and the repository itself. */
function ownFolders(context: CommandContext, location: Location): ReadonlySet<string> {
  const identities = new Set<string>()
  for (const path of [context.places.cache, ...(location.protocol === 'file' ? [location.path] : [])]) {
    const found = statSync(path, { bigint: true, throwIfNoEntry: false })
    if (found) identities.add(identityOf(found))
  }
  return identities
}

/** The escapes of Python's string literals, as in `--paths-delimiter '\0'`. */
function unescaped(text: string): string {
  const single: Record<string, string> = { n: '\n', t: '\t', r: '\r', a: '\x07', b: '\b', f: '\f', v: '\v', '\\': '\\', "'": "'", '"': '"', '\n': '' }
  return text.replace(/\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[0-7]{1,3}|[\s\S])/g, (whole, code: string) => {
    if (/^[xu]./.test(code)) return String.fromCharCode(parseInt(code.slice(1), 16))
    if (/^[0-7]/.test(code)) return String.fromCharCode(parseInt(code, 8))
    return single[code] ?? whole
  })
}
