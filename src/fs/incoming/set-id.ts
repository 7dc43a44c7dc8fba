/**
 * What a file loses when somebody changes its contents or its owner (FUSE_HANDLE_KILLPRIV_V2): set-user-id, set-group-id, capabilities. The kernel
 * says when (`Call.killSetId`); it takes capabilities off itself wherever it keeps the file's pages, and asks for them before the first write. Files
 * that are written past its pages it leaves to us.
 */
import { readFileSync } from 'node:fs'
import type { StagedNode } from './nodes.js'

export const capabilityXattr = 'security.capability'

const setUserBit = 0o4000, setGroupBit = 0o2000, groupExecuteBit = 0o010
export const setIdBits = setUserBit | setGroupBit

/** The mode without the set-id bits that go. Set-group-id of what the group cannot execute stays for who is in that group. */
export function withoutSetId({ mode, gid }: StagedNode, asker: { readonly uid: number; readonly gid: number; readonly pid: number }): number {
  if (!(mode & setIdBits)) return mode
  const groupStays = !(mode & setGroupBit) || (!(mode & groupExecuteBit) && (asker.uid === 0 || asker.gid === gid || isInGroup(asker.pid, gid)))
  return mode & ~setUserBit & (groupStays ? ~0 : ~setGroupBit)
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
