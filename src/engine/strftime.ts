/** Time texts as Python's strftime makes them; day and month names are always English. */

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
  const seconds = Math.floor(micros / 1e6)
  const date = new Date(seconds * 1000)
  const rest = micros - seconds * 1e6
  if (zone === 'utc') {
    return {
      year: date.getUTCFullYear(), month: date.getUTCMonth() + 1, day: date.getUTCDate(), hour: date.getUTCHours(), minute: date.getUTCMinutes(),
      second: date.getUTCSeconds(), micros: rest, weekday: date.getUTCDay(), offset: 0, epochSeconds: seconds,
    }
  }
  return {
    year: date.getFullYear(), month: date.getMonth() + 1, day: date.getDate(), hour: date.getHours(), minute: date.getMinutes(), second: date.getSeconds(),
    micros: rest, weekday: date.getDay(), offset: -date.getTimezoneOffset(), epochSeconds: seconds,
  }
}

const two = (value: number): string => String(value).padStart(2, '0')

type Part = string | ((time: CivilTime) => string)
/** Formats as taken apart: a listing uses one for all of its rows. */
const compiled = new Map<string, readonly Part[]>()

export function strftime(format: string, time: CivilTime): string {
  let parts = compiled.get(format)
  if (!parts) compiled.set(format, (parts = compile(format)))
  let text = ''
  for (const part of parts) text += typeof part === 'string' ? part : part(time)
  return text
}

function compile(format: string): Part[] {
  const parts: Part[] = []
  let end = 0
  for (const match of format.matchAll(/%(-?)([a-zA-Z%])/g)) {
    if (match.index > end) parts.push(format.slice(end, match.index))
    parts.push(field(match[0], match[1] === '-', match[2]!))
    end = match.index + match[0].length
  }
  if (end < format.length) parts.push(format.slice(end))
  return parts
}

/** What a letter stands for; `bare`: without padding. */
function field(whole: string, bare: boolean, letter: string): Part {
  const padded = (value: number, width = 2): string => (bare ? String(value) : String(value).padStart(width, '0'))
  const number = (of: (time: CivilTime) => number, width = 2): Part => time => padded(of(time), width)
  const composed = (format: string): Part => time => strftime(format, time)
  switch (letter) {
    case 'a': return time => days[time.weekday]!.slice(0, 3)
    case 'A': return time => days[time.weekday]!
    case 'b': case 'h': return time => months[time.month - 1]!.slice(0, 3)
    case 'B': return time => months[time.month - 1]!
    case 'c': return composed('%a %b %e %H:%M:%S %Y')
    case 'C': return number(time => Math.floor(time.year / 100))
    case 'd': return number(time => time.day)
    case 'D': case 'x': return composed('%m/%d/%y')
    case 'e': return time => String(time.day).padStart(2, ' ')
    case 'f': return time => String(time.micros).padStart(6, '0')
    case 'F': return composed('%Y-%m-%d')
    case 'G': return time => String(isoWeek(time).year)
    case 'H': return number(time => time.hour)
    case 'I': return number(time => time.hour % 12 || 12)
    case 'j': return number(dayOfYear, 3)
    case 'm': return number(time => time.month)
    case 'M': return number(time => time.minute)
    case 'n': return '\n'
    case 'p': return time => (time.hour < 12 ? 'AM' : 'PM')
    case 'r': return composed('%I:%M:%S %p')
    case 'R': return composed('%H:%M')
    case 's': return time => String(time.epochSeconds)
    case 'S': return number(time => time.second)
    case 't': return '\t'
    case 'T': case 'X': return composed('%H:%M:%S')
    case 'u': return time => String(time.weekday || 7)
    case 'U': return number(time => Math.floor((dayOfYear(time) + 6 - time.weekday) / 7))
    case 'V': return number(time => isoWeek(time).week)
    case 'w': return time => String(time.weekday)
    case 'W': return number(time => Math.floor((dayOfYear(time) + 6 - ((time.weekday + 6) % 7)) / 7))
    case 'y': return number(time => time.year % 100)
    case 'Y': return time => String(time.year)
    case 'z': return time => `${time.offset < 0 ? '-' : '+'}${two(Math.floor(Math.abs(time.offset) / 60))}${two(Math.abs(time.offset) % 60)}`
    case 'Z': return time => (time.offset === 0 ? 'UTC' : zoneName(time))
    case '%': return '%'
  }
  return whole
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
