import test from 'ava'
import { statSync, utimesSync, writeFileSync } from 'node:fs'
import { native, statField } from '../../src/engine/native.js'
import { clampTime } from '../../src/engine/operations/file-item.js'
import { Sandbox } from '../helpers/sandbox.js'

test('a time that 64 bits of nanoseconds do not tell is the nearest that they do', t => {
  const sandbox = new Sandbox('far-times')
  try {
    const file = sandbox.path('file'), most = 2n ** 63n - 1n
    writeFileSync(file, '')
    // 2262-04-11T23:47:16 with a fraction that is too much, and one that is not; 2300; 1901.
    for (const seconds of [9223372036.95, 9223372036.5, 10413792000, -2177452800, 0]) {
      utimesSync(file, seconds, seconds)
      const known = statSync(file, { bigint: true }).mtimeNs
      const row = native().readAttributes(Buffer.from(file), 0).stat
      t.is(row[statField.mtimeNs], known > most ? most : known, `${seconds}`)
      // What Borg stores: nothing before 1970 or after 2038.
      t.is(clampTime(row[statField.mtimeNs]!), known < 0n ? 0n : known > 2147310847000000000n ? 2147310847000000000n : known)
    }
  } finally {
    sandbox.close()
  }
})
