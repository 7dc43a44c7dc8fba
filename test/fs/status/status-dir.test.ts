import test, { type ExecutionContext } from 'ava'
import type { Item } from '../../../src/engine/archive/item.js'
import type { ArchiveInfo } from '../../../src/fs/engine-port.js'
import { noNotices } from '../../../src/fs/fuse/transport.js'
import { inodeRange, inoOf, rangeOf } from '../../../src/fs/inodes.js'
import { snapshotName } from '../../../src/fs/status/archive-views.js'
import { StatusDir } from '../../../src/fs/status/status-dir.js'
import { type Entry, Errno } from '../../../src/fs/types.js'
import { mergedId } from '../../../src/fs/versions.js'
import { archiveInfo, build, type Contents, directoryMode, item, linkMode, treeOptions } from '../../helpers/mount-fixtures.js'
import { virtualDrive, type VirtualDrive } from '../../helpers/virtual-drive.js'

const day = (date: string): bigint => BigInt(Date.parse(date)) * 1_000_000n

function make(archives: Record<string, (contents: Contents) => Item[]>, times: Record<string, bigint> = {}): VirtualDrive {
  return virtualDrive(archives, { times, gives: true, parts: new Map([['.borgfs', new StatusDir({ uid: 1, gid: 2, timeNs: 5n }, [{ name: 'status', content: () => Buffer.from('fine\n') }], noNotices)]]) })
}

/** The list of archives becomes this, with their times. */
function tell(made: VirtualDrive, archives: Record<string, bigint>): void {
  const list: ArchiveInfo[] = Object.entries(archives).map(([name, timeNs]) => ({ ...archiveInfo(name), timeNs }))
  made.engine.client.deliver({ type: 'archives', archives: list })
}

function names(made: VirtualDrive, path: string): string[] {
  return made.list(made.walk(path).attr.ino).slice(2).map(([name]) => name)
}

function is(t: ExecutionContext, actual: unknown, expected: Errno): void {
  t.is(actual instanceof Errno ? actual.code : actual, expected.code)
}

test('a snapshot is named by the second in UTC, before 1970 too', t => {
  t.is(snapshotName(day('2026-05-01T23:59:59Z') + 999_999_999n), '@GMT-2026.05.01-23.59.59')
  t.is(snapshotName(day('1969-12-31T00:00:00Z')), '@GMT-1969.12.31-00.00.00')
})

test('snapshots/ has the archives of each series by time, and what live/ was at each time', t => {
  const file = (text: string) => (contents: Contents) => [item('d', { mode: directoryMode }), item('d/f', { chunks: contents.list(Buffer.from(text)) })]
  const made = make({ 'a-2026-05-01': file('one'), 'a-2026-05-02': file('two'), 'a-2026-05-02.1': file('later'), 'b-2026-05-02': file('other') }, { 'a-2026-05-01': day('2026-05-01'), 'a-2026-05-02': day('2026-05-02'), 'a-2026-05-02.1': day('2026-05-02') + 1n, 'b-2026-05-02': day('2026-05-02') })
  t.deepEqual(names(made, '.borgfs'), ['status', 'latest', 'by-date', 'snapshots', 'versions'])
  t.deepEqual(names(made, '.borgfs/snapshots'), ['@GMT-2026.05.01-00.00.00', '@GMT-2026.05.02-00.00.00', 'a', 'b'])
  t.deepEqual(names(made, '.borgfs/snapshots/a'), ['@GMT-2026.05.01-00.00.00', '@GMT-2026.05.02-00.00.00'])
  t.deepEqual(names(made, '.borgfs/snapshots/@GMT-2026.05.02-00.00.00/live').sort(), ['a', 'b'])
  t.false(made.engine.asked.some(({ kind }) => kind === 'tree'))
  t.is(made.read('.borgfs/snapshots/a/@GMT-2026.05.01-00.00.00/d/f', 0, 9).toString(), 'one')
  t.is(made.read('.borgfs/snapshots/a/@GMT-2026.05.02-00.00.00/d/f', 0, 9).toString(), 'later')
  t.is(made.read('.borgfs/snapshots/@GMT-2026.05.02-00.00.00/live/b/d/f', 1, 9).toString(), 'ther')
})

test('a snapshot has inodes of its own, throughout, and is the archive otherwise', t => {
  const made = make({ a: contents => [item('d', { mode: directoryMode }), item('d/f', { chunks: contents.list(Buffer.from('text')), xattrs: new Map([['user.x', Buffer.from('v')]]) }), item('l', { mode: linkMode, source: Buffer.from('d/f') })] })
  const place = `.borgfs/snapshots/a/${snapshotName(77n)}`
  const top = made.walk(place).attr
  t.is(rangeOf(top.ino), rangeOf(made.walk(`${place}/d/f`).attr.ino))
  for (const path of ['', '/d', '/d/f', '/l']) {
    const here = made.walk(place + path), there = made.walk(`a${path}`)
    t.not(here.attr.ino, there.attr.ino)
    t.deepEqual({ ...here.attr, ino: 0 }, { ...there.attr, ino: 0 })
    const asked = made.now<{ attr: { ino: number } }>(call => made.fs.getattr(here.attr.ino, undefined, call as never))
    t.is(asked.attr.ino, here.attr.ino)
  }
  const seen = new Map<string, number>()
  const listed = (path: string) => made.now<void>(call => made.fs.readdir(made.walk(path).attr.ino, 0, 0, (name, { attr }) => Boolean(seen.set(Buffer.from(name).toString(), attr.ino)), call))
  listed(place)
  t.is(seen.get('..'), made.walk('.borgfs/snapshots/a').attr.ino)
  t.is(seen.get('d'), made.walk(`${place}/d`).attr.ino)
  listed(`${place}/d`)
  t.is(seen.get('..'), top.ino)
  const { ino } = made.walk(`${place}/d/f`).attr
  t.is(made.now<Uint8Array>(call => made.fs.getxattr(ino, Buffer.from('user.x'), call)).toString(), 'v')
  t.is(made.now<Uint8Array>(call => made.fs.readlink(made.walk(`${place}/l`).attr.ino, call)).toString(), 'd/f')
  const none = made.now<Entry>(call => made.fs.lookup(top.ino, Buffer.from('none'), call))
  t.is(none.attr.ino, 0)
  is(t, made.fs.setxattr(top.ino, Buffer.from('user.borgfs.archive.comment'), Buffer.from('x'), 0, {} as never), Errno.EPERM)
  is(t, made.fs.unlink(top.ino, Buffer.from('l'), {} as never), Errno.EROFS)
  t.is(made.walk(place).attr.ino, top.ino)
})

test('what the kernel is given of a file is given to the inode that it opened', t => {
  const files = Array.from({ length: 60 }, (_, index) => `f${index}`)
  const made = make({ a: contents => files.map(name => item(name, { chunks: contents.list(Buffer.from(`text of ${name}`)) })) })
  const place = `.borgfs/snapshots/a/${snapshotName(77n)}`
  const opened = new Map(files.map(name => {
    t.is(made.read(`${place}/${name}`, 0, 99).toString(), `text of ${name}`)
    return [made.walk(`${place}/${name}`).attr.ino, name]
  }))
  t.true(made.given.size > 0)
  for (const [ino, bytes] of made.given) t.is(bytes.toString(), `text of ${opened.get(ino)}`)
})

test('versions/ is built when somebody enters it, and anew when the list of archives changed; who is inside goes on', t => {
  const made = make({ one: () => [], two: () => [] })
  const versions = (ids: string[], text: string): void => {
    made.engine.trees.set(mergedId(ids), build([item('f/f.00001', { chunks: made.contents.list(Buffer.from(text)) })], treeOptions()))
  }
  versions(['one', 'two'], 'old')
  t.true(names(made, '.borgfs').includes('versions'))
  t.false(made.engine.asked.some(({ kind }) => kind === 'tree'))
  const before = made.walk('.borgfs/versions').attr.ino
  const { ino, fh } = made.open('.borgfs/versions/f/f.00001')
  t.is(made.read('.borgfs/versions/f/f.00001', 0, 9).toString(), 'old')
  t.is(made.walk('.borgfs/versions').attr.ino, before)
  is(t, made.now(call => made.fs.getxattr(before, Buffer.from('user.borgfs.archive.id'), call as never)), Errno.ENODATA)
  is(t, made.now(call => made.fs.getxattr(before, Buffer.from('user.borgfs.archive.deduplicated_size'), call as never)), Errno.ENODATA)
  is(t, made.fs.setxattr(before, Buffer.from('user.borgfs.archive.comment'), Buffer.from('x'), 0, {} as never), Errno.EROFS)

  versions(['two'], 'new')
  tell(made, { two: 77n })
  t.not(made.walk('.borgfs/versions').attr.ino, before)
  t.is(made.read('.borgfs/versions/f/f.00001', 0, 9).toString(), 'new')
  const into = Buffer.alloc(3)
  t.is(made.now(call => made.fs.read(ino, fh, 0, into, call as never)), 3)
  t.is(into.toString(), 'old')
  t.is(made.list(before).at(-1)![0], 'f')
  t.is(made.engine.asked.filter(({ kind }) => kind === 'tree').length, 2)
})

test('directories of the views that are open show the list of now', t => {
  const made = make({ 'a-2026-05-01': () => [] }, { 'a-2026-05-01': day('2026-05-01') })
  const latest = made.walk('.borgfs/latest').attr.ino, series = made.walk('.borgfs/snapshots/a').attr.ino
  t.deepEqual(made.list(latest).slice(2).map(([name]) => name), ['a'])
  tell(made, { 'a-2026-05-01': day('2026-05-01'), 'a-2026-05-02': day('2026-05-02'), 'b-2026-05-02': day('2026-05-02') })
  t.deepEqual(made.list(series).slice(2).map(([name]) => name), ['@GMT-2026.05.01-00.00.00', '@GMT-2026.05.02-00.00.00'])
  t.deepEqual(made.list(latest).slice(2).map(([name]) => name), ['a', 'b'])
  t.is(made.now<Uint8Array>(call => made.fs.readlink(made.walk('.borgfs/latest/a').attr.ino, call)).toString(), '../../a-2026-05-02')
  tell(made, {})
  t.is(made.list(series).length, 2)
  is(t, made.now(call => made.fs.lookup(made.walk('.borgfs/snapshots').attr.ino, Buffer.from('a'), call as never)), Errno.ENOENT)
  t.is(rangeOf(series), inodeRange.status)
})

test('whoever has read half of a listing goes on in the same one, and sees the new one from the start', t => {
  const times = (...days: number[]): Record<string, bigint> => Object.fromEntries(days.map(number => [`a-2026-05-0${number}`, day(`2026-05-0${number}`)]))
  const made = make(Object.fromEntries(Object.keys(times(1, 2, 3, 4)).map(name => [name, () => []])), times(1, 2, 3, 4))
  const series = made.walk('.borgfs/snapshots/a').attr.ino
  const { fh } = made.now<{ fh: number }>(call => made.fs.opendir(series, call as never))
  const read = (cookie: number, room = Infinity): [string, number][] => {
    const found: [string, number][] = []
    made.fs.readdir(series, fh, cookie, (name, _entry, next) => found.length < room && found.push([Buffer.from(name).toString().slice(5, 15), next]) > 0, {} as never)
    return found
  }
  t.deepEqual(read(0, 4).slice(2), [['2026.05.01', 3], ['2026.05.02', 4]])
  // By its place in the new list the third would be passed over.
  tell(made, times(2, 3, 4, 5))
  t.deepEqual(read(4).map(([name]) => name), ['2026.05.03', '2026.05.04'])
  t.deepEqual(read(0).slice(2).map(([name]) => name), ['2026.05.02', '2026.05.03', '2026.05.04', '2026.05.05'])
  made.fs.releasedir(series, fh)
})

test('of what is gone nothing is kept in the views when the kernel has given it back', t => {
  const status = new StatusDir({ uid: 1, gid: 2, timeNs: 5n }, [], noNotices)
  const made = virtualDrive({}, { parts: new Map([['.borgfs', status]]) })
  const look = (number: number): void => {
    const name = `a-2026-05-0${number}`
    tell(made, { [name]: day(`2026-05-0${number}`) })
    for (const path of [`.borgfs/latest/a`, `.borgfs/by-date/2026/05/0${number}/${name}`]) {
      let ino = 1
      for (const part of path.split('/')) {
        const entry = made.now<Entry>(call => made.fs.lookup(ino, Buffer.from(part), call))
        if (ino !== 1) made.fs.forget(entry.attr.ino, 1)
        ino = entry.attr.ino
      }
    }
  }
  look(1)
  const latest = made.walk('.borgfs/latest/a').attr.ino, { count } = status
  for (const number of [2, 3, 4]) look(number)
  // The link that the kernel has, with its old target.
  t.is(status.count, count + 1)
  t.is(made.now<Uint8Array>(call => made.fs.readlink(latest, call)).toString(), '../../a-2026-05-01')
  made.fs.forget(latest, 1)
  t.is(status.count, count)
  look(5)
  t.is(status.count, count)
})

test('a directory of the views that is gone is empty for whoever is in it, holds no archive, and the kernel is asked to let go of it', t => {
  const asked: string[] = []
  const status = new StatusDir({ uid: 1, gid: 2, timeNs: 5n }, [], { ...noNotices, invalidateEntry: (parent, name) => void asked.push(`${parent} ${Buffer.from(name).toString()}`) })
  const made = virtualDrive({}, { parts: new Map([['.borgfs', status]]) })
  tell(made, { a: 77n })
  const { ino: above } = made.walk('.borgfs/snapshots').attr, { ino } = made.walk(`.borgfs/snapshots/${snapshotName(77n)}`).attr
  const live = made.walk(`.borgfs/snapshots/${snapshotName(77n)}/live`).attr.ino
  t.is(made.list(live).length, 3)
  const { count } = status
  tell(made, {})
  t.is(made.list(live).length, 2)
  t.deepEqual(asked.sort(), [`${above} ${snapshotName(77n)}`, `${ino} live`].sort())
  made.fs.forget(live, 1)
  made.fs.forget(ino, 2)
  t.true(status.count < count)
  is(t, made.now(call => made.fs.getattr(live, undefined, call as never)), Errno.ESTALE)
})

test('an archive that is gone is let go of at its further places, and forgotten when the kernel has given back what it had there', t => {
  const made = make({ a: () => [item('d', { mode: directoryMode }), item('e')], b: () => [] })
  const place = `.borgfs/snapshots/a/${snapshotName(77n)}`
  // One for the archive's own directory, and one for d.
  const directory = made.walk(`${place}/d`).attr.ino, parent = made.walk('.borgfs/snapshots/a').attr.ino
  const root = made.walk(place).attr.ino
  tell(made, { b: 77n })
  made.notices.length = 0
  made.fs.tick(0)
  t.deepEqual(made.notices.sort(), [`entry ${parent} ${snapshotName(77n)}`, ...[root, inoOf(inodeRange.firstArchive, 0)].flatMap(of => [`entry ${of} d`, `entry ${of} e`])].sort())
  t.is(made.fs.counts.archives, 2)
  made.fs.forget(directory, 1)
  made.fs.forget(root, 2)
  t.is(made.fs.counts.archives, 1)
})

test('trees of versions that were replaced are let go of and forgotten', t => {
  const made = make({ one: () => [], two: () => [] })
  let shown = ['one', 'two']
  const seen: number[] = []
  for (let round = 0; round < 5; round++) {
    made.engine.trees.set(mergedId(shown), build([item('f/f.00001')], treeOptions()))
    const { ino } = made.walk('.borgfs/versions').attr
    // Two lookups: that of the directory, and this.
    const inner = made.walk('.borgfs/versions/f').attr.ino
    t.is(made.fs.counts.archives, shown.length)
    shown = shown.length === 2 ? ['two'] : ['one', 'two']
    made.notices.length = 0
    tell(made, Object.fromEntries(shown.map(name => [name, 77n])))
    made.fs.tick(round * 1e8)
    t.true(made.notices.includes(`entry ${made.walk('.borgfs').attr.ino} versions`))
    t.true(made.notices.includes(`entry ${ino} f`))
    made.fs.forget(inner, 1)
    made.fs.forget(ino, 2)
    t.is(made.fs.counts.archives, shown.length)
    is(t, made.now(call => made.fs.getattr(ino, undefined, call as never)), Errno.ESTALE)
    seen.push(ino)
  }
  t.is(new Set(seen).size, 5)
})
