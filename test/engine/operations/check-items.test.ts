/** The reader of damaged item streams: what it finds behind gaps, what it does not take for an item, and that it always ends. */
import test from 'ava'
import fc from 'fast-check'
import { ChunkList } from '../../../src/engine/archive/chunk-list.js'
import { encodeItem } from '../../../src/engine/archive/item-codec.js'
import { itemKeys } from '../../../src/engine/archive/item-keys.js'
import type { Item } from '../../../src/engine/archive/item.js'
import { type MsgValue, MsgWriter, pack } from '../../../src/engine/msgpack.js'
import { RobustItems, type StreamEvent } from '../../../src/engine/operations/check/robust-items.js'

const keys = new Set(itemKeys)

function itemOf(number: number): Item {
  return {
    path: Buffer.from(`folder/file-${number}`), mode: 0o100644, uid: 1000, gid: 1000, user: Buffer.from('user'), group: Buffer.from('group'), mtimeNs: 1_700_000_000_000_000_000n + BigInt(number),
    chunks: ChunkList.of([{ id: Buffer.alloc(32, number) as never, size: 100 + number, csize: 50 }]), size: 100 + number,
  }
}

function bytesOfItem(item: Item): Buffer {
  const writer = new MsgWriter()
  encodeItem(item, writer)
  return writer.finish()
}

function streamOf(count: number): Buffer {
  return Buffer.concat(Array.from({ length: count }, (_, number) => bytesOfItem(itemOf(number))))
}

function shown(events: Iterable<StreamEvent>): string[] {
  return [...events].map(event => (event.kind === 'item' ? event.item.path.toString() : event.kind === 'invalid' ? `invalid: ${event.reason}` : 'crashed'))
}

test('a sound stream gives its items wherever it is cut', t => {
  const stream = streamOf(5)
  const expected = [0, 1, 2, 3, 4].map(number => `folder/file-${number}`)
  for (let cut = 0; cut <= stream.length; cut++) {
    const robust = new RobustItems(keys)
    t.deepEqual([...shown(robust.feed(stream.subarray(0, cut))), ...shown(robust.feed(stream.subarray(cut)))], expected)
    t.false(robust.endsEarly())
  }
})

test('behind a gap all items that are whole are found, whatever the gap took', t => {
  const one = bytesOfItem(itemOf(0)).length
  const stream = streamOf(6)
  for (let from = 1; from < 3 * one; from += 3) {
    const to = from + one
    const robust = new RobustItems(keys)
    const found = shown(robust.feed(stream.subarray(0, from)))
    robust.gap()
    found.push(...shown(robust.feed(stream.subarray(to, to + 200))), ...shown(robust.feed(stream.subarray(to + 200))))
    const whole = [0, 1, 2, 3, 4, 5].filter(number => (number + 1) * one <= from || number * one >= to)
    t.deepEqual(found, whole.map(number => `folder/file-${number}`), `gap at ${from}`)
    t.false(robust.endsEarly())
  }
})

test('the inside of a cut item is not taken for an item', t => {
  const hostile = { ...itemOf(1), xattrs: new Map([['user.x', pack(new Map<string, MsgValue>([['path', Buffer.from('/etc/shadow')], ['mode', 1]]))]]) }
  const bytes = bytesOfItem(hostile)
  const robust = new RobustItems(keys)
  robust.gap()
  t.deepEqual(shown(robust.feed(Buffer.concat([bytes.subarray(20), bytesOfItem(itemOf(2))]))), ['folder/file-2'])
})

test('what is no item is left out with the reason of Borg', t => {
  const values: readonly [MsgValue, string][] = [
    [5, 'invalid: not a dictionary'],
    [new Map<string, MsgValue>([['mtime', 1]]), 'invalid: missing required keys: path'],
    [new Map<string, MsgValue>([['path', Buffer.from('a')]]), 'invalid: missing required keys: mtime'],
    [new Map<string, MsgValue>([['path', Buffer.from('a')], ['mtime', 1], ['wrong', 1]]), 'invalid: invalid keys: wrong'],
    [new Map<string, MsgValue>([['path', Buffer.from('a')], ['mtime', 0], ['mode', 1], ['acl', 1]]), 'a'],
  ]
  for (const [value, expected] of values) {
    const robust = new RobustItems(keys)
    t.deepEqual(shown(robust.feed(Buffer.concat([pack(value), bytesOfItem(itemOf(3))]))), [expected, 'folder/file-3'])
  }
  t.deepEqual(shown(new RobustItems(new Set([...keys, 'wrong'])).feed(pack(values[3]![0]))), ['a'])
  const malformed = new Map<string, MsgValue>([['path', Buffer.from('a')], ['mtime', 1], ['chunks', [[Buffer.alloc(3), 1, 1]]]])
  t.regex(shown(new RobustItems(keys).feed(pack(malformed)))[0]!, /^invalid: malformed values/)
  const huge = new Map<string, MsgValue>([['path', Buffer.from('a')], ['mtime', 1], ['chunks', [[Buffer.alloc(32), 2 ** 31, 1]]]])
  t.deepEqual(shown(new RobustItems(keys).feed(pack(huge))), ['invalid: a chunk of 2147483648 bytes'])
})

test('bytes that are no msgpack are passed over to the next item', t => {
  const robust = new RobustItems(keys)
  t.deepEqual(shown(robust.feed(Buffer.concat([bytesOfItem(itemOf(1)), Buffer.from([0xc1, 0xc1]), bytesOfItem(itemOf(2))]))), ['folder/file-1', 'crashed', 'folder/file-2'])
})

test('a stream that ends within an item says so', t => {
  const stream = streamOf(2)
  const robust = new RobustItems(keys)
  t.deepEqual(shown(robust.feed(stream.subarray(0, -5))), ['folder/file-0'])
  t.true(robust.endsEarly())
})

test('whatever is fed, it ends and throws nothing', t => {
  const stream = streamOf(4)
  fc.assert(fc.property(fc.array(fc.oneof(
    fc.uint8Array({ maxLength: 200 }), fc.tuple(fc.nat(stream.length), fc.nat(stream.length)).map(([from, to]) => stream.subarray(Math.min(from, to), Math.max(from, to))),
  ), { maxLength: 8 }), fc.array(fc.boolean(), { maxLength: 8 }), (pieces, gaps) => {
    const robust = new RobustItems(keys)
    for (const [index, piece] of pieces.entries()) {
      if (gaps[index]) robust.gap()
      shown(robust.feed(Buffer.from(piece)))
    }
  }), { numRuns: 300 })
  t.pass()
})

test('beginnings that each lead through all that follows do not keep it from the item behind them', t => {
  // Seen from each of the beginnings, which are values to the one before, keys and values go on and on: by the square of the bytes this would take minutes.
  const unit = Buffer.concat([Buffer.from([0xa4]), Buffer.from('path'), Buffer.from([0xa8, 0xde, 0xff, 0xff, 0xa4]), Buffer.from('path')])
  const robust = new RobustItems(keys)
  robust.gap()
  t.deepEqual(shown(robust.feed(Buffer.concat([Buffer.concat(Array.from({ length: 40_000 }, () => unit)), Buffer.from([0xc1]), bytesOfItem(itemOf(7))]))), ['folder/file-7'])
})

test('what claims to be an item longer than any is passed over, and not gathered for ever', t => {
  // A path of 4 GiB, of which more and more comes; then items again.
  const robust = new RobustItems(keys, 4096)
  const found = [...shown(robust.feed(bytesOfItem(itemOf(0)))), ...shown(robust.feed(Buffer.from('81a470617468dbffffffff', 'hex')))]
  for (let piece = 0; piece < 40; piece++) found.push(...shown(robust.feed(Buffer.alloc(1000))))
  found.push(...shown(robust.feed(bytesOfItem(itemOf(1)))), ...shown(robust.feed(bytesOfItem(itemOf(2)))))
  t.deepEqual(found, ['folder/file-0', 'crashed', 'folder/file-1', 'folder/file-2'])
  t.false(robust.endsEarly())
})
