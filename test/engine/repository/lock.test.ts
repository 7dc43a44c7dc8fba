import test from 'ava'
import { chmodSync, chownSync, existsSync, readFileSync, readlinkSync, statSync, symlinkSync } from 'node:fs'
import { files, replaceFiles } from '../../../src/engine/platform/files.js'
import { hostId } from '../../../src/engine/platform/process-id.js'
import { Lock } from '../../../src/engine/repository/lock.js'
import { hostError } from '../../helpers/full-disk.js'
import { Sandbox } from '../../helpers/sandbox.js'

const silent = { write() {} }

test.serial('on a full disk nobody can join the readers, those that are there are not forgotten, and leave', async t => {
  const sandbox = new Sandbox('lock-full')
  try {
    const path = sandbox.path('lock')
    // As of two processes: a thread number tells them apart.
    const [first, second, third] = [1, 2, 3].map(thread => new Lock(path, silent, { host: hostId(), pid: process.pid, thread }))
    await first!.acquire('shared', 0)
    await second!.acquire('shared', 0)
    const roster = (): unknown => JSON.parse(readFileSync(`${path}.roster`, 'utf8'))
    const both = roster()
    const disk = replaceFiles({
      ...files,
      // What is there may be overwritten.
      writeAll: (fd, bytes, position) => {
        if (position === undefined && bytes.length > 0) throw hostError('ENOSPC')
        disk.writeAll(fd, bytes, position)
      },
    })
    try {
      await t.throwsAsync(third!.acquire('shared', 0), { code: 'ENOSPC' })
      t.deepEqual(roster(), both)
      t.true(first!.stillHeld() && second!.stillHeld())
      await t.throwsAsync(third!.acquire('exclusive', 0))
      first!.release()
      t.deepEqual(roster(), { shared: [[hostId(), process.pid, 2]] })
      second!.release()
      t.false(existsSync(`${path}.roster`))
    } finally {
      replaceFiles(disk)
    }
    await third!.acquire('exclusive', 0)
    third!.release()
    t.false(existsSync(`${path}.roster`) || existsSync(`${path}.roster.tmp`) || existsSync(`${path}.exclusive`))
  } finally {
    sandbox.close()
  }
})

test.serial('the list of holders is replaced in one step, whenever its writer is killed', async t => {
  const sandbox = new Sandbox('lock-killed')
  try {
    const path = sandbox.path('lock')
    const [first, second] = [1, 2].map(thread => new Lock(path, silent, { host: hostId(), pid: process.pid, thread }))
    await first!.acquire('shared', 0)
    const disk = replaceFiles({ ...files, writeAll: () => t.true(first!.stillHeld()) })
    try {
      await second!.acquire('shared', 0)
    } finally {
      replaceFiles(disk)
    }
  } finally {
    sandbox.close()
  }
})

test.serial('a list of holders that cannot be read is not that of nobody, and stays', async t => {
  const sandbox = new Sandbox('lock-unreadable')
  try {
    const path = sandbox.path('lock')
    // As what another user made for himself: it may be replaced, but not read.
    symlinkSync('lock.roster', `${path}.roster`)
    const lock = new Lock(path, silent)
    for (const kind of ['exclusive', 'shared'] as const) await t.throwsAsync(lock.acquire(kind, 0), { message: /^Failed to create\/acquire the lock .*roster/ })
    t.is(readlinkSync(`${path}.roster`), 'lock.roster')
    t.false(existsSync(`${path}.exclusive`))
  } finally {
    sandbox.close()
  }
})

test.serial('the list of holders stays open to those who could read and change it', async t => {
  const sandbox = new Sandbox('lock-shared')
  try {
    const path = sandbox.path('lock')
    const [first, second] = [1, 2].map(thread => new Lock(path, silent, { host: hostId(), pid: process.pid, thread }))
    await first!.acquire('shared', 0)
    chmodSync(`${path}.roster`, 0o666)
    if (process.geteuid!() === 0) chownSync(`${path}.roster`, 1234, 1234)
    const before = statSync(`${path}.roster`)
    await second!.acquire('shared', 0)
    t.true(first!.stillHeld() && second!.stillHeld())
    const after = statSync(`${path}.roster`)
    t.deepEqual([after.uid, after.gid, after.mode], [before.uid, before.gid, before.mode])
    first!.release()
    t.deepEqual(JSON.parse(readFileSync(`${path}.roster`, 'utf8')), { shared: [[hostId(), process.pid, 2]] })
    second!.release()
    t.deepEqual([existsSync(`${path}.roster`), existsSync(`${path}.roster.tmp`)], [false, false])
  } finally {
    sandbox.close()
  }
})
