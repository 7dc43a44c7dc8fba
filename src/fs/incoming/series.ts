/** Series of archives, as live/ shows them: which archive is the newest, and what an archive made of staged files has of them. */
import { byteString, bytesOf } from '../../engine/text.js'
import type { ArchiveTree } from '../archive-tree.js'
import { seriesOf } from '../status/archive-views.js'
import { type Extents, extentsOf } from './extents.js'
import { isFile, type StagedNode } from './nodes.js'
import type { Staging } from './staging.js'

interface Dated {
  readonly name: Uint8Array
  readonly timeNs: bigint
}

/**
 * The newest archive called NAME or NAME and a date. Only if there is none, any `NAME-*`: `web-db-2026-01-01` is not taken for one of `web`
 * as long as there is a `web-2026-01-01`.
 */
export function newestOf<T extends Dated>(archives: Iterable<T>, series: string): T | undefined {
  let exact: T | undefined, loose: T | undefined
  for (const archive of archives) {
    const name = byteString(archive.name)
    if (seriesOf(name) === series || name === series) exact = later(exact, archive)
    else if (name.startsWith(`${series}-`)) loose = later(loose, archive)
  }
  return exact ?? loose
}

function later<T extends Dated>(a: T | undefined, b: T): T {
  return a && a.timeNs > b.timeNs ? a : b
}

/** Whether files of a staged tree lie in the spool. */
export function hasSpooled({ nodes }: Staging, top: StagedNode): boolean {
  for (const { node } of nodes.walk(top)) if (isSpooled(node)) return true
  return false
}

function isSpooled(node: StagedNode): boolean {
  return isFile(node) && node.known && !node.bare && node.size > 0
}

/** Files of a staged tree that lie in the spool, with what an archive made of exactly this tree has of them. */
export function* stored({ nodes }: Staging, top: StagedNode, tree: ArchiveTree): Generator<[StagedNode, Extents]> {
  const open: [StagedNode, number][] = [[top, 0]]
  for (let next = open.pop(); next; next = open.pop()) {
    const [directory, directoryRow] = next
    for (const [name, id] of directory.children!) {
      const node = nodes.peek(id)
      const row = tree.lookup(directoryRow, bytesOf(name))
      if (!node || row < 0) continue
      if (node.children) open.push([node, row])
      else if (isSpooled(node) && tree.isRegular(row) && tree.size(row) === node.size) yield [node, extentsOf(tree, row, 0, 0, 0, node.size)]
    }
  }
}
