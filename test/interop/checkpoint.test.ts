/** Checkpoints, part files and signals of `create`, with the real borg as judge. Contents come slowly, so that there is time for them. */
import test from 'ava'
import type { ChildProcess } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { borgfsProgram, eventually, haveBorg, Sandbox } from '../helpers/sandbox.js'
import { generate } from '../helpers/generators.js'

const run = haveBorg ? test : test.skip
if (!haveBorg) console.error('SKIPPED aloud: test/interop/checkpoint needs the real borg')

interface Dumped {
  readonly path: string
  readonly part?: number
  readonly chunks?: readonly (readonly [string, number, number])[]
  readonly [key: string]: unknown
}

function dump(sandbox: Sandbox, archive: string): { items: Dumped[]; meta: Record<string, unknown> } {
  const { _items: items, _meta: meta } = JSON.parse(sandbox.borg(['debug', 'dump-archive', archive, '-']).stdout) as { _items: Dumped[]; _meta: Record<string, unknown> }
  return { items, meta }
}

function assertSound(t: { regex(text: string, expression: RegExp): void; notRegex(text: string, expression: RegExp): void }, sandbox: Sandbox): void {
  const { stderr } = sandbox.borg(['check', '--verify-data', '-v', 'repo'])
  t.regex(stderr, /Archive consistency check complete, no problems found/)
  t.notRegex(sandbox.borg(['info', '-v', 'repo']).stderr, /Synchronizing/)
}

/** The transaction that a repository is at. */
function transaction(sandbox: Sandbox): number {
  return Math.max(-1, ...readdirSync(sandbox.path('repo')).filter(name => name.startsWith('index.')).map(name => Number(name.slice(6))))
}

/** Starts `borgfs create` of a tree with small files and, read last, a fifo that `feed` writes to. */
function slowCreate(sandbox: Sandbox, archive: string, feed: string, options: readonly string[] = []): { child: ChildProcess; said: () => string; ended: Promise<number | string | null> } {
  sandbox.sh('rm -f zfifo; mkfifo zfifo')
  const child = sandbox.start(process.execPath, [borgfsProgram, 'create', '-v', '-c', '1', '--chunker-params', 'fixed,100000', '--read-special', ...options, `repo::${archive}`, 'tree', 'zfifo'])
  let said = ''
  child.stderr!.on('data', (bytes: Buffer) => (said += bytes.toString()))
  sandbox.start('bash', ['-c', `exec > ${sandbox.path('zfifo')}; ${feed}`])
  const ended = new Promise<number | string | null>(resolve => child.once('close', (code, signal) => resolve(code ?? signal)))
  return { child, said: () => said, ended }
}

function makeTree(sandbox: Sandbox): void {
  sandbox.mkdir('tree')
  for (let number = 0; number < 30; number++) writeFileSync(sandbox.path('tree', `f${number}`), `${number} `.repeat(2000))
  writeFileSync(sandbox.path('piece'), generate('ctr', 1, 300_000))
  // The newest file of a run is not remembered.
  sandbox.sh('sleep 0.05; echo newest > tree/newest')
}

run('a checkpoint within a file leaves the part items, sums and chunks that borg leaves', t => {
  const sandbox = new Sandbox('checkpoint-parts')
  try {
    const piece = (index: number): string => {
      writeFileSync(sandbox.path(`p${index}`), generate('ctr', index, 300_000))
      return `cat ${sandbox.path(`p${index}`)}`
    }
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    let theirs: ReturnType<typeof dump>, ours: ReturnType<typeof dump>
    // On a machine that stands still for a second there are more checkpoints than pauses: then all is done again, slower.
    for (let interval = 1; ; interval *= 4) {
      const feed = [1, 2, 3].map(piece).join(`; sleep ${interval * 1.2}; `)
      const options = ['-c', String(interval), '--chunker-params', 'fixed,100000', '-C', 'none', '--stdin-name', 'slow', '--content-from-command']
      sandbox.borg(['create', ...options, 'repo::b', '--', 'sh', '-c', feed])
      sandbox.borgfs(['create', ...options, 'repo::f', '--', 'sh', '-c', feed])
      ;[theirs, ours] = [dump(sandbox, 'repo::b'), dump(sandbox, 'repo::f')]
      const shapes = [theirs, ours].map(({ items }) => items.map(({ chunks = [] }) => chunks.length).join(' '))
      if (shapes.every(shape => shape === '4 3 2 9') || interval > 10) break
      t.log(`at an interval of ${interval} s the parts were ${shapes.join(' and ')}`)
      sandbox.borg(['delete', 'repo', 'b', 'f'])
    }
    const strip = (items: readonly Dumped[]): unknown => items.map(({ ctime: _c, mtime: _m, atime: _a, ...item }) => item)
    t.is(ours.items.length, 4)
    t.deepEqual(strip(ours.items), strip(theirs.items))
    for (const sum of ['nfiles', 'size_parts', 'csize_parts', 'nfiles_parts']) t.is(ours.meta[sum], theirs.meta[sum], sum)
    const whole = Buffer.concat([1, 2, 3].map(index => readFileSync(sandbox.path(`p${index}`))))
    const out = sandbox.mkdir('out')
    sandbox.borgfs(['extract', '--consider-part-files', '../repo::f'], { cwd: out })
    t.deepEqual(Buffer.concat([1, 2, 3].map(part => readFileSync(`${out}/slow.borg_part_${part}`))), whole)
    t.deepEqual(readFileSync(`${out}/slow`), whole)
    for (const args of [['--short', 'repo::f'], ['--short', '--consider-part-files', 'repo::f']]) t.is(sandbox.borgfs(['list', ...args]).stdout, sandbox.borg(['list', ...args]).stdout)
    // Checkpoints are gone with the archive.
    t.is(sandbox.borg(['list', '--consider-checkpoints', '--short', 'repo']).stdout, 'b\nf\n')
    assertSound(t, sandbox)
    sandbox.borg(['delete', 'repo', 'b', 'f'])
    t.regex(sandbox.borg(['info', 'repo']).stdout, /Chunk index: +0 +0\n/)
  } finally {
    sandbox.close()
  }
})

run('killed after a checkpoint, its archive is there, and the next run neither reads nor stores again what it had', async t => {
  const sandbox = new Sandbox('checkpoint-kill')
  try {
    makeTree(sandbox)
    sandbox.borgfs(['init', '-e', 'repokey', 'repo'])
    const before = transaction(sandbox)
    const piece = sandbox.path('piece')
    const { child, ended } = slowCreate(sandbox, 'a', `cat ${piece}; sleep 1.2; cat ${piece}; exec tail -f ${piece}`)
    await eventually('a checkpoint', () => transaction(sandbox) > before)
    // The cache follows the commit; its config says last that all of it is there.
    await eventually('the cache', () => {
      const config = sandbox.sh('cat home/.cache/borg/*/config').stdout
      const manifests = [...config.matchAll(/^manifest = ([0-9a-f]{64})$/gm)].map(([, id]) => id)
      return /^files = /m.test(config) && manifests.length === 2 && manifests[0] === manifests[1]
    })
    child.kill('SIGKILL')
    await ended
    t.is(sandbox.borg(['list', '--consider-checkpoints', '--short', 'repo']).stdout, 'a.checkpoint\n')
    t.is(sandbox.borgfs(['list', '--short', 'repo']).stdout, '')
    t.is(sandbox.borgfs(['list', '--short', '--consider-checkpoints', 'repo']).stdout, 'a.checkpoint\n')
    assertSound(t, sandbox)
    const out = sandbox.mkdir('out')
    sandbox.borg(['extract', '--consider-part-files', '../repo::a.checkpoint'], { cwd: out })
    const got = readFileSync(`${out}/zfifo.borg_part_1`)
    t.true(got.length >= 300_000)
    t.deepEqual(got, Buffer.concat([readFileSync(piece), readFileSync(piece)]).subarray(0, got.length))
    t.false(existsSync(`${out}/zfifo`))

    sandbox.sh('rm zfifo; cp piece zfifo')
    const { stderr } = sandbox.borgfs(['create', '--list', '--json', '--chunker-params', 'fixed,100000', 'repo::a', 'tree', 'zfifo'])
    const letters = stderr.split('\n').filter(line => / tree\/f\d+$/.test(line))
    t.is(letters.length, 30)
    t.deepEqual(letters.filter(line => !line.startsWith('U ')), [])
    const { items } = dump(sandbox, 'repo::a')
    const known = new Set(dump(sandbox, 'repo::a.checkpoint').items.flatMap(({ chunks = [] }) => chunks.map(([id]) => id)))
    const fresh = items.flatMap(({ path, chunks = [] }) => chunks.filter(([id]) => !known.has(id)).map(() => path))
    t.deepEqual(fresh, [])
    assertSound(t, sandbox)
  } finally {
    sandbox.close()
  }
})

run('the first Ctrl-C makes a checkpoint and ends, the second one gives up at once; SIGUSR1 is answered', async t => {
  const sandbox = new Sandbox('checkpoint-signals')
  try {
    makeTree(sandbox)
    sandbox.borgfs(['init', '-e', 'none', 'repo'])
    const before = transaction(sandbox)
    const piece = sandbox.path('piece')
    const forever = `while cat ${piece}; do sleep 0.1; done 2> /dev/null`
    {
      const { child, said, ended } = slowCreate(sandbox, 'a', forever, ['-c', '0'])
      await eventually('an answer to SIGUSR1', () => /Creating/.test(said()) && child.kill('SIGUSR1') && /^zfifo \d.*B\/\?\?\?$/m.test(said()))
      t.is(transaction(sandbox), before, 'with -c 0 there is none by time')
      child.kill('SIGINT')
      t.is(await ended, 2)
      t.regex(said(), /checkpoint requested: starting checkpoint creation\.\.\.\ncheckpoint requested: finished checkpoint creation!\nGot Ctrl-C \/ SIGINT\.\n$/)
    }
    t.is(sandbox.borg(['list', '--consider-checkpoints', '--short', 'repo']).stdout, 'a.checkpoint\n')
    t.true(dump(sandbox, 'repo::a.checkpoint').items.some(({ path, part }) => path === 'zfifo.borg_part_1' && part === 1))
    assertSound(t, sandbox)
    {
      // Of the same name: the older one stays.
      const former = transaction(sandbox)
      const { child, said, ended } = slowCreate(sandbox, 'a', forever)
      await eventually('another checkpoint', () => transaction(sandbox) > former)
      child.kill('SIGTERM')
      t.is(await ended, 143)
      t.regex(said(), /Received SIGTERM/)
    }
    t.is(sandbox.borg(['list', '--consider-checkpoints', '--short', 'repo']).stdout, 'a.checkpoint\na.checkpoint.1\n')
    assertSound(t, sandbox)
    {
      const { child, said, ended } = slowCreate(sandbox, 'b', `cat ${piece}; exec tail -f ${piece}`, ['-c', '0'])
      await eventually('the fifo is being read', () => /Creating/.test(said()) && child.kill('SIGUSR1') && /zfifo 300\.00 kB/.test(said()))
      // Two that come at once may be one to it.
      await eventually('the end', () => child.signalCode !== null || (child.kill('SIGINT') && false))
      // Stuck in a read that does not end, it dies by the signal: 130 to a shell.
      t.is(await ended, 'SIGINT')
    }
    t.is(sandbox.borg(['list', '--consider-checkpoints', '--short', 'repo']).stdout, 'a.checkpoint\na.checkpoint.1\n')
    assertSound(t, sandbox)
  } finally {
    sandbox.close()
  }
})

run('a command that fails after a checkpoint leaves the checkpoint, and nothing that no archive refers to', t => {
  const sandbox = new Sandbox('checkpoint-failing')
  try {
    sandbox.borgfs(['init', '-e', 'repokey', 'repo'])
    const before = transaction(sandbox)
    for (const index of [1, 2, 3]) writeFileSync(sandbox.path(`p${index}`), generate('ctr', index, 300_000))
    const { stderr } = sandbox.borgfs(['create', '-c', '1', '--chunker-params', 'fixed,100000', '--content-from-command', 'repo::a', '--', 'sh', '-c', `cat ${sandbox.path('p1')}; sleep 1.2; cat ${sandbox.path('p2')}; exit 3`], { ok: [2] })
    t.regex(stderr, /Command 'sh' exited with status 3/)
    t.true(transaction(sandbox) > before)
    t.is(sandbox.borg(['list', '--consider-checkpoints', '--short', 'repo']).stdout, 'a.checkpoint\n')
    assertSound(t, sandbox)
  } finally {
    sandbox.close()
  }
})
