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
