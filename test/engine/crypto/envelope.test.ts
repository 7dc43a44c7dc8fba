/** The addon's sealing and hashing against node:crypto, byte by byte. */
import test from 'ava'
import { createHmac, randomBytes, randomInt } from 'node:crypto'
import { blake2b256, blake2b256BySodium } from '../../../src/engine/crypto/blake2b.js'
import { keyTypeOfMode } from '../../../src/engine/crypto/key-types.js'
import type { Key } from '../../../src/engine/crypto/key.js'
import { keyFromMaterial, keyFromSecrets, plaintextKey, usePlainCrypto } from '../../../src/engine/crypto/keys.js'
import { IntegrityError } from '../../../src/engine/errors.js'
import { hashByOpenssl, hashFastest, hashInLanes, hashSideBySide, native } from '../../../src/engine/native.js'
import { ManyHashing } from '../../../src/engine/crypto/hashing.js'

function twins(mode: 'repokey' | 'keyfile' | 'authenticated' | 'repokey-blake2' | 'authenticated-blake2'): { fast: Key; plain: Key } {
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
  t.truthy(native().makeEnvelope(randomBytes(32), randomBytes(32), randomBytes(32), hashFastest))
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

test('objects in shared memory are the same, of every kind of key', t => {
  for (const key of [plaintextKey(), ...(['authenticated', 'repokey-blake2'] as const).map(mode => twins(mode).fast), twins('repokey').plain]) {
    for (const size of [0, 255, 256, 257, 100_000]) {
      const payload = Buffer.from(new SharedArrayBuffer(size)), target = Buffer.from(new SharedArrayBuffer(size + 100)).fill(7)
      randomBytes(size).copy(payload)
      const head = Buffer.from([1, 2])
      const length = key.sealInto(payload, 3n, target, 5, head)
      t.deepEqual(Buffer.from(target.subarray(5, 5 + length)), key.seal(Buffer.concat([head, payload]), 3n))
      t.true(target.subarray(5 + length).every(byte => byte === 7))
    }
  }
})

test('any flipped bit is an integrity error, and nothing of it is decrypted', t => {
  const { fast } = twins('keyfile')
  const payload = randomBytes(50_000)
  const object = fast.seal(payload, 1n)
  for (const at of [1, 20, 33, 40, 41, 42, 20_000, object.length - 1]) {
    const damaged = Buffer.from(object)
    damaged[at]! ^= 1 << (at % 8)
    const into = Buffer.alloc(60_000, 9)
    t.throws(() => fast.open(damaged, fast.idHash(payload), into), { instanceOf: IntegrityError })
    t.true(into.subarray(0, payload.length).every(byte => byte === 9))
  }
})

test('an object that does not fit its target is refused before anything is written', t => {
  const envelope = native().makeEnvelope(randomBytes(32), randomBytes(32), randomBytes(32), hashFastest)!
  t.throws(() => native().envelopeSeal(envelope, 3, 1n, Buffer.alloc(0), Buffer.alloc(100), Buffer.alloc(140), 0), { instanceOf: RangeError })
  t.throws(() => native().envelopeSeal(envelope, 3, 1n, Buffer.alloc(0), Buffer.alloc(100), Buffer.alloc(200), 100), { instanceOf: RangeError })
  t.throws(() => native().envelopeOpen(envelope, Buffer.alloc(100), Buffer.alloc(58)), { instanceOf: RangeError })
  t.throws(() => native().envelopeOpen(envelope, Buffer.alloc(40), Buffer.alloc(58)), { instanceOf: RangeError })
  t.throws(() => native().makeEnvelope(randomBytes(32), randomBytes(32), randomBytes(32), 4), { instanceOf: RangeError })
  t.throws(() => native().makeEnvelope(randomBytes(31), randomBytes(32), randomBytes(32), hashFastest), { instanceOf: RangeError })
})

test('the hashes of SHA-256 are those of node:crypto for any length, with the processor\'s instructions and without', t => {
  const [idKey, into] = [randomBytes(32), Buffer.alloc(32)]
  const envelopes = [hashSideBySide, hashByOpenssl].map(hashing => native().makeEnvelope(Buffer.alloc(0), randomBytes(32), idKey, hashing)!)
  const lengths = [...Array.from({ length: 260 }, (_, length) => length), ...Array.from({ length: 40 }, () => randomInt(200_000))]
  for (const length of lengths) {
    const data = randomBytes(length)
    const expected = createHmac('sha256', idKey).update(data).digest()
    for (const envelope of envelopes) {
      native().envelopeIdHash(envelope, data, into)
      t.true(into.equals(expected), `${length} bytes`)
    }
  }
})

test('BLAKE2b is that of libsodium for any length', t => {
  for (const length of [...Array.from({ length: 400 }, (_, length) => length), ...Array.from({ length: 20 }, () => randomInt(200_000))]) {
    const [key, data] = [randomBytes([0, 1, 32, 127, 128, 129][length % 6]!), randomBytes(length)]
    t.true(blake2b256(key, data).equals(blake2b256BySodium(key, data)), `${key.length} and ${length} bytes`)
  }
})

/** The hash of each message. */
function hashesOf(key: { hashing: Key['hashing'] }, wanted: readonly { kind: 'mac' | 'id'; data: Buffer }[], atOnce: number): Buffer[] {
  const hashing = key.hashing<number>()
  const hashes = new Array<Buffer>(wanted.length)
  let underWay = 0
  const take = (): void => {
    const ready = hashing.next()!
    hashes[ready.tag] = Buffer.from(ready.hash)
    underWay--
  }
  for (const [index, { kind, data }] of wanted.entries()) {
    hashing[kind](data, index)
    if (++underWay === atOnce) take()
  }
  while (underWay > 0) take()
  if (hashing.next()) throw new Error('more hashes than messages')
  return hashes
}

test('MACs and ids of many messages side by side are those of each alone, for every kind of key', t => {
  const wanted = Array.from({ length: 60 }, (_, index) => ({
    kind: randomInt(2) ? 'mac' as const : 'id' as const,
    data: randomBytes(41 + randomInt(index % 7 === 0 ? 100_000 : 500)),
  }))
  for (const mode of ['repokey', 'authenticated', 'repokey-blake2', 'authenticated-blake2'] as const) {
    const { fast, plain } = twins(mode)
    const expected = hashesOf(plain, wanted, 1)
    for (const [index, { kind, data }] of wanted.entries()) if (kind === 'id') t.deepEqual(expected[index]!, fast.idHash(data))
    for (const atOnce of [1, 2, 3, 4, 5, 16, 60]) t.deepEqual(hashesOf(fast, wanted, atOnce), expected, `${mode}, ${atOnce} at once`)
  }
  t.true(hashesOf(plaintextKey(), wanted, 2)[wanted.findIndex(({ kind }) => kind === 'id')]!.length === 32)
})

test('any number of messages of any length, wherever they lie, has the hashes of node:crypto, in each way of hashing', t => {
  const [hmacKey, idKey] = [randomBytes(32), randomBytes(32)]
  const memory = randomBytes(300_000)
  const messageOf = (kind: 'mac' | 'id', length: number) => {
    const at = randomInt(memory.length - length)
    return { kind, data: memory.subarray(at, at + length) }
  }
  const sets = Array.from({ length: 40 }, (_, count) => Array.from({ length: count + 1 }, (_, index) => (randomInt(2) ? messageOf('mac', 41 + randomInt(index % 5 ? 700 : 60_000)) : messageOf('id', randomInt(index % 5 ? 700 : 60_000)))))
  sets.push(Array.from({ length: 301 }, (_, length) => messageOf('id', length)))
  for (const hashing of [hashByOpenssl, hashSideBySide, hashFastest, hashInLanes]) {
    const envelope = native().makeEnvelope(randomBytes(32), hmacKey, idKey, hashing)!
    const key = { hashing: <T>() => new ManyHashing<T>(envelope, true) }
    for (const wanted of sets) {
      const expected = wanted.map(({ kind, data }) => createHmac('sha256', kind === 'mac' ? hmacKey : idKey).update(kind === 'mac' ? data.subarray(33) : data).digest())
      for (const atOnce of [wanted.length, 1 + randomInt(wanted.length)]) t.deepEqual(hashesOf(key, wanted, atOnce), expected, `${wanted.length} messages, ${atOnce} at once, way ${hashing}`)
    }
  }
})

test('what cannot be hashed is refused, and the next round is none the worse', t => {
  const envelope = native().makeEnvelope(randomBytes(32), randomBytes(32), randomBytes(32), hashFastest)!
  const into = Buffer.alloc(32 * 32), data = [Buffer.alloc(100), Buffer.alloc(100)]
  const run = (slots: number[], kinds: number[], bytes: unknown[], count = slots.length) => native().envelopeRun(envelope, Uint8Array.from(slots), Uint8Array.from(kinds), bytes as Buffer[], into, count)
  for (const wrong of [() => run([0, 0], [0, 0], data), () => run([32], [0], data), () => run([0], [2], data), () => run([0], [1], [Buffer.alloc(40)]), () => run([0, 1], [0, 0], [data[0], 'x']), () => run([0], [0], data, 0), () => run([0], [0], data, 2), () => run([0], [0], data, 33)]) {
    t.throws(wrong, { instanceOf: RangeError })
  }
  t.is(run([5, 3], [0, 1], data), 3)
})

test('an object sealed in two steps is the one sealed in one, and opens in two steps only with its own MAC', t => {
  for (const mode of ['repokey', 'authenticated', 'repokey-blake2'] as const) {
    const { fast, plain } = twins(mode)
    for (const key of [fast, plain]) {
      const payload = randomBytes(70_000)
      const whole = plain.seal(payload, 9n)
      const object = Buffer.alloc(whole.length)
      t.is(key.encryptInto(payload, 9n, object, 0), whole.length)
      const mac = hashesOf(key, [{ kind: 'mac', data: object }], 1)[0]!
      key.setMac(object, mac)
      t.true(object.equals(whole))
      const id = key.idHash(payload)
      key.checkEnvelope(object, id)
      t.true(key.openWithMac(object, mac, id).equals(payload))
      if (!key.encrypted) continue
      const into = Buffer.alloc(80_000, 9)
      t.throws(() => key.openWithMac(object, randomBytes(32), id, into), { instanceOf: IntegrityError })
      t.true(into.every(byte => byte === 9))
      t.throws(() => key.checkEnvelope(object.subarray(0, 40), id), { instanceOf: IntegrityError })
    }
    t.throws(() => fast.checkEnvelope(Buffer.alloc(50, 99), fast.idHash(Buffer.alloc(1))), { instanceOf: IntegrityError })
  }
})

test('two rounds of hashes with one key do not disturb each other', t => {
  const { fast } = twins('repokey')
  const [long, short] = [randomBytes(100_000), randomBytes(100)]
  const left = fast.hashing<string>()
  left.id(long, 'long')
  left.id(short, 'short')
  t.is(left.next()!.tag, 'short')
  const [first, second] = [randomBytes(5000), randomBytes(6000)]
  const hashes = hashesOf(fast, [{ kind: 'id', data: first }, { kind: 'id', data: second }], 2)
  t.deepEqual(hashes, [fast.idHash(first), fast.idHash(second)] as Buffer[])
  const rest = left.next()!
  t.is(rest.tag, 'long')
  t.true(rest.hash.equals(fast.idHash(long)))
})
