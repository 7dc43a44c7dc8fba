import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import xxhash from 'xxhash-wasm'
import { IntegrityError } from '../../../src/engine/errors.js'
import { headerBytes, maxValue } from '../../../src/engine/hashindex/bucket-layout.js'
import { HashTable } from '../../../src/engine/hashindex/hash-table.js'
import { SharedTableReader } from '../../../src/engine/hashindex/shared-table-reader.js'
import { native } from '../../../src/engine/native.js'
import { giveBackShared, outgrown } from '../../../src/engine/shared-garbage.js'

const folder = mkdtempSync(join(tmpdir(), 'borgfs-hash-table-'))
test.after.always(() => rmSync(folder, { recursive: true }))

let files = 0

/** Few first words, so that chains are long and wrap around the end of the table. */
function idOf(number: number): Buffer {
  const id = Buffer.alloc(32, number & 0xff)
  id.writeUInt32LE(number % 7 === 0 ? 0xfffffff0 : (number % 97) * 1031 + 1025, 0)
  id.writeUInt32LE(number, 28)
  return id
}

function bytesOf(table: HashTable): Buffer {
  const parts = [table.header()]
  for (const block of table.blocks()) parts.push(Buffer.from(block))
  return Buffer.concat(parts)
}

function save(table: HashTable): string {
  const path = join(folder, `table-${files++}`)
  writeFileSync(path, bytesOf(table))
  return path
}

function load(path: string, valueWords: number): HashTable {
  const file = readFileSync(path)
  return HashTable.load(valueWords, file.subarray(0, headerBytes), file.length, into => into.set(file.subarray(headerBytes)))
}

function onFile(path: string, valueWords: number): HashTable {
  const table = HashTable.onFile(path, valueWords)
  table.verify(() => undefined, () => undefined)
  return table
}

function filled(valueWords: number, count: number): HashTable {
  const table = new HashTable(valueWords)
  for (let number = 0; number < count; number++) table.set(idOf(number), ...new Array<number>(valueWords).fill(number))
  return table
}

type Step = { readonly kind: 'set' | 'delete' | 'add' | 'move' | 'exchange'; readonly number: number; readonly value: number }

const steps = fc.array(fc.record<Step>({
  kind: fc.constantFrom('set', 'set', 'exchange', 'delete', 'add', 'move'), number: fc.nat(1500), value: fc.nat(maxValue),
}), { maxLength: 300 })

test('a table on file does what one in memory does, and becomes the same file', t => {
  fc.assert(fc.property(fc.constantFrom(2, 3), fc.nat(900), steps, (valueWords, count, work) => {
    const path = save(filled(valueWords, count))
    const [memory, file] = [load(path, valueWords), onFile(path, valueWords)]
    for (const { kind, number, value } of work) {
      const id = idOf(number)
      switch (kind) {
        case 'set': for (const table of [memory, file]) table.set(id, ...new Array<number>(valueWords).fill(value)); break
        case 'delete': if (memory.delete(id) !== file.delete(id)) return false; break
        case 'add': for (const table of [memory, file]) if (table.has(id)) table.setValue(table.find(id), valueWords - 1, value); break
        case 'exchange': {
          const words = new Uint32Array(new Uint8Array(id).buffer)
          if (valueWords === 2 && memory.exchange(words, 0, number, value) !== file.exchange(words, 0, number, value)) return false
          break
        }
        case 'move': file.movedTo(save(file))
      }
      const within = Buffer.concat([Buffer.from('ab'), id])
      if (memory.find(id) !== file.find(id) || memory.findAt(within, 2) !== file.findAt(within, 2) || memory.findAt(within, 2) !== memory.find(id) || memory.size !== file.size) return false
    }
    for (let number = 0; number < 1500; number++) {
      const [a, b] = [memory.find(idOf(number)), file.find(idOf(number))]
      if (a !== b) return false
      if (a >= 0) for (let word = 0; word < valueWords; word++) if (memory.value(a, word) !== file.value(a, word)) return false
    }
    const same = bytesOf(memory).equals(bytesOf(file)) && [...memory.entries()].map(({ id }) => id.toString('hex')).join() === [...file.entries()].map(({ id }) => id.toString('hex')).join()
      && Buffer.from(memory.compact().bytes).equals(Buffer.from(file.compact().bytes))
    file.close()
    return same
  }), { numRuns: 60 })
  t.pass()
})

test('a table stays on file while little of it changed, and goes to memory when much did', t => {
  const large = new HashTable(2, 100_000)
  const many = (number: number): Buffer => {
    const id = Buffer.alloc(32)
    id.writeUInt32LE((number * 2_654_435_761) % 2 ** 32)
    id.writeUInt32LE(number, 4)
    return id
  }
  for (let number = 0; number < 80_000; number++) large.set(many(number), 1, number)
  const table = onFile(save(large), 2)
  for (let number = 0; number < 20; number++) table.set(many(100_000 + number), 2, number)
  t.true(table.onFile)
  t.is(table.shared().buffer, undefined)
  for (let number = 0; number < 5_000; number++) table.setValue(table.find(many(number)), 0, 3)
  t.false(table.onFile)
  t.is(table.size, 80_020)
  t.is(table.value(table.find(many(100_019)), 1), 19)
  t.is(table.value(table.find(many(4_999)), 0), 3)
})

test('another thread looks ids up in the file, and in none that would show it what was deleted', t => {
  const path = save(filled(2, 500))
  const table = onFile(path, 2)
  const reader = new SharedTableReader(table.shared())
  t.true(reader.has(idOf(3)))
  t.false(reader.has(idOf(1400)))
  reader.close()
  t.false(reader.has(idOf(3)))
  table.delete(idOf(3))
  t.deepEqual([table.shared().path, table.shared().buffer], [undefined, undefined])
  t.false(new SharedTableReader(table.shared()).has(idOf(4)))
  table.close()
  t.false(new SharedTableReader({ path: join(folder, 'missing'), buffer: undefined, buckets: 1031, valueWords: 2 }).has(idOf(4)))
})

test('differences are found wherever the two tables lie', t => {
  const [one, other] = [filled(2, 300), filled(2, 310)]
  one.set(idOf(5), 1, 2)
  const paths = [save(one), save(other)] as const
  const found = [load, onFile].flatMap(left => [load, onFile].map(right => {
    const [a, b] = [left(paths[0], 2), right(paths[1], 2)]
    const differences = [...a.differences(b)].map(({ bucket, otherBucket }) => `${a.idAt(bucket).readUInt32LE(28)} ${otherBucket < 0 ? '-' : b.value(otherBucket, 0)}`)
    const missing = [...b.differences(a)].filter(({ otherBucket }) => otherBucket < 0).map(({ bucket }) => b.idAt(bucket).readUInt32LE(28)).sort((x, y) => x - y)
    return JSON.stringify([differences, missing])
  }))
  t.deepEqual(found, new Array(4).fill(JSON.stringify([['5 5'], [300, 301, 302, 303, 304, 305, 306, 307, 308, 309]])))
})

test('counts of a table on file are added as those of one in memory', t => {
  const path = save(filled(3, 700))
  const sums = [load(path, 3), onFile(path, 3)].map(other => {
    const all = filled(3, 300)
    all.addCounts(other)
    other.close()
    return bytesOf(all)
  })
  t.true(sums[0]!.equals(sums[1]!))
})

test('wrong headers and lengths are refused before anything is looked up', t => {
  const good = readFileSync(save(filled(2, 100)))
  const damages: [string, (file: Buffer) => Buffer][] = [
    ['empty', () => Buffer.alloc(0)],
    ['header only', file => file.subarray(0, headerBytes)],
    ['short header', file => file.subarray(0, 10)],
    ['one byte short', file => file.subarray(0, -1)],
    ['one byte more', file => Buffer.concat([file, Buffer.alloc(1)])],
    ['magic', file => Buffer.concat([Buffer.from('ATTICIDX'), file.subarray(8)])],
    ['negative buckets', file => (file.writeInt32LE(-1, 12), file)],
    ['no buckets', file => (file.writeInt32LE(0, 12), file)],
    ['more buckets', file => (file.writeInt32LE(2053, 12), file)],
    ['more entries than buckets', file => (file.writeInt32LE(1032, 8), file)],
    ['negative entries', file => (file.writeInt32LE(-5, 8), file)],
    ['key size', file => (file[16] = 20, file)],
    ['value size', file => (file[17] = 12, file)],
  ]
  for (const [what, damage] of damages) {
    const path = join(folder, 'damaged')
    writeFileSync(path, damage(Buffer.from(good)))
    t.throws(() => HashTable.onFile(path, 2), { instanceOf: IntegrityError }, what)
    t.throws(() => load(path, 2), { instanceOf: IntegrityError }, what)
  }
})

test('a wrong number of entries is found by verifying', t => {
  const file = readFileSync(save(filled(2, 100)))
  file.writeInt32LE(99, 8)
  const path = join(folder, 'count')
  writeFileSync(path, file)
  t.throws(() => onFile(path, 2), { instanceOf: IntegrityError, message: /100 entries instead of 99/ })
})

test('a file that becomes shorter while it is looked into is an error, not the end of the process', t => {
  const path = save(filled(2, 600))
  const table = HashTable.onFile(path, 2)
  t.true(table.has(idOf(1)))
  truncateSync(path, 5000)
  let errors = 0
  for (let number = 0; number < 600; number++) {
    try {
      table.find(idOf(number))
    } catch (error) {
      t.true(error instanceof IntegrityError)
      errors++
    }
  }
  t.true(errors > 0)
  t.throws(() => [...table.blocks()], { instanceOf: IntegrityError })
  table.close()
})

test('a table without an empty bucket is made anew when it is verified, and searches in it end before', t => {
  const buckets = 300_000, stride = 40
  const file = Buffer.alloc(headerBytes + buckets * stride)
  file.write('BORG_IDX', 'latin1')
  file.writeInt32LE(buckets, 8)
  file.writeInt32LE(buckets, 12)
  file[16] = 32
  file[17] = 8
  for (let bucket = 0; bucket < buckets; bucket++) {
    file.writeUInt32LE(bucket, headerBytes + bucket * stride)
    file.writeUInt32LE(bucket, headerBytes + bucket * stride + 36)
  }
  const path = join(folder, 'full')
  writeFileSync(path, file)
  const table = HashTable.onFile(path, 2)
  const unknown = Buffer.alloc(32, 1)
  t.throws(() => table.find(unknown), { instanceOf: IntegrityError })
  table.verify(() => undefined, () => undefined)
  t.is(table.find(unknown), -1)
  t.false(table.onFile)
  t.is(table.size, buckets)
  const known = Buffer.alloc(32)
  known.writeUInt32LE(777)
  t.is(table.value(table.find(known), 1), 777)
})

test('a table that was closed answers nobody', t => {
  const table = onFile(save(filled(2, 600)), 2)
  table.close()
  table.close()
  t.throws(() => { for (let number = 0; number < 600; number++) table.find(idOf(number)) }, { message: 'the table was closed' })
})

test('nothing is changed in a table that was not verified', t => {
  const table = HashTable.onFile(save(filled(2, 10)), 2)
  t.throws(() => table.set(idOf(1), 1, 2), { message: /verified before/ })
  t.throws(() => table.set(idOf(1000), 1, 2), { message: /verified before/ })
  t.throws(() => table.delete(idOf(1)), { message: /verified before/ })
  table.close()
})

test('the checksum is that of another implementation, however the bytes are cut', async t => {
  const { h64Raw } = await xxhash()
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), fc.array(fc.nat(80), { maxLength: 8 }), (bytes, cuts) => {
    const state = native().xxh64Begin()
    let at = 0
    for (const length of [...cuts, bytes.length]) {
      native().xxh64Update(state, bytes.subarray(at, at + length))
      at = Math.min(bytes.length, at + length)
    }
    return native().xxh64Digest(state) === h64Raw(bytes)
  }))
  t.throws(() => native().xxh64Update(Buffer.alloc(5), Buffer.alloc(5)), { instanceOf: TypeError })
  const corrupt = native().xxh64Begin().fill(0xff)
  t.throws(() => native().xxh64Digest(corrupt), { instanceOf: TypeError })
})

test('memory that a table outgrew is given back at once, unless somebody else may still look into it', t => {
  for (const seenBy of ['nobody', 'workers', 'others'] as const) {
    const table = filled(2, 773)
    if (seenBy === 'workers') table.shared()
    if (seenBy === 'others') table.inMemory()
    const memory = table.bucketBytes, before = Buffer.from(memory)
    for (let number = 773; number < 3000; number++) table.set(idOf(number), number, 1)
    t.is(before.equals(memory), seenBy !== 'nobody', seenBy)
    t.is(outgrown.has(memory.buffer as SharedArrayBuffer), seenBy === 'workers', seenBy)
    if (seenBy === 'workers') giveBackShared(memory.buffer as SharedArrayBuffer)
    if (seenBy !== 'others') t.true(memory.subarray(4096, 2 * 4096).every(byte => byte === 0), seenBy)
    for (let number = 0; number < 3000; number++) if (!table.has(idOf(number))) return t.fail(`${number} is missing`)
  }
})
