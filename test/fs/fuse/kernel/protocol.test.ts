import test from 'ava'
import type { DirSink } from '../../../../src/fs/core.js'
import { deleteNotice, invalEntryNotice, invalInodeNotice, storeNotice } from '../../../../src/fs/fuse/kernel/notices.js'
import { Slot } from '../../../../src/fs/fuse/kernel/protocol.js'
import { putAttr } from '../../../../src/fs/fuse/kernel/answers.js'
import { type Attr, type Entry, Errno } from '../../../../src/fs/types.js'
import { fixtureJson } from '../../../helpers/fixtures.js'
import { RecordedReplies } from '../../../helpers/recorded-replies.js'

const vectors = fixtureJson<{ requests: Record<string, string>; replies: Record<string, string>; notices: Record<string, string> }>('vectors', 'fuse-structs.json')
const request = (name: string): Buffer => Buffer.from(vectors.requests[name]!, 'hex')

const ino = 0x500000007
const rawName = 'caf\xe9'

/** What each request of the vectors asks of the core. */
const questions: [vector: string, operation: string, args: unknown[], killSetId?: boolean][] = [
  ['lookup', 'lookup', [ino, rawName]],
  ['getattrOfHandle', 'getattr', [ino, 0x200000003]],
  ['getattr', 'getattr', [ino, undefined]],
  ['setattr', 'setattr', [ino, {
    mode: 0o100644, uid: 1000, gid: 4000000000, size: 0x10000000005, atimeNs: 1700000000_123456789n, mtimeNs: -1_499_999_999n,
    ctimeNs: 9000000000_000000001n, fh: 11,
  }], true],
  ['setattrNow', 'setattr', [ino, { atimeNs: 'now', mtimeNs: 'now' }]],
  ['readlink', 'readlink', [ino]],
  ['symlink', 'symlink', [ino, 'name', 'to/target']],
  ['mknod', 'mknod', [ino, 'dev', 0o020644, 0x10305]],
  ['mkdir', 'mkdir', [ino, 'dir', 0o755]],
  ['unlink', 'unlink', [ino, 'gone']],
  ['rmdir', 'rmdir', [ino, 'gone']],
  ['rename', 'rename', [ino, 'old', 8, 'new', 0]],
  ['rename2', 'rename', [ino, 'old', 8, 'new', 2]],
  ['link', 'link', [12, ino, 'hard']],
  ['open', 'open', [ino, 0o1002], true],
  ['read', 'read', [ino, 13, 0x30000000010, '\0'.repeat(8192)]],
  ['write', 'write', [ino, 13, 0x30000000010, 'bytes'], true],
  ['statfs', 'statfs', [ino]],
  ['release', 'release', [ino, 14]],
  ['fsync', 'fsync', [ino, 15, true]],
  ['setxattr', 'setxattr', [ino, 'user.a', '\0xy', 2]],
  ['getxattr', 'getxattr', [ino, 'user.a']],
  ['listxattr', 'listxattr', [ino]],
  ['removexattr', 'removexattr', [ino, 'user.a']],
  ['flush', 'flush', [ino, 16]],
  ['opendir', 'opendir', [ino]],
  ['releasedir', 'releasedir', [ino, 18]],
  ['fsyncdir', 'fsyncdir', [ino, 19]],
  ['access', 'access', [ino, 5]],
  ['create', 'create', [ino, 'made', 0o100600, 0o102]],
  ['fallocate', 'fallocate', [ino, 20, 3, 4096, 0x100000000]],
  ['lseek', 'lseek', [ino, 21, 0x300000000, 4]],
  ['copyFileRange', 'copyFileRange', [ino, 22, 1, 0x500000008, 23, 2, 0xfffff000]],
  ['syncfs', 'syncfs', []],
]

for (const [vector, operation, args, killSetId = false] of questions) {
  test(`the request ${vector} is understood`, (t) => {
    const replies = new RecordedReplies({ [operation]: Errno.EPERM, access: Errno.EPERM })
    t.teardown(() => replies.close())
    const bytes = request(vector)
    // The read's place for data overlaps the request, whose rest is whatever was there.
    replies.dispatcher.slot.bytes.fill(0)
    const reply = replies.send(bytes)
    const [asked, ...others] = replies.asked
    t.deepEqual(others, [])
    t.is(asked!.operation, operation)
    if (operation === 'read') {
      t.deepEqual(asked!.args.slice(0, 3), args.slice(0, 3))
      t.is((asked!.args[3] as string).length, 8192)
    } else {
      t.deepEqual(asked!.args, args)
    }
    if (operation !== 'release' && operation !== 'releasedir') {
      const { uid, gid, pid, killSetId: kills } = asked!.call!
      t.deepEqual({ uid, gid, pid, kills }, { uid: 4294967294, gid: 3000000000, pid: 4242, kills: killSetId })
    }
    t.is(reply.readInt32LE(4), -1)
    t.is(reply.readBigUInt64LE(8), 0x123456789an)
  })
}

test('forgets reach the core with exact counts and are not answered', (t) => {
  const replies = new RecordedReplies()
  t.teardown(() => replies.close())
  t.is(replies.send(request('forget')).length, 0)
  t.is(replies.send(request('batchForget')).length, 0)
  t.deepEqual(replies.asked.map(({ operation, args }) => [operation, ...args]), [
    ['forget', ino, 3], ['forget', ino, 1], ['forget', 9, 0x100000002],
  ])
})

const attr: Attr = {
  ino, size: 0x10000000005, blocks: 0x200000003, mode: 0o100640, nlink: 2, uid: 4294967294, gid: 3000000000, rdev: 0x10305,
  atimeNs: 1700000000_123456789n, mtimeNs: -1_499_999_999n, ctimeNs: 9000000000_999999999n, blksize: 4096,
}
const entry: Entry = { attr, entryTtlMs: 3000, attrTtlMs: 250 }
const opened = { fh: 0x200000003, keepCache: true, cacheDir: true }
const list = (_ino: number, _fh: number, _cookie: number, sink: DirSink): void => {
  const dot: Entry = { ...entry, attr: { ...attr, ino: 1, mode: 0o040755 } }
  sink(Buffer.from('.'), dot, 1)
  sink(Buffer.from('..'), dot, 2)
  sink(Buffer.from(rawName, 'latin1'), entry, 0x200000001)
}

/** Which reply of the vectors the core's answer becomes. */
const answers: [request: string, operation: string, answer: unknown, reply: string][] = [
  ['lookup', 'lookup', entry, 'entry'],
  ['mkdir', 'mkdir', entry, 'entry'],
  ['mknod', 'mknod', entry, 'entry'],
  ['symlink', 'symlink', entry, 'entry'],
  ['link', 'link', entry, 'entry'],
  ['getattr', 'getattr', { attr, attrTtlMs: 250 }, 'attr'],
  ['setattr', 'setattr', { attr, attrTtlMs: 250 }, 'attr'],
  ['open', 'open', opened, 'opened'],
  ['opendir', 'opendir', opened, 'opened'],
  ['open', 'open', { fh: 1, directIo: true }, 'directIo'],
  ['create', 'create', { entry, opened }, 'created'],
  ['write', 'write', 5, 'written'],
  ['statfs', 'statfs', { blocks: 0x200000000, bfree: 0x100000005, bavail: 0x100000000, files: 10, ffree: 5, bsize: 4096, namelen: 255, frsize: 512 }, 'statfs'],
  ['listxattr', 'listxattr', [Buffer.from('user.a')], 'xattrSize'],
  ['lseek', 'lseek', 0x300001000, 'lseek'],
  ['release', 'release', undefined, 'empty'],
  ['unlink', 'unlink', undefined, 'empty'],
  ['lookup', 'lookup', Errno.ENOENT, 'enoent'],
  ['readdir', 'readdir', list, 'readdir'],
  ['readdirplus', 'readdir', list, 'readdirplus'],
]

for (const [vector, operation, answer, reply] of answers) {
  test(`an answer to ${vector} is the kernel's struct ${reply}`, (t) => {
    const replies = new RecordedReplies({ [operation]: answer })
    t.teardown(() => replies.close())
    // Padding must not show what was in the slot before.
    const written = replies.send(request(vector))
    t.is(cleared(written, reply).toString('hex'), vectors.replies[reply]!)
  })
}

/** The padding behind names is anything: the kernel skips it. */
function cleared(written: Buffer, reply: string): Buffer {
  if (!reply.startsWith('readdir')) return written
  const copy = Buffer.from(written)
  const plus = reply === 'readdirplus' ? 128 : 0
  for (let at = 16; at < copy.length; ) {
    const length = copy.readUInt32LE(at + plus + 16)
    const end = at + plus + ((24 + length + 7) & ~7)
    copy.fill(0, at + plus + 24 + length, end)
    at = end
  }
  return copy
}

test('INIT offers what the transport does and takes no more than the kernel has', (t) => {
  const replies = new RecordedReplies({ killsPrivileges: true })
  t.teardown(() => replies.close())
  t.is(replies.send(request('init')).toString('hex'), vectors.replies.init!)
  const modest = request('init')
  modest.writeUInt32LE(1 << 5, 52)
  t.is(replies.send(modest).readUInt32LE(28), 1 << 5)
})

test('a kernel older than Linux 3.15 is refused with a sentence', (t) => {
  const logged: string[] = []
  const replies = new RecordedReplies({}, { log: { write: (_level, _topic, message) => logged.push(message) } })
  t.teardown(() => replies.close())
  const old = request('init')
  old.writeUInt32LE(22, 44)
  t.is(replies.send(old).readInt32LE(4), -71)
  t.regex(logged[0]!, /FUSE 7\.22; at least 7\.23/)
})

test('unknown requests get ENOSYS, ioctl gets ENOTTY', (t) => {
  const replies = new RecordedReplies()
  t.teardown(() => replies.close())
  t.is(replies.send(request('poll')).readInt32LE(4), -38)
  t.is(replies.send(request('access')).readInt32LE(4), -38)
  t.is(replies.send(request('ioctl')).readInt32LE(4), -25)
  t.deepEqual(replies.asked, [])
})

test('notices are the kernel\'s structs', (t) => {
  const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
  const name = Buffer.from(rawName, 'latin1')
  t.is(hex(invalInodeNotice(ino)), vectors.notices.invalInode!)
  t.is(hex(invalEntryNotice(ino, name)), vectors.notices.invalEntry!)
  t.is(hex(storeNotice(ino, 0x100000000, Buffer.from('bytes'))), vectors.notices.store!)
  t.is(hex(deleteNotice(ino, 9, name)), vectors.notices.delete!)
})

for (const ns of [0n, 1n, -1n, 999_999_999n, 1_000_000_000n, -1_000_000_000n, -1_000_000_001n, 1700000000_999999999n, 1700000001_000000000n,
  4294967295_999999999n, 4294967296_000000000n, 9007199254_740992999n, -9223372036_854775808n, 9223372036_854775807n]) {
  test(`${ns} ns are split into seconds and nanoseconds exactly`, (t) => {
    const slot = new Slot(128)
    putAttr(slot, 0, { ...attr, atimeNs: 5n, mtimeNs: ns, ctimeNs: 5n })
    t.is(slot.bytes.readBigInt64LE(32) * 1_000_000_000n + BigInt(slot.bytes.readUInt32LE(52)), ns)
    t.true(slot.bytes.readUInt32LE(52) < 1_000_000_000)
    t.is(slot.bytes.readBigInt64LE(24), 0n)
    t.is(slot.bytes.readUInt32LE(56), 5)
  })
}
