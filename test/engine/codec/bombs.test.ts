import test from 'ava'
import { decompress } from '../../../src/engine/codec/decompress.js'
import { DecompressionError } from '../../../src/engine/codec/errors.js'
import { lzma } from '../../../src/engine/codec/lzma.js'
import { zstd } from '../../../src/engine/codec/zstd.js'

/** One chunk of the largest size, twice, and what the collector has not seen yet. */
const maxGrowth = 512 << 20

async function refused(t: import('ava').ExecutionContext, payload: Buffer, limits = {}): Promise<void> {
  const before = process.memoryUsage.rss()
  await t.throwsAsync(async () => await decompress(payload, limits), { instanceOf: DecompressionError })
  const growth = process.memoryUsage.rss() - before
  t.true(growth < maxGrowth, `grew by ${growth >> 20} MiB`)
}

test('an .xz stream is given up when too much has come out, and not after all of it', async t => {
  const stream = Buffer.from(await lzma(0).compress(Buffer.alloc(8 << 20))).subarray(2)
  // 3.2 GB in less than a megabyte.
  const bomb = Buffer.concat([Buffer.from([2, 0]), ...Array.from({ length: 400 }, () => stream)])
  t.true(bomb.length < 1 << 20)
  await refused(t, bomb, { maxSize: 32 << 20 })
  await refused(t, bomb, { size: 1000 })
})

test('a zstd frame that tells no size has no place behind one that does', async t => {
  const first = Buffer.from(zstd(3).compress(Buffer.alloc(1000)) as Uint8Array)
  // Blocks of type RLE: four bytes stand for 128 KiB.
  const head = Buffer.from('28b52ffd0058', 'hex'), block = (last: number): Buffer => {
    const bytes = Buffer.alloc(4)
    bytes.writeUIntLE((128 << 10) << 3 | 1 << 1 | last, 0, 3)
    return bytes
  }
  const second = Buffer.concat([head, ...Array.from({ length: 20_000 }, () => block(0)), block(1)])
  await refused(t, Buffer.concat([first, second]))
  await refused(t, Buffer.concat([Buffer.from([3, 0]), second]))
  t.true((await decompress(first)).equals(Buffer.alloc(1000)))
})

test('no memory is set aside for a size that no chunk has', async t => {
  for (const payload of ['010050', '0000ff', '030028b52ffda0ffffffff']) await refused(t, Buffer.from(payload, 'hex'), { size: 0xffffffff })
})
