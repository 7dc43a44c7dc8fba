/**
 * The old MessagePack dialect of Borg 1.x (archive.md §1): strings and binaries are one type, raw. Writing is canonical
 * (shortest integers, raw 8 never, map keys sorted by bytes), reading accepts every standard form.
 */
import { IntegrityError } from './errors.js'

/** raw is Buffer, maps have byte-string keys (text.ts), integers beyond 2^53 are bigint. */
export type MsgValue = null | boolean | number | bigint | Buffer | MsgValue[] | Map<string, MsgValue>

/** Bytes that are no valid MessagePack, or not of the expected kind. */
export class MsgpackError extends IntegrityError {
  /** The bytes end too soon: more of them could make it valid. */
  readonly endsEarly: boolean

  constructor(detail: string, endsEarly = false) {
    super(`invalid msgpack: ${detail}`)
    this.endsEarly = endsEarly
  }
}

/** Values nest at most so deep; deeper input is hostile. */
const maxDepth = 64
/** Arrays and maps built by one reader hold at most so many values: each takes some 50 bytes of memory for one byte of input. */
const maxValues = 1 << 22

const shortBytes = 64

/** A growing buffer with one method per kind of value. The caller keeps map keys sorted. */
export class MsgWriter {
  #bytes: Buffer
  /** Of #bytes, made when it is first needed: it writes large integers without making others of them. */
  #view: DataView | undefined
  #length = 0

  constructor(capacity = 1024) {
    this.#bytes = Buffer.allocUnsafe(capacity)
  }

  get length(): number {
    return this.#length
  }

  /** What was written; memory of the writer, overwritten after clear(). */
  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.#length)
  }

  /** A copy of what was written. */
  finish(): Buffer {
    return Buffer.from(this.bytes)
  }

  clear(): void {
    this.#length = 0
  }

  /** Forgets the first `count` bytes; the others move. */
  dropFirst(count: number): void {
    this.#bytes.copyWithin(0, count, this.#length)
    this.#length -= count
  }

  #reserve(count: number): number {
    const at = this.#length
    const end = at + count
    if (end > this.#bytes.length) {
      const grown = Buffer.allocUnsafe(Math.max(end, this.#bytes.length * 2))
      this.#bytes.copy(grown, 0, 0, at)
      this.#bytes = grown
      this.#view = undefined
    }
    this.#length = end
    return at
  }

  nil(): void {
    this.#byte(0xc0)
  }

  bool(value: boolean): void {
    this.#byte(value ? 0xc3 : 0xc2)
  }

  #byte(value: number): void {
    const at = this.#reserve(1)
    this.#bytes[at] = value
  }

  /** An integer of at most 53 bits, or any int64/uint64 as bigint. */
  int(value: number | bigint): void {
    if (typeof value === 'bigint') return this.#bigint(value)
    if (value >= 0) {
      if (value < 0x80) this.#byte(value)
      else if (value < 0x100) this.#wide(0xcc, value, 1)
      else if (value < 0x10000) this.#wide(0xcd, value, 2)
      else if (value < 0x100000000) this.#wide(0xce, value, 4)
      else this.#bigint(BigInt(value))
    } else if (value >= -32) this.#byte(value + 256)
    else if (value >= -128) this.#wide(0xd0, value + 0x100, 1)
    else if (value >= -32768) this.#wide(0xd1, value + 0x10000, 2)
    else if (value >= -2147483648) this.#wide(0xd2, value + 0x100000000, 4)
    else this.#bigint(BigInt(value))
  }

  #wide(lead: number, value: number, width: number): void {
    const at = this.#reserve(1 + width)
    const bytes = this.#bytes
    bytes[at] = lead
    // An element takes the lowest 8 bits of what it is given.
    for (let index = width, rest = value; index > 0; index--, rest = Math.floor(rest / 256)) bytes[at + index] = rest
  }

  #bigint(value: bigint): void {
    if (value >= -0x80000000n && value <= 0xffffffffn) return this.int(Number(value))
    const isNegative = value < 0n
    if (value >= tooLarge || value < tooSmall) throw new RangeError(`${value} does not fit 64 bits`)
    const at = this.#reserve(9)
    const view = (this.#view ??= new DataView(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.length))
    this.#bytes[at] = isNegative ? 0xd3 : 0xcf
    if (isNegative) view.setBigInt64(at + 1, value)
    else view.setBigUint64(at + 1, value)
  }

  /** Text is written as UTF-8. */
  raw(value: Uint8Array | string): void {
    const length = typeof value === 'string' ? Buffer.byteLength(value) : value.length
    this.#header(length, 0xa0, 31, 0xda, 0xdb)
    const at = this.#reserve(length)
    if (typeof value === 'string') this.#bytes.write(value, at, 'utf8')
    else this.#put(value, 0, length, at)
  }

  /** A raw that lies within other bytes. */
  rawPart(bytes: Uint8Array, start: number, length: number): void {
    this.#header(length, 0xa0, 31, 0xda, 0xdb)
    this.#put(bytes, start, length, this.#reserve(length))
  }

  /** Most of what is written is short: a call that copies memory takes longer than that. */
  #put(from: Uint8Array, start: number, length: number, at: number): void {
    const bytes = this.#bytes
    if (length <= shortBytes) for (let index = 0; index < length; index++) bytes[at + index] = from[start + index]!
    else bytes.set(start === 0 && length === from.length ? from : from.subarray(start, start + length), at)
  }

  /** A raw given as a byte string. */
  rawByteString(value: string): void {
    const { length } = value
    this.#header(length, 0xa0, 31, 0xda, 0xdb)
    const at = this.#reserve(length)
    const bytes = this.#bytes
    if (length <= shortBytes) for (let index = 0; index < length; index++) bytes[at + index] = value.charCodeAt(index)
    else bytes.write(value, at, 'latin1')
  }

  arrayHeader(count: number): void {
    this.#header(count, 0x90, 15, 0xdc, 0xdd)
  }

  mapHeader(count: number): void {
    this.#header(count, 0x80, 15, 0xde, 0xdf)
  }

  #header(count: number, fix: number, maxFix: number, lead16: number, lead32: number): void {
    if (count <= maxFix) this.#byte(fix + count)
    else if (count < 0x10000) this.#wide(lead16, count, 2)
    else this.#wide(lead32, count, 4)
  }

  /** Bytes that are MessagePack already. */
  verbatim(bytes: Uint8Array): void {
    this.#put(bytes, 0, bytes.length, this.#reserve(bytes.length))
  }

  value(value: MsgValue | string): void {
    if (value === null) this.nil()
    else if (typeof value === 'boolean') this.bool(value)
    else if (typeof value === 'number' || typeof value === 'bigint') this.int(value)
    else if (typeof value === 'string' || Buffer.isBuffer(value)) this.raw(value)
    else if (Array.isArray(value)) {
      this.arrayHeader(value.length)
      for (const element of value) this.value(element)
    } else {
      this.mapHeader(value.size)
      // Byte strings compare like their bytes.
      for (const key of [...value.keys()].sort((a, b) => (a < b ? -1 : 1))) {
        this.rawByteString(key)
        this.value(value.get(key)!)
      }
    }
  }
}

const tooLarge = 1n << 64n, tooSmall = -(1n << 63n)

/** Canonical bytes of a value. */
export function pack(value: MsgValue | string): Buffer {
  const writer = new MsgWriter()
  writer.value(value)
  return writer.finish()
}

/** Keys that are met again and again, found by length, first and last byte. No two of them may agree in all three. */
export class KnownKeys {
  readonly #byShape = new Map<number, { readonly text: string; readonly bytes: Buffer }>()

  constructor(keys: Iterable<string>) {
    for (const text of keys) {
      const bytes = Buffer.from(text, 'latin1')
      const shape = shapeOf(bytes.length, bytes[0]!, bytes.at(-1)!)
      if (this.#byShape.has(shape)) throw new RangeError(`two keys look like ${text}`)
      this.#byShape.set(shape, { text, bytes })
    }
  }

  find(bytes: Buffer, start: number, length: number): string | undefined {
    const key = this.#byShape.get(shapeOf(length, bytes[start]!, bytes[start + length - 1]!))
    if (!key) return undefined
    for (let index = 1; index < length - 1; index++) if (key.bytes[index] !== bytes[start + index]) return undefined
    return key.text
  }
}

function shapeOf(length: number, first: number, last: number): number {
  return (length << 16) | (first << 8) | last
}

/** A cursor over MessagePack. Methods throw MsgpackError at the end of the bytes or on another kind of value. */
export class MsgReader {
  readonly bytes: Buffer
  readonly end: number
  position: number
  #values = 0

  constructor(bytes: Buffer, start = 0, end = bytes.length) {
    this.bytes = bytes
    this.position = start
    this.end = end
  }

  get done(): boolean {
    return this.position >= this.end
  }

  #need(count: number): number {
    const at = this.position
    if (at + count > this.end) throw new MsgpackError(`${at + count - this.end} bytes are missing at offset ${at}`, true)
    this.position = at + count
    return at
  }

  /** First byte of the next value, not consumed; -1 at the end. */
  peek(): number {
    return this.position < this.end ? this.bytes[this.position]! : -1
  }

  #wrong(expected: string): never {
    const endsEarly = this.done
    throw new MsgpackError(`${expected} expected at offset ${this.position}, found ${endsEarly ? 'the end' : `0x${this.peek().toString(16)}`}`, endsEarly)
  }

  #length(fix: number, fixMask: number, lead8: number, lead16: number, lead32: number, expected: string): number {
    const lead = this.peek()
    if (lead >= 0 && (lead & ~fixMask) === fix) {
      this.position++
      return lead & fixMask
    }
    if (lead === lead16) return this.bytes.readUInt16BE(this.#need(3) + 1)
    if (lead === lead32) return this.bytes.readUInt32BE(this.#need(5) + 1)
    if (lead8 !== 0 && lead === lead8) return this.bytes[this.#need(2) + 1]!
    return this.#wrong(expected)
  }

  mapHeader(): number {
    return this.#length(0x80, 0x0f, 0, 0xde, 0xdf, 'a map')
  }

  arrayHeader(): number {
    return this.#length(0x90, 0x0f, 0, 0xdc, 0xdd, 'an array')
  }

  /** A view of the raw's bytes (raw, str8, bin). */
  raw(): Buffer {
    const at = this.#need(this.#rawLength())
    return this.bytes.subarray(at, this.position)
  }

  /** Steps over a raw of any length; where its bytes begin. They end at `position`. */
  anyRaw(): number {
    return this.#need(this.#rawLength())
  }

  #rawLength(): number {
    const lead = this.peek()
    return lead >= 0xc4 && lead <= 0xc6 ? this.#binLength(lead) : this.#length(0xa0, 0x1f, 0xd9, 0xda, 0xdb, 'a raw')
  }

  /** Steps over a raw that must have this length; where its bytes lie. */
  skipRaw(length: number): number {
    const { bytes, position } = this
    // As everybody writes it.
    if (position + 3 <= this.end && bytes[position] === 0xda && bytes[position + 1] === length >> 8 && bytes[position + 2] === (length & 0xff)) return this.#need(3 + length) + 3
    const found = this.raw()
    if (found.length !== length) throw new MsgpackError(`a raw of ${found.length} bytes instead of ${length}`)
    return this.position - length
  }

  #binLength(lead: number): number {
    if (lead === 0xc4) return this.bytes[this.#need(2) + 1]!
    if (lead === 0xc5) return this.bytes.readUInt16BE(this.#need(3) + 1)
    return this.bytes.readUInt32BE(this.#need(5) + 1)
  }

  /** A raw as a byte string: for keys. */
  rawByteString(): string {
    const lead = this.peek()
    if (lead >= 0xa0 && lead <= 0xbf) {
      this.position++
      const at = this.#need(lead & 0x1f)
      return this.bytes.toString('latin1', at, this.position)
    }
    return this.raw().toString('latin1')
  }

  /** A map key as a byte string; those of the table cost no new string. */
  key(known: KnownKeys): string {
    const lead = this.peek()
    if (lead > 0xa0 && lead <= 0xbf) {
      const length = lead & 0x1f
      const start = this.position + 1
      if (start + length <= this.end) {
        const found = known.find(this.bytes, start, length)
        if (found !== undefined) {
          this.position = start + length
          return found
        }
      }
    }
    return this.rawByteString()
  }

  /** nil is consumed and true; anything else stays and is false. */
  nil(): boolean {
    if (this.peek() !== 0xc0) return false
    this.position++
    return true
  }

  bool(): boolean {
    const lead = this.peek()
    if (lead !== 0xc2 && lead !== 0xc3) this.#wrong('a boolean')
    this.position++
    return lead === 0xc3
  }

  int(): number | bigint {
    const lead = this.peek()
    if (lead >= 0 && lead < 0x80) return this.bytes[this.position++]!
    if (lead >= 0xe0) return this.bytes[this.position++]! - 256
    switch (lead) {
      case 0xcc: return this.bytes[this.#need(2) + 1]!
      case 0xcd: return this.bytes.readUInt16BE(this.#need(3) + 1)
      case 0xce: return this.bytes.readUInt32BE(this.#need(5) + 1)
      case 0xcf: return narrowed(this.bytes.readBigUInt64BE(this.#need(9) + 1))
      case 0xd0: return this.bytes.readInt8(this.#need(2) + 1)
      case 0xd1: return this.bytes.readInt16BE(this.#need(3) + 1)
      case 0xd2: return this.bytes.readInt32BE(this.#need(5) + 1)
      case 0xd3: return narrowed(this.bytes.readBigInt64BE(this.#need(9) + 1))
    }
    return this.#wrong('an integer')
  }

  /** An integer below 2^53. */
  number(): number {
    const value = this.int()
    if (typeof value === 'bigint') throw new MsgpackError(`the integer ${value} is too large`)
    return value
  }

  bigint(): bigint {
    return BigInt(this.int())
  }

  value(depth = 0): MsgValue {
    if (depth > maxDepth) throw new MsgpackError('nested too deeply')
    const lead = this.peek()
    if (lead < 0) this.#wrong('a value')
    if (lead < 0x80 || lead >= 0xe0 || (lead >= 0xcc && lead <= 0xd3)) return this.int()
    if ((lead >= 0xa0 && lead <= 0xbf) || (lead >= 0xc4 && lead <= 0xc6) || (lead >= 0xd9 && lead <= 0xdb)) return this.raw()
    if (lead === 0xc0) {
      this.position++
      return null
    }
    if (lead === 0xc2 || lead === 0xc3) return this.bool()
    if (lead <= 0x8f || lead === 0xde || lead === 0xdf) return this.#map(depth)
    if (lead <= 0x9f || lead === 0xdc || lead === 0xdd) {
      const count = this.arrayHeader()
      this.#plausible(count)
      const array: MsgValue[] = []
      for (let index = 0; index < count; index++) array.push(this.value(depth + 1))
      return array
    }
    return this.#wrong('a value of the old msgpack')
  }

  #map(depth: number): Map<string, MsgValue> {
    const count = this.mapHeader()
    this.#plausible(count * 2)
    const map = new Map<string, MsgValue>()
    for (let index = 0; index < count; index++) {
      const key = this.rawByteString()
      map.set(key, this.value(depth + 1))
    }
    return map
  }

  /** Each element takes a byte at least: a count beyond that cannot be true, and must not make us allocate. */
  #plausible(count: number): void {
    if (count > this.end - this.position) throw new MsgpackError(`${count} elements announced, ${this.end - this.position} bytes left`, true)
    this.#values += count
    if (this.#values > maxValues) throw new MsgpackError(`more than ${maxValues} values`)
  }

  /** Steps over one value of any kind without building it. */
  skip(): void {
    let pending = 1
    while (pending > 0) {
      pending--
      const lead = this.peek()
      if (lead < 0) this.#wrong('a value')
      if (lead < 0x80 || lead >= 0xe0 || lead === 0xc0 || lead === 0xc2 || lead === 0xc3) this.position++
      else if (lead >= 0xa0 && lead <= 0xbf) {
        this.position++
        this.#need(lead & 0x1f)
      } else if (lead >= 0xcc && lead <= 0xd3) this.#need(1 + (1 << (lead & 3)))
      else if ((lead >= 0xc4 && lead <= 0xc6) || (lead >= 0xd9 && lead <= 0xdb)) this.raw()
      else if (lead <= 0x8f || lead === 0xde || lead === 0xdf) pending += 2 * this.mapHeader()
      else if (lead <= 0x9f || lead === 0xdc || lead === 0xdd) pending += this.arrayHeader()
      else this.#wrong('a value of the old msgpack')
      if (pending > this.end - this.position) throw new MsgpackError(`${pending} elements announced, ${this.end - this.position} bytes left`, true)
    }
  }
}

function narrowed(value: bigint): number | bigint {
  return value >= -9007199254740991n && value <= 9007199254740991n ? Number(value) : value
}

/** One value that fills the bytes exactly. Raws are views of the bytes. MsgpackError otherwise. */
export function unpack(bytes: Uint8Array): MsgValue {
  const reader = new MsgReader(Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length))
  const value = reader.value()
  if (!reader.done) throw new MsgpackError(`${reader.end - reader.position} bytes follow the value`)
  return value
}

/** unpack that must give a map. */
export function unpackMap(bytes: Uint8Array): Map<string, MsgValue> {
  const value = unpack(bytes)
  if (!(value instanceof Map)) throw new MsgpackError('a map expected')
  return value
}

/**
 * unpackMap whose values under some keys are read by functions: for large values that would only be taken apart again. Such a key
 * is not in the result.
 */
export function unpackMapWith(bytes: Buffer, special: Readonly<Record<string, (reader: MsgReader) => void>>): Map<string, MsgValue> {
  const reader = new MsgReader(bytes)
  const map = new Map<string, MsgValue>()
  for (let count = reader.mapHeader(); count > 0; count--) {
    const key = reader.rawByteString()
    const read = Object.hasOwn(special, key) ? special[key] : undefined
    if (read) read(reader)
    else map.set(key, reader.value())
  }
  if (!reader.done) throw new MsgpackError(`${reader.end - reader.position} bytes follow the value`)
  return map
}
