/** `borgfs commit MOUNTPOINT [NAME]`: saves what is staged in incoming/, or incoming/NAME only, and waits for it. */
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { CommandError } from '../../engine/errors.js'
import { byteString, escapedBytes } from '../../engine/text.js'
import type { Command } from '../command.js'
import { commitTrees, isOurs } from '../drive-commit.js'
import { print } from '../output/stdout.js'

export const commit: Command = context => {
  const mountpoint = resolve(context.positional('mountpoint')[0]!)
  const typed = context.positional('name')[0]
  // As a shell completes it.
  const name = typed?.replace(/^incoming\//, '').replace(/\/+$/, '')
  if (!isOurs(mountpoint)) throw new CommandError(`${mountpoint} is not a mounted drive.`)
  if (!existsSync(join(mountpoint, 'incoming'))) throw new CommandError(`${mountpoint} has no incoming/: it is mounted read-only, narrowed to some archives or files, or by another program.`)
  const outcomes = commitTrees(mountpoint, name === undefined ? undefined : byteString(escapedBytes(name)))
  if (name !== undefined && outcomes.length === 0) throw new CommandError(`There is nothing to save in ${mountpoint}/incoming/${name}.`)
  for (const { path, archive, problem } of outcomes) {
    if (problem === undefined) print(`${path}: saved as ${archive!}\n`)
    else {
      context.log.message('error', 'borg.archiver', `${path} was not saved and stays staged: ${problem}`)
      context.exit.force(2)
    }
  }
  return Promise.resolve()
}
