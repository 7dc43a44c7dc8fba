/** Columns of an archive as this mount shows them: owners' names have numbers here, and options of the mount are applied. */
import { accessNone, accessNumbersBytes, accessSupplied, type ArchiveTreeData, noName, type TreeColumns } from './tree-columns.js'
import type { ViewOptions } from './tree-options.js'

const typeMask = 0o170000, directoryType = 0o040000, regularType = 0o100000

/** Nothing is copied; what is made are a few bytes for each owner and mode that occurs. */
export function shownTree(columns: TreeColumns, view: ViewOptions): ArchiveTreeData {
  const modes: number[] = [], uids: number[] = [], gids: number[] = []
  const { uid, gid, umask, forcedUid, forcedGid, numericIds, owners } = view
  const known = { user: remembered(name => owners.user(name)), group: remembered(name => owners.group(name)) }
  for (const [index, { mode, uid: storedUid, gid: storedGid, user, group }] of ownersOf(columns).entries()) {
    const type = mode & typeMask
    modes.push(type === directoryType || type === regularType ? mode & ~umask : mode)
    if (index === accessSupplied) {
      uids.push(forcedUid ?? uid)
      gids.push(forcedGid ?? gid)
    } else if (index === accessNone) {
      uids.push(0)
      gids.push(0)
    } else {
      uids.push(forcedUid ?? (numericIds || !user ? undefined : known.user(user)) ?? storedUid)
      gids.push(forcedGid ?? (numericIds || !group ? undefined : known.group(group)) ?? storedGid)
    }
  }
  return {
    ...columns, modes: Uint32Array.from(modes), uids: Uint32Array.from(uids), gids: Uint32Array.from(gids),
    suppliedTimeNs: view.timeNs, rootTimeNs: view.rootTimeNs, numericIds,
  }
}

/** Mode and owner as an archive has them; names that it lacks are null. */
export interface StoredOwner {
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly user: Buffer | null
  readonly group: Buffer | null
}

/** By `access`. */
export function ownersOf({ owners }: TreeColumns): StoredOwner[] {
  const packed = Buffer.from(owners.buffer, owners.byteOffset, owners.length)
  const found: StoredOwner[] = []
  for (let at = 0; at < packed.length;) {
    const [user, userEnd] = nameAt(packed, at + accessNumbersBytes)
    const [group, end] = nameAt(packed, userEnd)
    found.push({ mode: packed.readUInt32LE(at), uid: packed.readUInt32LE(at + 4), gid: packed.readUInt32LE(at + 8), user, group })
    at = end
  }
  return found
}

function nameAt(packed: Buffer, at: number): [name: Buffer | null, end: number] {
  const length = packed.readUInt16LE(at)
  if (length === noName) return [null, at + 2]
  return [packed.subarray(at + 2, at + 2 + length), at + 2 + length]
}

/** Names come again with every other mode; the one before is nearly always the one. */
function remembered(ask: (name: Uint8Array) => number | undefined): (name: Buffer) => number | undefined {
  let last: Buffer | undefined, number: number | undefined
  return name => {
    if (!last?.equals(name)) {
      number = ask(Buffer.from(name))
      last = name
    }
    return number
  }
}
