/** Drives in fstab, mounted by mount(8) itself: in a mount namespace of its own, where /usr/sbin has our helpers beside what is there. */
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import test from 'ava'
import { haveBorg, isRoot, projectRoot, Sandbox } from '../helpers/sandbox.js'

const launcher = join(projectRoot, 'bin', 'borgfs')
const canIsolate = isRoot && haveBorg && spawnSync('unshare', ['-m', 'true'], { stdio: 'ignore' }).status === 0
const run = canIsolate ? test.serial : test.serial.skip
if (!canIsolate) console.error('SKIPPED aloud: test/interop/mount-helper needs root, mount namespaces and the real borg, in whose place mount.fuse finds ours')

/** What goes before a script there. /sbin is a link to usr/sbin on the systems of today, else it is covered as well. */
const isolated = `
  mkdir -p orig sbin
  mount --bind /usr/sbin orig; mount -t tmpfs none sbin
  for f in orig/*; do ln -s "$PWD/$f" sbin/; done
  for name in mount.borgfs umount.borgfs umount.fuse.borgfs; do ln -s ${launcher} sbin/$name; done
  for place in /usr/sbin /sbin; do [ -L $place ] || mount --bind sbin $place; done
  # mount(8) gives helpers a PATH of its own. On it is the borgfs of Debian's borg, which mount.fuse would find, and perhaps no Node.
  (PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; command -v node >/dev/null) || ln -s ${process.execPath} sbin/node
  printf '#!/bin/sh\\nexec %s "$@"\\n' ${launcher} > wrapper; chmod +x wrapper
  [ ! -e /usr/bin/borgfs ] || mount --bind wrapper /usr/bin/borgfs
  export LIBMOUNT_FSTAB=$PWD/fstab
  told() { rc=0; "$@" 2>&1 | sed "s|$PWD/||g" || rc=$?; [ $rc -eq 0 ] || echo "rc $rc"; }
  table() { sed -n "s|$PWD/||g; / fuse/ s| fuse\\([a-z.]*\\) .*| fuse\\1|p" /proc/self/mounts | grep "^[^ ]* $1 "; }
`

function inside(sandbox: Sandbox, script: string): string {
  return sandbox.run('unshare', ['-m', 'bash', '-uo', 'pipefail', '-c', isolated + script], {
    env: { PATH: `${dirname(process.execPath)}:${process.env.PATH}`, BORG_BASE_DIR: undefined, BORG_PASSPHRASE: undefined },
  }).stdout
}

run('mount(8) takes drives from fstab, with the passphrase from a command, knows what is mounted, and umount(8) waits for what is staged', t => {
  const sandbox = new Sandbox('mount-helper')
  try {
    sandbox.sh('mkdir source there; echo 1 > source/f; echo "test passphrase" > secret')
    sandbox.borgfs(['init', '-e', 'repokey', 'repo'])
    sandbox.borgfs(['create', 'repo::one', 'source'])
    const { folder } = sandbox
    writeFileSync(sandbox.path('fstab'), `${folder}/repo ${folder}/there borgfs noauto,allow_other,x-systemd.automount,BORG_PASSCOMMAND=cat\\040${folder}/secret,BORG_BASE_DIR=${folder}/home 0 0\n`)
    t.is(inside(sandbox, `
      told mount there; table there; ls there; told mount -a -O allow_other; mountpoint -q there && echo mounted
      mkdir there/incoming/box; echo text > there/incoming/box/file
      told umount there | sed 's/box-.*/box-TIME/'; table there; BORG_BASE_DIR=$PWD/home BORG_PASSCOMMAND="cat secret" borgfs list --short repo | sed 's/box-.*/box-TIME/'`),
    'repo there fuse.borgfs\nincoming\nlive\none\nmounted\nincoming/box: saved as box-TIME\none\nbox-TIME\n')
  } finally {
    sandbox.close()
  }
})

run('the forms that mount.fuse serves, and mount -t borgfs with its own options and refusals', t => {
  const sandbox = new Sandbox('mount-helper')
  try {
    sandbox.sh('mkdir source there; echo 1 > source/f')
    sandbox.borgfs(['init', '-e', 'none', 'repo'])
    sandbox.borgfs(['create', 'repo::one', 'source'])
    const { folder } = sandbox
    writeFileSync(sandbox.path('fstab'), `${folder}/repo ${folder}/a fuse.borgfs noauto,allow_other 0 0\nborgfs#${folder}/repo ${folder}/b fuse noauto,umask=0027 0 0\n`)
    t.is(inside(sandbox, `
      export BORG_BASE_DIR=$PWD/home; mkdir a b
      for place in a b; do told mount $place; table $place; ls $place; told ${launcher} umount $place; done
      told mount -t borgfs -o ro repo::one there; table there; find there -type f; told mount -t borgfs repo there; told mount -t borgfs -o remount,rw repo there; told umount there
      told mount -t borgfs -o nonsense repo there; told mount -t borgfs nowhere there; told mount -t borgfs -o BORG_PASSPHRASE=x repo there; told mount -f -t borgfs repo there; table there
      told ${launcher} --version; told sbin/mount.borgfs repo; true`),
    `borgfs a fuse\nincoming\nlive\none\nborgfs b fuse\nincoming\none\nrepo::one there fuse.borgfs\nthere/source/f\nthere: Mountpoint must be a writable directory\nrc 2
mount.borgfs: options of a drive that is mounted cannot be changed. Unmount it and mount it again.\nrc 1
fuse: unknown option(s): \`-o nonsense'\nrc 2\nRepository nowhere does not exist.\nrc 2
mount.borgfs: BORG_PASSPHRASE: everybody could read it here. Use BORG_PASSCOMMAND.\nrc 1
borgfs 1.2.4\nmount.borgfs: a repository and a mountpoint are wanted.\nrc 1\n`)
  } finally {
    sandbox.close()
  }
})
