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

interface Directive {
  readonly letter: string
  readonly minus: boolean
}

/** A format taken apart, and what the last time made of its beginning. */
interface CompiledFormat {
  readonly parts: readonly (string | Directive)[]
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

function texts(parts: readonly (string | Directive)[], from: number, to: number, time: CivilTime): string {
  let text = ''
  for (let at = from; at < to; at++) {
    const part = parts[at]!
    text += typeof part === 'string' ? part : directive(part.letter, part.minus, time)
  }
  return text
}

function compile(format: string): CompiledFormat {
  const parts = format.split(/(%-?[a-zA-Z%])/).filter(part => part !== '').map(part => (/^%-?[a-zA-Z%]$/.test(part) ? { letter: part.at(-1)!, minus: part.length === 3 } : part))
  const end = parts.findIndex(part => typeof part !== 'string' && !sameAllDay.test(part.letter))
  return { parts, dayParts: end < 0 ? parts.length : end, day: Number.NaN, dayText: '' }
}

function directive(letter: string, minus: boolean, time: CivilTime): string {
  switch (letter) {
    case 'a': return days[time.weekday]!.slice(0, 3)
    case 'A': return days[time.weekday]!
    case 'b': case 'h': return months[time.month - 1]!.slice(0, 3)
    case 'B': return months[time.month - 1]!
    case 'c': return strftime('%a %b %e %H:%M:%S %Y', time)
    case 'C': return numbered(minus, Math.floor(time.year / 100))
    case 'd': return numbered(minus, time.day)
    case 'D': case 'x': return strftime('%m/%d/%y', time)
    case 'e': return String(time.day).padStart(2, ' ')
    case 'f': return String(time.micros).padStart(6, '0')
    case 'F': return strftime('%Y-%m-%d', time)
    case 'G': return String(isoWeek(time).year)
    case 'H': return numbered(minus, time.hour)
    case 'I': return numbered(minus, time.hour % 12 || 12)
    case 'j': return (minus ? String(dayOfYear(time)) : String(dayOfYear(time)).padStart(3, '0'))
    case 'm': return numbered(minus, time.month)
    case 'M': return numbered(minus, time.minute)
    case 'n': return '\n'
    case 'p': return time.hour < 12 ? 'AM' : 'PM'
    case 'r': return strftime('%I:%M:%S %p', time)
    case 'R': return strftime('%H:%M', time)
    case 's': return String(time.epochSeconds)
    case 'S': return numbered(minus, time.second)
    case 't': return '\t'
    case 'T': case 'X': return strftime('%H:%M:%S', time)
    case 'u': return String(time.weekday || 7)
    case 'U': return numbered(minus, Math.floor((dayOfYear(time) + 6 - time.weekday) / 7))
    case 'V': return numbered(minus, isoWeek(time).week)
    case 'w': return String(time.weekday)
    case 'W': return numbered(minus, Math.floor((dayOfYear(time) + 6 - ((time.weekday + 6) % 7)) / 7))
    case 'y': return numbered(minus, time.year % 100)
    case 'Y': return String(time.year)
    case 'z': return `${time.offset < 0 ? '-' : '+'}${two(Math.floor(Math.abs(time.offset) / 60))}${two(Math.abs(time.offset) % 60)}`
    case 'Z': return time.offset === 0 ? 'UTC' : zoneName(time)
    case '%': return '%'
  }
  return `%${minus ? '-' : ''}${letter}`
}

function numbered(minus: boolean, value: number): string {
  return minus ? String(value) : two(value)
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
