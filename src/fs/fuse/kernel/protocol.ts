/**
 * The kernel's FUSE protocol, version 7 (linux/fuse.h; include/uapi of Linux 6.18 for what is newer than 7.38): opcodes,
 * flags, and the place of each field that is read or written. Everything is in host byte order, and records are multiples
 * of 8 bytes, so typed arrays over an aligned buffer read them in place.
 *
 *   request   len u32 | opcode u32 | unique u64 | nodeid u64 | uid u32 | gid u32 | pid u32 | extension u16, pad u16 | body at 40
 *   reply     len u32 | error i32 (0 or -errno) | unique u64 | body at 16
 *   notice    len u32 | code i32 | 0 u64 | body at 16
 */

import { FsError } from '../../errno.js'
import { Errno } from '../../types.js'

export const opcode = {
  lookup: 1, forget: 2, getattr: 3, setattr: 4, readlink: 5, symlink: 6, mknod: 8, mkdir: 9, unlink: 10, rmdir: 11,
  rename: 12, link: 13, open: 14, read: 15, write: 16, statfs: 17, release: 18, fsync: 20, setxattr: 21, getxattr: 22,
  listxattr: 23, removexattr: 24, flush: 25, init: 26, opendir: 27, readdir: 28, releasedir: 29, fsyncdir: 30,
  getlk: 31, setlk: 32, setlkw: 33, access: 34, create: 35, interrupt: 36, bmap: 37, destroy: 38, ioctl: 39, poll: 40,
  notifyReply: 41, batchForget: 42, fallocate: 43, readdirplus: 44, rename2: 45, lseek: 46, copyFileRange: 47,
  setupMapping: 48, removeMapping: 49, syncfs: 50, tmpfile: 51, statx: 52, copyFileRange64: 53,
} as const

export const notice = { invalInode: 2, invalEntry: 3, store: 4, delete: 6 } as const

/** INIT flags, those that are ever asked for (bits 0 to 31). */
export const initFlag = {
  asyncRead: 1 << 0, atomicTruncate: 1 << 3, exportSupport: 1 << 4, bigWrites: 1 << 5, dontMask: 1 << 6, readdirplus: 1 << 13, asyncDirectIo: 1 << 15,
  parallelDirops: 1 << 18, posixAcl: 1 << 20, maxPages: 1 << 22, cacheSymlinks: 1 << 23, handleKillprivV2: 1 << 28, setxattrExt: 1 << 29,
} as const

export const setattrFlag = {
  mode: 1, uid: 2, gid: 4, size: 8, atime: 16, mtime: 32, fh: 64, atimeNow: 128, mtimeNow: 256, ctime: 1024, killSetId: 2048,
} as const
export const openedFlag = { directIo: 1, keepCache: 2, cacheDir: 8, noFlush: 32 } as const
export const getattrFh = 1, fsyncDataOnly = 1, writeKillSetId = 4, openKillSetId = 1, setxattrKillSetGid = 1

export const requestHeaderSize = 40, replyHeaderSize = 16

/** Where the fields of a request's body lie, in bytes from the start of the request. */
export const at = {
  forget: { count: 40 },
  batchForget: { count: 40, items: 48, itemSize: 16 },
  getattr: { flags: 40, fh: 48 },
  setattr: {
    valid: 40, fh: 48, size: 56, atime: 72, mtime: 80, ctime: 88, atimeNsec: 96, mtimeNsec: 100, ctimeNsec: 104,
    mode: 108, uid: 116, gid: 120,
  },
  mknod: { mode: 40, rdev: 44, umask: 48, name: 56 },
  mkdir: { mode: 40, umask: 44, name: 48 },
  rename: { newParent: 40, names: 48 },
  rename2: { newParent: 40, flags: 48, names: 56 },
  link: { ino: 40, name: 48 },
  open: { flags: 40, openFlags: 44 },
  create: { flags: 40, mode: 44, umask: 48, openFlags: 52, name: 56 },
  read: { fh: 40, offset: 48, size: 56 },
  write: { fh: 40, offset: 48, size: 56, writeFlags: 60, data: 80 },
  release: { fh: 40 },
  fsync: { fh: 40, flags: 48 },
  /** With setxattrExt, flags of the protocol come between. */
  setxattr: { size: 40, flags: 44, name: 48, moreFlags: 48, laterName: 56 },
  getxattr: { size: 40, name: 48 },
  access: { mask: 40 },
  interrupt: { unique: 40 },
  init: { major: 40, minor: 44, maxReadahead: 48, flags: 52 },
  fallocate: { fh: 40, offset: 48, length: 56, mode: 64 },
  lseek: { fh: 40, offset: 48, whence: 56 },
  copyFileRange: { fh: 40, offset: 48, outIno: 56, outFh: 64, outOffset: 72, length: 80 },
} as const

/** Sizes of reply bodies. */
export const size = {
  attr: 88, attrOut: 104, entryOut: 128, openOut: 16, statfsOut: 80, writeOut: 8, xattrOut: 8, lseekOut: 8, initOut: 64, dirent: 24,
} as const

export const protocolMajor = 7
/** Older kernels (before 3.15) have a shorter INIT reply. */
export const minMinor = 23
/** The newest minor whose structs are all known here. The kernel goes by the smaller of both. */
export const maxMinor = 40

/** Largest data of one READ or WRITE: 256 pages, the kernel's own default limit. */
export const maxTransfer = 1 << 20
/** The kernel wants room for its largest request, the WRITE header included; a page more keeps any small reply inside. */
export const slotSize = maxTransfer + 8192

const maxNameLength = 255
const two32 = 4294967296

/** One buffer for a request and, in the same place, its reply; with views for each width. */
export class Slot {
  readonly bytes: Buffer
  readonly u32: Uint32Array
  readonly u16: Uint16Array

  constructor(length: number = slotSize) {
    this.bytes = Buffer.allocUnsafeSlow((length + 7) & ~7)
    this.u32 = new Uint32Array(this.bytes.buffer, 0, this.bytes.length >>> 2)
    this.u16 = new Uint16Array(this.bytes.buffer, 0, this.bytes.length >>> 1)
  }

  getU32(offset: number): number {
    return this.u32[offset >>> 2]!
  }

  /** Unsigned; exact below 2^53. */
  getU64(offset: number): number {
    return this.u32[offset >>> 2]! + this.u32[(offset >>> 2) + 1]! * two32
  }

  /** Signed; exact within 2^53. */
  getI64(offset: number): number {
    return this.u32[offset >>> 2]! + (this.u32[(offset >>> 2) + 1]! | 0) * two32
  }

  setU32(offset: number, value: number): void {
    this.u32[offset >>> 2] = value
  }

  /** Any integer within 2^53, also a negative one. */
  setU64(offset: number, value: number): void {
    const word = offset >>> 2
    // Conversion to uint32 is modulo 2^32, which is two's complement for both halves.
    this.u32[word] = value
    this.u32[word + 1] = Math.floor(value / two32)
  }

  /** The bytes up to the NUL at or after `offset`, in place. */
  text(offset: number, end: number): Buffer {
    const nul = this.bytes.indexOf(0, offset)
    return this.bytes.subarray(offset, nul < 0 || nul > end ? end : nul)
  }

  /** A file's name. FsError ENAMETOOLONG past 255 bytes: newer kernels leave that to the file system. */
  name(offset: number, end: number): Buffer {
    const name = this.text(offset, end)
    if (name.length > maxNameLength) throw new FsError(Errno.ENAMETOOLONG, `a name of ${name.length} bytes`)
    return name
  }
}

/** Header of an answer whose body of `bodySize` bytes is in place. Returns the whole length. */
export function finishReply(slot: Slot, uniqueLow: number, uniqueHigh: number, bodySize: number): number {
  const { u32 } = slot
  u32[0] = replyHeaderSize + bodySize
  u32[1] = 0
  u32[2] = uniqueLow
  u32[3] = uniqueHigh
  return replyHeaderSize + bodySize
}

export function finishError(slot: Slot, uniqueLow: number, uniqueHigh: number, errno: number): number {
  const { u32 } = slot
  u32[0] = replyHeaderSize
  u32[1] = -errno
  u32[2] = uniqueLow
  u32[3] = uniqueHigh
  return replyHeaderSize
}
