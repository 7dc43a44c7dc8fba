/** Items, item streams, msgpack and paths against what Borg made. */
import test from 'ava'
import { createHash } from 'node:crypto'
import { decodeItem, encodeItem } from '../../../src/engine/archive/item-codec.js'
import { decodeItems, ItemStreamWriter } from '../../../src/engine/archive/item-stream.js'
import type { Item } from '../../../src/engine/archive/item.js'
import { ChunkList } from '../../../src/engine/archive/chunk-list.js'
import { MsgReader, MsgWriter, pack, unpack } from '../../../src/engine/msgpack.js'
import { normalPath, storedPath } from '../../../src/engine/patterns/path-text.js'
import { fixtureJson } from '../../helpers/fixtures.js'

const sha256 = (bytes: Uint8Array | string): string => createHash('sha256').update(bytes).digest('hex')

test('every item is decoded and encoded to the very same bytes', t => {
  const { items } = fixtureJson<{ items: { msgpack_hex: string; how: string; decoded: { path: unknown; mode: number } }[] }>('vectors', 'archive-items.json')
  const writer = new MsgWriter()
  for (const { msgpack_hex, how, decoded } of items) {
    const item = decodeItem(new MsgReader(Buffer.from(msgpack_hex, 'hex')))
    t.is(item.mode, decoded.mode, how)
    if (typeof decoded.path === 'string') t.is(item.path.toString(), decoded.path)
    writer.clear()
    encodeItem(item, writer)
    t.is(writer.bytes.toString('hex'), msgpack_hex, how)
  }
  t.true(items.length >= 80)
})

test('an item stream is cut where Borg cuts it, and read back whole', async t => {
  const { vectors } = fixtureJson<{ vectors: { chunk_seed: number; items: number; stream_length: number; stream_sha256: string; chunk_sizes?: number[]; chunk_count: number; chunk_sizes_sha256_of_decimal_comma_joined: string }[] }>('vectors', 'archive-itemstream.json')
  for (const vector of vectors) {
    const chunks: Buffer[] = []
    const stream = new ItemStreamWriter(vector.chunk_seed, chunk => {
      chunks.push(Buffer.from(chunk))
      return Promise.resolve()
    })
    for (let index = 0; index < vector.items; index++) {
      const item: Item = {
        path: Buffer.from(`dir/sub/file-${String(index).padStart(6, '0')}`), mode: 0o100644, uid: 0, gid: 0, user: Buffer.from('root'), group: Buffer.from('root'),
        mtimeNs: 1_600_000_000_000_000_000n + BigInt(index) * 1_000_000_007n, hardlinkMaster: false, size: index,
        chunks: index === 0 ? new ChunkList() : ChunkList.of([{ id: createHash('sha256').update(String(index)).digest() as never, size: index, csize: index + 2 }]),
      }
      await stream.add(item)
    }
    await stream.flush(true)
    const whole = Buffer.concat(chunks)
    t.is(whole.length, vector.stream_length)
    t.is(sha256(whole), vector.stream_sha256)
    t.is(chunks.length, vector.chunk_count)
    t.is(sha256(chunks.map(chunk => chunk.length).join(',')), vector.chunk_sizes_sha256_of_decimal_comma_joined)
    let count = 0
    async function* given() {
      yield* chunks
    }
    for await (const item of decodeItems(given())) t.is(item.size, count++)
    t.is(count, vector.items)
  }
})

test('values are packed in the forms of Borg', t => {
  const { values, sorted_map_example } = fixtureJson<{ values: { value: string; msgpack_hex_head: string; total_length: number }[]; sorted_map_example: { hex: string } }>('vectors', 'archive-msgpack.json')
  let compared = 0
  for (const { value, msgpack_hex_head, total_length } of values) {
    const integer = /^int (-?\d+)$/.exec(value), raw = /^raw of (\d+) zero bytes$/.exec(value)
    const packed = integer ? pack(BigInt(integer[1]!)) : raw ? pack(Buffer.alloc(Number(raw[1]))) : undefined
    if (!packed) continue
    compared++
    t.is(packed.length, total_length, value)
    t.is(packed.toString('hex', 0, msgpack_hex_head.length / 2), msgpack_hex_head, value)
    const back = unpack(packed)
    t.is(Buffer.isBuffer(back) ? back.length : BigInt(back as number | bigint), integer ? BigInt(integer[1]!) : Number(raw![1]), value)
  }
  t.true(compared > 25)
  t.is(pack(unpack(Buffer.from(sorted_map_example.hex, 'hex'))).toString('hex'), sorted_map_example.hex)
})

test('damaged msgpack is refused, whatever byte is cut or turned', t => {
  const bytes = Buffer.from(fixtureJson<{ items: { msgpack_hex: string }[] }>('vectors', 'archive-items.json').items[3]!.msgpack_hex, 'hex')
  for (let cut = 0; cut < bytes.length; cut++) t.throws(() => unpack(bytes.subarray(0, cut)), { name: 'IntegrityError' })
  for (let at = 0; at < bytes.length; at++) {
    const damaged = Buffer.from(bytes)
    damaged[at] = damaged[at]! ^ 0x81
    try {
      unpack(damaged)
      t.pass()
    } catch (error) {
      t.is((error as Error).name, 'IntegrityError')
    }
  }
})

test('paths of create are stored as Borg stores them', t => {
  const { create } = fixtureJson<{ create: { argument: string; after_normpath: string; stored: string }[] }>('vectors', 'archive-paths.json')
  for (const { argument, after_normpath, stored } of create) {
    t.is(normalPath(argument), after_normpath, argument)
    t.is(storedPath(normalPath(argument)), stored, argument)
  }
})
