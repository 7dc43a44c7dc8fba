/** What is in files at a start, where an earlier process or the whole machine may have ended at any moment: what the journal says, held against what is on the disk. */
import type { SharedTable } from '../../engine/hashindex/hash-table.js'
import { SharedTableReader } from '../../engine/hashindex/shared-table-reader.js'
import { goBack, noBefores } from './before.js'
import type { Bundles, FormerPlace } from './bundles.js'
import type { Extent } from './extents.js'
import { isFile, type Nodes, type StagedNode } from './nodes.js'
import type { Spool } from './spool.js'

/** A file that the failure of the machine made what it was: before the change of this number, as Journal.undone counts. */
export interface Undone {
  readonly id: number
  readonly index: number
}

export class FoundContents {
  readonly undone: Undone[] = []
  readonly #spool: Spool
  readonly #bundles: Bundles
  readonly #boot: string
  readonly #tables: readonly SharedTableReader[]

  /** `boot`: which start of the machine this is. `chunks`: see StagingOptions. */
  constructor(spool: Spool, bundles: Bundles, boot: string, chunks: readonly SharedTable[]) {
    this.#spool = spool
    this.#bundles = bundles
    this.#boot = boot
    this.#tables = chunks.map(table => new SharedTableReader(table))
  }

  /** The spool knows best how much was written, and when, if the process ended before the journal heard of it. Takes the bundles' places that count. */
  adopt(nodes: Nodes): void {
    for (const node of nodes.all()) if (isFile(node)) this.#adopt(node)
  }

  #adopt(node: StagedNode): void {
    const spool = this.#spool
    this.#undo(node)
    if (node.spoolGone && spool.exists(node.id)) spool.remove(node.id)
    if (node.former) this.#adoptFormer(node, node.former)
    const lost = node.stashed && this.#dropLost(node)
    // What was cut lies in its bundle still, but that is only the truth where chunks of it are lost.
    if (node.place && node.cut && !lost) node.place = undefined
    if (node.place) {
      node.extents = node.cut = undefined
      node.stashed = false
      node.size = this.#bundles.present(node.place, node.size)
      // A crash may have taken the bundle, or never have had it.
      if (node.size > 0) this.#bundles.claim(node.place)
      else node.place = undefined
      return
    }
    node.bare = node.extents !== undefined && !spool.exists(node.id)
    node.size = node.bare ? node.extents!.end : spool.stat(node.id).size
    if (node.settled) node.extents?.remove(node.size, Infinity)
    if (node.extents?.count === 0) node.extents = undefined
    if (node.bare || !node.extents || node.extents.end <= node.size) return
    // It was made beneath the extents, and a crash took its length: they are what was promised.
    node.size = node.extents.end
    spool.truncate(node.id, node.size)
    spool.close(node.id)
  }

  readonly #isLost = ({ id }: Extent): boolean => this.#tables.length > 0 && !this.#tables.some(table => table.has(id))

  /**
   * What a file became may be on the disk in part, if the machine failed: it is what it was. If chunks of that are nowhere any more, they say so when they are read; unless it
   * became chunks, and all of those are there.
   */
  #undo(node: StagedNode): void {
    const { id, befores, extents } = node
    if (befores.every(({ boot }) => boot === this.#boot)) return
    const whole = befores.findIndex(before => before.place || !before.extents?.some(this.#isLost))
    if (whole < 0 && extents && !extents.some(this.#isLost) && !node.place && !this.#spool.exists(id)) {
      node.befores = noBefores
      return
    }
    const index = Math.max(0, whole)
    goBack(node, befores[index]!)
    this.undone.push({ id, index })
  }

  /** A spool file that took over from a bundle counts unless the machine failed before it was durable. */
  #adoptFormer(node: StagedNode, former: FormerPlace): void {
    if (former.boot === this.#boot && (this.#spool.exists(node.id) || node.extents)) return this.#bundles.claim(former.place)
    node.former = undefined
    // Nothing was promised then but what there is.
    if (this.#bundles.present(former.place, former.size) === 0 && this.#spool.exists(node.id)) return
    node.place = former.place
    node.size = former.size
    node.extents = undefined
    node.stashed = node.settled = false
  }

  /**
   * Chunks that are nowhere, because the host failed before they were durable: what lay beneath them is still there, or else nothing can be
   * done but say so when the file is read. Whether there are any.
   */
  #dropLost(node: StagedNode): boolean {
    const { extents } = node
    if (!extents || (!node.place && !this.#spool.exists(node.id))) return false
    const before = extents.count
    for (let index = before - 1; index >= 0; index--) {
      const extent = extents.get(index)
      if (this.#isLost(extent)) extents.remove(extent.at, extent.at + extent.length)
    }
    const lost = extents.count < before
    if (extents.count === 0) node.extents = undefined
    return lost
  }
}
