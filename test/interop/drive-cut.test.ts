/** Chunking while files arrive: exact whatever is done to them meanwhile, no room for what is known, no nonce used twice. */
import test from 'ava'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { walkSegment } from '../../src/engine/repository/segment-walk.js'
import { eventually, haveBorg, isRoot, Sandbox } from '../helpers/sandbox.js'

const run = haveBorg && isRoot ? test.serial : test.serial.skip
if (!haveBorg || !isRoot) console.error('SKIPPED aloud: test/interop/drive-cut compares with the real borg as root')

const quiet = ['-o', 'settle=1000']

/** The same to a file on the disk and to one in the drive, with pauses in which it is cut. */
const operations = String.raw`
import os, random, sys, time
rng = random.Random(int(sys.argv[1])); rounds = int(sys.argv[2])
places = ('plain/', 'mnt/incoming/t/')
names = ['f%d' % n for n in range(12)]
def content(n):
    return rng.randbytes(n) if rng.random() < 0.5 else (b'%d ' % rng.randrange(99)) * (n // 3) + b'.'
def both(work):
    a, b = work(places[0]), work(places[1])
    if a != b: sys.exit('not the same after: ' + what)
def whole(place, name):
    try:
        with open(place + name, 'rb') as f: return f.read()
    except FileNotFoundError: return None
for n in range(rounds):
    name = rng.choice(names); kind = rng.random(); large = rng.random() < 0.2
    size = len(whole(places[0], name) or b'')
    data = content(rng.randrange(1, 3000000 if large else 3000)); at = rng.randrange(size + 1)
    def change(place, flags, work):
        fd = os.open(place + name, flags | os.O_CREAT, 0o600)
        try: return work(fd)
        finally: os.close(fd)
    if kind < 0.3:
        what = f'{n}: {name} anew, {len(data)}'; both(lambda p: change(p, os.O_WRONLY | os.O_TRUNC, lambda fd: os.write(fd, data)))
    elif kind < 0.45:
        what = f'{n}: {name} + {len(data)}'; both(lambda p: change(p, os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, data)))
    elif kind < 0.6:
        what = f'{n}: {name} at {at}, {len(data)}'; both(lambda p: change(p, os.O_RDWR, lambda fd: os.pwrite(fd, data, at)))
    elif kind < 0.7:
        what = f'{n}: {name} cut at {at}'; both(lambda p: change(p, os.O_RDWR, lambda fd: os.ftruncate(fd, at)))
    elif kind < 0.75:
        what = f'{n}: {name} beyond its end'; both(lambda p: change(p, os.O_RDWR, lambda fd: os.pwrite(fd, data, size + 5000)))
    elif kind < 0.8:
        other = rng.choice(names); what = f'{n}: {other} over {name}'
        def move(p):
            try: os.rename(p + other, p + name)
            except FileNotFoundError: pass
        both(move)
    elif kind < 0.85:
        what = f'{n}: {name} removed'
        def remove(p):
            try: os.remove(p + name)
            except FileNotFoundError: pass
        both(remove)
    elif kind < 0.9:
        what = f'{n}: {name} synced'; both(lambda p: change(p, os.O_RDWR, lambda fd: os.fsync(fd)))
    else:
        what = f'{n}: {name} read'; both(lambda p: whole(p, name))
    if rng.random() < 0.15: time.sleep(rng.random() * 0.4)
for name in names:
    what = f'at the end, {name}'; both(lambda p: whole(p, name))
`

/** A large file, written from front to back but for a few places behind, which are cut already or just being. */
const writer = String.raw`
import os, random
rng = random.Random(7)
a, b = (os.open(p + 'large', os.O_RDWR | os.O_CREAT, 0o600) for p in ('plain/', 'mnt/incoming/t/'))
for n in range(80):
    data = rng.randbytes(1 << 20)
    for fd in (a, b): os.write(fd, data)
    if n in (50, 51, 70):
        for fd in (a, b): os.pwrite(fd, b'changed', n * 500000)
`

/** A large file of new data as a copying program writes it, and in the middle a sync, after which what was written before is promised. */
const copier = String.raw`
import os, random, sys
rng = random.Random(9)
size, synced = int(sys.argv[1]) << 20, int(sys.argv[2]) << 20
a, b = (os.open(p + sys.argv[3], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600) for p in ('plain/', 'mnt/incoming/t/'))
at = 0
while at < size:
    data = rng.randbytes(rng.choice((1 << 18, 1 << 20, 300001)))
    for fd in (a, b): os.write(fd, data)
    if at < synced <= at + len(data): os.fsync(b)
    at += len(data)
`

function stagedBytes(sandbox: Sandbox): number {
  return sandbox.sh('du -s -B1 home/.cache/borg/*/staging').stdout.split('\n').filter(Boolean).reduce((sum, line) => sum + Number(line.split('\t')[0]), 0)
}

function spooledBytes(sandbox: Sandbox): number {
  return Number(sandbox.sh('du -s -B1 home/.cache/borg/*/staging/spool').stdout.split('\t')[0])
}

/** Counter ranges of all objects in a repository, which must not overlap. */
function overlappingNonces(repository: string): number {
  const ranges: [bigint, bigint][] = []
  for (const folder of readdirSync(join(repository, 'data'))) {
    for (const name of readdirSync(join(repository, 'data', folder))) {
      const path = join(repository, 'data', folder, name)
      const bytes = readFileSync(path)
      const { count, tags, offsets, sizes } = walkSegment({ path, segment: Number(name), from: 0, limit: 1e6, checkCrc: true })
      for (let index = 0; index < count; index++) {
        if (tags[index] !== 0) continue
        const object = bytes.subarray(offsets[index]! + 41, offsets[index]! + sizes[index]!)
        const nonce = object.readBigUInt64BE(33)
        ranges.push([nonce, nonce + BigInt(Math.ceil((object.length - 41) / 16))])
      }
    }
  }
  ranges.sort(([a], [b]) => (a < b ? -1 : 1))
  return ranges.filter(([start], index) => index > 0 && ranges[index - 1]![1] > start).length
}

run('files that are changed while and after they are cut stay what was written, through kill -9 and in the archive', async t => {
  const sandbox = new Sandbox('drive-cut')
  try {
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    const mountpoint = sandbox.mount('repo', { args: quiet })
    sandbox.sh('mkdir plain mnt/incoming/t')
    const same = (place: string): string => sandbox.sh(`diff -r plain ${place} && echo same`, { ok: 'any' }).stdout
    sandbox.run('python3', ['-c', writer])
    for (const seed of [1, 2]) sandbox.run('python3', ['-c', operations, String(seed), '120'])
    t.is(same('mnt/incoming/t'), 'same\n')
    await sandbox.killMount()
    sandbox.mount('repo', { args: quiet })
    t.is(same('mnt/incoming/t'), 'same\n', 'after kill -9')
    sandbox.run('python3', ['-c', operations, '3', '60'])
    sandbox.sh('sleep 5')
    await sandbox.killMount()
    sandbox.mount('repo', { args: quiet })
    t.is(same('mnt/incoming/t'), 'same\n', 'after kill -9, when spool files had gone')
    sandbox.run('python3', ['-c', operations, '4', '60'])
    sandbox.sh('mv mnt/incoming/t mnt/made')
    t.is(same('mnt/made'), 'same\n', 'in the archive')
    sandbox.unmount(mountpoint)
    sandbox.assertSound()
    sandbox.borg(['extract', '../repo::made'], { cwd: sandbox.mkdir('out') })
    t.is(same('out'), 'same\n', 'extracted by borg')
    // Borg itself goes on in the same repository, above all counter values that were used.
    sandbox.borg(['create', '../repo::more', '.'], { cwd: sandbox.path('plain') })
    t.is(overlappingNonces(sandbox.path('repo')), 0)
  } finally {
    sandbox.close()
  }
})

run('a large file that comes fast lies in the staging folder once, whole after kill -9, and as borg would have cut it', async t => {
  const sandbox = new Sandbox('drive-large')
  try {
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    const mountpoint = sandbox.mount('repo', { args: quiet })
    sandbox.sh('mkdir plain mnt/incoming/t')
    sandbox.run('python3', ['-c', copier, '200', '0', 'large'])
    t.true(spooledBytes(sandbox) < 170 << 20, 'what was cut gave its room back while the rest was written')
    await sandbox.killMount()
    sandbox.mount('repo', { args: quiet })
    t.is(sandbox.sh('cmp plain/large mnt/incoming/t/large && echo same').stdout, 'same\n', 'after kill -9')
    sandbox.run('python3', ['-c', copier, '100', '50', 'synced'])
    t.is(sandbox.sh('cmp plain/synced mnt/incoming/t/synced && echo same').stdout, 'same\n')
    sandbox.sh('mv mnt/incoming/t mnt/made')
    t.is(sandbox.sh('diff -r plain mnt/made && echo same').stdout, 'same\n', 'in the archive')
    await eventually('the staging folder is empty', () => stagedBytes(sandbox) < 500_000)
    sandbox.unmount(mountpoint)
    sandbox.assertSound()
    t.is(overlappingNonces(sandbox.path('repo')), 0)
    const before = sandbox.sh('du -s -B1 repo').stdout
    sandbox.borg(['create', '../repo::again', '.'], { cwd: sandbox.path('plain') })
    const grown = Number(sandbox.sh('du -s -B1 repo').stdout.split('\t')[0]) - Number(before.split('\t')[0])
    // But for one place: where the process was killed, what followed was cut by the commit, from the chunk before on.
    t.true(grown < 300_000, `${grown}`)
  } finally {
    sandbox.close()
  }
})

run('what the repository has takes no room in the staging folder, and what is new lies there compressed and sealed', async t => {
  const sandbox = new Sandbox('drive-room')
  try {
    sandbox.sh('mkdir -p source/small; head -c 12M /dev/urandom > source/large; for n in {1..100}; do echo "known file $n" > source/small/$n; done')
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    sandbox.borg(['create', '../repo::one', '.'], { cwd: sandbox.path('source') })
    const mountpoint = sandbox.mount('repo', { args: quiet })
    sandbox.sh('cp -a source mnt/incoming/t')
    await eventually('what is known is only named', () => stagedBytes(sandbox) < 1 << 20)
    sandbox.sh('for n in {1..30}; do { yes "a line of a new file that nobody may read" || true; } | head -c 1M | sed "s/^/$n /" > mnt/incoming/t/new$n; done; for n in {1..100}; do echo "a line of a small file, number $n" > mnt/incoming/t/small/new$n; done')
    await eventually('what is new is compressed', () => stagedBytes(sandbox) < 2 << 20)
    t.is(sandbox.sh('grep -rl "a line of a" home/.cache/borg/*/staging', { ok: 'any' }).stdout, '')
    t.is(sandbox.sh('cmp source/large mnt/incoming/t/large && diff -r source/small mnt/incoming/t/small | grep -vc ^Only', { ok: 'any' }).stdout, '0\n')
    // Killed, found again, and archived from what is there.
    await sandbox.killMount()
    sandbox.mount('repo', { args: quiet })
    t.is(sandbox.sh('cat mnt/incoming/t/small/new100; tail -c 40 mnt/incoming/t/new30').stdout.startsWith('a line of a small file, number 100\n'), true)
    sandbox.sh('cp -a mnt/incoming/t copy; mv mnt/incoming/t mnt/two')
    t.is(sandbox.sh('diff -r copy mnt/two && echo same').stdout, 'same\n')
    await eventually('the staging folder is empty', () => stagedBytes(sandbox) < 500_000)
    sandbox.unmount(mountpoint)
    sandbox.assertSound()
    t.is(overlappingNonces(sandbox.path('repo')), 0)
    // The chunks of a file that was written from front to back are those that borg would have made.
    const before = sandbox.sh('du -s -B1 repo').stdout
    sandbox.borg(['create', '../repo::three', '.'], { cwd: sandbox.path('copy') })
    t.true(Number(sandbox.sh('du -s -B1 repo').stdout.split('\t')[0]) - Number(before.split('\t')[0]) < 300_000)
  } finally {
    sandbox.close()
  }
})

run('while another client has the repository nothing is sealed, and what is copied is saved all the same', async t => {
  const sandbox = new Sandbox('drive-cut-lock')
  try {
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    const mountpoint = sandbox.mount('repo', { args: quiet })
    sandbox.sh('mkdir mnt/incoming/first; echo x > mnt/incoming/first/f; mv mnt/incoming/first mnt/first')
    const holder = sandbox.start('borg', ['--lock-wait', '60', 'with-lock', 'repo', 'sleep', '100'])
    await eventually('the lock is held', () => sandbox.run('pgrep', ['-P', String(holder.pid)], { ok: 'any' }).stdout !== '')
    sandbox.sh('mkdir mnt/incoming/t plain; head -c 4M /dev/zero | tee plain/large > mnt/incoming/t/large; for n in {1..50}; do echo $n | tee plain/$n > mnt/incoming/t/$n; done; sleep 1')
    t.is(sandbox.sh('ls home/.cache/borg/*/staging/chunks').stdout, '')
    t.is(sandbox.sh('diff -r plain mnt/incoming/t && echo same').stdout, 'same\n')
    sandbox.sh(`pkill -P ${holder.pid}`)
    await eventually('it is cut when the lock is free', () => sandbox.sh('ls home/.cache/borg/*/staging/chunks').stdout !== '')
    sandbox.sh('mv mnt/incoming/t mnt/made')
    t.is(sandbox.sh('diff -r plain mnt/made && echo same').stdout, 'same\n')
    sandbox.unmount(mountpoint)
    sandbox.assertSound()
  } finally {
    sandbox.close()
  }
})

/** Small files that are cut, then grow by a hole and by what an archive has. */
const cloner = String.raw`
import glob, os, time
def stash(): return sum(os.path.getsize(path) for path in glob.glob('home/.cache/borg/*/staging/chunks/*'))
source = os.open('mnt/source/large', os.O_RDONLY)
for n in range(8):
    path, before = f'mnt/incoming/t/f{n}', stash()
    with open(path, 'wb') as f: f.write(os.urandom(500))
    while stash() == before: time.sleep(0.02)
    time.sleep(0.05)
    file = os.open(path, os.O_RDWR)
    os.ftruncate(file, 2000000)
    assert os.copy_file_range(source, file, 600, 30000, 700000) == 600
    if n % 2 == 1: os.pwrite(file, b'behind', 1900000)
    os.close(file)
`

run('chunks that are laid over a file which was cut as a small one stay when more of it is cut', async t => {
  const sandbox = new Sandbox('drive-cut-clone')
  try {
    sandbox.sh('mkdir source; head -c 300000 /dev/urandom > source/large')
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    sandbox.borg(['create', '../repo::source', '.'], { cwd: sandbox.path('source') })
    const mountpoint = sandbox.mount('repo', { args: quiet })
    sandbox.sh('mkdir mnt/incoming/t')
    sandbox.run('python3', ['-c', cloner])
    const kept = readFileSync(sandbox.path('source/large')).subarray(30000, 30600)
    const judge = (folder: string): void => {
      for (let n = 0; n < 8; n++) t.true(readFileSync(join(folder, `f${n}`)).subarray(700_000, 700_600).equals(kept), `${folder}/f${n}`)
    }
    // Whatever is to be cut of them is cut before.
    sandbox.sh('mv mnt/incoming/t mnt/saved')
    judge(join(mountpoint, 'saved'))
    sandbox.unmount(mountpoint)
    sandbox.sh('mkdir out; cd out; borg extract ../repo::saved')
    judge(sandbox.path('out'))
  } finally {
    sandbox.close()
  }
})
