/** `import-tar` (commands.md). */
import { ensureNewName } from '../../engine/archive/archive-writer.js'
import { chunkerFor, parseChunkerParams } from '../../engine/chunker/params.js'
import { parseCompression } from '../../engine/codec/spec.js'
import { importTar } from '../../engine/operations/import-tar.js'
import { expandPlaceholders } from '../../engine/placeholders.js'
import { TarReader } from '../../engine/tar/tar-reader.js'
import { escapedBytes, shownText } from '../../engine/text.js'
import { checkpointsOf, listFilter, parseTimestampOption } from '../archive-options.js'
import type { Command } from '../command.js'
import { archiveName } from '../context.js'
import { tellCreated } from '../created-archive.js'
import { warningCode } from '../exit.js'
import { filterFor, openFiltered } from '../output/filtered-file.js'
import { ArchiveProgressLine, syncListener } from '../output/progress.js'

export const importTarCommand: Command = async context => {
  const { log } = context
  const timestampMicros = parseTimestampOption(context)
  const location = context.location('archive', timestampMicros)
  const path = context.positional('tarfile')[0]!
  const params = context.parsed('chunker-params', parseChunkerParams)
  const codec = context.parsed('compression', parseCompression)
  const opened = await context.open(location, 'exclusive', 'write')
  const name = archiveName(location.archive!)
  const { workers, cache } = await context.openCache(opened, codec)
  const wanted = context.text('tar-filter') ?? 'auto'
  const input = await openFiltered(path, wanted === 'auto' ? filterFor(path, 'unpack') : wanted, log)
  context.atEnd(() => input.close())
  ensureNewName(opened.manifest, name)
  await cache.sync(workers, syncListener(context))
  const started = Date.now()
  const progress = context.flag('progress') ? new ArchiveProgressLine(log, context.iec) : undefined
  const status = listFilter(context)
  const comment = expandPlaceholders(context.text('comment') ?? '', timestampMicros === undefined ? {} : { nowMicros: timestampMicros })
  const { stop, now } = context.signals.orderly()
  const tar = new TarReader(input.source, { ignoreZeros: context.flag('ignore-zeros') })
  const stored = await importTar({
    opened, workers, codec, chunker: chunkerFor(params, opened.key.chunkSeed), signal: now, cache: { client: cache }, checkpoints: checkpointsOf(context, stop),
  }, name, {
    comment: escapedBytes(comment), cmdline: context.argv.map(escapedBytes), chunkerParams: params, ...(timestampMicros !== undefined && { timestampMicros }),
  }, tar, {
    ...(status && { status }),
    unsupported: (member, type) => {
      log.message('warning', 'borg.archiver', `${shownText(member)}: Unsupported tarinfo type b'${type}'`)
      context.exit.warn(warningCode.generic)
    },
    finished: () => input.finished(),
    ...(progress && { progress: state => progress.update(state) }),
  })
  progress?.finish()
  await tellCreated(context, { opened, workers, cache }, stored, { started, known: true })
}
