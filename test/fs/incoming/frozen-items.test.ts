/** Items on their way to the engine thread. */
import test from 'ava'
import fc from 'fast-check'
import type { FrozenFile, FrozenItem } from '../../../src/fs/incoming/frozen.js'
import { FrozenItemPacker, FrozenItemReader } from '../../../src/fs/incoming/frozen-items.js'

const bundles: FrozenFile[] = [{ path: '/staging/bundles/1', cipherNumber: 2 ** 48 + 1 }, { path: '/staging/bundles/2', cipherNumber: undefined }]
const byteString = fc.uint8Array({ maxLength: 300 }).map(bytes => Buffer.from(bytes).toString('latin1'))
const size = fc.oneof(fc.nat(), fc.integer({ min: 2 ** 32 - 2, max: 2 ** 53 - 1 }))
const time = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })
const optional = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(value, { nil: undefined })

const item: fc.Arbitrary<FrozenItem> = fc.record({
  path: byteString, id: size, mode: fc.integer({ min: 0, max: 0o177777 }), uid: fc.integer({ min: 0, max: 2 ** 32 - 1 }), gid: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  rdev: fc.integer({ min: 0, max: 2 ** 32 - 1 }), mtimeNs: time, ctimeNs: time, target: optional(fc.uint8Array().map(bytes => Buffer.from(bytes))),
  xattrs: optional(fc.dictionary(byteString, fc.uint8Array(), { minKeys: 1 }).map(values => new Map(Object.entries(values).map(([name, value]) => [name, Buffer.from(value)] as const)))),
  nlink: fc.integer({ min: 0, max: 2 ** 32 - 1 }), size, firstExtent: size, extentCount: fc.nat(),
  content: optional(fc.oneof(
    fc.record({ file: fc.constantFrom(...bundles), position: size }),
    fc.record({ file: fc.record({ path: fc.string(), cipherNumber: optional(size) }), position: fc.constant(undefined) }),
  )),
  beneath: optional(fc.record({ base: fc.nat(), row: fc.nat(), without: fc.array(byteString).map(names => new Set(names)) })), bsdflags: fc.nat(),
})

test('items come out as they went in, by their number and in any order', t => {
  fc.assert(fc.property(fc.array(item, { maxLength: 40 }), items => {
    const packer = new FrozenItemPacker()
    for (const one of items) packer.add(one)
    const reader = new FrozenItemReader(structuredClone(packer.finish()))
    t.is(reader.length, items.length)
    for (let index = items.length - 1; index >= 0; index--) {
      t.is(reader.path(index), items[index]!.path)
      t.deepEqual(reader.get(index), items[index]!)
    }
  }), { numRuns: 100 })
})

test('more than one block of them', t => {
  const count = 10_000
  const packer = new FrozenItemPacker()
  const base: FrozenItem = {
    path: '', id: 0, mode: 0o100644, uid: 0, gid: 0, rdev: 0, mtimeNs: 5n, ctimeNs: 6n, target: undefined, xattrs: undefined, nlink: 1, size: 7,
    content: { file: bundles[0]!, position: 0 }, firstExtent: 0, extentCount: 0, beneath: undefined, bsdflags: 0,
  }
  for (let index = 0; index < count; index++) packer.add({ ...base, path: `dir/file${index}`, id: index })
  const items = packer.finish()
  t.deepEqual(items.files, bundles.slice(0, 1))
  const reader = new FrozenItemReader(items)
  for (let index = 0; index < count; index += 7) {
    const { path, id } = reader.get(index)
    if (path !== `dir/file${index}` || id !== index) t.fail(`item ${index} is ${path}, ${id}`)
  }
  t.is(reader.get(count - 1).id, count - 1)
})

test('where ends what lies below a directory', t => {
  const packer = new FrozenItemPacker()
  const base: FrozenItem = {
    path: '', id: 0, mode: 0o040755, uid: 0, gid: 0, rdev: 0, mtimeNs: 5n, ctimeNs: 6n, target: undefined, xattrs: undefined, nlink: 1, size: 0,
    content: undefined, firstExtent: 0, extentCount: 0, beneath: undefined, bsdflags: 0,
  }
  const ends: Record<string, number> = { '.': 9, a: 5, 'a/b': 4, 'a/b/c': 4, 'a/d': 5, 'a.': 6, e: 8, 'e/f': 8, g: 9 }
  for (const path of Object.keys(ends)) packer.add({ ...base, path })
  const reader = new FrozenItemReader(structuredClone(packer.finish()))
  for (const [index, [path, end]] of Object.entries(ends).entries()) t.is(reader.end(index), end, path)
})
