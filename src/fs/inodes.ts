/**
 * Inode numbers. The 53 bits of a JavaScript integer are a range (21 bits) and a number within it (32 bits), so that the
 * owner of an inode is told by one division. Range 0 holds the root and, when a single archive is mounted, its files.
 * An archive's numbers are its range and the row of its tree, so a tree that was dropped and built again keeps them.
 */
import type { Ino } from './types.js'

export const rootIno: Ino = 1

const rangeSize = 2 ** 32

/** Ranges with a fixed owner; archives get theirs from `firstArchive` up, in the order they were first seen. */
export const inodeRange = { root: 0, incoming: 1, live: 2, status: 3, firstArchive: 16 } as const
/** One past the last range. */
export const inodeRangeCount = 2 ** 21

export function rangeOf(ino: Ino): number {
  return Math.floor(ino / rangeSize)
}

/** The number within its range: 0 to 2^32 - 1. */
export function localOf(ino: Ino): number {
  return ino % rangeSize
}

/** RangeError outside of 21 and 32 bits. */
export function inoOf(range: number, local: number): Ino {
  if (!(range >= 0 && range < inodeRangeCount && local >= 0 && local < rangeSize)) {
    throw new RangeError(`no inode number for range ${range}, number ${local}`)
  }
  return range * rangeSize + local
}
