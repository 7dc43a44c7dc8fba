import test from 'ava'
import { closeSync, ftruncateSync, openSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
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

function add(stash: Stash, numbers: readonly number[], bytes?: number): ChunkId[] {
  const { entries, ids, lengths } = entriesOf(numbers, bytes)
  stash.append(entries, ids, lengths)
  return ids
}

const idOf = (number: number): ChunkId => chunkId(Buffer.alloc(32, number))

test.serial('what was stashed is found by id, in runs as it lies on disk, and again after a restart', t => {
  const sandbox = new Sandbox('stash')
  try {
    let stash = new Stash(sandbox.path('chunks'))
    add(stash, [3, 1])
    add(stash, [2])
    for (let round = 0; round < 2; round++) {
      t.is(stash.count, 3)
      for (const number of [1, 2, 3]) {
        t.deepEqual(stash.get(idOf(number)), Buffer.alloc(1000 + number, number))
        t.is(stash.storedSize(idOf(number)), 1000 + number)
      }
      t.is(stash.get(idOf(4)), undefined)
      const runs = [...stash.runs([idOf(2), idOf(1), idOf(3)])].map(({ bytes, ids }) => ({ bytes: Buffer.from(bytes), ids: ids.map(id => id[0]) }))
      t.deepEqual(runs, [{ bytes: entriesOf([3, 1, 2]).entries, ids: [3, 1, 2] }])
      t.deepEqual([...stash.runs([idOf(2), idOf(3)])].map(({ ids }) => ids.map(id => id[0])), [[3], [2]])
      stash.close()
      stash = new Stash(sandbox.path('chunks'))
    }
    // A restarted one writes to files of its own.
    add(stash, [9])
    t.is(readdirSync(sandbox.path('chunks')).length, 2)
    stash.close()
  } finally {
    sandbox.close()
  }
})

test.serial('of a file that was cut off anywhere the whole entries before count, and nothing else', t => {
  const sandbox = new Sandbox('stash-torn')
  try {
    const made = new Stash(sandbox.path('made'))
    add(made, [1, 2, 3], 50)
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

test.serial('a damaged entry is refused when it is wanted', t => {
  const sandbox = new Sandbox('stash-damage')
  try {
    const stash = new Stash(sandbox.path('chunks'))
    add(stash, [1, 2])
    const path = join(sandbox.path('chunks'), '1')
    const bytes = readFileSync(path)
    bytes[bytes.length - 1]! ^= 1
    const fd = openSync(path, 'r+')
    files.writeAll(fd, bytes, 0)
    t.throws(() => [...stash.runs([idOf(1), idOf(2)])], { message: /damaged/ })
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
    add(earlier, [1])
    earlier.close()
    const stash = new Stash(folder)
    add(stash, [2], 40 << 20)
    add(stash, [3], 40 << 20)
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
    add(stash, [2])
    t.true(stash.has(idOf(2)))
    stash.close()
  } finally {
    sandbox.close()
  }
})

test.serial('a disk that is full while chunks are stashed loses those, and no other', t => {
  const sandbox = new Sandbox('stash-full')
  const full = Object.assign(new Error('full'), { code: 'ENOSPC', errno: -28 })
  try {
    const stash = new Stash(sandbox.path('chunks'))
    add(stash, [1])
    const before = replaceFiles({ ...files, writeAll(fd, bytes, position) {
      before.writeAll(fd, bytes.subarray(0, 100), position)
      throw full
    } })
    try {
      t.throws(() => add(stash, [2]), { is: full })
    } finally {
      replaceFiles(before)
    }
    t.false(stash.has(idOf(2)))
    add(stash, [2, 3])
    for (const number of [1, 2, 3]) t.deepEqual(stash.get(idOf(number)), Buffer.alloc(1000 + number, number))
    stash.close()
    const again = new Stash(sandbox.path('chunks'))
    for (const number of [1, 2, 3]) t.deepEqual(again.get(idOf(number)), Buffer.alloc(1000 + number, number))
    again.close()
  } finally {
    sandbox.close()
  }
})
