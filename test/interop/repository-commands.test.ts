/** compact, config, with-lock and break-lock beside the real borg: what they print, their exit codes, what they leave. */
import test from 'ava'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { eventually, haveBorg, Sandbox } from '../helpers/sandbox.js'
import { Random } from '../helpers/random.js'

const run = haveBorg ? test : test.skip
if (!haveBorg) console.error('SKIPPED aloud: test/interop/repository-commands compares with the real borg')

/** Two archives, one of them deleted by borg. */
function withDeletedArchive(sandbox: Sandbox, ...options: string[]): void {
  const random = new Random(3)
  sandbox.mkdir('src')
  for (let file = 0; file < 20; file++) writeFileSync(sandbox.path('src', `f${file}`), random.bytes(2000))
  sandbox.borg(['init', '-e', 'repokey', ...options, 'repo'])
  sandbox.borg(['create', 'repo::a1', 'src'])
  for (let file = 0; file < 10; file++) writeFileSync(sandbox.path('src', `f${file}`), random.bytes(2000))
  sandbox.borg(['create', 'repo::a2', 'src'])
  sandbox.borg(['delete', 'repo::a1'])
}

run('compact frees what borg deleted, needs no key, and leaves borg nothing to find', t => {
  const sandbox = new Sandbox('compact')
  try {
    withDeletedArchive(sandbox)
    sandbox.sh('cp -a repo theirs; cp -a src wanted')
    const ran = sandbox.borgfs(['compact', '-v', 'repo'], { env: { BORG_PASSPHRASE: undefined } })
    const borgs = sandbox.borg(['compact', '-v', 'theirs'])
    t.regex(ran.stderr, /^compaction freed about 2\d\.\d\d kB repository space\.\n$/)
    t.regex(borgs.stderr, /^compaction freed about 2\d\.\d\d kB repository space\.\n$/)
    const bytes = (name: string): number => Number(sandbox.sh(`cat ${name}/data/0/* | wc -c`).stdout)
    t.true(Math.abs(bytes('repo') - bytes('theirs')) < 100, `${bytes('repo')} and ${bytes('theirs')}`)
    t.is(sandbox.borg(['check', '--verify-data', 'repo']).stderr, '')
    sandbox.sh('mkdir out; cd out; borg extract ../repo::a2; diff -r src ../wanted')
    const files = readdirSync(sandbox.path('repo', 'data', '0'))
    t.is(sandbox.borgfs(['compact', '-v', 'repo']).stderr, 'compaction freed about 0 B repository space.\n')
    t.deepEqual(readdirSync(sandbox.path('repo', 'data', '0')), files)
    // And the other way: borg goes on with what we left.
    sandbox.borg(['create', 'repo::a3', 'src'])
    sandbox.borg(['delete', 'repo::a2'])
    sandbox.borg(['compact', 'repo'])
    t.is(sandbox.borg(['check', 'repo']).stderr, '')
  } finally {
    sandbox.close()
  }
})

run('compact tells its progress as borg, as text and as JSON', t => {
  const sandbox = new Sandbox('progress')
  try {
    withDeletedArchive(sandbox)
    sandbox.sh('cp -a repo other')
    const text = sandbox.borgfs(['compact', '--progress', 'repo']).stderr
    t.regex(text, /^Compacting segments   0%\r/)
    const lines = sandbox.borgfs(['compact', '--progress', '--log-json', '-v', 'other']).stderr.trim().split('\n').map(line => JSON.parse(line) as Record<string, unknown>)
    const percent = lines.filter(({ type }) => type === 'progress_percent')
    t.true(percent.every(({ msgid }) => msgid === 'repository.compact_segments'))
    t.is(percent.at(-1)!.finished, true)
    t.is(lines.at(-1)!.name, 'borg.repository')
  } finally {
    sandbox.close()
  }
})

run('delete, prune, compact, rename and create tell their progress as JSON in the numbers and words of borg', t => {
  const sandbox = new Sandbox('progress-json')
  try {
    withDeletedArchive(sandbox)
    sandbox.sh('rm -r src/f1; borg create repo::b src; borg create repo::c src; cp -a repo kept; cp -a home kept-home')
    const told = (program: 'borg' | 'borgfs', args: readonly string[]): Record<string, unknown>[] => {
      sandbox.sh('rm -r repo home; cp -a kept repo; cp -a kept-home home')
      return sandbox[program]([args[0]!, '--progress', '--log-json', ...args.slice(1)]).stderr.split(/[\r\n]/).filter(line => line.startsWith('{')).map(line => JSON.parse(line) as Record<string, unknown>)
    }
    const percents = (lines: readonly Record<string, unknown>[]): unknown[] => lines.filter(({ type }) => type === 'progress_percent').map(({ time: _1, operation: _2, ...rest }) => rest)
    for (const args of [['delete', 'repo::a2'], ['prune', '--keep-last', '1', 'repo']]) {
      const [theirs, ours] = [percents(told('borg', args)), percents(told('borgfs', args))]
      t.true(theirs.length > 1)
      t.deepEqual(ours, theirs, args.join(' '))
    }
    // Borg's compact commits once before, which is a segment more.
    const compacting = percents(told('borgfs', ['compact', 'repo'])) as { current?: number; total?: number; finished: boolean }[]
    t.deepEqual(compacting.map(({ current }) => current), [...compacting.slice(1).map((_, index) => index + 1), undefined])
    const steps = (lines: readonly Record<string, unknown>[]): unknown[] => lines.filter(({ type }) => type === 'progress_message').map(({ msgid, message, finished }) => [msgid, message, finished])
    for (const args of [['create', 'repo::d', 'src'], ['rename', 'repo::b', 'e']]) {
      const [theirs, ours] = [steps(told('borg', args)), steps(told('borgfs', args))]
      // Borg reads its config and the files cache in steps of their own.
      t.deepEqual(ours, theirs.filter(step => !/Reading (?:config|files)/.test(String((step as unknown[])[1]))), args.join(' '))
    }
  } finally {
    sandbox.close()
  }
})

run('in append-only mode compact is silent and frees nothing, and the transactions are listed', t => {
  const sandbox = new Sandbox('append-only')
  try {
    withDeletedArchive(sandbox, '--append-only')
    const before = readdirSync(sandbox.path('repo', 'data', '0'))
    const lines = (): string[] => readFileSync(sandbox.path('repo', 'transactions'), 'utf8').trim().split('\n')
    const count = lines().length
    t.is(sandbox.borgfs(['compact', '-v', 'repo']).stderr, '')
    t.deepEqual(readdirSync(sandbox.path('repo', 'data', '0')), before)
    sandbox.borgfs(['create', 'repo::a3', 'src'])
    t.true(lines().length > count)
    for (const line of lines()) t.regex(line, /^transaction \d+, UTC time \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$/)
    t.is(sandbox.borg(['check', 'repo']).stderr, '')
  } finally {
    sandbox.close()
  }
})

run('a storage quota and a demand for free space end a command as they end borg\'s', t => {
  const sandbox = new Sandbox('quota')
  try {
    const random = new Random(4)
    sandbox.mkdir('src')
    for (let file = 0; file < 12; file++) writeFileSync(sandbox.path('src', `f${file}`), random.bytes(1_000_000))
    sandbox.borg(['init', '-e', 'none', '--storage-quota', '10M', 'repo'])
    sandbox.sh('cp -a repo other; echo; mkdir second')
    writeFileSync(sandbox.path('second', 'small'), 'small')
    const [ours, borgs] = [sandbox.borgfs(['create', '-v', 'repo::a', 'src'], { ok: [2] }), sandbox.borg(['create', 'other::a', 'src'], { ok: [2] })]
    const sentence = /The storage quota \(10\.00 MB\) has been exceeded \(1\d\.\d\d MB\)\. Try deleting some archives\./
    t.regex(ours.stderr, sentence)
    t.regex(borgs.stderr, sentence)
    t.regex(ours.stderr, /Storage quota: 0 B out of 10\.00 MB used\.|Storage quota: \d+ B out of 10\.00 MB used\./)
    t.is(sandbox.borgfs(['create', 'repo::a', 'src'], { ok: [20], env: { BORG_EXIT_CODES: 'modern' } }).rc, 20)
    sandbox.borgfs(['create', 'repo::b', 'second'])

    sandbox.borgfs(['config', 'repo', 'additional_free_space', '5000T'])
    const full = /^Insufficient free space to complete transaction \(required: 5\.00 PB, available: [\d.]+ [MGT]B\)\.$/m
    t.regex(sandbox.borgfs(['create', 'repo::c', 'second'], { ok: [2] }).stderr, full)
    t.regex(sandbox.borg(['create', 'repo::c', 'second'], { ok: [2] }).stderr, full)
    sandbox.borg(['config', '-d', 'repo', 'additional_free_space'])
    t.is(sandbox.borg(['list', '--short', 'repo']).stdout, 'b\n')
    t.is(sandbox.borg(['check', 'repo']).stderr, '')
  } finally {
    sandbox.close()
  }
})

run('config prints, sets, deletes and refuses as borg does', t => {
  const sandbox = new Sandbox('config')
  try {
    sandbox.borg(['init', '-e', 'none', 'mine'])
    sandbox.sh('cp -a mine theirs')
    const both = (...args: string[]) => {
      const at = (repository: string): string[] => ['config', ...args.map(word => (word === 'REPO' ? repository : word))]
      return { ours: sandbox.borgfs(at('mine'), { ok: 'any' }), borgs: sandbox.borg(at('theirs'), { ok: 'any', env: { BORG_SHOW_SYSINFO: 'no' } }) }
    }
    const same = (...args: string[]): void => {
      const { ours, borgs } = both(...args)
      t.deepEqual({ rc: ours.rc, stdout: ours.stdout }, { rc: borgs.rc, stdout: borgs.stdout }, args.join(' '))
      if (borgs.rc < 2) t.is(ours.stderr, borgs.stderr, args.join(' '))
      t.is(readFileSync(sandbox.path('mine', 'config'), 'utf8'), readFileSync(sandbox.path('theirs', 'config'), 'utf8'), args.join(' '))
    }
    same('-l', 'REPO')
    same('REPO', 'id')
    same('REPO', 'repository.id')
    same('REPO', 'nosuch')
    same('REPO', 'elsewhere.id')
    same('REPO')
    for (const [name, value] of [['storage_quota', '5M'], ['storage_quota', '0'], ['storage_quota', '1.5G'], ['append_only', '2'], ['append_only', '1'], ['append_only', '0'], ['max_segment_size', '4300M'],
      ['max_segment_size', '100M'], ['additional_free_space', '2G'], ['additional_free_space', 'much'], ['last_segment_checked', '5'], ['last_segment_checked', 'x'], ['version', '2'], ['nosuch', '1'],
      ['segments_per_dir', 'many'], ['segments_per_dir', '500'], ['id', 'abc']] as const) same('REPO', name, value)
    same('-l', 'REPO')
    same('-d', 'REPO', 'last_segment_checked')
    same('-d', 'REPO', 'storage_quota')
    same('-d', 'REPO', 'nosuch')
    same('REPO', 'storage_quota')
    // Where borg lets one lose a repository.
    sandbox.borg(['create', 'mine::a', 'theirs'])
    for (const [...args] of [['mine', 'id', 'ab'.repeat(32)], ['mine', 'segments_per_dir', '1'], ['-d', 'mine', 'id'], ['-d', 'mine', 'max_segment_size']]) {
      t.regex(sandbox.borgfs(['config', ...args], { ok: [2] }).stderr, /^Invalid value: /)
    }
    t.is(sandbox.borg(['check', 'mine']).stderr, '')
    t.is(sandbox.borgfs(['config', '--cache', 'mine', 'previous_location']).stdout, sandbox.borg(['config', '--cache', 'mine', 'previous_location']).stdout)
    t.regex(sandbox.borgfs(['config', 'ssh://host/repo', 'id'], { ok: [2] }).stderr, /"ssh:\/\/host\/repo": Repository must be local/)
  } finally {
    sandbox.close()
  }
})

run('with-lock keeps others out, hands the exit code on and hides the passphrase', async t => {
  const sandbox = new Sandbox('with-lock')
  try {
    sandbox.borg(['init', '-e', 'none', 'repo'])
    const files = (): string[] => readdirSync(sandbox.path('repo')).sort()
    const before = files()
    t.is(sandbox.borgfs(['with-lock', 'repo', 'sh', '-c', 'exit 7'], { ok: [7] }).rc, 7)
    t.is(sandbox.borgfs(['with-lock', '--lock-wait', '2', 'repo', 'sh', '-c', 'echo $BORG_VERSION-$BORG_PASSPHRASE-$1', 'sh', '--progress']).stdout, '1.2.4----progress\n')
    t.regex(sandbox.borgfs(['with-lock', 'repo', 'no-such-program'], { ok: [2] }).stderr, /^'no-such-program' was not started/)
    const inside = sandbox.borgfs(['with-lock', 'repo', 'borg', 'list', '--lock-wait', '0', 'repo'], { ok: [2] })
    t.regex(inside.stderr, /Failed to create\/acquire the lock .*lock\.exclusive \(timeout\)\./)
    // Asked to end, it waits for the program to end, and only then gives the lock back.
    const child = sandbox.start(process.execPath, [join(process.cwd(), 'bin', 'borgfs.js'), 'with-lock', 'repo', 'sh', '-c', 'trap "sleep 0.3; touch ended; exit" TERM; touch started; while :; do sleep 0.05; done'], { cwd: sandbox.folder })
    await eventually('the program runs', () => existsSync(sandbox.path('started')))
    const ended = new Promise<number | null>(resolve => child.once('close', code => resolve(code)))
    child.kill('SIGTERM')
    t.is(await ended, 143)
    t.true(existsSync(sandbox.path('ended')))
    t.deepEqual(files(), before)
  } finally {
    sandbox.close()
  }
})

run('break-lock removes the locks of repository and cache, even of a holder on another host', t => {
  const sandbox = new Sandbox('break-lock')
  try {
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    sandbox.borg(['create', 'repo::a', 'repo/README'])
    const id = sandbox.borg(['config', 'repo', 'id']).stdout.trim()
    const cache = sandbox.path('home', '.cache', 'borg', id)
    for (const folder of [sandbox.path('repo'), cache]) {
      mkdirSync(join(folder, 'lock.exclusive'))
      writeFileSync(join(folder, 'lock.exclusive', 'elsewhere@99.1234-0'), '')
      writeFileSync(join(folder, 'lock.roster'), JSON.stringify({ exclusive: [['elsewhere@99', 1234, 0]] }))
    }
    t.regex(sandbox.borgfs(['list', '--lock-wait', '0', 'repo'], { ok: [2] }).stderr, /Failed to create\/acquire the lock/)
    const ran = sandbox.borgfs(['break-lock', 'repo'], { env: { BORG_PASSPHRASE: undefined } })
    t.is(ran.stdout + ran.stderr, '')
    t.is(sandbox.borg(['create', '--lock-wait', '0', 'repo::b', 'repo/README']).stderr, '')
    t.regex(sandbox.borgfs(['break-lock', 'nothing'], { ok: [2] }).stderr, /does not exist/)
  } finally {
    sandbox.close()
  }
})
