/** A journal that became much longer than what it has to say is written anew while the drive goes on. */
import test from 'ava'
import { cpSync, existsSync, readFileSync, renameSync, statSync } from 'node:fs'
import { files, replaceFiles } from '../../../src/engine/platform/files.js'
import { hostError } from '../../helpers/full-disk.js'
import { call } from '../../helpers/mount-fixtures.js'
import { Sandbox } from '../../helpers/sandbox.js'
import { StagedBox } from '../../helpers/staged-box.js'

const text = Buffer.from
const madeArchive = { archive: { name: Buffer.from('archive'), id: 'ab'.repeat(32), timeNs: 0n }, numbers: { fileCount: 1, originalSize: 1, newBytes: 1 } }

test.serial('while it is written anew, all that is told is in either file, and in the end it is short', t => {
  const sandbox = new Sandbox('incoming-renewal')
  try {
    const staged = new StagedBox(sandbox)
    const { box, engine, names, attributes, handles } = staged
    const journal = sandbox.path('staging', 'journal'), renewed = `${journal}-renewed`
    const size = () => statSync(journal).size
    let files = 0
    const change = (): void => void staged.file(tree, `file${files++}`, 'some bytes', files % 2)
    const isSame = (what: string): void => {
      t.deepEqual(staged.shownLater(['ab'.repeat(32)]), { shown: staged.shown, lostRecords: 0 }, what)
      if (!existsSync(renewed)) return
      cpSync(journal, `${journal}-kept`)
      cpSync(renewed, journal)
      t.deepEqual(staged.shownLater(['ab'.repeat(32)]), { shown: staged.shown, lostRecords: 0 }, `${what}, by the other one`)
      renameSync(`${journal}-kept`, journal)
    }
    const tree = staged.mkdir('tree'), saved = staged.mkdir('saved'), inner = staged.mkdir('inner', tree)
    staged.file(saved, 'file', 'what is an archive')
    const linked = staged.file(inner, 'linked', 'with two names')
    names.link(linked, tree, text('again'), call())
    const temporary = staged.create(tree, 'temporary')
    names.unlink(tree, text('temporary'), call())
    engine.committed = madeArchive
    staged.commit('saved')
    engine.answer()
    for (let round = 0; round < 300; round++) attributes.setxattr(inner, text('user.a'), Buffer.alloc(60_000, round), 0, call())
    t.true(size() > 17e6)
    const trees = staged.shown
    // What is an archive is not there any more at the next start.
    names.unlink(staged.root, text('nothing'), call())
    t.is(trees.filter(line => line.startsWith('saved')).length, 2)
    t.falsy(names.rename(saved, text('file'), tree, text('moved'), 0, call()))
    isSame('before')
    box.durability.tick(performance.now() + 60_000)
    t.true(existsSync(renewed))
    change()
    handles.write(temporary.fh, 0, text('nowhere'), call())
    isSame('begun')
    t.is(box.staging.journal.fds.length, 2)
    // It is synced, and takes the place.
    while (!box.staging.journal.isPlaced) engine.answer(1)
    t.false(existsSync(renewed))
    t.is(box.staging.journal.fds.length, 2)
    change()
    isSame('placed')
    const end = (path: string): string => readFileSync(path).subarray(-100).toString('hex')
    t.is(end(`/proc/self/fd/${box.staging.journal.fds[1]!}`), end(journal), 'the former one hears it too')
    engine.answer()
    t.is(box.staging.journal.fds.length, 1)
    change()
    isSame('ended')
    t.true(size() < 200_000)
    t.is(box.staging.journal.length, size())
    handles.release(temporary.fh)
    box.staging.close()
  } finally {
    sandbox.close()
  }
})

test.serial('a new one that cannot be written or synced is given up, and tried again later', t => {
  const sandbox = new Sandbox('incoming-renewal')
  const real = files
  try {
    const staged = new StagedBox(sandbox)
    const { box, engine, attributes } = staged
    const renewed = sandbox.path('staging', 'journal-renewed')
    const tree = staged.mkdir('tree')
    for (let round = 0; round < 300; round++) attributes.setxattr(tree, text('user.a'), Buffer.alloc(60_000, round), 0, call())
    let later = 60_000
    const begin = (): void => {
      engine.answer()
      box.durability.tick(performance.now() + (later += 400_000))
    }
    replaceFiles({ ...real, open: (path, ...rest) => {
      if (path === renewed) throw hostError('ENOSPC')
      return real.open(path, ...rest)
    } })
    begin()
    t.false(box.staging.journal.isBeingRenewed)
    replaceFiles(real)
    begin()
    t.true(existsSync(renewed))
    engine.fail('ENOSPC')
    t.false(existsSync(renewed))
    begin()
    const [, other] = box.staging.journal.fds
    replaceFiles({ ...real, writeAll: (fd, ...rest) => {
      if (fd === other) throw hostError('ENOSPC')
      real.writeAll(fd, ...rest)
    } })
    // Whoever changes something does not hear of it.
    staged.file(tree, 'file', 'some bytes')
    replaceFiles(real)
    t.false(box.staging.journal.isBeingRenewed)
    engine.answer()
    t.deepEqual(staged.shownLater().shown, staged.shown)
    t.is(staged.shown.length, 2)
    begin()
    engine.answer()
    t.true(box.staging.journal.length < 200_000)
    t.deepEqual(staged.shownLater().shown, staged.shown)
    box.staging.close()
  } finally {
    replaceFiles(real)
    sandbox.close()
  }
})
