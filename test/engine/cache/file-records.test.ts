/** Records of the files cache: small ones, one that is larger than a block, and what follows it. */
import test from 'ava'
import { FileRecords, seen } from '../../../src/engine/cache/file-records.js'
import { MsgReader, MsgWriter } from '../../../src/engine/msgpack.js'

test('records of all sizes are found again by their numbers', t => {
  const records = new FileRecords()
  const counts = [0, 1, 3, 700_000, 2, 1, 600_000, ...new Array<number>(400).fill(2000), 1]
  const idOf = (file: number, index: number): Buffer => {
    const id = Buffer.alloc(32, file & 0xff)
    id.writeUInt32LE(index, 8)
    return id
  }
  const numbers = counts.map((count, file) => {
    const number = records.add((1n << 63n) + BigInt(file), 2 ** 40 + file, -5n - BigInt(file), file, count)
    for (let index = 0; index < count; index++) if (count < 5000 || index % 9973 === 0) records.setId(number, index, idOf(file, index), 0)
    return number
  })
  t.is(new Set(numbers).size, counts.length)
  t.true(numbers.every(number => Number.isInteger(number) && number >= 0 && number < seen))
  for (const [file, number] of numbers.entries()) {
    const found = [records.ino(number), records.size(number), records.cmtimeNs(number), records.age(number), records.count(number)]
    t.deepEqual(found, [(1n << 63n) + BigInt(file), 2 ** 40 + file, -5n - BigInt(file), file, counts[file]!])
    for (let index = 0; index < counts[file]!; index += 9973) if (!records.id(number, index).equals(idOf(file, index))) return t.fail(`id ${index} of ${file}`)
  }
  records.confirm(numbers[2]!, 7n)
  t.is(records.ino(numbers[2]!), 7n)
  t.is(records.age(numbers[2]!), seen)
  const writer = new MsgWriter()
  records.writeIds(numbers[2]!, writer)
  const reader = new MsgReader(writer.bytes)
  t.deepEqual(reader.value(), [0, 1, 2].map(index => idOf(2, index)))
})
