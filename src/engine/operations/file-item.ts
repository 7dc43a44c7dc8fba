/** An item of what lstat, xattrs and ACLs say of a file (archive.md §4, §7). */
import type { Item } from '../archive/item.js'
import { maxStoredTimeNs } from '../constants.js'
import { aclOfMode, aclText, isExtendedAcl } from '../platform/acl.js'
import { type Attributes, bsdFlagsOf, type FileStat, typeBlockDevice, typeCharDevice, typeMask } from '../platform/attributes.js'
import { groupNameOf, userNameOf } from '../platform/owner.js'

export interface ItemOptions {
  readonly numericIds: boolean
  readonly atime: boolean
  readonly noCtime: boolean
}

export function clampTime(ns: bigint): bigint {
  return ns < 0n ? 0n : ns > maxStoredTimeNs ? maxStoredTimeNs : ns
}

/** Without chunks, source and hardlink_master, which depend on the kind. */
export function fileItem(path: Buffer, stat: FileStat, attributes: Attributes, options: ItemOptions): Item {
  const { mode, uid, gid } = stat
  const item: Item = {
    path, mode, uid, gid,
    user: options.numericIds ? null : userNameOf(uid) ?? null,
    group: options.numericIds ? null : groupNameOf(gid) ?? null,
    mtimeNs: clampTime(stat.mtimeNs),
  }
  if (options.atime) item.atimeNs = clampTime(stat.atimeNs)
  if (!options.noCtime) item.ctimeNs = clampTime(stat.ctimeNs)
  const type = mode & typeMask
  if (type === typeCharDevice || type === typeBlockDevice) item.rdev = stat.rdev
  const flags = bsdFlagsOf(stat.fsFlags)
  if (flags !== 0) item.bsdflags = flags
  if (attributes.xattrs) item.xattrs = attributes.xattrs
  addAcls(item, attributes, options.numericIds)
  return item
}

/** ACLs as Borg stores them: only those that say more than the mode. */
export function addAcls(item: Item, attributes: Attributes, numericIds: boolean): void {
  const { accessAcl, defaultAcl } = attributes
  const hasDefault = defaultAcl !== undefined && defaultAcl.length > 4
  if (!hasDefault && !(accessAcl && isExtendedAcl(accessAcl))) return
  const access = aclText(accessAcl ?? aclOfMode(item.mode), numericIds)
  if (access) item.aclAccess = access
  const standard = hasDefault ? aclText(defaultAcl, numericIds) : undefined
  if (standard) item.aclDefault = standard
}
