/** Open files of incoming/ and live/, and what is done by way of them. */
import { type Answer, type Call, LATER, type ReadAnswer, type ReadBytes } from '../core.js'
import { inoOf } from '../inodes.js'
import { SequentialRead } from '../read-ahead.js'
import type { SharedRange } from '../subtree.js'
import { Errno, type Ino, type Opened } from '../types.js'
import type { Box } from './box.js'
import { nowNs } from './clock.js'
import { hostErrno } from './contents.js'
import type { Extents } from './extents.js'
import type { StagedNode } from './nodes.js'
import type { StagedTree } from './policy.js'
import { capabilityXattr, dropPrivileges } from './set-id.js'

const writeFlags = 3, writeOnly = 1, truncateFlag = 0o1000

interface Handle {
  readonly sequence: SequentialRead
  readonly node: StagedNode
  readonly writes: boolean
  /** Writes come past the kernel's pages. */
  readonly direct: boolean
  /** Whose contents the file is: see `rehome`. */
  trees: readonly StagedTree[]
}

export class Handles {
  readonly #box: Box
  readonly #handles = new Map<number, Handle>()
  /** Files that nobody has open any more, of trees that were being committed then. */
  readonly #unused = new Set<StagedNode>()
  /** What is to be laid over files when their trees may be changed again. */
  readonly #awaited = new Set<SharedRange>()
  #nextHandle = 1

  constructor(box: Box) {
    this.#box = box
  }

  get count(): number {
    return this.#handles.size
  }

  /** Chunks that no file here may have yet, or any more, and that are needed all the same. */
  *awaitedExtents(): Generator<Extents> {
    for (const { extents } of this.#awaited) yield extents
  }

  isInUse(tree: StagedTree): boolean {
    return [...this.#handles.values()].some(({ trees }) => trees.includes(tree))
  }

  open(ino: Ino, flags: number, call: Call<Opened>): Answer<Opened> {
    const node = this.#box.node(ino)
    if (!node) return Errno.ESTALE
    if (node.children) return Errno.EISDIR
    if ((flags & writeFlags) === 0 && !(flags & truncateFlag)) {
      const opened = (): Answer<Opened> => {
        // It may have been let go while the archive was awaited.
        const here = this.#box.node(ino)
        return here ? this.#open(here, flags) : Errno.ESTALE
      }
      return node.known ? opened() : this.#box.whenWhole(() => this.#box.treesOf(node), call, opened)
    }
    const { killSetId } = call
    const hadName = node.nlink > 0
    // It went with its tree, which became an archive: what would be written to it now would be nowhere.
    const isGone = (): boolean => !this.#box.isHere(node) || (hadName && node.nlink === 0)
    const trees = (): StagedTree[] => this.#box.treesOf(node)
    // To open a file changes nothing in it; but who is to write to it waits now.
    if (!(flags & truncateFlag)) return this.#box.whenWhole(trees, call, whole => this.#box.whenThawed(trees, whole, () => (isGone() ? Errno.ESTALE : this.#open(node, flags))))
    return this.#box.altering(trees, call, later => {
      if (isGone()) return Errno.ESTALE
      const { staging, contents } = this.#box
      staging.adopt(node)
      if (killSetId && dropPrivileges(staging, node, later)) this.#box.notices.invalidateAttributes(ino)
      const failed = contents.truncate(node, 0)
      if (failed) return failed
      const now = nowNs()
      staging.setAttributes(node, { mtimeNs: now, ctimeNs: now })
      return this.#open(node, flags)
    })
  }

  /** A new file. `fh`: one of those that were given for it already. */
  openNew(node: StagedNode, flags: number, fh?: number): Opened {
    return this.#open(node, flags, (flags & writeFlags) === writeOnly, fh)
  }

  get nextHandle(): number {
    return this.#nextHandle
  }

  /** So many were given by somebody else, from `nextHandle` on. */
  given(count: number): void {
    this.#nextHandle += count
  }

  /**
   * `direct`: it is a new file that is only written. Past the kernel's pages that needs no question for capabilities (one for each file), no memory
   * and one copy less. Whoever opens it meanwhile uses pages as ever: see `write`.
   */
  #open(node: StagedNode, flags: number, direct = false, fh = this.#nextHandle++): Opened {
    this.#box.nodes.fill(node)
    const writes = (flags & writeFlags) !== 0
    const trees = this.#box.treesOf(node)
    this.#handles.set(fh, { sequence: new SequentialRead(), node, writes, direct, trees })
    node.opens++
    if (writes) {
      node.writers++
      for (const tree of trees) tree.writers++
    }
    // Nothing is left to be done at a close: what was written is in the kernel of the host. The kernel writes out what was mapped when the mapping ends.
    return { fh, keepCache: true, noFlush: true, directIo: direct }
  }

  read(fh: number, offset: number, into: Buffer, call: Call<ReadBytes>): Answer<ReadAnswer> {
    const handle = this.#handles.get(fh)
    if (!handle) return Errno.EBADF
    return this.#box.contents.read(handle.node, handle.sequence, offset, into, call)
  }

  /** What of a file are chunks, up to the first byte that is not. EOPNOTSUPP where it begins with one: the kernel copies then. */
  sharedRange(fh: number, offset: number, length: number): SharedRange | Errno {
    const handle = this.#handles.get(fh)
    if (!handle) return Errno.EBADF
    return this.#box.contents.shared(handle.node, offset, length)
  }

  cloneInto(fh: number, offset: number, range: SharedRange, call: Call<number>): Answer<number> {
    const handle = this.#handles.get(fh)
    if (!handle) return Errno.EBADF
    // The chunks may be about to go with the archive; the bytes can be copied.
    if (this.#box.replaced) return Errno.EOPNOTSUPP
    this.#awaited.add(range)
    return this.#box.whenThawed(() => handle.trees, call, later => {
      this.#awaited.delete(range)
      return this.#box.changing(() => handle.trees, later, () => {
        const { node } = handle
        this.#box.staging.adopt(node)
        const failed = this.#box.contents.clone(node, offset, range.length, range.extents, range.stashed)
        if (failed) return failed
        node.mtimeNs = node.ctimeNs = nowNs()
        node.dirty = true
        return range.length
      })
    })
  }

  write(fh: number, offset: number, data: Buffer, call: Call<number>): Answer<number> {
    const handle = this.#handles.get(fh)
    if (!handle) return Errno.EBADF
    const kept = handle.trees.some(tree => tree.frozen) ? Buffer.from(data) : data
    const { killSetId } = call
    return this.#box.changing(() => handle.trees, call, later => {
      const { node, direct } = handle
      this.#box.staging.adopt(node)
      if (killSetId && dropPrivileges(this.#box.staging, node, later)) this.#box.notices.invalidateAttributes(inoOf(this.#box.range, node.id))
      if (direct && node.xattrs?.has(capabilityXattr)) this.#box.staging.setXattr(node, capabilityXattr, undefined)
      // O_APPEND is the kernel's work: it knows the size, and the flag can come and go while the file is open. What was written through
      // mmap comes by any handle, with its own place.
      const failed = this.#box.contents.write(node, offset, kept)
      if (failed) return failed
      node.mtimeNs = node.ctimeNs = nowNs()
      node.dirty = true
      const isAhead = this.#box.cuts.isAhead(node)
      if (!isAhead && (!direct || node.opens === 1)) return kept.length
      // Pages of who reads it meanwhile: the kernel let go of those before it sent the bytes, and may have asked for them again until now.
      const answer = later.defer()
      const written = (): void => answer(kept.length)
      const seen = direct && node.opens > 1 ? () => this.#box.notices.invalidatePages(inoOf(this.#box.range, node.id), offset, kept.length, written) : written
      if (isAhead) this.#box.cuts.holdUp(node, seen)
      else seen()
      return LATER
    })
  }

  flush(fh: number): Answer<void> {
    const handle = this.#handles.get(fh)
    return handle && hostErrno(() => this.#box.staging.recordTimes(handle.node))
  }

  fsync(fh: number, call: Call<void>): Answer<void> {
    const handle = this.#handles.get(fh)
    if (!handle) return Errno.EBADF
    return hostErrno(() => this.#box.staging.recordTimes(handle.node)) ?? this.#box.durability.sync(handle.node, call)
  }

  /** All that is staged, also what was closed. */
  syncfs(call: Call<void>): Answer<void> {
    const failed = hostErrno(() => {
      for (const { node } of this.#handles.values()) this.#box.staging.recordTimes(node)
    })
    return failed ?? this.#box.durability.syncAll(call)
  }

  release(fh: number): void {
    const handle = this.#handles.get(fh)
    if (!handle) return
    this.#handles.delete(fh)
    const { node, trees, writes } = handle
    node.opens--
    if (writes) {
      node.writers--
      for (const tree of trees) {
        tree.writers--
        tree.changedAtMs = performance.now()
      }
      // A full disk: nobody can be told any more, and the times in memory are those that are saved.
      hostErrno(() => this.#box.staging.recordTimes(node))
      if (node.writers === 0) this.#box.cuts.closed(node)
    }
    if (node.opens > 0) return
    this.#box.contents.close(node)
    this.#box.letGo(node)
    if (trees.some(({ frozen }) => frozen)) this.#unused.add(node)
    else this.#box.nodes.evict(node)
  }

  /** After files came to another tree or left one: their handles go with them, or else what is written through them would be no change of where they are. */
  rehome(): void {
    for (const handle of this.#handles.values()) {
      const { node, trees: before, writes } = handle
      if (node.nlink === 0) continue
      handle.trees = this.#box.treesOf(node)
      if (!writes) continue
      for (const tree of before) tree.writers--
      for (const tree of handle.trees) tree.writers++
    }
  }

  releaseAll(): void {
    for (const fh of [...this.#handles.keys()]) this.release(fh)
  }

  /** Files that were only read need not stay, but whoever waits for a commit to end may be about to change one. */
  evict(): void {
    for (const node of this.#unused) {
      if (this.#box.treesOf(node).some(({ frozen }) => frozen)) continue
      this.#unused.delete(node)
      this.#box.nodes.evict(node)
    }
  }

  fallocate(fh: number, mode: number, offset: number, length: number, call: Call<void>): Answer<void> {
    const handle = this.#handles.get(fh)
    if (!handle) return Errno.EBADF
    return this.#box.changing(() => handle.trees, call, () => {
      const { node } = handle
      this.#box.staging.adopt(node)
      const failed = this.#box.contents.allocate(node, mode, offset, length)
      if (failed) return failed
      node.mtimeNs = node.ctimeNs = nowNs()
      node.dirty = true
      return undefined
    })
  }

  lseek(fh: number, offset: number, whence: number): Answer<number> {
    const handle = this.#handles.get(fh)
    if (!handle) return Errno.EBADF
    return this.#box.contents.seek(handle.node, offset, whence)
  }
}
