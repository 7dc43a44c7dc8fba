import test, { type ExecutionContext } from 'ava'
import { pageBytes } from '../../src/fs/chunk-cache.js'
import { type AttrReply, type Call, copyBytes, LATER, type ReadBytes } from '../../src/fs/core.js'
import { handedHandle } from '../../src/fs/handed-files.js'
import { inodeRange, inoOf, rangeOf, rootIno } from '../../src/fs/inodes.js'
import type { Subtree } from '../../src/fs/subtree.js'
import { type Attr, type Entry, Errno, type Ino, type Opened } from '../../src/fs/types.js'
import { rootListingOf } from '../../src/fs/root-listing.js'
import { archiveInfo, build, call, Contents, directoryMode, item, linkMode } from '../helpers/mount-fixtures.js'
import { virtualDrive as make, type VirtualDrive } from '../helpers/virtual-drive.js'

function seeded(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length)
  let state = seed
  for (let at = 0; at < length; at++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    bytes[at] = state >>> 16
  }
  return bytes
}

function is(t: ExecutionContext, actual: unknown, expected: Errno): void {
  t.is(actual instanceof Errno ? actual.code : actual, expected.code)
}

test('the names in the root of an archive that are known are listed before its tree is there, as they are listed from it', (t) => {
  const items = [item('d/inner'), item('b', { size: 3 }), item('gone'), item('gone', { mode: linkMode, source: Buffer.from('b') }), item('\xff', { mode: 0o010600 }), item('hard', { source: Buffer.from('b') })]
  const made = make({ a: () => items })
  made.engine.heads.set('a', { facts: { comment: Buffer.alloc(0), hostname: Buffer.alloc(0), username: Buffer.alloc(0) }, root: undefined, listing: rootListingOf(build(items)) })
  const { ino } = made.walk('a').attr
  const read = (cookie: number, room: number) => {
    const found: [string, number, number, number, boolean][] = []
    const answer = made.fs.readdir(ino, 0, cookie, (name, { attr, nameOnly = false }, next) => {
      if (found.length >= room) return false
      found.push([Buffer.from(name).toString('latin1'), attr.ino, attr.mode >>> 12, next, nameOnly])
      return true
    }, call())
    t.is(answer, undefined)
    return found
  }
  t.deepEqual(made.fs.opendir(ino, call()), { fh: 0, keepCache: true })
  const asked = () => made.engine.asked.map(({ kind }) => kind).filter(kind => kind === 'tree').length
  // Nobody was ever given the last ones.
  const cookies = [0, ...read(0, 99).map(([, , , next]) => next), 3, 2 ** 40]
  t.is(asked(), 0, 'the listing comes first')
  t.deepEqual(read(cookies.at(-3)!, 99), [])
  t.is(asked(), 1, 'then the tree is on its way, though nobody needs it yet')
  const early = cookies.map(cookie => read(cookie, cookie === 0 ? 99 : 2))
  t.deepEqual(early[0]!.map(([name]) => name), ['.', '..', 'd', 'b', 'gone', 'Ã¿', 'hard'])
  t.true(early[0]!.slice(2).every(([, , , , nameOnly]) => nameOnly))
  t.is(asked(), 1)
  made.engine.answer()
  const late = cookies.map(cookie => read(cookie, cookie === 0 ? 99 : 2))
  t.deepEqual(early.map(rows => rows.map(row => row.slice(0, 4))), late.map(rows => rows.map(row => row.slice(0, 4))))
  t.false(late.flat().some(([, , , , nameOnly]) => nameOnly))
})

test('the root lists archives in the order of the manifest, and a tree is loaded on first entry only', (t) => {
  const made = make({ two: () => [item('b')], one: () => [item('a')] })
  t.deepEqual(made.list(rootIno).map(([name]) => name), ['.', '..', 'two', 'one'])
  const one = made.walk('one')
  t.like(one.attr, { mode: directoryMode, mtimeNs: 77n, nlink: 1 })
  t.false(made.engine.asked.some((request) => request.kind === 'tree'))
  t.deepEqual(made.list(one.attr.ino).map(([name]) => name), ['.', '..', 'a'])
  t.is(made.engine.asked.filter((request) => request.kind === 'tree').length, 1)
})

test('an archive that begins with the item . gives its directory those attributes before the tree is there', (t) => {
  const made = make({ a: () => [item('.', { mode: 0o040700, mtimeNs: 3n })] })
  const facts = { comment: Buffer.alloc(0), hostname: Buffer.alloc(0), username: Buffer.alloc(0) }
  made.engine.heads.set('a', { facts, root: { mode: 0o040700, uid: 10, gid: 20, mtimeNs: 3n, atimeNs: 3n, ctimeNs: 3n } })
  const before = made.walk('a').attr
  made.list(before.ino)
  t.deepEqual(made.walk('a').attr, before)
  t.like(before, { mode: 0o040700, mtimeNs: 3n })
  t.deepEqual(made.notices, [])
})

test('readdir goes on from any cookie', (t) => {
  const made = make({ a: () => Array.from({ length: 50 }, (_, index) => item(`f${index}`)) })
  const { ino } = made.walk('a').attr
  const all = made.list(ino)
  t.is(all.length, 52)
  for (const room of [1, 3, 7]) {
    const pieces: [string, number][] = []
    for (let cookie = 0; ;) {
      const piece = made.list(ino, cookie, room)
      if (piece.length === 0) break
      pieces.push(...piece)
      cookie = piece.at(-1)![1]
    }
    t.deepEqual(pieces, all)
  }
})

test('attributes in the listing are those of lookup', (t) => {
  const made = make({ a: () => [item('d', { mode: directoryMode }), item('f', { uid: 5, hardlinkMaster: true }), item('g', { source: Buffer.from('f') }), item('l', { mode: linkMode, source: Buffer.from('t') })] })
  const { ino } = made.walk('a').attr
  const seen = new Map<string, Attr>()
  made.now<void>((asked) => made.fs.readdir(ino, 0, 2, (name, entry) => {
    seen.set(Buffer.from(name).toString(), entry.attr)
    return true
  }, asked))
  for (const name of ['d', 'f', 'g', 'l']) t.deepEqual(seen.get(name), made.walk(`a/${name}`).attr)
  t.is(made.walk('a/f').attr.ino, made.walk('a/g').attr.ino)
  t.is(made.now<Uint8Array>((asked) => made.fs.readlink(made.walk('a/l').attr.ino, asked)).toString(), 't')
})

test('a single archive is the root itself', (t) => {
  const made = make({ a: (contents) => [item('d/f', { chunks: contents.list(Buffer.from('hello')) })] }, { view: { kind: 'archive' } })
  t.deepEqual(made.list(rootIno).map(([name]) => name), ['.', '..', 'd'])
  t.is(made.walk('d').attr.ino > rootIno, true)
  t.is(made.read('d/f', 0, 100).toString(), 'hello')
})

test('reads any range of a file of small and long chunks', (t) => {
  const pieces = [seeded(10, 1), seeded(pageBytes * 3 + 5, 2), seeded(pageBytes, 3), seeded(200_000, 4), seeded(1, 5)]
  const whole = Buffer.concat(pieces)
  const made = make({ a: (contents) => [item('f', { chunks: contents.list(...pieces) })] })
  t.true((made.read('a/f', 0, whole.length + 10) as Buffer).equals(whole))
  let state = 7
  for (let round = 0; round < 300; round++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    const offset = state % (whole.length + 20)
    const length = 1 + (state >>> 7) % 150_000
    t.true((made.read('a/f', offset, length) as Buffer).equals(whole.subarray(offset, offset + length)))
  }
})

test('content is right while the cache holds a fraction of it', (t) => {
  const pieces = Array.from({ length: 40 }, (_, index) => seeded(pageBytes * 2 + index, index + 1))
  const whole = Buffer.concat(pieces)
  const made = make({ a: (contents) => [item('f', { chunks: contents.list(...pieces) })] }, { view: { cacheBytes: 5 * pageBytes } })
  const { ino, fh } = made.open('a/f')
  let state = 99
  for (let round = 0; round < 400; round++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    const offset = state % whole.length
    const into = Buffer.alloc(1 + (state >>> 9) % 400_000)
    const answer = made.now<number | ReadBytes>((asked) => made.fs.read(ino, fh, offset, into, asked as Call<ReadBytes>))
    const bytes = into.subarray(0, typeof answer === 'number' ? answer : copyBytes(answer, into))
    t.true(Buffer.from(bytes).equals(whole.subarray(offset, offset + into.length)))
    t.true(made.fs.cache.size <= 5 * pageBytes)
  }
})

test('two readers of one chunk cause one load', (t) => {
  const made = make({ a: (contents) => [item('f', { chunks: contents.list(seeded(300_000, 1)) })] })
  const { ino, fh } = made.open('a/f')
  const before = made.engine.asked.length
  const first = call<ReadBytes>(), second = call<ReadBytes>()
  t.is(made.fs.read(ino, fh, 0, Buffer.alloc(10), first), LATER)
  t.is(made.fs.read(ino, fh, 200_000, Buffer.alloc(10), second), LATER)
  t.is(made.engine.asked.length, before + 1)
  made.engine.answer()
  t.true((first.later() as Buffer).equals(seeded(300_000, 1).subarray(0, 10)))
  t.true((second.later() as Buffer).equals(seeded(300_000, 1).subarray(200_000, 200_010)))
})

test('a damaged chunk is EIO for the reads that touch it, is told once, and is tried again', (t) => {
  const pieces = [seeded(1000, 1), seeded(1000, 2), seeded(100_000, 3)]
  const made = make({ 'an archive': (contents) => [item('dir/f', { chunks: contents.list(...pieces) })] })
  const hex = [...made.contents.byId.keys()]
  made.engine.broken.add(hex[1]!).add(hex[2]!)
  t.true((made.read('an archive/dir/f', 0, 1000) as Buffer).equals(pieces[0]!))
  is(t, made.read('an archive/dir/f', 500, 1000), Errno.EIO)
  is(t, made.read('an archive/dir/f', 1500, 10), Errno.EIO)
  is(t, made.read('an archive/dir/f', 50_000, 10), Errno.EIO)
  const errors = made.engine.log.lines.filter((line) => line.startsWith('error'))
  t.deepEqual(errors.map((line) => line.split(':').slice(0, 4).join(':')), [`error: an archive: dir/f: chunk ${hex[1]} cannot be read`, `error: an archive: dir/f: chunk ${hex[2]} cannot be read`])
  made.engine.broken.clear()
  t.true((made.read('an archive/dir/f', 0, 200_000) as Buffer).equals(Buffer.concat(pieces)))
})

test('a zero-patched file opens only where that is allowed', (t) => {
  const items = (contents: Contents) => [item('f', { chunks: contents.list(Buffer.alloc(5)), chunksHealthy: contents.list(Buffer.from('whole')) })]
  const strict = make({ a: items })
  is(t, strict.now((asked) => strict.fs.open(strict.walk('a/f').attr.ino, 0, asked as Call<Opened>)), Errno.EIO)
  t.true(strict.engine.log.lines[0]!.includes('allow_damaged_files'))
  const lax = make({ a: items }, { view: { allowDamagedFiles: true } })
  t.deepEqual(lax.read('a/f', 0, 10), Buffer.alloc(5))
})

test('reading files in archive order loads the coming ones in batches', (t) => {
  const count = 2000
  const made = make({ a: (contents) => Array.from({ length: count }, (_, index) => item(`f${index}`, { chunks: contents.list(seeded(500, index + 1)) })) })
  for (let index = 0; index < count; index++) t.true((made.read(`a/f${index}`, 0, 4096) as Buffer).equals(seeded(500, index + 1)))
  const asked = made.engine.asked.filter((request) => request.kind === 'chunks')
  t.true(asked.length < count / 100, `${asked.length} requests`)
})

/** As a kernel with a page cache that is empty at first. Returns how many files had to be asked for. */
function readInOrder(made: VirtualDrive, names: readonly string[], cached: Map<Ino, Buffer>, check: (name: string, bytes: Buffer) => void): number {
  let asked = 0
  for (const name of names) {
    const { ino, fh } = made.open(name)
    for (const [of, data] of made.given) cached.set(of, data)
    let bytes = cached.get(ino)
    if (!bytes) {
      asked++
      const into = Buffer.alloc(200_000)
      const answer = made.now<number | ReadBytes>((call) => made.fs.read(ino, fh, 0, into, call as Call<ReadBytes>))
      bytes = into.subarray(0, typeof answer === 'number' ? answer : copyBytes(answer, into))
      cached.set(ino, bytes)
    }
    check(name, bytes)
    made.fs.release(ino, fh)
  }
  return asked
}

test('files read in archive order are given to the kernel when they are opened', (t) => {
  const count = 1000
  // Of all kinds: nothing, a few bytes, several chunks, one that is too long to be given.
  const sizes = (index: number) => (index % 50 === 0 ? [] : index % 7 === 0 ? [3000, 70_000, 1] : index === 501 ? [150_000] : [500 + index])
  const bytesOf = (index: number) => sizes(index).map((size, at) => seeded(size, index * 3 + at + 1))
  const made = make({ a: (contents) => Array.from({ length: count }, (_, index) => item(`f${index}`, { chunks: contents.list(...bytesOf(index)) })) }, { gives: true, view: { cacheBytes: 4 << 20 } })
  const names = Array.from({ length: count }, (_, index) => `a/f${index}`)
  const cached = new Map<Ino, Buffer>()
  const check = (name: string, bytes: Buffer) => t.true(bytes.equals(Buffer.concat(bytesOf(Number(name.slice(3))))), name)
  const asked = readInOrder(made, names, cached, check)
  t.true(asked < count / 10, `${asked} files were asked for`)
  t.true(made.given.size > count * 0.8)
  t.false(made.given.has(made.walk('a/f501').attr.ino))
  // Once more: the kernel asks for nothing, so nothing is loaded and given for long.
  made.given.clear()
  const requests = made.engine.asked.length
  t.is(readInOrder(made, names, cached, check), 0)
  t.true(made.given.size <= 128, `${made.given.size} files were given again`)
  t.true(made.engine.asked.length - requests < 10)
})

test('a file that somebody has open is not given to the kernel: its pages may be locked by a read', (t) => {
  const made = make({ a: (contents) => Array.from({ length: 20 }, (_, index) => item(`f${index}`, { chunks: contents.list(seeded(500, index + 1)) })) }, { gives: true })
  const open = made.open('a/f10')
  const names = Array.from({ length: 20 }, (_, index) => `a/f${index}`)
  readInOrder(made, names, new Map(), () => undefined)
  t.true(made.given.has(made.walk('a/f9').attr.ino))
  t.false(made.given.has(open.ino))
  made.fs.release(open.ino, open.fh)
  made.given.clear()
  readInOrder(made, names, new Map(), () => undefined)
  t.true(made.given.has(open.ino))
})

/** Twenty files, read in order by a kernel that keeps what it is given; the rows of those that were handed out before they were opened. */
function handedOut(made: VirtualDrive): string[] {
  const names = Array.from({ length: 20 }, (_, index) => `a/f${String(index).padStart(2, '0')}`)
  readInOrder(made, names.slice(0, 5), new Map(), () => undefined)
  return names.filter(name => made.given.has(made.walk(name).attr.ino)).slice(2)
}

const twentyFiles = (contents: Contents) => Array.from({ length: 20 }, (_, index) => item(`f${String(index).padStart(2, '0')}`, { chunks: contents.list(seeded(500, index + 1)) }))

test('what was handed out is read correctly when the kernel asks after all, and nothing is handed out while such a file is open', (t) => {
  const made = make({ a: twentyFiles }, { gives: true })
  const [one, other, third] = handedOut(made)
  const { ino, fh } = made.open(one!)
  t.is(fh, handedHandle)
  const second = made.open(other!)
  const content = (index: string) => seeded(500, Number(index.slice(3)) + 1)
  const read = (of: Ino, handle: number, offset: number): Buffer => {
    const into = Buffer.alloc(4096)
    const answer = made.now<number | ReadBytes>(asked => made.fs.read(of, handle, offset, into, asked as Call<ReadBytes>))
    return typeof answer === 'number' ? into.subarray(0, answer) : Buffer.concat([answer as Uint8Array].flat())
  }
  // Its end was read, as programs do: nothing was lost by that.
  t.is(read(ino, fh, 500).length, 0)
  const kept = made.open(third!)
  t.is(kept.fh, handedHandle)
  made.fs.release(kept.ino, kept.fh)
  t.deepEqual(read(ino, fh, 0), content(one!))
  t.deepEqual(read(second.ino, second.fh, 100), content(other!).subarray(100))
  made.given.clear()
  const names = Array.from({ length: 20 }, (_, index) => `a/f${String(index).padStart(2, '0')}`)
  readInOrder(made, names, new Map(), () => undefined)
  t.is(made.given.size, 0, 'pages of an open file may be locked')
  made.fs.release(ino, fh)
  made.fs.release(second.ino, second.fh)
  t.deepEqual(made.fs.counts, { archives: 1, openFiles: 0 })
  readInOrder(made, names, new Map(), () => undefined)
  t.true(made.given.size > 10)
})

test('what was handed out and is open stays readable when the archive goes', (t) => {
  const made = make({ a: twentyFiles, b: () => [] }, { gives: true })
  const [one] = handedOut(made)
  const { ino, fh } = made.open(one!)
  made.engine.client.deliver({ type: 'archives', archives: [archiveInfo('b')] })
  t.deepEqual(made.fs.counts, { archives: 2, openFiles: 1 })
  const into = Buffer.alloc(500)
  const answer = made.now<number | ReadBytes>(asked => made.fs.read(ino, fh, 0, into, asked as Call<ReadBytes>))
  t.deepEqual(typeof answer === 'number' ? into.subarray(0, answer) : Buffer.concat([answer as Uint8Array].flat()), seeded(500, Number(one!.slice(3)) + 1))
  made.fs.release(ino, fh)
  t.is(made.fs.counts.openFiles, 0)
  is(t, made.now(asked => made.fs.read(ino, fh, 0, Buffer.alloc(500), asked as Call<ReadBytes>)), Errno.EBADF)
})

test('a damaged file is not handed out, and neither is one that the kernel does not know', (t) => {
  const damaged = (contents: Contents) => twentyFiles(contents).map((file, index) => (index === 8 ? { ...file, chunksHealthy: contents.list(seeded(500, 99)) } : file))
  const made = make({ a: damaged }, { gives: true })
  made.unknown = ino => ino === made.walk('a/f12').attr.ino
  const names = handedOut(made)
  t.true(names.includes('a/f07') && names.includes('a/f09') && names.includes('a/f11'))
  t.false(names.includes('a/f08') || names.includes('a/f12') || names.includes('a/f13'))
  is(t, made.now((asked: Call<Opened>) => made.fs.open(made.walk('a/f08').attr.ino, 0, asked)), Errno.EIO)
})

test('files that are not read in order are not given to the kernel', (t) => {
  const made = make({ a: (contents) => Array.from({ length: 200 }, (_, index) => item(`f${index}`, { chunks: contents.list(seeded(500, index + 1)) })) }, { gives: true })
  readInOrder(made, Array.from({ length: 200 }, (_, index) => `a/f${(index * 77) % 200}`), new Map(), () => undefined)
  t.is(made.given.size, 0)
})

test('sequential reading of a long file loads ahead, jumping about does not', (t) => {
  const pieces = Array.from({ length: 20 }, (_, index) => seeded(pageBytes * 4, index + 1))
  const made = make({ a: (contents) => [item('f', { chunks: contents.list(...pieces) })] }, { view: { cacheBytes: 8 * 1024 * 1024 } })
  const { ino, fh } = made.open('a/f')
  const requests = () => made.engine.asked.filter((request) => request.kind === 'chunks').length
  const read = (offset: number) => made.now((asked) => made.fs.read(ino, fh, offset, Buffer.alloc(4096), asked as Call<ReadBytes>))
  for (const chunk of [3, 9, 15, 6]) {
    const before = requests()
    read(chunk * pageBytes * 4 + 1000)
    t.is(requests(), before + 1)
  }
  const other = made.open('a/f')
  for (let offset = 0; offset < 3 * pageBytes * 4; offset += pageBytes) made.now((asked) => made.fs.read(ino, other.fh, offset, Buffer.alloc(pageBytes), asked as Call<ReadBytes>))
  const asked = requests()
  read(4 * pageBytes * 4)
  t.is(requests(), asked, 'the chunk after the reader was there already')
})

test('chunks decoded for reads that jump about are offered to the kernel in whole pages', (t) => {
  const pieces = Array.from({ length: 20 }, (_, index) => seeded(300_001, index + 1))
  const whole = Buffer.concat(pieces)
  const made = make({ a: (contents) => [item('f', { chunks: contents.list(...pieces) })] })
  const { ino, fh } = made.open('a/f')
  for (const chunk of [12, 3, 9, 15, 19]) made.now((asked) => made.fs.read(ino, fh, chunk * 300_001 + 100_000, Buffer.alloc(4096), asked as Call<ReadBytes>))
  t.true(made.stored.length >= 3)
  for (const { offset, data } of made.stored) {
    t.is(offset % 4096, 0)
    t.true(data.length % 4096 === 0 || offset + data.length === whole.length)
    t.true(data.equals(whole.subarray(offset, offset + data.length)))
  }
})

test('archives come and go, and what is open stays', (t) => {
  const made = make({ one: (contents) => [item('f', { chunks: contents.list(Buffer.from('kept')) })], two: () => [] })
  const { ino, fh } = made.open('one/f')
  made.engine.trees.set('three', build([item('new')]))
  made.engine.client.deliver({ type: 'archives', archives: [archiveInfo('two'), archiveInfo('three')] })
  t.deepEqual(made.list(rootIno).map(([name]) => name).slice(2), ['two', 'three'])
  t.deepEqual(made.notices, [`entry ${rootIno} one`, `entry ${rootIno} three`, `inode ${rootIno}`])
  is(t, made.now((asked) => made.fs.lookup(rootIno, Buffer.from('one'), asked as Call<Entry>)), Errno.ENOENT)
  const bytes = made.now<ReadBytes>((asked) => made.fs.read(ino, fh, 0, Buffer.alloc(9), asked))
  t.is(Buffer.from(bytes as Uint8Array).toString(), 'kept')
  t.is(made.walk('three/new').attr.uid, 10)
  t.deepEqual(made.list(rootIno, rangeOf(made.walk('two').attr.ino)).map(([name]) => name), ['three'])
})

test('an archive that is gone is forgotten when the kernel has given back all it was given, which it is asked for', (t) => {
  const made = make({ one: (contents) => [item('d/f', { chunks: contents.list(Buffer.from('kept')) }), item('e')], two: () => [] })
  const [root, directory] = [made.walk('one').attr.ino, made.walk('one/d').attr.ino]
  const { ino, fh } = made.open('one/d/f')
  // One for each step of each walk, and one of a listing.
  made.fs.remember(root)
  const given = new Map([[root, 4], [directory, 2], [ino, 1]])
  made.engine.client.deliver({ type: 'archives', archives: [archiveInfo('two')] })
  t.is(made.fs.counts.archives, 2)
  made.notices.length = 0
  made.fs.tick(0)
  t.deepEqual(made.notices, [], 'a file is open')
  made.fs.forget(ino, given.get(ino)!)
  made.fs.release(ino, fh)
  for (const nowMs of [10, 500, 1500, 3100, 3600]) made.fs.tick(nowMs)
  const asked = [`entry ${root} d`, `entry ${root} e`]
  t.deepEqual(made.notices, [...asked, ...asked, ...asked])
  made.fs.forget(directory, given.get(directory)!)
  made.fs.forget(root, given.get(root)! - 1)
  t.deepEqual(made.fs.counts, { archives: 2, openFiles: 0 })
  made.fs.forget(root, 1)
  t.deepEqual(made.fs.counts, { archives: 1, openFiles: 0 })
  is(t, made.now((later) => made.fs.getattr(root, undefined, later as Call<AttrReply>)), Errno.ESTALE)
  // What nobody ever looked at.
  made.engine.client.deliver({ type: 'archives', archives: [] })
  t.is(made.fs.counts.archives, 0)
})

test('an archive that is gone before its tree came is forgotten as well', (t) => {
  const made = make({ one: () => [item('d/f')] })
  const root = made.walk('one').attr.ino
  const asked = call<Entry>()
  t.is(made.fs.lookup(root, Buffer.from('d'), asked), LATER)
  made.engine.client.deliver({ type: 'archives', archives: [] })
  made.engine.answer()
  t.true(asked.later() !== undefined && !(asked.later() instanceof Errno))
  made.notices.length = 0
  made.fs.tick(0)
  t.deepEqual(made.notices, [`entry ${root} d`])
})

test('an archive that was gone before what somebody waited for could be had is forgotten as well', (t) => {
  const made = make({ one: () => [item('d/f')] })
  const { client } = made.engine
  const asked = call<Entry>()
  t.is(made.fs.lookup(rootIno, Buffer.from('one'), asked), LATER)
  client.deliver({ type: 'archives', archives: [] })
  t.is(made.fs.counts.archives, 1, 'somebody waits')
  client.close()
  is(t, asked.later(), Errno.EIO)
  made.fs.tick(0)
  t.is(made.fs.counts.archives, 0)
})

test('a replaced archive of the same name has other inodes', (t) => {
  const made = make({ a: () => [item('old')] })
  const before = made.walk('a').attr.ino
  made.engine.trees.set('new id', build([item('fresh')]))
  made.engine.client.deliver({ type: 'archives', archives: [archiveInfo('a', 'new id')] })
  t.not(made.walk('a').attr.ino, before)
  t.is(made.list(made.walk('a').attr.ino).at(-1)![0], 'fresh')
})

test('an archive of a time that the kernel does not have is of the nearest that it has', t => {
  for (const [timeNs, shown] of [[10n ** 20n, 2n ** 63n - 1n], [-(10n ** 20n), -(2n ** 63n)]] as const) {
    const { walk } = make({ a: () => [] }, { times: { a: timeNs } })
    t.is(walk('a').attr.mtimeNs, shown)
  }
})

test('listing needs no chunk rows; the first open asks for them, once, and what they cannot be is EIO', (t) => {
  const made = make({ a: (contents) => [item('d/f', { chunks: contents.list(Buffer.from('one'), Buffer.from('two')) }), item('d/g', { chunks: contents.list(Buffer.from('three')) })] })
  const whole = made.engine.trees.get('a')!
  const { engine } = made
  engine.trees.set('a', { ...whole, chunks: undefined })
  engine.laterChunks.set('a', new Uint8Array(40))
  const directory = made.walk('a/d').attr.ino
  t.deepEqual(made.list(directory).map(([name]) => name), ['.', '..', 'f', 'g'])
  const { ino } = made.walk('a/d/f').attr
  t.is(engine.asked.filter(({ kind }) => kind === 'tree-chunks').length, 0)
  is(t, made.now((asked: Call<Opened>) => made.fs.open(ino, 0, asked)), Errno.EIO)
  t.deepEqual(engine.log.lines, ['error: Archive a cannot be read: its chunks are not those of its files'])
  engine.laterChunks.set('a', whole.chunks!)
  const [first, second] = [call<Opened>(), call<Opened>()]
  t.is(made.fs.open(ino, 0, first), LATER)
  t.is(made.fs.open(made.walk('a/d/g').attr.ino, 0, second), LATER)
  engine.answer()
  t.is(engine.asked.filter(({ kind }) => kind === 'tree-chunks').length, 2)
  t.is((second.later() as Opened).fh, (first.later() as Opened).fh + 1)
  const bytes = made.now<ReadBytes>((asked) => made.fs.read(ino, (first.later() as Opened).fh, 0, Buffer.alloc(6), asked))
  t.is(Buffer.concat([bytes as Uint8Array].flat()).toString(), 'onetwo')
})

test('an archive whose metadata is damaged is EIO for its own directory only', (t) => {
  const made = make({ good: () => [item('f')], bad: () => [item('f')] })
  made.engine.trees.delete('bad')
  is(t, made.walk('bad/f'), Errno.EIO)
  t.is(made.walk('good/f').attr.uid, 10)
  t.deepEqual(made.engine.log.lines, ['error: Archive bad cannot be read: metadata damaged'])
})

test('nothing in an archive can be written', (t) => {
  const made = make({ a: () => [item('f')] })
  const dir = made.walk('a').attr.ino, file = made.walk('a/f').attr.ino
  const name = Buffer.from('x')
  const any = call() as never
  is(t, made.fs.open(file, 1, any), Errno.EROFS)
  is(t, made.fs.create(dir, name, 0o644, 0, any), Errno.EROFS)
  is(t, made.fs.mkdir(dir, name, 0o755, any), Errno.EROFS)
  is(t, made.fs.mkdir(rootIno, name, 0o755, any), Errno.EROFS)
  for (const left of ['.Trash-0', '.Trash', '.DS_Store', '$RECYCLE.BIN']) is(t, made.fs.mkdir(rootIno, Buffer.from(left), 0o755, any), Errno.EPERM)
  is(t, made.fs.unlink(dir, Buffer.from('f'), any), Errno.EROFS)
  is(t, made.fs.rename(dir, Buffer.from('f'), dir, name, 0, any), Errno.EROFS)
  is(t, made.fs.link(file, dir, name, any), Errno.EROFS)
  is(t, made.fs.symlink(dir, name, name, any), Errno.EROFS)
  is(t, made.fs.mknod(dir, name, 0o644, 0, any), Errno.EROFS)
  is(t, made.fs.setattr(file, { mode: 0 }, any), Errno.EROFS)
  is(t, made.fs.setxattr(file, name, name, 0, any), Errno.EROFS)
  is(t, made.fs.removexattr(file, name, any), Errno.EROFS)
  is(t, made.fs.write(file, 1, 0, name, any), Errno.EROFS)
})

test('xattrs are read as stored, those of the drive are hidden from the list', (t) => {
  const made = make({ a: (contents) => [item('f', { xattrs: new Map([['user.x', Buffer.from('v')]]), chunks: contents.list(Buffer.from('c')) })] })
  const { ino } = made.walk('a/f').attr
  const get = (where: Ino, name: string) => made.now<Uint8Array>((asked) => made.fs.getxattr(where, Buffer.from(name), asked))
  t.is(get(ino, 'user.x').toString(), 'v')
  is(t, get(ino, 'user.y'), Errno.ENODATA)
  t.deepEqual(made.now<Uint8Array[]>((asked) => made.fs.listxattr(ino, asked)).map(String), ['user.x'])
  t.is(get(ino, 'user.borgfs.chunks').toString(), `${[...made.contents.byId.keys()][0]} 1\n`)
  const archive = made.walk('a').attr.ino
  t.is(get(archive, 'user.borgfs.archive.comment').toString(), 'a comment')
  t.is(get(archive, 'user.borgfs.archive.id').toString(), 'a')
  is(t, get(archive, 'user.borgfs.archive.nothing'), Errno.ENODATA)
})

test('other parts of the root get their operations, and archives of their names step aside', (t) => {
  const range = inodeRange.incoming
  const attr = { ino: inoOf(range, 0), size: 0, blocks: 0, mode: directoryMode, nlink: 2, uid: 0, gid: 0, rdev: 0, atimeNs: 0n, mtimeNs: 0n, ctimeNs: 0n, blksize: 4096 }
  const seen: string[] = []
  const part: Subtree = {
    range, root: attr.ino,
    rootEntry: () => ({ attr, entryTtlMs: 1, attrTtlMs: 1 }),
    lookup: () => Errno.ENOENT,
    getattr: () => ({ attr, attrTtlMs: 1 }),
    readdir: () => undefined,
    mkdir: () => ({ attr, entryTtlMs: 1, attrTtlMs: 1 }),
    rename: () => undefined,
    renameToRoot: (_parent, name, newName) => void seen.push(`${name} -> ${newName}`),
  }
  const made = make({ incoming: () => [item('f')], other: () => [] }, { parts: new Map([['incoming', part]]) })
  t.deepEqual(made.list(rootIno).map(([name]) => name), ['.', '..', 'incoming', 'incoming~', 'other'])
  t.is(made.walk('incoming').attr.ino, attr.ino)
  t.is(made.walk('incoming~/f').attr.uid, 10)
  t.deepEqual(made.engine.log.lines, ['warning: Archive incoming is shown as incoming~.'])
  const any = call() as never
  t.false(made.fs.mkdir(attr.ino, Buffer.from('x'), 0o755, any) instanceof Errno)
  is(t, made.fs.rename(attr.ino, Buffer.from('x'), rootIno, Buffer.from('other'), 0, any), Errno.EEXIST)
  t.is(made.fs.rename(attr.ino, Buffer.from('x'), rootIno, Buffer.from('fresh'), 0, any), undefined)
  t.deepEqual(seen, ['x -> fresh'])
  is(t, made.fs.rename(attr.ino, Buffer.from('x'), made.walk('other').attr.ino, Buffer.from('y'), 0, any), Errno.EROFS)
  is(t, made.fs.rename(made.walk('other').attr.ino, Buffer.from('f'), attr.ino, Buffer.from('y'), 0, any), Errno.EROFS)
  is(t, made.fs.unlink(attr.ino, Buffer.from('x'), any), Errno.EROFS)
})

test('statfs tells of the disk below the repository', (t) => {
  const made = make({ a: () => [] })
  t.is(made.now<{ blocks: number }>((asked) => made.fs.statfs(rootIno, asked as never)).blocks, 10)
})

test('requests end when the engine goes', (t) => {
  const made = make({ a: () => [item('f')] })
  const asked = call<Entry>()
  t.is(made.fs.lookup(made.walk('a').attr.ino, Buffer.from('f'), asked), LATER)
  made.engine.client.close()
  is(t, asked.later(), Errno.EIO)
})
