/**
 * An archive's files as columns in shared memory, so that a million of them cost megabytes and are handed from the thread
 * that reads the archive to the one that answers the kernel without a copy. A row is one name in one directory. Rows are
 * in archive order; row 0 is the archive's root. Names that are hard links of an earlier row have that row as `target`
 * and no attributes of their own.
 */

/** No row: end of a list of siblings. Row 0 is nobody's child, so 0 is free to mean that. */
export const noRow = 0

/** The file was zero-patched by a repair (chunks_healthy). */
export const rowDamaged = 1
/** A later item of the same name took its place: not shown, but hard links may still point here. */
export const rowReplaced = 2
/** Supplied by the builder: no item describes this directory (yet). */
export const rowSupplied = 4

/** Bytes of a chunk row: id 32, size u32le, csize u32le, as in engine/archive/chunk-list.ts. */
export const chunkRowBytes = 40

export interface ArchiveTreeData {
  readonly rowCount: number
  readonly chunkCount: number
  readonly parent: Uint32Array
  /** Where the row's name starts in `names`; rowCount + 1 values. */
  readonly nameStart: Uint32Array
  readonly firstChild: Uint32Array
  readonly nextSibling: Uint32Array
  /** The row that has the attributes: itself, or for a hard link the first name. */
  readonly target: Uint32Array
  readonly mode: Uint32Array
  readonly uid: Uint32Array
  readonly gid: Uint32Array
  readonly nlink: Uint32Array
  readonly rdev: Uint32Array
  readonly flags: Uint8Array
  readonly size: Float64Array
  readonly mtimeNs: BigInt64Array
  /** Empty if no item has one: mtime stands in. */
  readonly atimeNs: BigInt64Array
  readonly ctimeNs: BigInt64Array
  /** Regular files: first chunk row and count. Symlinks: start and length of the target in `blobs`. */
  readonly contentStart: Uint32Array
  readonly contentCount: Uint32Array
  readonly names: Uint8Array
  readonly chunks: Uint8Array
  /** Link targets and packed xattrs: (u16le name length, name, u32le value length, value)*. */
  readonly blobs: Uint8Array
  /** Rows that have xattrs, ascending, and where these start in `blobs`; xattrStart has one value more. */
  readonly xattrRow: Uint32Array
  readonly xattrStart: Uint32Array
  readonly xattrEnd: Uint32Array
  /** Open addressing over (parent, name): row + 1, or 0. The length is a power of two. */
  readonly slots: Uint32Array
}

/** FNV-1a over the name, started from the parent, with a final mix so that linear probing stays short. */
export function nameHash(parent: number, name: Uint8Array, start: number, end: number): number {
  let hash = Math.imul(parent ^ 0x811c9dc5, 0x9e3779b1)
  for (let at = start; at < end; at++) hash = Math.imul(hash ^ name[at]!, 0x01000193)
  hash ^= hash >>> 15
  hash = Math.imul(hash, 0x85ebca6b)
  return (hash ^ (hash >>> 13)) >>> 0
}

/** The slot that holds (parent, name[start, end)), or the empty one where it belongs. */
export function findSlot(columns: Pick<ArchiveTreeData, 'slots' | 'parent' | 'nameStart' | 'names'>,
  parent: number, name: Uint8Array, start: number, end: number): number {
  const { slots, names, nameStart } = columns
  const mask = slots.length - 1
  const length = end - start
  for (let slot = nameHash(parent, name, start, end) & mask; ; slot = (slot + 1) & mask) {
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
export function columnBytes(columns: ArchiveTreeData): number {
  let bytes = 0
  for (const value of Object.values(columns)) if (ArrayBuffer.isView(value)) bytes += value.byteLength
  return bytes
}
