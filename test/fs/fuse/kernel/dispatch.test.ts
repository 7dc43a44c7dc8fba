import test from 'ava'
import { closeSync, openSync } from 'node:fs'
import { constants } from 'node:os'
import { native } from '../../../../src/engine/native.js'
import { type Call, type DirSink, LATER, type ReadAnswer } from '../../../../src/fs/core.js'
import { type Entry, Errno } from '../../../../src/fs/types.js'
import { fixtureJson } from '../../../helpers/fixtures.js'
import { RecordedReplies } from '../../../helpers/recorded-replies.js'

const vectors = fixtureJson<{ requests: Record<string, string> }>('vectors', 'fuse-structs.json')
const request = (name: string): Buffer => Buffer.from(vectors.requests[name]!, 'hex')
const entry: Entry = {
  attr: { ino: 7, size: 0, blocks: 0, mode: 0o100644, nlink: 1, uid: 0, gid: 0, rdev: 0, atimeNs: 0n, mtimeNs: 0n, ctimeNs: 0n, blksize: 4096 },
  entryTtlMs: 0, attrTtlMs: 0,
}

test('a late answer is written when it comes, with its own request\'s id', (t) => {
  let answer!: (value: Entry | Errno) => void
  const replies = new RecordedReplies({
    lookup: (_parent: number, _name: Buffer, call: Call<Entry>) => {
      answer = call.defer()
      return LATER
    },
    unlink: undefined,
  })
  t.teardown(() => replies.close())
  t.is(replies.send(request('lookup')).length, 0)
  t.is(replies.dispatcher.deferredCount, 1)
  const other = request('unlink')
  other.writeBigUInt64LE(99n, 8)
  t.is(replies.send(other).readBigUInt64LE(8), 99n)
  answer(entry)
  const late = replies.written()
  t.is(late.length, 144)
  t.is(late.readBigUInt64LE(8), 0x123456789an)
  t.is(late.readBigUInt64LE(16), 7n)
  t.is(replies.dispatcher.deferredCount, 0)
})

test('an answer given before the operation returns LATER is written once', (t) => {
  const replies = new RecordedReplies({
    lookup: (_parent: number, _name: Buffer, call: Call<Entry>) => {
      call.defer()(Errno.EACCES)
      return LATER
    },
  })
  t.teardown(() => replies.close())
  const reply = replies.send(request('lookup'))
  t.is(reply.length, 16)
  t.is(reply.readInt32LE(4), -13)
  t.is(replies.dispatcher.deferredCount, 0)
})

test('a second late answer is not written but logged', (t) => {
  let answer!: (value: Errno) => void
  const logged: string[] = []
  const replies = new RecordedReplies(
    { lookup: (_parent: number, _name: Buffer, call: Call<Entry>) => ((answer = call.defer()), LATER) },
    { log: { write: (_level, _topic, message) => logged.push(message) } })
  t.teardown(() => replies.close())
  replies.send(request('lookup'))
  answer(Errno.ENOENT)
  answer(Errno.ENOENT)
  t.is(replies.written().length, 16)
  t.regex(logged[0]!, /answered a second time/)
})

test('an operation that throws answers EIO and is logged', (t) => {
  const logged: string[] = []
  const replies = new RecordedReplies(
    { getattr: () => { throw new Error('boom') } }, { log: { write: (_level, _topic, message) => logged.push(message) } })
  t.teardown(() => replies.close())
  t.is(replies.send(request('getattr')).readInt32LE(4), -5)
  t.regex(logged[0]!, /boom/)
})

test('LATER without defer answers EIO instead of never', (t) => {
  const replies = new RecordedReplies({ getattr: () => LATER })
  t.teardown(() => replies.close())
  t.is(replies.send(request('getattr')).readInt32LE(4), -5)
})

test('an answer that cannot be encoded becomes EIO', (t) => {
  const replies = new RecordedReplies({ getattr: { nothing: true } })
  t.teardown(() => replies.close())
  t.is(replies.send(request('getattr')).readInt32LE(4), -5)
})

test('ENOSYS of an operation becomes EOPNOTSUPP, because the kernel would stop asking for all files', (t) => {
  const replies = new RecordedReplies({ fallocate: Errno.ENOSYS })
  t.teardown(() => replies.close())
  t.is(replies.send(request('fallocate')).readInt32LE(4), -95)
})

test('lseek of a file without holes finds data until its end', (t) => {
  const size = 0x300001000
  const replies = new RecordedReplies({ lseek: Errno.ENOSYS, getattr: { attr: { ...entry.attr, size }, attrTtlMs: 0 } })
  t.teardown(() => replies.close())
  t.is(Number(replies.send(request('lseek')).readBigUInt64LE(16)), size)
  const data = request('lseek')
  data.writeUInt32LE(3, 56)
  t.is(Number(replies.send(data).readBigUInt64LE(16)), 0x300000000)
  data.writeBigUInt64LE(BigInt(size), 48)
  t.is(replies.send(data).readInt32LE(4), -6)
})

test('what cannot be answered gives back what came with it, at once and late', (t) => {
  // No time is a number: the entry cannot be encoded, but has given a reference.
  const broken = { ...entry, attr: { ...entry.attr, mtimeNs: 'never' } } as unknown as Entry
  for (const lookup of [broken, (_parent: number, _name: Buffer, call: Call<Entry>) => (call.defer()(broken), LATER)]) {
    const replies = new RecordedReplies({ lookup })
    t.is(replies.send(request('lookup')).readInt32LE(4), -5)
    t.deepEqual(replies.asked.filter(({ operation }) => operation === 'forget').map(({ args }) => args), [[7, 1]])
    replies.close()
  }
})

test('a refusal that the kernel does not take gives back nothing of the answer before it', (t) => {
  const replies = new RecordedReplies({ lookup: entry })
  t.teardown(() => replies.close())
  replies.send(request('lookup'))
  const ioctl = request('lookup')
  ioctl.writeUInt32LE(39, 4)
  t.is(replies.send(ioctl).readInt32LE(4), -25)
  replies.dispatcher.notTaken(constants.errno.ENOENT)
  t.deepEqual(replies.asked.map(({ operation }) => operation), ['lookup'])
})

test('the largest xattr is answered late as well', (t) => {
  const value = Buffer.alloc(65536, 0x61)
  const replies = new RecordedReplies({ getxattr: (_ino: number, _name: Buffer, call: Call<Uint8Array>) => (call.defer()(value), LATER) })
  t.teardown(() => replies.close())
  const asked = request('getxattr')
  asked.writeUInt32LE(value.length, 40)
  const reply = replies.send(asked)
  t.is(reply.readInt32LE(4), 0)
  t.true(reply.subarray(16).equals(value))
})

function readOf(size: number): Buffer {
  const read = request('read')
  read.writeUInt32LE(size, 56)
  return read
}

test('a read is answered from its place, from other memory, and late, always with the bytes of the core', (t) => {
  const cases: [string, number, (into: Buffer, call: Call<Uint8Array>) => ReadAnswer | typeof LATER][] = [
    ['in place', 5000, (into) => into.fill(0x61).length],
    ['in place, short', 3, (into) => into.write('abc')],
    ['small other memory', 5000, () => Buffer.alloc(5000, 0x62)],
    ['large other memory', 1 << 20, () => Buffer.alloc(1 << 20, 0x63)],
    ['shared memory', 1 << 20, () => Buffer.from(new SharedArrayBuffer(1 << 20)).fill(0x64)],
    ['more than was asked', 1 << 20, () => Buffer.alloc((1 << 20) + 77, 0x65)],
    ['late', 5000, (_into, call) => (call.defer()(Buffer.alloc(5000, 0x66)), LATER)],
    ['late and large', 1 << 20, (_into, call) => (call.defer()(Buffer.alloc(1 << 20, 0x67)), LATER)],
  ]
  for (const [name, expected, answer] of cases) {
    const replies = new RecordedReplies({
      read: (_ino: number, _fh: number, _offset: number, into: Buffer, call: Call<Uint8Array>) => answer(into, call),
    })
    const reply = replies.send(readOf(expected < 5000 ? 5000 : expected))
    replies.close()
    t.is(reply.length, 16 + expected, name)
    t.is(reply.readUInt32LE(0), 16 + expected, name)
    t.is(reply.readInt32LE(4), 0, name)
    if (name !== 'in place, short') t.true(reply.subarray(16).equals(Buffer.alloc(expected, reply[16]!)), name)
    t.true(reply[16]! >= 0x61, name)
  }
})

test('a listing that comes late keeps its entries apart from other requests, and fills up where it is full', (t) => {
  let sink!: DirSink
  let answer!: (value: void) => void
  const replies = new RecordedReplies({
    readdir: (_ino: number, _fh: number, _cookie: number, given: DirSink, call: Call<void>) => {
      sink = given
      sink(Buffer.from('first'), entry, 1)
      answer = call.defer()
      return LATER
    },
    getattr: Errno.EIO,
  })
  t.teardown(() => replies.close())
  const small = request('readdir')
  small.writeUInt32LE(80, 56)
  replies.send(small)
  replies.send(request('getattr'))
  t.true(sink(Buffer.from('second'), entry, 2))
  t.false(sink(Buffer.from('third, for which there is no room'), entry, 3))
  answer()
  const reply = replies.written()
  t.is(reply.length, 16 + 32 + 32)
  t.is(reply.toString('latin1', 40, 45), 'first')
  t.is(reply.toString('latin1', 72, 78), 'second')
})

test('each entry of READDIRPLUS but the dots counts as a reference, none of READDIR does', (t) => {
  const list = (_ino: number, _fh: number, _cookie: number, sink: DirSink): void => {
    for (const name of ['.', '..', 'a', '...']) sink(Buffer.from(name), entry, 1)
  }
  const replies = new RecordedReplies({ readdir: list })
  t.teardown(() => replies.close())
  replies.send(request('readdir'))
  t.is(replies.asked.filter(({ operation }) => operation === 'remember').length, 0)
  replies.send(request('readdirplus'))
  t.is(replies.asked.filter(({ operation }) => operation === 'remember').length, 2)
})

test('xattrs answer their size, their value, or ERANGE', (t) => {
  const replies = new RecordedReplies({ getxattr: Buffer.alloc(100, 1), listxattr: [Buffer.from('user.a'), Buffer.from('user.b')] })
  t.teardown(() => replies.close())
  const get = request('getxattr')
  t.is(replies.send(get).readInt32LE(4), -34)
  get.writeUInt32LE(0, 40)
  t.is(replies.send(get).readUInt32LE(16), 100)
  get.writeUInt32LE(100, 40)
  t.is(replies.send(get).length, 116)
  const list = request('listxattr')
  t.is(replies.send(list).readUInt32LE(16), 14)
  list.writeUInt32LE(13, 40)
  t.is(replies.send(list).readInt32LE(4), -34)
  list.writeUInt32LE(14, 40)
  t.is(replies.send(list).toString('latin1', 16), 'user.a\0user.b\0')
})

test('an interrupted request goes on while its process lives', (t) => {
  let answer!: (value: Entry) => void
  const replies = new RecordedReplies({ lookup: (_parent: number, _name: Buffer, call: Call<Entry>) => ((answer = call.defer()), LATER) })
  t.teardown(() => replies.close())
  const lookup = request('lookup')
  lookup.writeUInt32LE(process.pid, 32)
  replies.send(lookup)
  t.is(replies.send(request('interrupt')).length, 0)
  answer(entry)
  t.is(replies.written().length, 144)
})

test('what the kernel did not take is taken back', (t) => {
  const logged: string[] = []
  const opened = { fh: 9 }
  const replies = new RecordedReplies(
    { create: { entry, opened }, getattr: Errno.ENOENT, release: undefined, forget: undefined }, { log: { write: (_level, _topic, message) => logged.push(message) } })
  t.teardown(() => replies.close())
  replies.send(request('create'))
  replies.dispatcher.notTaken(constants.errno.ENOENT)
  t.deepEqual(replies.asked.slice(1).map(({ operation, args }) => [operation, ...args]), [['release', 7, 9], ['forget', 7, 1]])
  t.is(logged.length, 0)
  // An errno has nothing to take back; that the kernel does not understand a reply is a fault.
  replies.send(request('getattr'))
  replies.dispatcher.notTaken(constants.errno.EINVAL)
  t.is(replies.asked.length, 4)
  t.regex(logged[0]!, /refuses the reply \(errno 22\)/)
})

test('a reply that the device does not take ends the wait for the next request', (t) => {
  const fd = openSync('/dev/null', 'r')
  t.teardown(() => closeSync(fd))
  const { openDevice, receiveRequest } = native()
  const device = openDevice(fd, fd, Buffer.allocUnsafeSlow(64), 0)
  t.is(receiveRequest(device, 16, false), -1 - constants.errno.EBADF)
})

test('for allow_root, others than root and the owner are refused, but not on what is open', (t) => {
  const replies = new RecordedReplies({ getattr: Errno.ENOENT, fsync: undefined }, { onlyUid: 1000 })
  t.teardown(() => replies.close())
  const result = (name: string, uid: number): number => {
    const bytes = request(name)
    bytes.writeUInt32LE(uid, 24)
    return replies.send(bytes).readInt32LE(4)
  }
  t.is(result('getattr', 0), -2)
  t.is(result('getattr', 1000), -2)
  t.is(result('getattr', 1001), -13)
  t.is(result('fsync', 1001), 0)
})

test('a core that cannot kill privileges leaves that to the kernel', (t) => {
  const replies = new RecordedReplies()
  t.teardown(() => replies.close())
  t.is(replies.send(request('init')).readUInt32LE(28) & (1 << 28), 0)
})
