/**
 * What a file loses when somebody changes its contents or its owner (FUSE_HANDLE_KILLPRIV_V2): set-user-id, set-group-id, capabilities. The kernel
 * says when (`Call.killSetId`); it takes capabilities off itself wherever it keeps the file's pages, and asks for them before the first write. Files
 * that are written past its pages it leaves to us.
 */
import { readFileSync } from 'node:fs'
import { nowNs } from './clock.js'
import type { StagedNode } from './nodes.js'
import type { Staging } from './staging.js'

export const capabilityXattr = 'security.capability'

export const setGroupBit = 0o2000
const setUserBit = 0o4000, groupExecuteBit = 0o010
export const setIdBits = setUserBit | setGroupBit

/** The mode without the set-id bits that go. Set-group-id of what the group cannot execute stays for who is in that group. */
export function withoutSetId({ mode, gid }: StagedNode, asker: { readonly uid: number; readonly gid: number; readonly pid: number }): number {
  if (!(mode & setIdBits)) return mode
  const groupStays = !(mode & setGroupBit) || (!(mode & groupExecuteBit) && (asker.uid === 0 || asker.gid === gid || isInGroup(asker.pid, gid)))
  return mode & ~setUserBit & (groupStays ? ~0 : ~setGroupBit)
}

/** Set-id bits, of which the kernel says that they go. Whether there were any: the kernel does not know what became of the mode then. */
export function dropPrivileges(staging: Staging, node: StagedNode, asker: { readonly uid: number; readonly gid: number; readonly pid: number }): boolean {
  const mode = withoutSetId(node, asker)
  if (mode === node.mode) return false
  staging.setAttributes(node, { mode, ctimeNs: nowNs() })
  return true
}

/** False if it cannot be told. */
function isInGroup(pid: number, gid: number): boolean {
  try {
    const groups = /^Groups:\t(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]
    return groups?.split(' ').includes(String(gid)) ?? false
  } catch {
    // Gone, or not ours to look at.
    return false
  }
}
