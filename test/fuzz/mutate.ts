/** Changes to valid samples: of bytes without knowing what they mean, and of MessagePack, text and tables as what they are. */
import { type MsgValue, MsgReader, pack } from '../../src/engine/msgpack.js'
import type { Random } from './random.js'

const bytesOfInterest = [0, 1, 0x0f, 0x10, 0x1f, 0x20, 0x2e, 0x2f, 0x7f, 0x80, 0x81, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc4, 0xc6, 0xca, 0xcf, 0xd3, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf, 0xe0, 0xff]
const wordsOfInterest = [0, 1, 8, 9, 40, 41, 42, 255, 256, 65535, 65536, 0x7fffffff, 0x80000000, 0xfffffbff, 0xfffffffe, 0xffffffff, 20 << 20, (20 << 20) + 1, 1 << 27, (1 << 27) + 1]
const maxBytes = 1 << 17

/** A few changes, mostly one. `samples` gives material to splice in. */
export function mutateBytes(sample: Buffer, random: Random, samples: readonly Buffer[] = []): Buffer {
  let bytes: Buffer = Buffer.from(sample)
  for (let rounds = 1 + random.size(6); rounds > 0; rounds--) bytes = once(bytes, random, samples)
  return bytes.length > maxBytes ? bytes.subarray(0, maxBytes) : bytes
}

function once(bytes: Buffer, random: Random, samples: readonly Buffer[]): Buffer {
  const at = random.below(bytes.length)
  switch (random.below(11)) {
    case 0:
      if (bytes.length > 0) bytes[at]! ^= 1 << random.below(8)
      return bytes
    case 1:
      if (bytes.length > 0) bytes[at] = random.pick(bytesOfInterest)
      return bytes
    case 2: return bytes.subarray(0, at)
    case 3: return Buffer.concat([bytes.subarray(0, at), bytes.subarray(Math.min(bytes.length, at + 1 + random.size(64)))])
    case 4: return Buffer.concat([bytes.subarray(0, at), Buffer.from(Array.from({ length: random.size(64) }, () => random.below(256))), bytes.subarray(at)])
    case 5: {
      const piece = bytes.subarray(at, at + 1 + random.size(256))
      return Buffer.concat([bytes.subarray(0, at), ...Array.from({ length: 1 + random.size(16) }, () => piece), bytes.subarray(at)])
    }
    case 6: case 7:
      if (bytes.length >= 4) {
        const place = random.below(bytes.length - 3)
        if (random.oneIn(2)) bytes.writeUInt32LE(random.pick(wordsOfInterest), place)
        else bytes.writeUInt32BE(random.pick(wordsOfInterest), place)
      }
      return bytes
    case 8:
      if (samples.length > 0) {
        const other = random.pick(samples)
        return Buffer.concat([bytes.subarray(0, at), other.subarray(random.below(other.length))])
      }
      return bytes
    case 9:
      if (bytes.length >= 2) bytes.writeUInt16LE(random.pick(wordsOfInterest) & 0xffff, random.below(bytes.length - 1))
      return bytes
    default:
      bytes.fill(random.pick(bytesOfInterest), at, Math.min(bytes.length, at + random.size(64)))
      return bytes
  }
}

/** MessagePack values as tree, one of them changed, packed again. Falls back to bytes for what is no MessagePack. */
export function mutateMsgpack(sample: Buffer, random: Random, samples: readonly Buffer[] = []): Buffer {
  if (random.oneIn(3)) return mutateBytes(sample, random, samples)
  const values: MsgValue[] = []
  try {
    const reader = new MsgReader(Buffer.from(sample))
    while (!reader.done && values.length < 64) values.push(reader.value())
  } catch {
    return mutateBytes(sample, random, samples)
  }
  for (let rounds = 1 + random.size(4); rounds > 0 && values.length > 0; rounds--) {
    const index = random.below(values.length)
    values[index] = changed(values[index]!, random, 0)
  }
  let bytes: Buffer
  try {
    bytes = Buffer.concat(values.map(value => pack(value)))
  } catch {
    return mutateBytes(sample, random, samples)
  }
  // Other encodings of the same lengths, and lies about them.
  return random.oneIn(4) ? mutateBytes(bytes, random, samples) : bytes
}

function changed(value: MsgValue, random: Random, depth: number): MsgValue {
  const descend = depth < 6 && !random.oneIn(4)
  if (descend && value instanceof Map && value.size > 0) {
    const copy = new Map(value)
    const key = random.pick([...copy.keys()])
    if (random.oneIn(6)) copy.delete(key)
    else if (random.oneIn(8)) copy.set(random.pick([...copy.keys(), 'chunks', 'path', 'version', 'unheard of', '']), copy.get(key)!)
    else copy.set(key, changed(copy.get(key)!, random, depth + 1))
    return copy
  }
  if (descend && Array.isArray(value) && value.length > 0) {
    const copy = [...value]
    const index = random.below(copy.length)
    if (random.oneIn(6)) copy.splice(index, 1)
    else if (random.oneIn(6)) copy.splice(index, 0, copy[index]!)
    else copy[index] = changed(copy[index]!, random, depth + 1)
    return copy
  }
  return hostile(value, random)
}

/** Something else in the place of a value: of its kind but extreme, or of another kind. */
function hostile(value: MsgValue, random: Random): MsgValue {
  if (Buffer.isBuffer(value) && !random.oneIn(3)) {
    switch (random.below(6)) {
      case 0: return Buffer.alloc(0)
      case 1: return Buffer.concat([value, Buffer.from([random.pick(bytesOfInterest)])])
      case 2: return value.subarray(0, random.below(value.length))
      case 3: return Buffer.alloc(random.size(4096), random.pick(bytesOfInterest))
      case 4: return Buffer.from(random.pick(['../../etc/passwd', '/absolute', 'a\0b', '.', '..', 'x/../y', '//', '\xff\xfe', 'a/'.repeat(2000)]), 'latin1')
      default: return mutateBytes(value, random)
    }
  }
  return random.pick<() => MsgValue>([
    () => null, () => true, () => 0, () => -1, () => random.pick(wordsOfInterest), () => -random.pick(wordsOfInterest), () => 2 ** 53 - 1, () => 1n << 63n, () => (1n << 64n) - 1n, () => -(1n << 63n),
    () => Buffer.alloc(random.size(40)), () => [], () => new Map(), () => [value], () => new Map([['key', value]]), () => nested(70), () => Array.from({ length: random.size(300) }, () => value),
  ])()
}

function nested(depth: number): MsgValue {
  let value: MsgValue = []
  for (; depth > 0; depth--) value = [value]
  return value
}

const pieces = ['{', '}', '{now', ':%Y', ':>99999999999', '{hostname:', '::', '/', '//', '..', '[', ']', '!', '-', '**/', '*', '?', '(', ')', '+', '\\', '@', ':', 'ssh://', 'file://', '\0', '\ud800', '\udc80', '\u{1f600}', ',', '99999999999999999999', '-1', '=', '\n', '\t', '[repository]', '#', ' ']

/** Characters and pieces that mean something to the parsers of command lines and files. */
export function mutateText(sample: Buffer, random: Random, samples: readonly Buffer[] = []): Buffer {
  if (random.oneIn(3)) return mutateBytes(sample, random, samples)
  let text = sample.toString('utf8')
  for (let rounds = 1 + random.size(8); rounds > 0; rounds--) {
    const at = random.below(text.length + 1)
    text = text.slice(0, at) + (random.oneIn(12) ? random.pick(pieces).repeat(1 + random.size(40)) : random.pick(pieces)) + text.slice(at + random.size(4))
  }
  return Buffer.from(text.slice(0, 4096))
}
