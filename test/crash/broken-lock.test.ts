/**
 * A lock that is broken under a writer that stands still before any one of its calls, while another client does its work and
 * commits: when the first one goes on, what the other saved is there whole, and so is what the first one says it saved.
 */
import test from 'ava'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { commitEntry } from '../../src/engine/repository/entry.js'
import type { LoggedCall } from '../helpers/fault-preload.js'
import { everything, type Operation, prepare, readCalls, sample, World } from '../helpers/faults.js'
import { canMount } from '../helpers/mount.js'
import { eventually, haveBorg, Sandbox } from '../helpers/sandbox.js'

/** Three archives with chunks of their own and in common, in small segments, one of them deleted: there is something to compact. */
function setUp(world: World): void {
  world.borgfs(['init', '-e', 'repokey', 'world/repo'])
  world.borgfs(['config', 'world/repo', 'max_segment_size', '20000'])
  for (const name of ['monday', 'tuesday', 'wednesday']) {
    world.sandbox.sh(`mkdir -p source; cd source; printf same > same; for i in 1 2 3 4; do head -c 7000 /dev/zero | tr '\\0' ${name[0]} > part-$i; printf "$i ${name}" >> part-$i; done; touch -d '2015-05-05 05:05:05' *`)
    world.borgfs(['create', '-C', 'none', '--chunker-params', 'fixed,4096', `world/repo::${name}`, 'source'])
  }
  world.borgfs(['delete', 'world/repo::monday'])
  world.sandbox.sh("printf 'of the other\\n' > other; for i in 1 2 3 4 5; do head -c 9000 /dev/zero | tr '\\0' $i > source/late-$i; done")
}

const operations: Operation[] = [
  { name: 'create', repeatable: false, args: ['create', '-C', 'none', '--chunker-params', 'fixed,4096', 'world/repo::first', 'source'], setUp },
  { name: 'compact', repeatable: true, args: ['compact', '--threshold', '0', 'world/repo'], setUp },
  { name: 'delete', repeatable: false, args: ['delete', 'world/repo::tuesday'], setUp },
]

/** Numbers of calls to stop before, from 1: around each COMMIT, where all is decided, and some others. */
function moments(calls: readonly LoggedCall[], others: number): number[] {
  const commits = calls.flatMap((call, index) => (call.op === 'write' && Buffer.from(call.data, 'base64').subarray(-commitEntry.length).equals(commitEntry) ? [index + 1] : []))
  const around = commits.slice(0, 2).flatMap(at => [at, at + 1, at + 3])
  const all = calls.map((_, index) => index + 1)
  return everything ? all : [...new Set([...around, ...sample(all, others, 1)])].filter(at => at <= calls.length).sort((a, b) => a - b)
}

/** What another client does that found a lock in its way and broke it. Its home is its own. */
function intrude(world: World, program: 'borg' | 'borgfs'): void {
  world.borgfs(['break-lock', 'world/repo'])
  world[program](['create', 'world/repo::other', 'other'], { env: { BORG_BASE_DIR: join(world.root, 'home2') } })
}

const other = (at: number): 'borg' | 'borgfs' => (haveBorg && at % 2 === 0 ? 'borg' : 'borgfs')

for (const operation of operations) {
  test(`a lock that is broken before any call of ${operation.name}: nothing that either client saved is lost`, async t => {
    const sandbox = new Sandbox('broken-lock')
    try {
      const world = new World(sandbox)
      const prepared = await prepare(t, world, operation)
      const calls = prepared.calls.filter(({ main }) => main)
      const codes = new Set<number>()
      const chosen = moments(calls, 4)
      for (const at of chosen) {
        const call = calls[at - 1]!
        world.restore(prepared.before)
        const first = await world.paused(operation.args, at)
        intrude(world, other(at))
        const { rc, stderr } = await first.goOn()
        codes.add(rc)
        const label = `${operation.name}, stopped before call ${at} of ${calls.length} (${call.op}), the other is ${other(at)}; rc ${rc} ${stderr}`
        t.true(first.reached, label)
        if (rc !== 0) t.regex(stderr, /was broken while this command was running|Another program changed/, label)
        t.notRegex(stderr, /\n\s+at |undefined/, label)
        const found = await world.audit().catch((error: Error) => error)
        if (found instanceof Error) {
          t.fail(`${label}: ${found.stack}`)
          continue
        }
        t.deepEqual(found.problems, [], label)
        t.true(found.archives.has('other'), `${label}: the other's archive is lost`)
        for (const [name, digest] of prepared.auditBefore.archives) if (operation.name !== 'delete' || name !== 'tuesday') t.is(found.archives.get(name), digest, `${label}: ${name}`)
        if (operation.name === 'create') t.is(found.archives.has('first'), rc === 0, label)
        if (operation.name === 'delete') t.is(found.archives.has('tuesday'), rc !== 0, label)
      }
      t.true(codes.has(0) && codes.has(75), [...codes].join(' '))
      if (haveBorg) t.is(world.borgCheck(), undefined)
      t.log(`${chosen.length} of ${calls.length} calls`)
    } finally {
      sandbox.close()
    }
  })
}

const mounting = canMount ? test.serial : test.serial.skip
if (!canMount) console.error('SKIPPED aloud: test/crash/broken-lock needs to mount')

mounting('a lock that is broken before any call of a commit of a drive: nothing that either client saved is lost', async t => {
  const sandbox = new Sandbox('broken-lock-drive')
  try {
    const world = new World(sandbox)
    setUp(world)
    const before = world.snapshot()
    const auditBefore = await world.audit()
    const content = 'staged and fsynced\n'.repeat(500)
    const args = ['-o', 'settle=3600,refresh=0']
    const stage = (mountpoint: string): void => void sandbox.sh(`mkdir ${mountpoint}/incoming/tree; seq 500 | sed 's/.*/staged and fsynced/' > ${mountpoint}/incoming/tree/f; sync ${mountpoint}/incoming/tree/f ${mountpoint}/incoming/tree`)
    // Once in peace: which calls belong to the commit.
    const { env, log } = world.watched()
    let mountpoint = sandbox.mount('world/repo', { args, env })
    stage(mountpoint)
    const mains = (): LoggedCall[] => readCalls(log).filter(({ main }) => main)
    const staged = mains().length
    sandbox.sh(`mv ${mountpoint}/incoming/tree ${mountpoint}/archive`)
    const commit = mains().slice(staged)
    await sandbox.leave(mountpoint, { ok: 'any' })
    const results = new Set<boolean>()
    const chosen = moments(commit, 2)
    for (const at of chosen) {
      world.restore(before)
      const watched = world.watched({ at: staged + at, action: 'pause' })
      mountpoint = sandbox.mount('world/repo', { args, env: watched.env })
      stage(mountpoint)
      const move = sandbox.start('mv', [`${mountpoint}/incoming/tree`, `${mountpoint}/archive`])
      const moved = new Promise<number | null>(resolve => move.once('close', code => resolve(code)))
      await eventually('the commit stands still', () => existsSync(`${watched.log}.paused`), 120_000)
      intrude(world, other(at))
      writeFileSync(`${watched.log}.go`, '')
      const saved = (await moved) === 0
      results.add(saved)
      const label = `stopped before call ${at} of ${commit.length} of the commit (${commit[at - 1]!.op}), the other is ${other(at)}, mv ${saved ? 'returned' : 'failed'}`
      const found = await world.audit().catch((error: Error) => error)
      if (found instanceof Error) t.fail(`${label}: ${found.stack}`)
      else {
        t.deepEqual(found.problems.filter(problem => !/^the cache/.test(problem)), [], label)
        t.true(found.archives.has('other'), `${label}: the other's archive is lost`)
        for (const [name, digest] of auditBefore.archives) t.is(found.archives.get(name), digest, `${label}: ${name}`)
        if (saved) t.true(found.archives.has('archive'), `${label}: mv returned, but the archive is lost`)
      }
      await sandbox.leave(mountpoint, { ok: 'any' })
      // What was staged is there, in the one place or the other.
      mountpoint = sandbox.mount('world/repo', { args, env: world.env })
      const place = [...(await world.audit()).archives.keys()].find(name => name === 'archive' || name.startsWith('tree')) ?? 'incoming/tree'
      t.is(readFileSync(join(mountpoint, place, 'f'), 'utf8'), content, `${label}: ${place}`)
      await sandbox.leave(mountpoint, { ok: 'any' })
      t.deepEqual((await world.audit()).problems, [], label)
    }
    t.log(`${chosen.length} of ${commit.length} calls, ${results.has(true) ? 'some' : 'no'} moves returned, ${results.has(false) ? 'some' : 'none'} failed`)
  } finally {
    sandbox.close()
  }
})
