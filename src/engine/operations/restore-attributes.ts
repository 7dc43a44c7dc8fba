/** Owner, mode, ACLs, xattrs, times, flags of an extracted object, in Borg's order (archive.md §7). */
import type { Item } from '../archive/item.js'
import { errnoOf } from '../errors.js'
import { native } from '../native.js'
import { accessAclName, aclBinary, defaultAclName } from '../platform/acl.js'
import { fsFlagsFor, typeDirectory, typeFile, typeMask, typeSymlink } from '../platform/attributes.js'
import { groupIdOf, userIdOf } from '../platform/owner.js'
import { bytesOf } from '../text.js'

export interface RestoreOptions {
  readonly numericIds: boolean
  readonly noFlags: boolean
  readonly noAcls: boolean
  readonly noXattrs: boolean
}

const isRoot = process.geteuid?.() === 0
const noBytes = Buffer.alloc(0)

/**
 * Restores what an item says to the object `name` below `dirFd`, or to the descriptor itself if name is empty. Failures that only
 * lack privileges are ignored as Borg does; others are told to `warn`.
 */
export function restoreAttributes(item: Item, dirFd: number, name: Buffer, options: RestoreOptions, warn: (text: string) => void): void {
  const api = native()
  const type = item.mode & typeMask
  const uid = (options.numericIds || item.user === null ? undefined : userIdOf(item.user)) ?? item.uid
  const gid = (options.numericIds || item.group === null ? undefined : groupIdOf(item.group)) ?? item.gid
  try {
    api.fchownat(dirFd, name, uid, gid)
  } catch {
    // Only root may give files away (Borg ignores it as well).
  }
  if (type !== typeSymlink) {
    api.fchmodat(dirFd, name, item.mode & 0o7777)
    if (!options.noAcls) restoreAcls(item, dirFd, name, options, warn)
  }
  if (!options.noXattrs && item.xattrs) {
    for (const [attribute, value] of item.xattrs) {
      try {
        api.setxattrat(dirFd, name, bytesOf(attribute), value ?? noBytes)
      } catch (error) {
        warn(`when setting extended attribute ${attribute}: ${reason(error)}`)
      }
    }
  }
  api.utimensat(dirFd, name, item.atimeNs ?? item.mtimeNs, item.mtimeNs)
  if (!options.noFlags && name.length === 0 && (type === typeFile || type === typeDirectory)) restoreFlags(item, dirFd)
}

function restoreAcls(item: Item, dirFd: number, name: Buffer, options: RestoreOptions, warn: (text: string) => void): void {
  for (const [attribute, text] of [[accessAclName, item.aclAccess], [defaultAclName, item.aclDefault]] as const) {
    if (!text) continue
    const binary = aclBinary(text, options.numericIds)
    if (!binary) continue
    try {
      native().setxattrat(dirFd, name, Buffer.from(attribute), binary)
    } catch (error) {
      // File systems without ACLs are no news to anybody (Borg).
      if (errnoOf(error) !== 'EOPNOTSUPP') warn(`when setting the ACL: ${reason(error)}`)
    }
  }
}

function restoreFlags(item: Item, fd: number): void {
  const flags = item.bsdflags ?? 0
  // A new file has none: only an item with flags needs the calls, or one over a reused directory.
  if (flags === 0 && (item.mode & typeMask) === typeFile) return
  try {
    const current = native().getFsFlags(fd)
    const wanted = fsFlagsFor(flags, current)
    if (wanted !== current) native().setFsFlags(fd, wanted)
  } catch {
    // Not every file system knows flags, and immutable needs root.
  }
}

function reason(error: unknown): string {
  const code = errnoOf(error)
  if (code === 'EOPNOTSUPP' || code === 'ENOTSUP') return 'xattrs not supported on this filesystem.'
  if (code === 'EPERM' || code === 'EACCES') return isRoot ? 'Operation not permitted.' : 'Permission denied.'
  if (code === 'ENOSPC') return 'no space left on device (no space for xattr).'
  if (code === 'E2BIG') return 'the value is too large.'
  return error instanceof Error ? error.message : String(error)
}
