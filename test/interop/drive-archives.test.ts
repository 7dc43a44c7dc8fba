/** Archives as directories: mv, rmdir and comments in the mount, judged by the real Borg. */
import test from 'ava'
import { readdirSync } from 'node:fs'
import { haveBorg, isRoot, Sandbox } from '../helpers/sandbox.js'

const run = haveBorg && isRoot ? test.serial : test.serial.skip
if (!haveBorg || !isRoot) console.error('SKIPPED aloud: test/interop/drive-archives compares with the real borg as root')

const probe = String.raw`
import os, errno, sys
def tried(what, *args):
    try: what(*args); print('done')
    except OSError as e: print(errno.errorcode[e.errno])
for line in sys.stdin.read().splitlines():
    what, *words = line.split(' ')
    if what == 'setxattr': tried(os.setxattr, words[0], words[1], ' '.join(words[2:]).encode())
    else: tried(getattr(os, what), *words)
`

function tried(sandbox: Sandbox, ...lines: string[]): string[] {
  return sandbox.run('python3', ['-c', probe], { input: lines.join('\n') }).stdout.trim().split('\n')
}

run('mv renames an archive, setfattr comments it, rmdir deletes it where that is allowed, and Borg finds everything in order', t => {
  const sandbox = new Sandbox('drive-archives')
  try {
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    sandbox.sh('mkdir source; echo content > source/f; head -c 200000 /dev/urandom > source/g; borg create --comment first repo::one source; echo more > source/h; borg create repo::two source')
    const before = JSON.parse(sandbox.borg(['info', '--json', 'repo::one']).stdout) as { archives: [Record<string, unknown>] }
    const mountpoint = sandbox.mount('repo')
    t.deepEqual(tried(sandbox, 'rename mnt/one mnt/renamed', 'rename mnt/gone mnt/x', 'rename mnt/renamed mnt/two', 'rename mnt/renamed mnt/incoming', 'rename mnt/incoming mnt/x',
      'rename mnt/renamed mnt/two/x', 'rename mnt/renamed mnt/.Trash-0', 'rmdir mnt/two', 'rmdir mnt/gone', 'rmdir mnt/incoming', 'unlink mnt/two/source/f', 'rmdir mnt/two/source',
      'setxattr mnt/renamed user.borgfs.archive.comment a new comment', 'setxattr mnt/renamed user.other x', 'setxattr mnt/renamed/source user.borgfs.archive.comment x', 'utime mnt/two'),
    ['done', 'ENOENT', 'EEXIST', 'EEXIST', 'EPERM', 'EROFS', 'EPERM', 'EPERM', 'ENOENT', 'EPERM', 'EROFS', 'EROFS', 'done', 'EROFS', 'EROFS', 'EROFS'])
    t.deepEqual(readdirSync(mountpoint).sort(), ['.borgfs', 'incoming', 'live', 'renamed', 'two'])
    t.is(sandbox.sh('cat mnt/renamed/source/f; getfattr --only-values -n user.borgfs.archive.comment mnt/renamed').stdout, 'content\na new comment')
    sandbox.unmount(mountpoint)
    const after = JSON.parse(sandbox.borg(['info', '--json', 'repo::renamed']).stdout) as { archives: [Record<string, unknown>] }
    const changes = { name: 'renamed', comment: 'a new comment', id: after.archives[0].id, limits: after.archives[0].limits, stats: after.archives[0].stats }
    t.deepEqual(after.archives[0], { ...before.archives[0], ...changes })
    t.not(after.archives[0].id, before.archives[0].id)
    sandbox.assertSound()

    sandbox.mount('repo', { args: ['-o', 'allow_delete'] })
    t.deepEqual(tried(sandbox, 'rmdir mnt/two', 'listdir mnt/two', 'rmdir mnt/incoming'), ['done', 'ENOENT', 'EPERM'])
    t.deepEqual(readdirSync(mountpoint).sort(), ['.borgfs', 'incoming', 'live', 'renamed'])
    sandbox.unmount(mountpoint)
    t.is(sandbox.borg(['list', '--short', 'repo']).stdout, 'renamed\n')
    sandbox.assertSound()
    sandbox.borg(['extract', '../repo::renamed'], { cwd: sandbox.mkdir('out') })

    sandbox.mount('repo', { args: ['-o', 'ro,allow_delete'] })
    t.deepEqual(tried(sandbox, 'rename mnt/renamed mnt/x', 'rmdir mnt/renamed', 'setxattr mnt/renamed user.borgfs.archive.comment x'), ['EROFS', 'EROFS', 'EROFS'])
    sandbox.unmount(mountpoint)
  } finally {
    sandbox.close()
  }
})
