/** What delete and prune say and how a signal ends them. */
import type { ArchiveDeletion, DeletedSums, DeletionListener } from '../engine/operations/delete.js'
import type { Statistics } from '../engine/operations/statistics.js'
import type { CommandContext } from './context.js'
import { SignalError } from './exit.js'
import { PercentLine } from './output/progress.js'
import { dashes, statsRow, tableLines } from './output/summary.js'

const topic = 'borg.archive'

/** `progress`: a percent line for each archive. */
export function deletionListener(context: CommandContext, progress: boolean): DeletionListener {
  const { log } = context
  let line: PercentLine | undefined
  return {
    ...(progress ? {
      progress: (done, total) => {
        line ??= new PercentLine(log, 'archive.delete', 5)
        line.update(done, total, percent => `Decrementing references ${Math.round(percent).toString().padStart(3)}%`, null, done + 1)
      },
      finished: () => {
        line?.finish()
        line = undefined
      },
    } : {}),
    damaged: () => {
      log.message('warning', topic, 'forced deletion succeeded, but the deleted archive was corrupted.')
      log.message('warning', topic, 'borg check --repair is required to free all space.')
    },
  }
}

/**
 * Between two archives: the first Ctrl-C is a wish to stop in order, with what was deleted so far committed; any other signal
 * ends the run with nothing of it done.
 */
export async function endedBySignal(context: CommandContext, deletion: ArchiveDeletion): Promise<boolean> {
  // Lets a signal in that came meanwhile.
  await new Promise(resolve => setImmediate(resolve))
  if (!context.signal.aborted) return false
  const reason: unknown = context.signal.reason
  if (!(reason instanceof SignalError) || reason.signal !== 'SIGINT') throw reason
  context.log.message('info', 'borg.archiver', 'checkpoint requested: starting checkpoint creation...')
  await deletion.checkpoint()
  context.log.message('info', 'borg.archiver', 'checkpoint requested: finished checkpoint creation!')
  return true
}

export function printDeletionStats(context: CommandContext, sums: DeletedSums, statistics: Statistics): void {
  const { log } = context
  log.always('borg.output.stats')
  const [top, titles, ...rest] = tableLines(context, statistics, undefined)
  for (const line of [top!, titles!, statsRow(context, 'Deleted data:', -sums.size, -sums.csize, -sums.uniqueCsize), ...rest, dashes]) log.message('info', 'borg.output.stats', line)
}
