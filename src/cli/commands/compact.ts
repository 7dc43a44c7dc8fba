/** `compact` (commands.md): frees the space of what was deleted. Needs no key. */
import { compactRepository } from '../../engine/repository/compact.js'
import { LocalRepository } from '../../engine/repository/local-repository.js'
import type { Command } from '../command.js'
import { PercentLine } from '../output/progress.js'

const topic = 'borg.repository'

export const compact: Command = async context => {
  const { log } = context
  const path = context.localPath(context.location('repository'))
  const repository = await LocalRepository.open(path, { lock: 'exclusive', lockWaitMs: context.lockWaitMs, log })
  context.atEnd(() => repository.close())
  const line = context.flag('progress') ? new PercentLine(log, 'repository.compact_segments', 1) : undefined
  const signal = context.signals.answer()
  await compactRepository(repository, { thresholdPercent: context.number('threshold')!, cleanupCommits: context.flag('cleanup-commits'), signal }, {
    log: (level, message) => log.message(level, topic, message),
    progress: (done, total) => line?.update(done, total, percent => `Compacting segments ${percent.toFixed(0).padStart(3)}%`, null, done + 1),
    progressFinished: () => line?.finish(),
  })
}
