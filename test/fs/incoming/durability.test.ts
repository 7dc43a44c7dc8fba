/** What is staged becomes durable; and a disk that failed to write is not believed again. */
import test from 'ava'
import { existsSync, readdirSync } from 'node:fs'
import { Errno } from '../../../src/fs/types.js'
import { LATER } from '../../../src/fs/core.js'
import { localOf } from '../../../src/fs/inodes.js'
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
