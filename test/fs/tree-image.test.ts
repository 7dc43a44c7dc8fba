import test from 'ava'
import fc from 'fast-check'
import { decodeItem } from '../../src/engine/archive/item-codec.js'
import type { Item } from '../../src/engine/archive/item.js'
import { IntegrityError } from '../../src/engine/errors.js'
import { MsgReader } from '../../src/engine/msgpack.js'
import { ArchiveTree } from '../../src/fs/archive-tree.js'
import type { ArchiveTreeData } from '../../src/fs/tree-columns.js'
import { buildTree, columnsOf } from '../../src/fs/tree-image.js'
import { shownTree } from '../../src/fs/tree-view.js'
import { build, directoryMode, item, linkMode, treeOptions } from '../helpers/mount-fixtures.js'
import { anyItem, packed, pieces } from '../helpers/any-items.js'

const image = async (bytes: Buffer, options = treeOptions(), length = 7) => shownTree(columnsOf(await buildTree(pieces(bytes, length), options)), options)

/** Everything but the hash table, whose size and key are each builder's own affair. */
function shown({ slots: _, nameKey: _key, ...columns }: ArchiveTreeData): Record<string, unknown> {
  return Object.fromEntries(Object.entries(columns).map(([name, value]) => [name, ArrayBuffer.isView(value) ? [...value as Uint8Array] : value]))
}

const options = () => treeOptions({
  numericIds: false, umask: 0o022,
  owners: { user: (text) => (Buffer.from(text).toString() === 'known' ? 77 : undefined), group: (text) => (Buffer.from(text).toString() === 'known' ? 88 : undefined) },
})

test('gives the columns that the plain builder gives, whatever the items and wherever the stream is cut', async (t) => {
  await fc.assert(fc.asyncProperty(fc.array(anyItem, { maxLength: 40 }), fc.integer({ min: 1, max: 300 }), fc.boolean(), async (items, length, showParts) => {
    const bytes = packed(items)
    const plain = { ...options(), showParts }, fast = { ...options(), showParts }
    // From the bytes again: what an item holds after decoding is what both have to go by.
    const decoded: Item[] = []
    for (const reader = new MsgReader(bytes); !reader.done;) decoded.push(decodeItem(reader))
    const wanted = build(decoded, plain), made = await image(bytes, fast, length)
    t.deepEqual(shown(made), shown(wanted))
    t.deepEqual(fast.log.lines, plain.log.lines)
    const [a, b] = [new ArchiveTree(made, 0), new ArchiveTree(wanted, 0)]
    for (let row = 1; row < a.rowCount; row++) t.is(a.lookup(a.parentOf(row), a.nameOf(row)), b.lookup(b.parentOf(row), b.nameOf(row)))
  }), { numRuns: 300 })
})

test('forced owners, and thousands of files in one directory', async (t) => {
  const items = Array.from({ length: 5000 }, (_, index) => item(`d/${index}`))
  const forced = { forcedUid: 5, forcedGid: 6 }
  const made = await image(packed(items), treeOptions(forced), 4096)
  t.deepEqual(shown(made), shown(build(items, treeOptions(forced))))
  const tree = new ArchiveTree(made, 0)
  const directory = tree.lookup(0, Buffer.from('d'))
  for (let index = 0; index < 5000; index += 7) t.is(tree.nameOf(tree.lookup(directory, Buffer.from(String(index)))).toString(), String(index))
})

test('where a name is looked for is chosen anew for each tree, so that nobody can choose names that meet', async (t) => {
  const items = Array.from({ length: 500 }, (_, index) => item(`${'n'.repeat(index % 9)}${index}`))
  const trees = [build(items), build(items), await image(packed(items)), await image(packed(items))]
  t.is(new Set(trees.map(({ slots }) => slots.join())).size, 4)
  t.is(new Set(trees.map(({ nameKey }) => nameKey.join())).size, 4)
})

test('a size below nothing is none', async (t) => {
  const items = [item('a', { size: -5 })]
  for (const made of [build(items), await image(packed(items))]) t.is(new ArchiveTree(made, 0).attr(1).size, 0)
})

test('names that the kernel would fail the whole listing for are left out', async (t) => {
  const [long, longer] = ['n'.repeat(1024), 'n'.repeat(1025)]
  const items = [item(long), item(longer), item(`${longer}/f`), item(`d/${longer}`), item('d/f')]
  const plain = treeOptions(), fast = treeOptions()
  const made = await image(packed(items), fast, 4096)
  t.deepEqual(shown(made), shown(build(items, plain)))
  t.deepEqual(fast.log.lines, plain.log.lines)
  t.is(fast.log.lines.length, 3)
  t.is(new ArchiveTree(made, 0).rowCount, 4)
})

test('more owners than are remembered are still right', async (t) => {
  const asked: string[] = []
  const items = Array.from({ length: 200 }, (_, index) => item(`f${index}`, { user: Buffer.from(`u${index % 50}`), uid: 1 }))
  const made = await image(packed(items), treeOptions({ numericIds: false, owners: { user: (text) => { asked.push(Buffer.from(text).toString()); return Number(Buffer.from(text).toString().slice(1)) + 1000 }, group: () => undefined } }), 512)
  t.deepEqual(Array.from({ length: 200 }, (_, index) => new ArchiveTree(made, 0).attr(index + 1).uid), items.map((_, index) => 1000 + index % 50))
  t.true(asked.length <= 200)
})

test('a stream that ends within an item or holds none is an integrity error, with what the plain decoder says', async (t) => {
  const whole = packed([item('a'), item('b')])
  await t.throwsAsync(image(whole.subarray(0, whole.length - 1)), { instanceOf: IntegrityError })
  await t.throwsAsync(image(Buffer.concat([packed([item('a')]), Buffer.from([0xc1])])), { instanceOf: IntegrityError, message: /a map expected/ })
  await t.throwsAsync(image(Buffer.from([0x80])), { instanceOf: IntegrityError, message: /no path/ })
})

test('what claims to be an item longer than any is not gathered for ever', async (t) => {
  // A path of 4 GiB, of which more and more comes.
  const bytes = Buffer.concat([packed([item('a')]), Buffer.from('81a470617468dbffffffff', 'hex'), Buffer.alloc(3 << 20)])
  await t.throwsAsync(buildTree(pieces(bytes, 65536), treeOptions(), 1 << 20), { instanceOf: IntegrityError, message: /an item of more than 1048576 bytes/ })
})

test('mutated streams give a tree or an integrity error', async (t) => {
  const bytes = packed([item('d', { mode: directoryMode }), item('d/f', { xattrs: new Map([['user.a', Buffer.from('x')]]) }), item('l', { mode: linkMode, source: Buffer.from('d') })])
  await fc.assert(fc.asyncProperty(fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }), async (changes) => {
    const damaged = Buffer.from(bytes)
    for (const [at, value] of changes) damaged[at] = value
    try {
      await image(damaged)
    } catch (error) {
      t.true(error instanceof IntegrityError, String(error))
    }
  }), { numRuns: 2000 })
})

test('an exception of a callback comes through', async (t) => {
  const failing = treeOptions({ numericIds: false, owners: { user: () => { throw new Error('no users today') }, group: () => undefined } })
  await t.throwsAsync(image(packed([item('a', { user: Buffer.from('x') })]), failing), { message: 'no users today' })
})
