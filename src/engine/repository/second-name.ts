/** A file that was written elsewhere becomes one of the log by a second name (link(2)), where nobody could tell it from one that was made there. */
import { closeSync, lstatSync, openSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { errnoOf } from '../errors.js'
import { native } from '../native.js'
import { files } from '../platform/files.js'

const setGroupBit = 0o2000
/** Without them a file has the rules of the folder in which it was made: who may read it, and by which security label. */
const inherited = ['system.posix_acl_default', 'security.selinux']

/** False, and nothing is done, if it is on another file system or would differ from the files beside it. EEXIST and other host errors. */
export function giveSecondName(path: string, name: string): boolean {
  if (!isLikeThoseOf(path, dirname(name))) return false
  try {
    files.link(path, name)
    return true
  } catch (error) {
    if (['EXDEV', 'EPERM', 'EMLINK', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS'].includes(errnoOf(error) ?? '')) return false
    throw error
  }
}

function isLikeThoseOf(path: string, folder: string): boolean {
  const file = lstatSync(path), parent = statSync(folder)
  if (file.dev !== parent.dev || !file.isFile()) return false
  if (file.uid !== process.geteuid!() || file.gid !== (parent.mode & setGroupBit ? parent.gid : process.getegid!())) return false
  // Made under another umask, by an earlier process.
  if ((file.mode & 0o777) !== (0o666 & ~process.umask())) return false
  const fd = openSync(folder, 'r')
  try {
    return !inherited.some(name => hasAttribute(fd, name))
  } finally {
    closeSync(fd)
  }
}

function hasAttribute(fd: number, name: string): boolean {
  try {
    native().getxattrat(fd, new Uint8Array(), Buffer.from(name))
    return true
  } catch (error) {
    if (errnoOf(error) === 'ENODATA' || errnoOf(error) === 'ENOTSUP') return false
    throw error
  }
}
