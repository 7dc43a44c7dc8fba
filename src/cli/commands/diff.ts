/** `diff` (commands.md, output.md §8). */
import { ArchiveReader } from '../../engine/archive/archive-reader.js'
import { type Change, diffArchives, type Difference } from '../../engine/operations/diff.js'
import { ChunkReader } from '../../engine/store/chunk-reader.js'
import { Workers } from '../../engine/store/workers.js'
import { escapedText, shownText } from '../../engine/text.js'
import type { Command } from '../command.js'
import { archiveName, type CommandContext, loadMatcher, tellUnmatched } from '../context.js'
import { warningCode } from '../exit.js'
import { pythonJson } from '../output/log.js'
import { modeText } from '../output/mode-text.js'
import { print } from '../output/stdout.js'
import { formatSize, formatTime, isoTime, itemMicros } from '../output/units.js'

export const diff: Command = async context => {
  const location = context.location('archive')
  const otherName = context.archiveOperand('archive2')
  const opened = await context.open(location, 'shared', 'read')
  const [first, second] = [await archiveOf(archiveName(location.archive!)), await archiveOf(archiveName(otherName))]
  const comparable = context.flag('same-chunker-params') || cutAlike(context, first, second)
  const { matcher } = await loadMatcher(context, context.positional('paths'))
  const workers = new Workers({ key: opened.key })
  context.atEnd(() => workers.close())
  const found = diffArchives(first, second, new ChunkReader(opened.repository, workers), {
    matcher, comparable, contentOnly: context.flag('content-only'), parts: context.flag('consider-part-files'),
  })
  const row = context.flag('json-lines') ? jsonRow : textRow
  if (context.flag('sort')) {
    const differences: { readonly path: string; readonly row: string }[] = []
    for await (const difference of found) differences.push({ path: escapedText(difference.path), row: row(difference) })
    for (const { row } of differences.sort((a, b) => byCodePoints(a.path, b.path))) print(row)
  } else {
    for await (const difference of found) print(row(difference))
  }
  tellUnmatched(context, matcher)

  function archiveOf(name: string): Promise<ArchiveReader> {
    return ArchiveReader.open(opened.manifest.get(name), opened.repository, opened.objects)
  }
}

/** Whether chunks of the two can be compared by their ids. */
function cutAlike(context: CommandContext, first: ArchiveReader, second: ArchiveReader): boolean {
  const [one, other] = [first.metadata.chunkerParams, second.metadata.chunkerParams]
  if (one && other && one.join() === other.join()) return true
  context.log.message('warning', 'borg.archiver', one && other ? '--chunker-params are different between archives, diff will be slow.'
    : '--chunker-params might be different between archives, diff will be slow.\nIf you know for certain that they are the same, pass --same-chunker-params to override this check.')
  context.exit.warn(warningCode.generic)
  return false
}

function textRow({ path, changes }: Difference): string {
  return `${changes.map(changeText).join(' ').padEnd(19)} ${shownText(path)}\n`
}

function changeText(change: Change): string {
  switch (change.kind) {
    case 'modified': {
      const { bytes } = change
      if (!bytes) return 'modified'
      return [bytes.added, -bytes.removed].map(count => formatSize(count, { iec: false, decimals: 1, sign: true }).padStart(9)).join(' ')
    }
    case 'added': return 'what' in change ? `added ${change.what}` : `added ${formatSize(change.size).padStart(13)}`
    case 'removed': return 'what' in change ? `removed ${change.what}` : `removed ${formatSize(change.size).padStart(11)}`
    case 'target': return 'changed link'
    case 'owner': {
      const [before, after] = [change.old, change.new].map(({ user, group }) => `${user === null ? 'None' : shownText(user)}:${group === null ? 'None' : shownText(group)}`)
      return `[${before} -> ${after}]`
    }
    case 'mode': return `[${modeText(change.old)} -> ${modeText(change.new)}]`
    case 'ctime': case 'mtime': return `[${change.kind}: ${formatTime(itemMicros(change.old))} -> ${formatTime(itemMicros(change.new))}]`
  }
}

function jsonRow({ path, changes }: Difference): string {
  return `${pythonJson({ changes: changes.map(changeJson), path: escapedText(path) })}\n`
}

/** Keys in order, as Borg sorts them. */
function changeJson(change: Change): Record<string, unknown> {
  const { kind } = change
  switch (kind) {
    case 'modified': return change.bytes ? { added: change.bytes.added, removed: change.bytes.removed, type: kind } : { type: kind }
    case 'added': case 'removed': return 'what' in change ? { type: `${kind} ${change.what}` } : { size: change.size, type: kind }
    case 'target': return { type: 'changed link' }
    case 'owner': {
      const [before, after] = [change.old, change.new].map(({ user, group }) => ({ user: user && escapedText(user), group: group && escapedText(group) }))
      return { new_group: after!.group, new_user: after!.user, old_group: before!.group, old_user: before!.user, type: kind }
    }
    case 'mode': return { new_mode: modeText(change.new), old_mode: modeText(change.old), type: kind }
    case 'ctime': case 'mtime': return { [`new_${kind}`]: isoTime(itemMicros(change.new)), [`old_${kind}`]: isoTime(itemMicros(change.old)), type: kind }
  }
}

/** Python's order of texts. */
function byCodePoints(a: string, b: string): number {
  const [left, right] = [[...a], [...b]]
  for (const [index, character] of left.entries()) {
    const other = right[index]
    if (other === undefined) return 1
    if (character !== other) return character.codePointAt(0)! - other.codePointAt(0)!
  }
  return left.length - right.length
}
