/**
 * A file that consists of chunks and is changed: until what it becomes is durable, a failure of the machine makes it what it was. Where only the process was
 * killed it is what it became.
 */
import test, { type ExecutionContext } from 'ava'
import { cpSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { files, replaceFiles } from '../../../src/engine/platform/files.js'
import { nowNs } from '../../../src/fs/incoming/clock.js'
import { Extents } from '../../../src/fs/incoming/extents.js'
import type { StagedNode } from '../../../src/fs/incoming/nodes.js'
import { localOf } from '../../../src/fs/inodes.js'
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
function contentIn(shown: readonly string[]): string {
  const content = shown.find(line => line.startsWith('tree/f:'))?.split(', ').at(-1) ?? 'gone'
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
    t.is(staged.node.before, undefined)
  }))
}

test('what fsync of a file promised is kept, whatever is done to the file meanwhile', changed((t, staged) => {
  staged.resize(block)
  const done = staged.asked<void>(asking => staged.handles.fsync(staged.fh, asking))
  staged.write(0, 'w'.repeat(10))
  staged.engine.answer()
  t.is(done(), undefined)
  t.is(staged.failed(), 'w*10 C*4086 ')
}))

test('a file that is changed all the time does not go back to what it was long ago', changed((t, staged) => {
  staged.resize(2 * block)
  let now = nowMs()
  for (let round = 0; round < 20; round++) {
    staged.write(0, 'w')
    staged.clone(clones(1))
    staged.box.durability.tick(now += 10_000)
    staged.write(0, 'w')
    staged.engine.answer()
  }
  t.is(staged.failed(), `w${'C*8191 '}`)
}))

test('what a killed process left is durable some seconds after the next start, and before its tree is thawed', changed((t, staged, sandbox) => {
  staged.resize(block)
  const ticked = new StagedBox(sandbox)
  let now = nowMs()
  for (let round = 0; round < 3; round++) {
    ticked.box.durability.tick(now += 10_000)
    ticked.engine.answer()
  }
  t.is(contentIn(ticked.afterFailure().shown), 'C*4096 ')
  const { engine } = ticked
  ticked.attributes.setattr(staged.ino, { size: 10 }, call())
  const saved = new StagedBox(sandbox)
  saved.engine.committed = archive
  saved.commit('tree')
  t.true(saved.engine.asked.some(({ kind }) => kind === 'sync-folder'))
  saved.engine.answer()
  t.is(contentIn(saved.afterFailure().shown), 'C*10 ')
  t.true(engine.asked.length > 0)
}))

test('chunks that a file would be made of again are needed', changed((t, staged) => {
  staged.resize(0)
  t.is(staged.node.before?.extents?.count, 3)
  staged.sync()
  t.is(staged.node.before, undefined)
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
  // As when the archive that was made of it is there.
  staged.box.staging.journal.cloned(staged.node.id, clones(3, 'A'))
  staged.node.extents!.put(clones(3, 'A'))
  staged.box.staging.removeSpool(staged.node)
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
  t.is(staged.failed(folder => spools(folder).forEach(path => truncateSync(path, 0))), '', 'what lies in the spool file only is not kept twice')
  t.is(staged.failed(folder => spools(folder).forEach(path => rmSync(path))), '')
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

function nowMs(): number {
  return Number(nowNs() / 1_000_000n)
}
