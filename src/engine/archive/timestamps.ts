/** Archive times: UTC text with microseconds (archive.md §2, §3). */

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
    const millis = Date.parse(`${text.slice(0, 19)}Z`)
    return Number.isNaN(millis) ? undefined : millis * 1000 + Number(text.slice(20))
  }
  const match = /^(\d{4,}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(?:\+00:00|Z)?$/.exec(text)
  if (!match) return undefined
  const millis = Date.parse(`${match[1]}Z`)
  return Number.isNaN(millis) ? undefined : millis * 1000 + Number((match[2] ?? '').padEnd(6, '0'))
}

/** Now, in microseconds. */
export function nowMicros(): number {
  return Math.floor((performance.timeOrigin + performance.now()) * 1000)
}
