/** live/: working copies of series, judged by the real Borg. */
import test from 'ava'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { eventually, haveBorg, isRoot, Sandbox } from '../helpers/sandbox.js'
import { differences, differencesBelow, makeEveryKind, makeSmallFiles, rsyncDifferences } from '../helpers/trees.js'

const run = haveBorg && isRoot ? test.serial : test.serial.skip
if (!haveBorg || !isRoot) console.error('SKIPPED aloud: test/interop/drive-live compares with the real borg as root')

const quiet = ['-o', 'settle=1000']
// Without the option rsync takes times within one second for equal.
const rsync = 'rsync -aHAX --modify-window=-1 --delete --itemize-changes source/ mnt/live/laptop/'

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
    const made = sandbox.archives()
    t.is(made.length, 4)
    sandbox.assertSound()
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
    await sandbox.killMount()
    sandbox.sh('echo from-elsewhere > source/9')
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
    const made = sandbox.archives()
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
    sandbox.borg(['extract', `../repo::${sandbox.archives().at(-1)!}`], { cwd: sandbox.mkdir('out') })
    t.is(sandbox.sh('cmp source/f out/f && echo same').stdout, 'same\n')
    t.is(statSync(sandbox.path('out/f')).size, 300_000)
  } finally {
    sandbox.close()
  }
})

/** Items as Borg dumps them. */
function items(sandbox: Sandbox, archive: string): Record<string, unknown>[] {
  sandbox.borg(['debug', 'dump-archive', `repo::${archive}`, 'dump.json'])
  return (JSON.parse(readFileSync(sandbox.path('dump.json'), 'utf8')) as { _items: Record<string, unknown>[] })._items
}

run('what did not change has the same item in the next archive, key by key, also in a directory that was moved', t => {
  const sandbox = new Sandbox('live-items')
  try {
    const source = makeEveryKind(sandbox, 'source')
    sandbox.sh('mkdir -p source/a/b source/z; echo 1 > source/a/b/1; echo 2 > source/a/2; ln source/a/2 source/z/first; ln source/a/b/1 source/z/other; chattr +d source/dir/hello source/a/b/1 source/a/2')
    // Borg does not dump names of xattrs that are not UTF-8.
    sandbox.sh(String.raw`setfattr -x $'user.b\xe4d' source/dir/random`)
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    sandbox.borg(['create', '--atime', '../repo::laptop-2026-01-01', '.'], { cwd: source })
    const mountpoint = sandbox.mount('repo', { args: quiet })
    sandbox.sh('mkdir mnt/live/laptop; echo new > mnt/live/laptop/dir/new; chmod 600 mnt/live/laptop/dir/hello')
    const staging = sandbox.sh('echo home/.cache/borg/*/staging/live').stdout.trim()
    t.true(statSync(sandbox.path(staging, 'journal')).size < 3000)
    sandbox.borgfs(['commit', mountpoint])
    sandbox.sh('mv mnt/live/laptop/a mnt/live/laptop/dir/moved; rm mnt/live/laptop/dir/moved/2; rm -r mnt/live/laptop/dir/deep')
    sandbox.unmount(mountpoint)
    const [first, second, third] = sandbox.archives().map(name => items(sandbox, name)) as [Record<string, unknown>[], Record<string, unknown>[], Record<string, unknown>[]]
    const of = (list: Record<string, unknown>[], ...left: string[]): Record<string, unknown>[] => list.filter(({ path }) => !left.includes(String(path)))
    t.true(first.some(({ path, bsdflags }) => path === 'a/b/1' && bsdflags === 1))
    // What was touched has other times. Its place in the list and its flags it keeps.
    const touched = ['.', 'dir', 'dir/hello', 'dir/new']
    const times = (list: Record<string, unknown>[]): Record<string, unknown>[] => of(list, ...touched).map(item => ({ ...item, atime: undefined }))
    t.deepEqual(times(second), times(first))
    t.is(second.find(({ path }) => path === 'dir/hello')!.bsdflags, 1)
    t.deepEqual(of(second, 'dir/new').map(({ path }) => path), first.map(({ path }) => path))
    // A directory that was moved, with all below it, of which one file lost a name and one another.
    const moved = third.filter(({ path }) => /^dir\/moved|^z/.test(String(path)))
    const one = moved.filter(({ path }) => /1$|other$/.test(String(path)))
    t.deepEqual(moved.map(({ path }) => path).sort(), ['dir/moved', 'dir/moved/b', 'dir/moved/b/1', 'z', 'z/first', 'z/other'])
    t.is(one.filter(({ hardlink_master: master }) => master === true).length, 1)
    t.is(one.find(({ source: of }) => of !== undefined)!.source, one.find(({ hardlink_master: master }) => master === true)!.path)
    t.is(moved.find(({ path }) => path === 'z/first')!.hardlink_master, false)
    sandbox.sh('mv source/a source/dir/moved; rm source/dir/moved/2; rm -r source/dir/deep; echo new > source/dir/new; chmod 600 source/dir/hello')
    sandbox.borg(['extract', '--numeric-ids', `../repo::${sandbox.archives()[2]!}`], { cwd: sandbox.mkdir('out') })
    const told = rsyncDifferences(sandbox, source, sandbox.path('out')).split('\n').filter(line => !/^\.d\.\.t/.test(line) && !/ dir\/new$/.test(line)).join('\n')
    t.is(told, '')
    sandbox.assertSound()
  } finally {
    sandbox.close()
  }
})

async function killed(sandbox: Sandbox): Promise<void> {
  sandbox.sh('sync -f mnt')
  await sandbox.killMount()
  sandbox.borg(['break-lock', 'repo'])
}

run('a series outlives the archive that it was opened from, while it is mounted and after kill -9', async t => {
  const sandbox = new Sandbox('live-gone')
  try {
    const source = makeEveryKind(sandbox, 'source')
    makeSmallFiles(sandbox, 'source/many', 60)
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    sandbox.borg(['create', '../repo::laptop-2026-01-01', '.'], { cwd: source })
    sandbox.borg(['create', '../repo::keeps-the-data', '.'], { cwd: source })
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'settle=1000,refresh=1'] })
    const live = join(mountpoint, 'live/laptop')
    sandbox.sh('mkdir mnt/live/laptop')
    await eventually('the files are there', () => readFileSync(join(live, 'dir/hello'), 'latin1') === 'hello\n')
    sandbox.borg(['delete', 'repo::laptop-2026-01-01'])
    await eventually('the archive is gone', () => !existsSync(join(mountpoint, 'laptop-2026-01-01')))
    // Nobody looked into most of it before.
    t.is(differences(sandbox, source, live), '')
    const change = (place: string): void => void sandbox.sh(`cd ${place}; mv many/d000/e00 moved; echo 1 > moved/new; rm -r dir/deep; ln hard1 hard4; echo x >> dir/random; touch -d 2020-01-01 moved many many/d000 dir dir/random moved/new .; touch -hd 2020-01-01 hard1`)
    change('mnt/live/laptop')
    change('source')
    t.is(differences(sandbox, source, live), '')
    sandbox.borgfs(['commit', mountpoint])
    const [made] = sandbox.archives().filter(name => name.startsWith('laptop')) as [string]
    sandbox.borg(['extract', '--numeric-ids', `../repo::${made}`], { cwd: sandbox.mkdir('out') })
    t.is(differencesBelow(sandbox, source, sandbox.path('out')), '')

    // Changed again and killed: what was made of it last lies beneath now, where all is where it was then.
    const again = (place: string): void => void sandbox.sh(`cd ${place}; mv moved many/back; rm many/back/new; mkdir many/back/more; echo 2 > many/back/more/2; touch -d 2020-02-02 many/back/more/2 many/back/more many/back many .`)
    again('mnt/live/laptop')
    again('source')
    await killed(sandbox)
    sandbox.mount('repo', { args: ['-o', 'settle=1000,refresh=1'] })
    t.is(rsyncDifferences(sandbox, source, live).split('\n').filter(line => !/^\.d\.\.t/.test(line)).join('\n'), '')
    sandbox.sh('rsync -aHAX --modify-window=-1 --delete source/ mnt/live/laptop/')
    t.is(differences(sandbox, source, live), '')

    // Killed once more, and that archive gone as well: the newest one takes its place.
    sandbox.sh('echo kept > mnt/live/laptop/many/back/kept; rm mnt/live/laptop/dangling')
    await killed(sandbox)
    sandbox.borg(['create', '../repo::keeps-it-too', '.'], { cwd: source })
    sandbox.borg(['delete', 'repo', made])
    sandbox.sh('mkdir -p newer/many/d000 newer/dir; echo newer > newer/many/d000/newer; echo 7 > newer/dangling; cd newer; borg create ../repo::laptop-2026-03-03 .')
    sandbox.mount('repo', { args: ['-o', 'settle=1000,refresh=1'] })
    t.is(sandbox.sh('cd mnt/live/laptop; cat many/back/kept many/d000/newer; ls dangling 2>&1 || true; ls').stdout.split('\n').filter(line => /kept|newer|dangling/.test(line)).length, 3)
    t.regex(sandbox.borgfs(['commit', mountpoint]).stdout, /saved as laptop-/)
    await killed(sandbox)

    // And none at all: what was changed in it is left.
    sandbox.mount('repo', { args: ['-o', 'settle=1000,refresh=1'] })
    sandbox.sh('echo only > mnt/live/laptop/many/only')
    await killed(sandbox)
    for (const name of sandbox.archives()) sandbox.borg(['delete', `repo::${name}`])
    sandbox.mount('repo', { args: quiet })
    t.is(sandbox.sh('cd mnt/live/laptop; find . -type f; cat many/only').stdout, './many/only\nonly\n')
    t.regex(sandbox.unmount(mountpoint).stdout, /^live\/laptop: saved as laptop-20/)
    sandbox.assertSound()
  } finally {
    sandbox.close()
  }
})

run('what a series needs of an archive that is gone, data and all, is told when it is to be saved', async t => {
  const sandbox = new Sandbox('live-compacted')
  try {
    sandbox.sh('mkdir -p source/in; for i in 1 2 3; do head -c 200000 /dev/urandom > source/in/$i; done')
    sandbox.borg(['init', '-e', 'none', 'repo'])
    sandbox.borg(['create', '../repo::laptop-2026-01-01', '.'], { cwd: sandbox.path('source') })
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'settle=1000,refresh=1'] })
    sandbox.sh('mkdir mnt/live/laptop; cmp source/in/1 mnt/live/laptop/in/1')
    sandbox.sh('borg delete repo::laptop-2026-01-01; borg compact --threshold 0 repo; echo new > mnt/live/laptop/new')
    const told = sandbox.borgfs(['commit', mountpoint], { ok: 'any' })
    t.regex(told.stdout + told.stderr, /in\/\d is in an archive that was deleted meanwhile, and its data is gone from the repository/)
    sandbox.sh('cp source/in/* mnt/live/laptop/in/')
    t.regex(sandbox.borgfs(['commit', mountpoint]).stdout, /saved as laptop-/)
    sandbox.unmount(mountpoint)
    sandbox.borg(['extract', `../repo::${sandbox.archives().at(-1)!}`], { cwd: sandbox.mkdir('out') })
    t.is(sandbox.sh('diff -r source out || true; cat out/new').stdout, 'Only in out: new\nnew\n')
  } finally {
    sandbox.close()
  }
})
