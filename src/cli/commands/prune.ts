/** `prune` (prune.md). */
import { parseTimestamp } from '../../engine/archive/timestamps.js'
import { BorgError, CommandError } from '../../engine/errors.js'
import { deleteArchives } from '../../engine/operations/delete.js'
import { applyPruneRules, matchesWithCheckpoints, parseInterval, type PeriodRule, periodRules, type Verdict } from '../../engine/operations/prune-rules.js'
import { collectStatistics } from '../../engine/operations/statistics.js'
import type { Command } from '../command.js'
import { archiveNameFilter, type CommandContext } from '../context.js'
import { deletionListener, endedBySignal, printDeletionStats } from '../deletion.js'
import { PercentLine, syncListener } from '../output/progress.js'
import { archiveLine } from '../output/summary.js'

export const prune: Command = async context => {
  const { log } = context
  const rules = rulesOf(context)
  const location = context.location('repository')
  const dryRun = context.flag('dry-run'), list = context.flag('list')
  if (context.flag('stats') && dryRun) log.message('warning', 'borg.archiver', 'Ignoring --stats. It is not supported when using --dry-run.')
  if (list) log.always('borg.output.list')

  const opened = await context.open(location, 'exclusive', 'delete')
  if (Object.keys(rules.counts).length === 0 && rules.withinHours === undefined) {
    throw new CommandError('At least one of the "keep-within", "keep-last", "keep-secondly", "keep-minutely", "keep-hourly", "keep-daily", "keep-weekly", "keep-monthly" or "keep-yearly" settings must be specified.')
  }
  const matches = await archiveNameFilter(context)
  const candidates = [...opened.manifest.archives.values()].filter(({ name }) => matchesWithCheckpoints(name, matches))
    .map(info => ({ name: info.name, micros: parseTimestamp(info.time) ?? 0, info }))
  const verdicts = applyPruneRules(candidates, rules, Date.now() * 1000).map(([{ info }, verdict]) => [info, verdict] as const)
  const doomed = verdicts.flatMap(([info, verdict]) => (verdict.keep ? [] : [info]))

  let pruned = 0
  const tell = (info: (typeof doomed)[number], verdict: Verdict): void => {
    const words = verdict.keep ? keptBecause(verdict) : dryRun ? 'Would prune:' : `Pruning archive (${++pruned}/${doomed.length}):`
    if (list) log.message('info', 'borg.output.list', `${words.padEnd(40)} ${archiveLine(info)}`)
  }
  if (dryRun) {
    for (const [info, verdict] of verdicts) tell(info, verdict)
    return
  }
  const { workers, cache } = await context.openCache(opened)
  const options = { force: context.flag('force'), checkpointIntervalMs: context.number('checkpoint-interval')! * 1000, considerParts: context.flag('consider-part-files') }
  await cache.sync(workers, syncListener(context), options.force ? doomed : [])
  const line = context.flag('progress') ? new PercentLine(log, 'prune', 5) : undefined
  context.signals.answer()
  let interrupted = false
  const sums = await deleteArchives({ opened, workers, cache }, doomed, options, deletionListener(context, false), async deletion => {
    for (const [info, verdict] of verdicts) {
      if (!verdict.keep) {
        line?.update(pruned, doomed.length, percent => `Pruning archives ${Math.round(percent).toString().padStart(3)}%`, null, pruned + 1)
        await deletion.delete(info)
      }
      tell(info, verdict)
      if (verdict.keep) continue
      if ((interrupted = await endedBySignal(context, deletion))) return
      await deletion.maybeCheckpoint()
    }
  })
  line?.finish()
  if (context.flag('stats')) printDeletionStats(context, sums, await collectStatistics({ opened, workers, cache, considerParts: options.considerParts }))
  if (interrupted) throw new BorgError('Error', 'Got Ctrl-C / SIGINT.')
}

function rulesOf(context: CommandContext): { counts: Partial<Record<PeriodRule, number>>; withinHours?: number } {
  const counts: Partial<Record<PeriodRule, number>> = {}
  for (const rule of periodRules) {
    const count = context.number(rule === 'secondly' ? 'keep-last' : `keep-${rule}`) ?? 0
    if (count !== 0) counts[rule] = count
  }
  const within = context.text('keep-within')
  if (within === undefined) return { counts }
  const hours = parseInterval(within)
  if (typeof hours !== 'number') throw context.usage(`argument --keep-within: ${hours.problem}`)
  return { counts, withinHours: hours }
}

function keptBecause(verdict: Extract<Verdict, { keep: true }>): string {
  return 'number' in verdict ? `Keeping archive (rule: ${verdict.rule} #${verdict.number}):` : 'Keeping checkpoint archive:'
}
