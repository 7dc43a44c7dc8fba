/** Sizes, times, durations as Borg writes them (output.md §11). */
import { civilTime, strftime } from '../../engine/strftime.js'
import { maxStoredTimeNs } from '../../engine/constants.js'

export { formatSize, type SizeOptions } from '../../engine/size-text.js'

/** Local text of a moment, `Wed, 2024-05-01 09:00:00`. */
export function formatTime(micros: number, format = '%a, %Y-%m-%d %H:%M:%S'): string {
  return strftime(format, civilTime(micros, 'local'))
}

/** Local time for JSON, `2024-05-01T09:00:00.000000`. */
export function isoTime(micros: number): string {
  return strftime('%Y-%m-%dT%H:%M:%S.%f', civilTime(micros, 'local'))
}

/** Microseconds of an item's time, clamped and rounded through a double as Borg does. */
export function itemMicros(ns: bigint): number {
  const clamped = ns < 0n ? 0n : ns > maxStoredTimeNs ? maxStoredTimeNs : ns
  const seconds = Number(clamped) / 1e9
  const whole = Math.floor(seconds)
  const micros = (seconds - whole) * 1e6
  const floor = Math.floor(micros)
  // Half goes to the even neighbour.
  const rounded = micros - floor > 0.5 || (micros - floor === 0.5 && floor % 2 === 1) ? floor + 1 : floor
  return whole * 1e6 + rounded
}

/** `3 minutes 4.56 seconds`. */
export function formatDuration(seconds: number): string {
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60]
  const parts = [`${(seconds % 60).toFixed(2)} seconds`]
  if (minutes || hours || days) parts.unshift(`${minutes} minutes`)
  if (hours || days) parts.unshift(`${hours} hours`)
  if (days) parts.unshift(`${days} days`)
  return parts.join(' ')
}
