/** The beginning and the end of a repository, and changes of its key, on a disk that forgets and fails (docs/reliability.md). */
import test from 'ava'
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { haveBorgRepository } from '../helpers/borg-repository.js'
import { crashStates, everything, type Fault, type Operation, sample, tryOperation, World } from '../helpers/faults.js'
import { DiskModel } from '../helpers/disk-model.js'
import { makePassphraseMode } from '../helpers/passphrase-mode.js'
import { haveBorg, Sandbox } from '../helpers/sandbox.js'

function oneArchive(world: World): void {
  world.sandbox.sh('mkdir -p source; echo hello > source/hello')
  world.begin('repokey', 'monday')
}

const operations: Operation[] = [
  // What it was before is no repository that is read any more.
  ...haveBorgRepository ? [{ name: 'key migrate-to-repokey', repeatable: false, repairs: true, args: ['key', 'migrate-to-repokey', 'world/repo'], setUp(world: World) {
    makePassphraseMode(world.sandbox, 'world/repo', world.env)
  } }] : [],
  { name: 'key import of a key file', repeatable: true, args: ['key', 'import', 'world/repo', 'exported'], setUp(world) {
    world.sandbox.sh('mkdir -p source; echo hello > source/hello')
    world.begin('keyfile', 'monday')
    world.borgfs(['key', 'export', 'world/repo', 'exported'])
    world.borgfs(['key', 'change-passphrase', 'world/repo'])
  } },
  { name: 'config --cache', repeatable: true, args: ['config', '--cache', 'world/repo', 'previous_location', '/elsewhere'], setUp: oneArchive },
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
  test(`after any crash of ${operation.name}, and whichever call of it fails, the repository can be used, and it can be repeated`, t =>
    tryOperation(t, operation, { states: 20, repeats: 2, checks: 1, kills: 1, points: 4 }))
}

test('after any crash of init there is a repository, or nothing that a clear sentence does not tell of', t => {
  const sandbox = new Sandbox('crash-init')
  try {
    const world = new World(sandbox)
    sandbox.sh('mkdir -p source; echo hello > source/hello')
    const model = new DiskModel(world.root)
    const { calls } = world.faulty(['init', '-e', 'repokey', 'world/repo'], undefined, { ok: [0] })
    let whole = 0, repeated = 0
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
        // It is repeated, unless a config is there: then whoever tried has to remove what may be more than that.
        const begun = existsSync(join(world.repository, 'config')) || world.sandbox.sh('cat world/repo/README || true').stdout.includes('\0')
        const again = world.borgfs(['init', '-e', 'repokey', 'world/repo'], { ok: 'any' })
        t.notRegex(again.stderr, /\n\s+at |undefined/, label)
        if (begun) t.regex(again.stderr, /already (?:exists|something)/, `${label}: ${again.stderr}`)
        else t.is(again.rc, 0, `${label}: ${again.stderr}`)
        repeated += Number(!begun)
        t.false(state.calls === calls.length, `${label}: init had said that it was done`)
      }
    }
    t.true(whole > 0 && repeated > 0)
  } finally {
    sandbox.close()
  }
})

for (const mode of ['repokey', 'keyfile']) {
  test(`${mode}: whichever call of init fails, a sentence tells of it, and nothing is in the way of the next one`, async t => {
    const sandbox = new Sandbox('fail-init')
    try {
      const world = new World(sandbox)
      sandbox.sh('mkdir -p source; echo hello > source/hello')
      const args = ['init', '-e', mode, 'world/repo']
      const options = { env: { BORG_KEY_FILE: mode === 'keyfile' ? sandbox.path('world/the-key') : undefined } }
      const calls = world.faulty(args, undefined, { ...options, ok: [0] }).calls.filter(({ main }) => main)
      const kinds: Omit<Fault, 'at'>[] = [{ action: 'EIO' }, { action: 'ENOSPC', sticky: true }, { action: 'short' }, { action: 'EDQUOT', sticky: true }]
      const faults = calls.flatMap((_, index) => kinds.filter((_kind, which) => everything || which === index % kinds.length).map(kind => ({ at: index + 1, ...kind })))
      const chosen = sample(faults, 14, 1)
      let failed = 0
      for (const fault of chosen) {
        const label = `${fault.action}${fault.sticky ? ' from' : ' at'} call ${fault.at} of ${calls.length} on (${JSON.stringify(calls[fault.at - 1]).slice(0, 150)})`
        world.restore(new Map())
        const ran = world.faulty(args, fault, options)
        t.notRegex(ran.stderr, /\n\s+at |Local Exception|undefined/, label)
        if (fault.action === 'short') t.is(ran.rc, 0, `${label}: ${ran.stderr}`)
        if (ran.rc !== 0) {
          failed++
          t.regex(ran.stderr, /injected|No space left|disk quota|the lock/, label)
          t.false(existsSync(world.repository) || existsSync(sandbox.path('world/the-key')), `${label}: something is left. ${ran.stderr}`)
          world.borgfs(args, options)
        }
        world.borgfs(['create', 'world/repo::first', 'source'], options)
        t.deepEqual((await world.audit(options.env)).problems, [], label)
      }
      t.true(failed > 5)
      if (haveBorg) t.is(world.borg(['list', '--short', 'world/repo'], options).stdout, 'first\n')
      t.log(`${chosen.length} calls failed, ${failed} of them init`)
    } finally {
      sandbox.close()
    }
  })
}

test('an init that fails leaves an empty folder that was there before, and nothing in it', t => {
  const sandbox = new Sandbox('fail-init-folder')
  try {
    const world = new World(sandbox)
    for (const at of [2, 6, 14]) {
      world.restore(new Map([['repo', undefined]]))
      t.not(world.faulty(['init', '-e', 'none', 'world/repo'], { at, action: 'EIO' }).rc, 0, String(at))
      t.deepEqual(readdirSync(world.repository), [], String(at))
    }
    world.borgfs(['init', '-e', 'none', 'world/repo'])
  } finally {
    sandbox.close()
  }
})

test('killed at any call of break-lock or with-lock, a repository is neither locked for good nor changed', async t => {
  const sandbox = new Sandbox('crash-locks')
  try {
    const world = new World(sandbox)
    oneArchive(world)
    const sound = world.snapshot()
    const { archives } = await world.audit()
    const foreign = 'elsewhere.example@123456789.77-0'
    mkdirSync(join(world.repository, 'lock.exclusive'))
    writeFileSync(join(world.repository, 'lock.exclusive', foreign), '')
    writeFileSync(join(world.repository, 'lock.roster'), JSON.stringify({ exclusive: [['elsewhere.example@123456789', 77, 0]] }))
    const locked = world.snapshot()
    let killed = 0
    for (const [args, before] of [[['break-lock', 'world/repo'], locked], [['with-lock', 'world/repo', 'true'], sound]] as const) {
      world.restore(before)
      const count = world.faulty(args, undefined, { ok: [0] }).calls.length
      for (let at = 1; at <= count; at++, killed++) {
        const label = `${args[0]}, killed before call ${at} of ${count}`
        world.restore(before)
        t.is(world.faulty(args, { at, action: 'kill' }).rc, 128, label)
        // The rest of a lock that nobody holds is in nobody's way; what is left of another's is broken again.
        if (args[0] === 'break-lock') world.borgfs(['break-lock', 'world/repo'])
        const program = haveBorg && at % 2 === 0 ? 'borg' : 'borgfs'
        world[program](['with-lock', 'world/repo', 'true'])
        const found = await world.audit()
        t.deepEqual([found.problems, [...found.archives]], [[], [...archives]], `${label}, then ${program}`)
      }
    }
    // A call that fails: a sentence, the lock is as it was or gone.
    for (const args of [['break-lock', 'world/repo'], ['with-lock', 'world/repo', 'true']]) {
      for (const at of [1, 2, 3]) {
        world.restore(args[0] === 'break-lock' ? locked : sound)
        const ran = world.faulty(args, { at, action: 'EIO' })
        t.not(ran.rc, 0, `${args[0]} ${at}`)
        t.regex(ran.stderr, /injected|[Ll]ock/, `${args[0]} ${at}`)
        t.notRegex(ran.stderr, /\n\s+at |undefined/)
        if (args[0] === 'break-lock') world.borgfs(['break-lock', 'world/repo'])
        world.borgfs(['with-lock', '--lock-wait', '5', 'world/repo', 'true'])
      }
    }
    t.log(`killed at ${killed} calls`)
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
