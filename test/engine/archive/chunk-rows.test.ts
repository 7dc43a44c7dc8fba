/** Chunk lists read by native code are those read by the plain reader, and damage is named by the latter. */
import test from 'ava'
import fc from 'fast-check'
import { ChunkList } from '../../../src/engine/archive/chunk-list.js'
import { decodeItem, encodeItem } from '../../../src/engine/archive/item-codec.js'
import type { Item } from '../../../src/engine/archive/item.js'
import { MsgpackError, MsgReader, MsgWriter } from '../../../src/engine/msgpack.js'
import { native } from '../../../src/engine/native.js'

const entry = fc.record({ id: fc.uint8Array({ minLength: 32, maxLength: 32 }), size: fc.oneof(fc.nat(300), fc.nat(0xffffffff)), csize: fc.oneof(fc.nat(300), fc.nat(0xffffffff)) })

function packed(list: ChunkList): Buffer {
  const writer = new MsgWriter(64)
  encodeItem({ path: Buffer.from('p'), mode: 0o100644, uid: 0, gid: 0, user: null, group: null, mtimeNs: 1n, chunks: list } as unknown as Item, writer)
  return Buffer.from(writer.finish())
}

test('every list comes back as it was written', t => {
  fc.assert(fc.property(fc.array(entry, { maxLength: 40 }), entries => {
    const list = new ChunkList()
    for (const { id, size, csize } of entries) list.add(id, size, csize)
    return decodeItem(new MsgReader(packed(list))).chunks!.bytes.equals(list.bytes)
  }))
  t.pass()
})

test('an item cut anywhere is an incomplete one', t => {
  const list = new ChunkList()
  for (let number = 0; number < 9; number++) list.add(Buffer.alloc(32, number), number * 1000, 70_000 * number)
  const bytes = packed(list)
  for (let length = 0; length < bytes.length; length++) {
    t.throws(() => decodeItem(new MsgReader(bytes.subarray(0, length))), { instanceOf: MsgpackError }, String(length))
    t.throws(() => decodeItem(new MsgReader(bytes, 0, length)), { instanceOf: MsgpackError }, String(length))
  }
})

test('a list of any length is refused before memory is made for it', t => {
  const bytes = Buffer.from('82a66368756e6b73ddffffffff93', 'hex')
  t.throws(() => decodeItem(new MsgReader(bytes)), { instanceOf: MsgpackError })
})

test('an item that is cut is told from one that is damaged, however long it says it is', t => {
  const list = new ChunkList()
  for (let number = 0; number < 20; number++) list.add(Buffer.alloc(32, 0x11), 1, 2)
  const bytes = packed(list)
  const second = bytes.indexOf(Buffer.from('93da0020', 'hex')) + 38
  const early = (length: number): boolean => t.throws(() => decodeItem(new MsgReader(bytes.subarray(0, length))), { instanceOf: MsgpackError })!.endsEarly
  t.true(early(second + 300))
  bytes[second] = 0x94
  t.false(early(second + 300))
  t.false(early(bytes.length))
})

test('what native code does not read is left to the plain reader', t => {
  const id = Buffer.alloc(32, 5)
  const rows = Buffer.alloc(40)
  const read = (hex: string): number => native().unpackChunkRows(Buffer.from(hex, 'hex'), 0, 1, rows)
  const raw = `da0020${id.toString('hex')}`
  t.is(read(`93${raw}0102`), 38)
  t.is(read(`93c420${id.toString('hex')}cd0102ce01020304`), 43)
  t.deepEqual([rows.readUInt32LE(32), rows.readUInt32LE(36)], [0x0102, 0x01020304])
  for (const odd of [`92${raw}01`, `93d920${id.toString('hex')}0102`, `93da001f${id.toString('hex')}02`, `93${raw}01`, `93${raw}01cd01`, `93${raw}ff01`, `93${raw}01cf0000000000000001`, `93${raw}c001`]) t.is(read(odd), -1, odd)
  t.throws(() => native().unpackChunkRows(Buffer.alloc(80), 0, 2, rows), { instanceOf: RangeError })
  t.throws(() => native().unpackChunkRows(Buffer.alloc(80), -1, 1, rows), { instanceOf: RangeError })
  t.is(native().unpackChunkRows(Buffer.alloc(8), 9, 1, rows), -1)
})

for (const [what, change] of Object.entries<(bytes: Buffer, at: number) => void>({
  'an id of another length': (bytes, at) => (bytes[at + 3] = 31),
  'an entry of four': (bytes, at) => (bytes[at] = 0x94),
  'a size that is nil': (bytes, at) => (bytes[at + 36] = 0xc0),
})) {
  test(`damage of an entry is an error: ${what}`, t => {
    const list = new ChunkList()
    for (let number = 0; number < 9; number++) list.add(Buffer.alloc(32, 0x11), 1, 2)
    const bytes = packed(list)
    change(bytes, bytes.indexOf(Buffer.from('93da0020', 'hex')))
    t.throws(() => decodeItem(new MsgReader(bytes)), { instanceOf: MsgpackError })
  })
}
