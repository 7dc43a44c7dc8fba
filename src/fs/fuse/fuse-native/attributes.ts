/** The core's exact values in the shapes of fuse-native: 32-bit inodes and counts, milliseconds, nothing before 1970. */
import type { Attr, Ino, StatFs } from '../../types.js'

export interface NativeStat {
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly size: number
  readonly nlink: number
  readonly ino: number
  readonly rdev: number
  readonly blksize: number
  readonly blocks: number
  /** Milliseconds. */
  readonly atime: number
  readonly mtime: number
  readonly ctime: number
}

export function nativeStat(attr: Attr): NativeStat {
  const { mode, uid, gid, size, nlink, rdev, blksize, blocks } = attr
  return {
    mode, uid, gid, size, nlink, rdev, blksize, blocks, ino: foldedIno(attr.ino),
    atime: milliseconds(attr.atimeNs), mtime: milliseconds(attr.mtimeNs), ctime: milliseconds(attr.ctimeNs),
  }
}

/** Spreads the ranges of inodes.ts over 32 bits, so that files of two archives rarely look like one. Never 0. */
export function foldedIno(ino: Ino): number {
  if (ino < 2 ** 32) return ino
  const folded = (ino % 2 ** 32) ^ Math.imul(Math.floor(ino / 2 ** 32), 0x9e3779b1)
  return folded >>> 0 || 1
}

/** Its native part knows no negative time. */
function milliseconds(ns: bigint): number {
  return ns < 0n ? 0 : Number(ns / 1_000_000n)
}

/** Counts of 32 bits: blocks grow until they fit. */
export function nativeStatfs(statfs: StatFs): Record<string, number> {
  let scale = 1
  while (statfs.blocks / scale >= 2 ** 32) scale *= 2
  const cut = (count: number): number => Math.min(count, 2 ** 32 - 1)
  return {
    bsize: statfs.bsize * scale, frsize: statfs.frsize * scale, namemax: statfs.namelen,
    blocks: Math.floor(statfs.blocks / scale), bfree: Math.floor(statfs.bfree / scale), bavail: Math.floor(statfs.bavail / scale),
    files: cut(statfs.files), ffree: cut(statfs.ffree), favail: cut(statfs.ffree), fsid: 0, flag: 0,
  }
}
