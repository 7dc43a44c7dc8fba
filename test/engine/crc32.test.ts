import test from 'ava'
import { crc32 as plain } from 'node:zlib'
import { crc32 } from '../../src/engine/crc32.js'
import { native } from '../../src/engine/native.js'
import { Random } from '../helpers/random.js'

test('crc32 is zlib\'s for every length, alignment and beginning', t => {
  const bytes = new Random(1).bytes(70_000)
  const fast = native().crc32
  if (!fast) t.log('this processor has no carry-less multiplication: only the plain code is tested')
  for (let length = 0; length < 1200; length++) {
    const [at, before] = [length % 67, length * 2654435761 >>> 0]
    const piece = bytes.subarray(at, at + length)
    t.is(crc32(piece), plain(piece), `${length} bytes`)
    if (fast) t.is(fast(piece, before), plain(piece, before), `${length} bytes after ${before}`)
  }
  for (const length of [4095, 4096, 65_537, 69_999]) t.is(crc32(bytes.subarray(1, length), 0xffffffff), plain(bytes.subarray(1, length), 0xffffffff))
})

test('the check value of CRC-32 is right', t => {
  t.is(crc32(Buffer.from('123456789')), 0xcbf43926)
})
