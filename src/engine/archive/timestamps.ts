/** Archive times: UTC text with microseconds (archive.md §2, §3). */

/** `YYYY-MM-DDTHH:MM:SS.ffffff` of microseconds since 1970. */
export function formatTimestamp(micros: number): string {
  const seconds = Math.floor(micros / 1e6)
  const rest = micros - seconds * 1e6
  return `${new Date(seconds * 1000).toISOString().slice(0, 19)}.${String(rest).padStart(6, '0')}`
}

/** Microseconds since 1970; the fraction may be missing. undefined for anything else. */
export function parseTimestamp(text: string): number | undefined {
  // Lists of thousands of archives are made of the one form that everybody writes.
  const usual = text.length === 26 ? usualForm(text) : undefined
  if (usual !== undefined) return usual
  const match = /^(\d{4,}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(?:\+00:00|Z)?$/.exec(text)
  if (!match) return undefined
  const millis = Date.parse(`${match[1]}Z`)
  return Number.isNaN(millis) ? undefined : millis * 1000 + Number((match[2] ?? '').padEnd(6, '0'))
}

/** Now, in microseconds. */
export function nowMicros(): number {
  return Math.floor((performance.timeOrigin + performance.now()) * 1000)
}

/** The form of formatTimestamp; undefined leaves anything else, odd days included, to the careful reading. */
function usualForm(text: string): number | undefined {
  let wrong = 0
  const digits = (from: number, to: number): number => {
    let value = 0
    for (let at = from; at < to; at++) {
      const digit = text.charCodeAt(at) - 48
      if (digit < 0 || digit > 9) wrong++
      value = value * 10 + digit
    }
    return value
  }
  const [year, month, day, hour, minute, second, micros] = [digits(0, 4), digits(5, 7), digits(8, 10), digits(11, 13), digits(14, 16), digits(17, 19), digits(20, 26)]
  if (wrong > 0 || year < 1000 || month < 1 || month > 12 || day < 1 || day > 28 || hour > 23 || minute > 59 || second > 59) return undefined
  if (text[4] !== '-' || text[7] !== '-' || text[10] !== 'T' || text[13] !== ':' || text[16] !== ':' || text[19] !== '.') return undefined
  return Date.UTC(year, month - 1, day, hour, minute, second) * 1000 + micros
}
