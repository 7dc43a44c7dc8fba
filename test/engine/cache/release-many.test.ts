/** References counted down natively against one by one: the same counts, sums, last ones and complaints, whatever the references are. */
import test from 'ava'
import { ChunkIndex } from '../../../src/engine/cache/chunk-index.js'
import { maxValue } from '../../../src/engine/hashindex/bucket-layout.js'
import { randomOf } from '../../helpers/seeded.js'

function idOf(number: number): Buffer {
  // Many share their first word, and so their first bucket.
  const id = Buffer.alloc(32, number)
  id.writeUInt32LE(number % 7, 0)
  id.writeUInt32LE(number, 28)
  return id
}

function indexOf(seed: number): ChunkIndex {
  const random = randomOf(seed)
  const index = new ChunkIndex()
  for (let number = 0; number < 300; number++) index.add(idOf(number), random(2 ** 24), random(2 ** 24), number % 50 === 0 ? maxValue : 1 + random(6))
  // Tombstones lie in the way.
  for (let number = 3; number < 300; number += 11) index.remove(idOf(number))
  return index
}

function contents(index: ChunkIndex): string[] {
  return [...index.table.entries()].map(({ id, bucket }) => `${id.toString('hex')} ${index.remaining(bucket)} ${index.sizeIn(bucket)} ${index.csizeIn(bucket)}`)
}

/** A stream of ids at odd places, and its references. */
function pieceOf(numbers: readonly number[]): { bytes: Buffer; references: Uint32Array } {
  const bytes = Buffer.alloc(5 + numbers.length * 33)
  const references = new Uint32Array(numbers.length * 4)
  for (const [at, number] of numbers.entries()) {
    idOf(number).copy(bytes, 5 + at * 33)
    references.set([5 + at * 33, 1, 2, number % 4 === 1 ? 1 : 0], at * 4)
  }
  return { bytes, references }
}

test('native and plain steps agree until a chunk is referred to once too often', t => {
  let lasts = 0, unknowns = 0
  for (let seed = 1; seed <= 25; seed++) {
    const random = randomOf(seed)
    const [fast, plain] = [indexOf(seed), indexOf(seed)]
    for (let piece = 0; piece < 6; piece++) {
      // One in a few hundred is one too many.
      const left = new Map<number, number>()
      const numbers = Array.from({ length: random(90) }, () => random(300)).filter(number => {
        const count = left.get(number) ?? plain.refcount(idOf(number))
        left.set(number, count - 1)
        return count > 0 || random(300) === 0
      })
      const { bytes, references } = pieceOf(numbers)
      const found = fast.releaseMany(bytes, references, seed % 2 === 0), wanted = plain.plainReleaseMany(bytes, references, seed % 2 === 0)
      t.is(found.unknown, wanted.unknown)
      t.deepEqual(found.last, wanted.last)
      lasts += found.last.length
      if (found.unknown !== undefined) {
        unknowns++
        break
      }
      t.deepEqual([found.size, found.csize], [wanted.size, wanted.csize])
      t.deepEqual(contents(fast), contents(plain))
      for (const row of found.last) for (const index of [fast, plain]) index.remove(bytes.subarray(references[row]!, references[row]! + 32))
    }
  }
  t.true(lasts > 100 && unknowns > 3, `${lasts} last references, ${unknowns} unknown ones`)
})

test('a chunk referred to twice in one piece is told once when both were all there were, and a third time is one too many', t => {
  for (const release of ['releaseMany', 'plainReleaseMany'] as const) {
    const index = new ChunkIndex()
    index.add(idOf(2), 10, 5, 2)
    const twice = pieceOf([2, 2]), thrice = pieceOf([2, 2, 2])
    t.deepEqual(index[release](twice.bytes, twice.references, true), { size: 20, csize: 10, last: [4], unknown: undefined })
    index.add(idOf(2), 10, 5, 2)
    t.is(index[release](thrice.bytes, thrice.references, true).unknown, 8)
  }
})

test('references beyond the stream are of nothing', t => {
  const index = indexOf(1)
  for (const offset of [5, 6, 2 ** 31, 2 ** 32 - 1]) t.is(index.releaseMany(Buffer.alloc(36), new Uint32Array([offset, 0, 0, 0]), true).unknown, 0)
})
