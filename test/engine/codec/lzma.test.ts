import test from 'ava'
import { decompress } from '../../../src/engine/codec/decompress.js'
import { parseCompression } from '../../../src/engine/codec/spec.js'

test('chunks in shared memory, where large files are cut, are compressed by every method', async t => {
  const shared = Buffer.from(new SharedArrayBuffer(300_000))
  shared.write('something to compress '.repeat(10_000))
  for (const spec of ['none', 'lz4', 'zstd,3', 'zlib,6', 'lzma,1', 'auto,lzma,1', 'obfuscate,1,lzma,1']) {
    const compressed = await parseCompression(spec).compress(shared)
    const payload = compressed === shared ? Buffer.concat([Buffer.alloc(2), shared]) : compressed
    t.deepEqual(await decompress(payload, { size: shared.length }), Buffer.from(shared), spec)
  }
})
