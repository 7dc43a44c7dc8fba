/** Options that the commands which write archives have in common (commands.md §8). */
import { type BigIntStats, statSync } from 'node:fs'
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

const timestampForms = /^(?<year>\d{4})-(?:(?<month>\d\d?)-(?<day>\d\d?)(?:T(?<time>\d\d?:\d\d?)(?::(?<second>\d\d?)(?:Z|\+00:00)?)?| (?<spaced>\d\d?:\d\d?(?::\d\d?)?))?|(?<ordinal>\d{1,3}))$/

/** --timestamp in microseconds: the mtime of a path, or one of the UTC forms, with numbers that a date can have (commands.md §8). */
export function parseTimestampOption(context: CommandContext): number | undefined {
  const text = context.text('timestamp')
  if (text === undefined) return undefined
  const found = statOf(text)
  if (found) return Number(found.mtimeNs / 1000n)
  const groups = timestampForms.exec(text)?.groups
  const micros = groups && microsOf(groups)
  if (micros === undefined) throw context.usage(`argument --timestamp: invalid timestamp value: '${text}'`)
  return micros
}

function statOf(path: string): BigIntStats | undefined {
  try {
    return statSync(path, { bigint: true, throwIfNoEntry: false })
  } catch {
    return undefined
  }
}

/** undefined for a day or an hour that there is not. */
function microsOf({ year, month, day, ordinal, time, second, spaced }: Record<string, string | undefined>): number | undefined {
  const [hours = 0, minutes = 0, seconds = Number(second ?? 0)] = (time ?? spaced ?? '').split(':').filter(Boolean).map(Number)
  const wanted = ordinal === undefined ? [Number(year), Number(month) - 1, Number(day)] as const : [Number(year), 0, Number(ordinal)] as const
  const date = new Date(0)
  date.setUTCFullYear(...wanted)
  const exists = ordinal === undefined ? date.getUTCMonth() === wanted[1] && date.getUTCDate() === wanted[2] : wanted[2] > 0 && wanted[2] <= 366
  if (!exists || Number(year) === 0 || hours > 23 || minutes > 59 || seconds > 59) return undefined
  return (date.getTime() + ((hours * 60 + minutes) * 60 + seconds) * 1000) * 1000
}
