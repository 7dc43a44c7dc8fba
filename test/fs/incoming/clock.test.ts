/** Drives stay for months: the machine sleeps in between, and its clock is set. */
import test from 'ava'
import { nowNs } from '../../../src/fs/incoming/clock.js'

test('the time of changes is the host\'s, whatever becomes of its clock, and never the same twice', t => {
  const { now } = Date
  try {
    const off = (): number => Number(nowNs() / 1_000_000n) - Date.now()
    for (const hours of [0, 8, 0.001, -5, 100, 0]) {
      Date.now = () => now() + hours * 3_600_000
      t.true(Math.abs(off()) < 1000, `${hours} hours`)
    }
    const times = Array.from({ length: 1000 }, nowNs)
    t.is(new Set(times).size, 1000)
    t.deepEqual(times, [...times].sort((a, b) => (a < b ? -1 : 1)))
  } finally {
    Date.now = now
  }
})
