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
  readonly #root: Ino
  readonly #topNames: Buffer[] = []
  #askAtMs = 0
  #pauseMs = firstAskPauseMs

  /** `root`: the archive's own directory. Without its tree nothing below it is known by name. */
  constructor(root: Ino, tree: ArchiveTree | undefined) {
    this.#root = root
    if (tree) for (let row = tree.firstChild(0); row !== 0 && this.#topNames.length < maxTopNames; row = tree.nextSibling(row)) this.#topNames.push(Buffer.from(tree.nameOf(row)))
  }

  /** To be called every now and then. */
  ask(notices: KernelNotices, nowMs: number): void {
    if (nowMs < this.#askAtMs) return
    this.#pauseMs = Math.min(2 * this.#pauseMs, lastAskPauseMs)
    this.#askAtMs = nowMs + this.#pauseMs
    for (const name of this.#topNames) notices.invalidateEntry(this.#root, name)
  }
}
