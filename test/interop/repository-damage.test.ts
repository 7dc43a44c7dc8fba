/**
 * Damage in every file of a repository, a few dozen seeded cases: check finds what Borg's finds and says the same, repair saves what
 * Borg's saves, reading gives an error and never wrong bytes, and a plan tells beforehand what repair does.
 */
import test, { type ExecutionContext } from 'ava'
import { cpSync, readdirSync, readFileSync, statSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { chunkId } from '../../src/engine/ids.js'
import { BorgError } from '../../src/engine/errors.js'
import { silentLog, type Log } from '../../src/engine/log.js'
import { checkRepository } from '../../src/engine/repository/check.js'
import { Hints } from '../../src/engine/repository/hints.js'
import { LocalRepository } from '../../src/engine/repository/local-repository.js'
import { createRepository } from '../../src/engine/repository/repository-creation.js'
import { type BorgAnswer, BorgRepositoryProcess, haveBorgRepository } from '../helpers/borg-repository.js'
import { Random } from '../helpers/random.js'
import { Sandbox } from '../helpers/sandbox.js'

const run = haveBorgRepository ? test : test.skip
if (!haveBorgRepository) console.error('SKIPPED aloud: test/interop/repository-damage asks the real borg')

const seed = Number(process.env.BORGFS_DAMAGE_SEED ?? 1)

/** Objects in several segments, some deleted, the manifest replaced now and then. Returns what it holds. */
async function makeRepository(path: string, random: Random): Promise<Map<string, string>> {
  createRepository(path)
  const config = join(path, 'config')
  writeFileSync(config, readFileSync(config, 'utf8').replace(/^max_segment_size = .*$/m, 'max_segment_size = 6000'))
  const model = new Map<string, string>()
  const repository = await LocalRepository.open(path, { lock: 'exclusive', lockWaitMs: 1000, log: silentLog })
  for (let round = 0; round < 4; round++) {
    await repository.transaction(async tx => {
      for (let count = 0; count < 8; count++) {
        const id = random.bytes(32), value = random.bytes(1 + random.below(2500))
        await tx.put(chunkId(id), value)
        model.set(id.toString('hex'), value.toString('hex'))
      }
      if (round > 1) {
        for (const id of [...model.keys()].slice(1, 4)) {
          await tx.delete(chunkId(Buffer.from(id, 'hex')))
          model.delete(id)
        }
      }
      const manifest = random.bytes(100)
      await tx.put(chunkId(Buffer.alloc(32)), manifest)
      model.set('00'.repeat(32), manifest.toString('hex'))
    })
  }
  // What Borg keeps beside them.
  await repository.reserveNonces(1234n, undefined)
  await repository.close()
  return model
}

interface Damage {
  readonly name: string
  /** Of index or hints: Borg adds a COMMIT when it makes them anew on opening, and ours does not; the outcome is compared. */
  readonly ofState?: boolean
  /** The COMMIT of a transaction that the index proves: Borg goes back to the one before without a word, ours saves it. */
  readonly lostCommit?: boolean
  apply(path: string): void
}

function segmentPath(path: string, segment: number): string {
  return join(path, 'data', '0', String(segment))
}

function edit(file: string, change: (bytes: Buffer) => Buffer | void): void {
  const bytes = readFileSync(file)
  writeFileSync(file, change(bytes) ?? bytes)
}

function stateFile(path: string, kind: string): string {
  return join(path, readdirSync(path).find(name => name.startsWith(`${kind}.`))!)
}

/** The same damage for every copy: whatever is random was drawn before. */
function damages(path: string, random: Random): Damage[] {
  const list: Damage[] = []
  const segments = readdirSync(join(path, 'data', '0')).map(Number).sort((a, b) => a - b)
  const sizeOf = (segment: number): number => statSync(segmentPath(path, segment)).size
  const data = segments.filter(segment => sizeOf(segment) > 300), last = segments.at(-1)!
  const onSegment = (name: string, segment: number, change: (bytes: Buffer) => Buffer | void): void => {
    list.push({ name: `${name} of segment ${segment}`, apply: copy => edit(segmentPath(copy, segment), change) })
  }
  for (let count = 0; count < 8; count++) {
    const segment = random.pick(data), offset = random.below(sizeOf(segment)), bit = random.below(8)
    onSegment(`bit ${bit} of byte ${offset}`, segment, bytes => void (bytes[offset]! ^= 1 << bit))
  }
  for (let count = 0; count < 3; count++) {
    const segment = random.pick(data), length = random.below(sizeOf(segment))
    onSegment(`all but the first ${length} bytes cut off`, segment, bytes => bytes.subarray(0, length))
  }
  const first = data[0]!, middle = data[Math.floor(data.length / 2)]!
  onSegment('the size field of the first entry', first, bytes => void bytes.writeUInt32LE(0xffffffff, 12))
  onSegment('a size field that is too small', first, bytes => void bytes.writeUInt32LE(3, 12))
  onSegment('a tag from nowhere', middle, bytes => void (bytes[16] = 200))
  onSegment('the magic', first, bytes => void bytes.write('xxxxxxxx'))
  onSegment('a run of zeros', middle, bytes => void bytes.fill(0, 60, 700))
  onSegment('garbage at the end', middle, bytes => Buffer.concat([bytes, Buffer.from('some garbage that is no entry')]))
  onSegment('all bytes', middle, () => Buffer.alloc(0))
  onSegment('the first bytes cut off', middle, bytes => bytes.subarray(5))
  list.push({ lostCommit: true, name: 'the last commit', apply: copy => edit(segmentPath(copy, last), bytes => void (bytes[12]! ^= 1)) })
  list.push({ name: 'a segment is missing', apply: copy => unlinkSync(segmentPath(copy, middle)) })
  list.push({ lostCommit: true, name: 'the last commit is missing', apply: copy => unlinkSync(segmentPath(copy, last)) })
  list.push({ name: 'all commits are damaged', apply(copy) {
    for (const segment of segments) if (sizeOf(segment) === 17) edit(segmentPath(copy, segment), bytes => void (bytes[9]! ^= 1))
  } })
  list.push({ name: 'a segment above the last commit', apply: copy => writeFileSync(segmentPath(copy, last + 1), Buffer.from('BORG_SEGxxxx')) })
  for (const kind of ['index', 'hints', 'integrity']) {
    const bytes = statSync(stateFile(path, kind)).size
    const at = random.below(bytes), length = random.below(bytes)
    list.push({ ofState: true, name: `a bit of the ${kind}`, apply: copy => edit(stateFile(copy, kind), content => void (content[at]! ^= 4)) })
    list.push({ ofState: true, name: `the ${kind} cut short`, apply: copy => truncateSync(stateFile(copy, kind), length) })
    list.push({ ofState: true, name: `the ${kind} is missing`, apply: copy => unlinkSync(stateFile(copy, kind)) })
    list.push({ ofState: true, name: `the ${kind} is empty`, apply: copy => truncateSync(stateFile(copy, kind), 0) })
  }
  list.push({ ofState: true, name: 'an index of the future', apply: copy => cpSync(stateFile(copy, 'index'), join(copy, 'index.999')) })
  list.push({ ofState: true, name: 'an entry of the index points elsewhere', apply(copy) {
    edit(stateFile(copy, 'index'), bytes => {
      let at = 18
      while (bytes.readUInt32LE(at + 32) >= 0xfffffffe) at += 40
      bytes.writeUInt32LE(bytes.readUInt32LE(at + 36) + 1, at + 36)
    })
    unlinkSync(stateFile(copy, 'integrity'))
  } })
  list.push({ name: 'the nonce', apply: copy => writeFileSync(join(copy, 'nonce'), 'zz') })
  list.push({ name: 'the config is empty', apply: copy => truncateSync(join(copy, 'config'), 0) })
  list.push({ name: 'the config is missing', apply: copy => unlinkSync(join(copy, 'config')) })
  list.push({ name: 'the version in the config', apply: copy => edit(join(copy, 'config'), bytes => Buffer.from(bytes.toString().replace('version = 1', 'version = 7'))) })
  return list
}

interface Checked {
  readonly ok: boolean | undefined
  readonly error?: string
  readonly log: string[]
  readonly repairs: string[]
}

/** As Borg's driver answers. */
async function check(path: string, mode: 'plain' | 'repair' | 'plan', maxDurationSeconds = 0): Promise<Checked> {
  const lines: string[] = [], repairs: string[] = []
  const write = (level: string, message: string): void => {
    if (level !== 'debug') lines.push(`${level.toUpperCase()} ${message}`)
  }
  const log: Log = { write: (level, _topic, message) => write(level, message) }
  let repository: LocalRepository
  try {
    repository = await LocalRepository.open(path, { lock: 'exclusive', lockWaitMs: 1000, log, forCheck: true, readOnly: mode === 'plan' })
  } catch (error) {
    if (!(error instanceof BorgError)) throw error
    return { ok: undefined, error: error.msgid, log: lines, repairs }
  }
  try {
    const ok = await checkRepository(repository, { mode, maxDurationSeconds }, { log: write, finding: ({ repair }) => repair !== undefined && repairs.push(repair) })
    return { ok, log: lines, repairs }
  } finally {
    await repository.close()
  }
}

/** What both say of the segments and of the outcome; how they tell of a damaged index on opening is their own. */
function told(log: readonly string[]): string[] {
  return log.filter(line => !/index missing or corrupted|hints file missing|No committed segment was found|attempting to recover/.test(line))
}

function contents(path: string): Record<string, string> {
  const found: Record<string, string> = {}
  for (const name of readdirSync(join(path, 'data', '0')).sort()) found[name] = readFileSync(segmentPath(path, Number(name)), 'hex')
  return found
}

function hints(path: string): unknown {
  const { segments, compact, quotaUse } = Hints.unpack(readFileSync(stateFile(path, 'hints')))
  const sorted = (map: ReadonlyMap<number, number>): [number, number][] => [...map].sort(([a], [b]) => a - b)
  return { segments: sorted(segments), compact: sorted(compact), quotaUse }
}

/** Every object of the model is read right or not at all; nothing else has its id. */
async function readsAreHonest(t: ExecutionContext, path: string, model: ReadonlyMap<string, string>): Promise<void> {
  let repository: LocalRepository
  try {
    repository = await LocalRepository.open(path, { lock: 'shared', lockWaitMs: 1000, log: silentLog })
  } catch (error) {
    t.true(error instanceof BorgError, String(error))
    return
  }
  try {
    for (const [id, value] of model) {
      try {
        const read = (await repository.get(chunkId(Buffer.from(id, 'hex')))).toString('hex')
        // The manifest of the transaction before is what a lost commit leaves.
        if (!/^0+$/.test(id)) t.is(read, value)
      } catch (error) {
        t.true(error instanceof BorgError, String(error))
      }
    }
  } finally {
    await repository.close()
  }
}

function sameMessages(t: ExecutionContext, ours: Checked, theirs: BorgAnswer, name: string): void {
  // Ours goes on where Borg's class ends with an exception.
  if (theirs.error !== undefined) return
  t.deepEqual(told(ours.log), told(theirs.log), name)
}

run(`check and repair of damaged repositories do what Borg does (seed ${seed})`, async t => {
  const sandbox = new Sandbox('damage')
  const borg = new BorgRepositoryProcess()
  try {
    const random = new Random(seed)
    const base = sandbox.path('base')
    const model = await makeRepository(base, random)
    for (const [number, { name, ofState, lostCommit, apply }] of damages(base, random).entries()) {
      const copy = (kind: string): string => {
        const path = sandbox.path(`${number}-${kind}`)
        cpSync(base, path, { recursive: true })
        apply(path)
        return path
      }
      const [mine, theirs, planned, read] = [copy('mine'), copy('theirs'), copy('planned'), copy('read')]
      await readsAreHonest(t, read, model)

      const before = contents(planned)
      const plan = await check(planned, 'plan')
      t.deepEqual(contents(planned), before, `${name}: a plan changes nothing`)
      t.deepEqual(readdirSync(planned).sort(), readdirSync(theirs).sort(), `${name}: a plan changes nothing`)

      const [ours, his] = [await check(mine, 'plain'), await borg.step({ op: 'check', path: theirs })]
      if (process.env.BORGFS_DAMAGE_SHOW) console.log(name, '|', ours.ok, ours.error, '|', his.value, his.error, '\n', plan.repairs)
      if (ours.error !== undefined) {
        t.is(his.error?.split(':')[0], ours.error, name)
        continue
      }
      if (lostCommit) {
        t.deepEqual([ours.ok, plan.ok], [false, false], name)
        t.true((await check(mine, 'repair')).ok)
        t.deepEqual((await borg.step({ op: 'dump', path: mine })).value, Object.fromEntries(model), name)
        t.deepEqual(await borg.step({ op: 'check', path: mine }).then(({ value }) => value), true, name)
        t.true((await check(mine, 'plain')).ok, name)
        continue
      }
      if (his.error === undefined && !name.includes('points elsewhere')) t.is(ours.ok, his.value as boolean, `${name}: ${ours.log.join('\n')}\n${his.log.join('\n')}`)
      if (!ofState) sameMessages(t, ours, his, name)
      t.is(plan.ok, ours.ok, `${name}: plan and check agree`)

      const [repaired, hisRepair] = [await check(mine, 'repair'), await borg.step({ op: 'check', path: theirs, repair: true })]
      t.true(repaired.ok, name)
      if (hisRepair.error === undefined && !ofState) {
        sameMessages(t, repaired, hisRepair, name)
        t.deepEqual(contents(mine), contents(theirs), `${name}: repaired segments`)
        t.deepEqual(hints(mine), hints(theirs), `${name}: hints`)
        t.deepEqual(readFileSync(stateFile(mine, 'index')).toString('hex'), readFileSync(stateFile(theirs, 'index')).toString('hex'), `${name}: index`)
      }
      // After repair both find nothing, and what is there is right.
      const after = await borg.step({ op: 'check', path: mine })
      t.true(after.value, `${name}: ${after.error ?? ''} ${after.log.join('\n')}`)
      t.true((await check(mine, 'plain')).ok, name)
      const dump = (await borg.step({ op: 'dump', path: mine })).value as Record<string, string>
      if (hisRepair.error === undefined) t.deepEqual(dump, (await borg.step({ op: 'dump', path: theirs })).value as Record<string, string>, name)
      for (const [id, value] of Object.entries(dump)) if (model.has(id) && !/^0+$/.test(id)) t.is(value, model.get(id)!, name)
    }
  } finally {
    borg.close()
    sandbox.close()
  }
})

run('partial checks go on where the last one ended, as borg\'s, whoever did it', async t => {
  const sandbox = new Sandbox('partial')
  const borg = new BorgRepositoryProcess()
  try {
    const mine = sandbox.path('mine'), theirs = sandbox.path('theirs')
    await makeRepository(mine, new Random(9))
    edit(segmentPath(mine, 4), bytes => void (bytes[100]! ^= 1))
    cpSync(mine, theirs, { recursive: true })
    // So short that each ends after one segment.
    const brief = 1e-9
    for (let round = 0; round < 30; round++) {
      const [ours, his] = round % 2 === 0
        ? [await check(mine, 'plain', brief), await borg.step({ op: 'check', path: theirs, maxDuration: brief })]
        : [await check(theirs, 'plain', brief), await borg.step({ op: 'check', path: mine, maxDuration: brief })]
      t.deepEqual(ours.log, [...his.log], `round ${round}`)
      t.is(ours.ok, his.value as boolean)
      t.is(readFileSync(join(mine, 'config'), 'utf8'), readFileSync(join(theirs, 'config'), 'utf8'))
    }
    // A full check forgets where a partial one stood.
    await check(mine, 'plain')
    t.false(readFileSync(join(mine, 'config'), 'utf8').includes('last_segment_checked'))
  } finally {
    borg.close()
    sandbox.close()
  }
})
