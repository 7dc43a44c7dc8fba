/** What every part of the mounted filesystem speaks of. Names are bytes, times ns, sizes exact numbers. */

/** Below 2^53. The root is 1. Ranges are handed out by inodes.ts. */
export type Ino = number

export interface Attr {
  ino: Ino
  size: number
  /** In units of 512 bytes. */
  blocks: number
  /** Complete st_mode. */
  mode: number
  nlink: number
  uid: number
  gid: number
  /** Linux st_rdev, 0 if none. */
  rdev: number
  atimeNs: bigint
  mtimeNs: bigint
  ctimeNs: bigint
  blksize: number
}

/** What may be changed of them, the size apart. */
export type NodeAttributes = Readonly<Pick<Attr, 'mode' | 'uid' | 'gid' | 'atimeNs' | 'mtimeNs' | 'ctimeNs'>>

const maxTimeNs = 2n ** 63n - 1n, minTimeNs = -(2n ** 63n)

/** Archives may hold any time; the kernel's are from 1677 to 2262. */
export function clampedNs(ns: bigint): bigint {
  return ns > maxTimeNs ? maxTimeNs : ns < minTimeNs ? minTimeNs : ns
}

/** How long the kernel may keep a name and its attributes without asking. */
export interface Entry {
  attr: Attr
  entryTtlMs: number
  attrTtlMs: number
  /** In a listing: only number and type are known, and the kernel gets no reference. */
  nameOnly?: boolean
}

export interface Opened {
  /** The core's handle, below 2^53. */
  fh: number
  /** Data in the page cache from earlier opens is still right. */
  keepCache?: boolean
  directIo?: boolean
  /** Closing needs no FLUSH: saves a round trip for each file. */
  noFlush?: boolean
  /** The kernel may keep the listing. */
  cacheDir?: boolean
}

/** setattr: only what is present changes. */
export interface AttrChange {
  mode?: number
  uid?: number
  gid?: number
  size?: number
  atimeNs?: bigint | 'now'
  mtimeNs?: bigint | 'now'
  ctimeNs?: bigint
  fh?: number
}

export interface StatFs {
  blocks: number
  bfree: number
  bavail: number
  files: number
  ffree: number
  bsize: number
  frsize: number
  namelen: number
}

/** A Linux error number, positive. A class of its own, so that it cannot be mistaken for a value. */
export class Errno {
  private constructor(readonly code: string, readonly number: number) {}
  static readonly EPERM = new Errno('EPERM', 1)
  static readonly ENOENT = new Errno('ENOENT', 2)
  static readonly EINTR = new Errno('EINTR', 4)
  static readonly EIO = new Errno('EIO', 5)
  static readonly ENXIO = new Errno('ENXIO', 6)
  static readonly E2BIG = new Errno('E2BIG', 7)
  static readonly EBADF = new Errno('EBADF', 9)
  static readonly EAGAIN = new Errno('EAGAIN', 11)
  static readonly ENOMEM = new Errno('ENOMEM', 12)
  static readonly EACCES = new Errno('EACCES', 13)
  static readonly EBUSY = new Errno('EBUSY', 16)
  static readonly EEXIST = new Errno('EEXIST', 17)
  static readonly EXDEV = new Errno('EXDEV', 18)
  static readonly ENODEV = new Errno('ENODEV', 19)
  static readonly ENOTDIR = new Errno('ENOTDIR', 20)
  static readonly EISDIR = new Errno('EISDIR', 21)
  static readonly EINVAL = new Errno('EINVAL', 22)
  static readonly EMFILE = new Errno('EMFILE', 24)
  static readonly EFBIG = new Errno('EFBIG', 27)
  static readonly ENOSPC = new Errno('ENOSPC', 28)
  static readonly EROFS = new Errno('EROFS', 30)
  static readonly EMLINK = new Errno('EMLINK', 31)
  static readonly ERANGE = new Errno('ERANGE', 34)
  static readonly ENAMETOOLONG = new Errno('ENAMETOOLONG', 36)
  static readonly ENOSYS = new Errno('ENOSYS', 38)
  static readonly ENOTEMPTY = new Errno('ENOTEMPTY', 39)
  static readonly ELOOP = new Errno('ELOOP', 40)
  static readonly ENODATA = new Errno('ENODATA', 61)
  static readonly EOVERFLOW = new Errno('EOVERFLOW', 75)
  static readonly EOPNOTSUPP = new Errno('EOPNOTSUPP', 95)
  static readonly ETIMEDOUT = new Errno('ETIMEDOUT', 110)
  static readonly ESTALE = new Errno('ESTALE', 116)
  static readonly EDQUOT = new Errno('EDQUOT', 122)
}
