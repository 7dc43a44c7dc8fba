import test from 'ava'
import { randomInt } from 'node:crypto'
import { PlainMemory } from '../../../src/engine/store/plain-memory.js'

test('places that are taken never overlap, whatever the order in which they are given back', t => {
  const plains = new PlainMemory(1 << 20)
  const taken: { memory: Buffer; mark: number }[] = []
  for (let round = 0; round < 3000; round++) {
    if (taken.length < 32 && randomInt(5) > 1) {
      const memory = plains.take(randomInt(4) ? randomInt(2000) : randomInt(200_000))
      taken.push({ memory: memory.fill(round), mark: round & 255 })
    } else if (taken.length > 0) {
      const [{ memory, mark }] = taken.splice(randomInt(taken.length), 1) as [{ memory: Buffer; mark: number }]
      t.true(memory.equals(Buffer.alloc(memory.length, mark)))
      plains.giveBack(memory)
    }
    if (plains.taken > 1 << 20) t.fail(`${plains.taken} bytes`)
  }
  for (const { memory, mark } of taken) {
    t.true(memory.equals(Buffer.alloc(memory.length, mark)))
    plains.giveBack(memory)
  }
  t.is(plains.taken, 0)
})

test('the same memory is used again, from its start; what it has no room for has its own', t => {
  const plains = new PlainMemory(1000)
  const first = plains.take(500), second = plains.take(400), third = plains.take(500)
  t.deepEqual([first.length, second.length, third.length], [500, 400, 500])
  t.is(second.buffer, first.buffer)
  t.not(third.buffer, first.buffer)
  plains.giveBack(third)
  t.is(plains.taken, 512 + 448)
  plains.giveBack(first)
  t.is(plains.take(100).byteOffset, first.byteOffset)
  plains.clear()
  t.is(plains.taken, 0)
  t.is(plains.take(0).length, 0)
  t.is(plains.taken, 0)
  // Given back only after all was dropped, it is nobody's.
  const late = plains.take(100)
  plains.drop()
  const now = plains.take(100)
  t.not(now.buffer, late.buffer)
  plains.giveBack(late)
  t.is(plains.taken, 128)
})
