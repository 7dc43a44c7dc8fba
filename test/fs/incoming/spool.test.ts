import test, { type ExecutionContext } from 'ava'
import { createSecretKey, randomBytes } from 'node:crypto'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { FileCipher } from '../../../src/engine/crypto/file-cipher.js'
import { files, replaceFiles } from '../../../src/engine/platform/files.js'
import { keepSize, punchHole, seekData, seekHole, Spool, zeroRange } from '../../../src/fs/incoming/spool.js'
import { Sandbox } from '../../helpers/sandbox.js'
import { Random } from '../../helpers/random.js'

const cipher = new FileCipher(createSecretKey(randomBytes(64)))
const id = 5

function contentOf(spool: Spool, size: number): Buffer {
  const content = Buffer.alloc(size, 0xee)
  content.fill(0xdd, spool.read(id, content, 0, size))
  return content
}

test.serial('a sealed file is what was written to it, by any sequence of operations', t => {
  const sandbox = new Sandbox('spool')
  try {
    const spool = new Spool(sandbox.path('staging'), cipher)
    const random = new Random(20261126)
    let model = Buffer.alloc(0)
    const resize = (size: number): void => {
      model = Buffer.concat([model.subarray(0, size), Buffer.alloc(Math.max(0, size - model.length))])
    }
    for (let round = 0; round < 3000; round++) {
      const around = random.below(4) === 0 ? random.below(20_000) : Math.max(0, model.length - 20 + random.below(60))
      const length = random.below(3) === 0 ? 1 + random.below(9000) : 1 + random.below(40)
      const kind = random.below(10)
      const before = model.length
      if (kind < 5) {
        const data = Buffer.alloc(length, 1 + random.below(255))
        spool.write(id, data, around, before)
        resize(Math.max(before, around + length))
        data.copy(model, around)
      } else if (kind < 7) {
        spool.truncate(id, around)
        resize(around)
      } else if (kind === 7) {
        spool.allocate(id, 0, around, length, before)
        resize(Math.max(before, around + length))
      } else {
        const grows = kind === 9 && random.below(2) === 0
        spool.allocate(id, kind === 8 ? punchHole | keepSize : grows ? zeroRange : zeroRange | keepSize, around, length, before)
        if (grows) resize(Math.max(before, around + length))
        if (around < model.length) model.fill(0, around, Math.min(model.length, around + length))
      }
      if (spool.stat(id).size !== model.length || !contentOf(spool, model.length).equals(model)) return t.fail(`round ${round}, kind ${kind}: not what was written`)
      const from = random.below(model.length + 1), to = from + random.below(model.length - from + 1)
      const part = Buffer.alloc(to - from)
      spool.read(id, part, from, model.length)
      if (!part.equals(model.subarray(from, to))) return t.fail(`round ${round}: [${from}, ${to}) is not what was written`)
    }
    const last = contentOf(spool, model.length)
    spool.closeAll()
    t.deepEqual(contentOf(new Spool(sandbox.path('staging'), cipher), spool.stat(id).size), last)
  } finally {
    sandbox.close()
  }
})

test.serial('nothing that was written can be found on disk', t => {
  const sandbox = new Sandbox('spool-secret')
  try {
    const spool = new Spool(sandbox.path('staging'), cipher)
    const secret = Buffer.from('the secret of the house, which nobody else may read')
    spool.write(id, secret, 3, 0)
    spool.write(id, secret, 5000, 3 + secret.length)
    spool.write(id, Buffer.from('short'), 0, 5000 + secret.length)
    const stored = readFileSync(spool.path(id))
    for (let at = 0; at + 4 <= secret.length; at++) t.false(stored.includes(secret.subarray(at, at + 4)))
  } finally {
    sandbox.close()
  }
})

/** Runs `work`, which does not come further than so many calls that change a file. */
function killedAfter(t: ExecutionContext, calls: number, work: () => void): void {
  let left = calls
  const dying = <T>(call: () => T): T => {
    if (left-- <= 0) throw new Error('killed')
    return call()
  }
  const real = replaceFiles({ ...files, writeAll: (...args) => dying(() => real.writeAll(...args)), truncateOpen: (...args) => dying(() => real.truncateOpen(...args)) })
  try {
    work()
  } catch (error) {
    t.is((error as Error).message, 'killed')
  } finally {
    replaceFiles(real)
  }
}

test.serial('killed between any two calls, a growing file is a beginning of what it was to be, and what it had is kept', t => {
  const sandbox = new Sandbox('spool-killed')
  try {
    for (const [start, grow] of [[1, 4], [13, 3], [16, 16], [100, 50], [4090, 3], [4093, 20_000], [40, 8192]] as const) {
      for (let calls = 0; calls < 4; calls++) {
        const folder = sandbox.path(`staging-${start}-${grow}-${calls}`)
        const spool = new Spool(folder, cipher)
        const first = Buffer.alloc(start, 1), second = Buffer.alloc(grow, 2)
        spool.write(id, first, 0, 0)
        killedAfter(t, calls, () => spool.write(id, second, start, start))
        const again = new Spool(folder, cipher)
        const { size } = again.stat(id)
        t.true(size >= start && size <= start + grow)
        t.true(contentOf(again, size).equals(Buffer.concat([first, second]).subarray(0, size)))
        // What a write that was cut off left behind the end is not seen when the file grows over it.
        again.truncate(id, size + 40)
        t.deepEqual(contentOf(again, size + 40).subarray(size), Buffer.alloc(40))
        spool.closeAll()
        again.closeAll()
      }
    }
  } finally {
    sandbox.close()
  }
})

test.serial('killed between any two calls, a file that is cut off has the size that it had or is to have', t => {
  const sandbox = new Sandbox('spool-cut')
  try {
    for (const [before, after] of [[13, 4], [13, 0], [16, 3], [100, 20], [100, 96], [33, 32], [5000, 17], [4096, 4095], [20, 17]] as const) {
      for (let calls = 0; calls < 4; calls++) {
        const folder = sandbox.path(`staging-${before}-${after}-${calls}`)
        const spool = new Spool(folder, cipher)
        const content = Buffer.alloc(before, 1)
        spool.write(id, content, 0, 0)
        killedAfter(t, calls, () => spool.truncate(id, after))
        const again = new Spool(folder, cipher)
        const { size } = again.stat(id)
        t.true(size === before || size === after, `${before} to ${after}: ${size}`)
        if (calls === 3) t.is(size, after)
        // What goes may be zeros already.
        t.deepEqual(contentOf(again, size).subarray(0, after), content.subarray(0, after))
        t.true(contentOf(again, size).subarray(after).every(byte => byte <= 1))
        again.truncate(id, before + 50)
        t.deepEqual(contentOf(again, before + 50).subarray(size), Buffer.alloc(before + 50 - size))
        spool.closeAll()
        again.closeAll()
      }
    }
  } finally {
    sandbox.close()
  }
})

test.serial('holes are seen and cost nothing', t => {
  const sandbox = new Sandbox('spool-holes')
  try {
    const spool = new Spool(sandbox.path('staging'), cipher)
    const size = (8 << 20) + 5
    spool.truncate(id, size)
    spool.write(id, Buffer.alloc(4096, 1), 1 << 20, size)
    t.true(spool.stat(id).blocks * 512 < 1 << 20)
    t.is(spool.seek(id, 0, seekData, size), 1 << 20)
    t.is(spool.seek(id, 1 << 20, seekHole, size), (1 << 20) + 4096)
    t.is(spool.seek(id, 2 << 20, seekHole, size), 2 << 20)
    t.true(contentOf(spool, size).subarray((1 << 20) + 4096).equals(Buffer.alloc(size - (1 << 20) - 4096)))
    spool.closeAll()
  } finally {
    sandbox.close()
  }
})

test.serial('what an older version left plain is read and written as it is, until it goes', t => {
  const sandbox = new Sandbox('spool-old')
  try {
    new Spool(sandbox.path('staging'))
    writeFileSync(sandbox.path('staging/spool/5'), 'old content')
    const spool = new Spool(sandbox.path('staging'), cipher)
    t.false(spool.isSealed(5))
    t.deepEqual(spool.stat(5).size, 11)
    spool.write(5, Buffer.from('OLD'), 0, 11)
    t.is(readFileSync(sandbox.path('staging/spool/5'), 'latin1'), 'OLD content')
    spool.remove(5)
    spool.write(5, Buffer.from('new'), 0, 0)
    t.deepEqual(readdirSync(sandbox.path('staging/spool')), ['5.x'])
    t.deepEqual(spool.stat(5).size, 3)
    spool.removeOrphans(known => known !== 5)
    t.deepEqual(readdirSync(sandbox.path('staging/spool')), [])
    spool.closeAll()
  } finally {
    sandbox.close()
  }
})
