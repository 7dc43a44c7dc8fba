/** What native() tells of a file, unpacked: stat rows, xattrs, ACLs, inode flags. */
import { statField, statStride } from '../native.js'
import { accessAclName, defaultAclName } from './acl.js'

export const typeMask = 0o170000
export const typeDirectory = 0o040000, typeFile = 0o100000, typeSymlink = 0o120000, typeFifo = 0o010000
export const typeCharDevice = 0o020000, typeBlockDevice = 0o060000, typeSocket = 0o140000

/** Whether Borg stores further names of such an object as links to its first one. */
export function isHardLinkable(mode: number): boolean {
  const type = mode & typeMask
  return type === typeFile || type === typeBlockDevice || type === typeCharDevice || type === typeFifo
}

/** One row of statStride values, read as numbers where they always fit. */
export interface FileStat {
  readonly dev: bigint
  readonly ino: bigint
  readonly mode: number
  readonly nlink: number
  readonly uid: number
  readonly gid: number
  readonly rdev: number
  readonly size: number
  readonly blocks: number
  readonly atimeNs: bigint
  readonly mtimeNs: bigint
  readonly ctimeNs: bigint
  readonly fsFlags: number
  /** errno of a failed lstat, 0 for none. */
  readonly error: number
}

export function statAt(rows: BigInt64Array, index: number): FileStat {
  return new StatRows(rows).at(index)
}

/** Rows of statStride values. Where a number is wanted it is read as one: a bigint in between, for each of them, is memory made for nothing. */
export class StatRows {
  readonly #rows: BigInt64Array
  /** Low and high halves. */
  readonly #words: Int32Array

  constructor(rows: BigInt64Array) {
    this.#rows = rows
    this.#words = new Int32Array(rows.buffer, rows.byteOffset, 2 * rows.length)
  }

  #number(index: number, field: number): number {
    const at = 2 * (index * statStride + field)
    return (this.#words[at]! >>> 0) + this.#words[at + 1]! * 2 ** 32
  }

  mode(index: number): number {
    return this.#number(index, statField.mode)
  }

  at(index: number): FileStat {
    const at = index * statStride
    const rows = this.#rows
    return {
      dev: rows[at + statField.dev]!, ino: BigInt.asUintN(64, rows[at + statField.ino]!), mode: this.#number(index, statField.mode), nlink: this.#number(index, statField.nlink),
      uid: this.#number(index, statField.uid), gid: this.#number(index, statField.gid), rdev: this.#number(index, statField.rdev), size: this.#number(index, statField.size),
      blocks: this.#number(index, statField.blocks),
      atimeNs: rows[at + statField.atimeNs]!, mtimeNs: rows[at + statField.mtimeNs]!, ctimeNs: rows[at + statField.ctimeNs]!,
      fsFlags: this.#number(index, statField.fsFlags), error: this.#number(index, statField.error),
    }
  }
}

export interface Attributes {
  /** Byte-string names; empty values are null, as Borg stores them. */
  readonly xattrs: Map<string, Buffer | null> | undefined
  readonly accessAcl: Buffer | undefined
  readonly defaultAcl: Buffer | undefined
}

const noAttributes: Attributes = { xattrs: undefined, accessAcl: undefined, defaultAcl: undefined }

/** (u16le name length, name, u32le value length, value)* */
export function unpackAttributes(packed: Buffer | undefined): Attributes {
  if (!packed) return noAttributes
  let xattrs: Map<string, Buffer | null> | undefined
  let accessAcl: Buffer | undefined, defaultAcl: Buffer | undefined
  for (let at = 0; at < packed.length; ) {
    const nameEnd = at + 2 + packed.readUInt16LE(at)
    const name = packed.toString('latin1', at + 2, nameEnd)
    const end = nameEnd + 4 + packed.readUInt32LE(nameEnd)
    const value = packed.subarray(nameEnd + 4, end)
    if (name === accessAclName) accessAcl = value
    else if (name === defaultAclName) defaultAcl = value
    else (xattrs ??= new Map()).set(name, value.length === 0 ? null : value)
    at = end
  }
  return { xattrs, accessAcl, defaultAcl }
}

/** Linux FS_*_FL bit, bit of Borg's bsdflags (archive.md §7). */
const flagBits = [[0x40, 0x1], [0x10, 0x2], [0x20, 0x4], [0x4, 0x20]] as const
const knownLinuxFlags = 0x74

export function bsdFlagsOf(fsFlags: number): number {
  let flags = 0
  for (const [linux, bsd] of flagBits) if (fsFlags & linux) flags |= bsd
  return flags
}

/** Linux flags of a file that has `current` ones: those that Borg knows are set or cleared, the others stay. */
export function fsFlagsFor(bsdflags: number, current: number): number {
  let flags = current & ~knownLinuxFlags
  for (const [linux, bsd] of flagBits) if (bsdflags & bsd) flags |= linux
  return flags
}

export const fsFlagNodump = 0x40
