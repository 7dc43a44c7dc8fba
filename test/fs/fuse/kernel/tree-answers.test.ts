/** What the addon answers for a tree is what the dispatcher and ArchiveFiles answer, and who is answered in another manner. */
import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { closeSync, openSync } from 'node:fs'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { decodeItem } from '../../../../src/engine/archive/item-codec.js'
import type { Item } from '../../../../src/engine/archive/item.js'
import { MsgReader } from '../../../../src/engine/msgpack.js'
import { native } from '../../../../src/engine/native.js'
import { ArchiveTree } from '../../../../src/fs/archive-tree.js'
import { handedHandle, HandedFiles } from '../../../../src/fs/handed-files.js'
import { useGeneration } from '../../../../src/fs/fuse/kernel/answers.js'
import { Dispatcher } from '../../../../src/fs/fuse/kernel/dispatch.js'
import { opcode, Slot } from '../../../../src/fs/fuse/kernel/protocol.js'
import { Replies } from '../../../../src/fs/fuse/kernel/replies.js'
import { NativeTreeAnswers } from '../../../../src/fs/fuse/kernel/tree-answers.js'
import { inodeRange, inoOf, rootIno } from '../../../../src/fs/inodes.js'
import { buildTree, columnsOf } from '../../../../src/fs/tree-image.js'
import { shownTree } from '../../../../src/fs/tree-view.js'
import { VirtualFs } from '../../../../src/fs/virtual-fs.js'
import { type Asked, named, request } from '../../../helpers/fuse-requests.js'
import { anyItem, packed, pieces } from '../../../helpers/any-items.js'
import { archiveInfo, build, call, Contents, directoryMode, FakeEngine, item, linkMode, mountView, treeOptions } from '../../../helpers/mount-fixtures.js'
import { noNotices } from '../../../../src/fs/fuse/transport.js'

useGeneration(12345)

const xattr = (size: number, name: string): Buffer => Buffer.concat([numbers(4, size, 0), named(name)])
const reading = (cookie: number, size: number, fh = 0): Buffer => Buffer.concat([numbers(8, fh, cookie), numbers(4, size, 0, 0, 0, 0, 0)])

function numbers(width: 4 | 8, ...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * width)
  for (const [index, value] of values.entries()) width === 4 ? bytes.writeUInt32LE(value, index * 4) : bytes.writeBigUInt64LE(BigInt(value), index * 8)
  return bytes
}

/** Padding between records is nobody's, and the kernel does not look at the attributes of what gives no reference. */
function plain(reply: Buffer, code: number): string {
  if (code !== opcode.readdir && code !== opcode.readdirplus) return reply.toString('hex')
  for (let at = 16; at < reply.length;) {
    if (code === opcode.readdirplus) {
      if (reply.readBigUInt64LE(at) === 0n) reply.fill(0, at, at + 128)
      at += 128
    }
    const length = reply.readUInt32LE(at + 16), end = at + ((24 + length + 7) & ~7)
    reply.fill(0, at + 24 + length, end)
    at = end
  }
  return reply.toString('hex')
}

/** Drives that are read by TypeScript and by the addon. Each range of inodes is shown once in this thread, so tests follow each other. */
class Drive {
  readonly fs: VirtualFs
  readonly #dispatcher: Dispatcher
  readonly #slot = new Slot()
  /** Late answers are taken. */
  readonly #device = openSync('/dev/null', 'w')

  constructor(engine: FakeEngine, readonly names: string[], single = false) {
    this.fs = new VirtualFs({
      view: mountView(names.map(name => archiveInfo(name)), single ? { kind: 'archive' } : {}), client: engine.client, answers: new NativeTreeAnswers(),
      notices: noNotices,
    })
    this.#dispatcher = new Dispatcher(this.fs, new Replies(this.#device))
    engine.answer()
    // Into each, so that its tree is there.
    for (const [index] of names.entries()) {
      this.fs.opendir(single ? rootIno : inoOf(inodeRange.firstArchive + index, 0), call())
      engine.answer()
    }
  }

  slow(asked: Asked): string {
    const bytes = request(asked)
    bytes.copy(this.#dispatcher.slot.bytes)
    const length = this.#dispatcher.handle(bytes.length)
    return plain(Buffer.from(this.#dispatcher.slot.bytes.subarray(0, length)), asked.code)
  }

  /** Undefined: not for the addon. */
  fast(asked: Asked): Buffer | undefined {
    const bytes = request(asked)
    this.#slot.bytes.fill(0xee, 0, 70_000)
    bytes.copy(this.#slot.bytes)
    const length = native().answerRequest(this.#slot.bytes, bytes.length)
    return length === 0 ? undefined : length < 0 ? Buffer.alloc(0) : Buffer.from(this.#slot.bytes.subarray(0, length))
  }

  close(): void {
    this.fs.destroy()
    closeSync(this.#device)
  }
}

const archiveRoot = inoOf(inodeRange.firstArchive, 0)

async function held(items: Item[], t: ExecutionContext, { single = false, twin = false } = {}): Promise<void> {
  const bytes = packed([...items, item('probe')])
  const options = treeOptions({ rootTimeNs: -1_500_000_000n, umask: 0o22 })
  const decoded: Item[] = []
  for (const reader = new MsgReader(bytes); !reader.done;) decoded.push(decodeItem(reader))
  const columns = twin ? build(decoded, options) : shownTree(columnsOf(await buildTree(pieces(bytes, 100), options)), options)
  const engine = new FakeEngine(new Contents())
  engine.trees.set('a', columns)
  const drive = new Drive(engine, ['a'], single)
  try {
    const tree = new ArchiveTree(columns, single ? rootIno : archiveRoot)
    const has = new Set(columns.xattrRow)
    // Who looks something up is listed everything.
    drive.fast({ code: opcode.lookup, ino: tree.base, body: named('probe') })
    const same = (asked: Asked, mayBeOther = false): void => {
      const made = drive.fast(asked)
      if (!made && mayBeOther) return
      t.is(made && plain(made, asked.code), drive.slow(asked), JSON.stringify(asked))
    }
    for (let row = 0; row < tree.rowCount; row++) {
      const ino = tree.base + row
      same({ code: opcode.getattr, ino, body: numbers(4, 0, 0, 0, 0) })
      if (row > 0) same({ code: opcode.lookup, ino: tree.base + tree.parentOf(row), body: Buffer.concat([tree.nameOf(row), Buffer.alloc(1)]) })
      same({ code: opcode.lookup, ino, body: named('not there') })
      same({ code: opcode.opendir, ino, body: numbers(4, 0, 0) })
      same({ code: opcode.releasedir, ino, body: numbers(8, 0, 0, 0) })
      same({ code: opcode.readlink, ino }, !tree.isSymlink(row))
      for (const size of [0, 100]) {
        same({ code: opcode.listxattr, ino, body: numbers(4, size, 0) }, has.has(row))
        for (const name of ['user.a', 'system.posix_acl_access', 'security.selinux']) same({ code: opcode.getxattr, ino, body: xattr(size, name) }, has.has(row) || row === 0)
      }
      t.is(drive.fast({ code: opcode.getxattr, ino, body: xattr(0, 'user.borgfs.chunks') }), undefined)
      for (const code of [opcode.readdir, opcode.readdirplus]) {
        if (!tree.isDirectory(row)) {
          t.is(drive.fast({ code, ino, body: reading(0, 4096) }), undefined)
          continue
        }
        for (const size of [0, 170, 400, 65536]) for (const cookie of [0, 1, 2, 3, row + 2, tree.firstChild(row) + 2, tree.rowCount + 5, 2 ** 50]) same({ code, ino, body: reading(cookie, size) })
      }
      t.deepEqual(drive.fast({ code: opcode.forget, ino, body: numbers(8, 1) }), Buffer.alloc(0))
    }
    for (const name of ['.', '..']) t.is(drive.fast({ code: opcode.lookup, ino: tree.base, body: named(name) }), undefined)
    const beyond = tree.base + tree.rowCount
    t.is(drive.fast({ code: opcode.getattr, ino: beyond, body: numbers(4, 0, 0, 0, 0) }), undefined)
    t.deepEqual(drive.fast({ code: opcode.batchForget, ino: 0, body: Buffer.concat([numbers(4, 2, 0), numbers(8, tree.base, 1, beyond - 1, 3)]) }), Buffer.alloc(0))
    t.is(drive.fast({ code: opcode.batchForget, ino: 0, body: Buffer.concat([numbers(4, 2, 0), numbers(8, tree.base, 1, beyond, 3)]) }), undefined)
    t.is(drive.fast({ code: opcode.lookup, ino: tree.base, body: named('n'.repeat(256)) }), undefined)
    t.is(drive.fast({ code: opcode.open, ino: tree.base, body: numbers(4, 0, 0) }), undefined)
    drive.fs.destroy()
    t.is(drive.fast({ code: opcode.getattr, ino: tree.base, body: numbers(4, 0, 0, 0, 0) }), undefined)
  } finally {
    drive.close()
  }
}

test.serial('the addon answers what TypeScript answers, whatever the items', async t => {
  await fc.assert(fc.asyncProperty(fc.array(anyItem, { maxLength: 25 }), fc.boolean(), fc.boolean(), async (items, single, twin) => {
    await held(items, t, { single, twin })
  }), { numRuns: 60 })
})

test.serial('thousands in one directory, by pieces, and more than 65,536 owners', async t => {
  const many = Array.from({ length: 3000 }, (_, index) => item(`many/file ${index}`, { uid: index, mtimeNs: -BigInt(index) }))
  await held(many.slice(0, 300), t)
  const engine = new FakeEngine(new Contents())
  engine.trees.set('a', build([...many, ...Array.from({ length: 66_000 }, (_, index) => item(`owner ${index}`, { uid: index }))]))
  const drive = new Drive(engine, ['a'])
  t.teardown(() => drive.close())
  const directory = drive.fs.lookup(archiveRoot, Buffer.from('many'), call()) as { attr: { ino: number } }
  const names: string[] = []
  for (let cookie = 0, got = 1; got > 0;) {
    const reply = drive.fast({ code: opcode.readdirplus, ino: directory.attr.ino, body: reading(cookie, 4096) })!
    t.is(plain(Buffer.from(reply), opcode.readdirplus), drive.slow({ code: opcode.readdirplus, ino: directory.attr.ino, body: reading(cookie, 4096) }))
    got = 0
    for (let at = 16; at < reply.length; got++) {
      at += 128
      const length = reply.readUInt32LE(at + 16)
      cookie = Number(reply.readBigUInt64LE(at + 8))
      names.push(reply.toString('latin1', at + 24, at + 24 + length))
      at += (24 + length + 7) & ~7
    }
  }
  t.deepEqual(names, ['.', '..', ...many.map(({ path }) => path.toString().slice(5))])
  const last = { code: opcode.lookup, ino: archiveRoot, body: named('owner 65999') }
  t.is(drive.fast(last)!.toString('hex'), drive.slow(last))
})

const uid = process.getuid!()
/** The tree `a` has no ACLs, `b` has one. */
function drives(t: ExecutionContext): Drive {
  const engine = new FakeEngine(new Contents())
  const files = Array.from({ length: 20 }, (_, index) => item(`f${index}`, { uid }))
  const own = [item('d', { mode: directoryMode, uid }), ...files.map(each => ({ ...each, path: Buffer.from(`d/${each.path.toString()}`) })), item('s', { mode: linkMode, source: Buffer.from('d') }), item('foreign', { uid: uid + 1 })]
  engine.trees.set('a', build(own))
  engine.trees.set('b', build([...own, item('acl', { aclAccess: Buffer.from('user::rw-\nuser:root:rw-:0\ngroup::r--\nmask::rw-\nother::r--\n') })]))
  engine.trees.set('c', build(own))
  const drive = new Drive(engine, ['a', 'b', 'c'])
  t.teardown(() => drive.close())
  return drive
}

const at = (archive: number, row: number): number => inoOf(inodeRange.firstArchive + archive, row)
const errno = (reply: Buffer | undefined): number => -reply!.readInt32LE(4)
const enodata = 61, eopnotsupp = 95
/** The last of so many questions. */
const asks = (drive: Drive, times: number, asked: Asked): number => {
  let last = 0
  for (let count = 0; count < times; count++) last = errno(drive.fast(asked))
  return last
}
const aclOf = (ino: number, more: Partial<Asked> = {}): Asked => ({ code: opcode.getxattr, ino, body: xattr(0, 'system.posix_acl_access'), uid, pid: process.pid, ...more })

test.serial('who asks for ACLs again and again where there are none is told that there is no such thing', t => {
  const drive = drives(t)
  t.is(asks(drive, 63, aclOf(at(0, 2))), enodata)
  t.is(asks(drive, 1, aclOf(at(0, 3))), eopnotsupp)
  t.is(asks(drive, 1, { ...aclOf(at(0, 3)), body: xattr(255, 'security.selinux') }), eopnotsupp)
  t.is(asks(drive, 1, { ...aclOf(at(0, 3)), body: xattr(255, 'user.a') }), enodata)
  // The kernel may be asking on behalf of who is not the owner, and takes this for an error.
  t.is(asks(drive, 1, aclOf(at(0, 23))), enodata)
  t.is(asks(drive, 1, { ...aclOf(at(0, 23)), body: xattr(255, 'security.selinux') }), eopnotsupp)
  // Another program, and the same in another tree.
  t.is(asks(drive, 63, aclOf(at(0, 2), { pid: process.ppid })), enodata)
  t.is(asks(drive, 63, aclOf(at(2, 2))), enodata)
  t.is(asks(drive, 63, aclOf(at(0, 2))), enodata)
})

test.serial('but not where there is an ACL, not who listed the archives, and not who acts for another', t => {
  const drive = drives(t)
  t.is(asks(drive, 200, aclOf(at(1, 2))), enodata)
  t.is(drive.fast({ code: opcode.opendir, ino: rootIno, body: numbers(4, 0, 0), pid: process.pid }), undefined)
  t.is(asks(drive, 200, aclOf(at(0, 2))), enodata)
  t.is(asks(drive, 200, aclOf(at(0, 2), { uid: uid + 1, pid: process.ppid })), enodata)
  t.is(asks(drive, 200, aclOf(at(0, 2), { pid: 0 })), enodata)
})

test.serial('who only lists gets names, and attributes from when it looked something up', t => {
  const drive = drives(t)
  const opened = (archive: number, pid: number): Buffer => drive.fast({ code: opcode.opendir, ino: at(archive, 1), body: numbers(4, 0, 0), pid })!.subarray(16)
  const nodes = (archive: number, row: number, pid: number, fh: number): Map<string, bigint> => {
    const reply = drive.fast({ code: opcode.readdirplus, ino: at(archive, row), body: reading(0, 65536, fh), pid })!
    const found = new Map<string, bigint>()
    for (let place = 16; place < reply.length;) {
      const length = reply.readUInt32LE(place + 144)
      t.is(reply.readUInt32LE(place + 148) !== 0, true)
      found.set(reply.toString('latin1', place + 152, place + 152 + length), reply.readBigUInt64LE(place))
      place += 128 + ((24 + length + 7) & ~7)
    }
    return found
  }
  t.deepEqual(opened(0, 41), Buffer.concat([numbers(8, 1), numbers(4, 2, 0)]))
  t.deepEqual([...new Set(nodes(0, 1, 41, 1).values())], [0n])
  const root = nodes(0, 0, 41, 1)
  t.deepEqual([root.get('.'), root.get('d'), root.get('s'), root.get('foreign')], [0n, BigInt(at(0, 1)), 0n, 0n])
  drive.fast({ code: opcode.lookup, ino: at(0, 0), body: named('d'), pid: 41 })
  t.is(nodes(0, 1, 41, 1).get('f3'), 0n)
  drive.fast({ code: opcode.lookup, ino: at(0, 0), body: named('nothing'), pid: 41 })
  t.is(nodes(0, 1, 41, 1).get('f3'), 0n)
  drive.fast({ code: opcode.lookup, ino: at(0, 1), body: named('f3'), pid: 41 })
  t.is(nodes(0, 1, 41, 1).get('f3'), BigInt(at(0, 5)))
  t.deepEqual(opened(0, 41), Buffer.concat([numbers(8, 0), numbers(4, 10, 0)]))
  t.is(nodes(0, 1, 42, 0).get('f3'), BigInt(at(0, 5)), 'opened for attributes')
})

test('what the addon gives of an archive and takes back counts as much as what TypeScript does', t => {
  const engine = new FakeEngine(new Contents())
  const root = archiveRoot, items = [item('d/x'), item('d/y')], tree = new ArchiveTree(build(items), root)
  engine.trees.set('a', build(items))
  const drive = new Drive(engine, ['a'])
  const node = (row: number, name: string): number => tree.base + tree.lookup(row, Buffer.from(name))
  const d = node(0, 'd'), x = node(d - root, 'x'), y = node(d - root, 'y')
  const forget = (ino: number, count: number) => ({ code: opcode.forget, ino, body: numbers(8, count) })
  const batch = (...items: number[]) => ({ code: opcode.batchForget, ino: 0, body: Buffer.concat([numbers(4, items.length / 2, 0), numbers(8, ...items)]) })
  const archives = () => drive.fs.counts.archives
  try {
    const lookups = 2
    for (let time = 0; time < lookups; time++) drive.slow({ code: opcode.lookup, ino: rootIno, body: named('a') })
    drive.fast({ code: opcode.lookup, ino: root, body: named('d') })
    drive.fast({ code: opcode.lookup, ino: root, body: named('nothing') })
    // Who looks something up is listed everything: x and y get a reference, the dots do not.
    drive.fast({ code: opcode.lookup, ino: d, body: named('x'), pid: 51 })
    drive.fast({ code: opcode.readdirplus, ino: d, body: reading(0, 4000), pid: 51 })
    drive.fast({ code: opcode.readdir, ino: d, body: reading(0, 4000), pid: 51 })
    // The kernel may forget what is shown still: the name in the root changed hands, or memory was short.
    t.deepEqual(drive.fast(forget(root, lookups)), Buffer.alloc(0))
    t.deepEqual(drive.fast(batch(x, 1)), Buffer.alloc(0))
    // Of an inode that is not the tree's as well: that is for TypeScript, all of it.
    t.is(drive.fast(batch(x, 1, inoOf(inodeRange.status, 5), 1)), undefined)
    drive.slow(batch(x, 1, inoOf(inodeRange.status, 5), 1))
    engine.client.deliver({ type: 'archives', archives: [] })
    t.is(archives(), 1, 'd and y are not given back yet')
    drive.slow(forget(d, 1))
    t.is(archives(), 1)
    drive.slow(forget(y, 1))
    t.is(archives(), 0)
  } finally {
    drive.close()
  }
})

test('a tree that came when its archive was gone is not shown any longer than somebody has something of it', t => {
  const engine = new FakeEngine(new Contents())
  engine.trees.set('a', build([item('f')]))
  const drive = new Drive(engine, [])
  try {
    engine.client.deliver({ type: 'archives', archives: [archiveInfo('a')] })
    // Waits for the tree.
    drive.slow({ code: opcode.lookup, ino: archiveRoot, body: named('f') })
    engine.client.deliver({ type: 'archives', archives: [] })
    t.is(drive.fs.counts.archives, 1)
    engine.answer()
    t.truthy(drive.fast({ code: opcode.getattr, ino: archiveRoot }))
    drive.fs.forget(archiveRoot, 1)
    t.is(drive.fs.counts.archives, 0)
    t.is(drive.fast({ code: opcode.getattr, ino: archiveRoot }), undefined)
  } finally {
    drive.close()
  }
})

test('the opening of a file that was handed out is answered and counted, unless somebody wants to be told or it is to be written', t => {
  const answers = new NativeTreeAnswers()
  const tree = new ArchiveTree(build([item('a'), item('b'), item('c')]), inoOf(inodeRange.firstArchive + 901, 0))
  const handed = new HandedFiles(tree.rowCount)
  const [a, b, c] = ['a', 'b', 'c'].map(name => tree.lookup(0, Buffer.from(name))) as [number, number, number]
  const slot = new Slot()
  const ask = (code: number, row: number, body: Buffer): string | undefined => {
    const bytes = request({ code, ino: tree.base + row, body })
    bytes.copy(slot.bytes)
    const length = native().answerRequest(slot.bytes, bytes.length)
    return length === 0 ? undefined : Buffer.from(slot.bytes.subarray(16, length)).toString('hex')
  }
  const open = (row: number, flags = 0): string | undefined => ask(opcode.open, row, numbers(4, flags, 0))
  const release = (row: number, fh: number): string | undefined => ask(opcode.release, row, Buffer.concat([numbers(8, fh), numbers(4, 0, 0), numbers(8, 0)]))
  answers.show({ tree, above: rootIno, ttlMs: 1000, lastUse: new Float64Array(1), clock: new Float64Array(1), handed, references: new Float64Array(1) })
  t.is(open(a), undefined)
  t.is(release(a, 0), undefined)
  handed.give(a, false)
  handed.give(b, true)
  const opened = Buffer.concat([numbers(8, handedHandle), numbers(4, 2 | 32, 0)]).toString('hex')
  t.is(open(a), opened)
  t.is(open(a, 0o100000), opened, 'O_LARGEFILE')
  t.is(open(b), undefined)
  t.is(open(c), undefined)
  for (const flags of [1, 2, 0o1000]) t.is(open(a, flags), undefined)
  t.is(handed.opens[0], 2)
  t.is(release(a, 7), undefined)
  t.is(release(a, 0), '')
  t.is(release(a, 0), '')
  t.is(release(a, 0), undefined)
  t.is(handed.opens[0], 0)
  t.deepEqual(handed.open(b), { fh: handedHandle, tells: true })
  t.is(open(b), opened)
  handed.lost()
  t.is(open(a), undefined)
  t.false(handed.mayGive(c))
  for (const row of [b, b]) t.is(release(row, 0), '')
  t.true(handed.mayGive(c))
  answers.hide(tree)
})

test('what the addon writes to and reads for a shown tree is there until the tree is hidden', async t => {
  setFlagsFromString('--expose_gc')
  const collect = runInNewContext('gc') as () => void
  const answers = new NativeTreeAnswers()
  const tree = new ArchiveTree(build([item('file')]), inoOf(inodeRange.firstArchive + 900, 0))
  const numbers = ((): WeakRef<object>[] => {
    const lastUse = new Float64Array(1), clock = new Float64Array(1), references = new Float64Array(1), handed = new HandedFiles(tree.rowCount)
    answers.show({ tree, above: rootIno, ttlMs: 1000, lastUse, clock, handed, references })
    return [lastUse, clock, handed.states, handed.opens].map(each => new WeakRef(each))
  })()
  const gone = async (): Promise<number> => {
    await nextTurn()
    collect()
    return numbers.filter(number => number.deref() === undefined).length
  }
  t.is(await gone(), 0)
  answers.hide(tree)
  t.is(await gone(), 4)
})
