/** Days and dates of the Gregorian calendar by plain arithmetic: lists of thousands of times are too many for a Date object each. */

const daysPerEra = 146_097
/** From March 1 of the year 0 to 1970. */
const epochOffset = 719_468

/** Days from 1970-01-01 to a date; `month` from 1. The date must exist. */
export function dayNumber(year: number, month: number, day: number): number {
  // Years that begin in March have their leap day last.
  const marchYear = month <= 2 ? year - 1 : year
  const era = Math.floor(marchYear / 400)
  const yearOfEra = marchYear - era * 400
  const dayOfYear = Math.floor((153 * (month > 2 ? month - 3 : month + 9) + 2) / 5) + day - 1
  return era * daysPerEra + yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear - epochOffset
}

export interface CalendarDate {
  readonly year: number
  /** From 1. */
  readonly month: number
  readonly day: number
  /** 0 is Sunday. */
  readonly weekday: number
}

/** The inverse. */
export function dateOfDay(days: number): CalendarDate {
  const sinceEpoch = days + epochOffset
  const era = Math.floor(sinceEpoch / daysPerEra)
  const dayOfEra = sinceEpoch - era * daysPerEra
  const yearOfEra = Math.floor((dayOfEra - Math.floor(dayOfEra / 1460) + Math.floor(dayOfEra / 36_524) - Math.floor(dayOfEra / (daysPerEra - 1))) / 365)
  const dayOfYear = dayOfEra - (yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100))
  const fromMarch = Math.floor((5 * dayOfYear + 2) / 153)
  const month = fromMarch < 10 ? fromMarch + 3 : fromMarch - 9
  return { year: yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, day: dayOfYear - Math.floor((153 * fromMarch + 2) / 5) + 1, weekday: (((days + 4) % 7) + 7) % 7 }
}
