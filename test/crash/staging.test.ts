/**
 * Staged and live trees on a disk that forgets: whatever fsync promised is there after a crash at any call, by file; what came later is there,
 * or is not, or half of it is.
 */
import test, { type ExecutionContext } from 'ava'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { ArchiveReader } from '../../src/engine/archive/archive-reader.js'
import { errnoOf } from '../../src/engine/errors.js'
import { type ChunkId, idHex } from '../../src/engine/ids.js'
import { cacheFolderOf, placesOf } from '../../src/engine/platform/places.js'
import { Stash } from '../../src/engine/store/stash.js'
import { finishedBefore } from '../../src/fs/incoming/commit.js'
import { isFile, type Nodes, type StagedNode, typeFile, typeMask } from '../../src/fs/incoming/nodes.js'
import type { Place } from '../../src/fs/incoming/policy.js'
import { Staging } from '../../src/fs/incoming/staging.js'
import { openStagingKeys } from '../../src/fs/incoming/staging-keys.js'
import { openForAudit } from '../helpers/audit.js'
import { DiskModel } from '../helpers/disk-model.js'
import { type CrashState, crashStates, everything, readCalls, sample, some, World } from '../helpers/faults.js'
import { canMount } from '../helpers/mount.js'
import { borgfsProgram, Sandbox } from '../helpers/sandbox.js'

const run = canMount ? test.serial : test.serial.skip
if (!canMount) console.error('SKIPPED aloud: test/crash/staging needs to mount')

/*
 * Says in a line each, with the number of calls that were made until then: what a path is about to become, and for which paths that was
 * promised. Contents in hex, null for none; the range that is changed where it is changed in place.
 */
const words = String.raw`
import json, os, random, subprocess, sys, time
top, log, said = sys.argv[1:4]
out = open(said, 'w', buffering=1)
def say(**what): print(json.dumps({'calls': sum(1 for _ in open(log)), **what}), file=out)
def text(path):
    with open(os.path.join(top, path), 'rb') as f: return f.read()
def will(path, content, start=None, end=None): say(path=path, content=None if content is None else content.hex(), range=None if start is None else [start, end])
def promise(*paths): say(kept=list(paths))
finished = 0
# The host has it when nothing was asked for a moment. Not each time: what comes together is to be seen as well.
def done():
    global finished
    finished += 1
    if finished % 3 == 0:
        time.sleep(0.15)
        say(done=True)
def sync(path, *paths):
    fd = os.open(os.path.join(top, path), os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    promise(*(paths or (path,)))
def change(path, at, data, then_sync=True, cut=None):
    try: old = text(path)
    except FileNotFoundError: old = b''
    new = (old.ljust(at, b'\0')[:at] + data + old[at + len(data):]) if cut is None else old[:cut].ljust(cut, b'\0')
    will(path, new, *((min(at, len(old)), at + len(data)) if cut is None else (min(cut, len(old)), max(cut, len(old)))))
    fd = os.open(os.path.join(top, path), os.O_RDWR | os.O_CREAT, 0o644)
    if cut is None: os.pwrite(fd, data, at)
    else: os.ftruncate(fd, cut)
    done()
    if then_sync:
        os.fsync(fd)
        promise(path)
    os.close(fd)
def rename(old, new, *synced):
    content = text(old)
    will(new, content)
    will(old, None)
    os.rename(os.path.join(top, old), os.path.join(top, new))
    done()
    if synced: sync(synced[0], old, new)
# By the command for that.
def commit(command): subprocess.run([*command, 'commit', os.path.dirname(os.path.dirname(top)), 'tree'], check=True, stdout=subprocess.DEVNULL)
rng = random.Random(5)
def some(size): return bytes(rng.randrange(1, 256) for _ in range(size))
`

const worker = String.raw`
cloned = sys.argv[4]
change('a', 0, some(5000))
change('a', 1203, some(700))
change('a', 4990, some(60))
change('a', 0, b'', cut=2001)
change('a', 0, b'', cut=3000)
change('tmp', 0, some(900))
rename('tmp', 'b', '.')
change('tmp', 0, some(1500))
rename('tmp', 'b', '.')
os.mkdir(os.path.join(top, 'd'))
change('d/x', 0, some(40), then_sync=False)
change('d/y', 0, some(3333))
will('d/link', text('b'))
os.link(os.path.join(top, 'b'), os.path.join(top, 'd/link'))
done()
sync('d', 'd/link')
will('a', None)
os.unlink(os.path.join(top, 'a'))
done()
sync('.', 'a')
will('clone', open(cloned, 'rb').read(), 0, os.path.getsize(cloned))
src, fd = os.open(cloned, os.O_RDONLY), os.open(os.path.join(top, 'clone'), os.O_RDWR | os.O_CREAT)
size = os.fstat(src).st_size
assert os.copy_file_range(src, fd, size, 0, 0) == size
done()
os.fsync(fd)
promise('clone')
os.close(fd)
change('clone', 777, some(1000))
change('clone', 0, b'', cut=size - 3000)
change('clone', size + 100, some(20))
rename('d/y', 'y', 'd')
will('e/link', text('d/link'))
will('e/x', text('d/x'), 0, len(text('d/x')))  # It was not synced.
will('d/link', None)
will('d/x', None)
os.rename(os.path.join(top, 'd'), os.path.join(top, 'e'))
done()
sync('e', 'e/link', 'd/link', 'd/x')
change('late', 0, some(2500), then_sync=False)
change('late', 100, some(60), then_sync=False)
sync('late')
change('e/x', 10, some(5))
`

/** What a save has is not lost by what comes after it: the tree is changed after each. */
const savingWorker = String.raw`
def save(*paths):
    commit(sys.argv[4:])
    promise(*paths)
for path in os.listdir(top):
    will(path, text(path))
    promise(path)
change('short', 0, some(3000), then_sync=False)
change('long', 0, some(200000), then_sync=False)
change('small', 0, b'SMALL, longer', then_sync=False)
change('big', 1000, some(500), then_sync=False)
save('short', 'long', 'small', 'big')
change('other', 0, some(50))
change('long', 150000, some(1000), then_sync=False)
change('big', 20000, some(500), then_sync=False)
change('small', 0, b'', cut=4, then_sync=False)
save('long', 'big', 'small')
change('short', 100, some(7))
change('other', 0, some(60))
`

/** Anything, in any order. */
const chanceWorker = String.raw`
import time
archived, seed, steps = sys.argv[4], int(sys.argv[5]), int(sys.argv[6])
command = sys.argv[7:]
rng.seed(seed)
names = [os.path.join(folder, name) for folder in ('', 'd', 'e') for name in ('a', 'b', 'c')]
# Names of one file share a list. What was told of a name since something was promised of it. Names that were taken from a file, which a crash may give back.
groups, versions, former = {}, {}, {}
def full(path): return os.path.join(top, path)
def tell(path, content, *span):
    will(path, content, *span)
    versions.setdefault(path, []).append((content, *span))
def keep(*paths):
    promise(*paths)
    for path in paths: versions[path] = [version[:1] for version in versions.get(path, [])[-1:]]
for path in os.listdir(top):
    groups[path] = [path]
    tell(path, text(path))
    keep(path)
def told(path, new, start, end):
    for name in groups[path]: tell(name, new, start, end)
    for name, of in former.items():
        if of is not groups[path]: continue
        tell(name, new, start, end)
        tell(name, None)
def write(path, at, data):
    old = text(path) if path in groups else b''
    groups.setdefault(path, [path])
    told(path, old.ljust(at, b'\0')[:at] + data + old[at + len(data):], min(at, len(old)), at + len(data))
    with open(os.open(full(path), os.O_RDWR | os.O_CREAT, 0o644), 'r+b', 0) as f: os.pwrite(f.fileno(), data, at)
def truncate(path, size):
    old = text(path)
    told(path, old[:size].ljust(size, b'\0'), min(size, len(old)), max(size, len(old)))
    os.truncate(full(path), size)
def empty_and_write(path, data):
    old = text(path)
    told(path, b'', 0, len(old))
    told(path, data, 0, max(len(data), len(old)))
    with open(full(path), 'wb', 0) as f: f.write(data)
def forget(path):
    groups[path].remove(path)
    former[path] = groups.pop(path)
def unlink(path):
    tell(path, None)
    os.unlink(full(path))
    forget(path)
def appear(path, like):
    # What nobody promised may be there in part: a file that is new begins with nothing.
    if len(versions[like][0]) > 1: tell(path, b'')
    for version in versions[like]:
        if version[0] is not None: tell(path, *version)
def link(old, new):
    appear(new, old)
    os.link(full(old), full(new))
    groups[new] = groups[old]
    groups[new].append(new)
def rename(old, new):
    if new in groups and groups[new] is groups[old]: return
    appear(new, old)
    tell(old, None)
    os.rename(full(old), full(new))
    if new in groups:
        groups[new].remove(new)
    group = groups[old]
    group.append(new)
    forget(old)
    groups[new] = group
def clone(path):
    size = os.path.getsize(archived)
    groups.setdefault(path, [path])
    old = text(path) if os.path.exists(full(path)) else b''
    with open(archived, 'rb') as f: content = f.read()
    told(path, content + old[size:], 0, size)
    src, fd = os.open(archived, os.O_RDONLY), os.open(full(path), os.O_RDWR | os.O_CREAT, 0o644)
    assert os.copy_file_range(src, fd, size, 0, 0) == size
    os.close(fd)
    os.close(src)
# And so is all that was done to names.
def fsync(path):
    fd = os.open(full(path), os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    keep(*groups[path], *former)
    former.clear()
ever = set(groups)
for step in range(steps):
    ever.update(groups)
    there = sorted(groups)
    path = rng.choice([name for name in names if name not in former])
    os.makedirs(os.path.dirname(full(path)), exist_ok=True)
    some_path = rng.choice(there) if there else None
    kind = rng.randrange(20)
    size = rng.choice((1, 700, 5000, 70000))
    if kind < 3: write(path, 0, some(size))
    elif kind < 5 and some_path: write(some_path, rng.randrange(os.path.getsize(full(some_path)) + 1), some(size))
    elif kind < 7 and some_path: write(some_path, rng.randrange(os.path.getsize(full(some_path)) + 3000), some(min(size, 900)))
    elif kind < 9 and some_path: truncate(some_path, rng.randrange(os.path.getsize(full(some_path)) + 500))
    elif kind < 11 and some_path: empty_and_write(some_path, some(size))
    elif kind == 11 and some_path: unlink(some_path)
    elif kind == 12 and some_path and path not in groups: link(some_path, path)
    elif kind == 13 and some_path: rename(some_path, path)
    elif kind == 14: clone(path)
    elif kind < 18 and some_path: fsync(some_path)
    elif kind == 18 and groups:
        commit(command)
        keep(*ever)
        former.clear()
        continue
    elif kind == 19 and rng.randrange(3) == 0: time.sleep(3.3)
    done()
`

interface Said {
  readonly calls: number
  readonly path?: string
  readonly content?: string | null
  readonly range?: readonly [number, number] | null
  readonly kept?: readonly string[]
  /** What was said before has returned. */
  readonly done?: boolean
}

interface Version {
  readonly content: Buffer | undefined
  /** It is the version before with this changed; undefined: another file, or none. */
  readonly range: readonly [number, number] | undefined
}

/**
 * What a path may be after so many calls: its last version that was promised, and all that were begun since. Where only the process was killed,
 * `whole` calls are done, and what was said to be done by then, a moment ago, stays, promised or not.
 */
function allowed(said: readonly Said[], path: string, calls: number, whole: number): Version[] {
  let versions: Version[] = [{ content: undefined, range: undefined }]
  for (const line of said) {
    if (line.calls > calls) break
    if (line.done && line.calls <= whole) versions = [{ ...versions.at(-1)!, range: undefined }]
    if (line.path === path) versions.push({ content: line.content === null ? undefined : Buffer.from(line.content!, 'hex'), range: line.range ?? undefined })
    if (line.kept?.includes(path)) versions = [{ ...versions.at(-1)!, range: undefined }]
  }
  return versions
}

/** In short: after how many calls what was told of a path. */
function historyOf(said: readonly Said[], path: string, calls: number): string {
  return said.filter(line => line.calls <= calls && (line.path === path || line.kept?.includes(path))).map(line => {
    if (line.kept) return `${line.calls} promised`
    return `${line.calls} ${line.content === null ? 'gone' : `${line.content!.length / 2} bytes${line.range ? ` (${line.range.join(' to ')})` : ''}`}`
  }).join(', ')
}

/** Of sealed contents that many bytes stand or fall together. */
const blockBytes = 16

/**
 * Whether a file can be what is found: one of the versions; or one that was being changed in place, the same outside of what was changed,
 * where each byte is one of those that some version has there, or zero. `torn`: writes ended anywhere, which leaves blocks of nonsense there, and
 * a length that is told wrongly within a block. No disk tears a sector, and no kernel counts half
 * a page as written.
 */
function canBe(found: Buffer | undefined, versions: readonly Version[], torn: boolean): boolean {
  if (found === undefined) return versions.some(({ content }) => content === undefined)
  const slack = torn ? blockBytes : 0
  let group: Buffer[] = [], changed: (readonly [number, number])[] = []
  const fits = (): boolean => {
    const lengths = group.map(({ length }) => length)
    if (group.length === 0 || found.length < Math.min(...lengths) - slack || found.length > Math.max(...lengths) + slack) return false
    return found.every((byte, at) => {
      const isChanged = changed.some(([start, end]) => at >= start - (start % blockBytes) - slack && at < Math.ceil(end / blockBytes) * blockBytes + slack)
      return isChanged ? torn || byte === 0 || group.some(content => content[at] === byte) : byte === group[0]![at]
    })
  }
  for (const { content, range } of versions) {
    // A name that went; the file may have been changed under another one since, and a crash gives the name back.
    if (content === undefined) continue
    if (!range) {
      if (fits()) return true
      ;[group, changed] = [[content], []]
    } else {
      if (group.length === 0) group.push(Buffer.alloc(0))
      group.push(content)
      changed.push(range)
    }
  }
  return fits()
}

/** BORGFS_CRASH_SEEDS=FROM:COUNT: others. */
const [firstSeed = 1, seedCount = 1] = (process.env.BORGFS_CRASH_SEEDS ?? '').split(':').filter(Boolean).map(Number)
const seeds = Array.from({ length: seedCount }, (_, index) => firstSeed + index)

/** BORGFS_CRASH_TWICE=FIRST:SECOND:SEED: so many first crashes, and so many of the mount after each. */
const [firstCount = 3, secondCount = 12, twiceSeed = 11] = (process.env.BORGFS_CRASH_TWICE ?? '').split(':').filter(Boolean).map(Number)

interface Crashed {
  readonly place: Place
  readonly said: readonly Said[]
  readonly calls: number
  readonly states: readonly CrashState[]
}

const mountOptions = ['-o', 'settle=3600,linger=3600,refresh=0']

function readSaid(path: string): Said[] {
  return readFileSync(path, 'utf8').split('\n').filter(Boolean).map(line => JSON.parse(line) as Said)
}

/** A drive that is killed after the worker did its work in the tree `tree`, and what a crash at any of its calls may leave. */
async function crash(sandbox: Sandbox, world: World, place: Place, script: string, args: (mountpoint: string) => readonly string[]): Promise<Crashed> {
  sandbox.sh('mkdir source; head -c 30000 /dev/urandom > source/big; echo small > source/small')
  world.borgfs(['init', '-e', 'repokey', 'world/repo'])
  world.borgfs(['create', '../world/repo::tree-1', '.'], { cwd: sandbox.path('source') })
  // What is made once is made: the crash is later.
  sandbox.unmount(sandbox.mount('world/repo', { args: mountOptions, env: world.env }))
  const { env, log } = world.watched()
  const mountpoint = sandbox.mount('world/repo', { args: mountOptions, env })
  const tree = join(mountpoint, place, 'tree')
  sandbox.run('mkdir', [tree])
  sandbox.run('sync', ['-f', tree])
  writeFileSync(log, '')
  const model = new DiskModel(world.root)
  sandbox.run('python3', ['-c', words + script, tree, log, sandbox.path('said'), ...args(mountpoint)])
  const calls = readCalls(log)
  const said = readSaid(sandbox.path('said'))
  await sandbox.killMount(mountpoint)
  return { place, said, calls: calls.length, states: [...crashStates(model, calls, everything ? 6 : 3)] }
}

/**
 * The next mount finds such a state, and crashes as well, at any moment of its own: its start, a change, what it makes durable by and by. What the first crash had to leave is there still;
 * and where only the process was killed, all that the mount showed.
 */
async function judgeTwice(t: ExecutionContext, sandbox: Sandbox, world: World, { place, said, calls, states }: Crashed): Promise<void> {
  const paths = [...new Set(said.flatMap(({ path }) => path ?? []))]
  let seconds = 0
  for (const first of some(states, firstCount, twiceSeed)) {
    world.restoreUnlocked(first.tree)
    const wasKilled = isKill(first)
    const boot = wasKilled ? undefined : 'the second start'
    const { env, log } = world.watched()
    const model = new DiskModel(world.root)
    const mountpoint = sandbox.mount('world/repo', { args: mountOptions, env: { ...env, ...(boot && { FAULTS_BOOT: boot }) } })
    const tree = join(mountpoint, place, 'tree')
    // It may be an archive already.
    const shown = existsSync(tree) ? new Map(paths.map(path => [path, contentOf(join(tree, path))])) : undefined
    writeFileSync(sandbox.path('said again'), '')
    if (shown) sandbox.run('python3', ['-c', words + "change('second', 0, some(3000))", tree, log, sandbox.path('said again')])
    // All else becomes durable three seconds after the start, and what is needless then goes.
    await pause(4000)
    const callsAgain = readCalls(log)
    const saidAgain = readSaid(sandbox.path('said again'))
    await sandbox.killMount(mountpoint)
    for (const second of some([...crashStates(model, callsAgain, 3)], secondCount, twiceSeed)) {
      seconds++
      const label = `${first.calls} of ${calls} calls, lost: ${first.loss}; then ${second.calls} of ${callsAgain.length}, lost: ${second.loss}`
      world.restoreUnlocked(second.tree)
      const { files } = await stagedFiles(world, place, isKill(second) ? boot : 'the third start')
      for (const path of paths) {
        const found = files.get(path)
        const versions = allowed(said, path, first.calls, wasKilled && isKill(second) ? wholeCalls(first) : -1)
        const right = canBe(found, versions, isTorn(first) || isTorn(second))
        if (!right) t.fail(`${label}: ${path} has ${found?.length} bytes, allowed are ${versions.map(({ content }) => content?.length).join()}, the mount showed ${shown?.get(path)?.length}. It was told: ${historyOf(said, path, first.calls)}`)
        const isSame = !shown || (found === undefined ? shown.get(path) === undefined : shown.get(path)?.equals(found))
        if (isKill(second) && !isSame) t.fail(`${label}: ${path} has ${found?.length} bytes, the mount showed ${shown.get(path)?.length}`)
      }
      const versions = allowed(saidAgain, 'second', second.calls, isKill(second) ? wholeCalls(second) : -1)
      t.true(canBe(files.get('second'), versions, isTorn(second)), `${label}: second has ${files.get('second')?.length} bytes`)
    }
  }
  t.log(`${seconds} second crashes`)
}

function contentOf(path: string): Buffer | undefined {
  try {
    return readFileSync(path)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined
    throw error
  }
}

/** Only the process was killed. */
function isKill({ loss }: CrashState): boolean {
  return loss === 'nothing' || loss === 'half-write'
}

/** Calls of which all is there. */
function wholeCalls({ calls, loss }: CrashState): number {
  return loss === 'half-write' ? calls - 1 : calls
}

/** Writes ended anywhere. */
function isTorn({ loss }: CrashState): boolean {
  return loss === 'half-write' || typeof loss === 'number'
}

/** By file: what is there is what was promised, or what was begun since. */
async function judgeStates(t: ExecutionContext, world: World, { place, said, calls, states }: Crashed): Promise<void> {
  const paths = [...new Set(said.flatMap(({ path }) => path ?? []))]
  const chosen = sample(states, 60, 7)
  let promises = 0
  for (const state of chosen) {
    const label = `${state.calls} of ${calls} calls, lost: ${state.loss}`
    world.restoreUnlocked(state.tree)
    const { files, lost } = await stagedFiles(world, place, isKill(state) ? undefined : 'after the power failed')
    for (const path of paths) {
      const versions = allowed(said, path, state.calls, isKill(state) ? wholeCalls(state) : -1)
      const found = files.get(path)
      if (!versions.some(({ content }) => content === undefined)) promises++
      const right = canBe(found, versions, isTorn(state))
      if (right) t.pass()
      else t.fail(`${label}: ${path} has ${found?.length} bytes, allowed are ${versions.map(({ content }) => content?.length).join()}; ${lost} records lost. It was told: ${historyOf(said, path, state.calls)}`)
    }
    if (place === 'live' && files.has('small') && !paths.includes('small')) t.is(files.get('small')!.toString(), 'small\n', label)
  }
  t.log(`${calls} calls, ${chosen.length} of ${states.length} states, ${promises} promises about ${paths.length} paths kept`)
}

/** A test of what crashes leave after a worker; `args` are its own. */
function holds(what: string, place: Place, script: string, args: (mountpoint: string) => readonly string[]): void {
  run(`after any crash ${place}/ holds${what}`, async t => {
    const sandbox = new Sandbox(`crash-staging-${place}`)
    try {
      const world = new World(sandbox)
      const crashed = await crash(sandbox, world, place, script, args)
      await judgeStates(t, world, crashed)
      await judgeTwice(t, sandbox, world, crashed)
    } finally {
      sandbox.close()
    }
  })
}

const archivedIn = (mountpoint: string): string => join(mountpoint, 'tree-1', 'big')
const program = [process.execPath, borgfsProgram]
for (const place of ['incoming', 'live'] as const) {
  holds(', by file, what was fsynced', place, worker, mountpoint => [archivedIn(mountpoint)])
  holds(', by file, nothing older than what was saved, whatever changed since', place, savingWorker, () => program)
  for (const seed of seeds) holds(` what it should, whatever was done (${seed})`, place, chanceWorker, mountpoint => [archivedIn(mountpoint), String(seed), '60', ...program])
}

/** Whether a path that the archive beneath has is still its own. No directories are moved here. */
function isFromBeneath(nodes: Nodes, top: StagedNode, path: string): boolean {
  let directory = top
  for (const name of path.split('/')) {
    const child = nodes.child(directory, name)
    if (!child) return directory.origin !== undefined && !directory.hidden?.has(name)
    directory = child
  }
  return false
}

/**
 * Contents by path in the staged tree `tree`, as the next mount would have them, in which start of the machine it may be. Where it lies over an
 * archive, or is not there any more because it is one, what is not staged is as the archive has it.
 */
async function stagedFiles(world: World, place: Place, boot: string | undefined): Promise<{ files: Map<string, Buffer>; lost: number }> {
  const env = world.sandbox.env(world.env)
  const { repository, key, objects, manifest } = await openForAudit(world.repository, env)
  const folder = join(cacheFolderOf(placesOf(env), repository.id), 'staging', place === 'live' ? 'live' : '')
  const now = 0n
  const stash = new Stash(join(cacheFolderOf(placesOf(env), repository.id), 'staging', 'chunks'))
  const archives = [...manifest.archives.values()].sort((a, b) => (a.time < b.time ? -1 : 1))
  const [ids, newest] = [archives.map(({ id }) => idHex(id)), archives.at(-1)!]
  const keys = (await openStagingKeys([folder], key))[0]
  const staging = new Staging({
    folder, boot, maxBytes: undefined, place, keys, archiveIds: new Set(ids), chunks: [stash.shared(), repository.sharedIndex()], stashBytes: stash.bytes, newest: () => ids.at(-1),
    finished: finishedBefore(folder, manifest, keys),
    rootFacts: { mode: 0o040755, uid: 0, gid: 0, rdev: 0, atimeNs: now, mtimeNs: now, ctimeNs: now },
  })
  const files = new Map<string, Buffer>()
  const chunk = async (id: ChunkId): Promise<Buffer> => await objects.parse(id, stash.get(id) ?? await repository.get(id))
  const contentOf = async (node: StagedNode): Promise<Buffer> => {
    const bytes = Buffer.alloc(node.size)
    if (node.place) staging.bundles.read(node.place, bytes, 0)
    else if (!node.bare) staging.spool.read(node.id, bytes, 0, node.size)
    for (let index = 0; index < (node.extents?.count ?? 0); index++) {
      const { at, length, from, id } = node.extents!.get(index)
      const plain = await chunk(Buffer.from(id) as ChunkId)
      plain.copy(bytes, at, from, from + length)
    }
    return bytes
  }
  const top = staging.nodes.child(staging.nodes.get(1)!, 'tree')
  const base = staging.nodes.bases[0]
  const shown = top ? archives.find(({ id }) => idHex(id) === base?.archive) : place === 'live' || archives.length > 1 ? newest : undefined
  if (shown) {
    // A link may have its content from a name that is not there any more.
    const contents = new Map<string, Buffer>()
    for await (const { path, mode, source, chunks } of (await ArchiveReader.open(shown, repository, objects)).items()) {
      if ((mode & typeMask) !== typeFile) continue
      const bytes: Buffer[] = []
      for (const { id } of chunks ?? []) bytes.push(await chunk(id))
      contents.set(path.toString(), source ? contents.get(source.toString())! : Buffer.concat(bytes))
    }
    for (const [path, content] of contents) if (!top || isFromBeneath(staging.nodes, top, path)) files.set(path, content)
  }
  if (top) for (const { node, path } of staging.nodes.walk(top)) if (isFile(node)) files.set(path, await contentOf(node))
  staging.close()
  stash.close()
  await repository.close()
  return { files, lost: staging.lostRecords }
}
