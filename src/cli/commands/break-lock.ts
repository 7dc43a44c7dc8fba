/** `break-lock` (commands.md): removes the locks of a repository and of its cache, whoever holds them. Needs no key. */
import { join } from 'node:path'
import { cacheFolderOf } from '../../engine/platform/places.js'
import { breakLock } from '../../engine/repository/lock.js'
import { breakRepositoryLock } from '../../engine/repository/repository-home.js'
import type { Command } from '../command.js'

export const breakLockCommand: Command = context => {
  const id = breakRepositoryLock(context.localPath(context.location('repository')))
  breakLock(join(cacheFolderOf(context.places, id), 'lock'))
  return Promise.resolve()
}
