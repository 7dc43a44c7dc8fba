/** The addon's one-pass sealing against node:crypto, byte by byte. */
import test from 'ava'
import { randomBytes } from 'node:crypto'
import { keyTypeOfMode } from '../../../src/engine/crypto/key-types.js'
import type { Key } from '../../../src/engine/crypto/key.js'
import { keyFromMaterial, keyFromSecrets, usePlainCrypto } from '../../../src/engine/crypto/keys.js'
import { IntegrityError } from '../../../src/engine/errors.js'
import { native } from '../../../src/engine/native.js'

function twins(mode: 'repokey' | 'keyfile' | 'authenticated'): { fast: Key; plain: Key } {
  const fast = keyFromSecrets(keyTypeOfMode(mode), {
    encKey: randomBytes(32), encHmacKey: randomBytes(32), idKey: randomBytes(32), chunkSeed: 1, repositoryId: Buffer.alloc(32), tamRequired: true,
  }, false)
  usePlainCrypto(true)
  try {
    return { fast, plain: keyFromMaterial(fast.material()) }
  } finally {
    usePlainCrypto(false)
  }
}

const sizes = [0, 1, 2, 15, 16, 17, 63, 64, 65, 16383, 16384, 16385, 100_000, 1_048_577]

test('this Node has the functions that the one-pass code wants', t => {
  t.truthy(native().makeEnvelope(randomBytes(32), randomBytes(32), randomBytes(32)))
})

test('ids are the same', t => {
  for (const mode of ['repokey', 'authenticated'] as const) {
    const { fast, plain } = twins(mode)
    for (const size of sizes) {
      const data = randomBytes(size)
      t.deepEqual(fast.idHash(data), plain.idHash(data))
    }
  }
})

test('objects are the same, with a head and at any offset, and each opens what the other sealed', t => {
  const { fast, plain } = twins('repokey')
  const into = Buffer.alloc(2 << 20)
  for (const [index, size] of sizes.entries()) {
    const payload = randomBytes(size)
    const head = index % 2 ? Buffer.alloc(2) : Buffer.alloc(0)
    const nonce = index === 3 ? 0xfffffffffffffff0n : BigInt(index) << 32n
    const [a, b] = [Buffer.alloc(size + 200, 7), Buffer.alloc(size + 200, 7)]
    t.is(fast.sealInto(payload, nonce, a, 5 + index, head), plain.sealInto(payload, nonce, b, 5 + index, head))
    t.true(a.equals(b))
    const object = a.subarray(5 + index, 5 + index + 41 + head.length + size)
    const id = fast.idHash(payload)
    const whole = Buffer.concat([head, payload])
    t.true(fast.open(object, id).equals(whole))
    t.true(fast.open(object, id, into).equals(whole))
    t.true(plain.open(object, id).equals(whole))
  }
})

test('any flipped bit is an integrity error, and no byte of the payload is left behind', t => {
  const { fast } = twins('keyfile')
  const payload = randomBytes(50_000)
  const object = fast.seal(payload, 1n)
  for (const at of [1, 20, 33, 40, 41, 42, 20_000, object.length - 1]) {
    const damaged = Buffer.from(object)
    damaged[at]! ^= 1 << (at % 8)
    const into = Buffer.alloc(60_000, 9)
    t.throws(() => fast.open(damaged, fast.idHash(payload), into), { instanceOf: IntegrityError })
    t.true(into.subarray(0, payload.length).every(byte => byte === 0))
  }
})

test('an object that does not fit its target is refused before anything is written', t => {
  const envelope = native().makeEnvelope(randomBytes(32), randomBytes(32), randomBytes(32))!
  t.throws(() => native().envelopeSeal(envelope, 3, 1n, Buffer.alloc(0), Buffer.alloc(100), Buffer.alloc(140), 0), { instanceOf: RangeError })
  t.throws(() => native().envelopeSeal(envelope, 3, 1n, Buffer.alloc(0), Buffer.alloc(100), Buffer.alloc(200), 100), { instanceOf: RangeError })
  t.throws(() => native().envelopeOpen(envelope, Buffer.alloc(100), Buffer.alloc(58)), { instanceOf: RangeError })
  t.throws(() => native().envelopeOpen(envelope, Buffer.alloc(40), Buffer.alloc(58)), { instanceOf: RangeError })
  t.throws(() => native().makeEnvelope(randomBytes(31), randomBytes(32), randomBytes(32)), { instanceOf: RangeError })
})
