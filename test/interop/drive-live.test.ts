/** live/: working copies of series, judged by the real Borg. */
import test from 'ava'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { haveBorg, isRoot, Sandbox } from '../helpers/sandbox.js'
import { differences, differencesBelow, makeEveryKind, makeSmallFiles } from '../helpers/trees.js'

const run = haveBorg && isRoot ? test.serial : test.serial.skip
if (!haveBorg || !isRoot) console.error('SKIPPED aloud: test/interop/drive-live compares with the real borg as root')

const quiet = ['-o', 'settle=1000']
// Without the option rsync takes times within one second for equal.
const rsync = 'rsync -aHAX --modify-window=-1 --delete --itemize-changes source/ mnt/live/laptop/'

function archives(sandbox: Sandbox): string[] {
  return sandbox.borg(['list', '--short', 'repo']).stdout.trim().split('\n')
}

run('rsync --delete into live/ transfers only changes and leaves one archive per run, none without a change', t => {
  const sandbox = new Sandbox('live')
  try {
    const source = makeEveryKind(sandbox, 'source')
    makeSmallFiles(sandbox, 'source/many', 100)
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    sandbox.borg(['create', '../repo::laptop-2026-01-01', '.'], { cwd: source })
    sandbox.sh('mkdir other; echo other > other/f; borg create repo::laptop-db-2026-02-02 other')
    const mountpoint = sandbox.mount('repo', { args: quiet })
    sandbox.sh('mkdir mnt/live/laptop')
    t.is(differences(sandbox, source, join(mountpoint, 'live/laptop')), '', 'the view')
    const staging = sandbox.sh('echo home/.cache/borg/*/staging/live').stdout.trim()
    t.deepEqual(readdirSync(sandbox.path(staging, 'spool')), [])
    t.is(sandbox.sh(rsync).stdout, '')
    t.regex(sandbox.borgfs(['commit', mountpoint]).stdout, /^live\/laptop: unchanged since laptop-2026-01-01\n$/)

    sandbox.sh('echo changed > source/many/new; rm -r source/many/d000; head -c 5000000 /dev/urandom > source/large')
    sandbox.sh(rsync)
    t.is(differences(sandbox, source, join(mountpoint, 'live/laptop')), '', 'after rsync')
    t.regex(sandbox.borgfs(['commit', mountpoint, 'live/laptop']).stdout, /^live\/laptop: saved as laptop-20/)
    t.is(sandbox.sh(rsync).stdout, '')
    t.regex(sandbox.borgfs(['commit', mountpoint]).stdout, /unchanged since laptop-20/)
    sandbox.unmount(mountpoint)
    // What is in the archive does not stay in the staging folder.
    t.deepEqual(readdirSync(sandbox.path(staging, 'spool')), [])

    // Open again, with what was changed since the mount as a further archive.
    sandbox.mount('repo', { args: quiet })
    t.is(differences(sandbox, source, join(mountpoint, 'live/laptop')), '', 'at the next mount')
    sandbox.sh('echo again > mnt/live/laptop/again; cp mnt/live/laptop/again source')
    t.regex(sandbox.unmount(mountpoint).stdout, /^live\/laptop: saved as laptop-20/)
    const made = archives(sandbox)
    t.is(made.length, 4)
    t.regex(sandbox.borg(['check', '--verify-data', '-v', 'repo']).stderr, /no problems found/)
    sandbox.borg(['extract', '--numeric-ids', `../repo::${made.at(-1)!}`], { cwd: sandbox.mkdir('out') })
    t.is(sandbox.sh('cat out/again; cmp out/large source/large && echo same').stdout, 'again\nsame\n')
    sandbox.borg(['extract', '--numeric-ids', `../repo::${made[2]!}`], { cwd: sandbox.mkdir('out2') })
    sandbox.sh('rm source/again')
    t.is(differencesBelow(sandbox, source, sandbox.path('out2')), '')
  } finally {
    sandbox.close()
  }
})

run('what was changed in live/ survives kill -9; an unchanged series shows what another client made meanwhile', async t => {
  const sandbox = new Sandbox('live-killed')
  try {
    sandbox.sh('mkdir source; for i in 1 2 3; do echo $i > source/$i; done')
    sandbox.borg(['init', '-e', 'none', 'repo'])
    for (const name of ['a', 'b']) sandbox.borg(['create', `../repo::${name}-2026-01-01`, '.'], { cwd: sandbox.path('source') })
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'settle=1000,live=a:b:new'] })
    t.deepEqual(readdirSync(join(mountpoint, 'live')).sort(), ['a', 'b', 'new'])
    sandbox.sh('echo changed > mnt/live/a/1; rm mnt/live/a/2; echo added > mnt/live/a/4')
    for (const pid of sandbox.processes()) process.kill(pid, 'SIGKILL')
    await sandbox.allEnded()
    sandbox.sh('umount -l mnt; echo from-elsewhere > source/9')
    // To Borg a process that nobody has collected yet is alive.
    sandbox.borg(['break-lock', 'repo'])
    for (const name of ['a', 'b']) sandbox.borg(['create', `../repo::${name}-2026-01-02`, '.'], { cwd: sandbox.path('source') })
    sandbox.mount('repo', { args: quiet })
    t.is(sandbox.sh('cd mnt/live/a; head *').stdout, '==> 1 <==\nchanged\n\n==> 3 <==\n3\n\n==> 4 <==\nadded\n')
    t.is(readFileSync(join(mountpoint, 'live/b/9'), 'latin1'), 'from-elsewhere\n')
    // A series is closed by rmdir, unless it has changes.
    const told = sandbox.run('sh', ['-c', 'LC_ALL=C; export LC_ALL; rmdir mnt/live/a 2>&1; rmdir mnt/live/b; touch mnt/live/x 2>&1; mv mnt/live/a mnt/live/c 2>&1; ls mnt/live']).stdout
    t.regex(told, /^rmdir: .*Directory not empty\ntouch: .*Operation not permitted\nmv: .*Operation not permitted\na\nnew\n$/)
    t.false(existsSync(join(mountpoint, 'live/b')))
    sandbox.unmount(mountpoint)
    const made = archives(sandbox)
    t.is(made.length, 5)
    t.is(sandbox.borg(['list', '--format', '{path} ', `repo::${made.at(-1)!}`]).stdout.trim(), '. 1 3 4')
  } finally {
    sandbox.close()
  }
})

run('a file that a repair filled with zeros is not taken for whole: it is left out of live/ and copied anew', t => {
  const sandbox = new Sandbox('live-damaged')
  try {
    sandbox.sh('mkdir source; head -c 300000 /dev/urandom > source/f; echo fine > source/g')
    sandbox.borg(['init', '-e', 'none', 'repo'])
    sandbox.borg(['create', '../repo::laptop-2026-01-01', '.'], { cwd: sandbox.path('source') })
    const mountpoint = sandbox.mount('repo', { args: quiet })
    const id = sandbox.run('getfattr', ['--only-values', '-n', 'user.borgfs.chunks', 'mnt/laptop-2026-01-01/f']).stdout.split(' ')[0]!
    sandbox.unmount(mountpoint)
    sandbox.borg(['debug', 'delete-obj', 'repo', id])
    sandbox.borg(['check', '--repair', 'repo'], { ok: 'any', env: { BORG_CHECK_I_KNOW_WHAT_I_AM_DOING: 'YES' } })
    sandbox.mount('repo', { args: quiet })
    sandbox.sh('mkdir mnt/live/laptop')
    t.deepEqual(readdirSync(join(mountpoint, 'live/laptop')), ['g'])
    sandbox.sh('rsync -a --delete source/ mnt/live/laptop/')
    sandbox.unmount(mountpoint)
    sandbox.borg(['extract', `../repo::${archives(sandbox).at(-1)!}`], { cwd: sandbox.mkdir('out') })
    t.is(sandbox.sh('cmp source/f out/f && echo same').stdout, 'same\n')
    t.is(statSync(sandbox.path('out/f')).size, 300_000)
  } finally {
    sandbox.close()
  }
})
