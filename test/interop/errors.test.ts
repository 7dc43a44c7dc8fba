/** What goes wrong says one clear sentence, has the right exit code or errno, loses nothing and leaves no mount behind. */
import test from 'ava'
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { borgfsProgram, eventually, haveBorg, isRoot, Sandbox, type Ran } from '../helpers/sandbox.js'
import { differencesBelow, makeSmallFiles } from '../helpers/trees.js'

const run = haveBorg && isRoot ? test.serial : test.serial.skip
if (!haveBorg || !isRoot) console.error('SKIPPED aloud: test/interop/errors needs the real borg and root')

/** One sentence on stderr, no stack trace. */
function isOneSentence(ran: Ran): boolean {
  const lines = ran.stderr.split('\n').filter(Boolean)
  return lines.length === 1 && !/\n\s+at /.test(ran.stderr) && !/Error:.*Error:/.test(ran.stderr)
}

run('mount and list refuse what is no usable repository, each with one sentence and exit code 2', t => {
  const sandbox = new Sandbox('errors')
  try {
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    sandbox.borg(['init', '-e', 'none', 'future'])
    sandbox.sh("sed -i 's/^version = 1/version = 9/' future/config")
    mkdirSync(sandbox.path('plain'))
    writeFileSync(sandbox.path('plain/file'), 'x')
    const mountpoint = sandbox.mkdir('mnt')
    const cases: [string, string[], Record<string, string>, RegExp, number][] = [
      ['wrong passphrase', ['repo'], { BORG_PASSPHRASE: 'wrong' }, /passphrase supplied in .* is incorrect/, 52],
      ['missing', ['nowhere'], {}, /Repository .*nowhere does not exist\./, 13],
      ['not a repository', ['plain'], {}, /plain is not a valid repository\. Check repo config\./, 15],
      // As Borg's class says; 15 is for what is no repository at all.
      ['unsupported version', ['future'], {}, /future does not have a valid configuration\. Check repo config \[repository version 9 is not supported/, 16],
      ['missing archive', ['repo::none'], {}, /Archive none does not exist/, 31],
    ]
    for (const [what, location, env, sentence, modern] of cases) {
      for (const command of [['list', ...location], ['mount', ...location, mountpoint]]) {
        const legacy = sandbox.borgfs(command, { env, ok: 'any' })
        t.is(legacy.rc, 2, `${what}: ${command[0]}`)
        t.regex(legacy.stderr, sentence, what)
        t.true(isOneSentence(legacy), `${what}: ${legacy.stderr}`)
        t.is(sandbox.borgfs(command, { env: { ...env, BORG_EXIT_CODES: 'modern' }, ok: 'any' }).rc, modern, what)
      }
      t.false(sandbox.isMounted(mountpoint))
    }
    t.deepEqual(sandbox.processes(), [])
    t.false(existsSync(sandbox.path('repo/lock.exclusive')))
    t.false(existsSync(sandbox.path('repo/lock.roster')))
  } finally {
    sandbox.close()
  }
})

run('a locked repository times out with the sentence of Borg, and is used once the lock is gone', async t => {
  const sandbox = new Sandbox('locked')
  try {
    sandbox.borg(['init', '-e', 'none', 'repo'])
    const holder = sandbox.start('borg', ['with-lock', 'repo', 'sleep', '600'])
    await eventually('the lock', () => existsSync(sandbox.path('repo/lock.exclusive')))
    const mountpoint = sandbox.mkdir('mnt')
    for (const command of [['list', 'repo'], ['create', 'repo::a', 'home'], ['mount', 'repo', mountpoint]]) {
      const refused = sandbox.borgfs(command, { ok: 'any', env: { BORG_EXIT_CODES: 'modern' } })
      t.is(refused.rc, 73)
      t.regex(refused.stderr, /Failed to create\/acquire the lock .*repo\/lock(\.exclusive)? \(timeout\)\./)
    }
    t.false(sandbox.isMounted(mountpoint))
    sandbox.run('pkill', ['-P', String(holder.pid)])
    await eventually('the holder ends', () => holder.exitCode !== null)
    sandbox.borgfs(['list', 'repo'])
  } finally {
    sandbox.close()
  }
})

run('a mountpoint that is missing, a file or in use is refused and nothing is mounted', t => {
  const sandbox = new Sandbox('mountpoint')
  try {
    sandbox.borg(['init', '-e', 'none', 'repo'])
    writeFileSync(sandbox.path('file'), '')
    for (const mountpoint of ['missing', 'file']) {
      const refused = sandbox.borgfs(['mount', 'repo', mountpoint], { ok: 'any' })
      t.is(refused.rc, 2)
      t.regex(refused.stderr, /Mountpoint must be a writable directory/)
    }
    const mountpoint = sandbox.mount('repo')
    const again = sandbox.borgfs(['mount', 'repo', mountpoint], { ok: 'any' })
    t.is(again.rc, 2)
    t.true(isOneSentence(again), again.stderr)
    t.deepEqual(readdirSync(join(mountpoint)).includes('incoming'), true)
    sandbox.unmount(mountpoint)
    t.is(sandbox.borgfs(['umount', mountpoint], { ok: 'any' }).rc !== 0, true)
  } finally {
    sandbox.close()
  }
})

run('without /dev/fuse mount says what to do', t => {
  const sandbox = new Sandbox('no-fuse')
  try {
    sandbox.borg(['init', '-e', 'none', 'repo'])
    sandbox.mkdir('mnt')
    sandbox.mkdir('empty-dev')
    // A mount namespace of its own hides the device from this one command.
    const direct = sandbox.run('unshare', ['-m', 'bash', '-c', 'mount -t tmpfs t empty-dev && mknod -m 666 empty-dev/null c 1 3 && mount --bind empty-dev /dev && exec "$@"', '-', process.execPath, borgfsProgram, 'mount', 'repo', 'mnt'], { ok: 'any' })
    t.is(direct.rc, 2)
    t.regex(direct.stderr, /\/dev\/fuse/)
    t.notRegex(direct.stderr, /\n\s+at /)
  } finally {
    sandbox.close()
  }
})

run('a full disk while staging gives ENOSPC, what was staged stays and can be committed after space was made', t => {
  const sandbox = new Sandbox('full-staging')
  try {
    sandbox.borg(['init', '-e', 'none', 'repo'])
    sandbox.mkdir('staging')
    sandbox.sh('mount -t tmpfs -o size=8M tmpfs staging')
    sandbox.remember(sandbox.path('staging'))
    const mountpoint = sandbox.mount('repo', { args: ['-o', `staging=${sandbox.path('staging')},settle=3600`] })
    sandbox.sh('mkdir mnt/incoming/t; head -c 3000000 /dev/urandom > keep; cp keep mnt/incoming/t/keep')
    const full = sandbox.sh('head -c 20000000 /dev/urandom > mnt/incoming/t/too-much', { ok: 'any' })
    t.not(full.rc, 0)
    t.regex(full.stderr, /No space left on device/)
    t.is(sandbox.sh('cmp keep mnt/incoming/t/keep').rc, 0)
    sandbox.sh('rm mnt/incoming/t/too-much; mv mnt/incoming/t mnt/archive; cmp keep mnt/archive/keep')
    sandbox.unmount(mountpoint)
    sandbox.assertSound()
  } finally {
    sandbox.sh('umount -l staging', { ok: 'any' })
    sandbox.close()
  }
})

run('a full disk while committing fails the rename with ENOSPC, the tree stays staged, and the commit can be repeated', t => {
  const sandbox = new Sandbox('full-commit')
  try {
    sandbox.mkdir('disk')
    sandbox.sh('mount -t tmpfs -o size=30M tmpfs disk')
    sandbox.remember(sandbox.path('disk'))
    sandbox.borg(['init', '-e', 'repokey', 'disk/repo'])
    // Borg wants room for a compaction at commit; a small segment size keeps that demand small.
    sandbox.borg(['config', 'disk/repo', 'max_segment_size', '1000000'])
    const older = makeSmallFiles(sandbox, 'older', 30)
    sandbox.borg(['create', '../disk/repo::older', '.'], { cwd: older, ok: [0, 2] })
    sandbox.sh('head -c 32M /dev/urandom > source-file; head -c 3M /dev/zero > disk/ballast')
    const mountpoint = sandbox.mount('disk/repo', { args: ['-o', 'settle=3600'] })
    sandbox.sh('mkdir mnt/incoming/t; cp source-file mnt/incoming/t/')
    const probe = `
import os, errno
try: os.rename('mnt/incoming/t', 'mnt/archive'); print('renamed')
except OSError as e: print(errno.errorcode[e.errno])
`
    t.is(sandbox.run('python3', ['-c', probe]).stdout, 'ENOSPC\n')
    t.is(sandbox.sh('cmp source-file mnt/incoming/t/source-file').rc, 0)
    sandbox.sh('rm disk/ballast; mount -o remount,size=120M disk; mv mnt/incoming/t mnt/archive')
    t.is(sandbox.sh('cmp source-file mnt/archive/source-file').rc, 0)
    sandbox.unmount(mountpoint)
    sandbox.assertSound('disk/repo')
    const out = sandbox.mkdir('out')
    sandbox.borg(['extract', '../disk/repo::older'], { cwd: out })
    t.is(differencesBelow(sandbox, older, out), '')
  } finally {
    sandbox.sh('umount -l disk', { ok: 'any' })
    sandbox.close()
  }
})
