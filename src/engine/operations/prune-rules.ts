/**
 * Which archives `prune` keeps and why (prune.md §1): a pure function of names, times, rules and the clock. Periods are those of
 * local time.
 */
import { checkpointSuffix, isCheckpointName } from '../archive/manifest.js'
import { type CivilTime, civilTime, strftime } from '../strftime.js'

/** In the order in which they choose. */
export const periodRules = ['secondly', 'minutely', 'hourly', 'daily', 'weekly', 'monthly', 'yearly'] as const
export type PeriodRule = (typeof periodRules)[number]

const periods: Readonly<Record<PeriodRule, string>> = {
  secondly: '%Y-%m-%d %H:%M:%S', minutely: '%Y-%m-%d %H:%M', hourly: '%Y-%m-%d %H', daily: '%Y-%m-%d', weekly: '%G-%V', monthly: '%Y-%m', yearly: '%Y',
}

export interface PruneRules {
  /** How many archives each rule keeps; negative: without limit; 0 or absent: the rule is not in use. */
  readonly counts: Readonly<Partial<Record<PeriodRule, number>>>
  /** --keep-within. */
  readonly withinHours?: number
}

export interface PruneCandidate {
  /** Byte string. */
  readonly name: string
  /** Start, microseconds since 1970. */
  readonly micros: number
}

/** `checkpoint`: the newest unfinished archive, newer than all finished ones. */
export type Verdict = { readonly keep: true; readonly rule: string; readonly number: number } | { readonly keep: true; readonly rule: 'checkpoint' } | { readonly keep: false }

/** A checkpoint is chosen by its name with or without the suffix. */
export function matchesWithCheckpoints(name: string, matches: (name: string) => boolean): boolean {
  return matches(name) || matches(name.replace(checkpointSuffix, ''))
}

/**
 * All candidates, newest first (the same moment: name descending), each with its verdict. `candidates` are those that -a or -P
 * chose; others neither count nor are touched. `civil` applies the zone whose days are meant.
 */
export function applyPruneRules<C extends PruneCandidate>(candidates: Iterable<C>, rules: PruneRules, nowMicros: number, civil: (micros: number) => CivilTime = localTime): [C, Verdict][] {
  const sorted = [...candidates].sort((a, b) => b.micros - a.micros || (a.name < b.name ? 1 : -1))
  const archives = sorted.filter(({ name }) => !isCheckpointName(name))
  const kept = new Map<C, Verdict>()
  if (rules.withinHours !== undefined) {
    const limit = nowMicros - rules.withinHours * 3600e6
    for (const archive of archives) if (archive.micros > limit) kept.set(archive, { keep: true, rule: 'within', number: kept.size + 1 })
  }
  for (const rule of periodRules) keepByPeriod(archives, rule, rules.counts[rule] ?? 0, kept, civil)
  const newest = sorted[0]
  if (newest && isCheckpointName(newest.name)) kept.set(newest, { keep: true, rule: 'checkpoint' })
  return sorted.map(archive => [archive, kept.get(archive) ?? { keep: false }])
}

function localTime(micros: number): CivilTime {
  return civilTime(micros, 'local')
}

/** Each newest archive of a period opens it, and is kept unless it is already: then the period is used up all the same. */
function keepByPeriod<C extends PruneCandidate>(archives: readonly C[], rule: PeriodRule, wanted: number, kept: Map<C, Verdict>, civil: (micros: number) => CivilTime): void {
  if (wanted === 0) return
  let number = 0
  let last: string | undefined
  for (const archive of archives) {
    const period = strftime(periods[rule], civil(archive.micros))
    if (period === last) continue
    last = period
    if (kept.has(archive)) continue
    kept.set(archive, { keep: true, rule, number: ++number })
    if (number === wanted) return
  }
  // A young history: the oldest fills the rule up as long as it is not full.
  const oldest = archives.at(-1)
  if (oldest && number < wanted && !kept.has(oldest)) kept.set(oldest, { keep: true, rule: `${rule}[oldest]`, number: number + 1 })
}

const unitHours: Readonly<Record<string, number>> = { H: 1, d: 24, w: 24 * 7, m: 24 * 31, y: 24 * 365 }

/** Hours of an interval such as `2w`; instead the complaint about one that is wrong. */
export function parseInterval(text: string): number | { readonly problem: string } {
  const unit = text.slice(-1)
  const hours = unitHours[unit]
  if (hours === undefined) return { problem: `Unexpected interval time unit "${unit}": expected one of ['H', 'd', 'w', 'm', 'y']` }
  const number = text.slice(0, -1)
  if (!/^\s*\+?\d+\s*$/.test(number) || Number(number) === 0) return { problem: `Unexpected interval number "${number}": expected an integer greater than 0` }
  return Number(number) * hours
}
