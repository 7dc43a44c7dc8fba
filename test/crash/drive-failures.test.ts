/** A drive on a disk that fails while files are staged and while they are committed; and a repository that is compacted under its readers. */
import test from 'ava'
import { closeSync, existsSync, openSync, readFileSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { readCalls, World, type Fault } from '../helpers/faults.js'
import { canMount } from '../helpers/mount.js'
import { Sandbox } from '../helpers/sandbox.js'

const run = canMount ? test.serial : test.serial.skip
if (!canMount) console.error('SKIPPED aloud: test/crash/drive-failures needs to mount')

const content = 'staged and fsynced\n'.repeat(500)
const writer = String.raw`
import os, sys
target = sys.argv[1]
os.mkdir(target)
fd = os.open(os.path.join(target, 'f'), os.O_WRONLY | os.O_CREAT, 0o640)
os.write(fd, b'staged and fsynced\n' * 500)
os.fsync(fd)
os.close(fd)
fd = os.open(target, os.O_RDONLY)
os.fsync(fd)
`

run('whichever call fails while files are staged or committed: an error, nothing lost, and it works the next time', async t => {
  const sandbox = new Sandbox('drive-failures')
  try {
    const world = new World(sandbox)
    sandbox.sh('mkdir source; echo old > source/old')
    world.begin('none', 'old')
    const before = world.snapshot()
    const args = ['-o', 'settle=3600,refresh=0']
    // Once without fault: where the calls of which thread are.
    const { env, log } = world.watched()
    let mountpoint = sandbox.mount('world/repo', { args, env })
    const mounted = readCalls(log)
    sandbox.run('python3', ['-c', writer, join(mountpoint, 'incoming', 'tree')])
    const staged = readCalls(log)
    sandbox.sh(`mv ${mountpoint}/incoming/tree ${mountpoint}/archive`)
    const committed = readCalls(log)
    await sandbox.leave(mountpoint, { ok: 'any' })
    const count = (calls: typeof staged, main: boolean): number => calls.filter(call => call.main === main).length
    const [firstStaging, lastStaging] = [count(mounted, false) + 1, count(staged, false)]
    const [firstCommit, lastCommit] = [count(staged, true) + 1, count(committed, true)]
    t.true(lastStaging > firstStaging && lastCommit > firstCommit)
    const faults: Fault[] = [
      { at: firstStaging + 1, action: 'ENOSPC', thread: 'worker' }, { at: lastStaging, action: 'EIO', thread: 'worker' },
      { at: Math.floor((firstStaging + lastStaging) / 2), action: 'EIO', sticky: true, thread: 'worker' },
      { at: firstCommit + 2, action: 'EIO' }, { at: Math.floor((firstCommit + lastCommit) / 2), action: 'ENOSPC', sticky: true }, { at: lastCommit - 3, action: 'EIO' },
    ]
    let refused = 0
    for (const fault of faults) {
      const label = JSON.stringify(fault)
      world.restoreUnlocked(before)
      try {
        mountpoint = sandbox.mount('world/repo', { args, env: world.watched(fault).env })
      } catch (error) {
        // It failed already while the staging folder was looked through.
        t.regex(String(error), new RegExp(fault.action === 'EIO' ? 'EIO' : 'No space left'), label)
        t.false(sandbox.isMounted(sandbox.path('mnt')), label)
        refused++
        continue
      }
      const wrote = sandbox.run('python3', ['-c', writer, join(mountpoint, 'incoming', 'tree')], { ok: 'any' })
      if (fault.thread !== 'worker') t.is(wrote.rc, 0, label)
      const moved = sandbox.sh(`mv ${mountpoint}/incoming/tree ${mountpoint}/archive`, { ok: 'any' })
      if (fault.thread === 'worker') t.true(wrote.rc !== 0 || moved.rc !== 0 || existsSync(join(mountpoint, 'archive')), label)
      if (wrote.rc !== 0) t.regex(wrote.stderr, /OSError: \[Errno \d+\]/, label)
      await sandbox.leave(mountpoint, { ok: 'any' })
      const found = await world.audit()
      t.deepEqual(found.problems, [], label)
      if (moved.rc === 0 && wrote.rc === 0) t.true(found.archives.has('archive'), `${label}: mv returned, but the archive is lost`)
      // Over a sound disk it is there, in the one place or the other, and can be committed.
      mountpoint = sandbox.mount('world/repo', { args, env: world.env })
      if (wrote.rc === 0) {
        // Unmounting commits what is left, under a name of its own.
        const archive = [...found.archives.keys()].find(name => name === 'archive' || name.startsWith('tree-'))
        const place = archive ?? 'incoming/tree'
        t.is(readFileSync(join(mountpoint, place, 'f'), 'utf8'), content, `${label}: ${place}`)
        if (archive === undefined) {
          sandbox.sh(`mv ${mountpoint}/${place} ${mountpoint}/archive`)
          t.is(readFileSync(join(mountpoint, 'archive', 'f'), 'utf8'), content, label)
        }
      }
      await sandbox.leave(mountpoint, { ok: 'any' })
      t.deepEqual((await world.audit()).problems, [], label)
    }
    t.true(refused <= 3, `${refused} mounts were refused`)
  } finally {
    sandbox.close()
  }
})

run('a repository that is compacted under an open file of a drive reads on, and a lock that is broken under it is taken anew', async t => {
  const sandbox = new Sandbox('compact-under-drive')
  try {
    sandbox.sh('mkdir source; head -c 3000000 /dev/urandom > source/big; head -c 500000 /dev/urandom > source/gone')
    sandbox.borgfs(['init', '-e', 'repokey', 'repo'])
    sandbox.borgfs(['config', 'repo', 'max_segment_size', '200000'])
    for (const name of ['a', 'b']) {
      sandbox.borgfs(['create', '-C', 'none', '--chunker-params', 'fixed,20000', `repo::${name}`, 'source'])
      sandbox.sh('rm -f source/gone; echo more >> source/big')
    }
    sandbox.sh('cp source/big expected; truncate -s -5 expected')
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'settle=3600,linger=0,cache=1M'] })
    const fd = openSync(join(mountpoint, 'b/source/big'), 'r')
    const bytes = Buffer.alloc(3_000_005)
    let done = readSync(fd, bytes, 0, 100_000, 0)
    sandbox.borgfs(['delete', '--lock-wait', '30', 'repo::a'])
    sandbox.borgfs(['compact', '--lock-wait', '30', '--threshold', '0', 'repo'])
    sandbox.borgfs(['break-lock', 'repo'])
    for (;;) {
      const count = readSync(fd, bytes, done, Math.min(50_000, bytes.length - done), done)
      if (count === 0) break
      done += count
    }
    closeSync(fd)
    t.true(bytes.subarray(0, 3_000_000).equals(readFileSync(sandbox.path('expected')).subarray(0, 3_000_000)))
    sandbox.sh(`mkdir ${mountpoint}/incoming/t && echo new > ${mountpoint}/incoming/t/f && mv ${mountpoint}/incoming/t ${mountpoint}/c`)
    await sandbox.leave(mountpoint, { ok: 'any' })
    t.is(sandbox.borgfs(['list', '--short', 'repo']).stdout, 'b\nc\n')
    sandbox.borgfs(['check', '--verify-data', 'repo'])
  } finally {
    sandbox.close()
  }
})
