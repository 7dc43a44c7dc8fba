/** Compression against what Borg made: every stored chunk decodes, every option text is read alike. */
import test from 'ava'
import { createHash } from 'node:crypto'
import { decompress } from '../../../src/engine/codec/decompress.js'
import { completePayload } from '../../../src/engine/codec/none.js'
import { paddingFor } from '../../../src/engine/codec/obfuscate.js'
import { parseCompression } from '../../../src/engine/codec/spec.js'
import { fixtureJson } from '../../helpers/fixtures.js'
import { generate } from '../../helpers/generators.js'

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

test('chunks that Borg compressed decode to what they were', async t => {
  const { vectors } = fixtureJson<{ vectors: { plain_sha256: string; length: number; stored_hex?: string }[] }>('vectors', 'compression-chunks.json')
  let decoded = 0
  for (const { stored_hex, plain_sha256, length } of vectors) {
    if (stored_hex === undefined) continue
    t.is(sha256(await decompress(Buffer.from(stored_hex, 'hex'))), plain_sha256)
    t.is((await decompress(Buffer.from(stored_hex, 'hex'), { size: length })).length, length)
    if (length > 0) await t.throwsAsync(async () => decompress(Buffer.from(stored_hex, 'hex'), { size: length + 1 }))
    decoded++
  }
  t.true(decoded > 30)
})

test('unusual and damaged payloads are accepted or refused as by Borg', async t => {
  const { decoder_acceptance } = fixtureJson<{ decoder_acceptance: { what: string; stored_hex: string; ok: boolean; plain_sha256?: string }[] }>('vectors', 'compression-chunks.json')
  for (const { what, stored_hex, ok, plain_sha256 } of decoder_acceptance) {
    const decode = async () => decompress(Buffer.from(stored_hex, 'hex'))
    if (ok) t.is(sha256(await decode()), plain_sha256!, what)
    else await t.throwsAsync(decode, { name: 'DecompressionError' }, what)
  }
})

test('option texts are accepted, refused and understood as by Borg', t => {
  const { strings } = fixtureJson<{ strings: { string: string; ok: boolean; name?: string }[] }>('vectors', 'compression-specs.json')
  for (const { string, ok, name } of strings) {
    // Borg takes 250 from 1.4.4 on.
    if (ok || string.startsWith('obfuscate,250,')) t.is(parseCompression(string).name, name ?? 'obfuscate', string)
    else t.throws(() => parseCompression(string), undefined, string)
  }
})

test('obfuscation pads as Borg does', t => {
  const { obfuscate_padding, padme_spec_250_by_1_4_5 } = fixtureJson<{ obfuscate_padding: { level: number; random: number; inner_stored_length: number; padding: number }[]; padme_spec_250_by_1_4_5: { inner_stored_length: number; padding: number }[] }>('vectors', 'compression-specs.json')
  for (const { level, random, inner_stored_length, padding } of obfuscate_padding) t.is(paddingFor(level, inner_stored_length, random), padding, `${level} ${random} ${inner_stored_length}`)
  for (const { inner_stored_length, padding } of padme_spec_250_by_1_4_5) t.is(paddingFor(250, inner_stored_length, 0), padding, `padme ${inner_stored_length}`)
})

for (const spec of ['none', 'lz4', 'zstd,1', 'zstd,19', 'zlib,0', 'zlib,9', 'lzma,0', 'lzma,6', 'auto,zstd,3', 'auto,lzma,1', 'obfuscate,1,lz4', 'obfuscate,110,auto,zlib,6', 'obfuscate,250,none']) {
  test(`${spec} gives back what it took, within the length it announced`, async t => {
    const codec = parseCompression(spec)
    for (const data of [Buffer.alloc(0), Buffer.from('x'), Buffer.alloc(100_000), generate('lcg4', 3, 50_000), generate('ctr', 3, 70_000), generate('period1000', 4, 300_000)]) {
      const payload = completePayload(await codec.compress(data), data)
      t.true(payload.length <= codec.maxPayload(data.length), `${payload.length} of ${codec.maxPayload(data.length)}`)
      t.true((await decompress(payload)).equals(data))
      t.is(parseCompression(codec.spec).spec, codec.spec)
    }
  })
}

for (const spec of ['lz4', 'zstd,3', 'zlib,6', 'lzma,6']) {
  test(`a bomb in ${spec} is refused before it fills the memory`, async t => {
    const data = Buffer.alloc(4 << 20)
    const payload = completePayload(await parseCompression(spec).compress(data), data)
    t.true(payload.length < 100_000)
    await t.throwsAsync(async () => decompress(payload, { maxSize: 1 << 20 }), { name: 'DecompressionError' })
    await t.throwsAsync(async () => decompress(payload, { size: 1000 }), { name: 'DecompressionError' })
  })
}
