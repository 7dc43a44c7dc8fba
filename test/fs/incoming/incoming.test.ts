import test, { type ExecutionContext } from 'ava'
import { cpSync, existsSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { type AttrReply, type Call, LATER } from '../../../src/fs/core.js'
import { files, replaceFiles } from '../../../src/engine/platform/files.js'
import { Extents } from '../../../src/fs/incoming/extents.js'
import { Incoming } from '../../../src/fs/incoming/incoming.js'
import { type MadeArchives, replay } from '../../../src/fs/incoming/journal-replay.js'
import { Nodes, rootId } from '../../../src/fs/incoming/nodes.js'
import { Staging } from '../../../src/fs/incoming/staging.js'
import { type Entry, Errno, type Opened } from '../../../src/fs/types.js'
import { call, Contents, FakeEngine } from '../../helpers/mount-fixtures.js'
import { fillDisk, hostError } from '../../helpers/full-disk.js'
import { Sandbox } from '../../helpers/sandbox.js'
import { noNotices } from '../../../src/fs/fuse/transport.js'

function make(sandbox: Sandbox, { maxBytes = 1000, notices = noNotices, putsOff = false } = {}) {
  const engine = new FakeEngine(new Contents())
  const incoming = new Incoming({
    folder: sandbox.path('staging'), maxBytes, place: 'incoming', archiveIds: new Set(), settleMs: 1e9, lingerMs: 1e9, putsOff,
    rootFacts: { mode: 0o040755, uid: 0, gid: 0, rdev: 0, atimeNs: 0n, mtimeNs: 0n, ctimeNs: 0n },
  }, engine.client, notices, { state() {} }, () => {
    throw new Error('no chunks here')
  })
  return { engine, incoming }
}

test('what changed is made durable a few seconds later without being asked, once, and not before the last time ended', t => {
  const sandbox = new Sandbox('incoming-sync')
  try {
    const { engine, incoming } = make(sandbox)
    const syncs = () => engine.asked.filter(({ kind }) => kind === 'sync-folder').length
    const soon = performance.now()
    incoming.tick(soon + 60_000)
    t.is(syncs(), 0)
    const made = incoming.mkdir(incoming.root, Buffer.from('t'), 0o755, call<Entry>()) as Entry
    incoming.tick(soon)
    t.is(syncs(), 0)
    incoming.tick(soon + 4000)
    t.is(syncs(), 1)
    t.like(engine.asked.at(-1)!, { folder: sandbox.path('staging') })
    incoming.mkdir(made.attr.ino, Buffer.from('d'), 0o755, call<Entry>())
    incoming.tick(soon + 60_000)
    t.is(syncs(), 1)
    engine.answer()
    incoming.tick(soon + 60_000)
    t.is(syncs(), 2)
    engine.answer()
    incoming.tick(soon + 90_000)
    t.is(syncs(), 2)
    incoming.destroy()
  } finally {
    sandbox.close()
  }
})

test('what was removed goes when the journal that says so is on disk, and a sync that began before does not count', t => {
  const sandbox = new Sandbox('incoming-needless')
  try {
    const { engine, incoming } = make(sandbox)
    const tree = incoming.mkdir(incoming.root, Buffer.from('t'), 0o755, call<Entry>()) as Entry
    const create = (name: string): void => {
      const { entry, opened } = incoming.create(tree.attr.ino, Buffer.from(name), 0o644, 2, call()) as { entry: Entry; opened: { fh: number } }
      // Not from the front, so that it gets a spool file of its own.
      incoming.write(entry.attr.ino, opened.fh, 1, Buffer.from(name), call<number>() as Call<number>)
      incoming.release(entry.attr.ino, opened.fh)
    }
    const spooled = (): number => readdirSync(sandbox.path('staging', 'spool')).length
    const soon = performance.now()
    create('a')
    create('b')
    incoming.tick(soon + 4000)
    // Under way.
    incoming.unlink(tree.attr.ino, Buffer.from('a'), call<void>() as Call<void>)
    incoming.rename(tree.attr.ino, Buffer.from('b'), tree.attr.ino, Buffer.from('c'), 0, call<void>() as Call<void>)
    engine.answer()
    t.is(spooled(), 2)
    create('d')
    incoming.rename(tree.attr.ino, Buffer.from('d'), tree.attr.ino, Buffer.from('c'), 0, call<void>() as Call<void>)
    t.is(spooled(), 3)
    incoming.tick(performance.now() + 60_000)
    t.is(spooled(), 3)
    engine.answer()
    t.is(spooled(), 1)
    t.like(engine.asked.at(-1)!, { kind: 'sync-folder' })
    incoming.tick(performance.now() + 60_000)
    t.is(engine.asked.filter(({ kind }) => kind === 'sync-folder').length, 2, 'no more than needed')
    incoming.destroy()
  } finally {
    sandbox.close()
  }
})

test('a place beyond what numbers tell exactly is too far for a file, and what is at its beginning stays', t => {
  const sandbox = new Sandbox('incoming-far')
  try {
    const { incoming } = make(sandbox, { maxBytes: Infinity })
    const { entry, opened } = incoming.create(incoming.root, Buffer.from('file'), 0o644, 2, call()) as { entry: Entry; opened: Opened }
    const { ino } = entry.attr, { fh } = opened
    const write = (offset: number, text: string) => incoming.write(ino, fh, offset, Buffer.from(text), call<number>() as Call<number>)
    t.is(write(0, 'begins'), 6)
    t.is(write(6, ' so'), 3)
    for (const far of [2 ** 53, 2 ** 53 + 2, 2 ** 60, 2 ** 63 - 4096]) {
      t.is(write(far, 'wild'), Errno.EFBIG)
      t.is(incoming.setattr(ino, { size: far }, call()), Errno.EFBIG)
      for (const mode of [0, 1, 3, 16]) t.is(incoming.fallocate(ino, fh, mode, far - 4096, 8192, call<void>() as Call<void>), Errno.EFBIG)
      const into = Buffer.alloc(8)
      t.is(incoming.read(ino, fh, far, into, call()), 0)
    }
    const into = Buffer.alloc(20)
    t.is(incoming.read(ino, fh, 0, into, call()), 9)
    t.is(into.toString('latin1', 0, 9), 'begins so')
    incoming.destroy()
  } finally {
    sandbox.close()
  }
})

test('loose files have a state from the first one on, also after there were none', t => {
  const sandbox = new Sandbox('incoming-loose')
  try {
    const { incoming } = make(sandbox)
    const state = () => incoming.getxattr(incoming.root, Buffer.from('user.borgfs.state'))
    const create = (): void => void incoming.mknod(incoming.root, Buffer.from('loose'), 0o100644, 0, call<Entry>())
    t.is(state(), Errno.ENODATA)
    create()
    t.true(Buffer.isBuffer(state()))
    incoming.unlink(incoming.root, Buffer.from('loose'), call<void>() as Call<void>)
    incoming.tick(performance.now())
    t.is(state(), Errno.ENODATA)
    // Who unmounts at once wants to hear what it was saved as.
    create()
    t.true(Buffer.isBuffer(state()))
    incoming.destroy()
  } finally {
    sandbox.close()
  }
})

test('the journal of an empty box is emptied when it is long, nothing was staged meanwhile, and the folder is durable', t => {
  const sandbox = new Sandbox('incoming-journal')
  try {
    const { engine, incoming } = make(sandbox)
    const bytes = (): number => statSync(sandbox.path('staging', 'journal')).size
    const fill = (): void => {
      const { attr } = incoming.mkdir(incoming.root, Buffer.from('t'), 0o755, call<Entry>()) as Entry
      for (let round = 0; round < 20; round++) incoming.setxattr(attr.ino, Buffer.from('user.a'), Buffer.alloc(60_000, round), 0, call<void>() as Call<void>)
      incoming.rmdir(incoming.root, Buffer.from('t'), call<void>() as Call<void>)
    }
    /** What follows from the last change: all of it is made durable, and then the folder is asked for. */
    const settle = (): void => {
      for (let round = 0; round < 3; round++) {
        incoming.tick(performance.now() + 60_000)
        if (engine.asked.at(-1)!.kind === 'sync') return
        engine.answer()
      }
    }
    fill()
    t.true(bytes() > 1 << 20)
    settle()
    t.is(engine.asked.at(-1)!.kind, 'sync')
    t.true(bytes() > 1 << 20, 'the folder is not durable yet')
    incoming.mkdir(incoming.root, Buffer.from('new'), 0o755, call<Entry>())
    engine.answer()
    t.true(bytes() > 1 << 20, 'something is staged')
    incoming.rmdir(incoming.root, Buffer.from('new'), call<void>() as Call<void>)
    settle()
    engine.answer()
    t.is(bytes(), 0)
    incoming.mkdir(incoming.root, Buffer.from('later'), 0o755, call<Entry>())
    t.true(bytes() > 0 && bytes() < 1000)
    incoming.destroy()
  } finally {
    sandbox.close()
  }
})

test('a mark that was left of an archive which the journal knows is not about a new tree of the same name', t => {
  const sandbox = new Sandbox('incoming-mark')
  try {
    const options = {
      folder: sandbox.path('staging'), maxBytes: undefined, place: 'incoming' as const, archiveIds: new Set(['ab'.repeat(32)]),
      rootFacts: { mode: 0o040755, uid: 0, gid: 0, rdev: 0, atimeNs: 0n, mtimeNs: 0n, ctimeNs: 0n },
    }
    const made = { name: 'archive', id: 'ab'.repeat(32), tree: 't' }
    const addTree = (staging: Staging): void => {
      const node = staging.nodes.add(staging.nodes.get(rootId)!, 't', { ...options.rootFacts })
      staging.journal.created(node, rootId, 't')
    }
    const finished = { tree: 't', archive: made.id, archiveName: 'archive' }
    const first = new Staging(options)
    addTree(first)
    first.close()
    // Killed before the journal heard of it.
    const second = new Staging({ ...options, finished })
    t.is(second.nodes.child(second.nodes.get(rootId)!, 't'), undefined)
    addTree(second)
    second.journal.committed('t', made)
    second.drop('t')
    addTree(second)
    second.close()
    const third = new Staging({ ...options, finished })
    t.truthy(third.nodes.child(third.nodes.get(rootId)!, 't'))
    third.close()
  } finally {
    sandbox.close()
  }
})

test('a series that was open stays one that is to be opened until it is, however often the mount is killed before', t => {
  const sandbox = new Sandbox('incoming-reopened')
  try {
    const made = { name: 's-1', id: 'ab'.repeat(32), tree: 's' }
    const facts = { mode: 0o040755, uid: 0, gid: 0, rdev: 0, atimeNs: 0n, mtimeNs: 0n, ctimeNs: 0n }
    const options = { folder: sandbox.path('staging'), maxBytes: undefined, rootFacts: facts, archiveIds: new Set([made.id]), place: 'live' as const, newest: () => made.id }
    const first = new Staging(options)
    const top = first.nodes.add(first.nodes.get(rootId)!, 's', facts)
    first.journal.created(top, rootId, 's')
    first.journal.committed('s', made)
    first.close()
    for (let start = 0; start < 3; start++) {
      const later = new Staging(options)
      t.deepEqual([...later.toOpen], ['s'], `start ${start}`)
      later.close()
    }
    // Closed by somebody it is not opened again.
    const closing = new Staging(options)
    closing.journal.forgotten('s')
    closing.close()
    const last = new Staging(options)
    t.deepEqual([...last.toOpen], [])
    last.close()
  } finally {
    sandbox.close()
  }
})

test('staging is bounded, and what is removed makes room again', t => {
  const sandbox = new Sandbox('incoming-bound')
  try {
    const { incoming } = make(sandbox)
    const tree = incoming.mkdir(incoming.root, Buffer.from('t'), 0o755, call<Entry>()) as Entry
    const write = (name: string, bytes: number): unknown => {
      const { entry, opened } = incoming.create(tree.attr.ino, Buffer.from(name), 0o644, 2, call()) as { entry: Entry; opened: { fh: number } }
      const written = incoming.write(entry.attr.ino, opened.fh, 0, Buffer.alloc(bytes, 1), call<number>() as Call<number>)
      incoming.release(entry.attr.ino, opened.fh)
      return written
    }
    t.is(write('a', 600), 600)
    t.is(write('b', 600), Errno.ENOSPC)
    incoming.unlink(tree.attr.ino, Buffer.from('a'), call<void>())
    t.is(write('c', 900), 900)
    incoming.destroy()
  } finally {
    sandbox.close()
  }
})

test('a size that is set takes no room, what is written into it does, and so after a restart', t => {
  const sandbox = new Sandbox('incoming-sparse')
  try {
    let { incoming } = make(sandbox, { maxBytes: 1 << 20 })
    const { mkdir, create } = asker(incoming)
    const tree = mkdir('t')
    const { ino, fh } = create(tree, 'sparse')
    const write = (at: number, bytes: number) => {
      const answer = incoming.write(ino, fh, at, Buffer.alloc(bytes, 1), call<number>() as Call<number>)
      // Held up for the cutter.
      return answer === LATER ? bytes : answer
    }
    t.false(incoming.setattr(ino, { size: 2 ** 40 }, call()) instanceof Errno)
    t.is(write(2 ** 39, 400_000), 400_000)
    t.is(write(2 ** 41, 400_000), 400_000)
    t.is(write(2 ** 39 + 400_000, 400_000), Errno.ENOSPC)
    t.is(write(2 ** 39, 400_000), 400_000, 'what is there already')
    t.is(incoming.fallocate(ino, fh, 0, 0, 400_000, call()), Errno.ENOSPC)
    t.falsy(incoming.fallocate(ino, fh, 3, 2 ** 39, 400_000, call()))
    t.is(write(2 ** 39 + 400_000, 400_000), 400_000)
    incoming.release(ino, fh)
    incoming.destroy()
    ;({ incoming } = make(sandbox, { maxBytes: 1 << 20 }))
    const next = asker(incoming), again = incoming.lookup(incoming.root, Buffer.from('t'), call<Entry>()) as Entry
    const other = next.create(again.attr.ino, 'other')
    const more = (bytes: number) => incoming.write(other.ino, other.fh, 5, Buffer.alloc(bytes, 1), call<number>() as Call<number>)
    t.is(more(400_000), Errno.ENOSPC)
    t.falsy(next.unlink(again.attr.ino, 'sparse'))
    t.is(more(900_000), 900_000)
    incoming.release(other.ino, other.fh)
    incoming.destroy()
  } finally {
    sandbox.close()
  }
})

test('small files are handed to the cutter in whole batches, and what is less half a second later', t => {
  const sandbox = new Sandbox('incoming-batches')
  try {
    const { engine, incoming } = make(sandbox, { maxBytes: 1 << 20 })
    const tree = incoming.mkdir(incoming.root, Buffer.from('t'), 0o755, call<Entry>()) as Entry
    const batches = (): number[] => engine.asked.flatMap(asked => (asked.kind === 'cut' ? [asked.files!.length] : []))
    for (let number = 0; number < 600; number++) {
      const { entry, opened } = incoming.create(tree.attr.ino, Buffer.from(String(number)), 0o644, 1, call()) as { entry: Entry; opened: Opened }
      incoming.write(entry.attr.ino, opened.fh, 0, Buffer.from(String(number)), call<number>() as Call<number>)
      incoming.release(entry.attr.ino, opened.fh)
      if (number % 50 === 0) incoming.tick(0)
    }
    t.deepEqual(batches(), [256, 256])
    incoming.tick(performance.now() + 400)
    t.deepEqual(batches(), [256, 256])
    incoming.tick(performance.now() + 600)
    t.deepEqual(batches(), [256, 256, 88])
  } finally {
    sandbox.close()
  }
})

test('what is written past the pages of a file that somebody else has open is answered when the kernel has let go of them', t => {
  const sandbox = new Sandbox('incoming-pages')
  try {
    const told: string[] = []
    const waiting: (() => void)[] = []
    const { incoming } = make(sandbox, {
      maxBytes: 1 << 20,
      notices: {
        ...noNotices, invalidateAttributes: ino => void told.push(`attributes ${ino - incoming.root}`),
        invalidatePages(ino, offset, length, done) {
          told.push(`pages ${ino - incoming.root} ${offset} ${length}`)
          waiting.push(done)
        },
      },
    })
    const tree = incoming.mkdir(incoming.root, Buffer.from('t'), 0o755, call<Entry>()) as Entry
    const create = (name: string, flags: number) => incoming.create(tree.attr.ino, Buffer.from(name), 0o644, flags, call()) as { entry: Entry; opened: Opened }
    t.falsy(create('read and written', 2).opened.directIo)
    const { entry: { attr: { ino } }, opened } = create('written', 1)
    t.true(opened.directIo)
    const write = (at: number, more: Partial<Call<number>> = {}): unknown => {
      const asked = call<number>()
      const answer = incoming.write(ino, opened.fh, at, Buffer.from('abc'), { ...asked, ...more })
      if (answer !== LATER) return answer
      t.is(asked.later(), undefined)
      waiting.shift()!()
      return asked.later()
    }
    t.is(write(0), 3)
    t.deepEqual(told, [])
    const other = incoming.open(ino, 0, call()) as Opened
    t.falsy(other.directIo)
    t.is(write(3), 3)
    t.deepEqual(told.splice(0), [`pages ${ino - incoming.root} 3 3`])
    incoming.release(ino, other.fh)
    incoming.setattr(ino, { mode: 0o6755 }, call())
    incoming.setxattr(ino, Buffer.from('security.capability'), Buffer.alloc(20), 0, call())
    t.is(write(6), 3)
    t.is((incoming.getattr(ino) as AttrReply).attr.mode & 0o7777, 0o6755)
    t.is(incoming.getxattr(ino, Buffer.from('security.capability')), Errno.ENODATA)
    t.is(write(6, { killSetId: true }), 3)
    t.is((incoming.getattr(ino) as AttrReply).attr.mode & 0o7777, 0o755)
    t.deepEqual(told, [`attributes ${ino - incoming.root}`])
  } finally {
    sandbox.close()
  }
})

/** What the tests of trees ask. */
function asker(incoming: Incoming) {
  const mkdir = (name: string, parent = incoming.root) => (incoming.mkdir(parent, Buffer.from(name), 0o755, call<Entry>()) as Entry).attr.ino
  const create = (parent: number, name: string) => {
    const { entry, opened } = incoming.create(parent, Buffer.from(name), 0o644, 2, call()) as { entry: Entry; opened: Opened }
    return { ino: entry.attr.ino, fh: opened.fh }
  }
  const rename = (from: number, name: string, to: number, newName: string) => incoming.rename(from, Buffer.from(name), to, Buffer.from(newName), 0, call<void>() as Call<void>)
  const link = (ino: number, parent: number, name: string) => incoming.link(ino, parent, Buffer.from(name), call<Entry>())
  const unlink = (parent: number, name: string) => incoming.unlink(parent, Buffer.from(name), call<void>() as Call<void>)
  const write = (ino: number, fh: number) => incoming.write(ino, fh, 0, Buffer.from('later'), call<number>() as Call<number>)
  return { mkdir, create, rename, link, unlink, write }
}

/** Of one file each, which nobody has open. */
function makeTrees(incoming: Incoming, ...names: string[]): void {
  const { mkdir, create } = asker(incoming)
  for (const name of names) {
    const { ino, fh } = create(mkdir(name), 'file')
    incoming.release(ino, fh)
  }
}

/** What the engine says that it made of any tree. */
const madeArchive = { archive: { name: Buffer.from('archive'), id: 'ab'.repeat(32), timeNs: 0n }, numbers: { fileCount: 1, originalSize: 1, newBytes: 1 } }

/** Trees of which the journal says, as it is on disk now, that they are archives. */
function notedArchives(sandbox: Sandbox): (string | undefined)[] {
  cpSync(sandbox.path('staging'), sandbox.path('copy'), { recursive: true, force: true })
  const archives: MadeArchives = new Map()
  replay(sandbox.path('copy', 'journal'), new Nodes({ mode: 0o040755, uid: 0, gid: 0, rdev: 0, atimeNs: 0n, mtimeNs: 0n, ctimeNs: 0n }), archives)
  return [...archives.keys()]
}

test('a file that is open for writing belongs to the tree that it was moved to, or that its own became', t => {
  const sandbox = new Sandbox('incoming-moved-open')
  try {
    const { incoming } = make(sandbox)
    const { mkdir, create, rename, write } = asker(incoming)
    const writers = (name: string | undefined) => incoming.trees.find(name)?.writers ?? 0
    const before = mkdir('before')
    const { ino, fh } = create(mkdir('inner', before), 'file')
    t.is(writers('before'), 1)
    t.falsy(rename(incoming.root, 'before', incoming.root, 'after'))
    t.is(writers('after'), 1)
    const loose = create(incoming.root, 'loose')
    t.falsy(rename(incoming.root, 'loose', before, 'loose'))
    t.deepEqual([writers('after'), writers(undefined)], [2, 0])
    const other = mkdir('other')
    t.falsy(rename(before, 'inner', other, 'inner'))
    t.deepEqual([writers('after'), writers('other')], [1, 1])
    const { version } = incoming.trees.find('other')!
    t.is(write(ino, fh), 5)
    t.true(incoming.trees.find('other')!.version > version, 'the tree changed with it')
    incoming.release(ino, fh)
    incoming.release(loose.ino, loose.fh)
    t.deepEqual([writers('after'), writers('other'), writers(undefined)], [0, 0, 0])
    incoming.destroy()
  } finally {
    sandbox.close()
  }
})

test('a file that lost one of its names belongs to the tree that has the others', t => {
  const sandbox = new Sandbox('incoming-lost-name')
  try {
    const { incoming } = make(sandbox)
    const { mkdir, create, rename, link, unlink, write } = asker(incoming)
    const tree = mkdir('tree'), other = mkdir('other')
    const first = mkdir('first', tree), second = mkdir('second', tree)
    const { ino, fh } = create(first, 'file')
    incoming.release(ino, fh)
    const changes = (): boolean => {
      const { version } = incoming.trees.find('tree')!
      const opened = incoming.open(ino, 2, call()) as Opened
      t.is(write(ino, opened.fh), 5)
      incoming.release(ino, opened.fh)
      return incoming.trees.find('tree')!.version > version
    }
    // As cp -al and rm -r leave it.
    link(ino, second, 'file')
    t.falsy(unlink(second, 'file'))
    t.falsy(incoming.rmdir(tree, Buffer.from('second'), call<void>() as Call<void>))
    t.true(changes())
    link(ino, other, 'file')
    t.falsy(unlink(other, 'file'))
    t.true(changes())
    link(ino, other, 'file')
    const third = mkdir('third', tree)
    t.falsy(rename(first, 'file', third, 'file'))
    t.falsy(unlink(other, 'file'))
    t.falsy(incoming.rmdir(tree, Buffer.from('first'), call<void>() as Call<void>))
    t.true(changes())
    incoming.destroy()
  } finally {
    sandbox.close()
  }
})

test('chunks that wait to be laid over a file, because its tree is just being saved, are kept whatever becomes of where they came from', t => {
  const sandbox = new Sandbox('incoming-underway')
  try {
    const { engine, incoming } = make(sandbox)
    const { mkdir, create } = asker(incoming)
    const { ino, fh } = create(mkdir('tree'), 'file')
    const extents = new Extents()
    extents.push(0, 5, 0, Buffer.alloc(32, 7), 5, 5)
    incoming.trees.commit(incoming.trees.find('tree')!, { patient: true }, () => {})
    t.is(incoming.neededIds().length, 0)
    const asked = call<number>()
    t.is(incoming.cloneInto(ino, fh, 0, { length: 5, extents, stashed: true }, asked), LATER)
    t.deepEqual(Buffer.from(incoming.neededIds()), Buffer.alloc(32, 7))
    // The commit fails.
    engine.answer()
    t.is(asked.later(), 5)
    t.deepEqual(Buffer.from(incoming.neededIds()), Buffer.alloc(32, 7))
    incoming.release(ino, fh)
    incoming.destroy()
  } finally {
    sandbox.close()
  }
})

test('what could not be cut off keeps its chunks', t => {
  const sandbox = new Sandbox('incoming-not-cut')
  const real = files
  try {
    const { engine, incoming } = make(sandbox, { maxBytes: 1 << 20 })
    const { mkdir, create } = asker(incoming)
    const { ino, fh } = create(mkdir('tree'), 'file')
    const extents = new Extents()
    extents.push(0, 5, 0, Buffer.alloc(32, 7), 5, 5)
    t.is(incoming.cloneInto(ino, fh, 0, { length: 5, extents, stashed: true }, call()), 5)
    t.is(incoming.write(ino, fh, 10, Buffer.from('spooled'), call<number>() as Call<number>), 7)
    replaceFiles({ ...real, truncateOpen: () => { throw hostError('EIO') } })
    t.is(incoming.setattr(ino, { size: 0 }, call()), Errno.EIO)
    replaceFiles(real)
    t.is((incoming.getattr(ino) as AttrReply).attr.size, 17)
    t.deepEqual(Buffer.from(incoming.neededIds()).subarray(0, 32), Buffer.alloc(32, 7))
    t.not(incoming.setattr(ino, { size: 0 }, call()), Errno.EIO)
    t.is(incoming.neededIds().length, 32, 'until that is durable')
    incoming.syncfs({ ...call<void>(), defer: () => () => {} } as Call<void>)
    engine.answer()
    t.is(incoming.neededIds().length, 0)
    incoming.release(ino, fh)
    incoming.destroy()
  } finally {
    replaceFiles(real)
    sandbox.close()
  }
})

test('chunks of which the journal did not hear are not laid over a file, however many there are', t => {
  const sandbox = new Sandbox('incoming-not-cloned')
  const real = files
  try {
    const { incoming } = make(sandbox, { maxBytes: 1 << 20 })
    const { mkdir, create } = asker(incoming)
    const { ino, fh } = create(mkdir('tree'), 'file')
    const extents = new Extents()
    for (let index = 0; index < 20_000; index++) extents.push(index * 5, 5, 0, Buffer.alloc(32, index), 5, 5)
    replaceFiles({ ...real, writeAll: (fd, bytes, position) => {
      if (bytes.length > 50_000) throw hostError('ENOSPC')
      real.writeAll(fd, bytes, position)
    } })
    t.is(incoming.cloneInto(ino, fh, 0, { length: 100_000, extents, stashed: false }, call()), Errno.ENOSPC)
    replaceFiles(real)
    t.is((incoming.getattr(ino) as AttrReply).attr.size, 0)
    incoming.setattr(ino, { size: 100_000 }, call())
    t.is(incoming.lseek(ino, fh, 0, 3), Errno.ENXIO, 'it is a hole')
    t.is(incoming.cloneInto(ino, fh, 0, { length: 100_000, extents, stashed: false }, call()), 100_000)
    t.is(incoming.lseek(ino, fh, 0, 3), 0)
    incoming.release(ino, fh)
    incoming.destroy()
  } finally {
    replaceFiles(real)
    sandbox.close()
  }
})

test('a link to an archive whose chunks the journal cannot take leaves no file, also when its tree was just being saved', t => {
  const sandbox = new Sandbox('incoming-no-likeness')
  const real = files
  try {
    const { engine, incoming } = make(sandbox, { maxBytes: 1 << 20 })
    const { mkdir } = asker(incoming)
    const tree = mkdir('tree')
    const { attr } = incoming.lookup(incoming.root, Buffer.from('tree'), call<Entry>()) as Entry
    const extents = new Extents()
    for (let index = 0; index < 20_000; index++) extents.push(index * 5, 5, 0, Buffer.alloc(32, index), 5, 5)
    incoming.trees.commit(incoming.trees.find('tree')!, { patient: true }, () => {})
    const name = Buffer.from('wanted'), asked = call<Entry>()
    t.is(incoming.addLikeness({ attr: { ...attr, mode: 0o100644, nlink: 1, size: 100_000 }, target: undefined, xattrs: undefined, extents }, tree, name, asked), LATER)
    // Another request lies there by now.
    name.fill('x')
    replaceFiles({ ...real, writeAll: (fd, bytes, position) => {
      if (bytes.length > 50_000) throw hostError('ENOSPC')
      real.writeAll(fd, bytes, position)
    } })
    engine.answer()
    replaceFiles(real)
    t.is(asked.later(), Errno.ENOSPC)
    t.is(incoming.lookup(tree, Buffer.from('wanted'), call<Entry>()), Errno.ENOENT)
    incoming.destroy()
  } finally {
    replaceFiles(real)
    sandbox.close()
  }
})

test('a file whose new place the journal cannot take is not called durable', t => {
  const sandbox = new Sandbox('incoming-not-moved')
  const real = files
  try {
    const { engine, incoming } = make(sandbox, { maxBytes: 1 << 20 })
    const { mkdir, create } = asker(incoming)
    const { ino, fh } = create(mkdir('tree'), 'file')
    incoming.write(ino, fh, 0, Buffer.from('in a bundle'), call<number>() as Call<number>)
    // A hole, for which it needs a spool file.
    incoming.write(ino, fh, 100, Buffer.from('behind'), call<number>() as Call<number>)
    const sync = (ask: (call: Call<void>) => unknown): unknown => {
      const asked = call<void>()
      t.is(ask(asked), LATER)
      engine.answer()
      return asked.later()
    }
    incoming.flush(ino, fh)
    fillDisk()
    t.is(sync(call => incoming.fsync(ino, fh, false, call)), Errno.ENOSPC)
    t.is(sync(call => incoming.syncfs(call)), Errno.ENOSPC)
    replaceFiles(real)
    const { length } = engine.asked
    t.is(sync(call => incoming.fsync(ino, fh, false, call)), undefined)
    t.is(engine.asked.length, length + 2, 'the journal once more, after it heard')
    incoming.release(ino, fh)
    incoming.destroy()
  } finally {
    replaceFiles(real)
    sandbox.close()
  }
})

test('a tree that cannot leave, because the journal cannot take that, keeps no other from being saved', t => {
  const sandbox = new Sandbox('incoming-not-left')
  const real = files
  try {
    const { engine, incoming } = make(sandbox)
    makeTrees(incoming, 'saved', 'changed')
    incoming.trees.find('saved')!.state = { kind: 'committed', archive: 'a', atMs: 0 }
    fillDisk()
    const commits = () => engine.asked.filter(({ kind }) => kind === 'commit').length
    const log = () => engine.log.lines.filter(line => line.includes('incoming/saved')).length
    t.notThrows(() => incoming.tick(3e9))
    t.is(commits(), 1)
    t.is(log(), 1)
    incoming.tick(3e9 + 1000)
    t.is(log(), 1, 'not with each tick')
    replaceFiles(real)
    incoming.tick(3e9 + 60_000)
    t.is(incoming.lookup(incoming.root, Buffer.from('saved'), call<Entry>()), Errno.ENOENT)
    incoming.destroy()
  } finally {
    replaceFiles(real)
    sandbox.close()
  }
})

test('two trees are saved one after the other: the mark of the second is not taken for that of the first, which the journal made needless', t => {
  const sandbox = new Sandbox('incoming-two-marks')
  try {
    const { engine, incoming } = make(sandbox)
    makeTrees(incoming, 'first', 'second')
    const known = () => notedArchives(sandbox)
    const mark = sandbox.path('staging', 'committing.json')
    const commits = () => engine.asked.filter(({ kind }) => kind === 'commit').length
    engine.committed = madeArchive
    writeFileSync(mark, 'of the first')
    incoming.tick(2e9)
    while (commits() < 2) {
      t.true(engine.waiting > 0)
      engine.answer(1)
    }
    // When the engine is asked for the second, which replaces the mark, the journal has the first.
    t.deepEqual(known(), ['first'])
    writeFileSync(mark, 'of the second')
    incoming.tick(performance.now() + 10_000)
    t.true(existsSync(mark), 'it is being made')
    engine.answer()
    t.deepEqual(known(), ['first', 'second'])
    incoming.tick(performance.now() + 20_000)
    engine.answer()
    t.false(existsSync(mark))
    incoming.destroy()
  } finally {
    sandbox.close()
  }
})

test('a tree whose turn has not come can be written to, and is saved once that is over', t => {
  const sandbox = new Sandbox('incoming-turns')
  try {
    const { engine, incoming } = make(sandbox)
    makeTrees(incoming, 'first', 'second')
    engine.committed = madeArchive
    incoming.tick(2e9)
    t.true(incoming.trees.find('first')!.frozen)
    t.false(incoming.trees.find('second')!.frozen)
    incoming.trees.changed(incoming.trees.find('second')!)
    const saved = () => engine.asked.flatMap(request => (request.kind === 'commit' ? [(request.staged as { name: string }).name] : []))
    for (let rounds = 0; engine.waiting > 0 && rounds < 20; rounds++) engine.answer(1)
    t.is(incoming.trees.find('first')!.state.kind, 'committed')
    t.deepEqual(saved(), ['first', 'second'])
    incoming.destroy()
  } finally {
    sandbox.close()
  }
})

test('an archive that the journal could not take a note of is noted before the next one takes its mark', t => {
  const sandbox = new Sandbox('incoming-unnoted')
  const real = files
  try {
    const { engine, incoming } = make(sandbox)
    makeTrees(incoming, 'first', 'second')
    engine.committed = madeArchive
    const known = () => notedArchives(sandbox)
    const commit = (name: string) => incoming.trees.commit(incoming.trees.find(name)!, { patient: true }, () => {})
    commit('first')
    fillDisk()
    engine.answer()
    replaceFiles(real)
    t.is(incoming.trees.find('first')!.state.kind, 'committed')
    t.deepEqual(known(), [])
    commit('second')
    t.deepEqual(known(), ['first'])
    engine.answer()
    incoming.destroy()
  } finally {
    replaceFiles(real)
    sandbox.close()
  }
})

/** With a file that was made in a place that puts off what it can; the disk is whole again afterwards. */
const putOff = (work: (t: ExecutionContext, staged: ReturnType<typeof make> & { sandbox: Sandbox; tree: Entry; entry: Entry; opened: Opened }) => void) => (t: ExecutionContext): void => {
  const sandbox = new Sandbox('incoming-put-off')
  const before = files
  try {
    const { engine, incoming } = make(sandbox, { putsOff: true })
    const tree = incoming.mkdir(incoming.root, Buffer.from('t'), 0o755, call<Entry>()) as Entry
    const { entry, opened } = incoming.create(tree.attr.ino, Buffer.from('file'), 0o644, 1, call()) as { entry: Entry; opened: Opened }
    work(t, { engine, incoming, sandbox, tree, entry, opened })
    incoming.destroy()
  } finally {
    replaceFiles(before)
    sandbox.close()
  }
}

/** Paths and sizes that the next start finds where nothing was closed. */
function afterKill(sandbox: Sandbox): [path: string, size: number][] {
  cpSync(sandbox.path('staging'), sandbox.path('again'), { recursive: true })
  const again = new Staging({ folder: sandbox.path('again'), maxBytes: undefined, place: 'incoming', archiveIds: new Set(), rootFacts: { mode: 0o040755, uid: 0, gid: 0, rdev: 0, atimeNs: 0n, mtimeNs: 0n, ctimeNs: 0n } })
  const found = Array.from(again.nodes.walk(again.nodes.get(rootId)!), ({ path, node }): [string, number] => [path, node.children ? 0 : node.size])
  again.close()
  return found
}

test('an fsync of what was put off fails while the host refuses it, and what a tick wrote is there after a kill', putOff((t, { engine, incoming, sandbox, tree, entry, opened }) => {
  t.is(incoming.write(entry.attr.ino, opened.fh, 0, Buffer.from('content'), call<number>() as Call<number>), 7)
  t.true(incoming.isBehind)
  const fsync = (): unknown => {
    let answer: unknown = LATER
    const now = incoming.fsync(entry.attr.ino, opened.fh, false, { ...call<void>(), defer: () => value => { answer = value } } as Call<void>)
    engine.answer()
    return now === LATER ? answer : now
  }
  const whole = fillDisk()
  t.is(fsync(), Errno.ENOSPC)
  replaceFiles(whole)
  t.true(incoming.isBehind)
  t.is(fsync(), undefined)
  t.false(incoming.isBehind)
  const second = incoming.create(tree.attr.ino, Buffer.from('second'), 0o600, 1, call()) as { entry: Entry; opened: Opened }
  incoming.write(second.entry.attr.ino, second.opened.fh, 0, Buffer.from('more'), call<number>() as Call<number>)
  incoming.release(second.entry.attr.ino, second.opened.fh)
  incoming.tick(performance.now())
  t.false(incoming.isBehind)
  t.deepEqual(afterKill(sandbox), [['.', 0], ['t', 0], ['t/file', 7], ['t/second', 4]])
}))

test('what the host refuses when it is to be made durable is made durable later, and nobody takes it for durable before', putOff((t, { engine, incoming, entry, opened }) => {
  incoming.release(entry.attr.ino, opened.fh)
  const now = performance.now()
  const whole = fillDisk()
  incoming.tick(now + 4000)
  let isDurable = false
  incoming.whenDurable(() => isDurable = true)
  engine.answer()
  replaceFiles(whole)
  const syncs = () => engine.asked.filter(({ kind }) => kind === 'sync-folder').length
  t.is(syncs(), 0)
  t.true(isDurable, 'whoever waits for the end of the sync does not wait for ever')
  isDurable = false
  incoming.whenDurable(() => isDurable = true)
  t.false(isDurable)
  engine.answer()
  t.true(isDurable)
  t.is(syncs(), 1)
}))

test('while the host refuses what was put off nothing more is put off, and whoever ends it then is told what is lost', putOff((t, { incoming, sandbox, tree }) => {
  const create = (name: string): unknown => {
    const made = incoming.create(tree.attr.ino, Buffer.from(name), 0o600, 1, call())
    if (typeof made !== 'object' || !('opened' in made)) return made
    incoming.release(made.entry.attr.ino, made.opened.fh)
    return 'made'
  }
  const whole = fillDisk()
  t.is(create('before'), 'made')
  incoming.tick(performance.now())
  for (const name of ['a', 'b']) t.is(create(name), Errno.ENOSPC)
  t.is(incoming.mkdir(tree.attr.ino, Buffer.from('d'), 0o755, call<Entry>()), Errno.ENOSPC)
  let told: string | undefined
  incoming.trees.commit(incoming.trees.find('t')!, { patient: true }, error => told = error?.message)
  t.regex(told!, /^the staging folder does not take what was copied last \(ENOSPC\)/)
  t.regex(incoming.loss!, /^What came to incoming\/ last .* \(ENOSPC\) and is lost\.$/)
  replaceFiles(whole)
  incoming.tick(performance.now())
  t.is(incoming.loss, undefined)
  t.is(create('after'), 'made')
  t.true(incoming.isBehind)
  incoming.tick(performance.now())
  t.deepEqual(afterKill(sandbox), [['.', 0], ['t', 0], ['t/file', 0], ['t/before', 0], ['t/after', 0]])
}))

test('room for a full disk is kept as soon as something is staged', putOff((t, { incoming, sandbox }) => {
  t.false(existsSync(sandbox.path('staging/room')))
  incoming.tick(performance.now())
  t.true(existsSync(sandbox.path('staging/room')))
}))
