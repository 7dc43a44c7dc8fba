/** Files with names in several trees of incoming/, and whoever waits for one of these to be saved. */
import test from 'ava'
import { LATER } from '../../../src/fs/core.js'
import type { Call } from '../../../src/fs/core.js'
import { Errno } from '../../../src/fs/types.js'
import { call } from '../../helpers/mount-fixtures.js'
import { Sandbox } from '../../helpers/sandbox.js'
import { StagedBox } from '../../helpers/staged-box.js'

const text = Buffer.from
const madeArchive = { archive: { name: Buffer.from('archive'), id: 'ab'.repeat(32), timeNs: 0n }, numbers: { fileCount: 1, originalSize: 1, newBytes: 1 } }

function withBox(work: (staged: StagedBox) => void): void {
  const sandbox = new Sandbox('incoming-trees')
  try {
    const staged = new StagedBox(sandbox)
    work(staged)
    staged.box.staging.close()
  } finally {
    sandbox.close()
  }
}

test('a file with names in two trees is open and changes in both, and is not written to while one of them is saved', t => withBox(staged => {
  const { names, handles, attributes, box: { trees } } = staged
  const a = staged.mkdir('a'), b = staged.mkdir('b')
  const ino = staged.file(a, 'file', 'some bytes')
  const states = () => ['a', 'b'].map(name => trees.find(name)!.version)
  const writers = () => ['a', 'b'].map(name => trees.find(name)!.writers)
  const change = (work: () => unknown): number[] => {
    const before = states()
    t.false(work() instanceof Errno)
    return states().map((version, index) => version - before[index]!)
  }
  // Nothing in the other archive will differ.
  t.deepEqual(change(() => names.link(ino, b, text('file'), call())), [0, 1])
  const fh = staged.open(ino)
  t.deepEqual(writers(), [1, 1])
  t.deepEqual(change(() => handles.write(fh, 0, text('x'), call())), [1, 1])
  t.deepEqual(change(() => attributes.setattr(ino, { mode: 0o600 }, call())), [1, 1])
  t.deepEqual(change(() => attributes.setattr(ino, { size: 2 }, call())), [1, 1])
  t.deepEqual(change(() => attributes.setxattr(ino, text('user.a'), text('v'), 0, call())), [1, 1])
  t.is(trees.refusal(trees.find('a')!), 'still open for writing: file')
  t.is(trees.refusal(trees.find('b')!), 'still open for writing: file')

  for (const saved of ['a', 'b']) {
    staged.commit(saved)
    const written = staged.asked<number>(asking => handles.write(fh, 0, text('later'), asking))
    t.is(written(), LATER)
    staged.engine.answer()
    t.is(written(), 5)
  }
  // Here and there again.
  t.falsy(names.unlink(b, text('file'), call()))
  t.deepEqual(writers(), [1, 0])
  names.link(ino, b, text('again'), call())
  t.deepEqual(writers(), [1, 1])
  handles.release(fh)
  t.deepEqual(writers(), [0, 0])
}))

test('a tree that is saved changes again with a file that another tree has as well', t => withBox(staged => {
  const { names, handles, box: { trees } } = staged
  const a = staged.mkdir('a'), b = staged.mkdir('b')
  const ino = staged.file(a, 'file', 'some bytes')
  names.link(ino, b, text('file'), call())
  staged.engine.committed = madeArchive
  staged.commit('a')
  staged.engine.answer()
  t.is(trees.find('a')!.state.kind, 'committed')
  const fh = staged.open(ino)
  t.is(trees.find('a')!.state.kind, 'committed', 'nothing was changed yet')
  handles.write(fh, 0, text('x'), call())
  t.is(trees.find('a')!.state.kind, 'writing')
  handles.release(fh)
}))

test('who waited to open a file for writing until its tree was an archive does not get one that is nowhere', t => withBox(staged => {
  const { names, handles, attributes, root } = staged
  const tree = staged.mkdir('tree')
  const ino = staged.file(tree, 'file', 'some bytes'), read = staged.file(tree, 'read', 'more')
  const reading = staged.open(read, 0)
  staged.engine.committed = madeArchive
  const move = (asking: Call<void>) => names.renameToRoot(root, text('tree'), text('archive'), 0, asking)
  t.is(staged.asked(move)(), Errno.ESTALE)
  const moved = staged.asked(move)
  const waiting = [
    staged.asked(asking => handles.open(ino, 1, asking)), staged.asked(asking => handles.open(read, 1, asking)), staged.asked(asking => handles.open(ino, 0o1001, asking)),
    staged.asked(asking => attributes.setattr(ino, { size: 0 }, asking)), staged.asked(asking => attributes.setxattr(ino, text('user.a'), text('v'), 0, asking)),
    staged.asked(asking => attributes.removexattr(ino, text('user.a'), asking)),
  ]
  for (const answer of waiting) t.is(answer(), LATER)
  staged.engine.answer()
  t.is(moved(), undefined)
  for (const answer of waiting) t.is(answer(), Errno.ESTALE)
  t.is(handles.count, 1)
  handles.release(reading)
}))

test('an error of the program is no reason for those who wait behind it to wait for ever', t => withBox(staged => {
  const { handles, box } = staged
  const fh = staged.create(staged.mkdir('tree'), 'file').fh
  staged.commit('tree')
  const answers = ['a', 'b', 'c'].map(bytes => staged.asked<number>(asking => handles.write(fh, 0, text(bytes), asking)))
  const { write } = box.contents
  let writes = 0
  box.contents.write = function (...args) {
    if (writes++ === 0) throw new RangeError('a fault')
    return write.apply(this, args)
  }
  staged.engine.answer()
  t.deepEqual(answers.map(answer => answer()), [Errno.EIO, 1, 1])
  t.regex(staged.engine.log.lines.join('\n'), /a fault/)
  handles.release(fh)
}))

test('what is refused is no change of a tree that is saved, for the journal either', t => withBox(staged => {
  const { names, box: { trees } } = staged
  const tree = staged.mkdir('tree')
  staged.mkdir('full', tree)
  staged.file(tree, 'file', 'some bytes')
  staged.engine.committed = madeArchive
  staged.commit('tree')
  staged.engine.answer()
  t.is(names.rmdir(staged.root, text('tree'), call()), Errno.ENOTEMPTY)
  t.is(names.mkdir(tree, text('full'), 0o755, call()), Errno.EEXIST)
  t.is(trees.find('tree')!.state.kind, 'committed')
  // So the next start knows it as what it is.
  t.deepEqual(staged.shownLater(['ab'.repeat(32)]).shown, [])
  staged.file(tree, 'new', 'more')
  t.is(staged.shownLater(['ab'.repeat(32)]).shown.length, staged.shown.length)
}))

test('a file and a directory that are exchanged across trees change all of these', t => withBox(staged => {
  const { names, root, box: { trees } } = staged
  const a = staged.mkdir('a')
  staged.file(staged.mkdir('inner', a), 'file', 'some bytes')
  staged.file(root, 'loose', 'more')
  const { version } = trees.find(undefined)!
  t.falsy(names.rename(a, text('inner'), root, text('loose'), 2, call()))
  t.true(trees.find(undefined)!.version > version)
  t.false(trees.isEmpty(trees.find('loose')!), 'a tree of its own now')
}))
