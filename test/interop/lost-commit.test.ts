/**
 * The COMMIT of the newest transaction is damaged, cut short or gone, while the index proves that there was one: nothing that was called
 * saved is thrown away, check tells of it, and repair has it back, to the content of real borg.
 */
import test from 'ava'
import { cpSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { haveBorg, isRoot, Sandbox } from '../helpers/sandbox.js'
import { makeSmallFiles } from '../helpers/trees.js'

const run = haveBorg ? test : test.skip
if (!haveBorg) console.error('SKIPPED aloud: test/interop/lost-commit asks the real borg')

const yes = { BORG_CHECK_I_KNOW_WHAT_I_AM_DOING: 'YES' }

function segments(repo: string): number[] {
  return readdirSync(join(repo, 'data/0')).map(Number).sort((a, b) => a - b)
}

function last(repo: string): string {
  return join(repo, 'data/0', String(segments(repo).at(-1)))
}

/** Archives one and two; two is the transaction whose COMMIT is lost. */
function make(sandbox: Sandbox, program: 'borg' | 'borgfs'): { base: string; source: string; before: string[] } {
  const source = makeSmallFiles(sandbox, 'source', 30)
  sandbox[program](['init', '-e', 'repokey', 'base'])
  sandbox[program](['create', '../base::one', '.'], { cwd: source })
  const before = readdirSync(sandbox.path('base')).filter(name => /^(index|hints|integrity)\./.test(name))
  for (const name of before) cpSync(sandbox.path('base', name), sandbox.path(name))
  writeFileSync(join(source, 'new'), 'of the second archive')
  sandbox[program](['create', '../base::two', '.'], { cwd: source })
  return { base: sandbox.path('base'), source, before }
}

const damages: readonly (readonly [string, (repo: string) => void])[] = [
  ['a bit of it turned', repo => {
    const bytes = readFileSync(last(repo))
    bytes[9]! ^= 4
    writeFileSync(last(repo), bytes)
  }],
  ['its file cut short', repo => truncateSync(last(repo), 12)],
  ['its file emptied', repo => truncateSync(last(repo), 0)],
  ['its file gone', repo => unlinkSync(last(repo))],
]

for (const program of ['borg', 'borgfs'] as const) {
  run(`a COMMIT by ${program} that is damaged or lost is told of, guarded and restored`, t => {
    const sandbox = new Sandbox('lost-commit')
    try {
      const { base, source } = make(sandbox, program)
      for (const [number, [name, damage]] of (program === 'borg' ? damages : damages.slice(0, 1)).entries()) {
        const repo = sandbox.path(`repo-${number}`)
        const home = `home-${number}`
        cpSync(base, repo, { recursive: true })
        // Each with a cache and a security folder of its own, as a client that has not seen the second archive.
        const env = { BORG_BASE_DIR: sandbox.mkdir(home) }
        damage(repo)
        const held = segments(repo)

        const list = sandbox.borgfs(['list', '--short', repo], { env })
        t.is(list.stdout, 'one\n', name)
        t.regex(list.stderr, /^Transaction \d+ of .* was saved, but its COMMIT is damaged or missing: you see transaction \d+\. Run "borg check --repair .*" to have it back\.$/m)

        const writers = [['create', `${repo}::three`, '.'], ['delete', `${repo}::one`], ['compact', '--threshold', '0', repo], ['rename', `${repo}::one`, 'eins']]
        for (const args of number === 0 ? writers : writers.slice(0, 1)) {
          const refused = sandbox.borgfs(args, { env: { ...env, BORG_EXIT_CODES: 'modern' }, cwd: source, ok: 'any' })
          t.is(refused.rc, 12, `${name}: ${args[0]}: ${refused.stderr}`)
          t.regex(refused.stderr, /its COMMIT is damaged or missing, and to go on would throw it away\. Nothing was changed\. Please run "borg check --repair/)
          t.notRegex(refused.stderr, /^ +at /m)
        }
        t.deepEqual(segments(repo), held, name)

        const check = sandbox.borgfs(['check', '-v', repo], { env, ok: [1] })
        t.regex(check.stderr, /was saved, but its COMMIT is damaged or missing: clients see transaction \d+\. Do not write/)
        t.notRegex(check.stderr, /no problems found/)
        const plan = sandbox.borgfs(['check', '--repair', '--dry-run', repo], { env, ok: [1] })
        t.regex(plan.stdout + plan.stderr, /With --repair: transaction \d+ is restored: a COMMIT is written as segment \d+/)
        t.deepEqual(segments(repo), held, name)

        sandbox.borgfs(['check', '--repair', repo], { env: { ...env, ...yes }, ok: [0] })
        t.is(sandbox.borgfs(['list', '--short', repo], { env }).stdout, 'one\ntwo\n', name)
        sandbox.borgfs(['check', '--verify-data', repo], { env })
        t.is(sandbox.borg(['check', '--verify-data', repo], { env }).stderr, '', name)
        const out = sandbox.mkdir(`out-${number}`)
        sandbox.borg(['extract', `${repo}::two`], { env, cwd: out })
        t.is(sandbox.run('diff', ['-r', source, out]).stdout, '', name)
        sandbox.borgfs(['create', `${repo}::three`, '.'], { env, cwd: source })
        sandbox.borg(['delete', `${repo}::two`], { env })
        sandbox.borg(['check', repo], { env })
        rmSync(repo, { recursive: true })
      }
    } finally {
      sandbox.close()
    }
  })
}

run('states that are no loss are opened and written to as ever', t => {
  const sandbox = new Sandbox('no-loss')
  try {
    const { base, source, before } = make(sandbox, 'borgfs')
    const copy = (name: string): string => {
      cpSync(base, sandbox.path(name), { recursive: true })
      return sandbox.path(name)
    }
    const without = (repo: string): void => {
      for (const name of readdirSync(repo)) if (/^(index|hints|integrity)\./.test(name)) unlinkSync(join(repo, name))
    }
    let homes = 0
    const goesOn = (repo: string, archives: string): void => {
      const env = { BORG_BASE_DIR: sandbox.mkdir(`home-${homes++}`) }
      sandbox.borgfs(['check', repo], { env })
      const list = sandbox.borgfs(['list', '--short', repo], { env })
      t.is(list.stdout, archives)
      t.notRegex(list.stderr, /COMMIT/)
      sandbox.borgfs(['create', `${repo}::three`, '.'], { cwd: source, env })
      sandbox.borg(['check', repo], { env })
    }
    // Killed between COMMIT and state.
    const older = copy('older')
    without(older)
    for (const name of before) cpSync(sandbox.path(name), join(older, name))
    goesOn(older, 'one\ntwo\n')
    const none = copy('none')
    without(none)
    goesOn(none, 'one\ntwo\n')
    // A transaction that was cut short above the last COMMIT.
    const uncommitted = copy('uncommitted')
    const next = segments(uncommitted).at(-1)! + 1
    cpSync(join(uncommitted, 'data/0/1'), join(uncommitted, 'data/0', String(next)))
    goesOn(uncommitted, 'one\ntwo\n')
    // An index that its digest does not prove, which Borg ignores as well.
    const forged = copy('forged')
    const newest = readdirSync(forged).find(name => name.startsWith('index.'))!
    cpSync(join(forged, newest), join(forged, 'index.999'))
    const env = { BORG_BASE_DIR: sandbox.mkdir('home-forged') }
    sandbox.borgfs(['check', forged], { env })
    t.is(sandbox.borgfs(['list', '--short', forged], { env }).stdout, 'one\ntwo\n')
  } finally {
    sandbox.close()
  }
})

run('a transaction that was taken back by removing its segments is told of by check, and writing goes on', t => {
  const sandbox = new Sandbox('taken-back')
  try {
    const { base, source, before } = make(sandbox, 'borg')
    const transaction = Number(/\d+$/.exec(before[0]!)![0])
    for (const segment of segments(base)) if (segment > transaction) unlinkSync(join(base, 'data/0', String(segment)))
    const env = { BORG_BASE_DIR: sandbox.mkdir('other') }
    t.regex(sandbox.borgfs(['check', base], { env, ok: [1] }).stderr, /was saved, but all its segments are missing: the repository is as of transaction/)
    sandbox.borgfs(['create', 'base::three', 'source'], { env, ok: [0, 1] })
    t.is(sandbox.borgfs(['list', '--short', 'base'], { env }).stdout, 'one\nthree\n')
    sandbox.borg(['check', '--verify-data', 'base'], { env })
    t.true(statSync(last(base)).size > 0)
    void source
  } finally {
    sandbox.close()
  }
})

const mounted = haveBorg && isRoot ? test : test.skip
mounted('a mount shows the transaction before and commits nothing over the lost one', t => {
  const sandbox = new Sandbox('lost-mount')
  try {
    const { base } = make(sandbox, 'borgfs')
    damages[0]![1](base)
    const held = segments(base)
    const env = { BORG_BASE_DIR: sandbox.mkdir('other') }
    const mountpoint = sandbox.mount('base', { args: ['-o', 'settle=3600'], env })
    t.deepEqual(readdirSync(mountpoint).filter(name => ['one', 'two'].includes(name)), ['one'])
    const moved = sandbox.sh('mkdir mnt/incoming/t && echo data > mnt/incoming/t/f && mv mnt/incoming/t mnt/three', { ok: 'any' })
    t.not(moved.rc, 0)
    t.is(readFileSync(join(mountpoint, 'incoming/t/f'), 'utf8'), 'data\n')
    t.deepEqual(segments(base), held)
    sandbox.unmount(mountpoint, { ok: 'any' })
  } finally {
    sandbox.close()
  }
})
