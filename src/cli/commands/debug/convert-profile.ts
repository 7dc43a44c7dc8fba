/**
 * `debug convert-profile IN OUT` (commands.md §10): a profile that Borg wrote (--debug-profile: MessagePack of
 * {(file, line, function): (calls, primitive calls, time, cumulated, callers)}) becomes one that Python's pstats reads: the same
 * in Python's marshal format. Neither format is used elsewhere here, hence the small reader and writer.
 */
import { readFileSync } from 'node:fs'
import { CommandError } from '../../../engine/errors.js'
import type { Command } from '../../command.js'
import { writeAnswer } from '../../output/answer-file.js'

export const debugConvertProfile: Command = context => {
  const [input, output] = [context.positional('input')[0]!, context.positional('output')[0]!]
  const reader = new ProfileReader(readFileSync(input === '-' ? 0 : input), input)
  writeAnswer(output, Buffer.concat(marshalled(reader.whole())))
  return Promise.resolve()
}

type Value = null | boolean | bigint | { readonly float: number } | string | Buffer | readonly Value[] | Map<Value, Value>

const maxDepth = 32

class ProfileReader {
  readonly #bytes: Buffer
  readonly #name: string
  #at = 0

  constructor(bytes: Buffer, name: string) {
    this.#bytes = bytes
    this.#name = name
  }

  whole(): Value {
    try {
      const value = this.#value(0)
      if (this.#at === this.#bytes.length) return value
    } catch (error) {
      if (!(error instanceof RangeError)) throw error
    }
    throw new CommandError(`${this.#name} is no profile of Borg: it was not made by --debug-profile, or is cut off.`)
  }

  #take(count: number): Buffer {
    if (this.#at + count > this.#bytes.length) throw new RangeError('cut off')
    return this.#bytes.subarray(this.#at, (this.#at += count))
  }

  #count(width: number): number {
    return this.#take(width).readUIntBE(0, width)
  }

  #value(depth: number): Value {
    if (depth > maxDepth) throw new RangeError('nested too deeply')
    const lead = this.#count(1)
    if (lead < 0x80) return BigInt(lead)
    if (lead < 0x90) return this.#map(lead & 15, depth)
    if (lead < 0xa0) return this.#array(lead & 15, depth)
    if (lead < 0xc0) return this.#text(lead & 31)
    if (lead >= 0xe0) return BigInt(lead - 256)
    switch (lead) {
      case 0xc0: return null
      case 0xc2: return false
      case 0xc3: return true
      case 0xc4: case 0xc5: case 0xc6: return this.#take(this.#count(1 << (lead - 0xc4)))
      case 0xca: return { float: this.#take(4).readFloatBE() }
      case 0xcb: return { float: this.#take(8).readDoubleBE() }
      case 0xcc: case 0xcd: case 0xce: return BigInt(this.#count(1 << (lead - 0xcc)))
      case 0xcf: return this.#take(8).readBigUInt64BE()
      case 0xd0: case 0xd1: case 0xd2: return BigInt(this.#take(1 << (lead - 0xd0)).readIntBE(0, 1 << (lead - 0xd0)))
      case 0xd3: return this.#take(8).readBigInt64BE()
      case 0xd9: case 0xda: case 0xdb: return this.#text(this.#count(1 << (lead - 0xd9)))
      case 0xdc: case 0xdd: return this.#array(this.#count(2 << (lead - 0xdc)), depth)
      case 0xde: case 0xdf: return this.#map(this.#count(2 << (lead - 0xde)), depth)
    }
    throw new RangeError('no profile')
  }

  #text(length: number): string {
    return this.#take(length).toString('utf8')
  }

  #array(count: number, depth: number): Value[] {
    if (count > this.#bytes.length - this.#at) throw new RangeError('cut off')
    return Array.from({ length: count }, () => this.#value(depth + 1))
  }

  #map(count: number, depth: number): Map<Value, Value> {
    const map = new Map<Value, Value>()
    for (; count > 0; count--) map.set(this.#value(depth + 1), this.#value(depth + 1))
    return map
  }
}

/** Python's marshal, version 4, without references. Sequences become tuples, as keys have to be. */
function marshalled(value: Value): Buffer[] {
  const sized = (code: string, length: number): Buffer => {
    const head = Buffer.from(`${code}\0\0\0\0`, 'latin1')
    head.writeUInt32LE(length, 1)
    return head
  }
  if (value === null) return [Buffer.from('N')]
  if (typeof value === 'boolean') return [Buffer.from(value ? 'T' : 'F')]
  if (typeof value === 'bigint') return [integer(value)]
  if (typeof value === 'string') return [sized('u', Buffer.byteLength(value)), Buffer.from(value)]
  if (Buffer.isBuffer(value)) return [sized('s', value.length), value]
  if (value instanceof Map) return [Buffer.from('{'), ...[...value].flatMap(pair => pair.flatMap(marshalled)), Buffer.from('0')]
  if (Array.isArray(value)) return [sized('(', value.length), ...(value as readonly Value[]).flatMap(marshalled)]
  const float = Buffer.from('g\0\0\0\0\0\0\0\0', 'latin1')
  float.writeDoubleLE((value as { float: number }).float, 1)
  return [float]
}

function integer(value: bigint): Buffer {
  if (value >= -0x80000000n && value <= 0x7fffffffn) {
    const bytes = Buffer.from('i\0\0\0\0', 'latin1')
    bytes.writeInt32LE(Number(value), 1)
    return bytes
  }
  const digits: number[] = []
  for (let rest = value < 0n ? -value : value; rest > 0n; rest >>= 15n) digits.push(Number(rest & 0x7fffn))
  const bytes = Buffer.alloc(5 + 2 * digits.length)
  bytes.write('l')
  bytes.writeInt32LE(value < 0n ? -digits.length : digits.length, 1)
  for (const [index, digit] of digits.entries()) bytes.writeUInt16LE(digit, 5 + 2 * index)
  return bytes
}
