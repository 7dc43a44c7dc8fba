/** A staged tree as it is handed to the engine thread: plain data that survives structured clone. */
import type { ArchiveTreeData } from '../tree-columns.js'
import { extentBytes } from './extents.js'
import type { FrozenItems } from './frozen-items.js'
import type { StagingKeys } from './staging-keys.js'

export interface FrozenItem {
  /** Byte string, relative; `.` for the tree's own directory. */
  readonly path: string
  readonly id: number
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly rdev: number
  readonly mtimeNs: bigint
  readonly ctimeNs: bigint
  readonly target: Uint8Array | undefined
  readonly xattrs: ReadonlyMap<string, Uint8Array> | undefined
  /** Further names of the same file come with the same id. */
  readonly nlink: number
  readonly size: number
  /** Undefined for anything without contents. `position`: of a bundled file. */
  readonly content: { readonly file: FrozenFile; readonly position: number | undefined } | undefined
  /** What lies over the spool file: these rows of the tree's extents. */
  readonly firstExtent: number
  readonly extentCount: number
  /** Directories: what else is in it. */
  readonly beneath: FrozenBeneath | undefined
  /** Of chattr, as Borg stores them. */
  readonly bsdflags: number
}

/** A file of the staging folder; one object for all whose contents lie in it. */
export interface FrozenFile {
  readonly path: string
  /** It lies encrypted, under this number. */
  readonly cipherNumber: number | undefined
}

/** All that a directory of an archive holds, but for some names in the directory itself. */
export interface FrozenBeneath {
  /** Of FrozenTree.bases. */
  readonly base: number
  readonly row: number
  /** Byte strings. */
  readonly without: ReadonlySet<string>
}

/** The tree of an archive, which need not exist any more. */
export interface FrozenBase {
  readonly columns: ArchiveTreeData
  readonly chunks: Uint8Array
  /** Row 0 has this id, and each row the next one. */
  readonly firstId: number
}

export interface FrozenTree {
  /** Byte string; undefined for what lies directly in incoming/. */
  readonly name: string | undefined
  /** A directory before what is in it. */
  readonly items: FrozenItems
  /** Of all items, as Extents packs them: one piece of memory instead of one for each file. */
  readonly extents: Uint8Array
  readonly bases: readonly FrozenBase[]
  /** Of all files that are not in a base. */
  readonly bytes: number
  /** Where the mark of a commit under way is written. */
  readonly stagingFolder: string
  readonly keys: StagingKeys | undefined
}

/** What lies over the spool file of an item; memory of the tree. Empty if nothing does. */
export function extentRowsOf({ extents }: FrozenTree, { firstExtent, extentCount }: FrozenItem): Uint8Array {
  return extents.subarray(firstExtent * extentBytes, (firstExtent + extentCount) * extentBytes)
}

/** A tree whose archive was made when an earlier process ended, before that process could note it in the journal. */
export interface FinishedTree {
  readonly tree: string | undefined
  /** Hex of its id. */
  readonly archive: string
  /** Byte string. */
  readonly archiveName: string
}

/** The name that loose files' archives are made of. */
export const looseName = 'incoming'
/** File in the staging folder that says which archive is just being made of which tree. */
export const markName = 'committing.json'
export const journalName = 'journal'

/** As JSON, sealed where the repository is encrypted. */
export interface CommitMark {
  /** Hex of the byte string's bytes; null for loose files. */
  readonly tree: string | null
  readonly archive: string
  /** The archive's time as stored: together with its name it tells our archive from anybody else's. */
  readonly time: string
}
