/** Shared memory that is let go of is given back, though V8 does not count it. */
import test from 'ava'
import { letGoShared } from '../../src/engine/shared-garbage.js'

test('a process that drops shared memory again and again does not grow by it', t => {
  const before = process.memoryUsage.rss()
  for (let round = 0; round < 150; round++) {
    new Uint8Array(new SharedArrayBuffer(8 << 20)).fill(round)
    letGoShared(8 << 20)
  }
  t.true(process.memoryUsage.rss() - before < 400 << 20, `${(process.memoryUsage.rss() - before) >> 20} MiB of 1200`)
})
