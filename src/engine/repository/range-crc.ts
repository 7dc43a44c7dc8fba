/**
 * CRC-32 of any range of a piece of memory in a microsecond, however long the range is, after one pass over the memory: the CRC of what is before the range is
 * taken out of the CRC of all up to its end. For who tries very many ranges that overlap.
 */
import { crc32 } from '../crc32.js'

const stepBytes = 4096
/** Longest range: 2^25 bytes. */
const maxPower = 25

/** What so many zero bytes behind make of a CRC, for 2^0, 2^1 … of them: 32 words each, one for each bit of the CRC. */
let zeroOperators: Uint32Array[] | undefined

export class RangeCrc {
  readonly #bytes: Uint8Array
  /** CRC of everything up to each step. */
  readonly #steps: Uint32Array

  /** The memory must not change while this is in use. */
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
    this.#steps = new Uint32Array(Math.floor(bytes.length / stepBytes) + 1)
    for (let step = 1; step < this.#steps.length; step++) this.#steps[step] = crc32(bytes.subarray((step - 1) * stepBytes, step * stepBytes), this.#steps[step - 1])
  }

  /** As crc32 of these bytes. */
  of(start: number, end: number): number {
    return (this.#upTo(end) ^ withZeros(this.#upTo(start), end - start)) >>> 0
  }

  #upTo(end: number): number {
    const step = Math.floor(end / stepBytes)
    return crc32(this.#bytes.subarray(step * stepBytes, end), this.#steps[step])
  }
}

/** The part that a CRC has in that of the same bytes with `count` more behind them. */
function withZeros(crc: number, count: number): number {
  zeroOperators ??= makeZeroOperators()
  for (let power = 0; count > 0; power++, count = Math.floor(count / 2)) if (count % 2 === 1) crc = applied(zeroOperators[power]!, crc)
  return crc
}

function applied(operator: Uint32Array, crc: number): number {
  let sum = 0
  for (let bit = 0; crc !== 0; bit++, crc >>>= 1) if (crc & 1) sum ^= operator[bit]!
  return sum >>> 0
}

function makeZeroOperators(): Uint32Array[] {
  // One zero bit: a shift, and the polynomial where a one falls out.
  let operator = new Uint32Array(32)
  operator[0] = 0xedb88320
  for (let bit = 1; bit < 32; bit++) operator[bit] = 2 ** (bit - 1)
  const operators: Uint32Array[] = []
  for (let doubled = 0; doubled < 3 + maxPower; doubled++) {
    if (doubled >= 3) operators.push(operator)
    const once = operator
    operator = once.map(word => applied(once, word))
  }
  return operators
}
