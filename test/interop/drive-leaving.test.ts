/** What programs see of a tree at the moment when it becomes an archive and leaves incoming/; and what becomes of it when the drive itself goes. */
import test from 'ava'
import { randomBytes } from 'node:crypto'
import { closeSync, constants, existsSync, fstatSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { canMount } from '../helpers/mount.js'
import { borgfsProgram, eventually, Sandbox } from '../helpers/sandbox.js'

const run = canMount ? test : test.skip
if (!canMount) console.error('SKIPPED aloud: test/interop/drive-leaving needs to mount')

// Right after each rename the archive is used in another way; what goes wrong is printed.
const renamer = String.raw`
import errno, os, sys
mnt = sys.argv[1]
def check(what, so):
    if not so: print(what)
for i in range(24):
    tree, archive = f'{mnt}/incoming/n{i}', f'{mnt}/a{i}'
    os.makedirs(tree + '/sub')
    for name in ('sub/file', 'top'):
        with open(f'{tree}/{name}', 'w') as f: f.write(str(i))
    old = os.stat(tree).st_ino
    os.listdir(f'{mnt}/incoming'), os.listdir(tree)
    os.rename(tree, archive)
    try:
        if i % 6 == 0:
            before = os.stat(archive).st_ino
            fd = os.open(archive, os.O_RDONLY)
            check('another inode', os.fstat(fd).st_ino == before != old)
            check('listing', sorted(os.listdir(fd)) == ['sub', 'top'])
            os.close(fd)
        elif i % 6 == 1:
            os.chdir(archive)
            check('listing of cwd', sorted(os.listdir('.')) == ['sub', 'top'])
            check('content by cwd', open('sub/file').read() == str(i))
        elif i % 6 == 2:
            check('content', open(archive + '/sub/file').read() == str(i))
        elif i % 6 == 3:
            fd = os.open(archive, os.O_PATH | os.O_DIRECTORY)
            check('listing by O_PATH', sorted(os.listdir(f'/proc/self/fd/{fd}')) == ['sub', 'top'])
            os.stat('sub/file', dir_fd=fd)
            os.close(fd)
        elif i % 6 == 4:
            try: open(archive + '/new', 'w'); print('written')
            except OSError as e: check(e, e.errno == errno.EROFS)
        else:
            os.chdir(archive + '/sub')
            check('content of sub', open('file').read() == str(i) and open('../top').read() == str(i))
    except OSError as e: print(i % 6, e)
    os.chdir('/')
`

run('a tree that was renamed to the root is the archive for whoever comes first', t => {
  const sandbox = new Sandbox('leaving-rename')
  try {
    sandbox.borgfs(['init', '-e', 'none', 'repo'])
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'settle=3600'] })
    t.is(sandbox.run('python3', ['-c', renamer, mountpoint]).stdout, '')
    // Refused, the tree is as it was, and may be renamed later.
    mkdirSync(join(mountpoint, 'incoming', 'late'))
    const fd = openSync(join(mountpoint, 'incoming', 'late', 'f'), 'w')
    t.regex(sandbox.run('mv', [join(mountpoint, 'incoming', 'late'), join(mountpoint, 'late')], { ok: [1] }).stderr, /busy/)
    closeSync(fd)
    t.regex(sandbox.run('mv', ['-T', join(mountpoint, 'incoming', 'late'), join(mountpoint, 'a0')], { ok: [1] }).stderr, /exists/i)
    sandbox.run('mv', [join(mountpoint, 'incoming', 'late'), join(mountpoint, 'late')])
    t.true(existsSync(join(mountpoint, 'late', 'f')))
    t.is(sandbox.unmount(mountpoint).rc, 0)
  } finally {
    sandbox.close()
  }
})

run('a file that is open for reading when its tree leaves incoming/ is read to its end', async t => {
  const sandbox = new Sandbox('leaving-open')
  try {
    sandbox.borgfs(['init', '-e', 'repokey', 'repo'])
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'settle=0,linger=0'] })
    const content = randomBytes(9_000_000)
    const here = (name: string): string => staged(mountpoint, name)
    for (const name of ['quiet', 'renamed']) {
      mkdirSync(here(name))
      // It is open for writing until it is open for reading.
      const writing = openSync(join(here(name), 'file'), 'w')
      writeFileSync(writing, content)
      // By the page cache, and past it.
      const readers = [constants.O_RDONLY, constants.O_RDONLY | constants.O_DIRECT].map(flags => openSync(join(here(name), 'file'), flags))
      closeSync(writing)
      if (name === 'renamed') sandbox.run('python3', ['-c', 'import os, sys; os.rename(sys.argv[1], sys.argv[2])', here(name), join(mountpoint, name)], { ok: 'any' })
      await eventually('it has left', () => !existsSync(here(name)))
      for (const fd of readers) {
        t.is(fstatSync(fd).size, content.length, name)
        t.true(readFileSync(fd).equals(content), name)
        closeSync(fd)
      }
    }
    // One that is saved at the end.
    mkdirSync(here('last'))
    writeFileSync(join(here('last'), 'file'), content)
    t.is(sandbox.unmount(mountpoint).rc, 0)
    t.is(sandbox.sh('find home -path "*spool/*"').stdout, '', 'nothing stays staged')
  } finally {
    sandbox.close()
  }
})

run('after SIGTERM a drive commits however long that takes', async t => {
  const sandbox = new Sandbox('leaving-slowly')
  try {
    sandbox.borgfs(['init', '-e', 'none', 'repo'])
    const mountpoint = sandbox.mount('repo', { args: ['--lock-wait', '120'] })
    mkdirSync(staged(mountpoint, 'tree'))
    writeFileSync(join(staged(mountpoint, 'tree'), 'file'), 'content')
    const { pid } = JSON.parse(readFileSync(join(mountpoint, '.borgfs/status.json'), 'utf8')) as { pid: number }
    // Somebody else keeps it waiting for longer than it waits for programs that are still inside.
    const other = sandbox.start(process.execPath, [borgfsProgram, '--lock-wait', '60', 'with-lock', 'repo', 'sh', '-c', 'touch locked; until test -e go; do sleep 0.1; done'])
    await eventually('the lock is taken', () => existsSync(sandbox.path('locked')))
    process.kill(pid, 'SIGTERM')
    await eventually('it is unmounted', () => !sandbox.isMounted(mountpoint))
    await new Promise(resolve => setTimeout(resolve, 6000))
    writeFileSync(sandbox.path('go'), '')
    await eventually('the other one ends', () => other.exitCode !== null)
    await sandbox.allEnded()
    t.regex(sandbox.borgfs(['list', '--short', 'repo']).stdout, /^tree-/)
  } finally {
    sandbox.close()
  }
})

run('what a program that is still inside stages after SIGTERM is saved, or is there at the next mount', async t => {
  const sandbox = new Sandbox('leaving-inside')
  try {
    sandbox.borgfs(['init', '-e', 'repokey', 'repo'])
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'settle=3600'] })
    mkdirSync(staged(mountpoint, 'early'))
    writeFileSync(join(staged(mountpoint, 'early'), 'file'), 'early')
    const inside = sandbox.start('sh', ['-c', 'cd "$1"; touch "$2/inside"; until test -e "$2/go"; do sleep 0.05; done; mkdir late && echo late > late/file && echo more > early/more; echo $? > "$2/said"', 'sh', join(mountpoint, 'incoming'), sandbox.folder])
    await eventually('it is inside', () => existsSync(sandbox.path('inside')))
    const { pid } = JSON.parse(readFileSync(join(mountpoint, '.borgfs/status.json'), 'utf8')) as { pid: number }
    process.kill(pid, 'SIGTERM')
    await eventually('it has no place any more', () => !sandbox.isMounted(mountpoint))
    writeFileSync(sandbox.path('go'), '')
    await eventually('it has gone', () => inside.exitCode !== null)
    await eventually('the drive has ended', () => !existsSync(`/proc/${pid}`))
    const archives = sandbox.borgfs(['list', '--short', 'repo']).stdout.trim().split('\n')
    t.regex(archives[0]!, /^early-/)
    const again = sandbox.mount('repo', { args: ['-o', 'settle=3600'] })
    const found = (tree: string, name: string): string | undefined => {
      const places = [staged(again, tree), ...archives.filter(archive => archive.startsWith(`${tree}-`)).reverse().map(archive => join(again, archive))]
      const path = places.map(place => join(place, name)).find(existsSync)
      return path && readFileSync(path, 'utf8')
    }
    t.is(found('early', 'file'), 'early')
    // It was told that it was written.
    t.is(readFileSync(sandbox.path('said'), 'utf8'), '0\n')
    t.is(found('late', 'file'), 'late\n')
    t.is(found('early', 'more'), 'more\n')
    t.is(sandbox.unmount(again).rc, 0)
  } finally {
    sandbox.close()
  }
})

run('a file that was closed just before the unmount is not open any more, whether the drive came to hear of that or not', async t => {
  const sandbox = new Sandbox('leaving-closed')
  try {
    sandbox.borgfs(['init', '-e', 'none', 'repo'])
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'settle=3600'] })
    mkdirSync(staged(mountpoint, 'tree'))
    const fd = openSync(join(staged(mountpoint, 'tree'), 'file'), 'w')
    writeFileSync(fd, 'content')
    const { pid } = JSON.parse(readFileSync(join(mountpoint, '.borgfs/status.json'), 'utf8')) as { pid: number }
    process.kill(pid, 'SIGSTOP')
    closeSync(fd)
    // What this process had open is open in a child of another test until that executes.
    await eventually('it is unmounted', () => sandbox.run('fusermount3', ['-u', mountpoint], { ok: 'any' }).rc === 0 || !sandbox.isMounted(mountpoint))
    process.kill(pid, 'SIGCONT')
    await sandbox.allEnded()
    t.regex(sandbox.borgfs(['list', '--short', 'repo']).stdout, /^tree-/)
  } finally {
    sandbox.close()
  }
})

function staged(mountpoint: string, name: string): string {
  return join(mountpoint, 'incoming', name)
}
