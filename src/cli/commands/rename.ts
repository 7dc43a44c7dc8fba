/** `rename` (commands.md). Silent. */
import { renameArchive } from '../../engine/operations/rename.js'
import type { Command } from '../command.js'
import { archiveName } from '../context.js'
import { syncListener } from '../output/progress.js'

export const rename: Command = async context => {
  const location = context.location('archive')
  const newName = context.archiveOperand('name')
  const opened = await context.open(location, 'exclusive', 'check')
  const { workers, cache } = await context.openCache(opened)
  await cache.sync(workers, syncListener(context))
  await renameArchive(opened, cache, archiveName(location.archive!), archiveName(newName))
}
