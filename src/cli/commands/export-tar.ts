/** `export-tar` (commands.md). */
import { ArchiveReader } from '../../engine/archive/archive-reader.js'
import { TarExport } from '../../engine/operations/export-tar.js'
import { extractedBytes } from '../../engine/operations/extract.js'
import { ChunkReader } from '../../engine/store/chunk-reader.js'
import { Workers } from '../../engine/store/workers.js'
import { shownText } from '../../engine/text.js'
import type { Command } from '../command.js'
import { archiveName, loadMatcher, tellUnmatched } from '../context.js'
import { warningCode } from '../exit.js'
import { FilteredFile, filterFor } from '../output/filtered-file.js'
import { PercentLine } from '../output/progress.js'

export const exportTar: Command = async context => {
  const { log } = context
  const location = context.location('archive')
  const path = context.positional('tarfile')[0]!
  const { matcher } = await loadMatcher(context, context.positional('paths'))
  const opened = await context.open(location, 'shared', 'read')
  const archive = await ArchiveReader.open(opened.manifest.get(archiveName(location.archive!)), opened.repository, opened.objects)
  const workers = new Workers({ key: opened.key })
  context.atEnd(() => workers.close())
  const wanted = context.text('tar-filter') ?? 'auto'
  const file = await FilteredFile.open(path, wanted === 'auto' ? filterFor(path, 'pack') : wanted, log)
  context.atEnd(() => file.close())
  const list = context.flag('list')
  if (list) log.always('borg.output.list')

  const progress = context.flag('progress') ? new PercentLine(log, 'extract', 0.1) : undefined
  let total = 0
  const reader = new ChunkReader(opened.repository, workers)
  const selection = { matcher, stripComponents: context.number('strip-components') ?? 0, parts: context.flag('consider-part-files') }
  const tar = new TarExport(archive, reader, { ...selection, signal: context.signals.answer() }, {
    ...(list && { item: (itemPath: Buffer) => log.message('info', 'borg.output.list', shownText(itemPath)) }),
    unsupported: (itemPath, type) => {
      log.message('warning', 'borg.archiver', `${shownText(itemPath)}: unsupported file type ${type.toString(8)} for tar export`)
      context.exit.warn(warningCode.generic)
    },
    ...(progress && { progress: (bytes: number, itemPath: Buffer) => progress.update(bytes, total, percent => `${percent.toFixed(1).padStart(5)}% Processing: ${shownText(itemPath)}`, [shownText(itemPath)]) }),
  })
  if (progress) {
    progress.announce('Calculating size')
    total = await extractedBytes(archive, reader, selection)
  }
  for await (const piece of tar.pieces()) await file.write(piece)
  await file.finish()
  progress?.finish()
  tellUnmatched(context, matcher)
}
