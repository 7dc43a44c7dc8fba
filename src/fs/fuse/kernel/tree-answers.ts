/**
 * Has the addon answer what the kernel asks about the names and attributes of archives, in the loop of receiveRequest: that is nearly all that
 * `ls -l`, `find` and `tar` ask, and a question costs less than entering JavaScript for it. ArchiveFiles answers the same, byte for byte, while it
 * is not shown here.
 */
import { native } from '../../../engine/native.js'
import type { ArchiveTree } from '../../archive-tree.js'
import type { ShownTree, TreeAnswers } from '../../core.js'
import { currentGeneration } from './answers.js'

export class NativeTreeAnswers implements TreeAnswers {
  show({ tree, above, ttlMs, lastUse, clock, handed, references }: ShownTree): void {
    const { columns } = tree
    native().showTree(tree.base, above, columnsOf(tree), columns.suppliedTimeNs, columns.rootTimeNs, ttlMs / 1000, tree.isBare, lastUse, clock, currentGeneration(), handed.states, handed.opens, references)
  }

  hide(tree: ArchiveTree): void {
    native().hideTree(tree.base)
  }
}

/** In the order of native/answers_binding.cc. */
function columnsOf({ columns: c }: ArchiveTree): ArrayBufferView[] {
  return [c.parent, c.nameStart, c.first, c.count, c.nextSibling, c.access, c.flags, c.size, c.mtimeNs, c.atimeNs, c.ctimeNs, c.names, c.blobs, c.slots, c.xattrRow, c.linkedRow, c.linkedCount, c.modes, c.uids, c.gids, c.nameKey]
}
