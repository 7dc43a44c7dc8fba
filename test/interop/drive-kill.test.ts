/** kill -9 while trees are changed and saved again and again: nothing that was answered is lost, and one tree never becomes two archives. */
import test from 'ava'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { eventually, haveBorg, isRoot, Sandbox } from '../helpers/sandbox.js'

/** BORGFS_KILL_MOMENTS as in kill.test.ts. */
const rounds = Number(process.env.BORGFS_KILL_MOMENTS ?? 5)
const run = haveBorg && isRoot ? test.serial : test.serial.skip
if (!haveBorg || !isRoot) console.error('SKIPPED aloud: test/interop/drive-kill compares with the real borg as root')

/** Writes numbered files until it is killed or the mount is; says which number was closed last. */
const writer = String.raw`
import os, sys, time
n = int(sys.argv[1])
try:
    while True:
        n += 1
        for tree in ('incoming/box', 'live/set'):
            with open(f'mnt/{tree}/f{n % 20}', 'w') as f: f.write(f'{n} ' * (1 + n % 3000))
            try: os.remove(f'mnt/{tree}/f{(n + 7) % 20}')
            except FileNotFoundError: pass
        with open('last.new', 'w') as f: f.write(str(n))
        os.replace('last.new', 'last')
        time.sleep(0.003)
except OSError: pass
`

function expected(last: number): Map<string, string> {
  const files = new Map<string, string>()
  for (let n = 1; n <= last; n++) {
    files.set(`f${n % 20}`, `${n} `.repeat(1 + (n % 3000)))
    files.delete(`f${(n + 7) % 20}`)
  }
  return files
}

run('a drive that is killed while it saves incoming/ and live/ over and over shows afterwards what was written', async t => {
  const sandbox = new Sandbox('drive-kill')
  try {
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    sandbox.sh('mkdir source; echo x > source/x; borg create repo::set-2026-01-01 source')
    const mountpoint = sandbox.mkdir('mnt')
    let last = 0
    for (let round = 0; round < rounds; round++) {
      sandbox.mount('repo', { args: ['-o', 'settle=0,linger=60,live=set'] })
      sandbox.sh(round === 0 ? 'mkdir mnt/incoming/box; echo 0 > last' : 'mkdir -p mnt/incoming/box')
      // Settle 0 saves whenever nothing is open for writing at a tick.
      const process_ = sandbox.start('python3', ['-c', writer, String(last)])
      // On a busy machine it begins late.
      await eventually('something was written', () => Number(readFileSync(sandbox.path('last'), 'latin1')) > last)
      await new Promise(resolve => setTimeout(resolve, 500 + ((round * 7919) % 900)))
      process_.kill('SIGSTOP')
      // What was done a moment ago is the host's.
      await new Promise(resolve => setTimeout(resolve, 150))
      for (const pid of sandbox.processes().filter(pid => pid !== process_.pid)) process.kill(pid, 'SIGKILL')
      process_.kill('SIGKILL')
      await sandbox.allEnded()
      sandbox.sh('umount -l mnt')
      last = Number(readFileSync(sandbox.path('last'), 'latin1'))
      sandbox.mount('repo', { args: ['-o', 'settle=1000,linger=1000,live=set'] })
      // A tree that was an archive at the end, and did not change since, is only that.
      const box = existsSync(join(mountpoint, 'incoming/box')) ? 'incoming/box' : '.borgfs/latest/box'
      for (const place of [box, 'live/set']) {
        // One step beyond the last may have begun.
        const seen = new Map(readdirSync(join(mountpoint, place)).filter(name => name.startsWith('f')).map(name => [name, readFileSync(join(mountpoint, place, name), 'latin1')]))
        const beyond = (last + 1) % 20
        const [wanted, next] = [expected(last), expected(last + 1)]
        for (const name of new Set([...seen.keys(), ...wanted.keys()])) {
          if (name === `f${beyond}` || name === `f${(beyond + 7) % 20}`) {
            t.true(seen.get(name) === wanted.get(name) || seen.get(name) === next.get(name) || name === `f${beyond}`, `${place}/${name} in round ${round}`)
          } else t.is(seen.get(name), wanted.get(name), `${place}/${name} in round ${round}`)
        }
      }
      // The writer goes on from here: what the last step left half done is made good.
      sandbox.sh('mkdir -p mnt/incoming/box; rm -f mnt/incoming/box/f* mnt/live/set/f*')
      for (const tree of ['incoming/box', 'live/set']) for (const [name, content] of expected(last)) writeFileSync(join(mountpoint, tree, name), content, 'latin1')
      await sandbox.killMount()
    }
    sandbox.mount('repo', { args: ['-o', 'settle=1000,linger=1000'] })
    sandbox.borgfs(['commit', mountpoint, 'incoming/box'])
    t.is(sandbox.sh('getfattr --only-values -n user.borgfs.state mnt/incoming/box').stdout.startsWith('committed box-'), true)
    sandbox.unmount(mountpoint)
    sandbox.assertSound()
  } finally {
    sandbox.close()
  }
})
