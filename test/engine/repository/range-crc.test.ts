import test from 'ava'
import fc from 'fast-check'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { crc32 } from '../../../src/engine/crc32.js'
import { commitEntry, framePut, magic } from '../../../src/engine/repository/entry.js'
import { RangeCrc } from '../../../src/engine/repository/range-crc.js'
import { salvageable } from '../../../src/engine/repository/salvage.js'

const bytes = Buffer.alloc(3 << 20, 'some content that is not all the same in each of its steps, ')

test('of any range it is what crc32 says', t => {
  const crcs = new RangeCrc(bytes)
  const place = fc.nat(bytes.length)
  fc.assert(fc.property(place, place, (a, b) => {
    const [start, end] = [Math.min(a, b), Math.max(a, b)]
    t.is(crcs.of(start, end), crc32(bytes.subarray(start, end)))
  }), { numRuns: 200, examples: [[0, 0], [0, bytes.length], [4096, 8192], [4095, 4096], [1, 4097]] })
})

test('a segment in which every few bytes seem to begin a long entry costs no more than its length, and what is sound in it is found', t => {
  const folder = mkdtempSync(join(tmpdir(), 'borgfs-salvage-'))
  try {
    // Beside others, of 65 KB each: forty gigabytes to be verified.
    const hostile = Buffer.alloc(3 << 20, Buffer.from([0, 1, 0, 0, 0xe4]))
    const kept = [framePut(Buffer.alloc(32, 1), Buffer.alloc(70_000, 2)), framePut(Buffer.alloc(32, 3), Buffer.from('short')), commitEntry]
    const path = join(folder, '0')
    writeFileSync(path, Buffer.concat([magic, hostile, ...kept]))
    const found = [...salvageable(path)].flatMap(({ count, sizes }) => [...sizes.subarray(0, count)])
    t.deepEqual(found.slice(-3), kept.map(({ length }) => length))
  } finally {
    rmSync(folder, { recursive: true })
  }
})
