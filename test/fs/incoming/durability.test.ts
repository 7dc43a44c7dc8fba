/** What is staged becomes durable; and a disk that failed to write is not believed again. */
import test from 'ava'
import { existsSync, readdirSync, readlinkSync } from 'node:fs'
import { basename } from 'node:path'
import { files, replaceFiles } from '../../../src/engine/platform/files.js'
import { Errno } from '../../../src/fs/types.js'
import { LATER } from '../../../src/fs/core.js'
import { localOf } from '../../../src/fs/inodes.js'
import type { StagedNode } from '../../../src/fs/incoming/nodes.js'
import { call } from '../../helpers/mount-fixtures.js'
import { Sandbox } from '../../helpers/sandbox.js'
import { StagedBox } from '../../helpers/staged-box.js'

for (const how of ['fsync of a file', 'fsync of a directory', 'by and by'] as const) {
  test(`after a disk failed to write (${how}) no fsync goes well any more, and nothing goes that it would make needless`, t => {
    const sandbox = new Sandbox('durability')
    try {
      const staged = new StagedBox(sandbox)
      const { engine, box: { durability, nodes, staging } } = staged
      const tree = staged.mkdir('tree')
      const node = nodes.get(localOf(staged.file(tree, 'f', 'content')))!
      let now = performance.now()
      const asked = engine.asked.length
      const answer = how === 'fsync of a file' ? staged.asked<void>(call => durability.sync(node, call)) : how === 'fsync of a directory' ? staged.asked<void>(call => durability.syncAll(call)) : undefined
      if (!answer) durability.tick(now += 10_000)
      t.is(engine.asked.length, asked + 1)
      t.like(engine.asked.at(-1)!, { kind: how === 'fsync of a file' ? 'sync' : 'sync-folder' })
      engine.fail()
      if (answer) t.is(answer(), Errno.EIO)
      t.is(engine.log.lines.filter(line => /failed to write/.test(line)).length, 1)
      // The host would say now that all is well.
      for (const again of [staged.asked<void>(call => durability.sync(node, call)), staged.asked<void>(call => durability.sync(undefined, call)), staged.asked<void>(call => durability.syncAll(call))]) t.is(again(), Errno.EIO)
      for (const laterMs of [1000, 10_000, 400_000]) durability.tick(now += laterMs)
      t.is(engine.asked.length, asked + 1, 'nobody asks the disk again')
      let told = false
      durability.whenDurable(() => told = true)
      t.true(told, 'nobody waits for it')
      t.deepEqual(staged.shownLater().shown, staged.shown)
      t.true(existsSync(staging.folder) && readdirSync(staging.folder).includes('journal'))
    } finally {
      sandbox.close()
    }
  })
}

test('a file that took the name of another one is made durable with whatever makes the journal so', t => {
  const sandbox = new Sandbox('durability'), real = files
  try {
    const staged = new StagedBox(sandbox)
    const { engine, box: { durability, nodes, staging } } = staged
    const tree = staged.mkdir('tree')
    for (const name of ['old', 'other', 'unnamed']) staged.file(tree, name, name)
    durability.syncAll(call<void>())
    engine.answer()
    const node = (name: string): StagedNode => nodes.child(nodes.get(localOf(tree))!, name)!
    /** Which files of the spool and the bundles a sync was asked for. */
    const asked = (): string[] => {
      const request = engine.asked.at(-1)!
      return request.kind === 'sync' ? [...new Set(request.fds.filter(fd => !staging.journal.fds.includes(fd)).map(fd => basename(readlinkSync(`/proc/self/fd/${fd}`))))] : [request.kind]
    }
    const rename = (from: string, to: string): void => void staged.names.rename(tree, Buffer.from(from), tree, Buffer.from(to), 0, call<void>())
    // Written from back to front, each lies in a file of its own.
    const fresh = (name: string): string => {
      staged.file(tree, name, 'new content', 5000)
      return `${node(name).id}`
    }
    const moved = fresh('temporary')
    durability.sync(node('other'), call<void>())
    t.false(asked().includes(moved), 'it took no name yet')
    engine.answer()
    rename('temporary', 'old')
    durability.sync(node('other'), call<void>())
    t.true(asked().includes(moved))
    engine.fail('ENOSPC')
    durability.sync(undefined, call<void>())
    t.true(asked().includes(moved), 'it is not durable yet')
    engine.answer()
    durability.sync(node('other'), call<void>())
    t.false(asked().includes(moved), 'it is')
    engine.answer()
    // Names that change hands; one that is gone by then; more than are worth a sync each.
    const swapped = fresh('swapped')
    staged.names.rename(tree, Buffer.from('swapped'), tree, Buffer.from('unnamed'), 2, call<void>())
    const gone = fresh('gone')
    rename('gone', 'old')
    staged.names.unlink(tree, Buffer.from('old'), call<void>())
    durability.sync(node('other'), call<void>())
    t.true(asked().includes(swapped))
    t.false(asked().includes(gone))
    engine.answer()
    for (let count = 0; count < 40; count++) {
      fresh('temporary')
      staged.file(tree, `of-${count}`, 'before')
      rename('temporary', `of-${count}`)
    }
    durability.sync(node('other'), call<void>())
    t.deepEqual(asked(), ['sync-folder'])
    engine.answer()
    durability.sync(node('other'), call<void>())
    t.is(engine.asked.at(-1)!.kind, 'sync')
    engine.answer()
    // Not by what /proc says is open: other tests run in this process.
    let open = 0
    replaceFiles({ ...real, open: (...args) => (open++, real.open(...args)), close: fd => (open--, real.close(fd)) })
    fresh('temporary')
    rename('temporary', 'other')
    const before = open
    durability.sync(node('unnamed'), call<void>())
    t.is(open, before + 2)
    engine.answer()
    t.is(open, before, 'nothing that was lent stays open')
  } finally {
    replaceFiles(real)
    sandbox.close()
  }
})

test('a disk that is full for a while is asked again', t => {
  const sandbox = new Sandbox('durability')
  try {
    const staged = new StagedBox(sandbox)
    const { engine, box: { durability, nodes } } = staged
    const node = nodes.get(localOf(staged.file(staged.mkdir('tree'), 'f', 'content')))!
    const full = staged.asked<void>(call => durability.sync(node, call))
    engine.fail('ENOSPC')
    t.is(full(), Errno.ENOSPC)
    const later = staged.asked<void>(call => durability.sync(node, call))
    t.is(later(), LATER)
    engine.answer()
    t.is(later(), undefined)
  } finally {
    sandbox.close()
  }
})
