/** `borgfs commit MOUNTPOINT [NAME]`: saves what is staged in incoming/ and live/, or NAME in these only, and waits for it. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { CommandError } from '../../engine/errors.js'
import { byteString, escapedBytes } from '../../engine/text.js'
import type { Command } from '../command.js'
import { commitTrees, isOurs, mountedPath } from '../drive-commit.js'
import { print } from '../output/stdout.js'

export const commit: Command = context => {
  const mountpoint = mountedPath(context.positional('mountpoint')[0]!)
  const typed = context.positional('name')[0]
  // As a shell completes it.
  const [, place, name] = /^(?:(incoming|live)\/)?(.*?)\/*$/s.exec(typed ?? '')!
  if (!isOurs(mountpoint)) throw new CommandError(`${mountpoint} is not a mounted drive.`)
  if (!existsSync(join(mountpoint, 'incoming'))) throw new CommandError(`${mountpoint} has no incoming/: it is mounted read-only, narrowed to some archives or files, or by another program.`)
  const outcomes = commitTrees(mountpoint, typed === undefined ? undefined : { place, name: byteString(escapedBytes(name!)) })
  if (typed !== undefined && outcomes.length === 0) throw new CommandError(`There is nothing to save in ${mountpoint}/${place ?? 'incoming'}/${name!}.`)
  for (const { path, archive, problem, unchanged } of outcomes) {
    if (unchanged) print(`${path}: unchanged since ${archive!}\n`)
    else if (problem === undefined) print(`${path}: saved as ${archive!}\n`)
    else {
      context.log.message('error', 'borg.archiver', `${path} was not saved and stays staged: ${problem}`)
      context.exit.force(2)
    }
  }
  return Promise.resolve()
}
