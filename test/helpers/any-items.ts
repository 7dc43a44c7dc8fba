/** Items as fast-check makes them, odd ones included, and their stream. */
import fc from 'fast-check'
import { ChunkList } from '../../src/engine/archive/chunk-list.js'
import { encodeItem } from '../../src/engine/archive/item-codec.js'
import type { Item } from '../../src/engine/archive/item.js'
import { MsgWriter } from '../../src/engine/msgpack.js'
import { directoryMode, fileMode, linkMode } from './mount-fixtures.js'

export function packed(items: Iterable<Item>): Buffer {
  const writer = new MsgWriter()
  for (const each of items) encodeItem(each, writer)
  return writer.finish()
}

export async function* pieces(bytes: Buffer, length: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length)
}

const name = fc.constantFrom('a', 'b', 'c', '.', '..', '', 'long-name-of-a-file', 'n\0ul', '\xff\xfe')
const path = fc.array(name, { minLength: 1, maxLength: 4 }).map((names) => Buffer.from(names.join('/'), 'latin1'))
const ns = fc.bigInt({ min: -(2n ** 70n), max: 2n ** 70n })
const chunks = fc.array(fc.tuple(fc.uint8Array({ minLength: 32, maxLength: 32 }), fc.nat(5_000_000), fc.nat(5_000_000)), { maxLength: 3 }).map((rows) => {
  const list = new ChunkList()
  for (const row of rows) list.add(...row)
  return list
})
const optional = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(value, { nil: undefined })
const bytes = fc.uint8Array({ maxLength: 12 }).map((value) => Buffer.from(value))
export const anyItem: fc.Arbitrary<Item> = fc.record({
  path, mode: fc.constantFrom(fileMode, directoryMode, linkMode, 0o020600, 0o010644, fileMode, directoryMode), uid: fc.nat(2 ** 32 - 1), gid: fc.nat(70000),
  user: fc.constantFrom(null, Buffer.from('known'), Buffer.from('stranger')), group: fc.constantFrom(null, Buffer.from('known'), Buffer.from('stranger')),
  mtimeNs: ns, atimeNs: optional(ns), ctimeNs: optional(ns), chunks: optional(chunks), chunksHealthy: fc.option(chunks, { nil: undefined, freq: 8 }),
  size: optional(fc.nat()), source: fc.option(path, { nil: undefined, freq: 3 }), rdev: optional(fc.nat()), part: fc.option(fc.nat(9), { nil: undefined, freq: 9 }),
  xattrs: fc.option(fc.dictionary(fc.constantFrom('user.a', 'user.b'), fc.option(bytes)).map((entries) => new Map(Object.entries(entries))), { nil: undefined, freq: 4 }),
  aclAccess: fc.option(fc.constantFrom(Buffer.alloc(40, 1), Buffer.alloc(28, 1), Buffer.from('odd')), { nil: undefined, freq: 5 }), aclDefault: fc.option(bytes, { nil: undefined, freq: 5 }),
  bsdflags: optional(fc.nat(8)),
}).map((record) => Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined)) as unknown as Item)

