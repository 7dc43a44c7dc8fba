/** `umount`: commits what is staged in the drive, waits for it, then unmounts (incoming.md §3, mount.md §3). */
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { messageOf } from '../../engine/errors.js'
import { native } from '../../engine/native.js'
import type { Command } from '../command.js'

const atWorkingDirectory = -100
const topic = 'borg.archiver'

export const umount: Command = async context => {
  const mountpoint = resolve(context.positional('mountpoint')[0]!)
  if (isOurs(mountpoint)) commitStaged(mountpoint, text => {
    context.log.message('warning', topic, text)
    context.exit.warn(1)
  })
  const pid = servingProcess(mountpoint)
  const attempts = process.geteuid?.() === 0 ? [['umount', mountpoint]] : [['fusermount3', '-u', mountpoint], ['fusermount', '-u', mountpoint], ['umount', mountpoint]]
  for (const [program, ...args] of attempts) {
    const result = spawnSync(program!, args, { stdio: ['ignore', 'inherit', 'inherit'] })
    if (result.error) continue
    if (result.status !== 0) {
      context.exit.force(result.status ?? 2)
      return
    }
    // The command is over when the drive's process is: then locks are gone and everything is on disk.
    await ended(pid)
    return
  }
  context.log.message('error', topic, 'Neither fusermount3 nor umount could be run. Install fuse3.')
  context.exit.force(2)
}

/** The serving process tells its number as an xattr of the root. */
function servingProcess(mountpoint: string): number | undefined {
  try {
    const pid = Number(native().getxattrat(atWorkingDirectory, Buffer.from(mountpoint), Buffer.from('user.borgfs.pid')).toString())
    return Number.isInteger(pid) && pid > 1 ? pid : undefined
  } catch {
    return undefined
  }
}

async function ended(pid: number | undefined): Promise<void> {
  if (pid === undefined) return
  for (;;) {
    try {
      process.kill(pid, 0)
    } catch {
      return
    }
    await new Promise(resolve => setTimeout(resolve, 10))
  }
}

function isOurs(mountpoint: string): boolean {
  const escaped = mountpoint.replace(/[ \t\n\\]/g, character => `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`)
  return readFileSync('/proc/self/mounts', 'utf8').split('\n').some(line => line.startsWith(`borgfs ${escaped} fuse`))
}

/** Asks for a commit of each staged tree; what fails stays staged and is there at the next mount. */
function commitStaged(mountpoint: string, warn: (text: string) => void): void {
  let trees: Buffer[]
  const incoming = join(mountpoint, 'incoming')
  try {
    trees = readdirSync(incoming, { withFileTypes: true, encoding: 'buffer' }).filter(entry => entry.isDirectory()).map(entry => entry.name as unknown as Buffer)
  } catch {
    return
  }
  for (const name of trees) {
    const path = Buffer.concat([Buffer.from(`${incoming}/`), name])
    try {
      native().setxattrat(atWorkingDirectory, path, Buffer.from('user.borgfs.commit'), Buffer.alloc(0))
    } catch (error) {
      warn(`incoming/${name.toString()} was not committed and stays staged for the next mount: ${messageOf(error)}`)
    }
  }
}
