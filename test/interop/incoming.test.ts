/** Copying into the drive: what becomes of it, judged by the real Borg. BORGFS_FULL=1 runs the full sizes of the issue. */
import test from 'ava'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { eventually, haveBorg, isRoot, Sandbox } from '../helpers/sandbox.js'
import { differences, differencesBelow, makeEveryKind, makeSmallFiles } from '../helpers/trees.js'

const full = process.env.BORGFS_FULL === '1'
const run = haveBorg && isRoot ? test.serial : test.serial.skip
if (!haveBorg || !isRoot) console.error('SKIPPED aloud: test/interop/incoming compares with the real borg as root')

function dataBytes(repository: string): number {
  const data = join(repository, 'data')
  return readdirSync(data).flatMap(folder => readdirSync(join(data, folder)).map(name => statSync(join(data, folder, name)).size)).reduce((a, b) => a + b, 0)
}

for (const copy of ['cp -a source/. mnt/incoming/tree', 'rsync -aHAX source/ mnt/incoming/tree/', 'tar -C source --xattrs --xattrs-include=* --acls -cf - . | tar -C mnt/incoming/tree --xattrs --xattrs-include=* --acls --numeric-owner -xpf -']) {
  run(`${copy.split(' ')[0]} of every kind of file into incoming, renamed to the root, is an archive that borg extracts equal`, t => {
    const sandbox = new Sandbox('incoming')
    try {
      const source = makeEveryKind(sandbox, 'source')
      // tar does not keep the links between fifos.
      if (copy.startsWith('tar')) sandbox.sh('rm fifo2', { cwd: source })
      sandbox.borg(['init', '-e', 'repokey', 'repo'])
      const mountpoint = sandbox.mount('repo')
      sandbox.sh(`mkdir mnt/incoming/tree; ${copy}`)
      t.is(differences(sandbox, source, join(mountpoint, 'incoming', 'tree')), '', 'staged')
      sandbox.sh('mv mnt/incoming/tree mnt/archive-name')
      t.false(existsSync(join(mountpoint, 'incoming', 'tree')))
      t.is(differences(sandbox, source, join(mountpoint, 'archive-name')), '', 'in the mount')
      sandbox.unmount(mountpoint)
      sandbox.assertSound()
      const out = sandbox.mkdir('out')
      sandbox.borg(['extract', '--numeric-ids', '../repo::archive-name'], { cwd: out })
      t.is(differencesBelow(sandbox, source, out), '', 'extracted by borg')
    } finally {
      sandbox.close()
    }
  })
}

run('many small files and one large file come back equal, and a second copy adds only metadata', t => {
  const sandbox = new Sandbox('incoming-many')
  try {
    const source = makeSmallFiles(sandbox, 'source', full ? 30_000 : 2_000)
    const large = sandbox.mkdir('large')
    const largeMiB = full ? 2048 : 96
    sandbox.sh(`head -c ${largeMiB}M /dev/urandom > file; touch -d '2020-02-02 02:02:02.020202020' file`, { cwd: large })
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    const mountpoint = sandbox.mount('repo')
    const smallBytes = Number(sandbox.sh('du -sb --apparent-size . | cut -f1', { cwd: source }).stdout)
    const sizes: number[] = []
    for (const [index, copy] of ['cp -a', 'rsync -aHAX'].entries()) {
      sandbox.sh(`${copy} source mnt/incoming/ && mv mnt/incoming/source mnt/small-${index}`)
      sizes.push(dataBytes(sandbox.path('repo')))
      sandbox.sh(`${copy} large mnt/incoming/ && mv mnt/incoming/large mnt/large-${index}`)
      sizes.push(dataBytes(sandbox.path('repo')))
    }
    sandbox.unmount(mountpoint)
    const [, first, secondSmall, secondLarge] = sizes as [number, number, number, number]
    t.true(secondSmall - first < smallBytes * (full ? 0.02 : 0.06), `small files again: ${secondSmall - first} of ${smallBytes} bytes`)
    t.true(secondLarge - secondSmall < largeMiB * 1048576 * 0.001 + 4096, `large file again: ${secondLarge - secondSmall} bytes`)
    sandbox.assertSound()
    for (const [archive, original] of [['small-0', source], ['small-1', source], ['large-0', large], ['large-1', large]] as const) {
      const out = sandbox.mkdir(`out-${archive}`)
      sandbox.borg(['extract', `../repo::${archive}`], { cwd: out })
      t.is(differencesBelow(sandbox, original, out), '', archive)
    }
  } finally {
    sandbox.close()
  }
})

run('a quiet staged tree becomes an archive by itself and leaves incoming', async t => {
  const sandbox = new Sandbox('incoming-quiet')
  try {
    const source = makeSmallFiles(sandbox, 'source', 40)
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'settle=1,linger=1'] })
    // While one of its files is open for writing it is not quiet, however long the rest takes.
    sandbox.sh('mkdir -p mnt/incoming/laptop/d000/e00; exec 9> mnt/incoming/laptop/d000/e00/f00000; cp -a source/. mnt/incoming/laptop; echo loose > mnt/incoming/loose.txt')
    const name = await eventually('the archive', () => readdirSync(mountpoint).find(entry => /^laptop-\d{4}-\d\d-\d\dT/.test(entry)))
    t.is(differences(sandbox, source, join(mountpoint, name)), '')
    const loose = await eventually('the archive of loose files', () => readdirSync(mountpoint).find(entry => /^incoming-\d{4}/.test(entry)))
    t.is(sandbox.sh(`cat 'mnt/${loose}/loose.txt'`).stdout, 'loose\n')
    await eventually('incoming is empty again', () => readdirSync(join(mountpoint, 'incoming')).length === 0)
    sandbox.unmount(mountpoint)
    sandbox.assertSound()
  } finally {
    sandbox.close()
  }
})

for (const how of ['borgfs umount', 'umount', 'SIGTERM', 'SIGINT'] as const) {
  run(`${how} commits what is staged`, async t => {
    const sandbox = new Sandbox('incoming-end')
    try {
      const source = makeSmallFiles(sandbox, 'source', 40)
      sandbox.borg(['init', '-e', 'repokey', 'repo'])
      const mountpoint = sandbox.mount('repo')
      sandbox.sh('cp -a source mnt/incoming/tree')
      if (how === 'borgfs umount') sandbox.unmount(mountpoint)
      else if (how === 'umount') sandbox.sh('umount mnt')
      else sandbox.sh(`pkill -${how.slice(3)} -f '${mountpoint}'`)
      await sandbox.allEnded()
      t.false(sandbox.isMounted(mountpoint))
      const archive = sandbox.borg(['list', '--short', 'repo']).stdout.trim()
      t.regex(archive, /^tree-\d{4}/)
      const out = sandbox.mkdir('out')
      sandbox.borg(['extract', `../repo::${archive}`], { cwd: out })
      t.is(differencesBelow(sandbox, source, out), '')
    } finally {
      sandbox.close()
    }
  })
}

run('a rename to a taken name is EEXIST, one with a file open for writing is EBUSY, and both leave the staged tree alone', t => {
  const sandbox = new Sandbox('incoming-refused')
  try {
    sandbox.borg(['init', '-e', 'none', 'repo'])
    const mountpoint = sandbox.mount('repo')
    sandbox.sh('mkdir mnt/incoming/a; echo 1 > mnt/incoming/a/f; mv mnt/incoming/a mnt/taken; mkdir mnt/incoming/b; echo 2 > mnt/incoming/b/f')
    const probe = String.raw`
import os, errno, sys
try: os.rename('mnt/incoming/b', 'mnt/taken'); print('renamed')
except OSError as e: print(errno.errorcode[e.errno])
f = open('mnt/incoming/b/open', 'w'); f.write('x'); f.flush()
try: os.rename('mnt/incoming/b', 'mnt/free'); print('renamed')
except OSError as e: print(errno.errorcode[e.errno])
f.close()
print(sorted(os.listdir('mnt/incoming/b')))
os.rename('mnt/incoming/b', 'mnt/free'); print(sorted(os.listdir('mnt/free')))
try: os.mkdir('mnt/incoming/.Trash-0'); print('made')
except OSError as e: print(errno.errorcode[e.errno])
try: os.mkdir('mnt/new-in-root'); print('made')
except OSError as e: print(errno.errorcode[e.errno])
`
    t.is(sandbox.run('python3', ['-c', probe]).stdout, "EEXIST\nEBUSY\n['f', 'open']\n['f', 'open']\nEPERM\nEROFS\n")
    sandbox.unmount(mountpoint)
  } finally {
    sandbox.close()
  }
})
