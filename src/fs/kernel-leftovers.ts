/**
 * What the kernel keeps of an archive that is gone. When the archive's name was taken from it, it kept what somebody had open or stood in, and
 * goes on keeping that when it is not in use any more, until it is asked. Asked in vain it is asked less and less often.
 */
import type { ArchiveTree } from './archive-tree.js'
import type { KernelNotices } from './core.js'
import type { Ino } from './types.js'

const firstAskPauseMs = 500, lastAskPauseMs = 3_600_000
/** Few archives have more in their topmost directory. */
const maxTopNames = 1000

export class KernelLeftovers {
  readonly #topNames: Buffer[] = []
  #askAtMs = 0
  #pauseMs = firstAskPauseMs

  /** Without the archive's tree nothing below it is known by name. */
  constructor(tree: ArchiveTree | undefined) {
    if (tree) for (let row = tree.firstChild(0); row !== 0 && this.#topNames.length < maxTopNames; row = tree.nextSibling(row)) this.#topNames.push(Buffer.from(tree.nameOf(row)))
  }

  /** To be called every now and then. `roots`: the archive's own directory, and what it is at further places. */
  ask(notices: KernelNotices, nowMs: number, roots: readonly Ino[]): void {
    if (nowMs < this.#askAtMs) return
    this.#pauseMs = Math.min(2 * this.#pauseMs, lastAskPauseMs)
    this.#askAtMs = nowMs + this.#pauseMs
    for (const root of roots) for (const name of this.#topNames) notices.invalidateEntry(root, name)
  }
}
