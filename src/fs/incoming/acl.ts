/** What an ACL means for the mode and the other way round (POSIX.1e), on the kernel's binary form. */
import { accessAclName, defaultAclName, formatAcl, isExtendedAcl, parseAcl } from '../../engine/platform/acl.js'
import type { StagedNode } from './nodes.js'

const tagUserObj = 1, tagGroupObj = 4, tagMask = 16, tagOther = 32
const permissions = 0o777

export { accessAclName, defaultAclName }

/** The mode bits of a node that gets this access ACL; undefined if it is malformed. */
export function modeOfAcl(mode: number, binary: Buffer): number | undefined {
  const entries = parseAcl(binary)
  if (!entries) return undefined
  const of = (tag: number): number | undefined => entries.find(entry => entry.tag === tag)?.permissions
  const [user, group, other] = [of(tagUserObj), of(tagMask) ?? of(tagGroupObj), of(tagOther)]
  if (user === undefined || group === undefined || other === undefined) return undefined
  return (mode & ~permissions) | (user << 6) | (group << 3) | other
}

/** The access ACL after chmod: the bits of owner, mask (or group) and others follow the mode. */
export function aclAfterChmod(binary: Buffer, mode: number): Buffer {
  const entries = parseAcl(binary)
  if (!entries) return binary
  const hasMask = entries.some(({ tag }) => tag === tagMask)
  for (const entry of entries) {
    if (entry.tag === tagUserObj) entry.permissions = (mode >> 6) & 7
    else if (entry.tag === (hasMask ? tagMask : tagGroupObj)) entry.permissions = (mode >> 3) & 7
    else if (entry.tag === tagOther) entry.permissions = mode & 7
  }
  return formatAcl(entries)
}

/** Gives a new node what the default ACL of its directory says. */
export function inheritAcl(directory: StagedNode, node: StagedNode): void {
  const standard = directory.xattrs?.get(defaultAclName)
  if (!standard || node.target) return
  const entries = parseAcl(standard)
  if (!entries) return
  const hasMask = entries.some(({ tag }) => tag === tagMask)
  for (const entry of entries) {
    if (entry.tag === tagUserObj) entry.permissions &= (node.mode >> 6) & 7
    else if (entry.tag === (hasMask ? tagMask : tagGroupObj)) entry.permissions &= (node.mode >> 3) & 7
    else if (entry.tag === tagOther) entry.permissions &= node.mode & 7
  }
  const access = formatAcl(entries)
  node.mode = modeOfAcl(node.mode, access) ?? node.mode
  const xattrs = (node.xattrs ??= new Map<string, Buffer>())
  if (isExtendedAcl(access)) xattrs.set(accessAclName, access)
  if (node.children) xattrs.set(defaultAclName, standard)
}
