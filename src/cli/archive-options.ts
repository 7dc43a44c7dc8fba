/** Options that the commands which write archives have in common (commands.md §8). */
import { statSync } from 'node:fs'
import type { CheckpointOptions } from '../engine/operations/checkpoints.js'
import { shownText } from '../engine/text.js'
import type { CommandContext } from './context.js'

/** -c, and what a wish to stop does. */
export function checkpointsOf(context: CommandContext, stop: AbortSignal): CheckpointOptions {
  return {
    intervalMs: context.number('checkpoint-interval')! * 1000, stop,
    told: state => context.log.message('info', 'borg.archive', state === 'starting' ? 'checkpoint requested: starting checkpoint creation...' : 'checkpoint requested: finished checkpoint creation!'),
  }
}

/** --list and --filter: who prints a line for an item; undefined if nobody wants any. */
export function listFilter(context: CommandContext): ((letter: string, path: Buffer) => void) | undefined {
  if (!context.flag('list')) return undefined
  const { log } = context
  const filter = context.text('filter')
  log.always('borg.output.list')
  return (letter, path) => {
    if (filter !== undefined && !filter.includes(letter)) return
    if (log.json) log.object({ type: 'file_status', status: letter, path: shownText(path) })
    else log.message('info', 'borg.output.list', `${letter} ${shownText(path)}`)
  }
}

/** --timestamp in microseconds: one of the UTC forms, or the mtime of a path (commands.md §8). */
export function parseTimestampOption(context: CommandContext): number | undefined {
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
