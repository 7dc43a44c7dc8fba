/** Every rule and every worked example of prune.md §3; the real borg judges random sets in test/interop/prune.test.ts. */
import test from 'ava'
import { applyPruneRules, matchesWithCheckpoints, parseInterval, type PruneRules, type Verdict } from '../../../src/engine/operations/prune-rules.js'
import { civilTime } from '../../../src/engine/strftime.js'

const hour = 3600e6
const at = (text: string): number => Date.parse(`${text.includes('T') ? text : `${text}T12:00:00`}Z`) * 1000
const archives = (times: Record<string, string | number>) => Object.entries(times).map(([name, time]) => ({ name, micros: typeof time === 'number' ? time : at(time) }))

function words(verdict: Verdict): string {
  return !verdict.keep ? 'pruned' : 'number' in verdict ? `${verdict.rule} #${verdict.number}` : verdict.rule
}

/** What is kept, newest first: `name rule #n`; days are those of UTC or so many hours east of it. */
function kept(candidates: ReturnType<typeof archives>, rules: PruneRules, now = at('2030-01-01'), hoursEast = 0): string[] {
  return judged(candidates, rules, now, hoursEast).filter(([, verdict]) => verdict.keep).map(([{ name }, verdict]) => `${name} ${words(verdict)}`)
}

function judged(candidates: ReturnType<typeof archives>, rules: PruneRules, now: number, hoursEast = 0) {
  return applyPruneRules(candidates, rules, now, micros => civilTime(micros + hoursEast * hour, 'utc'))
}

const w = archives({ w1: '2020-12-27', w2: '2020-12-28', w3: '2020-12-31', w4: '2021-01-01', w5: '2021-01-03', w6: '2021-01-04' })

test('weeks are those of ISO, whose year is not that of the calendar', t => {
  t.deepEqual(kept(w, { counts: { weekly: 9 } }), ['w6 weekly #1', 'w5 weekly #2', 'w1 weekly #3'])
  t.deepEqual(kept(w, { counts: { weekly: 2 } }), ['w6 weekly #1', 'w5 weekly #2'])
})

test('what an earlier rule kept uses up its period and is not counted again', t => {
  t.deepEqual(kept(w, { counts: { daily: 2, monthly: 2, yearly: 2 } }), ['w6 daily #1', 'w5 daily #2', 'w3 monthly #1', 'w1 monthly[oldest] #2'])
  t.deepEqual(kept(w, { counts: { weekly: 1, yearly: 1 } }), ['w6 weekly #1', 'w3 yearly #1'])
})

test('a rule without limit has no oldest', t => {
  t.deepEqual(kept(w, { counts: { yearly: -1 } }), ['w6 yearly #1', 'w3 yearly #2'])
})

const ta = archives({
  ta: '2024-05-01T09:00:00', tb: '2024-05-01T21:30:00', tc: '2024-05-01T22:30:00', td: '2024-05-02T10:00:00', te: '2024-05-02T21:59:59', tf: '2024-05-02T22:00:00',
})

test('periods are those of local time', t => {
  const rules = { counts: { daily: 5 } }
  t.deepEqual(kept(ta, rules), ['tf daily #1', 'tc daily #2', 'ta daily[oldest] #3'])
  t.deepEqual(kept(ta, rules, undefined, 2), ['tf daily #1', 'te daily #2', 'tb daily #3', 'ta daily[oldest] #4'], 'Berlin')
  t.deepEqual(kept(ta, rules, undefined, -4), ['tf daily #1', 'tc daily #2', 'ta daily[oldest] #3'], 'New York')
})

test('several rules choose one after the other', t => {
  t.deepEqual(kept(ta, { counts: { hourly: 2, daily: 2 } }), ['tf hourly #1', 'te hourly #2', 'tc daily #1', 'ta daily[oldest] #2'])
  t.deepEqual(kept(ta, { counts: { secondly: 2 } }), ['tf secondly #1', 'te secondly #2'])
})

test('within keeps everything younger; its archives use up their periods', t => {
  const now = at('2024-06-03T20:11:00')
  const r = archives(Object.fromEntries([1, 13, 25, 37, 61, 85].map((hours, index) => [`r${index + 1}`, now - hours * hour])))
  t.deepEqual(kept(r, { counts: { daily: 2 }, withinHours: 24 }, now), ['r1 within #1', 'r2 within #2', 'r3 daily #1', 'r5 daily #2'])
  t.deepEqual(kept(r, { counts: { daily: 5 }, withinHours: 24 }, now), ['r1 within #1', 'r2 within #2', 'r3 daily #1', 'r5 daily #2', 'r6 daily #3'])
  t.deepEqual(kept(r, { counts: { daily: 2 } }, now), ['r1 daily #1', 'r3 daily #2'])
  t.deepEqual(kept(r, { counts: {}, withinHours: 13 }, now), ['r1 within #1'], 'strictly later than the limit')
})

test('of checkpoints only one newer than all archives is kept, and none counts', t => {
  const now = at('2024-06-03T20:11:00')
  const c = archives({ c1: now - 50 * hour, 'c1.checkpoint': now - 40 * hour, c2: now - 30 * hour, 'c3.checkpoint': now - 20 * hour, 'c3.checkpoint.1': now - 10 * hour })
  t.deepEqual(kept(c, { counts: { daily: 5 } }), ['c3.checkpoint.1 checkpoint', 'c2 daily #1', 'c1 daily #2'])
  const c1 = c.filter(({ name }) => matchesWithCheckpoints(name, stem => stem === 'c1'))
  t.deepEqual(c1.map(({ name }) => name), ['c1', 'c1.checkpoint'])
  t.deepEqual(kept(c1, { counts: { daily: 1 } }), ['c1.checkpoint checkpoint', 'c1 daily #1'])
  t.deepEqual(kept(c, { counts: { daily: 1 } }), ['c3.checkpoint.1 checkpoint', 'c2 daily #1'])
  t.deepEqual(kept(c.filter(({ name }) => name !== 'c3.checkpoint.1' && name !== 'c3.checkpoint'), { counts: { daily: 1 } }), ['c2 daily #1'])
})

test('of the same second the greater name counts as the newer', t => {
  const d = archives({ d0: '2024-01-01T00:00:00', d1: '2024-01-01T00:00:00', d2: '2024-01-01T00:00:00' })
  t.deepEqual(kept(d, { counts: { daily: 1 } }), ['d2 daily #1'])
  t.deepEqual(kept(d, { counts: { secondly: 2 } }), ['d2 secondly #1', 'd0 secondly[oldest] #2'])
})

test("Borg's own example of a year", t => {
  const days = ['2015-01-01', '2015-01-02', '2015-05-31', '2015-06-30', '2015-07-31', '2015-08-31', '2015-09-30', '2015-10-31', '2015-11-30']
  for (let day = 16; day <= 31; day++) if (day !== 19) days.push(`2015-12-${day}`)
  const year = archives(Object.fromEntries(days.map(day => [day, day])))
  const verdicts = judged(year, { counts: { daily: 14, monthly: 6, yearly: 1 } }, at('2016-01-01'))
  const said = Object.fromEntries(verdicts.map(([{ name }, verdict]) => [name, words(verdict)]))
  const december = [31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 18, 17]
  for (const [index, day] of december.entries()) t.is(said[`2015-12-${day}`], `daily #${index + 1}`)
  for (const [index, day] of ['2015-11-30', '2015-10-31', '2015-09-30', '2015-08-31', '2015-07-31', '2015-06-30'].entries()) t.is(said[day], `monthly #${index + 1}`)
  t.is(said['2015-01-01'], 'yearly[oldest] #1')
  for (const day of ['2015-01-02', '2015-05-31', '2015-12-16']) t.is(said[day], 'pruned')
})

test('nothing is kept by rules that are not in use, and nothing is made of no archives', t => {
  t.deepEqual(kept(w, { counts: {} }), [])
  t.deepEqual(applyPruneRules([], { counts: { daily: 3 }, withinHours: 5 }, 0), [])
})

test('intervals are a number and a unit', t => {
  t.deepEqual(['1H', '2d', '3w', '4m', '5y'].map(parseInterval), [1, 48, 504, 2976, 43800])
  t.deepEqual(parseInterval('5x'), { problem: `Unexpected interval time unit "x": expected one of ['H', 'd', 'w', 'm', 'y']` })
  for (const bad of ['0d', '-1d', 'd', 'xd', '1.5d']) t.deepEqual(parseInterval(bad), { problem: `Unexpected interval number "${bad.slice(0, -1)}": expected an integer greater than 0` })
})
