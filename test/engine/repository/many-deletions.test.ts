/** Objects deleted many at a time: the same files as one after the other; and the shadow index, which is packed by the addon. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import { absent } from '../../../src/engine/hashindex/bucket-layout.js'
import { HashTable } from '../../../src/engine/hashindex/hash-table.js'
import { type ChunkId, chunkId, manifestId } from '../../../src/engine/ids.js'
import { MsgpackError, MsgReader, MsgWriter } from '../../../src/engine/msgpack.js'
import { Hints } from '../../../src/engine/repository/hints.js'
import { LocalRepository } from '../../../src/engine/repository/local-repository.js'
import { createRepository } from '../../../src/engine/repository/repository-creation.js'
import { Segments } from '../../../src/engine/repository/segments.js'
import { ShadowIndex } from '../../../src/engine/repository/shadow-index.js'

const folder = mkdtempSync(join(tmpdir(), 'borgfs-many-deletions-'))
test.after.always(() => rmSync(folder, { recursive: true }))

function idOf(number: number): ChunkId {
  const id = Buffer.alloc(32, number & 0xff)
  id.writeUInt32LE((number * 2_654_435_761) % 2 ** 32)
  id.writeUInt32LE(number, 4)
  return chunkId(id)
}

const log = { write: (): void => undefined }
const open = (path: string, smallIndexBytes?: number): Promise<LocalRepository> =>
  LocalRepository.open(path, { lock: 'exclusive', lockWaitMs: 0, log, ...(smallIndexBytes !== undefined && { smallIndexBytes }) })
const objectCount = 3000

/** With segments so short that objects and DELETEs fill many. */
async function make(name: string): Promise<string> {
  const path = join(folder, name)
  createRepository(path)
  const repository = await open(path)
  repository.config.set('max_segment_size', '20000')
  repository.config.save()
  await repository.close()
  const again = await open(path)
  await again.transaction(async tx => {
    await tx.put(manifestId, Buffer.from('manifest'))
    for (let number = 0; number < objectCount; number++) await tx.put(idOf(number), Buffer.alloc(number % 13 === 0 ? 3000 : number % 90, number))
  })
  await again.close()
  return path
}

function filesOf(path: string): Map<string, string> {
  const found = new Map<string, string>()
  for (const name of readdirSync(join(path, 'data'), { recursive: true }) as string[]) if (/\/\d+$/.test(name)) found.set(name, readFileSync(join(path, 'data', name)).toString('hex'))
  return found
}

function hintsOf(path: string): Hints {
  return Hints.unpack(readFileSync(join(path, readdirSync(path).find(name => name.startsWith('hints.'))!)))
}

const sorted = (map: ReadonlyMap<number, number>): [number, number][] => [...map].sort(([a], [b]) => a - b)

const doomed = Array.from({ length: objectCount }, (_, number) => number).filter(number => number % 5 !== 0)

test('what many at a time leave is what each alone leaves: segments, hints and index', async t => {
  const [one, many, onFile] = [await make('one'), await make('many'), await make('on-file')]
  const first = await open(one), second = await open(many), third = await open(onFile, 0)
  await first.transaction(async tx => {
    for (const number of doomed) await tx.delete(idOf(number))
  })
  for (const repository of [second, third]) {
    await repository.transaction(async tx => {
      for (let at = 0; at < doomed.length; at += 701) t.deepEqual(await tx.deleteMany(Buffer.concat(doomed.slice(at, at + 701).map(idOf))), [])
    })
  }
  for (const [repository, path] of [[second, many], [third, onFile]] as const) {
    t.deepEqual(filesOf(path), filesOf(one))
    const [found, wanted] = [hintsOf(path), hintsOf(one)]
    t.deepEqual(sorted(found.segments), sorted(wanted.segments))
    t.deepEqual(sorted(found.compact), sorted(wanted.compact))
    t.is(found.shadow.size, doomed.length)
    for (const number of doomed) t.deepEqual(found.shadow.get(idOf(number)), wanted.shadow.get(idOf(number)))
    for (let number = 0; number < objectCount; number++) t.is(repository.has(idOf(number)), number % 5 === 0)
    t.is(repository.objectCount, first.objectCount)
  }
  for (const repository of [first, second, third]) await repository.close()
})

test('those that are not there are told, also the second time in one call, and the rest is deleted', async t => {
  const repository = await open(await make('missing'))
  await repository.transaction(async tx => {
    const missing = await tx.deleteMany(Buffer.concat([90_001, 1, 2, 1, 3, 90_002].map(idOf)))
    t.deepEqual(missing, [0, 3, 5])
    t.deepEqual(await tx.deleteMany(Buffer.concat([2, 3].map(idOf))), [0, 1])
  })
  t.deepEqual([1, 2, 3, 4].map(number => repository.has(idOf(number))), [false, false, false, true])
  await repository.close()
})

test('lengths come from the headers, and a segment that ends early or is missing is told', async t => {
  const path = await make('lengths')
  const repository = await open(path)
  const places = Array.from({ length: objectCount }, (_, number) => repository.entryPosition(idOf(number))!)
  const segments = new Segments(path, { segmentsPerDir: 1000, maxSegmentSize: 20000 })
  const lengths = segments.entryLengths(Uint32Array.from(places.flatMap(({ segment, offset }) => [segment, offset])))
  t.deepEqual([...lengths], places.map((_, number) => 41 + (number % 13 === 0 ? 3000 : number % 90)))
  t.throws(() => segments.entryLengths(Uint32Array.of(0, 8, 0, 1 << 30)), { message: /short read/ })
  t.throws(() => segments.entryLengths(Uint32Array.of(12_345, 8)), { message: /missing/ })
  segments.close()
  await repository.close()
})

test('entries taken out of a table are those deleted one by one, in memory and on file', t => {
  fc.assert(fc.property(fc.uniqueArray(fc.nat(4000), { maxLength: 3000 }), fc.array(fc.nat(5000), { maxLength: 3000 }), (inside, wanted) => {
    const [one, many] = [new HashTable(2), new HashTable(2)]
    for (const table of [one, many]) for (const number of inside) table.set(idOf(number), number, number + 1)
    const words = many.takeOut(Buffer.concat(wanted.map(idOf)))
    for (const [row, number] of wanted.entries()) {
      const bucket = one.find(idOf(number))
      t.deepEqual([words[2 * row], ...(bucket < 0 ? [] : [words[2 * row + 1]])], bucket < 0 ? [absent] : [number, number + 1])
      one.delete(idOf(number))
    }
    t.is(many.size, one.size)
    for (const number of inside) t.is(many.has(idOf(number)), one.has(idOf(number)))
    // The table is as good as any.
    for (const number of inside) many.set(idOf(number), 7, 8)
    t.is(many.size, inside.length)
  }), { numRuns: 30 })
})

test('a shadow index is the same after it was packed, whatever its lists', t => {
  const lists = fc.array(fc.oneof(fc.nat(300), fc.constantFrom(0x7f, 0x80, 0xff, 0x100, 0xffff, 0x10000, 0xfffffbfd, 0xfffffbfe, 0xfffffbff, 0xffffffff)), { maxLength: 3 })
  fc.assert(fc.property(fc.array(fc.tuple(fc.nat(2000), lists), { maxLength: 200 }), entries => {
    const shadow = new ShadowIndex(), wanted = new Map<number, readonly number[]>()
    for (const [number, segments] of entries) {
      shadow.set(idOf(number), segments)
      wanted.set(number, segments)
    }
    const writer = new MsgWriter()
    shadow.pack(writer)
    const reader = new MsgReader(writer.finish())
    const again = ShadowIndex.unpack(reader)
    t.true(reader.done)
    t.is(again.size, wanted.size)
    for (const [number, segments] of wanted) t.deepEqual(again.get(idOf(number)), segments)
  }), { numRuns: 100 })
})

test('a shadow index that ends early, counts wrong or has other ids is refused', t => {
  const shadow = new ShadowIndex()
  for (let number = 0; number < 5; number++) shadow.set(idOf(number), number === 3 ? [1, 2] : [number])
  const writer = new MsgWriter()
  shadow.pack(writer)
  const packed = writer.finish()
  for (let end = 1; end < packed.length; end++) t.throws(() => ShadowIndex.unpack(new MsgReader(packed.subarray(0, end))), { instanceOf: MsgpackError }, String(end))
  t.throws(() => ShadowIndex.unpack(new MsgReader(Buffer.concat([Buffer.from('dfffffffff', 'hex'), packed.subarray(1)]))), { instanceOf: MsgpackError })
  t.throws(() => ShadowIndex.unpack(new MsgReader(Buffer.from('81a3616263910100', 'hex'))), { message: /an id of 3 bytes/ })
})

test('many are added to a shadow index as one by one, those that are in it already included', t => {
  const [one, many] = [new ShadowIndex(), new ShadowIndex()]
  for (const shadow of [one, many]) for (let number = 0; number < 3000; number += 3) shadow.add(idOf(number), 5)
  const numbers = Array.from({ length: 3000 }, (_, number) => number)
  for (const number of numbers) one.add(idOf(number), number % 7 === 0 ? 0xfffffbff : number)
  many.addMany(Buffer.concat(numbers.map(idOf)), Uint32Array.from(numbers, number => (number % 7 === 0 ? 0xfffffbff : number)), 1)
  t.is(many.size, one.size)
  for (const number of numbers) t.deepEqual(many.get(idOf(number)), one.get(idOf(number)))
})
