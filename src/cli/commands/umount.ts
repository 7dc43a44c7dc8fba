/** `umount`: commits what is staged in the drive, waits for it and reports, then unmounts (incoming.md §3, mount.md §3). */
import { spawnSync } from 'node:child_process'
import { isRunning } from '../../engine/platform/process-id.js'
import { withoutHelper } from '../../fs/fuse/kernel/attach.js'
import type { Command } from '../command.js'
import { commitTrees, isOurs, mountedPath, servingProcess } from '../drive-commit.js'
import { warningCode } from '../exit.js'
import { print } from '../output/stdout.js'

const umountFailed = 32
const topic = 'borg.archiver'

export const umount: Command = async context => {
  const mountpoint = mountedPath(context.positional('mountpoint')[0]!)
  if (isOurs(mountpoint)) {
    for (const { path, archive, problem, unchanged } of commitTrees(mountpoint)) {
      if (unchanged) continue
      if (problem === undefined) {
        print(`${path}: saved as ${archive!}\n`)
        continue
      }
      context.log.message('warning', topic, `${path} was not saved and stays staged for the next mount: ${problem}`)
      context.exit.warn(warningCode.generic)
    }
  }
  const pid = servingProcess(mountpoint)
  const attempts = process.geteuid?.() === 0 ? [['umount', ...withoutHelper(mountpoint), mountpoint]] : [['fusermount3', '-u', mountpoint], ['fusermount', '-u', mountpoint], ['umount', mountpoint]]
  for (const [program, ...args] of attempts) {
    const result = spawnSync(program!, args, { stdio: ['ignore', 'inherit', 'inherit'] })
    if (result.error) continue
    if (result.status !== 0) {
      // Borg's way out is fusermount's; umount(8) says 32 for the same.
      context.exit.force(result.status === umountFailed ? 1 : result.status ?? 2)
      return
    }
    // The command is over when the drive's process is: then locks are gone and everything is on disk.
    await ended(pid)
    return
  }
  context.log.message('error', topic, 'Neither fusermount3 nor umount could be run. Install fuse3.')
  context.exit.force(2)
}

async function ended(pid: number | undefined): Promise<void> {
  while (pid !== undefined && isRunning(pid)) await new Promise(resolve => setTimeout(resolve, 10))
}
