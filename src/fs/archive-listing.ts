/**
 * What a directory of an archive lists: from its tree, or, of the archive's own directory while the tree is on its way, from the names alone. Cookies mean the
 * same in both, so that whoever has read half of one goes on in the other: 1 after `.`, 2 after `..`, then the row + 2 of the entry that was given last.
 */
import { type ArchiveRoot, unchanging } from './archive-root.js'
import type { ArchiveTree } from './archive-tree.js'
import type { DirSink } from './core.js'
import { entriesAfter, type RootListing } from './root-listing.js'

const firstCookie = 2
const dot = Buffer.from('.'), dotDot = Buffer.from('..')

/** `directory` is one of the tree. */
export function listTree(tree: ArchiveTree, directory: number, root: ArchiveRoot, cookie: number, sink: DirSink): void {
  if (cookie < 1 && !sink(dot, unchanging(tree.attr(directory)), 1)) return
  if (cookie < 2) {
    const above = directory === 0 ? undefined : tree.parentOf(directory)
    const entry = above === undefined || above === 0 ? root.dotDot(above === 0 ? root.ino : root.above) : unchanging(tree.attr(above))
    if (!sink(dotDot, entry, firstCookie)) return
  }
  let row: number
  if (cookie <= firstCookie) row = tree.firstChild(directory)
  else {
    // Programs may seek to any place in a directory: where none of its entries stands is its end.
    const given = cookie - firstCookie
    if (!tree.has(given) || tree.parentOf(given) !== directory) return
    row = tree.nextSibling(given)
  }
  for (; row !== 0; row = tree.nextSibling(row)) {
    if (!sink(tree.nameOf(row), unchanging(tree.attr(tree.targetOf(row))), row + firstCookie)) return
  }
}

/** The archive's own directory. True if it was given to its end. */
export function listNames(listing: RootListing, root: ArchiveRoot, cookie: number, sink: DirSink): boolean {
  if (cookie < 1 && !sink(dot, root.entry, 1)) return false
  if (cookie < 2 && !sink(dotDot, root.dotDot(root.above), firstCookie)) return false
  const after = Math.max(0, cookie - firstCookie)
  if (after > 0 && !listing.rows.includes(after)) return false
  const attr = root.supplied()
  let ended = true
  for (const [name, row, target, mode] of entriesAfter(listing, after)) {
    ended = false
    Object.assign(attr, { ino: root.ino + target, mode })
    if (!sink(name, { attr, entryTtlMs: 0, attrTtlMs: 0, nameOnly: true }, row + firstCookie)) return false
  }
  return ended
}
