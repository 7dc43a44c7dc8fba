/** What is in a staged tree: to be counted, and to be handed to the engine. */
import type { BaseTree } from './base-tree.js'
import type { FrozenBeneath, FrozenFile, FrozenItem, FrozenTree } from './frozen.js'
import { FrozenItemPacker } from './frozen-items.js'
import { isFile, type Nodes, rootId, type StagedNode } from './nodes.js'
import type { Staging } from './staging.js'

/** Byte string; undefined: what lies directly in incoming/. */
type TreeName = string | undefined

/** All that was staged in it, directories before what is in them. What only lies beneath is not here. */
export function* walkTree(nodes: Nodes, name: TreeName): Generator<{ node: StagedNode; path: string }> {
  const root = nodes.get(rootId)!
  if (name !== undefined) {
    const top = nodes.child(root, name)
    if (top) yield* nodes.walk(top)
    return
  }
  for (const [path, id] of root.children!) {
    const node = nodes.get(id)
    if (node && !node.children) yield { node, path }
  }
}

/** Files and bytes, with those that lie beneath; names of one file count once. */
export function countTree(nodes: Nodes, name: TreeName): { files: number; bytes: number } {
  let files = 0, bytes = 0
  const seen = new Set<number>()
  for (const { node } of walkTree(nodes, name)) {
    const { origin, children, hidden } = node
    if (origin?.base.attached) {
      const { base, row } = origin
      for (const found of base.below(row, below => children!.has(below) || hidden?.has(below) === true)) {
        if (base.tree.isDirectory(found)) continue
        files++
        if (base.tree.isRegular(found)) bytes += base.tree.size(found)
      }
    }
    if (node.children || (node.nlink > 1 && seen.has(node.id))) continue
    if (node.nlink > 1) seen.add(node.id)
    files++
    if (isFile(node)) bytes += node.size
  }
  return { files, bytes }
}

/** The tree as it is now, for the engine. */
export function freezeTree(staging: Staging, name: TreeName): FrozenTree {
  const { nodes } = staging
  const items = new FrozenItemPacker()
  const used = new Map<BaseTree, number>()
  const extents: Uint8Array[] = []
  let bytes = 0, firstExtent = 0
  const contentOf = contentsOf(staging)
  for (const { node, path } of walkTree(nodes, name)) {
    const { id, mode, uid, gid, rdev, mtimeNs, ctimeNs, target, xattrs, nlink, origin, children, hidden } = node
    if (isFile(node)) bytes += node.size
    let beneath: FrozenBeneath | undefined
    if (origin) {
      if (!used.has(origin.base)) used.set(origin.base, used.size)
      beneath = { base: used.get(origin.base)!, row: origin.row, without: new Set([...children!.keys(), ...hidden ?? []]) }
    }
    const extentCount = node.extents?.count ?? 0
    if (extentCount > 0) extents.push(node.extents!.rows)
    items.add({
      path, id, mode, uid, gid, rdev, mtimeNs, ctimeNs, target, xattrs, nlink, size: node.size, content: contentOf(node), firstExtent, extentCount, beneath, bsdflags: nodes.flagsOf(id),
    })
    firstExtent += extentCount
  }
  const bases = Array.from(used.keys(), ({ tree: { columns, chunks }, firstId }) => ({ columns: { ...columns, chunks: undefined }, chunks, firstId }))
  return { name, items: items.finish(), extents: joined(extents), bases, bytes, stagingFolder: staging.folder, keys: staging.keys }
}

function contentsOf({ spool, bundles, keys }: Staging): (node: StagedNode) => FrozenItem['content'] {
  const known = new Map<number, FrozenFile>()
  const bundle = (number: number): FrozenFile => {
    let file = known.get(number)
    if (!file) known.set(number, file = { path: bundles.path(number), cipherNumber: keys && bundles.cipherNumber(number) })
    return file
  }
  return node => {
    if (!isFile(node) || node.size === 0) return undefined
    const { id, place } = node
    if (place) return { file: bundle(place.bundle), position: place.start }
    return { file: { path: spool.path(id), cipherNumber: spool.isSealed(id) ? id : undefined }, position: undefined }
  }
}

/** In memory of its own, which structured clone copies no more than that. */
function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const piece of pieces) {
    all.set(piece, at)
    at += piece.length
  }
  return all
}
