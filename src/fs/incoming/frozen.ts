/** A staged tree as it is handed to the engine thread: plain data that survives structured clone. */
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
  /** Undefined for anything without contents. `position`: of a bundled file. `cipherNumber`: it lies encrypted, under this number. */
  readonly content: { readonly path: string; readonly position: number | undefined; readonly cipherNumber: number | undefined } | undefined
  /** What lies over the spool file, as Extents packs it. */
  readonly extents: Uint8Array | undefined
}

export interface FrozenTree {
  /** Byte string; undefined for what lies directly in incoming/. */
  readonly name: string | undefined
  readonly items: readonly FrozenItem[]
  /** Of all files. */
  readonly bytes: number
  /** Where the mark of a commit under way is written. */
  readonly stagingFolder: string
  readonly keys: StagingKeys | undefined
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
