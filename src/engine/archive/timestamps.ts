/** Archive times: UTC text with microseconds (archive.md §2, §3). */
import { dayNumber } from '../calendar.js'

/** `YYYY-MM-DDTHH:MM:SS.ffffff` of microseconds since 1970. */
export function formatTimestamp(micros: number): string {
  const seconds = Math.floor(micros / 1e6)
  const rest = micros - seconds * 1e6
  return `${new Date(seconds * 1000).toISOString().slice(0, 19)}.${String(rest).padStart(6, '0')}`
}

const usualForm = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$/

/** Microseconds since 1970; the fraction may be missing. undefined for anything else. */
export function parseTimestamp(text: string): number | undefined {
  // Lists of thousands of archives are made of the one form that everybody writes.
  if (usualForm.test(text)) {
    const month = two(text, 5), day = two(text, 8), hour = two(text, 11), minute = two(text, 14), second = two(text, 17)
    const micros = (two(text, 20) * 100 + two(text, 22)) * 100 + two(text, 24)
    // Every month has so many days. What is odd is left to Date.
    if (month >= 1 && month <= 12 && day >= 1 && day <= 28 && hour < 24 && minute < 60 && second < 60) {
      return (((dayNumber(two(text, 0) * 100 + two(text, 2), month, day) * 24 + hour) * 60 + minute) * 60 + second) * 1e6 + micros
    }
    const millis = Date.parse(`${text.slice(0, 19)}Z`)
    return Number.isNaN(millis) ? undefined : millis * 1000 + micros
  }
  const match = /^(\d{4,}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(?:\+00:00|Z)?$/.exec(text)
  if (!match) return undefined
  const millis = Date.parse(`${match[1]}Z`)
  return Number.isNaN(millis) ? undefined : millis * 1000 + Number((match[2] ?? '').padEnd(6, '0'))
}

/** The number of two digits. */
function two(text: string, at: number): number {
  return text.charCodeAt(at) * 10 + text.charCodeAt(at + 1) - 528
}

/** Now, in microseconds. */
export function nowMicros(): number {
  return Math.floor((performance.timeOrigin + performance.now()) * 1000)
}
