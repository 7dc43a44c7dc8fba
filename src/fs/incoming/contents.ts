/**
 * What is in staged files: bytes in the spool, over which extents may lie. Bounded by the staging area's size. Errors are errnos, for whoever
 * answers the kernel; nobody here knows of handles or trees.
 */
import { errnoOf } from '../../engine/errors.js'
import type { Log } from '../../engine/log.js'
import { files } from '../../engine/platform/files.js'
import type { Answer, Call, ReadAnswer, ReadBytes } from '../core.js'
import { errnoByCode } from '../errno.js'
import type { SequentialRead } from '../read-ahead.js'
import type { SharedRange } from '../subtree.js'
import { Errno } from '../types.js'
import { type Before, keepBefore, leaveBundle, withoutFormer } from './before.js'
import { maxBundledBytes, type BundlePlace, type FormerPlace } from './bundles.js'
import type { Cuts } from './cuts.js'
import type { ExtentReader } from './extent-reader.js'
import { Extents } from './extents.js'
import { changeRoomBytes } from './journal.js'
import type { StagedNode } from './nodes.js'
import { keepSize, punchHole, seekData, seekHole, zeroRange } from './spool.js'
import type { Staging } from './staging.js'

/**
 * No file becomes longer (4 PiB). Beyond 2^53 places are not exact any more, and Node takes such a one for "where the descriptor stands": the bytes
 * would come to the file's beginning. The rest is for what is reckoned with beside: lengths of sealed files, ends of extents.
 */
const maxFileBytes = 2 ** 52

export class Contents {
  readonly #staging: Staging
  readonly #reader: ExtentReader
  readonly #cuts: Cuts

  /** Files whose spool file came beneath extents, or extents over it, since it was durable; the number tells one time from the next. */
  readonly #unsettled = new Map<StagedNode, number>()
  #times = 0
  /** Files of which the journal says as well where they lay (`former`) or what they were (`befores`), until what they are is durable; how many of the befores the last sync was begun for. */
  readonly #provisional = new Map<StagedNode, number>()

  constructor(staging: Staging, reader: ExtentReader, cuts: Cuts) {
    this.#staging = staging
    this.#reader = reader
    this.#cuts = cuts
    for (const node of staging.nodes.all()) {
      if (node.extents && !node.bare && !node.settled) this.#unsettle(node)
      if (node.former || node.befores.length > 0) this.#provisional.set(node, 0)
    }
  }

  #unsettle(node: StagedNode): void {
    node.settled = false
    this.#unsettled.set(node, ++this.#times)
  }

  #noteProvisional(node: StagedNode): void {
    if (!this.#provisional.has(node)) this.#provisional.set(node, 0)
  }

  /** To be called before spool files, those of all or of one node, are made durable; what it gives is to be called afterwards, with whether that went well. */
  beforeSync(only?: StagedNode): (well: boolean) => void {
    this.#cuts.promise(only)
    const waiting = only ? [[only, this.#unsettled.get(only)] as const] : [...this.#unsettled]
    const nodes = only ? [only].filter(node => this.#provisional.has(node)) : [...this.#provisional.keys()]
    const promised = nodes.map(node => ({ node, former: node.former, befores: node.befores }))
    for (const { node, befores } of promised) this.#provisional.set(node, befores.length)
    return well => {
      if (!well) return this.#promisedNothing()
      for (const { node, former, befores } of promised) this.#tellDurable(node, former, befores)
      for (const [node, time] of waiting) {
        if (time === undefined || this.#unsettled.get(node) !== time) continue
        this.#unsettled.delete(node)
        if (!node.extents || node.bare || this.#staging.nodes.get(node.id) !== node) continue
        node.settled = true
        this.#staging.journal.settled(node.id)
      }
    }
  }

  /**
   * What was promised of a node is durable: where it lay before (`former`), and what it was before, do not count any more. As long as the journal does not say so they do:
   * without room for that it is told the next time.
   */
  #tellDurable(node: StagedNode, former: FormerPlace | undefined, befores: readonly Before[]): void {
    const { journal, nodes } = this.#staging
    const isHere = nodes.get(node.id) === node
    const isFormer = isHere && former !== undefined && node.former === former
    const count = isHere ? befores.filter(before => node.befores.includes(before)).length : 0
    const isBare = count > 0 && count === node.befores.length && node.bare
    if (isFormer || count > 0) journal.whole(() => {
      if (isFormer) journal.placed(node.id, undefined, 0)
      if (count > 0) journal.certain(node.id, count)
      if (isBare) journal.spoolGone(node.id)
    })
    node.befores = node.befores.slice(count)
    if (isFormer) {
      node.former = undefined
      node.befores = withoutFormer(node.befores)
      this.#staging.releasePlace(former.place)
    }
    node.spoolGone ||= isBare
    if (isHere && (node.former || node.befores.length > 0)) this.#provisional.set(node, Math.max(0, this.#provisional.get(node)! - count))
    else this.#provisional.delete(node)
  }

  /** A sync failed. */
  #promisedNothing(): void {
    for (const node of this.#provisional.keys()) this.#provisional.set(node, 0)
  }

  /** Whether the journal hears of a node only when its spool file is durable, and then has to become so itself. */
  waitsForSpool(node: StagedNode): boolean {
    return this.#provisional.has(node)
  }

  /** The same of any node. */
  get waitForSpools(): boolean {
    return this.#provisional.size > 0
  }

  /** As FsCore.read. */
  read(node: StagedNode, sequence: SequentialRead, offset: number, into: Buffer, call: Call<ReadBytes>): Answer<ReadAnswer> {
    const { id, extents, size, bare, place } = node
    let count = 0
    if (place) {
      count = Math.max(0, Math.min(into.length, size - offset))
      return hostErrno(() => this.#staging.bundles.read(place, into.subarray(0, count), offset)) ?? count
    }
    const failed = bare ? undefined : hostErrno(() => {
      count = this.#staging.spool.read(id, into, offset, size)
    })
    if (failed || !extents?.overlaps(offset, offset + into.length)) return failed ?? count
    const wanted = into.subarray(0, Math.min(into.length, size - offset))
    // The memory of the reply holds what it held before.
    if (count < wanted.length) wanted.fill(0, count)
    return this.#reader.read(extents, sequence, offset, wanted, call)
  }

  write(node: StagedNode, at: number, data: Buffer): Errno | undefined {
    const { size, extents } = node
    const end = at + data.length
    if (end > maxFileBytes) return Errno.EFBIG
    // What lay over the spool file comes into it.
    const replaced = extents?.overlaps(at, end) ? extents.slice(at, end, 0).bytes : 0
    if (!this.#mayGrow(node, Math.max(0, end - Math.max(size, at)) + replaced, at, Math.min(end, size))) return Errno.ENOSPC
    this.#cuts.disturb(node, at)
    return this.#staging.counting(node, () => this.#write(node, at, data))
  }

  /** Room for `more` further bytes, and for what is nothing yet of [at, end), which lies within the file: that is looked up only where it matters. */
  #mayGrow(node: StagedNode, more: number, at: number, end: number): boolean {
    const filled = Math.max(0, Math.min(node.holes, end - at))
    if (more + filled === 0 || this.#staging.mayGrow(more + filled)) return true
    if (filled === 0) return false
    const needed = more + this.#staging.spool.emptyBytes(node.id, at, end, node.size)
    return needed === 0 || this.#staging.mayGrow(needed)
  }

  /**
   * Before a file that is chunks, all of it or in part, is changed from `at` on: what it becomes may reach the disk in part, and long after the journal says that it is no chunk any
   * more. Until that is durable, the journal says as well what it was.
   */
  #keepBefore(node: StagedNode, at: number): Errno | undefined {
    const { bare, befores } = node
    // Behind its end nothing of it is changed, but if it has no spool file yet there will be one. And one is enough, until somebody syncs what became of it.
    if (!node.extents || (at >= node.size && !bare) || befores.length > (this.#provisional.get(node) ?? 0)) return undefined
    const { journal, boot } = this.#staging
    const failed = hostErrno(() => journal.changing(node.id, boot, bare))
    if (failed) return failed
    keepBefore(node, boot, bare)
    this.#noteProvisional(node)
    return undefined
  }

  #write(node: StagedNode, at: number, data: Buffer): Errno | undefined {
    const kept = this.#keepBefore(node, at)
    if (kept) return kept
    const bundled = this.#writeBundled(node, at, data)
    if (bundled !== 'spool') return bundled
    const before = node.size
    const failed = this.#beforeSpool(node) ?? hostErrno(() => this.#staging.spool.write(node.id, data, at, before))
    if (failed) {
      // Some of it may have been written.
      if (!node.bare) this.#adoptSize(node)
      return failed
    }
    node.size = Math.max(before, at + data.length)
    if (node.holes > 0 || at > before) this.#staging.lookForHoles(node)
    if (node.size > before) this.#cuts.grew(node)
    return this.#cut(node, at, at + data.length)
  }

  /** Small files lie in bundles as long as they are written from front to back. `spool`: this one does not, or not any more. */
  #writeBundled(node: StagedNode, at: number, data: Buffer): Errno | 'spool' | undefined {
    const { bundles, journal, spool } = this.#staging
    if (node.place) {
      const { place, size } = node
      let written = false
      const after = Math.max(size, at + data.length)
      const failed = hostErrno(() => {
        written = bundles.write(place, at, data, size)
        if (written && after > size) journal.placed(node.id, place, after)
      })
      if (failed) return failed
      if (!written) return this.#unbundle(node) ?? 'spool'
      node.size = after
      return undefined
    }
    if (node.size > 0 || at > 0 || data.length === 0 || data.length > maxBundledBytes || node.bare || node.extents || spool.exists(node.id)) return 'spool'
    // What a new file begins with: the journal hears of it when it is there.
    return hostErrno(() => {
      const place = bundles.add(data)
      try {
        journal.placed(node.id, place, data.length)
      } catch (error) {
        bundles.release(place)
        throw error
      }
      node.place = place
      node.size = data.length
    })
  }

  /** Gives a file that lies in a bundle a spool file. Until that is durable, the journal says as well where it lay (`beforeSync`). */
  #unbundle(node: StagedNode): Errno | undefined {
    const { place, size, id } = node
    if (!place) return undefined
    const { bundles, spool, journal, boot } = this.#staging
    const failed = hostErrno(() => {
      const content = Buffer.allocUnsafe(size)
      bundles.read(place, content, 0)
      try {
        spool.write(id, content, 0, 0)
        journal.takenOver(id, boot)
      } catch (error) {
        spool.remove(id)
        throw error
      }
    })
    if (failed) return failed
    leaveBundle(node, place, boot)
    this.#noteProvisional(node)
    return undefined
  }

  truncate(node: StagedNode, size: number): Errno | undefined {
    if (size > maxFileBytes) return Errno.EFBIG
    this.#cuts.disturb(node, size)
    const failed = this.#staging.counting(node, () => this.#truncate(node, size))
    // Not before: what could not be cut off is still made of its chunks.
    if (!failed && size === 0) this.#cuts.emptied(node)
    return failed
  }

  #truncate(node: StagedNode, size: number): Errno | undefined {
    const kept = size === node.size ? undefined : this.#keepBefore(node, size)
    if (kept) return kept
    if (node.place && size <= node.size) return this.#shortenBundled(node, node.place, size)
    const moved = this.#unbundle(node)
    if (moved) return moved
    if (!node.bare || size > node.size) {
      const failed = this.#beforeSpool(node) ?? hostErrno(() => this.#staging.spool.truncate(node.id, size))
      if (failed) return failed
    }
    const uncut = this.#cut(node, size, Number.MAX_SAFE_INTEGER)
    if (uncut) {
      // Its chunks are still there, and so must its length be.
      if (!node.bare) hostErrno(() => this.#staging.spool.truncate(node.id, node.size))
      return uncut
    }
    const grows = size > node.size
    node.size = size
    node.bare &&= node.extents !== undefined
    if (!node.bare && (grows || node.holes > 0)) this.#staging.lookForHoles(node)
    return undefined
  }

  #shortenBundled(node: StagedNode, place: BundlePlace, size: number): Errno | undefined {
    const failed = hostErrno(() => this.#staging.journal.placed(node.id, size > 0 ? place : undefined, size))
    if (failed) return failed
    node.size = size
    if (size > 0) return undefined
    node.place = undefined
    this.#staging.releasePlace(place)
    return undefined
  }

  /** fallocate(2). */
  allocate(node: StagedNode, mode: number, offset: number, length: number): Errno | undefined {
    if (offset + length > maxFileBytes) return Errno.EFBIG
    return this.#staging.counting(node, () => this.#allocate(node, mode, offset, length))
  }

  #allocate(node: StagedNode, mode: number, offset: number, length: number): Errno | undefined {
    const moved = this.#unbundle(node)
    if (moved) return moved
    this.#cuts.disturb(node, offset)
    // Ranges that move would move without what lies over them.
    if (node.extents && mode & ~(keepSize | punchHole | zeroRange)) return Errno.EOPNOTSUPP
    const end = offset + length
    const filled = mode & (punchHole | zeroRange) ? offset : Math.min(end, node.size)
    if (!this.#mayGrow(node, mode & keepSize ? 0 : Math.max(0, end - node.size), offset, filled)) return Errno.ENOSPC
    const failed = this.#keepBefore(node, offset) ?? this.#beforeSpool(node) ?? hostErrno(() => this.#staging.spool.allocate(node.id, mode, offset, length, node.size))
    if (failed) {
      if (!node.bare) this.#adoptSize(node)
      return failed
    }
    this.#adoptSize(node)
    const uncut = mode & (punchHole | zeroRange) ? this.#cut(node, offset, end) : undefined
    this.#staging.lookForHoles(node)
    return uncut
  }

  /** lseek(2) for SEEK_DATA and SEEK_HOLE. */
  seek({ id, size, extents, bare, place }: StagedNode, offset: number, whence: number): number | Errno {
    if (offset >= size) return Errno.ENXIO
    if (place) return whence === seekData ? offset : size
    let found = -1
    const failed = hostErrno(() => {
      const seek = (from: number, kind: number): number => (bare ? -1 : this.#staging.spool.seek(id, from, kind, size))
      if (!extents) found = seek(offset, whence)
      else if (whence === seekData) {
        const index = extents.find(offset)
        const cloned = index < extents.count ? Math.max(offset, extents.get(index).at) : Infinity
        const spooled = seek(offset, seekData)
        found = Math.min(cloned, spooled < 0 ? Infinity : spooled)
        if (found >= size) found = -1
      } else {
        // From one stretch of data to the next, as long as they touch.
        for (found = offset; found < size; ) {
          const covered = extents.coveredFrom(found)
          const next = covered > found ? covered : seek(found, seekData) === found ? seek(found, seekHole) : found
          if (next <= found) break
          found = next
        }
        found = Math.min(found, size)
      }
    })
    return failed ?? (found < 0 ? Errno.ENXIO : found)
  }

  /** What of a file are chunks, up to the first byte that is not. EOPNOTSUPP where it begins with one: the kernel copies then. */
  shared({ size, extents, stashed }: StagedNode, offset: number, length: number): SharedRange | Errno {
    if (offset >= size) return { length: 0, extents: new Extents() }
    const end = Math.min(extents?.coveredFrom(offset) ?? offset, offset + length)
    return end > offset ? { length: end - offset, extents: extents!.slice(offset, end, 0), stashed } : Errno.EOPNOTSUPP
  }

  /**
   * Lays extents, whose offsets begin at 0, over [offset, offset + length) of a file; `stashed`: some may be in the stash only. A file that is nothing else needs no spool file.
   * Where there is one it has the size, and that comes first: extents beyond it would be cut off if this process ended in between.
   */
  clone(node: StagedNode, offset: number, length: number, extents: Extents, stashed = false): Errno | undefined {
    if (offset + length > maxFileBytes) return Errno.EFBIG
    // Only what lies in the spool counts as staged.
    return this.#staging.counting(node, () => this.#clone(node, offset, length, extents, stashed))
  }

  #clone(node: StagedNode, offset: number, length: number, extents: Extents, stashed: boolean): Errno | undefined {
    // Behind its end nothing of it is changed.
    const failedToMove = (offset === node.size ? undefined : this.#keepBefore(node, offset)) ?? this.#unbundle(node)
    if (failedToMove) return failedToMove
    this.#cuts.cloning(node, offset)
    const end = offset + length
    const bare = offset <= node.size && (node.bare || (node.size === 0 && !this.#staging.spool.exists(node.id)))
    const failed = bare ? undefined : this.#beforeSpool(node) ?? hostErrno(() => {
      if (end > node.size) this.#staging.spool.truncate(node.id, end)
      if (node.opens === 0) this.close(node)
    })
    if (failed) return failed
    if (!bare) this.#unsettle(node)
    const moved = offset === 0 ? extents : extents.slice(0, length, offset)
    const failedToTell = hostErrno(() => {
      const { journal } = this.#staging
      journal.ready(changeRoomBytes + 2 * moved.rows.length)
      journal.whole(() => (stashed ? journal.stashed(node.id, moved) : journal.cloned(node.id, moved)))
    })
    if (failedToTell) {
      if (!bare) this.#adoptSize(node)
      return failedToTell
    }
    node.bare = bare
    node.stashed ||= stashed
    node.extents ??= new Extents()
    node.extents.put(moved)
    if (offset < node.size) node.cutCount++
    const hasGap = offset > node.size
    node.size = Math.max(node.size, end)
    if (!bare && (hasGap || node.holes > 0)) this.#staging.lookForHoles(node)
    return undefined
  }

  /** Of 512 bytes. */
  blocks({ id, bare, extents, place, size }: StagedNode): number {
    if (place) return Math.ceil(size / 512)
    return (bare ? 0 : this.#staging.spool.stat(id).blocks) + (extents ? Math.ceil(extents.bytes / 512) : 0)
  }

  /**
   * What has to be synced for its bytes to be durable, beside the journal and the stash. `done` is to be called after that, and says whether it
   * went well. Host errors.
   */
  descriptors({ id, place }: StagedNode): { fds: number[]; done: (well: boolean) => void } {
    const { spool, bundles } = this.#staging
    const paths = place ? [bundles.path(place.bundle), bundles.folderOf(place)] : spool.exists(id) ? [spool.path(id)] : []
    const fds: number[] = []
    const close = (): void => {
      for (const fd of fds) files.close(fd)
    }
    try {
      // Of its own: a bundle may be closed before the disk is done, and a spool file be removed whose chunks became durable meanwhile.
      for (const path of paths) if (path !== undefined) fds.push(files.open(path, 'r'))
    } catch (error) {
      close()
      throw error
    }
    return {
      fds,
      done: well => {
        close()
        if (well && place) bundles.named(place)
      },
    }
  }

  /** Nobody has it open any more. */
  close({ id }: StagedNode): void {
    this.#staging.spool.close(id)
  }

  #adoptSize(node: StagedNode): void {
    node.size = this.#staging.spool.stat(node.id).size
  }

  /**
   * [start, end) was written to the spool, or is gone: only now, so that whoever is killed in between finds what was there before. If the journal
   * does not take that, what was there lies over it still.
   */
  #cut(node: StagedNode, start: number, end: number): Errno | undefined {
    const { extents } = node
    if (!extents?.overlaps(start, end)) return undefined
    const failed = hostErrno(() => this.#staging.journal.cut(node.id, start, end))
    if (failed) return failed
    extents.remove(start, end)
    node.cutCount++
    if (extents.count === 0) node.extents = undefined
    return undefined
  }

  /** Comes before a spool file is written. What has one is the host's at once, if the journal says that it is there at all; a file that is all extents gets one. */
  #beforeSpool(node: StagedNode): Errno | undefined {
    const told = this.#staging.isBehind ? hostErrno(() => this.#staging.catchUp()) : undefined
    if (told || !node.bare) return told
    const failed = hostErrno(() => this.#staging.spool.truncate(node.id, node.size))
    node.bare = failed !== undefined
    if (!failed) this.#unsettle(node)
    return failed
  }
}

/** Removes what is needless. What stays is only told of: it goes at the next mount. */
export function tidyUp(log: Log, work: () => void): void {
  const failed = hostErrno(work)
  if (failed) log.write('warning', 'borg.fuse', `The staging folder is not tidied up: ${failed.code}`)
}

/** Runs calls of the host: their errno, undefined if all went well. */
export function hostErrno(work: () => void): Errno | undefined {
  try {
    work()
    return undefined
  } catch (error) {
    const code = errnoOf(error)
    if (code === undefined) throw error
    return errnoByCode(code)
  }
}
