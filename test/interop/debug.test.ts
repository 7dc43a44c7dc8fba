import test from 'ava'
import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { haveBorg, type Ran, type RunOptions, Sandbox } from '../helpers/sandbox.js'

const run = haveBorg ? test : test.skip
if (!haveBorg) console.warn('test/interop/debug: skipped, there is no borg here')

type Execution = import('ava').ExecutionContext

/** Both programs, each in a folder of its own; the same words, exit codes and files. Returns what was said. */
function alike(t: Execution, sandbox: Sandbox, args: readonly string[], options: RunOptions & { stderr?: boolean } = {}): Ran {
  const [theirs, ours] = (['borg', 'borgfs'] as const).map(program => {
    const cwd = sandbox.mkdir(`out-${program}`)
    sandbox.sh('rm -rf ./*', { cwd })
    const ran = sandbox[program](['debug', ...args], { ok: 'any', ...options, cwd })
    return { ran, files: sandbox.sh('find . -type f -printf "%P %s\n" | sort; find . -type f | sort | xargs -r sha256sum', { cwd }).stdout }
  }) as [{ ran: Ran; files: string }, { ran: Ran; files: string }]
  const what = args.join(' ')
  t.is(ours.files, theirs.files, what)
  t.is(ours.ran.stdout, theirs.ran.stdout, what)
  t.is(ours.ran.rc, theirs.ran.rc, what + ours.ran.stderr)
  if (options.stderr !== false) t.is(ours.ran.stderr, theirs.ran.stderr, what)
  return ours.ran
}

function filled(name: string, mode: string): Sandbox {
  const sandbox = new Sandbox(name)
  sandbox.sh('mkdir -p n/sub; for i in $(seq 300); do echo "content $i needle" > n/file-with-a-long-name-$i; done; printf "caf\\351" > "$(printf "n/caf\\351")"; ln -s target n/link; ln n/file-with-a-long-name-1 n/sub/hard')
  sandbox.borg(['init', '-e', mode, 'repo'])
  sandbox.borg(['create', '--comment', 'd\u00e9j\u00e0', 'repo::first', 'n'])
  sandbox.sh('echo more > n/more')
  sandbox.borg(['create', 'repo::se\u00e4cond', 'n'])
  sandbox.borg(['delete', 'repo::first'])
  return sandbox
}

run('dumps of archives, manifest, hints and objects are those of borg', t => {
  for (const mode of ['repokey', 'none']) {
    const sandbox = filled('debug', mode)
    try {
      const repo = '../repo'
      if (mode === 'repokey') t.regex(alike(t, sandbox, ['dump-archive-items', `${repo}::se\u00e4cond`]).stdout, /^Dumping 000000_[0-9a-f]{64}\.items\n/)
      alike(t, sandbox, ['dump-archive', `${repo}::se\u00e4cond`, mode === 'none' ? '-' : 'dump.json'])
      alike(t, sandbox, ['dump-manifest', repo, mode === 'none' ? '-' : 'm.json'])
      if (mode === 'none') alike(t, sandbox, ['dump-archive', `${repo}::missing`, '-'])
      if (mode === 'none') continue
      // The order of the ids is nobody's concern.
      const [theirs, ours] = [sandbox.borg(['debug', 'dump-hints', 'repo', '-']), sandbox.borgfs(['debug', 'dump-hints', 'repo', '-'])]
      t.deepEqual(JSON.parse(ours.stdout), JSON.parse(theirs.stdout))
      t.regex(alike(t, sandbox, ['dump-repo-objs', repo]).stdout, /Done\.\n$/)
      t.regex(alike(t, sandbox, ['dump-repo-objs', '--ghost', repo]).stdout, /_commit\.obj/)
      alike(t, sandbox, ['dump-repo-objs', '--ghost', '--segment', '1', '--offset', '8', repo])
    } finally {
      sandbox.close()
    }
  }
})

run('searching objects shows what borg shows', t => {
  const sandbox = filled('debug-search', 'none')
  try {
    const manyBytes = Buffer.concat([Buffer.from('start needle \' " \\ \t\r\n\x00\xff', 'latin1'), Buffer.alloc(100, 'x'), Buffer.from('needle twice, needle')])
    writeFileSync(sandbox.path('n', 'odd'), manyBytes)
    sandbox.borg(['create', 'repo::third', 'n'])
    for (const term of ['str:needle twice', 'str:start', 'hex:00ff78', 'str:n', 'hex:0', 'needle']) {
      alike(t, sandbox, ['search-repo-objs', '../repo', term])
    }
  } finally {
    sandbox.close()
  }
})

run('single objects are got, put, counted and deleted as borg does', t => {
  const sandbox = filled('debug-objects', 'none')
  try {
    const id = createHash('sha256').update('content 2 needle\n').digest('hex')
    writeFileSync(sandbox.path('plain'), 'content 2 needle\n')
    const repo = '../repo'
    t.is(alike(t, sandbox, ['id-hash', repo, '../plain']).stdout, `${id}\n`)
    t.is(alike(t, sandbox, ['get-obj', repo, id, 'object']).stdout, `object ${id} fetched.\n`)
    for (const bad of ['00'.repeat(32).replace('00', '01'), 'abc', 'zz']) t.is(alike(t, sandbox, ['get-obj', repo, bad, 'object']).rc, 2)
    t.is(alike(t, sandbox, ['refcount-obj', repo, id, 'ab'.repeat(32), 'xyz']).stdout, `object ${id} has 1 referrers [info from chunks cache].\nobject ${'ab'.repeat(32)} not found [info from chunks cache].\nobject id xyz is invalid.\n`)
    t.is(alike(t, sandbox, ['put-obj', repo, 'short', '../plain']).rc, 2)
    t.is(alike(t, sandbox, ['put-obj', repo, 'ab'.repeat(32), '../plain']).rc, 0)
    t.is(alike(t, sandbox, ['delete-obj', repo, 'cd'.repeat(32), 'zz']).rc, 0)
    // One deletes what the other put, and the other way round.
    sandbox.borgfs(['debug', 'put-obj', 'repo', 'cd'.repeat(32), 'plain'])
    t.is(sandbox.borg(['debug', 'delete-obj', 'repo', 'cd'.repeat(32)]).stdout, `object ${'cd'.repeat(32)} deleted.\nDone.\n`)
    t.is(sandbox.borgfs(['debug', 'delete-obj', 'repo', 'ab'.repeat(32), 'ab'.repeat(32)]).stdout, `object ${'ab'.repeat(32)} deleted.\nobject ${'ab'.repeat(32)} not found.\nDone.\n`)
    sandbox.borg(['check', '--verify-data', 'repo'])
  } finally {
    sandbox.close()
  }
})

run('a damaged segment is dumped as far as it goes', t => {
  const sandbox = filled('debug-damage', 'none')
  try {
    const path = sandbox.sh('ls -S repo/data/0/* | head -1').stdout.trim()
    // In the value of an entry, and in the length of another.
    for (const [file, at] of [[path, 8 + 41 + 5], ['repo/data/0/0', 8 + 4 + 2]] as const) {
      const bytes = readFileSync(sandbox.path(file))
      bytes[at]! ^= 64
      writeFileSync(sandbox.path(file), bytes)
    }
    alike(t, sandbox, ['dump-repo-objs', '--ghost', '../repo'])
  } finally {
    sandbox.close()
  }
})

run('a profile of borg becomes the one that Python reads', t => {
  const sandbox = new Sandbox('debug-profile')
  try {
    sandbox.borg(['init', '-e', 'none', '--debug-profile', 'profile', 'repo'])
    sandbox.borg(['debug', 'convert-profile', 'profile', 'theirs'])
    sandbox.borgfs(['debug', 'convert-profile', 'profile', 'ours'])
    t.is(sandbox.run('python3', ['-c', 'import marshal; a, b = (marshal.load(open(n, "rb")) for n in ("ours", "theirs")); print(a == b, len(a) > 100)']).stdout, 'True True\n')
    t.is(sandbox.run('python3', ['-c', 'import pstats; pstats.Stats("ours").sort_stats("cumtime").print_stats(1)']).rc, 0)
    writeFileSync(sandbox.path('cut'), readFileSync(sandbox.path('profile')).subarray(0, 1000))
    t.regex(sandbox.borgfs(['debug', 'convert-profile', 'cut', 'x'], { ok: [2] }).stderr, /is no profile of Borg/)
  } finally {
    sandbox.close()
  }
})

run('debug info tells versions and the process', t => {
  const sandbox = new Sandbox('debug-info')
  try {
    const { stdout } = sandbox.borgfs(['debug', 'info'])
    for (const line of sandbox.borg(['debug', 'info']).stdout.split('\n').filter(Boolean)) t.true(stdout.split('\n').some(ours => ours.startsWith(`${line.split(':')[0]}: `)), line)
    t.false(sandbox.borgfs(['debug', 'info'], { env: { BORG_SHOW_SYSINFO: 'no' } }).stdout.includes('Platform'))
  } finally {
    sandbox.close()
  }
})
