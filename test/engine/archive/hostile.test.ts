import test from 'ava'
import { deflateSync } from 'node:zlib'
import { decodeItems } from '../../../src/engine/archive/item-stream.js'
import { ChunkIndex } from '../../../src/engine/cache/chunk-index.js'
import { ItemReferences } from '../../../src/engine/cache/item-references.js'
import { decompress } from '../../../src/engine/codec/decompress.js'
import { IntegrityError } from '../../../src/engine/errors.js'
import { MsgWriter, pack, unpack } from '../../../src/engine/msgpack.js'

/** More than one decompressed chunk and what is made of it may not take. */
const maxGrowth = 640 << 20

async function* once(...chunks: Buffer[]): AsyncGenerator<Buffer> {
  for (const chunk of chunks) {
    await Promise.resolve()
    yield chunk
  }
}

async function refused(t: import('ava').ExecutionContext, ...chunks: Buffer[]): Promise<void> {
  const before = process.memoryUsage.rss()
  await t.throwsAsync(async () => {
    for await (const _item of decodeItems(once(...chunks)));
  }, { instanceOf: IntegrityError })
  const index = new ChunkIndex()
  const references = new ItemReferences((bytes, offset, size, csize) => index.addAt(bytes, offset, size, csize))
  t.throws(() => {
    for (const chunk of chunks) references.feed(chunk)
    references.end()
  }, { instanceOf: IntegrityError })
  t.true(process.memoryUsage.rss() - before < maxGrowth, `grew by ${(process.memoryUsage.rss() - before) >> 20} MiB`)
}

/** An item that is complete but for one field. */
function itemWith(field: string, write: (writer: MsgWriter) => void): Buffer {
  const writer = new MsgWriter()
  writer.mapHeader(2)
  writer.raw('path')
  writer.raw('p')
  writer.raw(field)
  write(writer)
  return writer.finish()
}

const big = (size: number, byte: number): Buffer => Buffer.alloc(size, byte)

test('announced lengths that cannot be true are refused at once', async t => {
  for (const head of ['dfffffffff', 'ddffffffff', 'dbffffffff', 'c6ffffffff', 'de ffff', 'dc ffff']) await refused(t, Buffer.from(head.replace(' ', ''), 'hex'))
  await refused(t, itemWith('chunks', writer => writer.arrayHeader(0xffffffff)))
  await refused(t, itemWith('xattrs', writer => writer.mapHeader(0xffffffff)))
})

test('a stream of items is wrong where it is wrong, and not only at its end', async t => {
  let fed = 0
  async function* stream(): AsyncGenerator<Buffer> {
    yield* once(itemWith('mode', writer => writer.raw('no number')))
    for (; fed < 1000; fed++) yield Buffer.alloc(1 << 16)
  }
  await t.throwsAsync(async () => {
    for await (const _item of decodeItems(stream()));
  }, { instanceOf: IntegrityError })
  t.is(fed, 0)
})

test('sizes, times and attribute lists beyond reason are refused', async t => {
  for (const size of [2 ** 32, -1, 2 ** 53 - 1]) {
    await refused(t, itemWith('chunks', writer => {
      writer.arrayHeader(1)
      writer.arrayHeader(3)
      writer.raw(big(32, 1))
      writer.int(size)
      writer.int(1)
    }))
  }
  const time = itemWith('mtime', writer => writer.raw(big(8 << 20, 1)))
  await t.throwsAsync(async () => {
    for await (const _item of decodeItems(once(time)));
  }, { instanceOf: IntegrityError, message: /a time of 8388608 bytes/ })
  const xattrs = itemWith('xattrs', writer => {
    writer.mapHeader(1 << 20)
    for (let index = 0; index < 1 << 20; index++) {
      writer.raw(index.toString(36))
      writer.nil()
    }
  })
  await t.throwsAsync(async () => {
    for await (const _item of decodeItems(once(xattrs)));
  }, { instanceOf: IntegrityError, message: /1048576 extended attributes/ })
})

test('a chunk of nothing but empty lists does not fill the memory', async t => {
  const before = process.memoryUsage.rss()
  // 100 MB of empty arrays, each of them a value, in 100 kB of payload.
  const bomb = Buffer.concat([Buffer.from([0xdd, 5, 0xf5, 0xe1, 0]), big(100_000_000, 0x90)])
  const plain = await decompress(deflateSync(bomb))
  t.throws(() => unpack(plain), { instanceOf: IntegrityError, message: /more than 4194304 values/ })
  t.throws(() => unpack(big(1 << 20, 0x91)), { instanceOf: IntegrityError, message: /nested too deeply/ })
  t.true(process.memoryUsage.rss() - before < maxGrowth, `grew by ${(process.memoryUsage.rss() - before) >> 20} MiB`)
})

test('an item over thousands of chunks is decoded in time that its length allows', async t => {
  const writer = new MsgWriter(1 << 20)
  writer.mapHeader(2)
  writer.raw('chunks')
  const count = 200_000
  writer.arrayHeader(count)
  for (let index = 0; index < count; index++) {
    writer.arrayHeader(3)
    writer.raw(big(32, index & 255))
    writer.int(1 << 20)
    writer.int(1 << 19)
  }
  writer.raw('path')
  writer.raw('large')
  const stream = writer.finish()
  const pieces: Buffer[] = []
  for (let at = 0; at < stream.length; at += 4096) pieces.push(stream.subarray(at, at + 4096))
  let seen = 0
  for await (const item of decodeItems(once(...pieces, pack(new Map([['path', Buffer.from('next')]]))))) {
    if (seen++ === 0) t.is(item.chunks!.length, count)
    else t.is(item.path.toString(), 'next')
  }
  t.is(seen, 2)
})
