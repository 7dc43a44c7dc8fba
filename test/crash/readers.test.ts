/**
 * Readers without a lock beside a writer at work (--bypass-lock, and the drive while another client has the exclusive lock): at whichever
 * calls of the writer they begin and go on, they get what was stored or an error that says so, never anything else.
 */
import test from 'ava'
import { createHash } from 'node:crypto'
import { closeSync, openSync, readFileSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { ArchiveReader } from '../../src/engine/archive/archive-reader.js'
import { BorgError } from '../../src/engine/errors.js'
import { openForAudit } from '../helpers/audit.js'
import { randomOf, type Tree } from '../helpers/disk-model.js'
import { play } from '../helpers/disk-player.js'
import { everything, type Operation, prepare, sample, World } from '../helpers/faults.js'
import { canMount } from '../helpers/mount.js'
import { Sandbox } from '../helpers/sandbox.js'

/** Archives in small segments, with chunks of their own and in common; one was deleted already. */
function setUp(world: World): void {
  // Nothing but the ids says whether data is right.
  world.borgfs(['init', '-e', 'none', 'world/repo'])
  world.borgfs(['config', 'world/repo', 'max_segment_size', '20000'])
  for (const [index, name] of ['monday', 'tuesday', 'wednesday'].entries()) {
    world.sandbox.sh(`mkdir -p source; cd source; printf same > same; for i in 1 2 3 4; do head -c 7000 /dev/zero | tr '\\0' ${index} > part-$i; printf "$i ${name}" >> part-$i; done; touch -d '2015-05-05 05:05:05' *`)
    world.borgfs(['create', '-C', 'none', '--chunker-params', 'fixed,4096', '--timestamp', `2020-01-0${index + 1}T00:00:00`, `world/repo::${name}`, 'source'])
  }
  world.borgfs(['delete', 'world/repo::monday'])
}

const operations: Operation[] = [
  { name: 'compact', repeatable: true, args: ['compact', '--threshold', '0', 'world/repo'], setUp },
  { name: 'prune', repeatable: true, args: ['prune', '--keep-last', '1', 'world/repo'], setUp },
  { name: 'recreate', repeatable: true, args: ['recreate', '-C', 'zlib', '--recompress=always', 'world/repo'], setUp },
  {
    name: 'compact after a delete', repeatable: true, args: ['compact', '--threshold', '0', 'world/repo'],
    setUp(world) {
      setUp(world)
      world.borgfs(['delete', 'world/repo::tuesday'])
    },
  },
]

type Opened = Awaited<ReturnType<typeof openForAudit>>

/** Digest of every file of an archive, by name. */
async function contents({ repository, objects, manifest }: Opened, name: string): Promise<Map<string, string>> {
  const files = new Map<string, string>()
  const reader = await ArchiveReader.open(manifest.archives.get(name)!, repository, objects)
  for await (const item of reader.items()) {
    const hash = createHash('sha256')
    for (let index = 0; index < (item.chunks?.length ?? 0); index++) {
      const id = item.chunks!.id(index)
      hash.update(await objects.parse(id, await repository.get(id)))
    }
    files.set(item.path.toString(), hash.digest('hex'))
  }
  return files
}

for (const operation of operations) {
  test(`whoever reads without a lock beside ${operation.name} gets what was stored, or an error`, async t => {
    const sandbox = new Sandbox('readers')
    try {
      const world = new World(sandbox)
      const { calls, model, before } = await prepare(t, world, operation)
      // Trees as a process sees them: all calls done.
      const trees: Tree[] = [model.after('nothing')]
      for (const call of calls) {
        model.apply(call)
        trees.push(model.after('nothing'))
      }
      world.restore(before)
      const first = await openForAudit(world.repository, sandbox.env(world.env))
      const names = [...first.manifest.archives.keys()]
      const expected = new Map<string, string>()
      for (const name of names) for (const [path, digest] of await contents(first, name)) expected.set(`${name} ${path}`, digest)
      await first.repository.close()
      first.key.wipe()

      const random = randomOf(7)
      let whole = 0, refused = 0
      for (let round = 0; round < (everything ? 1500 : 40); round++) {
        // It opens the repository at one call, and goes on to read at two later ones.
        const [opens, reads, ends] = Array.from({ length: 3 }, () => Math.floor(random() * trees.length)).sort((a, b) => a - b) as [number, number, number]
        const label = `${operation.name}, round ${round}: opened at call ${opens}, read at ${reads} and ${ends} of ${calls.length}`
        world.restore(trees[opens]!)
        const reader = await openForAudit(world.repository, sandbox.env(world.env))
        let now = opens
        for (const [index, name] of [...reader.manifest.archives.keys()].entries()) {
          const moment = index === 0 ? reads : ends
          play(world.root, trees[now]!, trees[moment]!)
          now = moment
          try {
            for (const [path, digest] of await contents(reader, name)) t.is(expected.get(`${name} ${path}`), digest, `${label}: ${name} ${path}`)
            whole++
          } catch (error) {
            refused++
            t.true(error instanceof BorgError, `${label}: ${name}: ${error instanceof Error ? error.stack : String(error)}`)
            t.regex((error as Error).message, /not found in repository|Data integrity error|Segment is missing|\[segment \d+/, label)
          }
          // Whoever looks again finds all that is there.
          await reader.repository.refresh()
          const found = await openForAudit(world.repository, sandbox.env(world.env))
          if (found.manifest.archives.has(name)) {
            for (const [path, digest] of await contents({ ...found, repository: reader.repository }, name)) t.is(expected.get(`${name} ${path}`), digest, `${label}, again: ${name} ${path}`)
          }
          await found.repository.close()
          found.key.wipe()
        }
        await reader.repository.close()
        reader.key.wipe()
      }
      t.true(whole > 0)
      t.log(`${whole} archives read, ${refused} errors`)
    } finally {
      sandbox.close()
    }
  })
}

test('list, extract and check that bypass the lock of a compaction that stands still find all as it is', async t => {
  const sandbox = new Sandbox('bypass')
  try {
    const world = new World(sandbox)
    const operation = operations[0]!
    const { calls, before } = await prepare(t, world, operation)
    const source = (): string => readFileSync(sandbox.path('source/part-2'), 'latin1')
    for (const at of sample(calls.map((_, index) => index + 1), 5, 3)) {
      const label = `stopped before call ${at} of ${calls.length}`
      world.restore(before)
      const compaction = await world.paused(operation.args, at)
      t.is(world.borgfs(['list', '--bypass-lock', '--short', 'world/repo']).stdout, 'tuesday\nwednesday\n', label)
      t.is(world.borgfs(['extract', '--bypass-lock', '--stdout', 'world/repo::wednesday', 'source/part-2']).stdout, source(), label)
      const checked = world.borgfs(['check', '--bypass-lock', '--verify-data', 'world/repo'], { ok: 'any' })
      t.is(checked.rc, 0, `${label}: ${checked.stderr}`)
      // Without being asked to, nobody reads beside it.
      if (!(at <= 6 || at > calls.length - 4)) t.is(world.borgfs(['list', '--lock-wait', '0', 'world/repo'], { ok: 'any' }).rc, 73, label)
      const { rc, stderr } = await compaction.goOn()
      t.is(rc, 0, `${label}: ${stderr}`)
      t.deepEqual((await world.audit()).problems, [], label)
    }
  } finally {
    sandbox.close()
  }
})

const mounting = canMount ? test.serial : test.serial.skip
if (!canMount) console.error('SKIPPED aloud: test/crash/readers needs to mount')

mounting('a drive reads on beside a compaction and a prune that stand still anywhere', async t => {
  const sandbox = new Sandbox('drive-beside')
  try {
    const world = new World(sandbox)
    for (const operation of [operations[0]!, operations[1]!]) {
      sandbox.sh('rm -rf source world/* world/.[a-z]*')
      const { calls, before } = await prepare(t, world, operation)
      for (const at of sample(calls.map((_, index) => index + 1).filter(at => at > 8), 4, 4)) {
        const label = `${operation.name}, stopped before call ${at} of ${calls.length}`
        world.restore(before)
        const mountpoint = sandbox.mount('world/repo', { args: ['-o', 'settle=3600,refresh=1'], env: world.env })
        const read = (index: number): string => readFileSync(join(mountpoint, 'wednesday/source', `part-${index}`), 'latin1')
        const expected = (index: number): string => readFileSync(sandbox.path('source', `part-${index}`), 'latin1')
        const fd = openSync(join(mountpoint, 'wednesday/source/part-1'), 'r')
        const bytes = Buffer.alloc(8000)
        let length = readSync(fd, bytes, 0, 100, 0)
        const writer = await world.paused([...operation.args, '--lock-wait', '60'], at)
        t.true(writer.reached, label)
        t.is(read(2), expected(2), label)
        const { rc, stderr } = await writer.goOn()
        t.is(rc, 0, `${label}: ${stderr}`)
        t.is(read(3), expected(3), label)
        for (let count = 1; count > 0; length += count) count = readSync(fd, bytes, length, bytes.length - length, length)
        closeSync(fd)
        t.is(bytes.toString('latin1', 0, length), expected(1), label)
        await sandbox.leave(mountpoint)
      }
    }
  } finally {
    sandbox.close()
  }
})
