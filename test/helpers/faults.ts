/** The test's side of fault-preload.ts: worlds (a repository with the homes of its clients), programs run over a bad disk, crash states. */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { ExecutionContext } from 'ava'
import { placesOf } from '../../src/engine/platform/places.js'
import { ArchiveReader } from '../../src/engine/archive/archive-reader.js'
import { type Audit, audit, cacheConfigProblems, openForAudit } from './audit.js'
import { digestOf, DiskModel, layOut, type Loss, randomOf, type Tree, treeOf } from './disk-model.js'
import type { LoggedCall } from './fault-preload.js'
import { borgfsProgram, eventually, haveBorg, type Ran, type RunOptions, Sandbox } from './sandbox.js'

const preload = pathToFileURL(join(dirname(fileURLToPath(import.meta.url)), 'fault-preload.js')).href

/** All crash states instead of a sample: BORGFS_CRASH=full. */
export const everything = process.env.BORGFS_CRASH === 'full'

export interface Fault {
  readonly at: number
  readonly action: 'kill' | 'short' | 'pause' | 'ENOSPC' | 'EIO' | 'EDQUOT'
  readonly sticky?: boolean
  readonly thread?: 'main' | 'worker'
}

/** A folder that holds a repository `repo` and the home of its client, watched by the preload. */
export class World {
  readonly sandbox: Sandbox
  readonly root: string

  constructor(sandbox: Sandbox) {
    this.sandbox = sandbox
    this.root = sandbox.mkdir('world')
  }

  get env(): Record<string, string> {
    return {
      BORG_BASE_DIR: join(this.root, 'home'), BORG_EXIT_CODES: 'modern', BORG_CHECK_I_KNOW_WHAT_I_AM_DOING: 'YES', BORG_DELETE_I_KNOW_WHAT_I_AM_DOING: 'YES',
      BORG_DISPLAY_PASSPHRASE: 'n', BORG_NEW_PASSPHRASE: 'test passphrase',
    }
  }

  get repository(): string {
    return join(this.root, 'repo')
  }

  /** Makes the repository, with archives of the sandbox's folder `source`. */
  begin(mode: string, ...archives: readonly string[]): void {
    this.borgfs(['init', '-e', mode, 'world/repo'])
    for (const name of archives) this.borgfs(['create', `world/repo::${name}`, 'source'])
  }

  borgfs(args: readonly string[], options: RunOptions = {}): Ran {
    return this.sandbox.borgfs(args, { ...options, env: { ...this.env, ...options.env } })
  }

  borg(args: readonly string[], options: RunOptions = {}): Ran {
    return this.sandbox.borg(args, { ...options, env: { ...this.env, ...options.env } })
  }

  /** Environment of a program that is watched. */
  watched(fault?: Fault): { env: Record<string, string>; log: string } {
    const log = this.sandbox.path('calls')
    for (const mark of ['', '.paused', '.go']) rmSync(`${log}${mark}`, { force: true })
    writeFileSync(log, '')
    return {
      log,
      env: {
        ...this.env, NODE_OPTIONS: `--import=${preload}`, FAULTS_ROOT: this.root, FAULTS_LOG: log,
        ...(fault ? { FAULTS_AT: String(fault.at), FAULTS_ACTION: fault.action, ...(fault.sticky ? { FAULTS_STICKY: '1' } : {}), ...(fault.thread ? { FAULTS_THREAD: fault.thread } : {}) } : {}),
      },
    }
  }

  /** Runs borgfs over the bad disk. `calls` are those that were made. */
  faulty(args: readonly string[], fault?: Fault, options: RunOptions = {}): Ran & { readonly calls: LoggedCall[] } {
    const { env, log } = this.watched(fault)
    const ran = this.sandbox.run(process.execPath, [borgfsProgram, ...args], { ok: 'any', ...options, env: { ...env, ...options.env } })
    return { ...ran, calls: readCalls(log) }
  }

  /**
   * Starts borgfs, which stands still before a call of its (or ends without having come so far). `goOn` lets it run to its end.
   * One at a time.
   */
  async paused(args: readonly string[], at: number, options: RunOptions = {}): Promise<{ readonly reached: boolean; signal(name: NodeJS.Signals): void; goOn(): Promise<Ran> }> {
    const { env, log } = this.watched({ at, action: 'pause' })
    const child = this.sandbox.start(process.execPath, [borgfsProgram, ...args], { ...options, env: { ...env, ...options.env } })
    let stdout = '', stderr = ''
    child.stdout!.on('data', (bytes: Buffer) => (stdout += bytes.toString()))
    child.stderr!.on('data', (bytes: Buffer) => (stderr += bytes.toString()))
    let over = false
    const ended = new Promise<Ran>(resolve => child.once('close', (code, signal) => {
      over = true
      resolve({ rc: code ?? 128, stdout, stderr: signal ? `${stderr}${signal}` : stderr })
    }))
    await eventually('the program has stopped', () => existsSync(`${log}.paused`) || over, 120_000)
    return {
      reached: existsSync(`${log}.paused`),
      /** Is handled when it goes on. */
      signal(name) {
        child.kill(name)
      },
      goOn() {
        writeFileSync(`${log}.go`, '')
        return ended
      },
    }
  }

  snapshot(): Tree {
    return treeOf(this.root)
  }

  restore(tree: Tree): void {
    layOut(this.root, tree)
  }

  /** Without the locks of the process that made it: long dead, its number may be another's by now. */
  restoreUnlocked(tree: Tree): void {
    layOut(this.root, new Map([...tree].filter(([path]) => !beside.test(path))))
  }

  async audit(extra: RunOptions['env'] = {}): Promise<Audit> {
    const env = this.sandbox.env({ ...this.env, ...extra })
    const found = await audit(this.repository, env, this.sandbox.path('replayed'))
    return { ...found, problems: [...found.problems, ...cacheConfigProblems(placesOf(env).cache)] }
  }

  /** What is wrong with checkpoints of an archive of `source`: whole files are as they are there, parts in a row are the beginning of one. */
  async checkpointProblems(names: readonly string[]): Promise<string[]> {
    const problems: string[] = []
    const { repository, manifest, objects, key } = await openForAudit(this.repository, this.sandbox.env(this.env))
    for (const name of names) {
      const parts = new Map<string, Buffer[]>()
      const reader = await ArchiveReader.open(manifest.archives.get(name)!, repository, objects)
      for await (const item of reader.items({ parts: true })) {
        if (!item.chunks) continue
        const path = item.path.toString()
        const bytes: Buffer[] = []
        for (let index = 0; index < item.chunks.length; index++) bytes.push(await objects.parse(item.chunks.id(index), await repository.get(item.chunks.id(index))))
        if (item.part === undefined) {
          if (!Buffer.concat(bytes).equals(readFileSync(this.sandbox.path(path)))) problems.push(`${name}: ${path} is not what it was made of`)
        } else {
          const whole = path.replace(/\.borg_part_\d+$/, '')
          parts.set(whole, [...(parts.get(whole) ?? []), ...bytes])
        }
      }
      for (const [path, bytes] of parts) {
        const begun = Buffer.concat(bytes)
        if (begun.length === 0 || !readFileSync(this.sandbox.path(path)).subarray(0, begun.length).equals(begun)) problems.push(`${name}: the parts of ${path} are not its beginning`)
      }
    }
    await repository.close()
    key.wipe()
    return problems
  }

  /** Real Borg's opinion; the output if it is not clean. */
  borgCheck(): string | undefined {
    const ran = this.borg(['check', '--verify-data', '-v', 'world/repo'], { ok: 'any' })
    return ran.rc === 0 && /no problems found/.test(ran.stderr) ? undefined : `rc ${ran.rc}\n${ran.stderr}`
  }
}

export function readCalls(log: string): LoggedCall[] {
  if (!existsSync(log)) return []
  // Behind the last line's end another one may just be coming.
  const lines = readFileSync(log, 'utf8').split('\n').slice(0, -1)
  return lines.map(line => JSON.parse(line) as LoggedCall)
}

export interface CrashState {
  /** Calls that were made. */
  readonly calls: number
  readonly loss: Loss
  readonly tree: Tree
}

/** What tells states apart: not who held the locks, which a dead process holds in vain. */
const beside = /(?:^|\/)lock\.(?:exclusive|roster)/

/** Each different tree that a crash can leave, for every moment of a run. `randomChoices`: per moment. */
export function* crashStates(before: DiskModel, calls: readonly LoggedCall[], randomChoices: number): Generator<CrashState> {
  const seen = new Set<string>()
  const losses: Loss[] = ['nothing', 'half-write', 'everything', 'names', 'data', 'bytes']
  for (let made = 0; made <= calls.length; made++) {
    if (made > 0) before.apply(calls[made - 1]!)
    for (const loss of [...losses, ...Array.from({ length: randomChoices }, (_, index) => 1 + made * 1000 + index)]) {
      const tree = before.after(loss)
      const digest = digestOf(tree, beside)
      if (seen.has(digest)) continue
      seen.add(digest)
      yield { calls: made, loss, tree }
    }
  }
}

/** Seeded choice of at most `count` members; all with BORGFS_CRASH=full. The first and the last are always there. */
export function sample<T>(all: readonly T[], count: number, seed: number): T[] {
  return everything ? [...all] : some(all, count, seed)
}

/** The same in any run: of what takes long for each state. */
export function some<T>(all: readonly T[], count: number, seed: number): T[] {
  if (all.length <= count) return [...all]
  const random = randomOf(seed)
  const chosen = new Set([0, all.length - 1])
  while (chosen.size < count) chosen.add(Math.floor(random() * all.length))
  return [...chosen].sort((a, b) => a - b).map(index => all[index]!)
}

export interface Operation {
  readonly name: string
  /** Makes `repo` in the world as it is before. */
  setUp(world: World): void
  /** Arguments of borgfs; run in the sandbox folder, the repository is world/repo. */
  readonly args: readonly string[]
  readonly options?: RunOptions
  /** The same, to be run after a crash; default args. */
  readonly again?: readonly string[]
  /** May run again after its work was done, with success. */
  readonly repeatable: boolean
  /**
   * It commits several times. What it leaves after one of the first COMMITs is found by walking through its calls. Checkpoints of an
   * archive may also be there beside all that, and may stay.
   */
  readonly steps?: boolean
  /** It repairs: what was there before is no repository that could be judged, and may stay so until the operation ran to its end. */
  readonly repairs?: boolean
}

export interface Prepared {
  readonly before: Tree
  readonly calls: readonly LoggedCall[]
  readonly auditBefore: Audit
  readonly auditAfter: Audit
  /** After each COMMIT on the way, if there are any. */
  readonly between: readonly Audit[]
  readonly model: DiskModel
}

/** Runs the operation once, watched. The model must then know the disk exactly, or something went around files.ts. */
export async function prepare(t: ExecutionContext, world: World, operation: Operation): Promise<Prepared> {
  operation.setUp(world)
  const auditBefore = operation.repairs ? undefined : await world.audit()
  t.deepEqual(auditBefore?.problems ?? [], [], `${operation.name}: before`)
  // Laid out anew, so that every run begins with the same files.
  const before = world.snapshot()
  world.restore(before)
  const model = new DiskModel(world.root)
  const told = new DiskModel(world.root)
  const ran = world.faulty(operation.args, undefined, operation.options)
  t.is(ran.rc, 0, ran.stderr)
  const after = world.snapshot()
  const between: Audit[] = []
  for (const call of ran.calls) {
    told.apply(call)
    if (!operation.steps || call.op !== 'rename' || !/\/index\.\d+$/.test(call.to)) continue
    world.restoreUnlocked(told.after('nothing'))
    const step = await world.audit()
    t.deepEqual(step.problems, [], `${operation.name}: on the way`)
    between.push(step)
  }
  if (operation.steps) {
    t.true(between.length > 1, `${operation.name}: commits several times`)
    world.restore(after)
  }
  t.is(digestOf(told.after('nothing'), /^$/), digestOf(world.snapshot(), /^$/), `${operation.name}: something was changed that the layer did not see`)
  const auditAfter = await world.audit()
  t.deepEqual(auditAfter.problems, [], `${operation.name}: after`)
  return { before, calls: ran.calls, auditBefore: auditBefore ?? auditAfter, auditAfter, between, model }
}

/** Checkpoints are looked at by themselves. */
const archivesOf = (audit: Audit, steps: boolean | undefined): string => JSON.stringify([...audit.archives].filter(([name]) => !(steps && checkpoint.test(name))).sort())
const checkpoint = /\.checkpoint(?:\.\d+)?$/

type Verdict = 'before' | 'between' | 'after' | 'broken'

/** Where it stands; fails the test for anything that should not be. */
export async function judge(t: ExecutionContext, world: World, operation: Operation, prepared: Prepared, label: string): Promise<Verdict> {
  let found: Audit
  try {
    found = await world.audit()
  } catch (error) {
    if (operation.repairs) return 'before'
    t.fail(`${label}: ${error instanceof Error ? error.stack : String(error)}`)
    return 'broken'
  }
  const like = (other: Audit): boolean => archivesOf(found, operation.steps) === archivesOf(other, operation.steps)
  if (operation.repairs && (found.problems.length > 0 || !like(prepared.auditAfter))) return 'before'
  const problems = [...found.problems, ...operation.steps ? await world.checkpointProblems([...found.archives.keys()].filter(name => checkpoint.test(name))) : []]
  if (problems.length > 0) {
    t.deepEqual(problems, [], label)
    return 'broken'
  }
  if (like(prepared.auditAfter)) return 'after'
  // With a checkpoint there is more than there was.
  if (operation.steps && found.archives.size > prepared.auditBefore.archives.size) return 'between'
  if (like(prepared.auditBefore)) return 'before'
  if (prepared.between.some(like)) return 'between'
  t.fail(`${label}: neither the state before nor the one after: ${[...found.archives.keys()].join(' ')}`)
  return 'broken'
}

/** The operation again: it must succeed, and give what it would have given. */
export async function repeat(t: ExecutionContext, world: World, operation: Operation, prepared: Prepared, state: string, label: string): Promise<void> {
  const ran = world.borgfs(operation.again ?? operation.args, { ...operation.options, ok: 'any' })
  // Of some that were named a part may be gone: a warning.
  if (state === 'between') t.true(ran.rc <= 1, `${label}, again: ${ran.stderr}`)
  else if (state !== 'after' || operation.repeatable) t.is(ran.rc, 0, `${label}, again: ${ran.stderr}`)
  t.is(await judge(t, world, operation, prepared, `${label}, again`), 'after', `${label}, again: ${ran.stderr}`)
}

export interface Limits {
  /** Crash states that are judged, and of them: after which the operation is repeated, which Borg judges too. */
  readonly states: number
  readonly repeats: number
  readonly checks: number
  /** Calls before which the process is really killed. */
  readonly kills: number
  /** Calls that fail. */
  readonly points: number
}

/** All that may go wrong with an operation, in a sandbox of its own: what crashCases and failCases say. */
export async function tryOperation(t: ExecutionContext, operation: Operation, limits: Limits): Promise<void> {
  const sandbox = new Sandbox('crash')
  try {
    const world = new World(sandbox)
    const prepared = await prepare(t, world, operation)
    const counts = await crashCases(t, world, operation, prepared, limits)
    t.log(JSON.stringify({ ...counts, failed: await failCases(t, world, operation, prepared, limits.points) }))
  } finally {
    sandbox.close()
  }
}

interface Counts {
  readonly calls: number
  readonly states: number
  readonly repeated: number
  readonly checked: number
  readonly killed: number
}

/** Crash states of an operation, judged; some repeated, some judged by Borg, some made by a real kill. */
async function crashCases(t: ExecutionContext, world: World, operation: Operation, prepared: Prepared, limits: Limits): Promise<Counts> {
  const all = [...crashStates(prepared.model, prepared.calls, everything ? 8 : 2)]
  const states = sample(all, limits.states, 1)
  const [repeats, checks] = [new Set(sample(states, limits.repeats, 2)), new Set(haveBorg ? sample(states, limits.checks, 3) : [])]
  let broken = 0
  // What is on the disk to stay may not be taken back by any later call.
  const ranks = { before: 0, between: 1, after: 2 }
  let durable: keyof typeof ranks = 'before'
  for (const state of states) {
    const label = `${operation.name}, ${state.calls} of ${prepared.calls.length} calls (${describe(prepared.calls[state.calls - 1])}), lost: ${state.loss}`
    world.restoreUnlocked(state.tree)
    const verdict = await judge(t, world, operation, prepared, label)
    // One wrong order of two calls shows at many moments.
    if (verdict === 'broken' && ++broken >= 3) break
    if (verdict !== 'broken') {
      t.true(ranks[verdict] >= ranks[durable], `${label}: ${verdict}, but the disk had got further`)
      if (state.loss === 'everything') durable = verdict
    }
    if (checks.has(state) && !(operation.repairs && verdict === 'before')) {
      const complaint = world.borgCheck()
      if (complaint !== undefined) t.fail(`${label}: borg check: ${complaint}`)
    }
    if (verdict !== 'broken' && repeats.has(state)) await repeat(t, world, operation, prepared, verdict, label)
  }
  const kills = sample(Array.from({ length: prepared.calls.filter(({ main }) => main).length }, (_, index) => index + 1), limits.kills, 4)
  for (const at of kills) {
    const label = `${operation.name}, killed before call ${at}`
    world.restore(prepared.before)
    const ran = world.faulty(operation.args, { at, action: 'kill' }, operation.options)
    t.is(ran.rc, 128, `${label}: ${ran.stderr}`)
    await repeat(t, world, operation, prepared, await judge(t, world, operation, prepared, label), label)
  }
  return { calls: prepared.calls.length, states: states.length, repeated: repeats.size, checked: checks.size, killed: kills.length }
}

function describe(call: LoggedCall | undefined): string {
  if (!call) return 'none'
  if (call.op === 'sync-all') return call.op
  return `${call.op} ${'path' in call ? call.path : 'from' in call ? `${call.from} -> ${call.to}` : `inode ${call.ino}`}`
}

/** The n-th call fails, for a sample of calls and kinds of failure; then all is as before or after, and the command can be repeated. */
async function failCases(t: ExecutionContext, world: World, operation: Operation, prepared: Prepared, wanted: number): Promise<number> {
  const count = prepared.calls.filter(({ main }) => main).length
  const kinds: Omit<Fault, 'at'>[] = [{ action: 'ENOSPC', sticky: true }, { action: 'EIO' }, { action: 'EDQUOT', sticky: true }, { action: 'short' }, { action: 'EIO', sticky: true }, { action: 'ENOSPC' }]
  const points: Fault[] = []
  for (let at = 1; at <= count; at++) for (const [index, kind] of kinds.entries()) if (everything || at % kinds.length === index) points.push({ at, ...kind })
  const chosen = sample(points, wanted, 5)
  for (const fault of chosen) {
    const label = `${operation.name}, ${fault.action}${fault.sticky ? ' from' : ' at'} call ${fault.at} of ${count} on (${describe(prepared.calls.filter(({ main }) => main)[fault.at - 1])})`
    world.restore(prepared.before)
    const ran = world.faulty(operation.args, fault, operation.options)
    if (fault.action === 'short') t.is(ran.rc, 0, `${label}: ${ran.stderr}`)
    else {
      t.true([0, 1, 2].includes(ran.rc) || ran.rc >= 3 && ran.rc < 128, `${label}: rc ${ran.rc}`)
      // One sentence, no stack trace.
      t.notRegex(ran.stderr, /\n\s+at |Local Exception|undefined/, label)
      if (ran.rc !== 0) t.true(ran.stderr.trim().length > 0, `${label}: no word about it`)
    }
    const verdict = await judge(t, world, operation, prepared, label)
    if (ran.rc === 0) t.is(verdict, 'after', `${label}: said to have succeeded. ${ran.stderr}`)
    if (verdict !== 'broken') await repeat(t, world, operation, prepared, verdict, label)
  }
  return chosen.length
}
