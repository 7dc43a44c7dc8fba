/**
 * POSIX ACLs: the kernel's binary form (xattrs system.posix_acl_access/default) <-> Borg's text (archive.md §7).
 * Binary: uint32le version 2, then per entry uint16le tag, uint16le permissions, uint32le id.
 */
import { asBuffer } from '../text.js'
import { groupIdOf, groupNameOf, userIdOf, userNameOf } from './owner.js'

export const accessAclName = 'system.posix_acl_access'
export const defaultAclName = 'system.posix_acl_default'

const tagUserObj = 1, tagUser = 2, tagGroupObj = 4, tagGroup = 8, tagMask = 16, tagOther = 32
const undefinedId = 0xffffffff
const headerBytes = 4, entryBytes = 8

interface AclEntry {
  tag: number
  permissions: number
  id: number
}

/** Entries of a binary ACL, undefined if it is malformed. */
export function parseAcl(binary: Uint8Array): AclEntry[] | undefined {
  const buffer = asBuffer(binary)
  if (buffer.length < headerBytes || (buffer.length - headerBytes) % entryBytes !== 0 || buffer.readUInt32LE(0) !== 2) return undefined
  const entries: AclEntry[] = []
  for (let at = headerBytes; at < buffer.length; at += entryBytes) {
    entries.push({ tag: buffer.readUInt16LE(at), permissions: buffer.readUInt16LE(at + 2), id: buffer.readUInt32LE(at + 4) })
  }
  return entries
}

export function formatAcl(entries: readonly AclEntry[]): Buffer {
  const binary = Buffer.alloc(headerBytes + entries.length * entryBytes)
  binary.writeUInt32LE(2, 0)
  for (const [index, { tag, permissions, id }] of entries.entries()) {
    const at = headerBytes + index * entryBytes
    binary.writeUInt16LE(tag, at)
    binary.writeUInt16LE(permissions, at + 2)
    binary.writeUInt32LE(tag === tagUser || tag === tagGroup ? id : undefinedId, at + 4)
  }
  return binary
}

/** More than the mode bits say. */
export function isExtendedAcl(binary: Uint8Array): boolean {
  return binary.length > headerBytes + 3 * entryBytes
}

/** The text that Borg stores; undefined for a malformed ACL. numericIds: ids in the name fields as well. */
export function aclText(binary: Uint8Array, numericIds: boolean): Buffer | undefined {
  const entries = parseAcl(binary)
  if (!entries) return undefined
  const lines = entries.map(({ tag, permissions, id }) => {
    const rights = (permissions & 4 ? 'r' : '-') + (permissions & 2 ? 'w' : '-') + (permissions & 1 ? 'x' : '-')
    switch (tag) {
      case tagUserObj: return `user::${rights}`
      case tagGroupObj: return `group::${rights}`
      case tagMask: return `mask::${rights}`
      case tagOther: return `other::${rights}`
      case tagUser: return `user:${name(numericIds ? undefined : userNameOf(id), id)}:${rights}:${id}`
      default: return `group:${name(numericIds ? undefined : groupNameOf(id), id)}:${rights}:${id}`
    }
  })
  return Buffer.from(lines.join('\n'), 'latin1')
}

function name(known: Buffer | undefined, id: number): string {
  return known ? known.toString('latin1') : String(id)
}

/** The minimal ACL that a mode stands for: Borg stores it beside a default ACL. */
export function aclOfMode(mode: number): Buffer {
  return formatAcl([
    { tag: tagUserObj, permissions: (mode >> 6) & 7, id: undefinedId },
    { tag: tagGroupObj, permissions: (mode >> 3) & 7, id: undefinedId },
    { tag: tagOther, permissions: mode & 7, id: undefinedId },
  ])
}

/**
 * The binary form of a stored text; undefined if it cannot be understood. Names are looked up here, unknown ones take the
 * fourth field; with numericIds the fourth field always counts.
 */
export function aclBinary(text: Uint8Array, numericIds: boolean): Buffer | undefined {
  const entries: AclEntry[] = []
  for (const line of asBuffer(text).toString('latin1').split('\n')) {
    const plain = line.replace(/#.*$/, '').trim()
    if (plain === '') continue
    const [type, qualifier = '', rights = '', number] = plain.split(':')
    const permissions = (rights.includes('r') ? 4 : 0) | (rights.includes('w') ? 2 : 0) | (rights.includes('x') ? 1 : 0)
    const isUser = type === 'user' || type === 'u'
    if (isUser || type === 'group' || type === 'g') {
      if (qualifier === '') entries.push({ tag: isUser ? tagUserObj : tagGroupObj, permissions, id: undefinedId })
      else {
        const id = resolveId(isUser, qualifier, number, numericIds)
        if (id === undefined || id >= undefinedId) return undefined
        entries.push({ tag: isUser ? tagUser : tagGroup, permissions, id })
      }
    } else if (type === 'mask' || type === 'm') entries.push({ tag: tagMask, permissions, id: undefinedId })
    else if (type === 'other' || type === 'o') entries.push({ tag: tagOther, permissions, id: undefinedId })
    else return undefined
  }
  // The kernel wants entries by tag, and by id within a tag.
  entries.sort((a, b) => a.tag - b.tag || a.id - b.id)
  return entries.length > 0 ? formatAcl(entries) : undefined
}

function resolveId(isUser: boolean, qualifier: string, number: string | undefined, numericIds: boolean): number | undefined {
  const stored = number !== undefined && /^\d+$/.test(number) ? Number(number) : undefined
  if (numericIds && stored !== undefined) return stored
  const bytes = Buffer.from(qualifier, 'latin1')
  return (isUser ? userIdOf(bytes) : groupIdOf(bytes)) ?? stored ?? (/^\d+$/.test(qualifier) ? Number(qualifier) : undefined)
}
