/** Growing arrays in shared memory: what tree-builder.ts fills. Growth doubles, `finish` gives the exact length. */

type Column = Uint8Array | Uint32Array | Float64Array | BigInt64Array
interface ColumnType<T extends Column> {
  new (buffer: ArrayBufferLike): T
  readonly BYTES_PER_ELEMENT: number
}
/** The kinds of column, for the functions below. */
export const uint8: ColumnType<Uint8Array> = Uint8Array
export const uint32: ColumnType<Uint32Array> = Uint32Array
export const float64: ColumnType<Float64Array> = Float64Array
export const int64: ColumnType<BigInt64Array> = BigInt64Array

/** A shared array of `length` zeros. */
export function sharedColumn<T extends Column>(type: ColumnType<T>, length: number): T {
  return new type(new SharedArrayBuffer(length * type.BYTES_PER_ELEMENT))
}

/** The first `length` values in an array of twice the room. */
export function grownColumn<T extends Column>(type: ColumnType<T>, column: T, length: number, room: number): T {
  const grown = sharedColumn(type, Math.max(room, length * 2))
  copyColumn(column, grown, length)
  return grown
}

/** The first `length` values, in memory of exactly that size. */
export function exactColumn<T extends Column>(type: ColumnType<T>, column: T, length: number): T {
  if (column.length === length) return column
  const exact = sharedColumn(type, length)
  copyColumn(column, exact, length)
  return exact
}

function copyColumn(from: Column, to: Column, length: number): void {
  const bytes = length * from.BYTES_PER_ELEMENT
  new Uint8Array(to.buffer, 0, bytes).set(new Uint8Array(from.buffer, 0, bytes))
}

/** A growing run of bytes in shared memory. */
export class BytePool {
  bytes: Buffer
  length = 0

  constructor(room: number) {
    this.bytes = Buffer.from(new SharedArrayBuffer(room))
  }

  /** Appends and returns where it starts. RangeError past 4 GiB, which offsets of 32 bits cannot tell. */
  add(source: Uint8Array, start = 0, end = source.length): number {
    const at = this.length
    const length = end - start
    this.#reserve(length)
    // Short names dominate: a loop costs less than the call behind set().
    if (length < 32) for (let index = 0; index < length; index++) this.bytes[at + index] = source[start + index]!
    else this.bytes.set(start === 0 && end === source.length ? source : source.subarray(start, end), at)
    this.length = at + length
    return at
  }

  addUint(value: number, width: 2 | 4): void {
    this.#reserve(width)
    this.bytes.writeUIntLE(value, this.length, width)
    this.length += width
  }

  finish(): Uint8Array {
    const exact = new Uint8Array(new SharedArrayBuffer(this.length))
    exact.set(this.bytes.subarray(0, this.length))
    return exact
  }

  #reserve(length: number): void {
    const needed = this.length + length
    if (needed <= this.bytes.length) return
    if (needed > 0xffffffff) throw new RangeError('an archive with more than 4 GiB of names or attributes cannot be shown')
    const grown = Buffer.from(new SharedArrayBuffer(Math.max(needed, Math.min(this.bytes.length * 2, 0xffffffff))))
    grown.set(this.bytes.subarray(0, this.length))
    this.bytes = grown
  }
}
