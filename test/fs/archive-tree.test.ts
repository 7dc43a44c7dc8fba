import test from 'ava'
import type { Item } from '../../src/engine/archive/item.js'
import { ArchiveTree } from '../../src/fs/archive-tree.js'
import { type ArchiveTreeData, columnBytes } from '../../src/fs/tree-columns.js'
import { build, Contents, directoryMode, fileMode, item, linkMode, treeOptions } from '../helpers/mount-fixtures.js'

const root = 16 * 2 ** 32

function tree(items: Iterable<Item>, options = treeOptions()): ArchiveTree {
  return new ArchiveTree(build(items, options), root, (text) => text)
}

function find(where: ArchiveTree, path: string): number {
  let row = 0
  for (const part of path.split('/')) row = where.lookup(row, Buffer.from(part))
  return row
}

function names(where: ArchiveTree, directory: number): string[] {
  const found: string[] = []
  for (let row = where.firstChild(directory); row !== 0; row = where.nextSibling(row)) found.push(where.nameOf(row).toString())
  return found
}

test('lists a directory in archive order and finds its entries', (t) => {
  const made = tree([item('d', { mode: directoryMode }), item('d/z'), item('d/a'), item('top'), item('d/m')])
  t.deepEqual(names(made, 0), ['d', 'top'])
  t.deepEqual(names(made, find(made, 'd')), ['z', 'a', 'm'])
  t.is(made.lookup(0, Buffer.from('nothing')), -1)
  t.is(made.pathOf(find(made, 'd/m')).toString(), 'd/m')
  t.is(made.attr(find(made, 'top')).ino, root + find(made, 'top'))
})

test('supplies parents that the archive lacks, until an item describes them', (t) => {
  const made = tree([item('a/b/c'), item('a/b', { mode: 0o040700, uid: 7, mtimeNs: 9n })])
  t.like(made.attr(find(made, 'a')), { mode: 0o040755, uid: 1, gid: 2, mtimeNs: 5n, nlink: 1, size: 0 })
  t.like(made.attr(find(made, 'a/b')), { mode: 0o040700, uid: 7, mtimeNs: 9n })
  t.deepEqual(names(made, find(made, 'a/b')), ['c'])
  t.like(made.attr(0), { mode: 0o040755, mtimeNs: 6n })
})

test('the item . describes the root', (t) => {
  const made = tree([item('.', { mode: 0o041777, uid: 3, mtimeNs: 11n }), item('./x')])
  t.like(made.attr(0), { mode: 0o041777, uid: 3, mtimeNs: 11n })
  t.deepEqual(names(made, 0), ['x'])
})

test('of two items with one path the last wins', (t) => {
  const contents = new Contents()
  const made = tree([
    item('f', { chunks: contents.list(Buffer.from('first')) }), item('other'), item('f', { chunks: contents.list(Buffer.from('second one')) }),
    item('d/x'), item('d', { mode: fileMode }), item('d', { mode: directoryMode }), item('d/y'),
  ])
  t.is(made.attr(find(made, 'f')).size, 10)
  t.deepEqual(names(made, 0), ['other', 'f', 'd'])
  t.deepEqual(names(made, find(made, 'd')), ['y'])
})

test('hard links share one inode and count it', (t) => {
  const contents = new Contents()
  const made = tree([
    item('one', { hardlinkMaster: true, chunks: contents.list(Buffer.from('data')) }), item('two', { source: Buffer.from('one'), uid: 99 }),
    item('d/three', { source: Buffer.from('one') }), item('fifo', { mode: 0o010600, hardlinkMaster: true }), item('fifo2', { mode: 0o010600, source: Buffer.from('fifo') }),
  ])
  t.is(find(made, 'two'), find(made, 'one'))
  t.is(find(made, 'd/three'), find(made, 'one'))
  t.like(made.attr(find(made, 'two')), { nlink: 3, uid: 10, size: 4 })
  t.is(made.attr(find(made, 'fifo2')).nlink, 2)
  t.deepEqual(names(made, 0), ['one', 'two', 'd', 'fifo', 'fifo2'])
})

test('a link that is replaced does not count any more', (t) => {
  const made = tree([item('one', { hardlinkMaster: true }), item('two', { source: Buffer.from('one') }), item('two')])
  t.is(made.attr(find(made, 'one')).nlink, 1)
  t.not(find(made, 'two'), find(made, 'one'))
})

test('a hard link to nothing is left out with a warning', (t) => {
  const options = treeOptions()
  const made = tree([item('link', { source: Buffer.from('gone') }), item('x')], options)
  t.deepEqual(names(made, 0), ['x'])
  t.deepEqual(options.log.lines, ['warning: Skipping broken hard link: link -> gone'])
})

test('when only the first name of a hard link is filtered out, the second is the file', (t) => {
  const contents = new Contents()
  const select = (each: Item) => each.path.toString().startsWith('out') ? undefined : each.path
  const made = tree([
    item('out', { hardlinkMaster: true, chunks: contents.list(Buffer.from('content')) }),
    item('in', { source: Buffer.from('out') }), item('in2', { source: Buffer.from('out') }),
  ], treeOptions({ select }))
  t.deepEqual(names(made, 0), ['in', 'in2'])
  t.like(made.attr(find(made, 'in')), { size: 7, nlink: 2 })
  t.is(find(made, 'in'), find(made, 'in2'))
})

test('stripped paths and their hard links agree', (t) => {
  const strip = (path: Buffer) => path.subarray(path.indexOf('/') + 1)
  const made = tree([item('a/one', { hardlinkMaster: true }), item('a/two', { source: Buffer.from('a/one') })],
    treeOptions({ select: (each) => strip(each.path), sourcePath: strip }))
  t.deepEqual(names(made, 0), ['one', 'two'])
  t.is(find(made, 'two'), find(made, 'one'))
})

test('part items are hidden unless wanted', (t) => {
  const items = [item('f.borg_part_1', { part: 1 }), item('f')]
  t.deepEqual(names(tree(items), 0), ['f'])
  t.deepEqual(names(tree(items, treeOptions({ showParts: true })), 0), ['f.borg_part_1', 'f'])
})

test('paths that no directory can hold are left out with a warning', (t) => {
  const options = treeOptions()
  const made = tree([item('../up'), item('a/../../b'), item(Buffer.from('nu\0l')), item('/abs/olute'), item('ok')], options)
  t.deepEqual(names(made, 0).sort(), ['a', 'abs', 'ok'])
  t.is(options.log.lines.length, 3)
})

test('names are bytes', (t) => {
  const odd = Buffer.from([0x61, 0xff, 0xfe])
  const made = tree([item(odd), item(Buffer.from('caf\xe9', 'latin1'))])
  t.true(made.nameOf(made.lookup(0, odd)).equals(odd))
  t.is(made.lookup(0, Buffer.from('café')), -1)
})

test('owners are looked up by name first unless numbers are wanted', (t) => {
  const owners = { user: (name: Uint8Array) => Buffer.from(name).toString() === 'known' ? 500 : undefined, group: () => 600 }
  const items = [item('a', { user: Buffer.from('known'), group: Buffer.from('g') }), item('b', { user: Buffer.from('unknown') })]
  const named = tree(items, treeOptions({ numericIds: false, owners }))
  t.like(named.attr(find(named, 'a')), { uid: 500, gid: 600 })
  t.like(named.attr(find(named, 'b')), { uid: 10, gid: 20 })
  const numeric = tree(items, treeOptions({ owners }))
  t.like(numeric.attr(find(numeric, 'a')), { uid: 10, gid: 20 })
  const forced = tree(items, treeOptions({ owners, forcedUid: 42, forcedGid: 43, umask: 0o277 }))
  t.like(forced.attr(find(forced, 'a')), { uid: 42, gid: 43, mode: 0o100400 })
  t.like(forced.attr(0), { uid: 42, gid: 43, mode: 0o040500 })
})

test('times, devices, link targets and damage are as stored', (t) => {
  const contents = new Contents()
  const made = tree([
    item('t', { mtimeNs: -1_500_000_001n, atimeNs: 3n, ctimeNs: 2n ** 62n }), item('u', { mtimeNs: 8n }),
    item('dev', { mode: 0o020600, rdev: 259 }), item('l', { mode: linkMode, source: Buffer.from('some where') }),
    item('hurt', { chunks: contents.list(Buffer.alloc(3)), chunksHealthy: contents.list(Buffer.from('abc')) }),
  ])
  t.like(made.attr(find(made, 't')), { mtimeNs: -1_500_000_001n, atimeNs: 3n, ctimeNs: 2n ** 62n })
  t.like(made.attr(find(made, 'u')), { mtimeNs: 8n, atimeNs: 8n, ctimeNs: 8n })
  t.is(made.attr(find(made, 'dev')).rdev, 259)
  t.is(made.linkTarget(find(made, 'l')).toString(), 'some where')
  t.is(made.attr(find(made, 'l')).size, 10)
  t.true(made.isDamaged(find(made, 'hurt')))
  t.false(made.isDamaged(find(made, 't')))
})

test('xattrs keep bytes, order of rows does not matter, ACLs become xattrs', (t) => {
  const made = tree([
    item('d/x', { xattrs: new Map([['user.b\xe4d', Buffer.from([0, 255])], ['user.empty', null]]) }),
    item('d', { mode: directoryMode, xattrs: new Map([['user.dir', Buffer.from('v')]]), aclAccess: Buffer.alloc(28), aclDefault: Buffer.alloc(36) }),
    item('plain'),
  ])
  const listed = (path: string) => [...made.xattrs(find(made, path))].map(([name, value]) => [name.toString('latin1'), value.toString('hex').length / 2])
  t.deepEqual(listed('d/x'), [['user.b\xe4d', 2], ['user.empty', 0]])
  t.deepEqual(listed('d'), [['user.dir', 1], ['system.posix_acl_default', 36]])
  t.deepEqual(listed('plain'), [])
  t.is(made.xattr(find(made, 'd'), Buffer.from('user.dir'))?.toString(), 'v')
})

test('many files in many directories are found, and cost little', (t) => {
  const contents = new Contents()
  const chunks = contents.list(Buffer.from('shared'))
  const items = function* (): Generator<Item> {
    for (let index = 0; index < 50_000; index++) yield item(`d${index % 200}/e${index % 7}/file${index}`, { chunks })
  }
  const columns: ArchiveTreeData = build(items())
  const made = new ArchiveTree(columns, root)
  for (let index = 0; index < 50_000; index += 7) {
    const row = find(made, `d${index % 200}/e${index % 7}/file${index}`)
    t.true(row > 0 && made.attr(row).size === 6)
  }
  const perFile = (columnBytes(columns) - columns.names.length - columns.chunks!.length) / columns.rowCount
  t.true(perFile <= 120, `${perFile} bytes`)
})

test('xattrs of a directory are those of the last item that describes it, also if that has none', (t) => {
  const first = item('d', { mode: directoryMode, xattrs: new Map([['user.a', Buffer.from('x')]]) })
  for (const xattrs of [new Map<string, Buffer>(), undefined]) {
    const made = tree([first, item('d', { mode: directoryMode, ...(xattrs && { xattrs }) })])
    t.deepEqual([...made.xattrs(find(made, 'd'))], [])
  }
})
