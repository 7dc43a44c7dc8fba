/** One chunker serves several sources at once, and goes on after sources that failed: its few blocks are never lost. */
import test from 'ava'
import { BuzhashChunker } from '../../../src/engine/chunker/buzhash.js'
import type { ByteSource, Chunker } from '../../../src/engine/chunker/chunker.js'
import { FixedChunker } from '../../../src/engine/chunker/fixed.js'

const makers: [string, () => Chunker][] = [
  ['buzhash', () => new BuzhashChunker(['buzhash', 10, 14, 12, 4095], 0)],
  ['fixed', () => new FixedChunker(['fixed', 65536, 0])],
]

function sourceOf(length: number, failAt = Infinity): ByteSource {
  let at = 0
  return {
    async read(into) {
      if (at >= failAt) throw new Error('unreadable')
      const count = Math.min(into.length, length - at, length >> 4)
      into.fill(7, 0, count)
      at += count
      await new Promise(resolve => setImmediate(resolve))
      return count
    },
  }
}

/** Chunks are let go of later, as a writer does. */
async function consume(chunker: Chunker, source: ByteSource): Promise<number> {
  let bytes = 0
  for await (const chunk of chunker.split(source)) {
    bytes += chunk.bytes.length
    setTimeout(() => chunk.release(), 1)
  }
  return bytes
}

for (const [name, make] of makers) {
  for (const length of [200_000, 13_000_000]) {
    test(`five sources at once of ${length} bytes get through the ${name} chunker`, async t => {
      const chunker = make()
      const lengths = Array.from({ length: 5 }, (_, index) => length + index)
      t.deepEqual(await Promise.all(lengths.map(each => consume(chunker, sourceOf(each)))), lengths)
    })

    test(`a source of ${length} bytes that stands still in the ${name} chunker does not keep others`, async t => {
      const chunker = make()
      const standing = chunker.split(sourceOf(length))[Symbol.asyncIterator]()
      const first = await standing.next()
      first.value.release()
      t.is(await consume(chunker, sourceOf(length)), length)
      t.is(await consume(chunker, sourceOf(length)), length)
      for (let next = await standing.next(); !next.done; next = await standing.next()) next.value.release()
      t.is(await consume(chunker, sourceOf(length)), length)
    })
  }

  test(`who stops in the middle of a source leaves the ${name} chunker as it was`, async t => {
    const chunker = make()
    for (let stopped = 0; stopped < 8; stopped++) {
      for await (const chunk of chunker.split(sourceOf(13_000_000))) {
        chunk.release()
        break
      }
    }
    t.is(await consume(chunker, sourceOf(13_000_000)), 13_000_000)
  })

  test(`sources that fail leave the ${name} chunker as it was`, async t => {
    const chunker = make()
    for (let failed = 0; failed < 8; failed++) await t.throwsAsync(consume(chunker, sourceOf(20_000, 5000 * (failed % 3))), { message: 'unreadable' })
    t.is(await consume(chunker, sourceOf(20_000)), 20_000)
  })
}
