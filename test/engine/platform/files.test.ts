import test from 'ava'
import { openSync, readFileSync, closeSync } from 'node:fs'
import { files } from '../../../src/engine/platform/files.js'
import { Sandbox } from '../../helpers/sandbox.js'

test('what has no certain place in a file is written nowhere', async t => {
  const sandbox = new Sandbox('places')
  try {
    const path = sandbox.path('file'), fd = openSync(path, 'w+')
    files.writeAll(fd, Buffer.from('begins'), 0)
    for (const place of [2 ** 53 - 2, 2 ** 53, 2 ** 60, NaN, Infinity, 0.5]) {
      t.throws(() => files.writeAll(fd, Buffer.from('wild'), place), { instanceOf: RangeError })
      await t.throwsAsync(files.writeAllLater(fd, Buffer.from('wild'), place), { instanceOf: RangeError })
    }
    await files.writeAllLater(fd, Buffer.from(' and goes on'), 6)
    closeSync(fd)
    t.is(readFileSync(path, 'utf8'), 'begins and goes on')
  } finally {
    sandbox.close()
  }
})
