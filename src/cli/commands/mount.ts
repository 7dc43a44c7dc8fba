/** `mount` (mount.md, incoming.md). Unless it is to stay in the foreground, the work is all in a process of its own. */
import { BorgError } from '../../engine/errors.js'
import { isBackgroundChild, startInBackground } from '../background.js'
import type { Command } from '../command.js'

export const mount: Command = async context => {
  const { env } = context
  if (env.BORG_FUSE_IMPL === 'none') throw new BorgError('Error', 'borg mount not available: no FUSE support, BORG_FUSE_IMPL=none.')
  const foreground = context.flag('foreground')
  if (!foreground && !isBackgroundChild(env)) {
    context.exit.force(await startInBackground(env))
    return
  }
  await context.beginOpening(context.location('either'))
  const { serve } = await import('../mount-serve.js')
  await serve(context, foreground)
}
