/**
 * The names in an archive's root, which are kept apart from its tree: a first `ls` of an archive of a million files need not wait until all
 * of them are there. Rows and types are those of the tree, so that whoever has read half of it goes on in the tree.
 */
import { ArchiveTree } from './archive-tree.js'
import type { TreeColumns } from './tree-columns.js'
import { shownTree } from './tree-view.js'

export interface RootListing {
  /** Ascending. */
  readonly rows: readonly number[]
  /** The row that has the attributes, and its type: the upper bits of the mode. */
  readonly targets: readonly number[]
  readonly types: readonly number[]
  /** Bytes as latin1, each with a NUL behind it, which no name holds. */
  readonly names: string
}

/** What is more is worth waiting for. */
const maxEntries = 4096

/** Undefined where it would be long. */
export function rootListingOf(columns: TreeColumns): RootListing | undefined {
  // Types do not depend on how the mount shows owners.
  const tree = new ArchiveTree(shownTree(columns, { uid: 0, gid: 0, umask: 0, timeNs: 0n, rootTimeNs: 0n, numericIds: true, owners: { user: () => undefined, group: () => undefined } }), 0)
  const rows: number[] = [], targets: number[] = [], types: number[] = []
  let names = ''
  for (let row = tree.firstChild(0); row !== 0; row = tree.nextSibling(row)) {
    if (rows.length === maxEntries) return undefined
    const target = tree.targetOf(row)
    rows.push(row)
    targets.push(target)
    types.push(tree.mode(target) >>> 12)
    names += `${tree.nameOf(row).toString('latin1')}\0`
  }
  return { rows, targets, types, names }
}

/** The entries behind the row `after` (0: all): name, row, row of the attributes, mode without permissions. */
export function* entriesAfter({ rows, targets, types, names }: RootListing, after: number): Generator<[name: Buffer, row: number, target: number, mode: number]> {
  let at = 0
  for (const [index, row] of rows.entries()) {
    const end = names.indexOf('\0', at)
    if (row > after) yield [Buffer.from(names.slice(at, end), 'latin1'), row, targets[index]!, types[index]! << 12]
    at = end + 1
  }
}
