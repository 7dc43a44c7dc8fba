import test from 'ava'
import { createCipheriv, createSecretKey } from 'node:crypto'
import { FileCipher, sealedFileLength, sealedFileSize } from '../../../src/engine/crypto/file-cipher.js'

const raw = Buffer.from(Array.from({ length: 64 }, (_, index) => index))
const key = createSecretKey(raw)

test('a unit is AES-256-XTS with file and unit numbers as the tweak', t => {
  const plain = Buffer.from(Array.from({ length: 8192 }, (_, index) => index % 251))
  const sealed = Buffer.alloc(8192)
  new FileCipher(key).seal(7, 4096, plain, sealed)
  const tweak = Buffer.alloc(16)
  tweak.writeUInt8(7, 0)
  for (const unit of [1, 2]) {
    tweak.writeUInt8(unit, 8)
    t.deepEqual(sealed.subarray((unit - 1) * 4096, unit * 4096), createCipheriv('aes-256-xts', raw, tweak).update(plain.subarray((unit - 1) * 4096, unit * 4096)))
  }
})

test('the addon and node:crypto make the same of any blocks at any place, and open what the other sealed', t => {
  const [fast, plainly] = [new FileCipher(key), new FileCipher(key, true)]
  for (const [position, length] of [[0, 16], [16, 16], [4080, 32], [4096 - 16, 8192 + 32], [48, 4096], [123 * 16, 65536]] as const) {
    const plain = Buffer.from(Array.from({ length }, (_, index) => (index * 7 + position) % 256))
    const [a, b, back] = [Buffer.alloc(length), Buffer.alloc(length), Buffer.alloc(length)]
    fast.seal(3, position, plain, a)
    plainly.seal(3, position, plain, b)
    t.deepEqual(a, b)
    plainly.open(3, position, a, back)
    t.deepEqual(back, plain)
    // In place.
    fast.open(3, position, a, a)
    t.deepEqual(a, plain)
  }
})

test('blocks of zeros on disk are holes, zeros that were written are not', t => {
  for (const cipher of [new FileCipher(key), new FileCipher(key, true)]) {
    const sealed = Buffer.alloc(128), back = Buffer.alloc(128, 1)
    cipher.seal(1, 32, Buffer.alloc(32), sealed.subarray(32, 64))
    t.false(sealed.subarray(32, 64).equals(Buffer.alloc(32)))
    cipher.seal(1, 80, Buffer.alloc(16, 9), sealed.subarray(80, 96))
    cipher.open(1, 0, sealed, back)
    t.deepEqual(back, Buffer.concat([Buffer.alloc(80), Buffer.alloc(16, 9), Buffer.alloc(32)]))
  }
})

test('the length on disk tells the size', t => {
  for (let size = 0; size < 100; size++) {
    t.is(sealedFileSize(sealedFileLength(size)), size)
    t.true(sealedFileLength(size) >= Math.ceil(size / 16) * 16)
  }
  t.is(sealedFileSize(7), 0)
})
