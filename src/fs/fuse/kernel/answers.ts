/**
 * Bodies of the kernel's replies, written in place. Each function writes at byte `offset` of a slot (a multiple of 8) and
 * returns the bytes it took. Field order as in linux/fuse.h; 64-bit words as pairs of 32-bit ones, low first.
 */
import type { AttrReply, Created } from '../../core.js'
import { rootIno } from '../../inodes.js'
import type { Attr, Entry, Opened, StatFs } from '../../types.js'
import { openedFlag, size, type Slot } from './protocol.js'

const two32 = 4294967296
const billion = 1_000_000_000

const timeNs = new BigInt64Array(1)
const timeWords = new Int32Array(timeNs.buffer)
let seconds = 0
let nanoseconds = 0

/**
 * Splits ns into whole seconds (rounded down, so that nanoseconds stay positive before 1970) without dividing big integers:
 * the quotient in floating point is at most one off, and the low 32 bits of the remainder tell by how much.
 */
function split(ns: bigint): void {
  timeNs[0] = ns
  const low = timeWords[0]!
  seconds = Math.floor((timeWords[1]! * two32 + (low >>> 0)) / billion)
  nanoseconds = (low - Math.imul(seconds, billion)) | 0
  if (nanoseconds < 0) {
    seconds--
    nanoseconds += billion
  } else if (nanoseconds >= billion) {
    seconds++
    nanoseconds -= billion
  }
}

/** struct fuse_attr: ino size blocks atime mtime ctime (u64), then their ns, mode nlink uid gid rdev blksize flags (u32). */
export function putAttr(slot: Slot, offset: number, attr: Attr): number {
  const { u32 } = slot
  const w = offset >>> 2
  u32[w] = attr.ino
  u32[w + 1] = attr.ino / two32
  u32[w + 2] = attr.size
  u32[w + 3] = attr.size / two32
  u32[w + 4] = attr.blocks
  u32[w + 5] = attr.blocks / two32
  split(attr.mtimeNs)
  u32[w + 8] = seconds
  u32[w + 9] = Math.floor(seconds / two32)
  u32[w + 13] = nanoseconds
  // Archives mostly hold one time three times.
  if (attr.atimeNs !== attr.mtimeNs) split(attr.atimeNs)
  u32[w + 6] = seconds
  u32[w + 7] = Math.floor(seconds / two32)
  u32[w + 12] = nanoseconds
  if (attr.ctimeNs !== attr.atimeNs) split(attr.ctimeNs)
  u32[w + 10] = seconds
  u32[w + 11] = Math.floor(seconds / two32)
  u32[w + 14] = nanoseconds
  u32[w + 15] = attr.mode
  u32[w + 16] = attr.nlink
  u32[w + 17] = attr.uid
  u32[w + 18] = attr.gid
  // st_rdev and the kernel's 32-bit number agree for all devices Linux can have (12 bits major, 20 bits minor).
  u32[w + 19] = attr.rdev
  u32[w + 20] = attr.blksize
  u32[w + 21] = 0
  return size.attr
}

function putTtls(slot: Slot, secondsAt: number, nanosecondsAt: number, ttlMs: number): void {
  const whole = Math.floor(ttlMs / 1000)
  slot.setU64(secondsAt, whole)
  slot.setU32(nanosecondsAt, (ttlMs - whole * 1000) * 1_000_000)
}

/**
 * Part of the handles that an NFS server gives for inodes. Their numbers may mean something else at the next mount, so handles of this one
 * must not be taken for handles of that: the loop chooses one at random. The root is the same each time, and the kernel wants 0 of it.
 */
let generation = 0

/** 31 bits. Before the first answer. */
export function useGeneration(value: number): void {
  generation = value
}

/** For who writes entries elsewhere. */
export function currentGeneration(): number {
  return generation
}

/** struct fuse_entry_out. `nodeid` 0 says that there is no such name (LOOKUP), or no reference is given (READDIRPLUS). */
export function putEntry(slot: Slot, offset: number, entry: Entry, nodeid: number = entry.attr.ino): number {
  slot.setU64(offset, nodeid)
  slot.setU64(offset + 8, nodeid === rootIno ? 0 : generation)
  putTtls(slot, offset + 16, offset + 32, entry.entryTtlMs)
  putTtls(slot, offset + 24, offset + 36, entry.attrTtlMs)
  putAttr(slot, offset + 40, entry.attr)
  return size.entryOut
}

/** struct fuse_attr_out. */
export function putAttrReply(slot: Slot, offset: number, reply: AttrReply): number {
  putTtls(slot, offset, offset + 8, reply.attrTtlMs)
  slot.setU32(offset + 12, 0)
  putAttr(slot, offset + 16, reply.attr)
  return size.attrOut
}

/** struct fuse_open_out. */
export function putOpened(slot: Slot, offset: number, opened: Opened): number {
  slot.setU64(offset, opened.fh)
  slot.setU32(offset + 8, (opened.directIo ? openedFlag.directIo : 0) | (opened.keepCache ? openedFlag.keepCache : 0)
    | (opened.cacheDir ? openedFlag.cacheDir : 0) | (opened.noFlush ? openedFlag.noFlush : 0))
  slot.setU32(offset + 12, 0)
  return size.openOut
}

export function putCreated(slot: Slot, offset: number, created: Created): number {
  putEntry(slot, offset, created.entry)
  putOpened(slot, offset + size.entryOut, created.opened)
  return size.entryOut + size.openOut
}

/** struct fuse_kstatfs. */
export function putStatfs(slot: Slot, offset: number, statfs: StatFs): number {
  slot.u32.fill(0, offset >>> 2, (offset + size.statfsOut) >>> 2)
  slot.setU64(offset, statfs.blocks)
  slot.setU64(offset + 8, statfs.bfree)
  slot.setU64(offset + 16, statfs.bavail)
  slot.setU64(offset + 24, statfs.files)
  slot.setU64(offset + 32, statfs.ffree)
  slot.setU32(offset + 40, statfs.bsize)
  slot.setU32(offset + 44, statfs.namelen)
  slot.setU32(offset + 48, statfs.frsize)
  return size.statfsOut
}

/** A 64-bit number alone: lseek, copy_file_range (64), and with a small value the count of a WRITE or an xattr's size. */
export function putCount(slot: Slot, offset: number, count: number): number {
  slot.setU64(offset, count)
  return 8
}

/** Bytes alone: a link's target, an xattr's value. */
export function putBytes(slot: Slot, offset: number, bytes: Uint8Array): number {
  slot.bytes.set(bytes, offset)
  return bytes.length
}

export interface InitAnswer {
  readonly minor: number
  readonly maxReadahead: number
  readonly flags: number
  readonly maxBackground: number
  readonly maxTransfer: number
  readonly pageSize: number
}

/** struct fuse_init_out. Times are exact (granularity 1 ns). */
export function putInit(slot: Slot, offset: number, major: number, init: InitAnswer): number {
  slot.u32.fill(0, offset >>> 2, (offset + size.initOut) >>> 2)
  slot.setU32(offset, major)
  slot.setU32(offset + 4, init.minor)
  slot.setU32(offset + 8, init.maxReadahead)
  slot.setU32(offset + 12, init.flags)
  slot.u16[(offset + 16) >>> 1] = init.maxBackground
  slot.u16[(offset + 18) >>> 1] = Math.floor((init.maxBackground * 3) / 4)
  slot.setU32(offset + 20, init.maxTransfer)
  slot.setU32(offset + 24, 1)
  slot.u16[(offset + 28) >>> 1] = init.maxTransfer / init.pageSize
  return size.initOut
}
