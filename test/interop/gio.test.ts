/** What file managers of GNOME, Xfce and LXDE do with the drive, by their own library. */
import { spawnSync } from 'node:child_process'
import test from 'ava'
import { isRoot, Sandbox } from '../helpers/sandbox.js'

const haveGio = spawnSync('gio', ['version'], { stdio: 'ignore' }).status === 0
const run = haveGio && isRoot ? test.serial : test.serial.skip
if (!haveGio || !isRoot) console.error('SKIPPED aloud: test/interop/gio needs gio (package libglib2.0-bin) and root')

run('gio copies, moves and saves into a staged tree, copies out of archives, and is told at once what archives refuse', t => {
  const sandbox = new Sandbox('gio')
  try {
    sandbox.sh(`mkdir -p source/d out; echo archived > source/d/f; echo other > source/d/g
      echo one > one; touch -d '2020-02-02 02:02:02.123456789' one; setfattr -n user.note -v hi one; echo two > two; head -c 300000 /dev/urandom > big`)
    sandbox.borgfs(['init', '-e', 'none', 'repo'])
    sandbox.borgfs(['create', 'repo::arch', 'source'])
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'settle=1000'] })
    // A complaint begins with the program and the address of the file.
    const said = (script: string): string => sandbox.sh(`export GIO_USE_VFS=local; told() { "$@" 2>&1 | sed 's|'"$PWD"'/||g; s|^gio: [^ ]*: ||' || true; }; ${script}`).stdout

    t.is(said(`gio mkdir mnt/incoming/box; gio copy -p one big mnt/incoming/box/ >progress; gio move two mnt/incoming/box/; test ! -e two
      gio copy --backup big mnt/incoming/box/one; gio save -b mnt/incoming/box/big < mnt/arch/source/d/f; gio rename mnt/incoming/box/two three >renamed
      cd mnt/incoming/box; ls; cmp one ../../../big; cmp big~ ../../../big; cat big three; stat -c %y one~; getfattr --only-values -n user.note one~`),
    'big\nbig~\none\none~\nthree\narchived\ntwo\n2020-02-02 02:02:02.123456789 +0000\nhi')

    t.is(said('gio copy mnt/arch/source/d/f mnt/incoming/box/clone; gio copy mnt/arch/source/d/f out/; gio move mnt/incoming/box/three out/; cat mnt/incoming/box/clone out/f out/three'), 'archived\narchived\ntwo\n')
    t.is(said(`told gio move mnt/arch/source/d/g mnt/incoming/box/g; told gio move mnt/arch/source/d mnt/incoming/box/d; told gio remove mnt/arch/source/d/f
      told gio mkdir mnt/arch/new; told gio save mnt/new < one`),
    ['Error moving file mnt/arch/source/d/g', 'Error moving file mnt/arch/source/d', 'Error removing file mnt/arch/source/d/f', 'Error creating directory mnt/arch/new', 'Error opening file “mnt/new”']
      .map(what => `${what}: Read-only file system\n`).join(''))
    const files = ['mnt/arch/source/d/f', 'mnt/incoming/box/one', 'mnt/arch']
    t.is(said(`for file in ${files.join(' ')}; do told gio trash $file; done; ls -A mnt/incoming mnt/incoming/box`),
      `${files.map(file => `Unable to find or create trash directory mnt/.Trash-0 to trash ${file}\n`).join('')}mnt/incoming:\nbox\n\nmnt/incoming/box:\nbig\nbig~\nclone\none\none~\n`)
    sandbox.unmount(mountpoint)
  } finally {
    sandbox.close()
  }
})
