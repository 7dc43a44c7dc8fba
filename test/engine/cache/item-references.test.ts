/** The native reading of item streams against the plain one: on real items, on every cut of them, and on damaged bytes. */
import test from 'ava'
import { ChunkList } from '../../../src/engine/archive/chunk-list.js'
import { encodeItem } from '../../../src/engine/archive/item-codec.js'
import type { Item } from '../../../src/engine/archive/item.js'
import { ItemReferences, ReferenceStream, plainItemReferences } from '../../../src/engine/cache/item-references.js'
import { MsgpackError, MsgWriter } from '../../../src/engine/msgpack.js'
import { native } from '../../../src/engine/native.js'
import { randomOf } from '../../helpers/seeded.js'

function stream(seed: number, count: number): Buffer {
  const random = randomOf(seed)
  const writer = new MsgWriter()
  for (let index = 0; index < count; index++) {
    const item: Item = { path: Buffer.from(`d/${'n'.repeat(random(300))}${index}`), mode: 0o100644, uid: random(70000), gid: 0, user: null, group: Buffer.from('g'), mtimeNs: BigInt(random(2 ** 30)) * 10n ** 9n }
    if (random(4) > 0) {
      const chunks = new ChunkList()
      for (let left = random(40); left > 0; left--) chunks.add(Buffer.alloc(32, random(256)), random(2 ** 24), random(3) ? random(2 ** 24) : 0)
      item.chunks = chunks
      if (random(5) === 0) item.part = random(5)
    }
    if (random(6) === 0) item.xattrs = new Map([['user.a', Buffer.alloc(random(400), 7)], ['user.b', null]])
    encodeItem(item, writer)
  }
  return writer.finish()
}

const same = (bytes: Buffer): [native: number[], plain: number[]] => {
  const [status, ...found] = native().itemReferences(bytes)
  // The plain way does not tell a cut from damage.
  return [[Math.min(status!, 1), ...found], plainItemReferences(bytes)]
}

test('a stream gives the same references as by plain reading, wherever it is cut', t => {
  const bytes = stream(1, 30)
  const whole = native().itemReferences(bytes)
  t.is(whole[0], 0)
  t.is(whole[1], bytes.length)
  t.true(whole[2]! > 5 && whole[3]! > 0)
  for (let end = 0; end <= bytes.length; end += end < 2000 ? 1 : 37) {
    const [found, plain] = same(bytes.subarray(0, end))
    t.deepEqual(found, plain, `cut at ${end}`)
  }
})

test('fed in pieces of any size it tells each reference once, with its sums', t => {
  const bytes = stream(2, 200)
  const collect = (pieceBytes: number): string[] => {
    const seen: string[] = []
    const references = new ItemReferences((at, offset, size, csize, isPart) => seen.push(`${at.toString('hex', offset, offset + 32)} ${size} ${csize} ${isPart}`))
    for (let at = 0; at < bytes.length; at += pieceBytes) references.feed(bytes.subarray(at, at + pieceBytes))
    references.end()
    seen.push(JSON.stringify([references.files, references.parts]))
    return seen
  }
  const whole = collect(bytes.length)
  t.true(whole.length > 500)
  for (const pieceBytes of [1, 100, 4096]) t.deepEqual(collect(pieceBytes), whole)
})

test('damaged bytes are read like by plain reading, or refused where that is more careful; never beyond their end', t => {
  const random = randomOf(3)
  const bytes = stream(3, 12)
  for (let round = 0; round < 3000; round++) {
    const damaged = Buffer.from(bytes.subarray(0, 1 + random(bytes.length)))
    for (let flips = 1 + random(4); flips > 0; flips--) damaged[random(damaged.length)] = random(256)
    const [found, plain] = same(damaged)
    // A length that no chunk can have is refused.
    if (found[1] !== plain[1]) t.true(found[1]! < plain[1]!, `round ${round}`)
    else t.deepEqual(found.slice(1), plain.slice(1), `round ${round}`)
  }
})

test('a malformed stream is refused at once, one that ends early at its end', t => {
  const references = new ItemReferences(() => t.fail())
  t.throws(() => references.feed(Buffer.from([0xc1, 1, 2])), { instanceOf: MsgpackError, message: /malformed/ })
  const early = new ItemReferences(() => undefined)
  early.feed(stream(4, 3).subarray(0, -1))
  t.throws(() => early.end(), { instanceOf: MsgpackError, message: /ends within an item/ })
})

test('what claims to be an item longer than any is not gathered for ever', t => {
  const stream = new ReferenceStream(() => undefined, 1 << 20)
  stream.feed(Buffer.from('81a470617468dbffffffff', 'hex'))
  t.throws(() => {
    for (let piece = 0; piece < 64; piece++) stream.feed(Buffer.alloc(65536))
  }, { message: /an item of more than 1048576 bytes/ })
})
