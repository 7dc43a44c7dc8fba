/** Against the Date of the language, which knows the same calendar. */
import test from 'ava'
import { dateOfDay, dayNumber } from '../../src/engine/calendar.js'
import { formatTimestamp, parseTimestamp } from '../../src/engine/archive/timestamps.js'

test('every day from year 1 to 9999 has its date and every date its day', t => {
  const first = Date.parse('0001-01-01T00:00:00Z') / 86400e3, last = Date.parse('9999-12-31T00:00:00Z') / 86400e3
  // A prime, so that all days of the year are met.
  for (let day = first; day <= last; day += 13) {
    const date = new Date(day * 86400e3)
    const found = dateOfDay(day)
    const wanted = { year: date.getUTCFullYear(), month: date.getUTCMonth() + 1, day: date.getUTCDate(), weekday: date.getUTCDay() }
    if (found.year !== wanted.year || found.month !== wanted.month || found.day !== wanted.day || found.weekday !== wanted.weekday) t.deepEqual(found, wanted)
    if (dayNumber(wanted.year, wanted.month, wanted.day) !== day) t.is(dayNumber(wanted.year, wanted.month, wanted.day), day)
  }
  t.pass()
})

test('times of archives are read as Date reads them, whatever the day of the month', t => {
  for (const text of ['1970-01-01T00:00:00.000000', '2024-02-29T23:59:59.999999', '2024-12-31T12:00:00.000001', '1999-03-01T00:00:00.500000', '2026-11-30T07:08:09.123456']) {
    const micros = Date.parse(`${text.slice(0, 19)}Z`) * 1000 + Number(text.slice(20))
    t.is(parseTimestamp(text), micros)
    t.is(formatTimestamp(micros), text)
  }
  t.is(parseTimestamp('2024-13-01T00:00:00.000000'), undefined)
  t.is(parseTimestamp('2024-12-01T25:00:00.000000'), undefined)
  t.is(parseTimestamp('2024-12-01T00:61:00.000000'), undefined)
})
