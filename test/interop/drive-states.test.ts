/** What the drive says of staged trees, and commits that come too early, are asked for, or must wait: judged by the real Borg. */
import test from 'ava'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { eventually, haveBorg, isRoot, Sandbox } from '../helpers/sandbox.js'
import { differencesBelow, makeSmallFiles } from '../helpers/trees.js'

const run = haveBorg && isRoot ? test.serial : test.serial.skip
if (!haveBorg || !isRoot) console.error('SKIPPED aloud: test/interop/drive-states compares with the real borg as root')

function attribute(sandbox: Sandbox, path: string, name: string): string {
  return sandbox.run('getfattr', ['--only-values', '-n', `user.borgfs.${name}`, path], { ok: 'any' }).stdout
}

run('a tree that changes after its commit replaces the archive in one transaction, and what only the former one had is gone', async t => {
  const sandbox = new Sandbox('drive-replace')
  try {
    makeSmallFiles(sandbox, 'source', 30)
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    // Chunks that another archive refers to as well must stay.
    sandbox.borg(['create', 'repo::before', 'source'])
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'settle=0.5,linger=60'] })
    // It is not settled while a file is open for writing, however long the rest takes.
    sandbox.sh('mkdir mnt/incoming/laptop; exec 9> mnt/incoming/laptop/early; cp -a source/. mnt/incoming/laptop; head -c 300000 /dev/urandom >&9')
    const early = readFileSync(join(mountpoint, 'incoming/laptop/early'))
    const name = await eventually('the first archive', () => readdirSync(mountpoint).find(entry => entry.startsWith('laptop-')))
    const first = attribute(sandbox, join(mountpoint, name), 'archive.id')
    sandbox.sh('exec 9> mnt/incoming/laptop/late; rm mnt/incoming/laptop/early; echo late >&9')
    await eventually('its replacement', () => attribute(sandbox, join(mountpoint, name), 'archive.id') !== first)
    t.deepEqual(readdirSync(mountpoint).sort(), ['.borgfs', 'before', 'incoming', name, 'live'].sort())
    t.false(existsSync(join(mountpoint, name, 'early')))
    const staged = sandbox.mkdir('staged')
    sandbox.sh(`cp -a mnt/incoming/laptop/. ${staged}`)
    t.is(attribute(sandbox, 'mnt/incoming/laptop', 'state'), `committed ${name}`)
    sandbox.unmount(mountpoint)
    sandbox.assertSound()
    const out = sandbox.mkdir('out')
    sandbox.borg(['extract', `../repo::${name}`], { cwd: out })
    t.is(differencesBelow(sandbox, staged, out), '')
    sandbox.borg(['extract', '../repo::before'], { cwd: sandbox.mkdir('out-before') })
    // The chunk of the file that is in no archive any more went with the archive.
    const objects = sandbox.borg(['debug', 'search-repo-objs', 'repo', `hex:${early.subarray(100, 130).toString('hex')}`]).stdout
    t.false(/found/.test(objects), objects)
    t.deepEqual(sandbox.archives(), ['before', name])
  } finally {
    sandbox.close()
  }
})

run('changes made after a commit survive a killed mount and replace the archive at the next one; an unchanged tree does not come back', async t => {
  const sandbox = new Sandbox('drive-killed')
  try {
    sandbox.borg(['init', '-e', 'none', 'repo'])
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'settle=100,linger=100'] })
    sandbox.sh('for n in changed same; do mkdir mnt/incoming/$n; echo 1 > mnt/incoming/$n/f; done; echo 1 > mnt/incoming/loose')
    sandbox.borgfs(['commit', mountpoint])
    const made = readdirSync(mountpoint).sort()
    t.is(made.length, 6)
    sandbox.sh('echo 2 > mnt/incoming/changed/f; echo new > mnt/incoming/changed/g; echo 2 > mnt/incoming/loose2')
    await sandbox.killMount()
    sandbox.mount('repo', { args: ['-o', 'settle=100,linger=100'] })
    t.deepEqual(readdirSync(join(mountpoint, 'incoming')).sort(), ['changed', 'loose', 'loose2'])
    t.is(readFileSync(join(mountpoint, 'incoming/changed/f'), 'latin1'), '2\n')
    sandbox.unmount(mountpoint)
    sandbox.mount('repo')
    t.deepEqual(readdirSync(mountpoint).sort(), made)
    t.deepEqual(readdirSync(join(mountpoint, 'incoming')), [])
    t.is(sandbox.sh('cat mnt/changed-*/f mnt/changed-*/g mnt/same-*/f mnt/incoming-*/loose2').stdout, '2\nnew\n1\n2\n')
    sandbox.unmount(mountpoint)
    sandbox.assertSound()
  } finally {
    sandbox.close()
  }
})

run('status, events and xattrs tell what goes on', async t => {
  const sandbox = new Sandbox('drive-status')
  try {
    sandbox.borg(['init', '-e', 'none', 'repo'])
    sandbox.mkdir('source')
    sandbox.sh('echo content > source/f; borg create --comment "a comment" repo::srv-2026-01-02T03:04:05 source; borg create repo::srv-2026-01-03T03:04:05 source; borg create repo::plain source')
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'settle=0.5'] })
    const follower = sandbox.start('tail', ['-n', '+1', '-s', '0.1', '-f', 'mnt/.borgfs/events'])
    let events = ''
    follower.stdout!.on('data', (data: Buffer) => events += data.toString())
    const keep = sandbox.start('bash', ['-c', 'mkdir mnt/incoming/db; exec 9> mnt/incoming/db/dump; echo abc >&9; sleep 60'])
    await eventually('the file is being written', () => attribute(sandbox, 'mnt/incoming/db', 'state') === 'writing')
    const refused = sandbox.borgfs(['commit', mountpoint, 'db'], { ok: [2] })
    t.regex(refused.stderr, /incoming\/db was not saved and stays staged: still open for writing: dump/)
    t.is(sandbox.run('setfattr', ['-n', 'user.borgfs.commit', '-v', '', 'mnt/incoming/db'], { ok: [1] }).stderr.trim(), 'setfattr: mnt/incoming/db: Device or resource busy')
    t.regex(readFileSync(join(mountpoint, '.borgfs/status'), 'utf8'), /incoming\/db: writing \(1 file, 4 B\)\n    still open for writing: dump/)
    keep.kill('SIGKILL')
    const name = await eventually('the archive', () => readdirSync(mountpoint).find(entry => entry.startsWith('db-')))
    const status = JSON.parse(readFileSync(join(mountpoint, '.borgfs/status.json'), 'utf8')) as { trees: Record<string, unknown>[]; commits: Record<string, unknown>[] }
    t.like(status.trees[0], { path: 'incoming/db', state: 'committed', text: `committed ${name}`, archive: name, files: 1, bytes: 4 })
    t.like(status.commits[0], { archive: name, nfiles: 1, original_size: 4 })
    await eventually('the follower saw it', () => events.includes(`incoming/db: committed ${name}\n`))
    t.regex(events, /Z incoming\/db: writing\n/)
    t.regex(events, /not committed: still open for writing: dump/)
    follower.kill()
    const archive = 'mnt/srv-2026-01-02T03:04:05'
    const info = JSON.parse(sandbox.borg(['info', '--json', 'repo::srv-2026-01-02T03:04:05']).stdout) as { archives: [{ id: string; hostname: string; username: string; comment: string; stats: Record<string, number> }] }
    const facts = info.archives[0]
    for (const [attributeName, value] of Object.entries({
      id: facts.id, comment: facts.comment, hostname: facts.hostname, username: facts.username, original_size: facts.stats.original_size, deduplicated_size: facts.stats.deduplicated_size,
      nfiles: facts.stats.nfiles,
    })) t.is(attribute(sandbox, archive, `archive.${attributeName}`), String(value), attributeName)
    t.regex(attribute(sandbox, `${archive}/source/f`, 'chunks'), /^[0-9a-f]{64} 8\n$/)
    t.is(sandbox.sh(`getfattr -d -m - ${archive} ${archive}/source/f`).stdout, '')
    t.deepEqual(readdirSync(join(mountpoint, '.borgfs/latest')).sort(), ['db', 'plain', 'srv'])
    t.is(sandbox.sh('readlink mnt/.borgfs/latest/srv; cat mnt/.borgfs/latest/srv/source/f').stdout, '../../srv-2026-01-03T03:04:05\ncontent\n')
    const day = sandbox.sh('date +%Y/%m/%d').stdout.trim()
    t.true(readdirSync(join(mountpoint, '.borgfs/by-date', day)).includes('plain'))
    t.is(sandbox.sh(`cat mnt/.borgfs/by-date/${day}/plain/source/f`).stdout, 'content\n')
    t.throws(() => writeFileSync(join(mountpoint, '.borgfs/status'), 'x'), { code: 'EROFS' })
    const saved = sandbox.borgfs(['commit', mountpoint])
    t.is(saved.stdout, `incoming/db: saved as ${name}\n`)
    sandbox.sh('mkdir mnt/incoming/last; echo x > mnt/incoming/last/f')
    t.regex(sandbox.unmount(mountpoint).stdout, /incoming\/last: saved as last-2\d{3}-/)
    sandbox.mount('repo', { args: ['-P', 'srv'] })
    t.deepEqual(readdirSync(mountpoint).sort(), ['srv-2026-01-02T03:04:05', 'srv-2026-01-03T03:04:05'])
    sandbox.unmount(mountpoint)
    sandbox.mount('repo', { args: ['-o', 'ro'] })
    t.true(existsSync(join(mountpoint, '.borgfs/status')) && !existsSync(join(mountpoint, 'incoming')))
    sandbox.unmount(mountpoint)
  } finally {
    sandbox.close()
  }
})

run('while another client has the repository a tree waits, says for whom, and is saved afterwards', async t => {
  const sandbox = new Sandbox('drive-lock')
  try {
    sandbox.borg(['init', '-e', 'none', 'repo'])
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'settle=0.5'] })
    // After a commit the lock that the mount was opened with is let go at once.
    sandbox.sh('mkdir mnt/incoming/first; echo x > mnt/incoming/first/f; mv mnt/incoming/first mnt/first')
    const holder = sandbox.start('borg', ['--lock-wait', '60', 'with-lock', 'repo', 'sleep', '100'])
    await eventually('the lock is held', () => sandbox.run('pgrep', ['-P', String(holder.pid)], { ok: 'any' }).stdout !== '')
    sandbox.sh('mkdir mnt/incoming/tree; echo x > mnt/incoming/tree/f')
    const state = await eventually('it waits', () => /^waiting for lock of .+@(\d+)$/.exec(attribute(sandbox, 'mnt/incoming/tree', 'state')) ?? undefined)
    t.is(Number(state[1]), holder.pid!)
    const asked = sandbox.borgfs(['commit', mountpoint], { ok: [2] })
    t.regex(asked.stderr, /incoming\/tree was not saved and stays staged: waiting for lock of .+@\d+/)
    // What is staged can go on changing between the tries.
    sandbox.sh('echo y > mnt/incoming/tree/g')
    sandbox.sh(`pkill -P ${holder.pid}`)
    const name = await eventually('the archive', () => readdirSync(mountpoint).find(entry => entry.startsWith('tree-')))
    t.deepEqual(readdirSync(join(mountpoint, name)), ['f', 'g'])
    sandbox.unmount(mountpoint)
  } finally {
    sandbox.close()
  }
})

run('a full disk fails a commit, which is made by itself once there is room', async t => {
  const sandbox = new Sandbox('drive-full')
  try {
    const disk = sandbox.mkdir('disk')
    sandbox.sh('mount -t tmpfs -o size=12m none disk')
    try {
      sandbox.borg(['init', '-e', 'none', 'disk/repo'])
      const mountpoint = sandbox.mount('disk/repo', { args: ['-o', 'settle=0.5'] })
      sandbox.sh('head -c 7M /dev/urandom > disk/filler; mkdir mnt/incoming/tree; head -c 5M /dev/urandom > mnt/incoming/tree/f')
      const failed = await eventually('it fails', () => /^failed: .*/.exec(attribute(sandbox, 'mnt/incoming/tree', 'state')) ?? undefined)
      t.regex(failed[0], /space/i)
      sandbox.sh('rm disk/filler')
      const name = await eventually('the archive', () => readdirSync(mountpoint).find(entry => entry.startsWith('tree-')), 60_000)
      t.is(sandbox.sh(`cmp mnt/incoming/tree/f mnt/${name}/f && echo same`).stdout, 'same\n')
      sandbox.unmount(mountpoint)
      sandbox.assertSound('disk/repo')
    } finally {
      sandbox.run('umount', ['-l', disk], { ok: 'any' })
    }
  } finally {
    sandbox.close()
  }
})

run('a trash is refused wherever a file manager may try it, and sockets are told of and left out', t => {
  const sandbox = new Sandbox('drive-trash')
  try {
    sandbox.borg(['init', '-e', 'none', 'repo'])
    const mountpoint = sandbox.mount('repo')
    const probe = String.raw`
import os, errno, socket
def tried(what, *args):
    try: what(*args); print('done')
    except OSError as e: print(errno.errorcode[e.errno])
for name in ('.Trash', '.Trash-0', '.Spotlight-V100'):
    for place in ('mnt/', 'mnt/incoming/'):
        tried(os.mkdir, place + name)
os.mkdir('mnt/incoming/t'); open('mnt/incoming/t/f', 'w').close()
tried(os.rename, 'mnt/incoming/t', 'mnt/.Trash-0')
tried(os.rename, 'mnt/incoming/t', 'mnt/incoming/.Trash-0')
tried(os.symlink, 'x', 'mnt/incoming/.Trash')
tried(open, 'mnt/incoming/.DS_Store', 'w')
tried(open, 'mnt/incoming/t/.DS_Store', 'w')
os.unlink('mnt/incoming/t/.DS_Store')
s = socket.socket(socket.AF_UNIX); s.bind('mnt/incoming/t/socket')
print(sorted(os.listdir('mnt/incoming/t')))
os.rename('mnt/incoming/t', 'mnt/archive')
print(os.listdir('mnt/archive'))
`
    t.is(sandbox.run('python3', ['-c', probe]).stdout, `${'EPERM\n'.repeat(10)}done\n['f', 'socket']\n['f']\n`)
    sandbox.unmount(mountpoint)
    const log = sandbox.sh('cat home/.cache/borg/*/mount.log').stdout
    t.regex(log, /socket: sockets are not archived/)
  } finally {
    sandbox.close()
  }
})
