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

/** Formats as parts: literal text, or a directive with its minus. */
const compiled = new Map<string, readonly (string | { readonly letter: string; readonly minus: boolean })[]>()

export function strftime(format: string, time: CivilTime): string {
  let parts = compiled.get(format)
  if (!parts) compiled.set(format, (parts = compile(format)))
  let text = ''
  for (const part of parts) text += typeof part === 'string' ? part : directive(part.letter, part.minus, time)
  return text
}

function compile(format: string): (string | { letter: string; minus: boolean })[] {
  return format.split(/(%-?[a-zA-Z%])/).filter(part => part !== '').map(part => (/^%-?[a-zA-Z%]$/.test(part) ? { letter: part.at(-1)!, minus: part.length === 3 } : part))
}

function directive(letter: string, minus: boolean, time: CivilTime): string {
  const number = (value: number, width = 2): string => (minus ? String(value) : String(value).padStart(width, '0'))
  switch (letter) {
    case 'a': return days[time.weekday]!.slice(0, 3)
    case 'A': return days[time.weekday]!
    case 'b': case 'h': return months[time.month - 1]!.slice(0, 3)
    case 'B': return months[time.month - 1]!
    case 'c': return strftime('%a %b %e %H:%M:%S %Y', time)
    case 'C': return number(Math.floor(time.year / 100))
    case 'd': return number(time.day)
    case 'D': case 'x': return strftime('%m/%d/%y', time)
    case 'e': return String(time.day).padStart(2, ' ')
    case 'f': return String(time.micros).padStart(6, '0')
    case 'F': return strftime('%Y-%m-%d', time)
    case 'G': return String(isoWeek(time).year)
    case 'H': return number(time.hour)
    case 'I': return number(time.hour % 12 || 12)
    case 'j': return number(dayOfYear(time), 3)
    case 'm': return number(time.month)
    case 'M': return number(time.minute)
    case 'n': return '\n'
    case 'p': return time.hour < 12 ? 'AM' : 'PM'
    case 'r': return strftime('%I:%M:%S %p', time)
    case 'R': return strftime('%H:%M', time)
    case 's': return String(time.epochSeconds)
    case 'S': return number(time.second)
    case 't': return '\t'
    case 'T': case 'X': return strftime('%H:%M:%S', time)
    case 'u': return String(time.weekday || 7)
    case 'U': return number(Math.floor((dayOfYear(time) + 6 - time.weekday) / 7))
    case 'V': return number(isoWeek(time).week)
    case 'w': return String(time.weekday)
    case 'W': return number(Math.floor((dayOfYear(time) + 6 - ((time.weekday + 6) % 7)) / 7))
    case 'y': return number(time.year % 100)
    case 'Y': return String(time.year)
    case 'z': return `${time.offset < 0 ? '-' : '+'}${two(Math.floor(Math.abs(time.offset) / 60))}${two(Math.abs(time.offset) % 60)}`
    case 'Z': return time.offset === 0 ? 'UTC' : zoneName(time)
    case '%': return '%'
  }
  return `%${minus ? '-' : ''}${letter}`
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
