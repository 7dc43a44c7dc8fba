import test from 'ava'
import { closeSync, constants, ftruncateSync, openSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type ChunkId, chunkId } from '../../../src/engine/ids.js'
import { files, replaceFiles } from '../../../src/engine/platform/files.js'
import { framePut } from '../../../src/engine/repository/entry.js'
import { Stash } from '../../../src/engine/store/stash.js'
import { Sandbox } from '../../helpers/sandbox.js'

function entriesOf(numbers: readonly number[], bytes = 1000): { entries: Buffer; ids: ChunkId[]; lengths: number[] } {
  const ids = numbers.map(number => chunkId(Buffer.alloc(32, number)))
  const all = numbers.map((number, index) => framePut(ids[index]!, Buffer.alloc(bytes + number, number)))
  return { entries: Buffer.concat(all), ids, lengths: all.map(({ length }) => length) }
}

async function add(stash: Stash, numbers: readonly number[], bytes?: number): Promise<void> {
  const { entries, ids, lengths } = entriesOf(numbers, bytes)
  await stash.append(entries, ids, lengths)
}

const idOf = (number: number): ChunkId => chunkId(Buffer.alloc(32, number))

test.serial('what was stashed is found by id, in runs as it lies on disk, and again after a restart', async t => {
  const sandbox = new Sandbox('stash')
  try {
    let stash = new Stash(sandbox.path('chunks'))
    await add(stash, [3, 1])
    await add(stash, [2])
    for (let round = 0; round < 2; round++) {
      t.is(stash.count, 3)
      for (const number of [1, 2, 3]) {
        t.deepEqual(stash.get(idOf(number)), Buffer.alloc(1000 + number, number))
        t.is(stash.storedSize(idOf(number)), 1000 + number)
      }
      t.is(stash.get(idOf(4)), undefined)
      const runs = [...stash.runs(() => true)].map(({ bytes, ids }) => ({ bytes: Buffer.from(bytes), ids: ids.map(id => id[0]) }))
      t.deepEqual(runs, [{ bytes: entriesOf([3, 1, 2]).entries, ids: [3, 1, 2] }])
      t.deepEqual([...stash.runs(id => id[0] !== 1)].map(({ ids }) => ids.map(id => id[0])), [[3], [2]])
      stash.close()
      stash = new Stash(sandbox.path('chunks'))
    }
    // A restarted one writes to files of its own.
    await add(stash, [9])
    t.is(readdirSync(sandbox.path('chunks')).length, 2)
    stash.close()
  } finally {
    sandbox.close()
  }
})

test.serial('of a file that was cut off anywhere the whole entries before count, and nothing else', async t => {
  const sandbox = new Sandbox('stash-torn')
  try {
    const made = new Stash(sandbox.path('made'))
    await add(made, [1, 2, 3], 50)
    made.close()
    const whole = readFileSync(sandbox.path('made', '1'))
    const ends = [1, 2, 3].reduce<number[]>((sums, number) => [...sums, (sums.at(-1) ?? 8) + 41 + 50 + number], [])
    sandbox.mkdir('torn')
    for (let length = 0; length <= whole.length; length++) {
      writeFileSync(sandbox.path('torn', '1'), whole.subarray(0, length))
      const stash = new Stash(sandbox.path('torn'))
      const count = ends.filter(end => end <= length).length
      if (stash.count !== count || [1, 2, 3].some(number => stash.has(idOf(number)) !== number <= count)) t.fail(`cut at ${length}`)
      stash.close()
    }
    t.pass()
  } finally {
    sandbox.close()
  }
})

test.serial('a damaged entry is refused when it is wanted', async t => {
  const sandbox = new Sandbox('stash-damage')
  try {
    const stash = new Stash(sandbox.path('chunks'))
    await add(stash, [1, 2])
    const path = join(sandbox.path('chunks'), '1')
    const bytes = readFileSync(path)
    bytes[bytes.length - 1]! ^= 1
    const fd = openSync(path, 'r+')
    files.writeAll(fd, bytes, 0)
    t.throws(() => [...stash.runs(() => true)], { message: /damaged/ })
    t.throws(() => stash.get(idOf(2)), { message: /checksum/ })
    t.deepEqual(stash.get(idOf(1)), Buffer.alloc(1001, 1))
    ftruncateSync(fd, 20)
    closeSync(fd)
    t.throws(() => stash.get(idOf(1)), { message: /shorter/ })
    stash.close()
  } finally {
    sandbox.close()
  }
})

test.serial('files go when nothing in them is wanted, while readers keep what they have open', async t => {
  const sandbox = new Sandbox('stash-keep')
  try {
    const folder = sandbox.path('chunks')
    const earlier = new Stash(folder)
    await add(earlier, [1])
    earlier.close()
    const stash = new Stash(folder)
    await add(stash, [2], 40 << 20)
    await add(stash, [3], 40 << 20)
    t.is(readdirSync(folder).length, 3)
    await stash.reading(() => {
      const place = stash.locate(idOf(2))!
      stash.keep(id => id[0] === 3, true)
      t.false(stash.has(idOf(2)))
      t.true(stash.has(idOf(1)), 'not its own')
      t.true(stash.has(idOf(3)))
      const read = Buffer.alloc(1)
      t.notThrows(() => statSync(`/proc/self/fd/${place.fd}`))
      t.is(read.length, 1)
      return Promise.resolve()
    })
    stash.keep(() => false, false)
    t.is(stash.count, 0)
    t.deepEqual(readdirSync(folder), [])
    t.is(stash.bytes, 0)
    await add(stash, [2])
    t.true(stash.has(idOf(2)))
    stash.close()
  } finally {
    sandbox.close()
  }
})

test.serial('a disk that is full while chunks are stashed loses those, and no other', async t => {
  const sandbox = new Sandbox('stash-full')
  const full = Object.assign(new Error('full'), { code: 'ENOSPC', errno: -28 })
  try {
    const stash = new Stash(sandbox.path('chunks'))
    await add(stash, [1])
    const before = replaceFiles({ ...files, writeAll(fd, bytes, position) {
      before.writeAll(fd, bytes.subarray(0, 100), position)
      throw full
    } })
    try {
      await t.throwsAsync(add(stash, [2]), { is: full })
    } finally {
      replaceFiles(before)
    }
    t.false(stash.has(idOf(2)))
    await add(stash, [2, 3])
    for (const number of [1, 2, 3]) t.deepEqual(stash.get(idOf(number)), Buffer.alloc(1000 + number, number))
    stash.close()
    const again = new Stash(sandbox.path('chunks'))
    for (const number of [1, 2, 3]) t.deepEqual(again.get(idOf(number)), Buffer.alloc(1000 + number, number))
    again.close()
  } finally {
    sandbox.close()
  }
})

test.serial('what is long goes to the disk directly, wherever it begins and ends, and lies there as if it had not', async t => {
  const sandbox = new Sandbox('stash-long')
  try {
    const stash = new Stash(sandbox.path('chunks'))
    const all: Buffer[] = []
    // Around blocks of the disk and around what is written at a time.
    const sizes = [300_000, 10, (1 << 20) - 8, 4096 - 41, 3 << 20, 262_144, 4096 * 700 + 1, (2 << 20) - 41, 1]
    for (const [index, bytes] of sizes.entries()) {
      const { entries, ids, lengths } = entriesOf([index + 1], bytes)
      all.push(entries)
      // As byte workers give it.
      const shared = Buffer.from(new SharedArrayBuffer(entries.length))
      shared.set(entries)
      await stash.append(shared, ids, lengths)
      t.true(readFileSync(join(sandbox.path('chunks'), '1')).subarray(8).equals(Buffer.concat(all)), `after ${index + 1}`)
    }
    await stash.sync()
    stash.close()
    const again = new Stash(sandbox.path('chunks'))
    for (const [index, bytes] of sizes.entries()) t.true(again.get(idOf(index + 1))!.equals(Buffer.alloc(bytes + index + 1, index + 1)))
    again.close()
  } finally {
    sandbox.close()
  }
})

test.serial('where the disk cannot be written to directly, files are as they are elsewhere', async t => {
  const sandbox = new Sandbox('stash-indirect')
  const refused = Object.assign(new Error('not so'), { code: 'EINVAL', errno: -22 })
  const real = files
  try {
    for (const [name, refusing] of [
      ['open', { open: (path: string, flags: string | number, mode?: number): number => {
        if (typeof flags === 'number' && flags & constants.O_DIRECT) throw refused
        return real.open(path, flags, mode)
      } }],
      ['write', { writeAllLater: () => Promise.reject(refused) }],
    ] as const) {
      const before = replaceFiles({ ...real, ...refusing })
      try {
        const stash = new Stash(sandbox.path(name))
        await add(stash, [1, 2], 500_000)
        await add(stash, [3], 500_000)
        const { entries } = entriesOf([1, 2, 3], 500_000)
        t.true(readFileSync(join(sandbox.path(name), '1')).subarray(8).equals(entries), name)
        stash.close()
      } finally {
        replaceFiles(before)
      }
    }
  } finally {
    sandbox.close()
  }
})

test.serial('chunks that come twice at the same time are there once', async t => {
  const sandbox = new Sandbox('stash-twice')
  try {
    const stash = new Stash(sandbox.path('chunks'))
    await Promise.all([add(stash, [1, 2], 400_000), add(stash, [2, 3], 400_000), add(stash, [1], 400_000)])
    t.is(stash.count, 3)
    t.is(stash.bytes, 8 + entriesOf([1, 2, 3], 400_000).entries.length)
    for (const number of [1, 2, 3]) t.true(stash.get(idOf(number))!.equals(Buffer.alloc(400_000 + number, number)))
    stash.close()
  } finally {
    sandbox.close()
  }
})

test.serial('what failed to become durable is tried again, the names of the files too', async t => {
  const sandbox = new Sandbox('stash-names')
  const real = files
  try {
    const stash = new Stash(sandbox.path('chunks'))
    let named = 0
    await add(stash, [1])
    replaceFiles({ ...real, syncDirectory(path) {
      if (++named === 1) throw Object.assign(new Error('EIO'), { code: 'EIO', errno: -5 })
      real.syncDirectory(path)
    } })
    await t.throwsAsync(stash.sync(), { code: 'EIO' })
    await stash.sync()
    t.is(named, 2)
    await stash.sync()
    t.is(named, 2)
    stash.close()
  } finally {
    replaceFiles(real)
    sandbox.close()
  }
})

test.serial('what a failed sync may have lost is written anew, and is not called durable if it is not whole any more', async t => {
  const sandbox = new Sandbox('stash-doubtful')
  const real = files
  try {
    const folder = sandbox.path('chunks')
    const stash = new Stash(folder)
    const numbers = (found: Iterable<{ ids: readonly ChunkId[] }>) => [...found].flatMap(({ ids }) => ids.map(id => id[0]!)).sort((a, b) => a - b)
    await add(stash, [1, 2, 3])
    replaceFiles({ ...real, datasyncLater: () => Promise.reject(Object.assign(new Error('EIO'), { code: 'EIO', errno: -5 })) })
    await t.throwsAsync(stash.sync(), { code: 'EIO' })
    replaceFiles(real)
    // Nor does it become another's by a second name.
    t.deepEqual(numbers(stash.wholeFiles(() => true, 0)), [])
    t.deepEqual(numbers(stash.runs(() => true)), [1, 2, 3])
    const synced: number[] = []
    replaceFiles({ ...real, datasyncLater: fd => (synced.push(statSync(`/proc/self/fd/${fd}`).size), real.datasyncLater(fd)) })
    await add(stash, [4])
    await stash.sync()
    t.deepEqual(readdirSync(folder), ['2'])
    t.deepEqual(synced, [statSync(join(folder, '2')).size])
    t.deepEqual(numbers(stash.wholeFiles(() => true, 0)), [1, 2, 3, 4])
    t.deepEqual(stash.get(idOf(2)), Buffer.alloc(1002, 2))

    await add(stash, [5], 20)
    replaceFiles({ ...real, datasyncLater: () => Promise.reject(Object.assign(new Error('EIO'), { code: 'EIO', errno: -5 })) })
    await t.throwsAsync(stash.sync(), { code: 'EIO' })
    replaceFiles(real)
    // What the host gave up, and reads again.
    const fd = openSync(join(folder, readdirSync(folder).at(-1)!), 'r+')
    ftruncateSync(fd, statSync(`/proc/self/fd/${fd}`).size - 10)
    closeSync(fd)
    for (let times = 0; times < 2; times++) await t.throwsAsync(stash.sync(), { message: /shorter/ })
    stash.keep(() => false, false)
    await stash.sync()
    stash.close()
  } finally {
    replaceFiles(real)
    sandbox.close()
  }
})
