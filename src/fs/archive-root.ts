/**
 * An archive's own directory, and what the kernel may keep of it: before anything is loaded it is supplied, the head says what it looks like, and the tree
 * says the same.
 */
import type { ArchiveLoads } from './archive-loads.js'
import type { MountView } from './engine-port.js'
import { type Attr, clampedNs, type Entry, type Ino } from './types.js'

/** How long the kernel keeps what never changes. */
export const unchangingTtlMs = 24 * 3600 * 1000

export function unchanging(attr: Attr): Entry {
  return { attr, entryTtlMs: unchangingTtlMs, attrTtlMs: unchangingTtlMs }
}

export class ArchiveRoot {
  readonly ino: Ino
  /** The directory above it; itself, where the mount shows nothing else. */
  readonly above: Ino
  readonly #loads: ArchiveLoads
  readonly #view: MountView

  constructor(ino: Ino, above: Ino, loads: ArchiveLoads, view: MountView) {
    this.ino = ino
    this.above = above
    this.#loads = loads
    this.#view = view
  }

  /** Undefined until head or tree were loaded once. */
  get attr(): Attr | undefined {
    const { tree, head } = this.#loads
    if (tree) return tree.attr(0)
    return head && { ...this.supplied(), ...head.root }
  }

  /** The same without asking anyone. */
  get knownEntry(): Entry | undefined {
    const { attr } = this
    return attr && unchanging(attr)
  }

  /** Before the head is known: a directory of the archive's time, which the kernel must not keep. */
  get entry(): Entry {
    return this.knownEntry ?? { attr: this.supplied(), entryTtlMs: 0, attrTtlMs: 0 }
  }

  /** An entry for `..`, of which only number and type matter. */
  dotDot(ino: Ino): Entry {
    return { attr: { ...this.supplied(), ino }, entryTtlMs: 0, attrTtlMs: 0 }
  }

  supplied(): Attr {
    const { uid, gid, umask } = this.#view
    const timeNs = clampedNs(this.#loads.info.timeNs)
    return {
      ino: this.ino, size: 0, blocks: 0, mode: 0o040000 | (0o755 & ~umask), nlink: 1, uid, gid, rdev: 0,
      atimeNs: timeNs, mtimeNs: timeNs, ctimeNs: timeNs, blksize: 512,
    }
  }
}
