/**
 * Records of the journal that are to be written a little later, many at once: a call of the host and a seal for each would cost as much as all the rest
 * of copying a small file. In their order; what a later one says of a node's attributes, or of where its content lies, an earlier one that still waits says at once.
 */
import type { MsgValue } from '../../engine/msgpack.js'
import { recordKind } from './journal-records.js'

/** A block of a disk: damage to one costs no more records than it must. */
const groupBytes = 4096
/** Of a number, or of what tells the length of bytes. */
const maxPlainBytes = 9
/** What a record has around its fields: header, envelope, kind. */
const maxAroundBytes = 64

type Fields = MsgValue[]

/** An upper bound of the bytes of a record's fields. */
export function fieldBytes(fields: readonly MsgValue[]): number {
  let bytes = 0
  for (const value of fields) bytes += maxPlainBytes + (Buffer.isBuffer(value) ? value.length : 0)
  return bytes
}

/** What a record may take on disk. */
export function maxRecordLength(fields: readonly MsgValue[]): number {
  return maxAroundBytes + fieldBytes(fields)
}

export class RecordQueue {
  #records: Fields[] = []
  readonly #attributes = new Map<number, Fields>()
  readonly #places = new Map<number, Fields>()
  #bytes = 0

  /** What they may take on disk. */
  get bytes(): number {
    return this.#bytes
  }

  add(fields: Fields): void {
    if (this.#isSaidAtOnce(fields)) return
    this.#records.push(fields)
    this.#bytes += maxRecordLength(fields)
    const id = fields[1] as number
    if (fields[0] === recordKind.made || fields[0] === recordKind.attributes) this.#attributes.set(id, fields)
    else if (fields[0] === recordKind.placed) this.#places.set(id, fields)
  }

  /** Attributes, or the size of what lies in a bundle, by a record that waits: as Journal has their fields. */
  #isSaidAtOnce([kind, id, ...rest]: Fields): boolean {
    if (kind === recordKind.attributes) {
      const earlier = this.#attributes.get(id as number)
      if (!earlier) return false
      const [access, times] = earlier[0] === recordKind.made ? [4, 8] : [2, 5]
      earlier.splice(access, 3, ...rest.slice(0, 3))
      earlier.splice(times, 3, ...rest.slice(3))
      return true
    }
    if (kind !== recordKind.placed) return false
    const earlier = this.#places.get(id as number)
    const [bundle, start, size] = rest
    if (earlier?.[2] !== bundle || earlier?.[3] !== start) return false
    earlier![4] = size!
    return true
  }

  /** The records to be written for them. */
  *groups(): Generator<readonly MsgValue[]> {
    let group: Fields[] = []
    let bytes = 0
    for (const fields of this.#records) {
      const length = fieldBytes(fields)
      if (group.length > 0 && bytes + length > groupBytes) {
        yield grouped(group)
        group = []
        bytes = 0
      }
      group.push(fields)
      bytes += length
    }
    if (group.length > 0) yield grouped(group)
  }

  clear(): void {
    this.#records = []
    this.#attributes.clear()
    this.#places.clear()
    this.#bytes = 0
  }
}

function grouped(group: readonly Fields[]): readonly MsgValue[] {
  return group.length === 1 ? group[0]! : [recordKind.whole, ...group]
}
