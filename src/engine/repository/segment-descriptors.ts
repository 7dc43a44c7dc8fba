/**
 * Open segment files for reading. This thread borrows a descriptor for one call; a job of another thread leases those it needs, and
 * they stay open, each its file's own, until the job has ended, whatever is forgotten, replaced or removed meanwhile.
 */
import { closeSync, openSync } from 'node:fs'
import { LRUCache } from 'lru-cache'

/** Kept open though nobody reads: opening again costs more. */
const maxIdle = 64
/** When so many segments are leased, the next job waits. What one job leases comes on top. */
const maxLeased = 256

interface OpenSegment {
  readonly segment: number
  readonly fd: number
  leases: number
  /** Its name may stand for another file now: nobody new may have it. */
  retired: boolean
}

export class SegmentDescriptors {
  readonly #pathOf: (segment: number) => string
  readonly #idle = new LRUCache<number, OpenSegment>({
    max: maxIdle, dispose: ({ fd, leases }) => {
      if (leases === 0) closeSync(fd)
    },
  })
  /** Leased ones, without those that were retired. */
  readonly #leased = new Map<number, OpenSegment>()
  #leasedCount = 0
  readonly #waiting: (() => void)[] = []

  constructor(pathOf: (segment: number) => string) {
    this.#pathOf = pathOf
  }

  /** For use before anything else happens here. Errors of open(2). */
  borrow(segment: number): number {
    const found = this.#leased.get(segment) ?? this.#idle.get(segment)
    if (found) return found.fd
    const opened = this.#begin(segment)
    this.#idle.set(segment, opened)
    return opened.fd
  }

  /**
   * Gives `work` a lease, which ends with it. It must ask for all its descriptors before it first awaits: that, and waiting here
   * while too many are out, bounds how many files are open.
   */
  async leased<T>(work: (lease: SegmentLease) => Promise<T>): Promise<T> {
    while (this.#leasedCount >= maxLeased) await new Promise<void>(resolve => this.#waiting.push(resolve))
    const held = new Map<number, OpenSegment>()
    try {
      return await work({
        fd: segment => {
          let open = held.get(segment)
          if (!open) held.set(segment, (open = this.#lease(segment)))
          return open.fd
        },
      })
    } finally {
      for (const open of held.values()) this.#release(open)
      for (const wake of this.#waiting.splice(0)) wake()
    }
  }

  #begin(segment: number): OpenSegment {
    return { segment, fd: openSync(this.#pathOf(segment), 'r'), leases: 0, retired: false }
  }

  #lease(segment: number): OpenSegment {
    let open = this.#leased.get(segment)
    if (!open) {
      open = this.#idle.get(segment) ?? this.#begin(segment)
      open.leases++
      // It leaves without being closed, as it is leased.
      this.#idle.delete(segment)
      this.#leased.set(segment, open)
      this.#leasedCount++
    } else open.leases++
    return open
  }

  #release(open: OpenSegment): void {
    if (--open.leases > 0) return
    this.#leasedCount--
    if (open.retired) closeSync(open.fd)
    else {
      this.#leased.delete(open.segment)
      this.#idle.set(open.segment, open)
    }
  }

  /** The file under this name was, or will be, replaced or removed. Leases of the old one go on. */
  forget(segment: number): void {
    this.#idle.delete(segment)
    const leased = this.#leased.get(segment)
    if (leased) {
      leased.retired = true
      this.#leased.delete(segment)
    }
  }

  forgetAll(): void {
    this.#idle.clear()
    for (const open of this.#leased.values()) open.retired = true
    this.#leased.clear()
  }
}

/** Descriptors for one job, until it has ended. */
export interface SegmentLease {
  /** Errors of open(2). */
  fd(segment: number): number
}
