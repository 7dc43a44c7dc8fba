import test from 'ava'
import { makeDrive } from '../../src/fs/drive.js'
import { EngineClient } from '../../src/fs/engine-client.js'
import type { ToEngine } from '../../src/fs/engine-port.js'
import { noNotices } from '../../src/fs/fuse/transport.js'
import { inodeRange, inoOf } from '../../src/fs/inodes.js'
import type { Entry } from '../../src/fs/types.js'
import { call, mountView } from '../helpers/mount-fixtures.js'
import { Sandbox } from '../helpers/sandbox.js'

test('a drive that ends makes durable what stays staged, and says only then that it is done', t => {
  const sandbox = new Sandbox('drive-end')
  try {
    const posted: ToEngine[] = []
    const client = new EngineClient({ post: message => void posted.push(message) })
    const rootFacts = { mode: 0o040755, uid: 0, gid: 0, rdev: 0, atimeNs: 0n, mtimeNs: 0n, ctimeNs: 0n }
    const incoming = { folder: sandbox.path('staging'), maxBytes: undefined, place: 'incoming' as const, archiveIds: new Set<string>(), settleMs: 1e9, lingerMs: 1e9, rootFacts }
    const drive = makeDrive(mountView([]), { incoming, live: undefined, changes: undefined, report: undefined }, client, noNotices)
    const tree = drive.mkdir(inoOf(inodeRange.incoming, 1), Buffer.from('tree'), 0o755, call<Entry>()) as Entry
    // Open for writing, it is not saved.
    drive.create(tree.attr.ino, Buffer.from('file'), 0o644, 1, call())
    client.deliver({ type: 'finish' })
    const answered = new Set<number>()
    const answer = (): string[] => posted.flatMap(message => {
      if (message.type !== 'request' || answered.has(message.id)) return []
      answered.add(message.id)
      client.deliver({ type: 'reply', id: message.id, value: undefined })
      return [message.request.kind]
    })
    const isDone = (): boolean => posted.some(({ type }) => type === 'finished')
    t.false(isDone())
    t.true(answer().includes('sync-folder'))
    t.true(isDone())
    drive.destroy()
  } finally {
    sandbox.close()
  }
})
