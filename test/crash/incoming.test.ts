/** A drive's commit on a disk that forgets: the archive exists whole or not at all, and what was fsynced is in it or in incoming/. */
import test from 'ava'
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { DiskModel, digestOf } from '../helpers/disk-model.js'
import { crashStates, everything, readCalls, sample, some, World } from '../helpers/faults.js'
import { canMount } from '../helpers/mount.js'
import { eventually, haveBorg, Sandbox } from '../helpers/sandbox.js'

const run = canMount ? test.serial : test.serial.skip
if (!canMount) console.error('SKIPPED aloud: test/crash/incoming needs to mount')

/** What was cut before the commit is so much that its file becomes a segment as it is. */
const largeBytes = 1_300_000
// Every file and the directory are fsynced, as a careful copier does it.
const writer = String.raw`
import hashlib, os, sys
target = sys.argv[1]
os.mkdir(target)
for i in range(6):
    fd = os.open(os.path.join(target, 'f%d' % i), os.O_WRONLY | os.O_CREAT, 0o640)
    os.write(fd, ('content %d\n' % i).encode() * (1 + 1000 * i))
    os.fsync(fd)
    os.close(fd)
with open(os.path.join(target, 'large'), 'wb') as f:
    f.write(hashlib.shake_128(b'large').digest(${largeBytes}))
    f.flush()
    os.fsync(f.fileno())
fd = os.open(target, os.O_RDONLY)
os.fsync(fd)
os.close(fd)
`
const names = [...Array.from({ length: 6 }, (_, index) => `f${index}`), 'large']
const content = (name: string): string => name === 'large'
  ? createHash('shake128', { outputLength: largeBytes }).update('large').digest().toString('latin1')
  : `content ${name.slice(1)}\n`.repeat(1 + 1000 * Number(name.slice(1)))

run('after any crash of a commit the archive is whole or absent, and every fsynced file is in it or in incoming/', async t => {
  const sandbox = new Sandbox('crash-incoming')
  try {
    const world = new World(sandbox)
    sandbox.sh('mkdir source; echo old > source/old')
    world.begin('repokey', 'old')
    world.restore(world.snapshot())
    const [model, told] = [new DiskModel(world.root), new DiskModel(world.root)]
    const before = await world.audit()

    const { env, log } = world.watched()
    const options = { args: ['-o', 'settle=3600,refresh=0'], env }
    let mountpoint = sandbox.mount('world/repo', options)
    sandbox.run('python3', ['-c', writer, join(mountpoint, 'incoming', 'tree')])
    const fsynced = readCalls(log).length
    const stash = join(sandbox.sh('echo world/home/.cache/borg/*/staging/chunks').stdout.trim())
    await eventually('the large file is cut', () => readdirSync(sandbox.path(stash)).some(name => statSync(join(sandbox.path(stash), name)).size > largeBytes))
    sandbox.sh(`mv ${mountpoint}/incoming/tree ${mountpoint}/archive`)
    const renamed = readCalls(log).length
    await sandbox.leave(mountpoint)
    const calls = readCalls(log)
    t.true(calls.some(({ main }) => !main) && calls.some(({ main }) => main), 'both threads were watched')
    t.true(calls.some(call => call.op === 'link' && call.to.includes('/repo/data/')), 'a file of the stash became a segment')
    for (const call of calls) told.apply(call)
    t.is(digestOf(told.after('nothing'), /^$/), digestOf(world.snapshot(), /^$/), 'something was changed that the layer did not see')
    const after = await world.audit()
    t.deepEqual(after.problems, [])
    t.true(after.archives.has('archive'))

    const all = [...crashStates(model, calls, everything ? 6 : 2)].filter(state => state.calls >= fsynced - 20)
    const states = sample(all, 60, 1)
    const [mounted, checked] = [new Set(some(states, everything ? 40 : 8, 2)), new Set(haveBorg ? some(states, everything ? 20 : 2, 3) : [])]
    for (const state of states) {
      const label = `${state.calls} of ${calls.length} calls (fsynced at ${fsynced}, renamed at ${renamed}), lost: ${state.loss}`
      world.restoreUnlocked(state.tree)
      const found = await world.audit()
      t.deepEqual(found.problems, [], label)
      const made = found.archives.has('archive')
      t.is(found.archives.get('old'), before.archives.get('old'), label)
      if (made) t.is(found.archives.get('archive'), after.archives.get('archive'), label)
      t.is(found.archives.size, made ? 2 : 1, label)
      if (state.calls >= renamed) t.true(made, `${label}: rename returned, but the archive is lost`)
      if (checked.has(state)) t.is(world.borgCheck(), undefined, label)
      if (!mounted.has(state)) continue
      mountpoint = sandbox.mount('world/repo', { args: options.args, env: world.env })
      const [staged, archived] = [join(mountpoint, 'incoming', 'tree'), join(mountpoint, 'archive')]
      t.is(existsSync(archived), made, label)
      t.false(made && existsSync(staged), `${label}: staged and committed at once`)
      if (state.calls >= fsynced) for (const name of names) t.true(readFileSync(join(made ? archived : staged, name), 'latin1') === content(name), `${label}: ${name}`)
      // The commit can be repeated.
      if (!made && state.calls >= fsynced) {
        sandbox.sh(`mv ${staged} ${archived}`)
        t.is(readFileSync(join(archived, 'f5'), 'utf8'), content('f5'), label)
      }
      await sandbox.leave(mountpoint)
      t.deepEqual((await world.audit()).problems, [], label)
    }
    t.log(`${calls.length} calls, ${states.length} states, ${mounted.size} mounted again, ${checked.size} checked by borg`)
  } finally {
    sandbox.close()
  }
})
