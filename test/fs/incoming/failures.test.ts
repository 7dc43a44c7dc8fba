/** Host calls that fail while something is changed in incoming/: what is shown then is what the next start shows. */
import test from 'ava'
import { readdirSync, writeFileSync } from 'node:fs'
import { type Files, files, replaceFiles } from '../../../src/engine/platform/files.js'
import { Extents } from '../../../src/fs/incoming/extents.js'
import { Errno } from '../../../src/fs/types.js'
import { hostError } from '../../helpers/full-disk.js'
import { call } from '../../helpers/mount-fixtures.js'
import { Sandbox } from '../../helpers/sandbox.js'
import { StagedBox } from '../../helpers/staged-box.js'

/** Runs `work` while host call `fails` (0: the first) does; how many there were. */
function failing(fails: number, work: () => void): number {
  const real = files
  let calls = 0
  const broken = Object.fromEntries(Object.entries(real).map(([name, made]) => [name, (...args: unknown[]): unknown => {
    if (calls++ === fails) throw hostError('EIO')
    return (made as (...args: unknown[]) => unknown).apply(real, args)
  }])) as unknown as Files
  replaceFiles(broken)
  try {
    work()
  } finally {
    replaceFiles(real)
  }
  return calls
}

const text = Buffer.from
/** user::rwx user:1:r-x group::r-x mask::rwx other::--- */
const acl = Buffer.from('02000000' + '01000700ffffffff' + '0200050001000000' + '04000500ffffffff' + '10000700ffffffff' + '20000000ffffffff', 'hex')

function chunks(length: number, byte: number): { length: number; extents: Extents; stashed: boolean } {
  const extents = new Extents()
  extents.push(0, length, 0, Buffer.alloc(32, byte), length, length)
  return { length, extents, stashed: true }
}

const changes: Record<string, (staged: StagedBox, made: ReturnType<typeof prepare>) => unknown> = {
  mkdir: ({ names }, { tree }) => names.mkdir(tree, text('new'), 0o755, call()),
  symlink: ({ names }, { tree }) => names.symlink(tree, text('new'), text('target'), call()),
  create: ({ names }, { tree }) => names.create(tree, text('new'), 0o644, 2, call()),
  link: ({ names }, { tree, file }) => names.link(file, tree, text('new'), call()),
  unlink: ({ names }, { tree }) => names.unlink(tree, text('file'), call()),
  rmdir: ({ names }, { tree }) => names.rmdir(tree, text('empty'), call()),
  rename: ({ names }, { tree, inner }) => names.rename(tree, text('file'), inner, text('moved'), 0, call()),
  'rename over': ({ names }, { tree, inner }) => names.rename(tree, text('file'), inner, text('over'), 0, call()),
  exchange: ({ names }, { tree, inner }) => names.rename(tree, text('file'), inner, text('over'), 2, call()),
  'rename a tree': ({ names, root }) => names.rename(root, text('tree'), root, text('other'), 0, call()),
  chmod: ({ attributes }, { file }) => attributes.setattr(file, { mode: 0o600, uid: 7 }, call()),
  setxattr: ({ attributes }, { file }) => attributes.setxattr(file, text('user.a'), text('new'), 0, call()),
  'setxattr of an ACL': ({ attributes }, { file }) => attributes.setxattr(file, text('system.posix_acl_access'), acl, 0, call()),
  removexattr: ({ attributes }, { file }) => attributes.removexattr(file, text('user.a'), call()),
  'the first bytes': ({ handles }, { fresh }) => handles.write(fresh, 0, text('first'), call()),
  append: ({ handles }, { bundled }) => handles.write(bundled, 8, text('more'), call()),
  'a hole': ({ handles }, { bundled }) => handles.write(bundled, 20, text('behind'), call()),
  shorten: ({ attributes }, { file }) => attributes.setattr(file, { size: 3 }, call()),
  empty: ({ attributes }, { file }) => attributes.setattr(file, { size: 0 }, call()),
  'write over chunks': ({ handles }, { mixed }) => handles.write(mixed, 4, text('own'), call()),
  'write over chunks and behind': ({ handles }, { mixed }) => handles.write(mixed, 8, text('own and more than there was'), call()),
  'cut chunks off': ({ attributes }, { cloned }) => attributes.setattr(cloned, { size: 3 }, call()),
  'cut off what is mixed': ({ attributes }, { mixedFile }) => attributes.setattr(mixedFile, { size: 6 }, call()),
  punch: ({ handles }, { mixed }) => handles.fallocate(mixed, 3, 2, 4, call()),
  clone: ({ handles }, { mixed }) => handles.cloneInto(mixed, 2, chunks(4, 0x63), call()),
  'clone behind': ({ handles }, { mixed }) => handles.cloneInto(mixed, 30, chunks(4, 0x63), call()),
}

function prepare(staged: StagedBox) {
  const tree = staged.mkdir('tree'), inner = staged.mkdir('inner', tree)
  staged.mkdir('empty', tree)
  staged.file(inner, 'over', 'what goes')
  const file = staged.file(tree, 'file', 'some bytes')
  staged.attributes.setxattr(file, text('user.a'), text('value'), 0, call())
  const fresh = staged.create(tree, 'fresh').fh
  const bundled = staged.open(staged.file(tree, 'bundled', 'eight by'))
  const { ino: cloned, fh } = staged.create(tree, 'cloned')
  staged.handles.cloneInto(fh, 0, chunks(9, 0x61), call())
  staged.handles.release(fh)
  const { ino: mixedFile, fh: mixed } = staged.create(tree, 'mixed')
  staged.handles.cloneInto(mixed, 0, chunks(10, 0x62), call())
  staged.handles.write(mixed, 10, text('spooled'), call())
  return { tree, inner, file, fresh, bundled, cloned, mixed, mixedFile }
}

for (const [title, change] of Object.entries(changes)) {
  test(`${title}: whichever call of the host fails, the next start shows what is shown`, t => {
    for (let fails = 0, calls = 1; fails <= calls; fails++) {
      const sandbox = new Sandbox('incoming-failing')
      try {
        const staged = new StagedBox(sandbox)
        const made = prepare(staged)
        let answer: unknown
        calls = failing(fails, () => (answer = change(staged, made)))
        const label = `call ${fails} of ${calls}`
        if (fails >= calls) t.false(answer instanceof Errno, label)
        t.deepEqual(staged.shownLater().shown, staged.shown, label)
        // And so do later changes.
        if (answer instanceof Errno) change(staged, made)
        staged.file(made.inner, 'later', 'more bytes')
        const later = staged.shownLater()
        t.deepEqual(later.shown, staged.shown, `${label}, and later`)
        t.is(later.lostRecords, 0, label)
        staged.box.staging.close()
      } finally {
        sandbox.close()
      }
    }
  })
}

function withBox(work: (staged: StagedBox, sandbox: Sandbox) => void): void {
  const sandbox = new Sandbox('incoming-failing')
  try {
    const staged = new StagedBox(sandbox)
    work(staged, sandbox)
    staged.box.staging.close()
  } finally {
    sandbox.close()
  }
}

test('what is written to a file that has no name any more is no damage of the journal', t => withBox(staged => {
  const { names, handles, attributes } = staged
  const tree = staged.mkdir('tree')
  const { ino, fh } = staged.create(tree, 'temporary')
  const over = staged.create(tree, 'over')
  names.unlink(tree, text('temporary'), call())
  staged.file(tree, 'file', 'some bytes')
  names.rename(tree, text('file'), tree, text('over'), 0, call())
  for (const handle of [fh, over.fh]) {
    handles.write(handle, 0, text('bytes'), call())
    handles.write(handle, 100, text('bytes'), call())
    handles.cloneInto(handle, 50, chunks(10, 0x61), call())
    handles.write(handle, 55, text('bytes'), call())
    handles.flush(handle)
  }
  attributes.setattr(ino, { mode: 0o600 }, call())
  attributes.setxattr(ino, text('user.a'), text('value'), 0, call())
  t.deepEqual(staged.shownLater(), { shown: staged.shown, lostRecords: 0 })
  for (const handle of [fh, over.fh]) handles.release(handle)
  t.deepEqual(staged.shownLater(), { shown: staged.shown, lostRecords: 0 })
}))

test('files that others leave in the folders of staged contents are none of these', t => {
  const sandbox = new Sandbox('incoming-others')
  try {
    const staged = new StagedBox(sandbox)
    staged.file(staged.mkdir('tree'), 'file', 'behind a hole', 5)
    for (const folder of ['spool', 'bundles']) writeFileSync(sandbox.path('staging', folder, '.nfs0001'), '')
    const { shown } = staged
    staged.box.staging.close()
    const again = new StagedBox(sandbox)
    t.deepEqual(again.shown, shown)
    again.file(again.mkdir('more'), 'file', 'in a bundle')
    t.deepEqual(again.shownLater().shown, again.shown)
    t.deepEqual(readdirSync(sandbox.path('staging', 'bundles')).sort(), ['.nfs0001', '1'])
    again.box.staging.close()
  } finally {
    sandbox.close()
  }
})

test('a file that is being made durable while its chunks become so has a descriptor that stays open', t => withBox(staged => {
  const { ino, fh } = staged.create(staged.mkdir('tree'), 'file')
  staged.handles.write(fh, 5, text('behind a hole'), call())
  const { fds, done } = staged.box.contents.descriptors(staged.box.node(ino)!)
  t.is(fds.length, 1)
  staged.box.staging.spool.remove(ino - staged.root + 1)
  files.datasync(fds[0]!)
  // Not by the number: other tests of this process open files as well.
  const closed: number[] = []
  const real = replaceFiles({ ...files, close: fd => {
    closed.push(fd)
    real.close(fd)
  } })
  try {
    done(true)
  } finally {
    replaceFiles(real)
  }
  t.deepEqual(closed, fds)
  staged.handles.release(fh)
}))

test('a time of nothing but failing syncs is followed by another try', t => withBox(staged => {
  const { box, engine } = staged
  staged.mkdir('tree')
  const syncs = () => engine.asked.filter(({ kind }) => kind === 'sync-folder').length
  for (const times of [1, 2, 3]) {
    box.durability.tick(performance.now() + 4000)
    t.is(syncs(), times)
    engine.fail('ENOSPC')
  }
  box.durability.tick(performance.now() + 4000)
  engine.answer()
  box.durability.tick(performance.now() + 8000)
  t.is(syncs(), 4)
}))
