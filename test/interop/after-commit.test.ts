/** What goes wrong after a COMMIT is a warning: what was done is done, and the next command goes on from it. */
import test from 'ava'
import { World } from '../helpers/faults.js'
import { haveBorg, Sandbox } from '../helpers/sandbox.js'

const run = haveBorg ? test : test.skip
if (!haveBorg) console.error('SKIPPED aloud: test/interop/after-commit asks the real borg')

const commands: readonly (readonly [name: string, args: readonly string[], archives: string])[] = [
  ['delete', ['delete', 'world/repo::one'], 'three\ntwo\n'],
  ['prune', ['prune', '--keep-last', '1', 'world/repo'], 'three\n'],
  ['rename', ['rename', 'world/repo::one', 'eins'], 'eins\nthree\ntwo\n'],
  ['recreate', ['recreate', '--comment', 'new', 'world/repo::one'], 'one\nthree\ntwo\n'],
  ['create', ['create', 'world/repo::four', 'source'], 'four\none\nthree\ntwo\n'],
  ['delete --force twice', ['delete', '--force', '--force', 'world/repo::one'], 'three\ntwo\n'],
  ['check --repair', ['check', '--repair', 'world/repo'], 'one\nthree\ntwo\n'],
]

run('a security folder that cannot be written to after the COMMIT fails no command', async t => {
  const sandbox = new Sandbox('after-commit')
  try {
    const world = new World(sandbox)
    sandbox.sh('mkdir source; seq 1000 > source/numbers')
    world.begin('none', 'one', 'two', 'three')
    const before = world.snapshot()
    for (const [name, args, archives] of commands) {
      world.restoreUnlocked(before)
      const { calls } = world.faulty(args, undefined, { ok: [0] })
      // The first call for the security folder after the last COMMIT; and all that follow it there.
      const first = calls.findIndex(call => JSON.stringify(call).includes('manifest-timestamp'))
      t.true(first >= 0, `${name} notes the manifest's time`)
      world.restoreUnlocked(before)
      const ran = world.faulty(args, { at: first + 1, action: 'EIO' })
      t.regex(ran.stderr, /^What was done is saved, but not what this client remembers of the repository .*world\/repo: /m, name)
      t.true(ran.rc < 2 || ran.rc >= 100, `${name}: exit code ${ran.rc}\n${ran.stderr}`)
      t.is(world.borgfs(['list', '--short', '--sort-by', 'name', 'world/repo']).stdout, archives, name)
      // Deleting by force twice leaves its objects to check --repair.
      if (!name.includes('twice')) t.is(world.borgCheck(), undefined, name)
    }
  } finally {
    sandbox.close()
  }
})
