/**
 * A series over an archive's tree, held against one whose files are all its own: the same operations by chance give the same answers and the same
 * view, also when the journal was read back, and over another archive of the same files.
 */
import test from 'ava'
import { cpSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ChunkList } from '../../../src/engine/archive/chunk-list.js'
import type { Item } from '../../../src/engine/archive/item.js'
import { ArchiveFiles } from '../../../src/fs/archive-files.js'
import type { ShownArchive, ShownArchives } from '../../../src/fs/archives-dir.js'
import { type Answer, type Call, type Created, LATER } from '../../../src/fs/core.js'
import { Incoming } from '../../../src/fs/incoming/incoming.js'
import { files, replaceFiles } from '../../../src/engine/platform/files.js'
import { inodeRange, inoOf, rootIno } from '../../../src/fs/inodes.js'
import { type Attr, type Entry, Errno, type Ino } from '../../../src/fs/types.js'
import { archiveInfo, build, call, Contents, directoryMode, FakeEngine, fileMode, item, linkMode, mountView, settled } from '../../helpers/mount-fixtures.js'
import { fillDisk } from '../../helpers/full-disk.js'
import { Sandbox } from '../../helpers/sandbox.js'
import { noNotices } from '../../../src/fs/fuse/transport.js'

const series = 'series'
const names = ['a', 'b', 'c', 'd', 'e']

class Chance {
  #state: number

  constructor(seed: number) {
    this.#state = seed
  }

  pick(below: number): number {
    this.#state = (Math.imul(this.#state, 1103515245) + 12345) & 0x7fffffff
    return (this.#state >>> 8) % below
  }

  of<T>(values: readonly T[]): T {
    return values[this.pick(values.length)]!
  }
}

function chunksOf(size: number): ChunkList {
  const list = new ChunkList()
  list.add(Buffer.alloc(32, size % 251), size, size)
  return list
}

/** Files, directories, links with several names, in an order that `chance` decides within each directory. */
function archived(shape: Chance, order: Chance): Item[] {
  const files = new Map<string, Item>()
  const directories = ['']
  for (let count = 0; count < 60; count++) {
    const above = shape.of(directories)
    const path = above === '' ? shape.of(names) : `${above}/${shape.of(names)}`
    if (files.has(path) || path.length > 9) continue
    const kind = shape.pick(10)
    if (kind < 4) {
      files.set(path, item(path, { mode: directoryMode, uid: 0 }))
      directories.push(path)
    } else if (kind < 9) {
      const size = shape.pick(3) * 1000
      files.set(path, item(path, { mode: fileMode | shape.pick(8), uid: shape.pick(3), ...(size > 0 && { chunks: chunksOf(size), size }), ...(shape.pick(4) === 0 && { xattrs: new Map([['user.x', Buffer.from(path)]]) }) }))
    } else files.set(path, item(path, { mode: linkMode, uid: 0, source: Buffer.from(`to ${path}`) }))
  }
  const plain = [...files].filter(([, { mode }]) => (mode & 0o170000) === 0o100000).map(([path]) => path)
  const links = new Map<string, string>()
  for (let count = 0; count < 6 && plain.length > 0; count++) {
    const above = shape.of(directories)
    const path = `${above === '' ? '' : `${above}/`}${shape.of(names)}x`
    if (!files.has(path) && !links.has(path)) links.set(path, shape.of(plain))
  }
  const shuffled = [...files].sort(([a], [b]) => a.split('/').length - b.split('/').length || order.pick(3) - 1)
  const masters = new Set(links.values())
  return [
    item('.', { mode: directoryMode, uid: 0 }), ...shuffled.map(([path, made]) => (masters.has(path) ? { ...made, hardlinkMaster: true } : made)),
    ...Array.from(links, ([path, source]) => ({ ...files.get(source)!, path: Buffer.from(path), source: Buffer.from(source), chunks: undefined }) as unknown as Item),
  ]
}

class Drive {
  readonly incoming: Incoming
  readonly #engine = new FakeEngine(new Contents())

  constructor(folder: string, archives: Record<string, Item[]>, open: readonly string[] = []) {
    this.incoming = new Incoming({
      folder, open, maxBytes: undefined, place: 'live', archiveIds: new Set(Object.keys(archives)), settleMs: 1e9, lingerMs: 1e9, newest: () => Object.keys(archives)[0],
      rootFacts: { mode: directoryMode, uid: 0, gid: 0, rdev: 0, atimeNs: 0n, mtimeNs: 0n, ctimeNs: 0n },
    }, this.#engine.client, noNotices, { state() {} }, () => {
      throw new Error('no chunks here')
    })
    this.show(archives)
  }

  show(archives: Record<string, Item[]>): void {
    const shown = Object.entries(archives).map(([id, items], index): ShownArchive => {
      this.#engine.trees.set(id, build(items))
      const info = { ...archiveInfo(`${series}-2026-01-0${1 + index}`, id), timeNs: BigInt(index) }
      return {
        name: Buffer.from(info.name),
        files: new ArchiveFiles(info, inoOf(inodeRange.firstArchive + index, 0), rootIno, { client: this.#engine.client, reader: undefined as never, view: mountView([]), treeLoaded() {}, rootChanged() {}, unused() {} }),
      }
    })
    this.incoming.archivesChanged(shown as unknown as ShownArchives)
  }

  /** The series is saved as an archive. */
  save(id: string): void {
    this.#engine.committed = { archive: archiveInfo(`${series}-2026-01-09`, id), numbers: { fileCount: 1, originalSize: 1, newBytes: 1 } }
    this.incoming.trees.commit(this.incoming.trees.find(series)!, { patient: true }, () => {})
    this.#engine.answer()
  }

  tick(): void {
    this.incoming.tick(performance.now())
    this.#engine.answer()
  }

  get warnings(): number {
    return this.#engine.log.lines.filter(line => line.includes('was deleted')).length
  }

  /** The answer, also if it comes late. */
  do<T>(ask: (incoming: Incoming, call: Call<T>) => Answer<T>): T | Errno | undefined {
    const asked = call<T>()
    const answer = ask(this.incoming, asked)
    this.#engine.answer()
    return settled(answer, asked)
  }

  open(): void {
    this.do<Entry>((incoming, call) => incoming.mkdir(incoming.root, Buffer.from(series), 0o755, call))
  }

  find(path: string): Ino | Errno {
    let ino = this.incoming.root
    for (const name of [series, ...path === '' ? [] : path.split('/')]) {
      const entry = this.do<Entry>((incoming, call) => incoming.lookup(ino, Buffer.from(name), call))
      if (entry instanceof Errno || entry === undefined) return entry ?? Errno.EIO
      ino = entry.attr.ino
    }
    return ino
  }

  names(ino: Ino): string[] {
    const opened = this.do((incoming, call) => incoming.opendir(ino, call as never)) as { fh: number }
    const found: string[] = []
    this.incoming.readdir(ino, opened.fh, 0, name => found.push(Buffer.from(name).toString()) > 0)
    this.incoming.releasedir(ino, opened.fh)
    return found.filter(name => name !== '.' && name !== '..').sort()
  }

  /** What can be seen, as text. */
  view(): string {
    const lines: string[] = [], first = new Map<Ino, string>()
    const visit = (ino: Ino, path: string): void => {
      const { attr } = this.do((incoming) => incoming.getattr(ino)) as { attr: Attr }
      const isDirectory = (attr.mode & 0o170000) === 0o040000
      const xattrs = (this.do((incoming) => incoming.listxattr(ino)) as Uint8Array[]).map(name => `${Buffer.from(name).toString()}=${Buffer.from(this.do((incoming) => incoming.getxattr(ino, Buffer.from(name))) as Uint8Array).toString()}`)
      const target = (attr.mode & 0o170000) === 0o120000 ? Buffer.from(this.do((incoming) => incoming.readlink(ino)) as Uint8Array).toString() : ''
      lines.push([path, attr.mode.toString(8), attr.uid, attr.nlink, isDirectory ? '' : attr.size, xattrs.join(), target, isDirectory ? '' : first.get(ino) ?? ''].join(' '))
      if (!first.has(ino)) first.set(ino, path)
      if (isDirectory) for (const name of this.names(ino)) visit(this.find(`${path}/${name}`.slice(1)) as Ino, `${path}/${name}`)
    }
    visit(this.find('') as Ino, '')
    return lines.join('\n')
  }

  /** Makes all files of an archive, one by one. */
  copy(items: readonly Item[]): void {
    for (const { path, mode, uid, size = 0, source, xattrs } of items) {
      const text = path.toString()
      if (text === '.') continue
      const at = text.lastIndexOf('/')
      const parent = this.find(at < 0 ? '' : text.slice(0, at)) as Ino, name = Buffer.from(text.slice(at + 1))
      if ((mode & 0o170000) === 0o120000) this.do<Entry>((incoming, call) => incoming.symlink(parent, name, source!, call))
      else if (source) this.do<Entry>((incoming, call) => incoming.link(this.find(source.toString()) as Ino, parent, name, call))
      else {
        const made = this.do<Entry>((incoming, call) => (mode === directoryMode ? incoming.mkdir(parent, name, mode, call) : incoming.mknod(parent, name, mode, 0, call))) as Entry
        this.do((incoming, call) => incoming.setattr(made.attr.ino, { mode, uid, ...(size > 0 && { size }) }, call as never))
        for (const [attribute, value] of xattrs ?? []) this.do<void>((incoming, call) => incoming.setxattr(made.attr.ino, Buffer.from(attribute), value!, 0, call))
      }
    }
  }

  /** What is journalled, read by a process of its own. */
  again(folder: string, archives: Record<string, Item[]>): Drive {
    cpSync(this.folder, folder, { recursive: true })
    return new Drive(folder, archives)
  }
  folder = ''
}

function operate(chance: Chance, drives: readonly Drive[]): [what: string, answers: string[]] {
  const path = (): string => Array.from({ length: 1 + chance.pick(3) }, () => chance.of(names) + (chance.pick(8) === 0 ? 'x' : '')).join('/')
  const [a, b] = [path(), path()]
  const above = (text: string): string => text.slice(0, Math.max(0, text.lastIndexOf('/')))
  const last = (text: string): Buffer => Buffer.from(text.slice(text.lastIndexOf('/') + 1))
  const kind = chance.pick(11), number = chance.pick(512), flags = chance.of([0, 0, 1, 2])
  const what = `${['mkdir', 'mknod', 'unlink', 'rmdir', 'rename', 'link', 'chmod', 'truncate', 'setxattr', 'rename', 'open'][kind]} ${a} ${b} ${number} ${flags}`
  const answers = drives.map(drive => {
    const [ino, from, to] = [drive.find(a), drive.find(above(a)), drive.find(above(b))]
    if (from instanceof Errno || ((kind === 4 || kind === 5 || kind === 9) && to instanceof Errno)) return 'no directory'
    if (ino instanceof Errno && kind >= 5 && kind !== 9) return 'nothing there'
    const answer = drive.do<unknown>((incoming, call) => {
      const own = call as never
      switch (kind) {
        case 0: return incoming.mkdir(from, last(a), 0o755, own)
        case 1: return incoming.mknod(from, last(a), fileMode, 0, own)
        case 2: return incoming.unlink(from, last(a), own)
        case 3: return incoming.rmdir(from, last(a), own)
        case 4: case 9: return incoming.rename(from, last(a), to as Ino, last(b), flags, own)
        case 5: return incoming.link(ino as Ino, to as Ino, last(b), own)
        case 6: return incoming.setattr(ino as Ino, { mode: number }, own)
        case 7: return incoming.setattr(ino as Ino, { size: number * 4 }, own)
        case 8: return incoming.setxattr(ino as Ino, Buffer.from('user.y'), Buffer.from(String(number)), 0, own)
        default: return incoming.open(ino as Ino, 0, own)
      }
    })
    if (kind === 10 && !(answer instanceof Errno)) drive.incoming.release(0, (answer as { fh: number }).fh)
    return answer instanceof Errno ? answer.code : 'done'
  })
  return [what, answers]
}

for (let seed = 1; seed <= 8; seed++) {
  test(`operations by chance over an archive do what they do without one (${seed})`, t => {
    const sandbox = new Sandbox('live-base')
    try {
      const [id, other] = ['ab'.repeat(32), 'cd'.repeat(32)]
      const items = archived(new Chance(seed), new Chance(seed)), reordered = archived(new Chance(seed), new Chance(seed + 100))
      const over = new Drive(sandbox.path('over'), { [id]: items }), own = new Drive(sandbox.path('own'), {})
      over.folder = sandbox.path('over')
      for (const drive of [over, own]) drive.open()
      t.true(statSync(join(over.folder, 'journal')).size < 500)
      own.copy(items)
      t.is(over.view(), own.view(), 'before')
      const chance = new Chance(seed * 7919)
      let nodes = over.incoming.counts.nodes
      t.true(nodes < 5, 'looking costs no node')
      for (let count = 1; count <= 240; count++) {
        const [what, [a, b]] = operate(chance, [over, own])
        t.is(a, b, what)
        if (count % 40 !== 0) continue
        t.is(over.view(), own.view(), what)
        const [same, moved] = [over.again(sandbox.path(`same-${count}`), { [id]: items }), over.again(sandbox.path(`moved-${count}`), { [other]: reordered })]
        t.is(same.view(), own.view(), `read back after ${what}`)
        // The archive is gone; the other one has the same files in other rows.
        t.is(moved.view(), own.view(), `over the other archive after ${what}`)
        t.deepEqual([same.warnings, moved.warnings], [0, 1])
        if (count === 40) {
          const damaged = sandbox.path('damaged')
          over.do<void>((incoming, call) => incoming.syncfs(call))
          cpSync(over.folder, damaged, { recursive: true })
          const journal = readFileSync(join(damaged, 'journal'))
          const series = journal.indexOf('series')
          t.true(series > 0 && series < 40, 'it begins with what lies beneath')
          journal[series]! ^= 1
          writeFileSync(join(damaged, 'journal'), journal)
          t.is(new Drive(damaged, { [id]: items }).view(), own.view(), 'the record of what lies beneath is there twice')
        }
        same.folder = sandbox.path(`same-${count}`)
        moved.folder = sandbox.path(`moved-${count}`)
        if (count === 120) {
          // And go on with these.
          for (const drive of [same, moved]) {
            const copy = new Chance(count)
            const plain = own.again.bind(Object.assign(own, { folder: sandbox.path('own') }))(sandbox.path(`plain-${drive === same ? 1 : 2}`), {})
            for (let more = 0; more < 40; more++) {
              const [done, [x, y]] = operate(copy, [drive, plain])
              t.is(x, y, done)
            }
            t.is(drive.view(), plain.view())
            const again = drive.again(`${drive.folder}-again`, drive === same ? { [id]: items } : { [other]: reordered })
            t.is(again.view(), plain.view())
            t.is(again.warnings, 0)
          }
        }
      }
      nodes = over.incoming.counts.nodes
      t.true(nodes > 1)
    } finally {
      sandbox.close()
    }
  })
}

test('a series that the journal cannot take is not open: whoever asked hears so, nobody waits for it, and it can be opened later', t => {
  const sandbox = new Sandbox('live-not-taken')
  const real = files
  try {
    const archives = { ['a'.repeat(64)]: archived(new Chance(1), new Chance(2)) }
    const drive = new Drive(sandbox.path('staging'), archives)
    const mkdir = () => drive.do<Entry>((incoming, call) => incoming.mkdir(incoming.root, Buffer.from(series), 0o755, call))
    fillDisk()
    t.is(mkdir(), Errno.ENOSPC)
    t.is(mkdir(), Errno.ENOSPC)
    replaceFiles(real)
    t.is(drive.find(''), Errno.ENOENT)
    drive.open()
    drive.do<Entry>((incoming, call) => incoming.mkdir(drive.find('') as Ino, Buffer.from('new'), 0o755, call))
    drive.folder = sandbox.path('staging')
    t.is(drive.again(sandbox.path('again'), archives).view(), drive.view())
    // One that is opened without being asked for.
    const other = new Drive(sandbox.path('other'), archives, [series])
    fillDisk()
    const late = other.do<Entry>((incoming, call) => incoming.lookup(incoming.root, Buffer.from(series), call))
    replaceFiles(real)
    t.is(late, Errno.ENOENT)
  } finally {
    replaceFiles(real)
    sandbox.close()
  }
})

test('a series that has to lie over another archive waits for a journal that can take it, and nobody waits without an answer', t => {
  const sandbox = new Sandbox('live-not-rebased')
  const real = files
  try {
    const items = archived(new Chance(1), new Chance(2))
    const drive = new Drive(sandbox.path('staging'), { ['a'.repeat(64)]: items })
    drive.open()
    drive.do<Entry>((incoming, call) => incoming.mkdir(drive.find('') as Ino, Buffer.from('new'), 0o755, call))
    drive.folder = sandbox.path('staging')
    const view = drive.view()
    const later = drive.again(sandbox.path('later'), { ['b'.repeat(64)]: items })
    later.folder = sandbox.path('later')
    fillDisk()
    t.is(later.find(''), Errno.ENOSPC)
    t.is(later.find(''), Errno.ENOSPC)
    replaceFiles(real)
    t.is(later.view(), view)
    t.is(later.again(sandbox.path('last'), { ['b'.repeat(64)]: items }).view(), view)
  } finally {
    replaceFiles(real)
    sandbox.close()
  }
})

test('files that a commit made needless stay where they are as long as the journal cannot say what they are instead', t => {
  const sandbox = new Sandbox('live-not-released')
  const real = files
  try {
    const [first, second] = ['a'.repeat(64), 'b'.repeat(64)]
    const before = [item('.', { mode: directoryMode, uid: 0 })], after = [...before, item('new', { chunks: chunksOf(1000), size: 1000 })]
    const drive = new Drive(sandbox.path('staging'), { [first]: before })
    drive.folder = sandbox.path('staging')
    drive.open()
    const made = drive.do<Created>((incoming, call) => incoming.create(drive.find('') as Ino, Buffer.from('new'), 0o644, 2, call)) as Created
    const { attr: { ino } } = made.entry
    const write = (fh: number, at: number, text: string) => drive.do<number>((incoming, call) => incoming.write(ino, fh, at, Buffer.from(text), call))
    write(made.opened.fh, 0, 'x'.repeat(1000))
    drive.incoming.release(ino, made.opened.fh)
    drive.save(second)
    drive.show({ [first]: before, [second]: after })
    fillDisk()
    t.notThrows(() => drive.tick())
    replaceFiles(real)
    // Another change, and time for all that is needless to go.
    drive.do<Entry>((incoming, call) => incoming.mkdir(drive.find('') as Ino, Buffer.from('later'), 0o755, call))
    for (const seconds of [10, 20, 30]) {
      drive.incoming.tick(performance.now() + seconds * 1000)
      drive.tick()
    }
    const again = drive.again(sandbox.path('again'), { [first]: before, [second]: after })
    t.is(again.view(), drive.view())
  } finally {
    replaceFiles(real)
    sandbox.close()
  }
})

test('what is done to an open file of the archive that has no name any more does not bring the name back', t => {
  const sandbox = new Sandbox('live-nameless')
  try {
    const id = 'a'.repeat(64)
    const items = [item('.', { mode: directoryMode, uid: 0 }), ...['written', 'read', 'over', 'other'].map(name => item(name, { chunks: chunksOf(1000), size: 1000 }))]
    const drive = new Drive(sandbox.path('staging'), { [id]: items })
    drive.folder = sandbox.path('staging')
    drive.open()
    const top = drive.find('') as Ino
    const opened = (name: string, flags: number) => {
      const ino = drive.find(name) as Ino
      return { ino, fh: (drive.do((incoming, call) => incoming.open(ino, flags, call as never)) as { fh: number }).fh }
    }
    const [written, read, over] = [opened('written', 2), opened('read', 0), opened('over', 2)]
    for (const name of ['written', 'read']) drive.do<void>((incoming, call) => incoming.unlink(top, Buffer.from(name), call))
    drive.do<void>((incoming, call) => incoming.rename(top, Buffer.from('other'), top, Buffer.from('over'), 0, call))
    for (const { ino, fh } of [written, over]) {
      t.is(drive.do<number>((incoming, call) => incoming.write(ino, fh, 10, Buffer.from('more'), call)), 4)
      t.is((drive.do(incoming => incoming.getattr(ino)) as { attr: Attr }).attr.size, 1000)
    }
    for (const { ino } of [read, written]) t.false(drive.do((incoming, call) => incoming.setattr(ino, { mode: 0o600 }, call as never)) instanceof Errno)
    t.deepEqual(drive.names(top), ['over'])
    t.is(drive.again(sandbox.path('again'), { [id]: items }).view(), drive.view())
    for (const { ino, fh } of [written, read, over]) drive.incoming.release(ino, fh)
    t.deepEqual(drive.names(top), ['over'])
    t.is(drive.again(sandbox.path('again'), { [id]: items }).view(), drive.view())
  } finally {
    sandbox.close()
  }
})

test('a series is not opened over an archive that is just being replaced, nor an archive replaced that a series is being opened over', t => {
  const sandbox = new Sandbox('live-replaced')
  try {
    for (const openedFirst of [false, true]) {
      const id = 'cd'.repeat(32)
      const drive = new Drive(sandbox.path(`live-${openedFirst}`), { [id]: archived(new Chance(1), new Chance(2)) })
      const engine = new FakeEngine(new Contents())
      const incoming = new Incoming({
        folder: sandbox.path(`incoming-${openedFirst}`), maxBytes: undefined, place: 'incoming', archiveIds: new Set(), settleMs: 1e9, lingerMs: 1e9,
        rootFacts: { mode: directoryMode, uid: 0, gid: 0, rdev: 0, atimeNs: 0n, mtimeNs: 0n, ctimeNs: 0n },
      }, engine.client, noNotices, { state() {} }, () => {
        throw new Error('no chunks here')
      })
      drive.incoming.neighbours = incoming.neighbours = [incoming, drive.incoming]
      const tree = (incoming.mkdir(incoming.root, Buffer.from('tree'), 0o755, call<Entry>()) as Entry).attr.ino
      const change = (name: string): void => {
        const { entry, opened } = incoming.create(tree, Buffer.from(name), 0o644, 2, call()) as Created
        incoming.release(entry.attr.ino, opened.fh)
      }
      const save = (): void => incoming.trees.commit(incoming.trees.find('tree')!, { patient: true }, () => {})
      change('a')
      engine.committed = { archive: archiveInfo(`${series}-2026-01-01`, id), numbers: { fileCount: 1, originalSize: 1, newBytes: 1 } }
      save()
      engine.answer()
      change('b')

      const open = call<Entry>()
      const mkdir = (): Answer<Entry> => drive.incoming.mkdir(drive.incoming.root, Buffer.from(series), 0o755, open)
      let answer: Answer<Entry>
      if (openedFirst) answer = mkdir()
      save()
      if (!openedFirst) answer = mkdir()
      t.is(answer!, LATER)
      t.is(incoming.trees.replaced !== undefined, !openedFirst)
      t.is(settled(answer!, open), undefined)
      if (!openedFirst) {
        drive.do(() => LATER as Answer<void>)
        t.is(settled(answer!, open), undefined, 'not before the other one is there')
      }
      engine.answer()
      const replaces = engine.asked.flatMap(request => (request.kind === 'commit' ? [request.replaces?.id] : []))
      t.deepEqual(replaces, [undefined, openedFirst ? undefined : id])
      drive.do(() => LATER as Answer<void>)
      t.false(settled(answer!, open) instanceof Errno)
      t.truthy(settled(answer!, open))
      incoming.destroy()
      drive.incoming.destroy()
    }
  } finally {
    sandbox.close()
  }
})
