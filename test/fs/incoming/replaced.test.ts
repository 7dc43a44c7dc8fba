/** What was written over chunks, or cut off them, and not durable when the machine failed: is there, or else they are. Where only the process was killed it is there. */
import test, { type ExecutionContext } from 'ava'
import { readdirSync, rmSync, statSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { Extents } from '../../../src/fs/incoming/extents.js'
import { nowNs } from '../../../src/fs/incoming/clock.js'
import { localOf } from '../../../src/fs/inodes.js'
import { call } from '../../helpers/mount-fixtures.js'
import { Sandbox } from '../../helpers/sandbox.js'
import { StagedBox } from '../../helpers/staged-box.js'

const block = 4096
const old = 'C'.repeat(3 * block)

/** A file of three chunks, durable long ago, that is open. */
function withClone(staged: StagedBox): { ino: number; fh: number } {
  const file = staged.create(staged.mkdir('tree'), 'f')
  const { box } = staged
  const extents = new Extents()
  for (let index = 0; index < 3; index++) extents.push(index * block, block, 0, Buffer.alloc(32, 'C'), block, block)
  const node = box.nodes.get(localOf(file.ino))!
  box.contents.clone(node, 0, 3 * block, extents)
  box.staging.setAttributes(node, { mtimeNs: 1n, ctimeNs: 1n })
  return file
}

function makeDurable(staged: StagedBox): void {
  staged.box.durability.syncAll({ ...call<void>(), defer: () => () => {} })
  staged.engine.answer()
}

const spools = (folder: string): string[] => readdirSync(join(folder, 'spool'), { recursive: true }).map(name => join(folder, 'spool', String(name))).filter(path => statSync(path).isFile())
const lost: Record<string, (folder: string) => void> = {
  'its spool file': folder => spools(folder).forEach(path => rmSync(path)),
  'the length of its spool file': folder => spools(folder).forEach(path => truncateSync(path, 0)),
  'the content of its spool file': folder => spools(folder).forEach(path => {
    const { size } = statSync(path)
    truncateSync(path, 0)
    truncateSync(path, size)
  }),
}

function each(work: (t: ExecutionContext, staged: StagedBox, file: { ino: number; fh: number }) => void): (t: ExecutionContext) => void {
  return t => {
    const sandbox = new Sandbox('replaced')
    try {
      const staged = new StagedBox(sandbox)
      work(t, staged, withClone(staged))
    } finally {
      sandbox.close()
    }
  }
}

function content(shown: readonly string[]): string | undefined {
  return shown.find(line => line.startsWith('tree/f:'))?.split(', ').at(-1)
}

test('what was written over chunks is there after the process was killed, and after the machine failed where the disk has it', each((t, staged, { fh }) => {
  staged.handles.write(fh, block, Buffer.alloc(block, 'w'), call<number>())
  const written = 'C'.repeat(block) + 'w'.repeat(block) + 'C'.repeat(block)
  t.is(content(staged.shown), written)
  t.is(content(staged.shownLater().shown), written)
  t.is(content(staged.afterFailure().shown), written)
}))

for (const [what, lose] of Object.entries(lost)) {
  test(`where the machine's failure took ${what}, the chunks are there again, and the file has another time than it was given`, each((t, staged, { ino, fh }) => {
    staged.handles.write(fh, block, Buffer.alloc(block, 'w'), call<number>())
    staged.handles.write(fh, 2 * block, Buffer.alloc(block, 'w'), call<number>())
    staged.box.staging.setAttributes(staged.box.nodes.get(localOf(ino))!, { mtimeNs: 1n })
    const before = nowNs()
    const { shown, mtimesNs } = staged.afterFailure(lose)
    t.is(content(shown), old)
    t.true(mtimesNs[0]! >= before)
    // But not if it was written again after a sync.
    makeDurable(staged)
    staged.handles.write(fh, 0, Buffer.alloc(10, 'x'), call<number>())
    t.is(content(staged.afterFailure().shown), `${'x'.repeat(10)}${'C'.repeat(block - 10)}${'w'.repeat(2 * block)}`)
  }))
}

test('what was durable does not give way to what lay there before', each((t, staged, { ino, fh }) => {
  staged.handles.write(fh, block, Buffer.alloc(block, 'w'), call<number>())
  makeDurable(staged)
  staged.handles.write(fh, 0, Buffer.alloc(block, 'x'), call<number>())
  staged.box.staging.setAttributes(staged.box.nodes.get(localOf(ino))!, { mtimeNs: 1n })
  t.is(content(staged.afterFailure(lost['the content of its spool file']).shown), `${'C'.repeat(block)}${'\0'.repeat(block)}${'C'.repeat(block)}`, 'a disk that loses what it synced')
  t.deepEqual(staged.afterFailure().mtimesNs, [1n])
}))

test('a file that was emptied and written anew is the new one, or the old one again', each((t, staged, { ino, fh }) => {
  staged.attributes.setattr(ino, { size: 0 }, call())
  t.is(content(staged.shownLater().shown), '')
  t.is(content(staged.afterFailure().shown), old)
  staged.handles.write(fh, 0, Buffer.from('new'), call<number>())
  t.is(content(staged.shownLater().shown), 'new')
  t.is(content(staged.afterFailure().shown), 'new')
  t.is(content(staged.afterFailure(folder => rmSync(join(folder, 'bundles'), { recursive: true })).shown), old)
  makeDurable(staged)
  t.is(content(staged.afterFailure().shown), 'new')
}))

test('a file that was cut off is as short as it was made, once that is durable', each((t, staged, { ino, fh }) => {
  staged.attributes.setattr(ino, { size: block + 5 }, call())
  t.is(content(staged.shownLater().shown), 'C'.repeat(block + 5))
  t.is(content(staged.afterFailure().shown), old)
  makeDurable(staged)
  t.is(content(staged.afterFailure().shown), 'C'.repeat(block + 5))
}))

test('a journal that is written anew says it as well', each((t, staged, { ino, fh }) => {
  staged.handles.write(fh, block, Buffer.alloc(block, 'w'), call<number>())
  staged.attributes.setattr(ino, { size: 2 * block }, call())
  const { journal, nodes } = staged.box.staging
  journal.rewrite(nodes)
  t.is(content(staged.shownLater().shown), 'C'.repeat(block) + 'w'.repeat(block))
  t.is(content(staged.afterFailure(lost['its spool file']).shown), old)
}))
