/**
 * A file that consists of chunks and is changed: until what it becomes is durable, a failure of the machine makes it what it was. Where only the process was
 * killed it is what it became.
 */
import test, { type ExecutionContext } from 'ava'
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { HashTable } from '../../../src/engine/hashindex/hash-table.js'
import type { ChunkId } from '../../../src/engine/ids.js'
import { files, replaceFiles } from '../../../src/engine/platform/files.js'
import { Extents } from '../../../src/fs/incoming/extents.js'
import type { StagedNode } from '../../../src/fs/incoming/nodes.js'
import { inodeRange, inoOf, localOf } from '../../../src/fs/inodes.js'
import { hostError } from '../../helpers/full-disk.js'
import { call } from '../../helpers/mount-fixtures.js'
import { Sandbox } from '../../helpers/sandbox.js'
import { StagedBox } from '../../helpers/staged-box.js'

const block = 4096
const archive = { archive: { name: Buffer.from('archive'), id: 'ab'.repeat(32), timeNs: 0n }, numbers: { fileCount: 1, originalSize: 1, newBytes: 1 } }

function clones(count: number, letter = 'C'): Extents {
  const extents = new Extents()
  for (let index = 0; index < count; index++) extents.push(index * block, block, 0, Buffer.alloc(32, letter), block, block)
  return extents
}

class Changed extends StagedBox {
  readonly ino: number
  readonly fh: number
  readonly node: StagedNode

  /** A file of three chunks, durable long ago, that is open. */
  constructor(sandbox: Sandbox) {
    super(sandbox)
    const { ino, fh } = this.create(this.mkdir('tree'), 'f')
    this.ino = ino
    this.fh = fh
    this.node = this.box.nodes.get(localOf(ino))!
    this.clone(clones(3))
    this.box.staging.setAttributes(this.node, { mtimeNs: 1n, ctimeNs: 1n })
    this.sync()
  }

  clone(extents: Extents, at = 0): void {
    this.box.contents.clone(this.node, at, extents.end, extents)
  }

  write(at: number, data: string): void {
    this.handles.write(this.fh, at, Buffer.from(data), call<number>())
  }

  resize(size: number): void {
    this.attributes.setattr(this.ino, { size }, call())
  }

  sync(): void {
    this.box.durability.syncAll({ ...call<void>(), defer: () => () => {} })
    this.engine.answer()
  }

  /** Its spool file goes, as when the archive that was made of it is there. */
  release(): void {
    this.sync()
    this.box.staging.journal.cloned(this.node.id, clones(3, 'A'))
    this.node.extents!.put(clones(3, 'A'))
    this.box.staging.removeSpool(this.node)
  }

  /** Another file, `other/g`, that is open. */
  other(): { ino: number; fh: number; node: StagedNode } {
    const { ino, fh } = this.create(this.mkdir('other'), 'g')
    return { ino, fh, node: this.box.nodes.get(localOf(ino))! }
  }

  get content(): string {
    return contentIn(this.shown)
  }

  /** After the process, or the machine, failed. */
  get killed(): string {
    return contentIn(this.shownLater().shown)
  }

  failed(lose?: (folder: string) => void): string {
    return contentIn(this.afterFailure(lose).shown)
  }
}

/** Of the file, in short: runs of a character as it and their length. */
function contentIn(shown: readonly string[], path = 'tree/f'): string {
  const content = shown.find(line => line.startsWith(`${path}:`))?.split(', ').at(-1) ?? 'gone'
  return content.replaceAll(/(.)\1{9,}/gs, (run, letter: string) => `${letter}*${run.length} `).replaceAll('\0', '0')
}

const old = 'C*12288 '
const spools = (folder: string): string[] => readdirSync(join(folder, 'spool')).map(name => join(folder, 'spool', name))

function changed(work: (t: ExecutionContext, staged: Changed, sandbox: Sandbox) => void): (t: ExecutionContext) => void {
  return t => {
    const sandbox = new Sandbox('before')
    try {
      work(t, new Changed(sandbox), sandbox)
    } finally {
      sandbox.close()
    }
  }
}

const changes: Record<string, [(staged: Changed) => void, becomes: string]> = {
  'written in the middle': [staged => staged.write(block, 'w'.repeat(block)), 'C*4096 w*4096 C*4096 '],
  'written behind its end': [staged => staged.write(3 * block, 'w'.repeat(10)), 'C*12288 w*10 '],
  'cut off': [staged => staged.resize(block + 20), 'C*4116 '],
  'cut off and made longer': [staged => (staged.resize(20), staged.resize(40)), 'C*20 0*20 '],
  'made longer': [staged => staged.resize(3 * block + 20), 'C*12288 0*20 '],
  'emptied': [staged => staged.resize(0), ''],
  'emptied and written anew, short': [staged => (staged.resize(0), staged.write(0, 'new')), 'new'],
  'emptied and written anew, long': [staged => (staged.resize(0), staged.write(0, 'n'.repeat(4 * block))), 'n*16384 '],
  'emptied and cloned anew': [staged => (staged.resize(0), staged.clone(clones(1, 'N'))), 'N*4096 '],
  'cloned over': [staged => staged.clone(clones(1, 'N')), 'N*4096 C*8192 '],
  'punched': [staged => void staged.handles.fallocate(staged.fh, 3, block, block, call()), 'C*4096 0*4096 C*4096 '],
}

for (const [what, [change, becomes]] of Object.entries(changes)) {
  test(`a file that is ${what} is what it was if the machine fails before that is durable, with the time that it had`, changed((t, staged) => {
    change(staged)
    staged.box.staging.setAttributes(staged.node, { mtimeNs: 7n })
    t.is(staged.content, becomes)
    t.is(staged.killed, becomes)
    for (const renewed of [false, true]) {
      if (renewed) staged.box.staging.journal.rewrite(staged.box.nodes, staged.box.trees.made)
      const { shown, mtimesNs } = staged.afterFailure()
      t.is(contentIn(shown), old)
      t.deepEqual(mtimesNs, [1n])
      t.is(staged.killed, becomes)
    }
    staged.sync()
    t.deepEqual(staged.afterFailure().mtimesNs, [7n])
    t.is(staged.failed(), becomes)
    t.deepEqual(staged.node.befores, [])
  }))
}

test('what fsync of a file promised is kept, whatever is done to the file meanwhile', changed((t, staged) => {
  staged.resize(block)
  const done = staged.asked<void>(asking => staged.handles.fsync(staged.fh, asking))
  staged.write(0, 'w'.repeat(10))
  staged.engine.answer()
  t.is(done(), undefined)
  t.is(staged.failed(), 'C*4096 ')
}))

test('a file that is chunks only in part has those again, and nothing of what lies beneath them', changed((t, staged) => {
  staged.write(0, 'w'.repeat(10))
  staged.sync()
  // What is beneath is older now.
  staged.clone(clones(3, 'N'))
  staged.write(2 * block, 'v')
  staged.sync()
  t.is(staged.content, `${'N*8192 '}v${'N*4095 '}`)
  const before = spools(staged.box.staging.folder).map(path => [path.split('/').at(-1)!, readFileSync(path)] as const)
  const lose = (folder: string): void => before.forEach(([name, bytes]) => writeFileSync(join(folder, 'spool', name), bytes))
  staged.resize(0)
  t.is(staged.killed, '')
  t.is(staged.failed(lose), `${'N*8192 '}v${'N*4095 '}`)
  staged.write(0, 'new')
  t.is(staged.failed(lose), `${'N*8192 '}v${'N*4095 '}`)
  staged.sync()
  t.is(staged.failed(), 'new')
}))

test('a file that is written to its end all the time gives its room back', changed((t, staged) => {
  staged.write(block, 'w')
  staged.sync()
  staged.write(3 * block, 'at its end')
  t.deepEqual(staged.node.befores, [])
  let gone = 0
  staged.box.staging.afterSync(() => gone++, staged.node)
  staged.box.staging.takeAfterSync().done()
  t.is(gone, 1)
  staged.write(0, 'in it')
  staged.box.staging.afterSync(() => gone++, staged.node)
  staged.box.staging.takeAfterSync().done()
  t.is(gone, 1)
  staged.sync()
  staged.box.staging.takeAfterSync().done()
  t.is(gone, 2)
}))

test('what was durable is not torn by a change while it is synced', changed((t, staged) => {
  const lose = (folder: string): void => spools(folder).forEach(path => rmSync(path))
  staged.resize(2 * block)
  const done = staged.asked<void>(asking => staged.handles.fsync(staged.fh, asking))
  // Needs a spool file, which no sync was begun for.
  staged.write(0, 'w'.repeat(block))
  staged.engine.answer()
  t.is(done(), undefined)
  t.is(staged.failed(lose), 'C*8192 ')
  staged.sync()
  t.is(staged.failed(), 'w*4096 C*4096 ')
  t.deepEqual(staged.node.befores, [])
}))

test('of two syncs each keeps what it promised', changed((t, staged) => {
  staged.resize(2 * block)
  const first = staged.asked<void>(asking => staged.handles.fsync(staged.fh, asking))
  staged.resize(block)
  const second = staged.asked<void>(asking => staged.handles.fsync(staged.fh, asking))
  staged.engine.answer()
  t.deepEqual([first(), second()], [undefined, undefined])
  t.is(staged.failed(), 'C*4096 ')
  t.deepEqual(staged.node.befores, [])
}))

test('a file that becomes chunks again and again, and is changed, is what was durable', changed((t, staged) => {
  for (const letter of 'NM') {
    staged.resize(0)
    staged.write(0, 'new')
    // As when the cutter answers.
    const extents = new Extents()
    extents.push(0, 3, 0, Buffer.alloc(32, letter), 3, 3)
    staged.box.staging.journal.stashed(staged.node.id, extents)
    Object.assign(staged.node, { extents, stashed: true, bare: true, place: undefined })
  }
  t.is(staged.killed, 'MMM')
  t.is(staged.failed(), old)
  staged.sync()
  t.is(staged.failed(), 'MMM')
}))

test('a file that is changed all the time does not go back to what it was long ago', changed((t, staged) => {
  staged.resize(2 * block)
  let now = performance.now()
  for (let round = 0; round < 20; round++) {
    staged.write(0, 'w')
    staged.clone(clones(1))
    staged.box.durability.tick(now += 10_000)
    staged.write(0, 'w')
    staged.engine.answer()
  }
  // As it was when the last sync began.
  t.is(staged.failed(), 'C*8192 ')
}))

test('what a killed process left is durable some seconds after the next start, and before its tree is thawed', changed((t, staged, sandbox) => {
  staged.resize(block)
  const ticked = new StagedBox(sandbox)
  let now = performance.now()
  for (let round = 0; round < 3; round++) {
    ticked.box.durability.tick(now += 10_000)
    ticked.engine.answer()
  }
  t.is(contentIn(ticked.afterFailure().shown), 'C*4096 ')
  t.true(ticked.engine.asked.some(({ kind }) => kind === 'sync-folder'))
  ticked.attributes.setattr(staged.ino, { size: 10 }, call())
  const saved = new StagedBox(sandbox)
  saved.engine.committed = archive
  saved.commit('tree')
  t.true(saved.engine.asked.some(({ kind }) => kind === 'sync-folder'))
  saved.engine.answer()
  t.is(contentIn(saved.afterFailure().shown), 'C*10 ')
}))

test('chunks that a file would be made of again are kept until they are not', changed((t, staged) => {
  staged.resize(0)
  t.is(staged.node.befores[0]?.extents?.count, 3)
  staged.sync()
  t.deepEqual(staged.node.befores, [])
}))

test('on a disk that is full at the start a file goes back as well, and stays what is made of it then', changed((t, staged, sandbox) => {
  staged.write(0, 'w'.repeat(2 * block))
  const folder = sandbox.path('second')
  cpSync(sandbox.path('staging'), folder, { recursive: true })
  const { rename } = files
  const real = replaceFiles({ ...files, rename: (from: string, to: string) => (to.endsWith('/journal') ? (() => { throw hostError('ENOSPC') })() : rename(from, to)) })
  try {
    const second = staged.start(folder, 'two')
    const node = second.nodes.peek(staged.node.id)!
    t.is(node.extents!.bytes, 3 * block)
    t.true(node.bare)
    second.journal.cut(node.id, block, 2 * block)
    second.close()
    const third = staged.start(folder, 'three')
    t.is(third.nodes.peek(node.id)!.extents!.bytes, 2 * block)
    third.close()
  } finally {
    replaceFiles(real)
  }
}))

test('a spool file that a crash brought back is none', changed((t, staged) => {
  staged.write(0, 'w'.repeat(10))
  const [spool] = spools(staged.box.staging.folder)
  t.is(statSync(spool!).size, 3 * block)
  staged.release()
  staged.resize(block)
  staged.sync()
  const back = (folder: string): void => writeFileSync(join(folder, 'spool', spool!.split('/').at(-1)!), Buffer.alloc(3 * block, 'x'))
  t.is(staged.failed(back), 'A*4096 ')
  // But the one that it gets when it is written to is.
  staged.write(5, 'w'.repeat(10))
  staged.sync()
  t.is(staged.killed, `AAAAA${'w*10 '}${'A*4081 '}`)
  t.is(staged.failed(), `AAAAA${'w*10 '}${'A*4081 '}`)
  staged.resize(0)
  staged.write(5, 'w'.repeat(10))
  t.is(staged.killed, '00000w*10 ')
  // What lies in the spool file only is not kept twice.
  const left = `AAAAA${'0*10 '}${'A*4081 '}`
  t.is(staged.failed(folder => spools(folder).forEach(path => truncateSync(path, 0))), left)
  t.is(staged.failed(folder => spools(folder).forEach(path => rmSync(path))), left)
}))

test('no new file gets the number of a spool file that the journal forgot, which a crash may bring back again', changed((t, staged, sandbox) => {
  const folder = sandbox.path('second')
  cpSync(sandbox.path('staging'), folder, { recursive: true })
  for (const name of ['77', '9999999999']) writeFileSync(join(folder, 'spool', name), 'forgotten')
  const later = staged.start(folder, 'two')
  t.is(later.nodes.nextId, 78)
  t.false(['77', '9999999999'].some(name => existsSync(join(folder, 'spool', name))))
  t.truthy(later.spool.unsyncedNames(), 'the next sync has them gone for good')
  later.close()
}))

test('an emptied file has nothing of a spool file that a crash brought back, once that was synced', changed((t, staged) => {
  staged.write(0, 'w'.repeat(10))
  const [spool] = spools(staged.box.staging.folder)
  staged.release()
  t.false(existsSync(spool!))
  staged.resize(0)
  const { fds } = staged.box.staging.journal
  const done = staged.asked<void>(asking => staged.handles.fsync(staged.fh, asking))
  const asked = staged.engine.asked.at(-1)!
  // That the name is gone is durable with it, so it does not come back.
  t.true(asked.kind === 'sync' && asked.fds.length > fds.length)
  staged.engine.answer()
  t.is(done(), undefined)
}))

test('where a file lay in a bundle before its spool file went is not where it lies', changed((t, staged) => {
  const { fh, ino, node } = staged.other()
  staged.handles.write(fh, 0, Buffer.from('small'), call<number>())
  staged.sync()
  staged.handles.write(fh, 10, Buffer.from('x'.repeat(10)), call<number>())
  t.truthy(node.former)
  const done = staged.asked<void>(asking => staged.handles.syncfs(asking))
  staged.box.staging.journal.cloned(node.id, clones(1, 'A'))
  ;(node.extents ??= new Extents()).put(clones(1, 'A'))
  node.size = block
  staged.box.staging.removeSpool(node)
  staged.attributes.setattr(ino, { size: 100 }, call())
  staged.engine.answer()
  t.is(done(), undefined)
  t.is(contentIn(staged.afterFailure().shown, 'other/g'), 'A*4096 ')
}))

test('a spool file goes only when all that was noted by then is durable', changed((t, staged) => {
  const { engine, box } = staged
  const MiB = 1 << 20
  const { fh, ino, node } = staged.other()
  staged.attributes.setattr(ino, { size: 40 * MiB }, call())
  staged.sync()
  staged.handles.release(fh)
  const ids = (): number[] => engine.asked.flatMap(({ kind }, index) => (kind === 'cut' ? [index + 1] : []))
  const reply = (at: number, length: number, letter: string): never => {
    const extents = new Extents()
    extents.push(at, length, 0, Buffer.alloc(32, letter), length, length)
    return { rows: extents.rows, states: Uint8Array.from([2]), stashBytes: 0, end: at + length } as never
  }
  t.is(ids().length, 1)
  engine.client.deliver({ type: 'progress', id: ids()[0]!, progress: { kind: 'cut', end: 30 * MiB } })
  t.is(ids().length, 2)
  engine.client.deliver({ type: 'reply', id: ids()[0]!, value: reply(0, 30 * MiB, 'A') })
  const before = engine.asked.length
  let now = performance.now()
  for (const laterMs of [1000, 10_000]) box.durability.tick(now += laterMs)
  const sync = engine.asked.findIndex(({ kind }, index) => index >= before && kind === 'sync') + 1
  t.true(sync > 0)
  const durable = statSync(join(box.staging.folder, 'journal')).size
  engine.client.deliver({ type: 'reply', id: ids()[1]!, value: reply(30 * MiB, 10 * MiB, 'B') })
  t.is(node.extents!.bytes, 40 * MiB)
  engine.client.deliver({ type: 'reply', id: sync, value: undefined })
  t.false(node.bare)
  const { shown } = staged.afterFailure(folder => truncateSync(join(folder, 'journal'), durable))
  t.regex(shown.find(line => line.startsWith('other/g'))!, /size 41943040/)
  // With the next sync it is all durable.
  for (const laterMs of [1000, 10_000]) {
    box.durability.tick(now += laterMs)
    engine.answer()
  }
  t.true(node.bare)
}))

test('a change that is refused needs nothing of what was before', changed((t, staged) => {
  const collapse = 8
  t.not(staged.handles.fallocate(staged.fh, collapse, 0, block, call()), undefined)
  t.deepEqual(staged.node.befores, [])
}))

test('a chunk of what a file was that is nowhere says so when it is read: nothing takes its place', changed((t, staged, sandbox) => {
  staged.box.contents.clone(staged.node, 0, 3 * block, clones(3, 'S'), true)
  staged.sync()
  staged.write(2 * block, 'w')
  const folder = sandbox.path('second')
  cpSync(sandbox.path('staging'), folder, { recursive: true })
  const known = new HashTable(1)
  known.set(Buffer.alloc(32, 'X') as ChunkId, 0)
  const later = staged.start(folder, 'two', [known.shared()])
  const node = later.nodes.peek(staged.node.id)!
  t.deepEqual([node.bare, node.size, node.extents?.bytes], [true, 3 * block, 3 * block])
  later.close()
}))

/** A file that left its bundle, with chunks over its spool file. */
function leftBundle(staged: Changed): { fh: number; node: StagedNode } {
  const { fh, node } = staged.other()
  staged.handles.write(fh, 0, Buffer.from('small'), call<number>())
  staged.sync()
  staged.handles.write(fh, 3 * block, Buffer.from('x'.repeat(10)), call<number>())
  staged.box.staging.journal.stashed(node.id, clones(2, 'A'))
  ;(node.extents ??= new Extents()).put(clones(2, 'A'))
  return { fh, node }
}

test('a file that was synced out of its bundle does not go back there', changed((t, staged) => {
  const { fh, node } = leftBundle(staged)
  t.truthy(node.former)
  const done = staged.asked<void>(asking => staged.handles.fsync(fh, asking))
  staged.handles.write(fh, 0, Buffer.from('w'), call<number>())
  t.truthy(node.befores[0]?.former)
  staged.engine.answer()
  t.is(done(), undefined)
  t.deepEqual([node.former, node.befores[0]?.former], [undefined, undefined])
  t.regex(contentIn(staged.afterFailure().shown, 'other/g'), /x\*10 $/)
}))

test('one that was not does, also by a journal that was written anew', changed((t, staged) => {
  const { fh } = leftBundle(staged)
  staged.handles.write(fh, 0, Buffer.from('w'), call<number>())
  const lose = (folder: string): void => spools(folder).forEach(path => rmSync(path))
  t.is(contentIn(staged.afterFailure(lose).shown, 'other/g'), 'small')
  staged.box.staging.journal.rewrite(staged.box.nodes, staged.box.trees.made)
  t.is(contentIn(staged.afterFailure(lose).shown, 'other/g'), 'small')
  t.regex(contentIn(staged.shownLater().shown, 'other/g'), /x\*10 $/)
}))

function chunk(letter: string, length: number): Extents {
  const extents = new Extents()
  extents.push(0, length, 0, Buffer.alloc(32, letter), length, length)
  return extents
}

/** A small file that is a chunk, and lay in a bundle before. */
function cutFromBundle(staged: Changed): { fh: number; ino: number; node: StagedNode } {
  const { fh, ino, node } = staged.other()
  staged.handles.write(fh, 0, Buffer.from('small'), call<number>())
  staged.sync()
  staged.box.staging.journal.stashed(node.id, chunk('S', 5))
  Object.assign(node, { extents: chunk('S', 5), stashed: true, bare: true, place: undefined })
  staged.sync()
  return { fh, ino, node }
}

test('a file that was cut out of a bundle and then grew has no end of what it became', changed((t, staged) => {
  const { fh } = cutFromBundle(staged)
  staged.handles.write(fh, 3, Buffer.alloc(70_000, 'n'), call<number>())
  for (const renewed of [false, true]) {
    if (renewed) staged.box.staging.journal.rewrite(staged.box.nodes, staged.box.trees.made)
    t.is(contentIn(staged.afterFailure().shown, 'other/g'), 'SSSSS')
    t.is(contentIn(staged.shownLater().shown, 'other/g'), 'SSSn*70000 ')
  }
}))

test('a file that went back into its bundle, and leaves it again, has the spool file that it gets then', changed((t, staged, sandbox) => {
  const { fh, node } = staged.other()
  staged.handles.write(fh, 0, Buffer.from('small'), call<number>())
  staged.sync()
  // It is a chunk that is nowhere after the failure, and was being changed: the bundle has it.
  staged.box.staging.journal.stashed(node.id, chunk('S', 5))
  Object.assign(node, { extents: chunk('S', 5), stashed: true, bare: true, place: undefined })
  staged.handles.write(fh, 3, Buffer.alloc(70_000, 'n'), call<number>())
  const known = new HashTable(1)
  known.set(Buffer.alloc(32, 'C') as ChunkId, 0)
  const folder = sandbox.path('second')
  cpSync(sandbox.path('staging'), folder, { recursive: true })
  staged.start(folder, 'two', [known.shared()]).close()
  rmSync(sandbox.path('staging'), { recursive: true })
  cpSync(folder, sandbox.path('staging'), { recursive: true })
  const again = new StagedBox(sandbox)
  t.is(contentIn(again.shown, 'other/g'), 'small')
  const ino = inoOf(inodeRange.incoming, node.id)
  again.handles.write(again.open(ino), 100_000, Buffer.from('x'.repeat(20)), call<number>())
  again.box.durability.syncAll(call<void>())
  again.engine.answer()
  t.regex(contentIn(again.shownLater().shown, 'other/g'), /x\*20 $/)
  t.regex(contentIn(again.afterFailure().shown, 'other/g'), /x\*20 $/)
}))

for (const before of ['', 'small'] as const) {
  test(`an emptied file${before && ' that came into a bundle'} has the spool file that it gets then`, changed((t, staged) => {
    staged.resize(0)
    staged.sync()
    t.deepEqual(staged.node.befores, [])
    if (before) staged.write(0, before)
    staged.sync()
    staged.write(100_000, 'x'.repeat(20))
    staged.sync()
    for (const renewed of [false, true]) {
      if (renewed) staged.box.staging.journal.rewrite(staged.box.nodes, staged.box.trees.made)
      t.regex(staged.killed, /x\*20 $/)
      t.regex(staged.failed(), /x\*20 $/)
    }
  }))
}

test('a file that was cut out of a bundle and written anew has nothing in the bundle', changed((t, staged, sandbox) => {
  const { fh, ino, node } = cutFromBundle(staged)
  staged.attributes.setattr(ino, { size: 0 }, call())
  staged.handles.write(fh, 0, Buffer.alloc(700_000, 'n'), call<number>())
  staged.sync()
  t.deepEqual(node.befores, [])
  // The answer of the cutter came to the disk, its chunk did not.
  staged.box.staging.journal.stashed(node.id, chunk('Z', 700_000))
  const folder = sandbox.path('second')
  cpSync(sandbox.path('staging'), folder, { recursive: true })
  const known = new HashTable(1)
  for (const letter of 'SC') known.set(Buffer.alloc(32, letter) as ChunkId, 0)
  const later = staged.start(folder, 'two', [known.shared()])
  const found = later.nodes.peek(node.id)!
  t.deepEqual([found.size, found.extents, found.place, later.spool.exists(node.id)], [700_000, undefined, undefined, true])
  later.close()
}))

test('what waits for a file that is gone does not wait for ever', changed((t, staged) => {
  staged.write(0, 'w')
  staged.box.staging.afterSync(() => {}, staged.node)
  staged.handles.release(staged.fh)
  staged.names.unlink(inoOf(inodeRange.incoming, staged.node.parent), Buffer.from('f'), call())
  staged.sync()
  staged.box.staging.takeAfterSync().done()
  t.false(staged.box.staging.waitsForSync)
}))

test('as long as syncs fail, one state of before is kept', changed((t, staged) => {
  for (let round = 0; round < 20; round++) {
    staged.write(0, 'w')
    staged.clone(clones(1))
    const failed = staged.asked<void>(asking => staged.handles.syncfs(asking))
    staged.engine.fail()
    t.truthy(failed())
  }
  t.is(staged.node.befores.length, 1)
  t.is(staged.failed(), old)
}))

test('of two commits at once each thaws its tree when it is durable', changed((t, staged) => {
  const { box, engine, handles } = staged
  handles.release(staged.fh)
  for (const name of ['a', 'b']) staged.file(staged.mkdir(name), 'file', name)
  engine.committed = archive
  const reply = (kind: string, nth: number): void => {
    const ids = engine.asked.flatMap((request, index) => (request.kind === kind ? [index + 1] : []))
    engine.client.deliver({ type: 'reply', id: ids[nth]!, value: kind === 'commit' ? archive : undefined })
  }
  const count = (kind: string): number => engine.asked.filter(request => request.kind === kind).length
  const before = count('sync-folder')
  staged.commit('a')
  staged.commit('b')
  staged.file(staged.mkdir('other'), 'file', 'changed meanwhile')
  reply('commit', 0)
  t.true(box.trees.find('a')!.frozen)
  reply('sync-folder', before)
  t.false(box.trees.find('a')!.frozen)
  t.is(count('sync-folder'), before + 2)
  reply('commit', 1)
  for (const [index, { kind }] of engine.asked.entries()) if (kind === 'sync') engine.client.deliver({ type: 'reply', id: index + 1, value: undefined })
  t.true(box.trees.find('b')!.frozen)
  reply('sync-folder', before + 1)
  t.false(box.trees.find('b')!.frozen)
}))
