/** Against what Python's strftime says (LANG=C). */
import test from 'ava'
import { civilTime, strftime } from '../../src/engine/strftime.js'

const format = '%a|%A|%b|%B|%c|%C|%d|%D|%e|%F|%G|%H|%h|%I|%j|%m|%M|%n|%p|%r|%R|%S|%T|%t|%u|%U|%V|%w|%W|%y|%Y|%z|%%'
const expected: readonly [seconds: number, text: string][] = [
  [0, 'Thu|Thursday|Jan|January|Thu Jan  1 00:00:00 1970|19|01|01/01/70| 1|1970-01-01|1970|00|Jan|12|001|01|00|\n|AM|12:00:00 AM|00:00|00|00:00:00|\t|4|00|01|4|00|70|1970|+0000|%'],
  [951782399, 'Mon|Monday|Feb|February|Mon Feb 28 23:59:59 2000|20|28|02/28/00|28|2000-02-28|2000|23|Feb|11|059|02|59|\n|PM|11:59:59 PM|23:59|59|23:59:59|\t|1|09|09|1|09|00|2000|+0000|%'],
  [1104537600, 'Sat|Saturday|Jan|January|Sat Jan  1 00:00:00 2005|20|01|01/01/05| 1|2005-01-01|2004|00|Jan|12|001|01|00|\n|AM|12:00:00 AM|00:00|00|00:00:00|\t|6|00|53|6|00|05|2005|+0000|%'],
  [1230768000, 'Thu|Thursday|Jan|January|Thu Jan  1 00:00:00 2009|20|01|01/01/09| 1|2009-01-01|2009|00|Jan|12|001|01|00|\n|AM|12:00:00 AM|00:00|00|00:00:00|\t|4|00|01|4|00|09|2009|+0000|%'],
  [1700000000, 'Tue|Tuesday|Nov|November|Tue Nov 14 22:13:20 2023|20|14|11/14/23|14|2023-11-14|2023|22|Nov|10|318|11|13|\n|PM|10:13:20 PM|22:13|20|22:13:20|\t|2|46|46|2|46|23|2023|+0000|%'],
  [1704067199, 'Sun|Sunday|Dec|December|Sun Dec 31 23:59:59 2023|20|31|12/31/23|31|2023-12-31|2023|23|Dec|11|365|12|59|\n|PM|11:59:59 PM|23:59|59|23:59:59|\t|7|53|52|0|52|23|2023|+0000|%'],
  [1893456000, 'Tue|Tuesday|Jan|January|Tue Jan  1 00:00:00 2030|20|01|01/01/30| 1|2030-01-01|2030|00|Jan|12|001|01|00|\n|AM|12:00:00 AM|00:00|00|00:00:00|\t|2|00|01|2|00|30|2030|+0000|%'],
]

test('every letter says what it says in Python', t => {
  for (const [seconds, text] of expected) t.is(strftime(format, civilTime(seconds * 1e6, 'utc')), text)
})

test('micros, seconds since 1970, no padding, zones and what is no letter', t => {
  const time = civilTime(1_700_000_000_000_042, 'utc')
  t.is(strftime('%f %s %-d %-m %-H %Z %Q %', time), '000042 1700000000 14 11 22 UTC %Q %')
  t.is(strftime('', time), '')
  t.is(strftime('no letters', time), 'no letters')
})

test('local times follow their zone through its changes, in any order of asking', t => {
  const zone = process.env.TZ
  try {
    // An hour's change in spring and autumn, half an hour's, and a zone that skipped a day.
    for (const [name, around] of [['Europe/Berlin', 1711846800], ['Europe/Berlin', 1729990800], ['Australia/Lord_Howe', 1712415600], ['Pacific/Apia', 1325239200], ['America/St_Johns', 1299994260]] as const) {
      process.env.TZ = name
      for (const seconds of [around - 90_000, around - 1, around, around + 1, around - 1800, around + 3600, around + 90_000, around - 1]) {
        const date = new Date(seconds * 1000)
        const two = (value: number): string => String(value).padStart(2, '0')
        const wanted = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())} ${date.getDay()}`
        t.is(strftime('%Y-%m-%d %H:%M:%S %w', civilTime(seconds * 1e6, 'local')), wanted, `${name} ${seconds}`)
      }
    }
  } finally {
    if (zone === undefined) delete process.env.TZ
    else process.env.TZ = zone
  }
})

test('a format that begins with the day is right for times that alternate between days', t => {
  for (const seconds of [1700000000, 1700086400, 1700000001, 1700086401]) {
    t.is(strftime('%F %T', civilTime(seconds * 1e6, 'utc')), new Date(seconds * 1000).toISOString().slice(0, 19).replace('T', ' '))
    t.is(strftime('%T %F', civilTime(seconds * 1e6, 'utc')), new Date(seconds * 1000).toISOString().slice(0, 19).split('T').reverse().join(' '))
  }
})
