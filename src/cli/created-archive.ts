/** `--stats` and `--json` of the commands that make an archive of what is not one (output.md §5). */
import type { ClientCache } from '../engine/cache/client-cache.js'
import type { OpenedRepository } from '../engine/operations/open.js'
import type { StoredArchive } from '../engine/operations/store-archive.js'
import type { LocalRepository } from '../engine/repository/local-repository.js'
import type { Workers } from '../engine/store/workers.js'
import type { CommandContext } from './context.js'
import { archiveJson, cacheJson, printJson, repositoryJson, statsBlock } from './output/summary.js'

/** `started`: milliseconds. `known`: the cache's chunks index is that of the whole repository. */
export async function tellCreated(
  context: CommandContext, source: { readonly opened: OpenedRepository<LocalRepository>; readonly workers: Workers; readonly cache: ClientCache }, stored: StoredArchive,
  { started, known }: { readonly started: number; readonly known: boolean },
): Promise<void> {
  const { opened, cache } = source
  const json = context.flag('json')
  if (!context.flag('stats') && !json) return
  const { collectStatistics, creationNumbers } = await import('../engine/operations/statistics.js')
  const counted = { ...source, considerParts: context.flag('consider-part-files') }
  // The manifest is no chunk.
  const statistics = known ? await collectStatistics(counted) : { uniqueChunks: opened.repository.objectCount - 1 }
  const numbers = await creationNumbers(stored, counted)
  const duration = (Date.now() - started) / 1000
  if (json && 'totalSize' in statistics) {
    printJson({ ...repositoryJson(opened), ...cacheJson(cache.folder, statistics), archive: archiveJson(stored.info, numbers, { duration }) })
    return
  }
  context.log.always('borg.output.stats')
  for (const line of statsBlock(opened, stored.info, statistics, numbers, context, duration)) context.log.message('info', 'borg.output.stats', line)
}
