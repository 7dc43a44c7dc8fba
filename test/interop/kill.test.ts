/**
 * kill -9 of the mount while staging and while committing: afterwards borg's check is clean, older archives are whole, and
 * every file fsynced before the kill is in incoming/ at the next mount or in an archive. BORGFS_KILL_MOMENTS=N takes as many moments of each kind.
 */
import test from 'ava'
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { eventually, haveBorg, isRoot, Sandbox } from '../helpers/sandbox.js'
import { differencesBelow, makeSmallFiles } from '../helpers/trees.js'

const moments = Number(process.env.BORGFS_KILL_MOMENTS ?? 20)
/** Of large files, which take longer. */
const growingMoments = process.env.BORGFS_KILL_MOMENTS ? moments : 2
/** Many fsyncs on a busy machine. */
const patienceMs = 120_000
const run = haveBorg && isRoot ? test.serial : test.serial.skip
if (!haveBorg || !isRoot) console.error('SKIPPED aloud: test/interop/kill judges by the real borg as root')

// Writes files with known contents, fsyncs each, and notes its name after fsync returned. Then tries to commit, if asked.
const writer = String.raw`
import os, sys
target, noted, commit = sys.argv[1], sys.argv[2], sys.argv[3]
os.makedirs(target, exist_ok=True)
log = os.open(noted, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
try:
    for i in range(100000 if commit == '-' else 150):
        name = 'f%05d' % i
        fd = os.open(os.path.join(target, name), os.O_WRONLY | os.O_CREAT, 0o640)
        os.write(fd, (name + '\n').encode() * (1 + i * 37 % 4000))
        os.fsync(fd)
        os.close(fd)
        os.write(log, (name + '\n').encode())
    if commit != '-':
        os.write(log, b'COMMITTING\n')
        os.rename(target, commit)
        os.write(log, b'COMMITTED\n')
except OSError as e:
    sys.exit(0)
`

function expected(name: string): string {
  const index = Number(name.slice(1))
  return `${name}\n`.repeat(1 + ((index * 37) % 4000))
}

function serving(sandbox: Sandbox, mountpoint: string): number[] {
  return sandbox.run('pgrep', ['-f', `mount.*${mountpoint}`], { ok: 'any' }).stdout.split('\n').filter(Boolean).map(Number)
}

for (const phase of ['staging', 'committing'] as const) {
  run(`killed at ${moments} moments while ${phase}, nothing fsynced is lost and the repository is clean`, async t => {
    const sandbox = new Sandbox(`kill-${phase}`)
    try {
      const older = makeSmallFiles(sandbox, 'older', 60)
      sandbox.borg(['init', '-e', 'repokey', 'repo'])
      sandbox.borg(['create', '../repo::older', '.'], { cwd: older })
      for (let moment = 0; moment < moments; moment++) {
        const name = `tree-${moment}`
        let mountpoint = sandbox.mount('repo', { args: ['-o', 'settle=3600'] })
        const noted = sandbox.path(`noted-${moment}`)
        const child = sandbox.start('python3', ['-c', writer, join(mountpoint, 'incoming', name), noted, phase === 'staging' ? '-' : join(mountpoint, name)])
        const lines = () => (existsSync(noted) ? readFileSync(noted, 'utf8').split('\n').filter(Boolean) : [])
        if (phase === 'staging') await eventually('some files', () => lines().length > moment * 3, patienceMs)
        else {
          await eventually('the commit begins', () => lines().includes('COMMITTING'), patienceMs)
          await new Promise(resolve => setTimeout(resolve, moment * 12))
        }
        const pids = serving(sandbox, mountpoint)
        for (const pid of pids) process.kill(pid, 'SIGKILL')
        // To borg a process that nobody has collected yet is alive, and so its lock.
        await eventually('the killed process is collected', () => pids.every(pid => !existsSync(`/proc/${pid}`)), patienceMs)
        await eventually('the writer ends', () => child.exitCode !== null || child.signalCode !== null, patienceMs)
        const fsynced = lines().filter(line => line.startsWith('f'))
        const committed = lines().includes('COMMITTED')
        sandbox.sh(`umount -l mnt`, { ok: 'any' })

        // A stale lock of the killed process is cleared by borg itself.
        sandbox.assertSound()
        const archives = sandbox.archives()
        t.true(archives.includes('older'))
        if (committed) t.true(archives.includes(name), `moment ${moment}: rename returned, but no archive`)

        mountpoint = sandbox.mount('repo', { args: ['-o', 'settle=3600'] })
        const places = [join(mountpoint, 'incoming', name), join(mountpoint, name)].filter(place => existsSync(place))
        t.true(places.length > 0 || fsynced.length === 0, `moment ${moment}: the tree is nowhere`)
        t.true(places.length <= 1, `moment ${moment}: staged and committed at once`)
        for (const file of fsynced) {
          const content = places.map(place => join(place, file)).filter(path => existsSync(path)).map(path => readFileSync(path, 'utf8'))[0]
          t.true(content === expected(file), `moment ${moment}: ${file} is ${content === undefined ? 'lost' : 'different'}`)
        }
        if (phase === 'staging') sandbox.sh(`rm -rf mnt/incoming/${name}`)
        else if (existsSync(join(mountpoint, 'incoming', name))) sandbox.sh(`rm -rf mnt/incoming/${name}`)
        sandbox.unmount(mountpoint)
      }
      const out = sandbox.mkdir('out')
      sandbox.borg(['extract', '../repo::older'], { cwd: out })
      t.is(differencesBelow(sandbox, older, out), '')
      // The next commit removes what a killed one left, be it of the last moment or of one before.
      writeFileSync(sandbox.path('repo', 'nonce-0a_b1c2d.tmp'), 'half')
      sandbox.borgfs(['create', 'repo::last', 'out'])
      t.deepEqual(readdirSync(sandbox.path('repo')).filter(file => file.endsWith('.tmp')), [])
    } finally {
      sandbox.close()
    }
  })
}

/*
 * Lets one large file grow and changes another one that grows, in a new pair of files each round. Each operation is noted before and after it: `w FILE OFFSET LENGTH SEED`,
 * `t FILE SIZE`, then `.`.
 */
const grower = String.raw`
import hashlib, os, random, sys
target, noted, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
rng = random.Random(seed)
os.makedirs(target, exist_ok=True)
log = os.open(noted, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def note(line): os.write(log, (line + '\n').encode())
number = seed * 1000000
def write(fd, name, offset, length):
    global number
    number += 1
    note(f'w {name} {offset} {length} {number}')
    data = hashlib.shake_128(str(number).encode()).digest(length)
    assert os.pwrite(fd, data, offset) == length
    note('.')
try:
    for pair in range(1000):
        grown, changed = f'grown{pair}', f'changed{pair}'
        a = os.open(os.path.join(target, grown), os.O_WRONLY | os.O_CREAT, 0o644)
        b = os.open(os.path.join(target, changed), os.O_RDWR | os.O_CREAT, 0o644)
        size = 0
        for step in range(48 if pair % 2 == 0 else 20):
            write(a, grown, step << 20, 1 << 20)
            write(b, changed, size, 900001)
            size += 900001
            if step % 8 == 5: write(b, changed, rng.randrange(size), rng.randrange(1, 200000))
            if step % 20 == 19:
                size -= rng.randrange(size // 2)
                note(f't {changed} {size}')
                os.ftruncate(b, size)
                note('.')
            if step % 16 == 7: os.fsync(a if rng.random() < 0.5 else b)
        os.close(a)
        os.close(b)
except OSError as e:
    sys.exit(0)
`

interface Grown {
  bytes: Buffer
  size: number
}

/** What the noted operations made of each file. `open`: where the last one may have changed more than was noted. */
function replayed(lines: readonly string[]): { files: Map<string, Grown>; open: { name: string; from: number; to: number } | undefined } {
  const files = new Map<string, Grown>()
  let open: { name: string; from: number; to: number } | undefined
  for (const [index, line] of lines.entries()) {
    const [kind, name = '', ...rest] = line.split(' ')
    const [offset = 0, length = 0, seed = 0] = rest.map(Number)
    if (kind === '.') continue
    const file = files.get(name) ?? { bytes: Buffer.alloc(96 << 20), size: 0 }
    files.set(name, file)
    const done = lines[index + 1] === '.'
    if (kind === 'w') {
      if (done) createHash('shake128', { outputLength: length }).update(String(seed)).digest().copy(file.bytes, offset)
      else open = { name, from: offset, to: offset + length }
      if (done) file.size = Math.max(file.size, offset + length)
    } else if (done) {
      file.bytes.fill(0, offset, file.size)
      file.size = offset
    } else open = { name, from: offset, to: file.size }
  }
  return { files, open }
}

run(`killed at ${growingMoments} moments while large files grow, all that was answered is there, and is saved by the next mount`, async t => {
  const sandbox = new Sandbox('kill-growing')
  try {
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    for (let moment = 0; moment < growingMoments; moment++) {
      const tree = `tree-${moment}`
      let mountpoint = sandbox.mount('repo', { args: ['-o', 'settle=3600'] })
      const noted = sandbox.path(`noted-${moment}`)
      const child = sandbox.start('python3', ['-c', grower, join(mountpoint, 'incoming', tree), noted, String(moment + 1)])
      const lines = (): string[] => (existsSync(noted) ? readFileSync(noted, 'utf8').split('\n').slice(0, -1) : [])
      await eventually('it has begun', () => lines().length > 0, patienceMs)
      await new Promise(resolve => setTimeout(resolve, 50 + ((moment * 7919) % 1200)))
      const pids = serving(sandbox, mountpoint)
      for (const pid of pids) process.kill(pid, 'SIGKILL')
      await eventually('the killed process is collected', () => pids.every(pid => !existsSync(`/proc/${pid}`)), patienceMs)
      await eventually('the writer ends', () => child.exitCode !== null || child.signalCode !== null, patienceMs)
      sandbox.sh('umount -l mnt', { ok: 'any' })
      t.regex(sandbox.borg(['check', '-v', 'repo']).stderr, /no problems found/, `moment ${moment}`)

      mountpoint = sandbox.mount('repo', { args: ['-o', 'settle=3600'] })
      const { files, open } = replayed(lines())
      const judge = (folder: string, where: string): void => {
        for (const [name, { bytes, size }] of files) {
          const label = `moment ${moment}, ${where}: ${name}`
          if (!existsSync(join(folder, name))) {
            t.true(size === 0, `${label} is lost`)
            continue
          }
          const found = readFileSync(join(folder, name))
          const [from, to] = open?.name === name ? [open.from, open.to] : [Infinity, 0]
          t.true(from === Infinity ? found.length === size : found.length >= Math.min(size, from) && found.length <= Math.max(size, to), `${label} has ${found.length} bytes, not ${size}`)
          const end = Math.min(size, found.length)
          t.true(found.subarray(0, Math.min(end, from)).equals(bytes.subarray(0, Math.min(end, from))), `${label} differs`)
          if (to < end) t.true(found.subarray(to, end).equals(bytes.subarray(to, end)), `${label} differs behind`)
        }
      }
      judge(join(mountpoint, 'incoming', tree), 'staged')
      // It goes on, and is saved.
      writeFileSync(join(mountpoint, 'incoming', tree, 'more'), 'more')
      sandbox.unmount(mountpoint)
      const archive = sandbox.borg(['list', '--short', '--last', '1', 'repo']).stdout.trim()
      const out = sandbox.mkdir('out')
      sandbox.borg(['extract', `../repo::${archive}`], { cwd: out })
      t.is(readFileSync(join(out, 'more'), 'latin1'), 'more')
      judge(out, 'extracted')
      sandbox.sh('rm -rf out')
      sandbox.borg(['delete', `repo::${archive}`])
      if (moment % 10 === 9) sandbox.borg(['compact', 'repo'])
    }
    t.regex(sandbox.borg(['check', '--verify-data', '-v', 'repo']).stderr, /no problems found/)
  } finally {
    sandbox.close()
  }
})
