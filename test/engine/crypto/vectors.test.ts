/** Keys, envelopes, blobs, tags and nonces against what Borg made. */
import test from 'ava'
import { hkdfSync } from 'node:crypto'
import { openKeyBlob, keyBlobOf, keyText, sealKeyBlob } from '../../../src/engine/crypto/key-blob.js'
import type { EncryptionMode, Key } from '../../../src/engine/crypto/key.js'
import { keyTypeOfMode } from '../../../src/engine/crypto/key-types.js'
import { keyFromMaterial, keyFromSecrets, plaintextKey } from '../../../src/engine/crypto/keys.js'
import { formatNonce, NonceSource, type NonceStore, parseNonce } from '../../../src/engine/crypto/nonces.js'
import { packWithTam, unpackWithTam } from '../../../src/engine/crypto/tam.js'
import { decompress } from '../../../src/engine/codec/decompress.js'
import { unpackMap } from '../../../src/engine/msgpack.js'
import { manifestId } from '../../../src/engine/ids.js'
import { fixtureJson } from '../../helpers/fixtures.js'
import { generate } from '../../helpers/generators.js'

const hex = (text: string | null): Buffer => Buffer.from(text ?? '', 'hex')

interface Keys { enc_key: string; enc_hmac_key: string; id_key: string; chunk_seed?: number; tam_required?: boolean }

function keyOf(mode: EncryptionMode, keys: Keys): Key {
  if (mode === 'none') return plaintextKey()
  return keyFromSecrets(keyTypeOfMode(mode), {
    encKey: hex(keys.enc_key), encHmacKey: hex(keys.enc_hmac_key), idKey: hex(keys.id_key), chunkSeed: keys.chunk_seed ?? 0, repositoryId: Buffer.alloc(32), tamRequired: keys.tam_required ?? true,
  }, false)
}

test('ids are those of Borg, with the key and with its copy for another thread', t => {
  const { vectors } = fixtureJson<{ vectors: { modes: string; id_key: string | null; ids: Record<string, string> }[] }>('vectors', 'crypto-idhash.json')
  const inputs: Record<string, Buffer> = { empty: Buffer.alloc(0), abc: Buffer.from('abc'), 'zeros-1000': Buffer.alloc(1000), 'lcg-5-3000': generate('lcg', 5, 3000) }
  for (const { modes, id_key, ids } of vectors) {
    for (const mode of modes.split(/,\s*/) as EncryptionMode[]) {
      const key = keyOf(mode, { enc_key: '00'.repeat(32), enc_hmac_key: '00'.repeat(id_key ? id_key.length / 2 : 32), id_key: id_key ?? '' })
      for (const [name, id] of Object.entries(ids)) {
        t.is(key.idHash(inputs[name]!).toString('hex'), id)
        const shared = Buffer.from(new SharedArrayBuffer(inputs[name]!.length))
        shared.set(inputs[name]!)
        t.is(keyFromMaterial(key.material()).idHash(shared).toString('hex'), id)
      }
    }
  }
  t.true(vectors.length >= 3)
})

test('envelopes are made and opened as Borg does', t => {
  const { enc_key, enc_hmac_key, vectors } = fixtureJson<{ enc_key: string; enc_hmac_key: Record<string, string>; vectors: { encryption: EncryptionMode; nonce: string; payload_hex: string; object_hex: string; next_nonce: string }[] }>('vectors', 'crypto-envelopes.json')
  for (const { encryption, nonce, payload_hex, object_hex, next_nonce } of vectors) {
    const blake2 = encryption.endsWith('blake2')
    const hmacKey = enc_hmac_key[blake2 ? 'blake2 modes' : 'hmac modes']!
    const key = keyOf(encryption, { enc_key, enc_hmac_key: hmacKey, id_key: hmacKey })
    const start = BigInt(nonce)
    const payload = hex(payload_hex)
    t.is(key.seal(payload, start).toString('hex'), object_hex)
    t.is(key.open(hex(object_hex), manifestId).toString('hex'), payload_hex)
    if (key.encrypted) {
      t.is(key.nonceOf(hex(object_hex)), start)
      t.is(start + BigInt(Math.ceil(payload.length / 16)), BigInt(next_nonce))
    }
  }
  t.true(vectors.length >= 60)
})

test('a turned bit anywhere in an envelope is refused', t => {
  for (const mode of ['repokey', 'keyfile-blake2'] as const) {
    const size = mode.endsWith('blake2') ? 128 : 32
    const key = keyOf(mode, { enc_key: '01'.repeat(32), enc_hmac_key: '02'.repeat(size), id_key: '03'.repeat(size) })
    const object = key.seal(Buffer.from('some payload of a chunk'), 77n)
    for (let at = 0; at < object.length; at++) {
      const damaged = Buffer.from(object)
      damaged[at]! ^= 1
      t.throws(() => key.open(damaged, manifestId), { name: 'IntegrityError' }, `${mode}, byte ${at}`)
    }
  }
})

for (const mode of ['none', 'repokey', 'keyfile', 'repokey-blake2', 'keyfile-blake2', 'authenticated', 'authenticated-blake2'] as const) {
  test(`objects of a ${mode} repository open to their plaintexts`, async t => {
    const { keys, objects, type_byte } = fixtureJson<{ keys: Keys; type_byte: number; objects: { role: string; id: string; object_hex: string; payload_hex: string; plaintext_hex: string }[] }>('vectors', `crypto-objects-${mode}.json`)
    const key = keyOf(mode, keys)
    t.is(key.type, type_byte)
    for (const { role, id, object_hex, payload_hex, plaintext_hex } of objects) {
      const payload = key.open(hex(object_hex), hex(id))
      t.is(payload.toString('hex'), payload_hex)
      const plain = await decompress(payload)
      t.is(plain.toString('hex'), plaintext_hex)
      if (role !== 'manifest') t.is(key.idHash(plain).toString('hex'), id)
      else t.is(unpackWithTam(plain, key, 'manifest').tam, 'valid')
    }
  })
}

test('key blobs open with their passphrase only, and are written so that they open again', t => {
  const { keys } = fixtureJson<{ keys: { passphrase_utf8_hex: string; blob_hex?: string; key_export_text: string; inner: Record<string, unknown>; repository_id: string }[] }>('vectors', 'crypto-keyblobs.json')
  for (const { passphrase_utf8_hex, blob_hex, key_export_text, repository_id } of keys) {
    if (blob_hex === undefined) continue
    const [blob, passphrase] = [hex(blob_hex), hex(passphrase_utf8_hex)]
    const secrets = openKeyBlob(blob, passphrase)
    t.truthy(secrets)
    t.is(secrets!.repositoryId.toString('hex'), repository_id)
    t.is(openKeyBlob(blob, Buffer.concat([passphrase, Buffer.from('x')])), undefined)
    t.is(`BORG_KEY ${repository_id}\n${keyText(blob)}\n`, key_export_text)
    t.is(keyBlobOf(keyText(blob)).toString('hex'), blob_hex)
    const again = openKeyBlob(sealKeyBlob(secrets!, Buffer.from('new'), 1000), Buffer.from('new'))!
    t.deepEqual([again.encKey, again.encHmacKey, again.idKey, again.chunkSeed, again.tamRequired].map(String), [secrets!.encKey, secrets!.encHmacKey, secrets!.idKey, secrets!.chunkSeed, secrets!.tamRequired].map(String))
  }
})

test('tags of metadata verify, are made alike, and a changed byte is noticed', t => {
  const { hkdf, vectors } = fixtureJson<{ hkdf: { ikm: string; salt: string; info: string; out: string }[]; vectors: ({ modes: string; context: 'manifest' | 'archive'; packed_hex: string; salt: string; tam_key: string } & Keys)[] }>('vectors', 'crypto-tam.json')
  for (const { ikm, salt, info, out } of hkdf) t.is(Buffer.from(hkdfSync('sha512', hex(ikm), hex(salt), hex(info), out.length / 2)).toString('hex'), out)
  for (const vector of vectors) {
    const mode = vector.modes.split(' ')[0] as EncryptionMode
    const key = keyOf(mode, vector)
    t.is(key.tamKey(hex(vector.salt), vector.context).toString('hex'), vector.tam_key)
    const packed = hex(vector.packed_hex)
    t.is(unpackWithTam(packed, key, vector.context).tam, 'valid')
    t.is(packWithTam(unpackMap(packed), key, vector.context, hex(vector.salt)).toString('hex'), vector.packed_hex)
    t.is(unpackWithTam(packed, key, vector.context === 'manifest' ? 'archive' : 'manifest').tam, 'wrong')
  }
})

class MemoryNonces implements NonceStore {
  constructor(public value: bigint | undefined) {}
  freeNonce() {
    return Promise.resolve(this.value)
  }
  reserveNonces(next: bigint, expected: bigint | undefined) {
    if (this.value !== expected) throw new Error('changed')
    this.value = next
    return Promise.resolve()
  }
}

test('nonces only ever grow, reservations are those of Borg', async t => {
  const [repository, local] = [new MemoryNonces(undefined), new MemoryNonces(undefined)]
  const first = new NonceSource(repository, local, 0n)
  t.is(await first.take(28), 0n)
  t.deepEqual([formatNonce(repository.value!), formatNonce(local.value!)], ['000000001000001c', '000000001000001c'])
  t.is(first.take(5), 28n)
  const second = new NonceSource(repository, local, 31n)
  t.is(await second.take(1), 0x1000001cn)
  t.is(formatNonce(repository.value!), '000000002000001d')
  const taken = await Promise.all(Array.from({ length: 50 }, (_, index) => second.take(index === 20 ? 1 << 28 : 3)))
  const sorted = [...taken].sort((a, b) => (a < b ? -1 : 1))
  t.is(new Set(sorted).size, 50)
  t.true(sorted[0]! > 0x1000001cn)
  t.throws(() => parseNonce('12', 'FILE'), { message: /FILE is invalid/ })
  t.is(parseNonce('000000001000001c\n', 'FILE'), 0x1000001cn)
})
