/** Open directories of incoming/ and live/. */
import { bytesOf } from '../../engine/text.js'
import type { Answer, Call, DirSink } from '../core.js'
import { localOf, rootIno } from '../inodes.js'
import { Errno, type Ino, type Opened } from '../types.js'
import type { Box } from './box.js'
import { rootId } from './nodes.js'

export class Listings {
  readonly #box: Box
  /** Names as they were when the reader began. */
  readonly #listings = new Map<number, { names: [string, number][] }>()
  #nextHandle = 1

  constructor(box: Box) {
    this.#box = box
  }

  opendir(ino: Ino, call: Call<Opened>): Answer<Opened> {
    const id = localOf(ino)
    if (!this.#box.nodes.isDirectory(id)) return this.#box.attrOf(id) ? Errno.ENOTDIR : Errno.ESTALE
    const open = (): Opened => {
      const fh = this.#nextHandle++
      this.#listings.set(fh, { names: [...this.#box.nodes.names(id)] })
      return { fh }
    }
    return id === rootId && this.#box.live ? this.#box.live.whenOpen(undefined, call, open) : open()
  }

  readdir(ino: Ino, fh: number, cookie: number, sink: DirSink): Answer<void> {
    const id = localOf(ino)
    if (!this.#box.nodes.isDirectory(id)) return Errno.ESTALE
    const listing = this.#listings.get(fh) ?? { names: [...this.#box.nodes.names(id)] }
    // rewinddir wants to see what is there now.
    if (cookie === 0) listing.names = [...this.#box.nodes.names(id)]
    const own = this.#box.entryOf(id)!
    if (cookie < 1 && !sink(dot, own, 1)) return undefined
    const parent = id === rootId ? { attr: { ...own.attr, ino: rootIno }, entryTtlMs: 0, attrTtlMs: 0 } : this.#box.entryOf(this.#box.nodes.parentOf(id) ?? id) ?? own
    if (cookie < 2 && !sink(dotDot, parent, 2)) return undefined
    const mayDiffer = this.#box.nodes.peek(id) !== undefined
    for (let index = Math.max(0, cookie - 2); index < listing.names.length; index++) {
      const [name, child] = listing.names[index]!
      // Gone or another one since the listing was taken.
      if (mayDiffer && this.#box.nodes.childId(id, name) !== child) continue
      const entry = this.#box.entryOf(child)
      if (entry && !sink(bytesOf(name), entry, index + 3)) return undefined
    }
    return undefined
  }

  releasedir(fh: number): void {
    this.#listings.delete(fh)
  }
}

const dot = Buffer.from('.'), dotDot = Buffer.from('..')
