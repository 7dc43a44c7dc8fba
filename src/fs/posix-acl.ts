/**
 * POSIX ACLs as the kernel hands them over in the xattrs `system.posix_acl_access` and `system.posix_acl_default`
 * (linux/posix_acl_xattr.h). Programs such as `cp -a` set a file's mode by setting an ACL, so a writable file system has to
 * keep both in step: setxattr of the access ACL changes the mode, chmod changes the ACL. All little-endian:
 *
 *   version u32 = 2, then per entry: tag u16 | permissions u16 (rwx = 4 2 1) | id u32
 */

export const accessAclName = 'system.posix_acl_access'
export const defaultAclName = 'system.posix_acl_default'

const tag = { userObj: 1, user: 2, groupObj: 4, group: 8, mask: 16, other: 32 } as const
const version = 2, headerSize = 4, entrySize = 8

export interface AclFacts {
  /** The nine permission bits of a file that has this ACL. */
  readonly permissions: number
  /** It says no more than the mode does: only the mode is kept, the xattr is not (as other file systems do). */
  readonly minimal: boolean
}

/** Undefined if it is no ACL: setxattr answers EINVAL then. */
export function aclFacts(value: Uint8Array): AclFacts | undefined {
  const entries = entriesOf(value)
  if (!entries) return undefined
  const owner = entries.get(tag.userObj), group = entries.get(tag.groupObj), other = entries.get(tag.other)
  if (owner === undefined || group === undefined || other === undefined) return undefined
  const mask = entries.get(tag.mask)
  if (mask === undefined && (entries.has(tag.user) || entries.has(tag.group))) return undefined
  return { permissions: (owner << 6) | ((mask ?? group) << 3) | other, minimal: mask === undefined }
}

/** The ACL after chmod to `mode`: owner, others, and the mask (or the group where there is none) follow. */
export function aclWithMode(value: Uint8Array, mode: number): Buffer {
  const changed = Buffer.from(value)
  const hasMask = entriesOf(value)?.has(tag.mask) ?? false
  for (let at = headerSize; at + entrySize <= changed.length; at += entrySize) {
    const kind = changed.readUInt16LE(at)
    const shift = kind === tag.userObj ? 6 : kind === tag.other ? 0 : kind === (hasMask ? tag.mask : tag.groupObj) ? 3 : -1
    if (shift >= 0) changed.writeUInt16LE((mode >> shift) & 7, at + 2)
  }
  return changed
}

/** Tag -> permissions (the last of several); undefined if malformed. */
function entriesOf(value: Uint8Array): Map<number, number> | undefined {
  const view = new DataView(value.buffer, value.byteOffset, value.length)
  if (value.length < headerSize || (value.length - headerSize) % entrySize !== 0 || view.getUint32(0, true) !== version) return undefined
  const entries = new Map<number, number>()
  for (let at = headerSize; at < value.length; at += entrySize) {
    const permissions = view.getUint16(at + 2, true)
    if (permissions > 7) return undefined
    entries.set(view.getUint16(at, true), permissions)
  }
  return entries
}
