/** What a journal has to say for nodes to be as they are: all of it in order, as fields of records. */
import type { MsgValue } from '../../engine/msgpack.js'
import { bytesOf } from '../../engine/text.js'
import type { BaseTree } from './base-tree.js'
import type { FormerPlace } from './bundles.js'
import { extentBytes, type Extents } from './extents.js'
import { recordKind } from './journal-records.js'
import type { MadeArchives } from './journal-replay.js'
import { type Nodes, type Origin, rootId, type StagedNode } from './nodes.js'

/** Rows of one record: what a damaged one costs, and short enough to be found behind damage. */
const maxRowsPerRecord = 1000

/** `toOpen`: see Journal.opening. The nodes must not change in between. */
export function* stateRecords(nodes: Nodes, archives: MadeArchives, toOpen: Iterable<string>): Generator<readonly MsgValue[]> {
  let isEmpty = true
  for (const fields of factRecords(nodes, archives, toOpen)) {
    isEmpty = false
    yield fields
  }
  if (isEmpty) return
  // A journal that consists of this is durable before it takes its place.
  yield [recordKind.mark, firstMark]
  yield [recordKind.synced, firstMark]
}
const firstMark = 0

function* factRecords(nodes: Nodes, archives: MadeArchives, toOpen: Iterable<string>): Generator<readonly MsgValue[]> {
  const seen = new Set<number>()
  const origins: StagedNode[] = []
  for (const series of toOpen) yield [recordKind.opening, bytesOf(series)]
  for (const base of nodes.bases) yield baseFields(base)
  const root = nodes.get(rootId)!
  // Without recursion: directories may lie one in the other by the ten thousand.
  const open = [{ directory: root, entries: root.children!.entries() }]
  for (let last = open.at(-1); last; last = open.at(-1)) {
    const { directory, entries } = last
    for (const [name, id] of entries) {
      const node = nodes.get(id)
      if (!node) continue
      if (seen.has(id)) {
        yield [recordKind.linked, id, directory.id, bytesOf(name)]
        continue
      }
      seen.add(id)
      yield* nodeRecords(node, directory, name)
      if (node.origin || (node.children && nodes.baseOf(id))) {
        origins.push(node)
        yield originFields(id, node.origin)
        for (const hidden of node.hidden ?? []) yield [recordKind.unlinked, id, bytesOf(hidden)]
      }
      if (!node.children) continue
      open.push({ directory: node, entries: node.children.entries() })
      break
    }
    if (open.at(-1) !== last) continue
    open.pop()
    // What happened in a directory changed its times.
    const { id, mode, uid, gid, atimeNs, mtimeNs, ctimeNs } = directory
    if (directory !== root) yield [recordKind.attributes, id, mode, uid, gid, atimeNs, mtimeNs, ctimeNs]
  }
  for (const [tree, { made, changed }] of archives) {
    const name = tree === undefined ? null : bytesOf(tree)
    yield [recordKind.committed, name, bytesOf(made.name), Buffer.from(made.id, 'hex'), made.tree === undefined ? null : bytesOf(made.tree)]
    if (changed) yield [recordKind.changed, name]
  }
  for (const base of nodes.bases) yield baseFields(base)
  // After what says that a tree is an archive, from which follows where its directories were then.
  for (const { id, origin } of origins) yield originFields(id, origin)
}

function* nodeRecords(node: StagedNode, directory: StagedNode, name: string): Generator<readonly MsgValue[]> {
  const { id } = node
  yield [recordKind.made, id, directory.id, bytesOf(name), node.mode, node.uid, node.gid, node.rdev, node.atimeNs, node.mtimeNs, node.ctimeNs, node.target ?? null]
  for (const [attribute, value] of node.xattrs ?? []) yield [recordKind.xattr, id, bytesOf(attribute), value]
  let isFormerTold = false
  for (const { extents, bare, stashed, former, mtimeNs, ctimeNs, boot } of node.befores) {
    // It had left the bundle by then already.
    if (former && former === node.former && !isFormerTold) {
      yield* formerRecords(id, former)
      isFormerTold = true
    }
    if (extents) yield* extentRecords(id, extents, stashed)
    yield [recordKind.attributes, id, node.mode, node.uid, node.gid, node.atimeNs, mtimeNs, ctimeNs]
    yield [recordKind.changing, id, bytesOf(boot), Number(bare)]
    yield [recordKind.cut, id, 0, Number.MAX_SAFE_INTEGER]
    yield [recordKind.attributes, id, node.mode, node.uid, node.gid, node.atimeNs, node.mtimeNs, node.ctimeNs]
  }
  if (node.place) yield [recordKind.placed, id, node.place.bundle, node.place.start, node.size]
  if (node.former && !isFormerTold) yield* formerRecords(id, node.former)
  if (node.extents) yield* extentRecords(id, node.extents, node.stashed)
  if (node.spoolGone) yield [recordKind.spoolGone, id]
  if (node.extents && node.settled) yield [recordKind.settled, id]
}

function* formerRecords(id: number, { place, size, boot }: FormerPlace): Generator<readonly MsgValue[]> {
  yield [recordKind.placed, id, place.bundle, place.start, size]
  yield [recordKind.takenOver, id, bytesOf(boot)]
}

function* extentRecords(id: number, extents: Extents, stashed: boolean): Generator<readonly MsgValue[]> {
  for (const rows of recordsOf(extents)) yield [stashed ? recordKind.stashed : recordKind.extents, id, rows]
}

export function baseFields({ series, archive, firstId, rowCount }: BaseTree): MsgValue[] {
  return [recordKind.base, bytesOf(series), Buffer.from(archive, 'hex'), firstId, rowCount]
}

export function originFields(id: number, origin: Origin | undefined): MsgValue[] {
  if (!origin) return [recordKind.origin, id]
  const { base, row, path } = origin
  return [recordKind.origin, id, base.firstId, row, path === undefined ? base.attached ? base.tree.pathOf(row) : null : bytesOf(path)]
}

export function* recordsOf(extents: Extents): Generator<Buffer> {
  const { rows } = extents
  for (let at = 0; at < rows.length; at += maxRowsPerRecord * extentBytes) yield rows.subarray(at, at + maxRowsPerRecord * extentBytes)
}
