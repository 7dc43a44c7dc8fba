/**
 * An archive's files as columns in shared memory, so that a million of them cost megabytes and are handed from the thread
 * that reads the archive to the one that answers the kernel without a copy. A row is one name in one directory. Rows are
 * in archive order; row 0 is the archive's root. Further names of a hard link point to the row of the first and have no attributes
 * of their own.
 */

/** No row: end of a list of siblings. Row 0 is nobody's child, so 0 is free to mean that. */
export const noRow = 0

/** The file was zero-patched by a repair (chunks_healthy). */
export const rowDamaged = 1
/** A later item of the same name took its place: not shown, but hard links may still point here. */
export const rowReplaced = 2
/** Supplied by the builder: no item describes this directory (yet). */
export const rowSupplied = 4
/** A further name of an earlier row. */
export const rowLink = 8
/** Has more than one name: see linkedRow. */
export const rowLinked = 16

/** Bytes of a chunk row: id 32, size u32le, csize u32le, as in engine/archive/chunk-list.ts. */
export const chunkRowBytes = 40

/** Of the table of owners and modes: directories that no item describes, and rows without attributes. Always there. */
export const accessSupplied = 0, accessNone = 1
/** Mode, uid, gid. */
export const accessNumbersBytes = 12
/** In the place of a name's length. */
export const noName = 0xffff
/** Longer names of files are left out, as unsafe: the kernel fails the whole listing that has one. Hosts of today make none. */
export const maxFileNameBytes = 1024
/** Longer names of owners and xattrs are left out: no system has such. */
export const maxNameBytes = 0xfff0
/** In the place of an xattr name's length: the value is an ACL as it is stored. */
export const aclAccessKind = 0xfffe, aclDefaultKind = 0xfffd
/** The same: the value is the file's flags (chattr) as stored, u32le. No xattr, but as rare. */
export const flagsKind = 0xfffc

/** What follows from the archive alone, so that it can be kept for later mounts. */
export interface TreeColumns {
  readonly rowCount: number
  readonly chunkCount: number
  readonly parent: Uint32Array
  /** Where the row's name starts in `names`; rowCount + 1 values. */
  readonly nameStart: Uint32Array
  /**
   * Directories: the first child. Regular files: the first chunk row. Symlinks: where the target starts in `blobs`. Further names
   * (rowLink): the row that has the attributes. Anything else: the device's number.
   */
  readonly first: Uint32Array
  /** Directories: the last child. Regular files: chunk rows. Symlinks: bytes of the target. */
  readonly count: Uint32Array
  readonly nextSibling: Uint32Array
  /** The row's owner and mode in `owners`; 16 bits where these suffice. */
  readonly access: Uint16Array | Uint32Array
  readonly flags: Uint8Array
  readonly size: Float64Array
  /** All times are 0 where the row is supplied. */
  readonly mtimeNs: BigInt64Array
  /** Empty if no item has one: mtime stands in. */
  readonly atimeNs: BigInt64Array
  readonly ctimeNs: BigInt64Array
  readonly names: Uint8Array
  /** Undefined while they are not loaded: listing needs none. */
  readonly chunks: Uint8Array | undefined
  /** Link targets and packed xattrs: (u16le name length or kind, name, u32le value length, value)*. */
  readonly blobs: Uint8Array
  /** Rows that have xattrs, ascending, and where these start and end in `blobs`. */
  readonly xattrRow: Uint32Array
  readonly xattrStart: Uint32Array
  readonly xattrEnd: Uint32Array
  /** Rows that have more than one name, ascending, and how many. */
  readonly linkedRow: Uint32Array
  readonly linkedCount: Uint32Array
  /** Each owner with each mode once: (u32le mode, uid, gid, u16le length or noName, user's name, the same of the group)*. */
  readonly owners: Uint8Array
  /** Open addressing over (parent, name): row + 1, or 0. The length is a power of two. */
  readonly slots: Uint32Array
  /** Two random numbers: where in `slots` a name is looked for. */
  readonly nameKey: Uint32Array
}

/** With what a mount makes of them (tree-view.ts). */
export interface ArchiveTreeData extends TreeColumns {
  /** By `access`. */
  readonly modes: Uint32Array
  readonly uids: Uint32Array
  readonly gids: Uint32Array
  readonly suppliedTimeNs: bigint
  readonly rootTimeNs: bigint
  /** ACLs show stored numbers. */
  readonly numericIds: boolean
}

/** Of a tree's nameKey. */
export const nameKeyBytes = 8

/** HalfSipHash-1-3 of parent and name under the tree's key: see native/name_hash.h. Unsigned. */
export function nameHash(key: Uint32Array, parent: number, name: Uint8Array, start: number, end: number): number {
  let a = key[0]!, b = key[1]!, c = a ^ 0x6c796765, d = b ^ 0x74656462
  // The parent, the words of the name, what is left with the length above it, and three rounds more.
  const words = (end - start) >>> 2, last = words + 1
  for (let step = 0, at = start; step <= last + 3; step++) {
    let word = 0
    if (step === 0) word = parent
    else if (step <= words) {
      word = name[at]! | name[at + 1]! << 8 | name[at + 2]! << 16 | name[at + 3]! << 24
      at += 4
    } else if (step === last) {
      word = (end - start) << 24
      for (let shift = 0; at < end; shift += 8) word |= name[at++]! << shift
    }
    d ^= word
    a = (a + b) | 0
    b = (b << 5 | b >>> 27) ^ a
    a = a << 16 | a >>> 16
    c = (c + d) | 0
    d = (d << 8 | d >>> 24) ^ c
    a = (a + d) | 0
    d = (d << 7 | d >>> 25) ^ a
    c = (c + b) | 0
    b = (b << 13 | b >>> 19) ^ c
    c = c << 16 | c >>> 16
    a ^= word
    if (step === last) c ^= 0xff
  }
  return (b ^ d) >>> 0
}

/** The slot that holds (parent, name[start, end)), or the empty one where it belongs. */
export function findSlot(columns: Pick<TreeColumns, 'slots' | 'nameKey' | 'parent' | 'nameStart' | 'names'>,
  parent: number, name: Uint8Array, start: number, end: number): number {
  const { slots, names, nameStart } = columns
  const mask = slots.length - 1
  const length = end - start
  for (let slot = nameHash(columns.nameKey, parent, name, start, end) & mask; ; slot = (slot + 1) & mask) {
    const found = slots[slot]!
    if (found === 0) return slot
    const row = found - 1
    if (columns.parent[row] !== parent) continue
    const at = nameStart[row]!
    if (nameStart[row + 1]! - at !== length) continue
    let same = 0
    while (same < length && names[at + same] === name[start + same]) same++
    if (same === length) return slot
  }
}

/** Bytes that the columns occupy. */
export function columnBytes(columns: TreeColumns): number {
  let bytes = 0
  for (const value of Object.values(columns)) if (ArrayBuffer.isView(value)) bytes += value.byteLength
  return bytes
}
