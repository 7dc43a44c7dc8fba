/** The beginning and the end of a repository, and changes of its key, on a disk that forgets and fails (docs/reliability.md). */
import test from 'ava'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { crash, crashStates, fail, type Operation, sample, World } from '../helpers/faults.js'
import { DiskModel } from '../helpers/disk-model.js'
import { Sandbox } from '../helpers/sandbox.js'

function oneArchive(world: World): void {
  world.sandbox.sh('mkdir -p source; echo hello > source/hello')
  world.borgfs(['init', '-e', 'repokey', 'world/repo'])
  world.borgfs(['create', 'world/repo::monday', 'source'])
}

const operations: Operation[] = [
  { name: 'key import', repeatable: true, args: ['key', 'import', 'world/repo', 'exported'], setUp(world) {
    oneArchive(world)
    world.borgfs(['key', 'export', 'world/repo', 'exported'])
    world.borgfs(['key', 'change-passphrase', 'world/repo'])
  } },
  { name: 'upgrade --tam', repeatable: true, args: ['upgrade', '--tam', '--force', 'world/repo'], setUp(world) {
    oneArchive(world)
    world.borgfs(['upgrade', '--disable-tam', 'world/repo'])
  } },
  { name: 'upgrade --disable-tam', repeatable: true, args: ['upgrade', '--disable-tam', 'world/repo'], setUp: oneArchive },
]

for (const operation of operations) {
  test(`after any crash of ${operation.name} the repository can be used, and it can be repeated`, async t => {
    const sandbox = new Sandbox('crash-key')
    try {
      t.log(JSON.stringify(await crash(t, sandbox, operation, { states: 20, repeats: 2, checks: 1, kills: 1 })))
    } finally {
      sandbox.close()
    }
  })

  test(`whichever call of ${operation.name} fails, the repository can be used, and it can be repeated`, async t => {
    const sandbox = new Sandbox('fail-key')
    try {
      t.log(`${await fail(t, sandbox, operation, { points: 4 })} calls failed`)
    } finally {
      sandbox.close()
    }
  })
}

test('after any crash of init there is a repository, or nothing that a clear sentence does not tell of', t => {
  const sandbox = new Sandbox('crash-init')
  try {
    const world = new World(sandbox)
    sandbox.sh('mkdir -p source; echo hello > source/hello')
    const model = new DiskModel(world.root)
    const { calls } = world.faulty(['init', '-e', 'repokey', 'world/repo'], undefined, { ok: [0] })
    let whole = 0
    for (const state of sample([...crashStates(model, calls, 1)], 14, 1)) {
      const label = `${state.calls} of ${calls.length} calls, lost: ${state.loss}`
      world.restoreUnlocked(state.tree)
      const listed = world.borgfs(['list', 'world/repo'], { ok: 'any' })
      t.notRegex(listed.stderr, /\n\s+at |Traceback|undefined/, label)
      if (listed.rc === 0) {
        whole++
        world.borgfs(['create', 'world/repo::first', 'source'])
        t.is(world.borgfs(['list', '--short', 'world/repo']).stdout, 'first\n', label)
      } else {
        t.true(listed.rc > 2 && listed.rc < 100, `${label}: ${listed.rc} ${listed.stderr}`)
        // What is there is removed by whoever tried, and init begins anew.
        const again = world.borgfs(['init', '-e', 'repokey', 'world/repo'], { ok: 'any' })
        t.notRegex(again.stderr, /\n\s+at |undefined/, label)
        if (again.rc !== 0) t.regex(again.stderr, /already (?:exists|something)/, `${label}: ${again.stderr}`)
        t.false(state.calls === calls.length, `${label}: init had said that it was done`)
      }
    }
    t.true(whole > 0)
  } finally {
    sandbox.close()
  }
})

test('after any crash of deleting a repository it is whole, or no repository, and what is left is deleted by hand', async t => {
  const sandbox = new Sandbox('crash-destroy')
  try {
    const world = new World(sandbox)
    oneArchive(world)
    const before = world.snapshot()
    world.restore(before)
    const auditBefore = await world.audit()
    const model = new DiskModel(world.root)
    const { calls } = world.faulty(['delete', 'world/repo'], undefined, { ok: [0] })
    t.false(existsSync(world.repository))
    let whole = 0, gone = 0
    for (const state of sample([...crashStates(model, calls, 1)], 14, 1)) {
      const label = `${state.calls} of ${calls.length} calls, lost: ${state.loss}`
      world.restoreUnlocked(state.tree)
      if (existsSync(join(world.repository, 'config'))) {
        whole++
        const found = await world.audit()
        t.deepEqual([found.problems, [...found.archives]], [[], [...auditBefore.archives]], label)
        world.borgfs(['delete', 'world/repo'])
        t.false(existsSync(world.repository), label)
      } else {
        gone++
        const listed = world.borgfs(['list', 'world/repo'], { ok: 'any' })
        t.true([13, 15].includes(listed.rc), `${label}: ${listed.rc} ${listed.stderr}`)
      }
    }
    t.true(whole > 0 && gone > 0)
    for (const fault of [{ at: 1, action: 'EIO' }, { at: 3, action: 'EIO' }, { at: 8, action: 'EIO', sticky: true }] as const) {
      world.restoreUnlocked(before)
      const ran = world.faulty(['delete', 'world/repo'], fault)
      t.not(ran.rc, 0, JSON.stringify(fault))
      t.notRegex(ran.stderr, /\n\s+at |undefined/, JSON.stringify(fault))
      if (existsSync(join(world.repository, 'config'))) t.deepEqual((await world.audit()).problems, [], JSON.stringify(fault))
    }
  } finally {
    sandbox.close()
  }
})
