/** What files of chunks were before they were changed, until what they became is durable. */
import type { BundlePlace } from './bundles.js'
import { Extents } from './extents.js'
import type { StagedNode } from './nodes.js'

/**
 * A file that consisted of chunks, wholly or in part. `boot`: the start of the machine in which it was changed; after another one it is that file again. What of it lay in the
 * spool file may have been changed there.
 */
export interface Before extends Pick<StagedNode, 'extents' | 'bare' | 'stashed' | 'place' | 'former' | 'cut' | 'mtimeNs' | 'ctimeNs'> {
  readonly boot: string
}

export const noBefores: readonly Before[] = []

/** To be called before such a file is changed. */
export function keepBefore(node: StagedNode, boot: string, bare: boolean): void {
  const { extents, stashed, place, former, cut, mtimeNs, ctimeNs } = node
  node.befores = [...node.befores, { extents: extents && new Extents(extents.rows), bare, stashed, place, former, cut, mtimeNs, ctimeNs, boot }]
  node.spoolGone = false
}

/** What it became is not to be. */
export function goBack(node: StagedNode, to: Before): void {
  const { boot: _boot, ...before } = to
  // A spool file that it has now is not one of what it was, if that had none or lay in a bundle.
  Object.assign(node, before, { befores: noBefores, spoolGone: to.bare || to.place !== undefined, settled: false })
}

/** A file that lies in a bundle got a spool file. */
export function leaveBundle(node: StagedNode, place: BundlePlace, boot: string): void {
  node.former = { place, size: node.size, boot }
  node.place = undefined
  node.spoolGone = false
}

/** The spool file that took over from a bundle is durable: for what it was before as well. */
export function withoutFormer(befores: readonly Before[]): readonly Before[] {
  return befores.some(({ former }) => former) ? befores.map(before => ({ ...before, former: undefined })) : befores
}
