/**
 * The chunks of one file, packed: 40 bytes each (id 32, size u32le, csize u32le), so that a file of a million chunks costs
 * 40 MB and not a million objects.
 */
import { type ChunkId, chunkId } from '../ids.js'

export interface ChunkRef {
  readonly id: ChunkId
  /** Plaintext bytes. */
  readonly size: number
  /** Stored bytes; 0 = unknown. */
  readonly csize: number
}

/** Bytes of a row. */
export const rowBytes = 40
const stride = rowBytes

export class ChunkList {
  #bytes: Buffer
  #length = 0

  constructor(capacity = 1) {
    this.#bytes = Buffer.allocUnsafe(capacity * stride)
  }

  static of(refs: Iterable<ChunkRef>): ChunkList {
    const list = new ChunkList()
    for (const ref of refs) list.add(ref.id, ref.size, ref.csize)
    return list
  }

  /** Takes over packed rows. */
  static ofRows(rows: Buffer): ChunkList {
    const list = new ChunkList(0)
    list.#bytes = rows
    list.#length = rows.length / stride
    return list
  }

  get length(): number {
    return this.#length
  }

  /** The packed rows; memory of the list. */
  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.#length * stride)
  }

  add(id: Uint8Array, size: number, csize: number): void {
    const at = this.#length * stride
    if (at + stride > this.#bytes.length) {
      const grown = Buffer.allocUnsafe(Math.max(stride * 4, this.#bytes.length * 2))
      this.#bytes.copy(grown, 0, 0, at)
      this.#bytes = grown
    }
    this.#bytes.set(id, at)
    this.#bytes.writeUInt32LE(size, at + 32)
    this.#bytes.writeUInt32LE(csize, at + 36)
    this.#length++
  }

  /** A copy of the rows from `start` on. */
  from(start: number): ChunkList {
    const list = new ChunkList(Math.max(1, this.#length - start))
    for (let index = start; index < this.#length; index++) list.add(this.id(index), this.size(index), this.csize(index))
    return list
  }

  id(index: number): ChunkId {
    return chunkId(this.#bytes.subarray(index * stride, index * stride + 32))
  }

  size(index: number): number {
    return this.#bytes.readUInt32LE(index * stride + 32)
  }

  csize(index: number): number {
    return this.#bytes.readUInt32LE(index * stride + 36)
  }

  ref(index: number): ChunkRef {
    return { id: this.id(index), size: this.size(index), csize: this.csize(index) }
  }

  /** Sum of the plaintext sizes. */
  get totalSize(): number {
    let total = 0
    for (let at = 32; at < this.#length * stride; at += stride) total += this.#bytes.readUInt32LE(at)
    return total
  }

  *[Symbol.iterator](): Iterator<ChunkRef> {
    for (let index = 0; index < this.#length; index++) yield this.ref(index)
  }
}
