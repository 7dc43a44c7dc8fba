/** What the addon answers about new small files while their directory is lent is what TypeScript answers, and what arrives is the same tree. */
import test, { type ExecutionContext } from 'ava'
import { closeSync, openSync } from 'node:fs'
import { native } from '../../../../src/engine/native.js'
import type { DirectoryLoans } from '../../../../src/fs/core.js'
import { useGeneration } from '../../../../src/fs/fuse/kernel/answers.js'
import { NativeDirectoryLoans } from '../../../../src/fs/fuse/kernel/directory-loans.js'
import { Dispatcher } from '../../../../src/fs/fuse/kernel/dispatch.js'
import { opcode, Slot } from '../../../../src/fs/fuse/kernel/protocol.js'
import { Replies } from '../../../../src/fs/fuse/kernel/replies.js'
import { noNotices } from '../../../../src/fs/fuse/transport.js'
import { Incoming } from '../../../../src/fs/incoming/incoming.js'
import { Staging } from '../../../../src/fs/incoming/staging.js'
import { type Asked, named, request } from '../../../helpers/fuse-requests.js'
import { Contents, FakeEngine } from '../../../helpers/mount-fixtures.js'
import { Sandbox } from '../../../helpers/sandbox.js'
import { randomOf } from '../../../helpers/seeded.js'

useGeneration(4711)

const rootFacts = { mode: 0o040755, uid: 0, gid: 0, rdev: 0, atimeNs: 0n, mtimeNs: 0n, ctimeNs: 0n }
const noTime = Buffer.alloc(8)
const attrTimes = [[24, 48], [32, 52], [40, 56]] as const

function words(...values: (number | bigint)[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length + 4 * values.filter(value => typeof value === 'bigint').length)
  let at = 0
  for (const value of values) at = typeof value === 'bigint' ? bytes.writeBigInt64LE(value, at) : bytes.writeUInt32LE(value >>> 0, at)
  return bytes
}

/** Times that are later than 2001 are those of this run, which differ: what was set is long before that. */
function withoutNow(reply: Buffer, at: number): void {
  for (const [seconds, nanoseconds] of attrTimes) {
    if (reply.readBigInt64LE(at + seconds) < 1_000_000_000n) continue
    noTime.copy(reply, at + seconds)
    reply.writeUInt32LE(0, at + nanoseconds)
  }
}

class Served {
  readonly incoming: Incoming
  readonly dispatcher: Dispatcher
  /** Answered by the addon. */
  fast = 0
  readonly #slot = new Slot()
  readonly #device = openSync('/dev/null', 'w')
  readonly engine = new FakeEngine(new Contents())
  readonly #isLent: boolean

  constructor(folder: string, isLent: boolean, place: 'incoming' | 'live', shared?: DirectoryLoans) {
    this.#isLent = isLent
    const loans: DirectoryLoans | undefined = isLent ? shared ?? new NativeDirectoryLoans() : undefined
    this.incoming = new Incoming({ folder, maxBytes: 1 << 30, place, archiveIds: new Set(), settleMs: 1e9, lingerMs: 1e9, rootFacts, putsOff: true }, this.engine.client, noNotices, { state() {} }, () => {
      throw new Error('no chunks here')
    }, loans)
    this.dispatcher = new Dispatcher(this.incoming as never, new Replies(this.#device))
  }

  /** As the loop does, where it is the only place. */
  ask(asked: Asked): Buffer {
    this.incoming.lend()
    return plain(this.answer(asked, () => this.incoming.takeBack()), asked.code)
  }

  /** Of what is lent, or after `takeBack`. */
  answer(asked: Asked, takeBack: () => void): Buffer {
    const bytes = request(asked)
    const length = this.#isLent ? this.#fast(bytes) : 0
    if (length > 0) return Buffer.from(this.#slot.bytes.subarray(0, length))
    takeBack()
    bytes.copy(this.dispatcher.slot.bytes)
    const slow = this.dispatcher.handle(bytes.length)
    this.engine.answer()
    return Buffer.from(this.dispatcher.slot.bytes.subarray(0, slow))
  }

  #fast(bytes: Buffer): number {
    this.#slot.bytes.fill(0xee, 0, 200_000)
    bytes.copy(this.#slot.bytes)
    const length = native().answerRequest(this.#slot.bytes, bytes.length)
    if (length > 0) this.fast++
    return length
  }

  close(): void {
    this.incoming.takeBack()
    this.incoming.releaseAll()
    this.incoming.destroy()
    closeSync(this.#device)
  }
}

function plain(reply: Buffer, code: number): Buffer {
  if (reply.length < 100) return reply
  if (code === opcode.getattr || code === opcode.setattr) withoutNow(reply, 32)
  else if (code === opcode.create || code === opcode.lookup || code === opcode.mkdir || code === opcode.link) withoutNow(reply, 56)
  return reply
}

const acl = (user: number, group: number, others: number, id = 0xffffffff): Buffer => words(2, 1 | user << 16, id, 4 | group << 16, 0xffffffff, 32 | others << 16, 0xffffffff)

/** The same operations by chance, where one of two is answered by the addon as far as that can. */
function compare(t: ExecutionContext, place: 'incoming' | 'live', seed: number, steps: number): void {
  const sandbox = new Sandbox('loans')
  try {
    const [plainOne, lentOne] = [new Served(sandbox.path('plain'), false, place), new Served(sandbox.path('lent'), true, place)]
    const random = randomOf(seed)
    const pick = <T>(values: readonly T[]): T => values[random(values.length)]!
    const both = (asked: Asked): Buffer => {
      const [expected, found] = [plainOne.ask(asked), lentOne.ask(asked)]
      t.is(found.toString('hex'), expected.toString('hex'), `seed ${seed}: opcode ${asked.code} of ${asked.ino}`)
      return expected
    }
    const failed = (reply: Buffer): boolean => reply.readInt32LE(4) !== 0
    const inoIn = (reply: Buffer): number => Number(reply.readBigUInt64LE(16))
    const makeDirectory = (above: number, name: string, mode = 0o755): number => inoIn(both({ code: opcode.mkdir, ino: above, body: Buffer.concat([words(mode, 0o022), named(name)]) }))
    const top = makeDirectory(plainOne.incoming.root, 'tree')
    const directories = [top, makeDirectory(top, 'sub'), makeDirectory(top, 'grouped', 0o2755)]
    const files: { ino: number; fh: number; open: boolean; size: number; directory: number; name: string }[] = []
    let at = directories[0]!
    for (let step = 0; step < steps; step++) {
      if (random(60) === 0) at = pick(directories)
      const name = `file ${random(random(6) === 0 ? 60 : 5000)}${random(40) === 0 ? 'x'.repeat(random(260)) : ''}`
      const file = random(5) > 0 ? files.at(-1) : pick(files)
      const kind = random(8) > 0 ? random(28) : random(34)
      if (kind < 9 || !file) {
        both({ code: opcode.getattr, ino: at, body: words(0, 0, 0n) })
        const looked = both({ code: opcode.lookup, ino: at, body: named(name) })
        if (!failed(looked) && random(3) > 0) continue
        const flags = pick([1, 1, 1, 1, 1, 2, 2, 2, random(6) === 0 ? 0 : 1]) | pick([0, 0o100, 0o2000, 0o200])
        const made = both({ code: opcode.create, ino: at, ...pick([{ uid: 0, gid: 1 }, { uid: 0, gid: 1 }, { uid: 1000, gid: 1001 }]), body: Buffer.concat([words(flags, 0o100000 | pick([0o644, 0o600, 0o755, 0o1777, random(4) === 0 ? 0o4755 : 0o400]), pick([0o022, 0, 0o077]), 0), named(name)]) })
        if (!failed(made)) files.push({ ino: inoIn(made), fh: Number(made.readBigUInt64LE(16 + 128)), open: true, size: 0, directory: at, name })
      } else if (kind < 17) {
        if (!file.open) continue
        const data = Buffer.alloc(pick([1, 15, 16, 17, 500, 4096, 30_000, random(4) === 0 ? 70_000 : 5, random(4) === 0 ? 0 : 3]), step)
        const offset = random(15) > 0 ? file.size : random(file.size + 40)
        const wrote = both({ code: opcode.write, ino: file.ino, body: Buffer.concat([words(BigInt(file.fh), BigInt(offset), data.length, pick([0, 0, 2, 4, 6, random(6) === 0 ? 1 : 0]), 0n, 0, 0), data]) })
        if (!failed(wrote) && data.length > 0) file.size = Math.max(file.size, offset + data.length)
      } else if (kind < 21) {
        const valid = pick([1, 1 | 16 | 32, 16 | 32, 16 | 32 | 64, 2 | 4, 4, 16 | 128 | 32 | 256, 32 | 256, 512, 1024, 2048 | 2, random(3) === 0 ? 8 : 1, 16])
        const size = random(3000)
        const set = both({ code: opcode.setattr, ino: random(30) === 0 ? at : file.ino, body: words(valid, 0, BigInt(file.fh), BigInt(size), 0n, BigInt(pick([5, -7, 900_000_000])), BigInt(pick([6, -3])), 0n,
          pick([0, 999_999_999]), 17, 0, pick([0o640, 0o100755, 0o444, random(4) === 0 ? 0o6711 : 0o600]), 0, pick([0, 1000]), pick([0, 5]), 0) })
        if (!failed(set) && valid & 8) for (const each of files) if (each.ino === file.ino) each.size = size
      } else if (kind < 24) {
        const value = pick([acl(6, 4, 4), acl(7, 5, 0), acl(0, 1, 2), random(4) > 0 ? acl(5, 5, 5) : pick([acl(7, 5, 0, 3), Buffer.concat([acl(6, 6, 6), Buffer.alloc(8)]), Buffer.from('value')])])
        const attribute = random(6) > 0 ? 'system.posix_acl_access' : pick(['user.other', 'system.posix_acl_accesS'])
        both({ code: opcode.setxattr, ino: file.ino, body: Buffer.concat([words(value.length, pick([0, 0, 1, random(4) === 0 ? 2 : 0])), named(attribute), value]) })
      } else if (kind < 28) {
        if (!file.open) continue
        both({ code: opcode.release, ino: file.ino, body: words(BigInt(file.fh), 0, 0, 0n) })
        file.open = false
      } else if (kind === 28) both({ code: opcode.getattr, ino: file.ino, body: words(0, 0, 0n) })
      else if (kind === 29) both({ code: opcode.unlink, ino: file.directory, body: named(file.name) })
      else if (kind === 30) {
        const to = `file ${random(60)}`
        if (!failed(both({ code: opcode.rename2, ino: file.directory, body: Buffer.concat([words(BigInt(at), 0, 0), named(file.name), named(to)]) }))) Object.assign(file, { directory: at, name: to })
      } else if (kind === 31) both({ code: opcode.link, ino: at, body: Buffer.concat([words(BigInt(file.ino)), named(`file ${random(60)}`)]) })
      else if (kind === 32) {
        if (file.open) both({ code: opcode.read, ino: file.ino, body: words(BigInt(file.fh), 0n, 100_000, 0, 0n, 0, 0) })
      } else if (kind === 33 && random(3) === 0) for (const each of [plainOne, lentOne]) {
        each.incoming.takeBack()
        each.incoming.tick(performance.now())
      }
    }
    t.true(lentOne.fast > steps / 8, `${lentOne.fast} of ${steps} by the addon`)
    t.is(plainOne.fast, 0)
    for (const each of [plainOne, lentOne]) each.close()
    // What a start finds of them.
    const [left, right] = ['plain', 'lent'].map(folder => told(new Staging({ folder: sandbox.path(folder), maxBytes: 1 << 30, rootFacts, archiveIds: new Set(), place })))
    t.deepEqual(right, left)
  } finally {
    sandbox.close()
  }
}

function told(staging: Staging): unknown[] {
  const lines: unknown[] = [staging.lostRecords]
  for (const { node, path } of staging.nodes.walk(staging.nodes.get(1)!)) {
    const { id, mode, uid, gid, nlink, size, place, mtimeNs, atimeNs, xattrs } = node
    const content = Buffer.alloc(place ? size : 0)
    if (place) staging.bundles.read(place, content, 0)
    else if (size > 0 && !node.children && !node.target) lines.push(staging.spool.stat(id).size)
    lines.push([path, id, mode, uid, gid, nlink, node.children ? 0 : size, content.toString('latin1'), [atimeNs, mtimeNs].map(ns => (ns < 1_000_000_000_000_000_000n ? ns : 0n)), xattrs && [...xattrs]])
  }
  staging.close()
  return lines
}

for (const place of ['incoming', 'live'] as const) {
  test(`in ${place}/ the addon answers what TypeScript answers, and the same is there afterwards`, t => {
    for (let seed = 1; seed <= 12; seed++) compare(t, place, seed, 1500)
  })
}

test('of two places one is lent at a time, and what arrives is in the one that it came to', t => {
  const sandbox = new Sandbox('loans')
  const loans = new NativeDirectoryLoans()
  const [incoming, live] = (['incoming', 'live'] as const).map(place => new Served(sandbox.path(place), true, place, loans)) as [Served, Served]
  try {
    const made = new Map<Served, number[]>([[incoming, []], [live, []]])
    const directories = new Map<Served, number>()
    for (const each of [incoming, live]) directories.set(each, Number(each.ask({ code: opcode.mkdir, ino: each.incoming.root, body: Buffer.concat([words(0o755, 0), named('tree')]) }).readBigUInt64LE(16)))
    const both = [incoming, live]
    let lent = 0
    for (let step = 0; step < 400; step++) {
      // As the loop does, for both.
      for (const { incoming: part } of both) part.lend()
      lent += both.filter(({ incoming: part }) => part.isLending).length
      t.true(both.filter(({ incoming: part }) => part.isLending).length <= 1)
      const each = both[step % 7 < 4 ? 0 : 1]!
      const reply = each.answer({ code: opcode.create, ino: directories.get(each)!, body: Buffer.concat([words(1, 0o100644, 0, 0), named(`file ${step}`)]) }, () => {
        for (const { incoming: part } of both) part.takeBack()
      })
      t.is(reply.readInt32LE(4), 0)
      made.get(each)!.push(step)
      each.answer({ code: opcode.release, ino: Number(reply.readBigUInt64LE(16)), body: words(reply.readBigUInt64LE(16 + 128), 0, 0, 0n) }, () => {
        for (const { incoming: part } of both) part.takeBack()
      })
    }
    t.true(lent > 50, `${lent} loans`)
    for (const { incoming: part } of both) part.takeBack()
    for (const each of both) {
      for (let step = 0; step < 400; step++) {
        const looked = each.answer({ code: opcode.lookup, ino: directories.get(each)!, body: named(`file ${step}`) }, () => {})
        t.is(looked.readInt32LE(4) === 0, made.get(each)!.includes(step), `file ${step}`)
      }
    }
  } finally {
    for (const each of [incoming, live]) each.close()
    sandbox.close()
  }
})
