/** The kernel's own list of mounts. Reading it touches none of them, so a dead or hanging one does no harm. */
import { readFileSync } from 'node:fs'

export interface MountEntry {
  readonly mountpoint: string
  /** `major:minor`, as /sys/class/bdi names it. */
  readonly device: string
  readonly type: string
  readonly source: string
  /** Options of the mount and of the file system. */
  readonly options: readonly string[]
}

/** The topmost mount at exactly this absolute path. */
export function mountAt(path: string): MountEntry | undefined {
  return mounts().findLast((entry) => entry.mountpoint === path)
}

/** True for what borg and borgfs mount: by the name of the device, or by the type where that is the repository's name (bin/mount-helper.sh). */
export function isBorgMount({ source, type }: MountEntry): boolean {
  return type === 'fuse.borgfs' || (source === 'borgfs' && /^fuse\b/.test(type))
}

/** All mounts of this process's namespace in the order they were made. */
export function mounts(): MountEntry[] {
  return readFileSync('/proc/self/mountinfo', 'latin1').split('\n').filter((line) => line !== '').map(parseMount)
}

/** One line: id parent major:minor root mountpoint options [tags…] - type source superoptions (proc(5)). Paths as latin1 of bytes, then UTF-8. */
export function parseMount(line: string): MountEntry {
  const [before = '', after = ''] = line.split(' - ', 2)
  const fields = before.split(' ')
  const [type = '', source = '', superOptions = ''] = after.split(' ')
  return {
    mountpoint: unescaped(fields[4] ?? ''),
    device: fields[2] ?? '',
    type,
    source: unescaped(source),
    options: [...new Set([...(fields[5] ?? '').split(','), ...superOptions.split(',')])],
  }
}

/** Blanks, tabs, line ends and backslashes are written as three octal digits. */
function unescaped(text: string): string {
  const bytes = text.replace(/\\([0-7]{3})/g, (_match, digits: string) => String.fromCharCode(parseInt(digits, 8)))
  return Buffer.from(bytes, 'latin1').toString('utf8')
}
