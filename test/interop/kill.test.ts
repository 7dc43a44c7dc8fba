/**
 * kill -9 of the mount while staging and while committing: afterwards borg's check is clean, older archives are whole, and
 * every file fsynced before the kill is in incoming/ at the next mount or in an archive.
 */
import test from 'ava'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { eventually, haveBorg, isRoot, Sandbox } from '../helpers/sandbox.js'
import { differencesBelow, makeSmallFiles } from '../helpers/trees.js'

const moments = Number(process.env.BORGFS_KILL_MOMENTS ?? 20)
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
