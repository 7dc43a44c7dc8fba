/** Series of archives, as live/ shows them: which archive is the newest, and its files as staged ones that cost no data. */
import { byteString, bytesOf } from '../../engine/text.js'
import { extentsOf } from '../archive-files.js'
import type { ArchiveTree } from '../archive-tree.js'
import { seriesOf } from '../status/archive-views.js'
import type { Extents } from './extents.js'
import { rootId, type StagedNode, typeDirectory, typeMask } from './nodes.js'
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

/**
 * Makes a tree `name` of an archive's files. What a repair had to patch with zeros is left out, so that it is copied anew and does not
 * pass for whole in the next archive. A process that ends half-way leaves a tree that the journal calls unfinished.
 */
export function populate({ nodes, journal }: Staging, name: string, tree: ArchiveTree): StagedNode {
  const linked = new Map<number, StagedNode>()
  const add = (parent: StagedNode, childName: string, row: number): StagedNode => {
    const { mode, uid, gid, rdev, atimeNs, mtimeNs, ctimeNs, nlink, size } = tree.attr(row)
    const target = tree.isSymlink(row) ? Buffer.from(tree.linkTarget(row)) : undefined
    const node = nodes.add(parent, childName, { mode, uid, gid, rdev, atimeNs, mtimeNs, ctimeNs, target })
    journal.created(node, parent.id, childName)
    for (const [attribute, value] of tree.xattrs(row)) {
      const kept = Buffer.from(value)
      ;(node.xattrs ??= new Map()).set(byteString(attribute), kept)
      journal.xattr(node.id, byteString(attribute), kept)
    }
    if (tree.isRegular(row) && size > 0) {
      node.size = size
      node.bare = true
      node.extents = extentsOf(tree, row, 0, 0, 0, size)
      journal.cloned(node.id, node.extents)
    }
    if (nlink > 1) linked.set(row, node)
    return node
  }
  const root = nodes.get(rootId)!
  let top!: StagedNode
  journal.together(() => {
    top = add(root, name, 0)
    journal.opening(name)
    const open: [StagedNode, number][] = [[top, 0]]
    for (let next = open.pop(); next; next = open.pop()) {
      const [directory, directoryRow] = next
      for (let row = tree.firstChild(directoryRow); row !== 0; row = tree.nextSibling(row)) {
        const target = tree.targetOf(row)
        if (tree.isDamaged(target)) continue
        const childName = byteString(tree.nameOf(row))
        const first = linked.get(target)
        if (first) {
          nodes.link(first, directory, childName)
          journal.linked(first.id, directory.id, childName)
          continue
        }
        const node = add(directory, childName, target)
        if ((node.mode & typeMask) === typeDirectory) open.push([node, target])
      }
    }
  })
  return top
}

/** Files of a staged tree that lie in the spool, with what an archive made of exactly this tree has of them. */
export function* stored({ nodes }: Staging, top: StagedNode, tree: ArchiveTree): Generator<[StagedNode, Extents]> {
  const open: [StagedNode, number][] = [[top, 0]]
  for (let next = open.pop(); next; next = open.pop()) {
    const [directory, directoryRow] = next
    for (const [name, id] of directory.children!) {
      const node = nodes.get(id)
      const row = tree.lookup(directoryRow, bytesOf(name))
      if (!node || row < 0) continue
      if (node.children) open.push([node, row])
      else if (!node.bare && node.size > 0 && tree.isRegular(row) && tree.size(row) === node.size) yield [node, extentsOf(tree, row, 0, 0, 0, node.size)]
    }
  }
}
