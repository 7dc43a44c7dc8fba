/** `extract` (commands.md). */
import { ArchiveReader } from '../../engine/archive/archive-reader.js'
import { extractArchive, extractedBytes } from '../../engine/operations/extract.js'
import { ChunkReader } from '../../engine/store/chunk-reader.js'
import { Workers } from '../../engine/store/workers.js'
import { shownText } from '../../engine/text.js'
import type { Command } from '../command.js'
import { archiveName, loadMatcher, tellUnmatched } from '../context.js'
import { warningCode } from '../exit.js'
import { PercentLine } from '../output/progress.js'
import { print } from '../output/stdout.js'

export const extract: Command = async context => {
  const { log } = context
  const location = context.location('archive')
  const { matcher } = await loadMatcher(context, context.positional('paths'))
  const opened = await context.open(location, 'shared', 'read')
  const archive = await ArchiveReader.open(opened.manifest.get(archiveName(location.archive!)), opened.repository, opened.objects)
  const workers = new Workers({ key: opened.key })
  context.atEnd(() => workers.close())
  const reader = new ChunkReader(opened.repository, workers)
  const list = context.flag('list')
  if (list) log.always('borg.output.list')

  const selection = { matcher, stripComponents: context.number('strip-components') ?? 0, parts: context.flag('consider-part-files') }
  let progress: PercentLine | undefined
  let total = 0
  if (context.flag('progress')) {
    progress = new PercentLine(log, 'extract', 0.1)
    progress.announce('Calculating total archive size for the progress indicator (might take long for large archives)')
    total = await extractedBytes(archive, reader, selection)
  }
  const signal = context.signals.answer()
  await extractArchive(archive, reader, process.cwd(), {
    ...selection, dryRun: context.flag('dry-run'), sparse: context.flag('sparse'), numericIds: context.flag('numeric-ids'),
    noFlags: context.flag('noflags'), noAcls: context.flag('noacls'), noXattrs: context.flag('noxattrs'),
    ...(context.flag('stdout') ? { output: bytes => print(Buffer.from(bytes)) } : {}), signal,
  }, {
    ...(list ? { item: path => log.message('info', 'borg.output.list', shownText(path)) } : {}),
    warning: (path, text) => {
      log.message('warning', 'borg.archiver', `${shownText(path)}: ${text}`)
      context.exit.warn(warningCode.backup)
    },
    ...(progress ? { progress: (bytes, path) => progress.update(bytes, total, percent => `${percent.toFixed(1).padStart(5)}% Extracting: ${shownText(path)}`, [shownText(path)]) } : {}),
  })
  progress?.finish()
  tellUnmatched(context, matcher)
}
