/** What decides which files an archive's items are, and how those look. */
import type { Item } from '../engine/archive/item.js'
import type { Log } from '../engine/log.js'

/** What the columns depend on: which items, and under which path. */
export interface ShapeOptions {
  readonly showParts: boolean
  /** The path under which an item is shown, undefined for not at all. Absent: every item as stored. */
  readonly select?: ((item: Item) => Buffer | undefined) | undefined
  /** The shown path of a hard link's source; needed where `select` changes paths. */
  readonly sourcePath?: ((source: Buffer) => Buffer) | undefined
  readonly log: Log
}

/** Local numbers of the names stored in items; undefined if unknown here. */
export interface OwnerNumbers {
  user(name: Uint8Array): number | undefined
  group(name: Uint8Array): number | undefined
}

/** What may differ at each mount and is applied to finished columns. */
export interface ViewOptions {
  /** Owner and time of directories that no item describes. */
  readonly uid: number
  readonly gid: number
  readonly timeNs: bigint
  /** Time of the archive's own directory unless an item describes it. */
  readonly rootTimeNs: bigint
  /** Show stored numbers; else names are looked up first. */
  readonly numericIds: boolean
  readonly owners: OwnerNumbers
  /** Owner of everything, if set. */
  readonly forcedUid?: number | undefined
  readonly forcedGid?: number | undefined
  /** Taken off the modes of files and directories. */
  readonly umask: number
}
