/** Views of the mount beside the plain one: versions, the forms in which fstab calls it. Archives are made by the real Borg. */
import test from 'ava'
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { eventually, haveBorg, isRoot, Sandbox } from '../helpers/sandbox.js'

const run = haveBorg && isRoot ? test.serial : test.serial.skip
if (!haveBorg || !isRoot) console.error('SKIPPED aloud: test/interop/drive-views needs the real borg and root')

run('-o versions shows all archives as one tree with a directory of versions for each file', t => {
  const sandbox = new Sandbox('versions')
  try {
    sandbox.sh(`mkdir -p source/d; cd source; echo 1 > d/a.txt; ln d/a.txt hard; ln -s d/a.txt l; echo same > same; mkfifo p; mkdir only1; touch empty
      borg init -e none ../repo; borg create ../repo::one .
      echo 22 > d/a.txt; touch -d 2001-01-01 same; rmdir only1; mkdir only2; borg create ../repo::two .
      rm hard; echo 333 > d/a.txt; borg create ../repo::other .`)
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'versions'] })
    t.deepEqual(readdirSync(mountpoint).sort(), ['d', 'empty', 'hard', 'l', 'only1', 'only2', 'p', 'same'])
    t.is(sandbox.sh('cd mnt/d/a.txt; head *').stdout, '==> a.00001.txt <==\n1\n\n==> a.00002.txt <==\n22\n\n==> a.00003.txt <==\n333\n')
    t.is(sandbox.sh('cd mnt; cat hard/*; ls same empty; stat -c %y same/same.00001; readlink l/l; stat -c %F p/p').stdout,
      '1\n22\nempty:\nempty.00001\n\nsame:\nsame.00001\n2001-01-01 00:00:00.000000000 +0000\nd/a.txt\nfifo\n')
    t.is(statSync(join(mountpoint, 'hard/hard.00002')).ino, statSync(join(mountpoint, 'd/a.txt/a.00002.txt')).ino)
    sandbox.unmount(mountpoint)
    sandbox.mount('repo', { args: ['-o', 'versions', '-P', 't'] })
    t.is(sandbox.sh('cd mnt/d/a.txt; head *').stdout, '22\n')
    sandbox.unmount(mountpoint)
    const refused = sandbox.borgfs(['mount', '-o', 'versions', 'repo::one', mountpoint], { ok: [2] })
    t.regex(refused.stderr, /^Error: for versions view, do not specify a single archive, but always give the repository as location\.\n$/)
  } finally {
    sandbox.close()
  }
})

run('a mount of versions, of one archive, or of some goes on when other clients delete, rename and comment', async t => {
  const sandbox = new Sandbox('chosen')
  try {
    sandbox.sh(`mkdir -p source; cd source; borg init -e none ../repo
      seq -f f%04g 1100 | xargs touch; for each in one two three; do echo $each > v; borg create ../repo::$each .; done`)
    // Its tree is kept, so that the chunks are asked for when the file is opened.
    sandbox.mount('repo::three')
    sandbox.sh('ls mnt/v')
    await eventually('the kept tree', () => sandbox.sh('find home/.cache/borg/*/borgfs-trees -type f ! -name "*.tmp"', { ok: 'any' }).stdout !== '')
    sandbox.unmount(sandbox.path('mnt'))
    const mounted = [['repo', '-o', 'versions,refresh=1'], ['repo::three', '-o', 'refresh=1'], ['repo', '-o', 'refresh=1', '-a', 't*', '--sort-by', 'name'], ['repo::three', '-o', 'refresh=1']].map(([repository, ...args], index) => sandbox.mount(repository!, { args, name: `m${index}` }))
    sandbox.sh('ls m1 m3')
    t.is(sandbox.sh('ls -U m2').stdout, 'three\ntwo\n')
    sandbox.sh('borg delete repo::two; borg rename repo::one uno; borg rename repo::three drei; borg recreate --comment commented repo::drei')
    await eventually('the new names', () => sandbox.sh('ls m2').stdout === 'drei\n')
    // Each looks for changes on its own.
    for (const [file, content] of [['m0/v/*', 'one\nthree\n'], ['m1/v', 'three\n'], ['m2/drei/v', 'three\n']] as const) {
      await eventually(`${file} after that`, () => sandbox.sh(`cat ${file}`, { ok: 'any' }).stdout === content)
    }
    // Other items under the old rows would be other files: what was, or an error.
    sandbox.sh('borg recreate -e f0500 repo::drei; borg compact repo')
    await eventually('the new list', () => sandbox.sh('ls m2/drei', { ok: 'any' }).stdout.split('\n').length === 1101)
    t.regex(sandbox.sh('cat m3/v', { ok: 'any' }).stdout, /^(three\n)?$/)
    for (const mountpoint of mounted) sandbox.unmount(mountpoint)
  } finally {
    sandbox.close()
  }
})

run('.borgfs/versions is that tree, in a drive where archives still come; .borgfs/snapshots has them by time', async t => {
  const sandbox = new Sandbox('versions-dir')
  try {
    sandbox.sh(`mkdir -p source/d; cd source; echo 1 > d/a.txt; ln d/a.txt hard; ln -s d/a.txt l; mkfifo p; mkdir only1
      borg init -e repokey ../repo; borg create --timestamp 2026-05-01T10:00:00 ../repo::s-1 .
      echo 22 > d/a.txt; setfattr -n user.x -v y d/a.txt; borg create --timestamp 2026-05-02T10:00:00 ../repo::s-2026-05-02 .`)
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'refresh=1'] })
    const facts = (folder: string): string => sandbox.sh(`cd ${folder}; find . -mindepth 1 ! -type d -printf '%p %y %s %m %u %T@ %n %l\\n' | sort; find . -type f -exec cat {} + | sort; getfattr -hR -d . | sort`).stdout
    const byOption = (): string => {
      const plain = sandbox.mount('repo', { args: ['-o', 'versions'], name: 'plain' })
      const shown = facts('plain')
      sandbox.unmount(plain)
      return shown
    }
    t.deepEqual(readdirSync(join(mountpoint, '.borgfs')).sort(), ['by-date', 'events', 'latest', 'snapshots', 'status', 'status.json', 'versions'])
    t.is(facts('mnt/.borgfs/versions'), byOption())
    t.is(sandbox.sh('cd mnt/.borgfs/versions/d/a.txt; head *').stdout, '==> a.00001.txt <==\n1\n\n==> a.00002.txt <==\n22\n')
    t.is(statSync(join(mountpoint, '.borgfs/versions/hard/hard.00002')).ino, statSync(join(mountpoint, '.borgfs/versions/d/a.txt/a.00002.txt')).ino)

    sandbox.sh('echo 333 > source/d/a.txt; cd source; borg create --timestamp 2026-05-03T10:00:00 ../repo::s-2026-05-03 .')
    await eventually('the new archive is seen', () => readdirSync(mountpoint).includes('s-2026-05-03'))
    t.is(facts('mnt/.borgfs/versions'), byOption())
    t.is(sandbox.sh('cat mnt/.borgfs/versions/d/a.txt/a.00003.txt').stdout, '333\n')

    t.is(sandbox.sh('cd mnt/.borgfs/snapshots; ls; ls s; cat s/@GMT-2026.05.03-10.00.00/d/a.txt @GMT-2026.05.02-10.00.00/live/s/hard').stdout,
      '@GMT-2026.05.01-10.00.00\n@GMT-2026.05.02-10.00.00\n@GMT-2026.05.03-10.00.00\ns\ns-1\n@GMT-2026.05.02-10.00.00\n@GMT-2026.05.03-10.00.00\n333\n22\n')
    const place = 'mnt/.borgfs/snapshots/s/@GMT-2026.05.02-10.00.00'
    t.is(sandbox.sh(`diff -r -x p --no-dereference mnt/s-2026-05-02 ${place} && cd ${place}/d && pwd -P && cd ../../../../../s-2026-05-02/d && pwd -P`).stdout,
      `${mountpoint}/.borgfs/snapshots/s/@GMT-2026.05.02-10.00.00/d\n${mountpoint}/s-2026-05-02/d\n`)
    // Restored by a copy that moves no data.
    t.is(sandbox.sh(`mkdir mnt/live/s; cp ${place}/d/a.txt mnt/live/s/d/again; cat mnt/live/s/d/again; touch mnt/.borgfs/versions/x 2>&1 || true`).stdout,
      "22\ntouch: cannot touch 'mnt/.borgfs/versions/x': Read-only file system\n")
    sandbox.unmount(mountpoint)
    sandbox.assertSound()
  } finally {
    sandbox.close()
  }
})

run('a drive does not cover what its process needs: it would wait for itself for ever', t => {
  const sandbox = new Sandbox('mount-cover')
  try {
    sandbox.sh('mkdir mnt; borg init -e none repo; (cd home; borg create ../repo::home .); ln -s mnt link')
    for (const [args, mountpoint, what] of [[[], 'home', 'cache folder'], [['-o', 'log=mnt/log'], 'mnt', 'log'], [['-o', 'log=link/log'], 'mnt', 'log'], [[], 'repo', 'repository']] as const) {
      t.regex(sandbox.borgfs(['mount', ...args, 'repo::home', mountpoint], { ok: [2] }).stderr, new RegExp(`${mountpoint}: the drive would cover its ${what} \\(.*\\)\\. Choose another mountpoint\\.`))
      t.false(sandbox.isMounted(sandbox.path(mountpoint)))
    }
  } finally {
    sandbox.close()
  }
})

run('a mountpoint may be called by a link to it; what is not mounted is 1, as from fusermount', t => {
  const sandbox = new Sandbox('mount-link')
  try {
    sandbox.sh('borg init -e none repo; mkdir mnt; ln -s mnt link')
    sandbox.mount('repo')
    sandbox.sh('mkdir mnt/incoming/one mnt/incoming/two; touch mnt/incoming/one/f mnt/incoming/two/f')
    t.regex(sandbox.borgfs(['commit', 'link', 'one']).stdout, /^incoming\/one: saved as one-/)
    t.regex(sandbox.borgfs(['umount', 'link']).stdout, /^incoming\/two: saved as two-/m)
    t.false(sandbox.isMounted(sandbox.path('mnt')))
    t.is(sandbox.borgfs(['umount', 'mnt'], { ok: 'any' }).rc, sandbox.borg(['umount', 'mnt'], { ok: 'any' }).rc)
  } finally {
    sandbox.close()
  }
})

run('borgfs REPOSITORY MOUNTPOINT mounts, with options behind as mount.fuse gives them, and as one archive', t => {
  const sandbox = new Sandbox('fstab')
  try {
    sandbox.sh('mkdir source; echo 1 > source/f; borg init -e none repo; borg create repo::one source')
    const mountpoint = sandbox.mkdir('mnt')
    sandbox.borgfs(['repo', mountpoint, '-o', 'rw,dev,suid,noauto,_netdev,x-systemd.automount'])
    sandbox.remember(mountpoint)
    t.deepEqual(readdirSync(mountpoint).sort(), ['.borgfs', 'incoming', 'live', 'one'])
    sandbox.unmount(mountpoint)
    sandbox.borgfs(['-o', 'allow_other,umask=0027', 'repo::one', mountpoint])
    t.is(statSync(join(mountpoint, 'source/f')).mode & 0o777, 0o640)
    sandbox.unmount(mountpoint)
  } finally {
    sandbox.close()
  }
})
