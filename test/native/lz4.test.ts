import test from 'ava'
import { createRequire } from 'node:module'
import fc from 'fast-check'
import { decompressLz4, lz4 } from '../../src/engine/codec/lz4.js'
import { native } from '../../src/engine/native.js'

/** Repetitive enough to be compressed, with runs, far matches, long literals. */
const data = fc.array(fc.tuple(fc.uint8Array({ minLength: 1, maxLength: 40 }), fc.integer({ min: 1, max: 300 })), { minLength: 1, maxLength: 30 })
  .map((parts) => Buffer.concat(parts.flatMap(([bytes, count]) => Array.from({ length: count }, () => Buffer.from(bytes)))))

/** What decodes with other code. The plaintext's length goes before its blocks. */
const other = createRequire(import.meta.url)('lz4-napi') as { uncompressSync(data: Uint8Array): Buffer }
function decodedByOther(packed: Uint8Array, size: number): Buffer | undefined {
  const prefix = Buffer.alloc(4)
  prefix.writeUInt32LE(size)
  try {
    return other.uncompressSync(Buffer.concat([prefix, packed]))
  } catch {
    return undefined
  }
}

interface Sequence {
  readonly literals: Uint8Array
  /** Taken modulo what is there already. */
  readonly offset: number
  readonly match: number
}

/** A block of these sequences, and the length of what it gives. */
function blockOf(sequences: readonly Sequence[], last: Uint8Array): { packed: Buffer; size: number } {
  const bytes: number[] = []
  let size = 0
  const more = (count: number): void => {
    if (count < 15) return
    for (count -= 15; count >= 255; count -= 255) bytes.push(255)
    bytes.push(count)
  }
  for (const { literals, offset, match } of sequences) {
    bytes.push(Math.min(15, literals.length) << 4 | Math.min(15, match - 4))
    more(literals.length)
    bytes.push(...literals)
    size += literals.length
    const back = 1 + (offset - 1) % Math.min(size, 65535)
    bytes.push(back & 255, back >> 8)
    more(match - 4)
    size += match
  }
  bytes.push(Math.min(15, last.length) << 4)
  more(last.length)
  bytes.push(...last)
  return { packed: Buffer.from(bytes), size: size + last.length }
}

const sequences = fc.array(fc.record({
  literals: fc.oneof({ weight: 5, arbitrary: fc.uint8Array({ minLength: 1, maxLength: 20 }) }, fc.uint8Array({ minLength: 1, maxLength: 600 })),
  offset: fc.oneof({ weight: 5, arbitrary: fc.integer({ min: 1, max: 70 }) }, fc.integer({ min: 1, max: 65535 })),
  match: fc.oneof({ weight: 5, arbitrary: fc.integer({ min: 4, max: 40 }) }, fc.integer({ min: 4, max: 1200 })),
}), { minLength: 1, maxLength: 40 })

test('sequences of all shapes, wherever they end, are decoded as by lz4-napi', (t) => {
  fc.assert(fc.property(sequences, fc.uint8Array({ maxLength: 40 }), fc.nat(80), fc.nat(), fc.nat(), fc.nat(255), (shapes, last, spare, cut, changed, value) => {
    const { packed, size } = blockOf(shapes, last)
    const wanted = decodedByOther(packed, size)
    if (wanted?.length !== size) throw new Error('not a block')
    for (const room of [size, size + spare]) {
      const memory = Buffer.alloc(room + 64, 0xa5), target = memory.subarray(32, 32 + room)
      t.is(native().lz4Decode(packed, target), size)
      t.true(target.subarray(0, size).equals(wanted))
      t.true(memory.subarray(0, 32).equals(Buffer.alloc(32, 0xa5)) && memory.subarray(-32).equals(Buffer.alloc(32, 0xa5)))
    }
    t.is(native().lz4Decode(packed, Buffer.alloc(Math.max(0, size - 1 - spare))), -1)
    // Cut off or changed: refused by both, or the same bytes.
    const bad = Buffer.from(packed)
    bad[changed % bad.length] = value
    for (const damaged of [packed.subarray(0, cut % packed.length), bad]) {
      const target = Buffer.alloc(size), found = native().lz4Decode(damaged, target), by = decodedByOther(damaged, size)
      t.is(found, by?.length ?? -1)
      if (by) t.true(target.subarray(0, found).equals(by))
    }
  }), { numRuns: 1000 })
})

const block = (plain: Buffer): Buffer | undefined => {
  const payload = lz4.compress(plain) as Buffer
  return payload === plain ? undefined : payload.subarray(2)
}

test('blocks of lz4-napi give the bytes that were compressed', (t) => {
  fc.assert(fc.property(data, (plain) => {
    const packed = block(plain)
    if (!packed) return
    const target = Buffer.alloc(plain.length)
    t.is(native().lz4Decode(packed, target), plain.length)
    t.true(target.equals(plain))
    t.is(native().lz4Decode(packed, target.subarray(1)), -1)
    t.is(native().lz4Decode(packed, Buffer.alloc(plain.length + 9)), plain.length)
  }), { numRuns: 300 })
})

test('a block tells how much it gives before it is decoded, and no more than is asked for', (t) => {
  fc.assert(fc.property(data, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 5 }), fc.nat(), (plain, changes, cut) => {
    const packed = block(plain)
    if (!packed) return
    t.is(native().lz4PlainLength(packed, plain.length), plain.length)
    t.is(native().lz4PlainLength(packed, 2 ** 40), plain.length)
    t.is(native().lz4PlainLength(packed, plain.length - 1), -1)
    t.is(native().lz4PlainLength(packed, -1), -1)
    t.true(decompressLz4(Buffer.concat([Buffer.from([1, 0]), packed]), {}).equals(plain))
    // Damaged, it may say anything; what is decoded is as long as it said.
    const bad = Buffer.from(packed)
    for (const [at, value] of changes) bad[at % bad.length] = value
    const part = bad.subarray(0, 1 + cut % bad.length)
    const said = native().lz4PlainLength(part, 1 << 20)
    t.true(said <= 1 << 20)
    const written = native().lz4Decode(part, Buffer.alloc(Math.max(0, said)))
    t.true(written === -1 || written === said)
  }), { numRuns: 500 })
  const more = Buffer.concat([Buffer.of(0xff), Buffer.alloc(1000, 255)])
  for (const bad of [Buffer.of(0xf0, 255, 255), Buffer.of(0x10), Buffer.of(0x10, 65, 0), Buffer.of(0x1f, 65, 1, 0, 255), more]) t.is(native().lz4PlainLength(bad, 1 << 27), -1)
  t.is(native().lz4PlainLength(Buffer.alloc(0), 0), 0)
  // 17 MiB that stand for 4 GiB.
  const bomb = Buffer.concat([Buffer.of(0x1f, 65, 1, 0), Buffer.alloc(17 << 20, 255), Buffer.of(0, 0)])
  t.is(native().lz4PlainLength(bomb, 1 << 27), -1)
  t.throws(() => decompressLz4(Buffer.concat([Buffer.from([1, 0]), bomb]), {}), { message: /damaged/ })
})

test('damaged blocks write nothing outside their target', (t) => {
  fc.assert(fc.property(data, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 5 }), fc.nat(), (plain, changes, cut) => {
    const packed = block(plain)
    if (!packed) return
    const bad = Buffer.from(packed)
    for (const [at, value] of changes) bad[at % bad.length] = value
    const memory = Buffer.alloc(plain.length + 64, 0xa5)
    const written = native().lz4Decode(bad.subarray(0, 1 + cut % bad.length), memory.subarray(32, 32 + plain.length))
    t.true(written >= -1 && written <= plain.length)
    t.true(memory.subarray(0, 32).equals(Buffer.alloc(32, 0xa5)) && memory.subarray(-32).equals(Buffer.alloc(32, 0xa5)))
  }), { numRuns: 2000 })
})

test('nothing, a match at the end, a length that never ends, a match before the start and one of nothing are damage', (t) => {
  const target = Buffer.alloc(64)
  t.is(native().lz4Decode(Buffer.of(0), target), 0)
  t.is(native().lz4Decode(Buffer.of(0x14, 65, 1, 0, 0), target), 9)
  for (const bad of [[], [0x14, 65, 1, 0], [0xf0, 255, 255], [0x10], [0x10, 65, 0], [0x10, 65, 0, 0], [0x10, 65, 2, 0], [0x1f, 65, 1, 0, 255]]) t.is(native().lz4Decode(Buffer.from(bad), target), -1, String(bad))
})

test('what is encoded here is decoded here and by lz4-napi, and never takes more room than it was given', (t) => {
  const random = fc.uint8Array({ maxLength: 700 }).map(bytes => Buffer.from(bytes))
  const far = fc.tuple(fc.uint8Array({ minLength: 20, maxLength: 40 }), fc.integer({ min: 65_480, max: 65_560 })).map(([bytes, gap]) => Buffer.concat([bytes, Buffer.alloc(gap), bytes, Buffer.alloc(20, 1)]))
  fc.assert(fc.property(fc.oneof(data, random, far), fc.nat(1000), (plain, short) => {
    const memory = Buffer.alloc(plain.length + Math.ceil(plain.length / 255) + 16 + 64, 0xa5)
    const length = native().lz4Encode(plain, memory.subarray(32, memory.length - 32))
    t.true(length > 0 && memory.subarray(0, 32).equals(Buffer.alloc(32, 0xa5)) && memory.subarray(-32).equals(Buffer.alloc(32, 0xa5)))
    const packed = memory.subarray(32, 32 + length), target = Buffer.alloc(plain.length)
    t.is(native().lz4Decode(packed, target), plain.length)
    t.true(target.equals(plain))
    t.true(decompressLz4(Buffer.concat([Buffer.from([1, 0]), packed]), { size: plain.length }).equals(plain))
    const less = Buffer.alloc(Math.max(0, length - 1 - short % length), 0)
    t.is(native().lz4Encode(plain, less), -1)
  }), { numRuns: 1000 })
  const rows = Buffer.from(Uint32Array.from({ length: 200_000 }, (_, index) => index >> 4).buffer)
  t.true(native().lz4Encode(rows, Buffer.alloc(rows.length)) < rows.length / 3)
  t.is(native().lz4Encode(Buffer.alloc(1 << 20), Buffer.alloc(5000)) > 4000, true)
})
