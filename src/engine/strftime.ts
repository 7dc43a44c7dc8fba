/** Time texts as Python's strftime makes them; day and month names are always English. */
import { type CalendarDate, dateOfDay } from './calendar.js'

const days = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday']
const months = ['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October', 'November', 'December']

/** A moment with its zone applied: local, or UTC. */
export interface CivilTime {
  readonly year: number
  readonly month: number
  readonly day: number
  readonly hour: number
  readonly minute: number
  readonly second: number
  readonly micros: number
  readonly weekday: number
  /** Minutes east of UTC. */
  readonly offset: number
  readonly epochSeconds: number
}

/** `micros` since 1970. */
export function civilTime(micros: number, zone: 'local' | 'utc'): CivilTime {
  const epochSeconds = Math.floor(micros / 1e6)
  const offset = zone === 'utc' ? 0 : localOffset(epochSeconds)
  // Zones of the 19th century are off by fractions of minutes.
  const shifted = epochSeconds + Math.floor(offset * 60)
  const days = Math.floor(shifted / daySeconds)
  if (days !== lastDay) {
    lastDate = dateOfDay(days)
    lastDay = days
  }
  const { year, month, day, weekday } = lastDate
  const rest = shifted - days * daySeconds
  const hour = Math.floor(rest / 3600), minute = Math.floor(rest / 60) % 60
  return { year, month, day, hour, minute, second: rest % 60, micros: micros - epochSeconds * 1e6, weekday, offset, epochSeconds }
}

const daySeconds = 86_400

/** Times come in lists, neighbours beside each other: what the last one needed is kept. */
let lastDay = 0
let lastDate: CalendarDate = dateOfDay(0)
let sameOffsetDay = Number.NaN
let sameOffset = 0

/** Minutes east of UTC. A day (of UTC) that begins and ends with the same offset has no other between. */
function localOffset(epochSeconds: number): number {
  const day = Math.floor(epochSeconds / daySeconds)
  if (day === sameOffsetDay) return sameOffset
  const offset = askOffset(day * daySeconds)
  if (offset !== askOffset((day + 1) * daySeconds)) return askOffset(epochSeconds)
  sameOffsetDay = day
  sameOffset = offset
  return offset
}

function askOffset(epochSeconds: number): number {
  return -new Date(epochSeconds * 1000).getTimezoneOffset()
}

const twoDigits: readonly string[] = Array.from({ length: 100 }, (_, number) => String(number).padStart(2, '0'))
const two = (value: number): string => twoDigits[value] ?? String(value).padStart(2, '0')

/** What stands for one letter; `number` writes numbers with two digits, or as they are. */
type Directive = (time: CivilTime, number: (value: number) => string) => string
type Part = string | ((time: CivilTime) => string)

/** A format taken apart, and what the last time made of its beginning. */
interface CompiledFormat {
  readonly parts: readonly Part[]
  /** So many parts at the beginning are the same for all times of a day. */
  readonly dayParts: number
  /** year * 10000 + month * 100 + day, and the text of those parts. */
  day: number
  dayText: string
}

const compiled = new Map<string, CompiledFormat>()
const sameAllDay = /^[aAbhBCdDxeFGjmntuUVwWyY%]$/

export function strftime(format: string, time: CivilTime): string {
  let known = compiled.get(format)
  if (!known) compiled.set(format, (known = compile(format)))
  const { parts, dayParts } = known
  const day = (time.year * 100 + time.month) * 100 + time.day
  if (day !== known.day) {
    known.dayText = texts(parts, 0, dayParts, time)
    known.day = day
  }
  return dayParts === parts.length ? known.dayText : known.dayText + texts(parts, dayParts, parts.length, time)
}

function texts(parts: readonly Part[], from: number, to: number, time: CivilTime): string {
  let text = ''
  for (let at = from; at < to; at++) {
    const part = parts[at]!
    text += typeof part === 'string' ? part : part(time)
  }
  return text
}

function compile(format: string): CompiledFormat {
  const parts: Part[] = []
  let dayParts = -1
  for (const part of format.split(/(%-?[a-zA-Z%])/)) {
    if (part === '') continue
    const directive = /^%-?[a-zA-Z%]$/.test(part) ? directives[part.at(-1)!] : undefined
    if (directive && dayParts < 0 && !sameAllDay.test(part.at(-1)!)) dayParts = parts.length
    const number = part.length === 3 ? String : two
    parts.push(directive ? time => directive(time, number) : part)
  }
  return { parts, dayParts: dayParts < 0 ? parts.length : dayParts, day: Number.NaN, dayText: '' }
}

const directives: Readonly<Record<string, Directive>> = {
  a: time => days[time.weekday]!.slice(0, 3),
  A: time => days[time.weekday]!,
  b: time => months[time.month - 1]!.slice(0, 3),
  h: time => months[time.month - 1]!.slice(0, 3),
  B: time => months[time.month - 1]!,
  c: time => strftime('%a %b %e %H:%M:%S %Y', time),
  C: (time, number) => number(Math.floor(time.year / 100)),
  d: (time, number) => number(time.day),
  D: time => strftime('%m/%d/%y', time),
  x: time => strftime('%m/%d/%y', time),
  e: time => String(time.day).padStart(2, ' '),
  f: time => String(time.micros).padStart(6, '0'),
  F: time => strftime('%Y-%m-%d', time),
  G: time => String(isoWeek(time).year),
  H: (time, number) => number(time.hour),
  I: (time, number) => number(time.hour % 12 || 12),
  j: (time, number) => (number === two ? String(dayOfYear(time)).padStart(3, '0') : String(dayOfYear(time))),
  m: (time, number) => number(time.month),
  M: (time, number) => number(time.minute),
  n: () => '\n',
  p: time => (time.hour < 12 ? 'AM' : 'PM'),
  r: time => strftime('%I:%M:%S %p', time),
  R: time => strftime('%H:%M', time),
  s: time => String(time.epochSeconds),
  S: (time, number) => number(time.second),
  t: () => '\t',
  T: time => strftime('%H:%M:%S', time),
  X: time => strftime('%H:%M:%S', time),
  u: time => String(time.weekday || 7),
  U: (time, number) => number(Math.floor((dayOfYear(time) + 6 - time.weekday) / 7)),
  V: (time, number) => number(isoWeek(time).week),
  w: time => String(time.weekday),
  W: (time, number) => number(Math.floor((dayOfYear(time) + 6 - ((time.weekday + 6) % 7)) / 7)),
  y: (time, number) => number(time.year % 100),
  Y: time => String(time.year),
  z: time => `${time.offset < 0 ? '-' : '+'}${two(Math.floor(Math.abs(time.offset) / 60))}${two(Math.abs(time.offset) % 60)}`,
  Z: time => (time.offset === 0 ? 'UTC' : zoneName(time)),
  '%': () => '%',
}

function zoneName(time: CivilTime): string {
  const parts = new Intl.DateTimeFormat('en', { timeZoneName: 'short' }).formatToParts(new Date(time.epochSeconds * 1000))
  return parts.find(part => part.type === 'timeZoneName')?.value ?? ''
}

function dayOfYear(time: CivilTime): number {
  return Math.round((Date.UTC(time.year, time.month - 1, time.day) - Date.UTC(time.year, 0, 1)) / 86400000) + 1
}

function isoWeek(time: CivilTime): { year: number; week: number } {
  const thursday = new Date(Date.UTC(time.year, time.month - 1, time.day + 4 - (time.weekday || 7)))
  const start = Date.UTC(thursday.getUTCFullYear(), 0, 1)
  return { year: thursday.getUTCFullYear(), week: Math.ceil(((thursday.getTime() - start) / 86400000 + 1) / 7) }
}
