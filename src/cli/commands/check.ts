/** `check` (commands.md §9, output.md §9), and what --repair would do by --dry-run. */
import type { ArchiveInfo } from '../../engine/archive/manifest.js'
import { Passphrases } from '../../engine/crypto/passphrase.js'
import { BorgError, CommandError } from '../../engine/errors.js'
import { checkArchives } from '../../engine/operations/check-archives.js'
import type { PercentKind } from '../../engine/operations/check/finding.js'
import { checkRepository } from '../../engine/repository/check.js'
import { LocalRepository } from '../../engine/repository/local-repository.js'
import type { Command } from '../command.js'
import { archiveName, choosesArchives, type CommandContext, selectArchives } from '../context.js'
import { PercentLine } from '../output/progress.js'

const warning = 'This is a potentially dangerous function.\ncheck --repair might lead to data loss (for kinds of corruption it is not\ncapable of dealing with). BE VERY CAREFUL!\n\nType \'YES\' if you understand this and want to continue: '
const percentTexts: Readonly<Record<PercentKind | 'repository.check', readonly [before: string, width: number, decimals: number, step: number]>> = {
  'repository.check': ['Checking segments ', 3, 1, 0.1],
  'check.verify_data': ['Verifying data ', 6, 2, 0.01],
  'check.rebuild_manifest': ['Rebuilding manifest ', 6, 2, 0.01],
  'check.rebuild_refcounts': ['Checking archives ', 3, 1, 0.1],
}
const planTopic = 'borg.output.list'

export const check: Command = async context => {
  const { log } = context
  const location = context.location('either')
  const planOnly = context.flag('dry-run')
  const repair = context.flag('repair')
  if (planOnly && !repair) throw new CommandError('--dry-run tells what --repair would do: it needs --repair.')
  // Borg would go on, and could write at the same time as somebody else.
  if (repair && !planOnly && context.flag('bypass-lock')) throw new CommandError('--repair does not go without the lock: leave --bypass-lock out.')
  const repository = await LocalRepository.open(context.localPath(location), {
    lock: context.flag('bypass-lock') ? 'none' : 'exclusive', lockWaitMs: context.lockWaitMs, log, forCheck: true, readOnly: planOnly,
  })
  context.atEnd(() => repository.close())
  // A plan is no danger.
  if (repair && !planOnly && !(await context.prompt.confirm(warning, 'BORG_CHECK_I_KNOW_WHAT_I_AM_DOING', { only: 'YES' }))) {
    context.exit.force(context.exit.ofError(new BorgError('CancelledByUser', 'Aborting.', 3)))
    return
  }
  const maxDurationSeconds = refuseContradictions(context)
  const signal = context.signals.answer()
  const mode = planOnly ? 'plan' : repair ? 'repair' : 'plain'
  if (planOnly) log.always(planTopic)
  const tellPlan = (sentence: string): void => log.message('info', planTopic, `With --repair: ${sentence}`)

  let sound = true
  if (!context.flag('archives-only')) {
    const percent = percentLines(context)
    sound = await checkRepository(repository, { mode, maxDurationSeconds, saveSpace: context.flag('save-space'), signal }, {
      log: (level, message) => log.message(level, 'borg.repository', message),
      finding: ({ repair: step }) => {
        if (planOnly && step !== undefined) tellPlan(step)
      },
      progress: (done, total) => percent.show('repository.check', done, total),
      progressFinished: () => percent.finish('repository.check'),
    })
    // A plan goes on with what repair would leave behind.
    if (!sound && (!planOnly || repository.committedState === undefined)) {
      context.exit.force(1)
      return
    }
  }
  if (!context.flag('repository-only')) {
    const percent = percentLines(context)
    const result = await checkArchives(repository, {
      mode, verifyData: context.flag('verify-data'), crcsVerified: !context.flag('archives-only'), signal, selection: selectionOf(context, location.archive),
      key: { places: context.places, passphrases: new Passphrases(context.env, context.prompt) },
    }, {
      log: (level, message) => log.message(level, 'borg.archive', message),
      progress: (kind, done, total) => percent.show(kind, done, total),
      progressFinished: kind => percent.finish(kind),
    })
    for (const sentence of result.planned) tellPlan(sentence)
    sound &&= result.sound
  }
  if (!sound) context.exit.force(1)
}

/** In Borg's order and words. Returns the seconds of --max-duration, 0 without it. */
function refuseContradictions(context: CommandContext): number {
  if (context.flag('repository-only') && (context.flag('verify-data') || choosesArchives(context))) {
    throw new CommandError('--repository-only contradicts --first, --last, --glob-archives, --prefix and --verify-data arguments.')
  }
  const maxDuration = context.number('max-duration') ?? 0
  if (context.flag('repair') && maxDuration !== 0) throw new CommandError('--repair does not allow --max-duration argument.')
  if (maxDuration !== 0 && !context.flag('repository-only')) throw new CommandError('--repository-only is required for --max-duration support.')
  return maxDuration
}

function selectionOf(context: CommandContext, archive: string | undefined): Parameters<typeof checkArchives>[1]['selection'] {
  if (archive !== undefined) return { archive: archiveName(archive) }
  const [glob, prefix] = [context.text('glob-archives'), context.text('prefix')]
  const pattern = glob ?? (prefix === undefined ? undefined : `${prefix}*`)
  const limits = [['first', context.number('first')], ['last', context.number('last')]] as const
  const choose = async (archives: Iterable<ArchiveInfo>): Promise<ArchiveInfo[]> => {
    const found = await selectArchives(context, archives, { hideCheckpoints: false })
    const warn = (message: string): void => context.log.message('warning', 'borg.archive', message)
    if (pattern !== undefined && found.length === 0) warn(`--glob-archives ${pattern} does not match any archives`)
    for (const [name, count] of limits) if (count !== undefined && found.length < count) warn(`--${name} ${count} archives: only found ${found.length} archives`)
    return found
  }
  return { all: pattern === undefined && limits.every(([, count]) => count === undefined), choose }
}

interface PercentLines {
  show(kind: keyof typeof percentTexts, done: number, total: number): void
  finish(kind: keyof typeof percentTexts): void
}

/** Each indicator begins with its first step, as they are numbered in that order. */
function percentLines(context: CommandContext): PercentLines {
  if (!context.flag('progress')) return { show() {}, finish() {} }
  const lines = new Map<string, PercentLine>()
  return {
    show(kind, done, total) {
      const [before, width, decimals, step] = percentTexts[kind]
      let line = lines.get(kind)
      if (!line) lines.set(kind, (line = new PercentLine(context.log, kind, step)))
      line.update(done, total, percent => `${before}${percent.toFixed(decimals).padStart(width)}%`, null, done + 1)
    },
    finish(kind) {
      lines.get(kind)?.finish()
      lines.delete(kind)
    },
  }
}
