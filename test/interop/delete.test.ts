/** delete against the real borg: what both say, and repositories, caches and archives afterwards. */
import test from 'ava'
import { closeSync, existsSync, openSync, readSync, symlinkSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { chunkId } from '../../src/engine/ids.js'
import { LocalRepository } from '../../src/engine/repository/local-repository.js'
import { canMount } from '../helpers/mount.js'
import { eventually, haveBorg, type Ran, Sandbox } from '../helpers/sandbox.js'

const run = haveBorg ? test : test.skip
if (!haveBorg) console.error('SKIPPED aloud: test/interop/delete needs the real borg')

/** A repository with archives a1 … aN by borg: most content is shared, some belongs to one archive alone. */
function makeRepository(sandbox: Sandbox, mode: string, count: number): string {
  const source = sandbox.mkdir('source')
  sandbox.sh('for i in $(seq 12); do head -c 20000 /dev/urandom > f$i; done', { cwd: source })
  sandbox.borg(['init', '-e', mode, 'repo'])
  for (let index = 1; index <= count; index++) {
    sandbox.sh(`head -c 40000 /dev/urandom > own${index}; rm -f own${index - 1}`, { cwd: source })
    sandbox.borg(['create', '--timestamp', `2024-05-0${index}T10:00:00`, `../repo::a${index}`, '.'], { cwd: source })
  }
  return source
}

/** Runs the same command by both on copies of the sandbox's repository and homes; borgfs's result stays. */
function both(sandbox: Sandbox, args: readonly string[], options: { env?: Record<string, string>; input?: string } = {}): { ours: Ran; theirs: Ran } {
  sandbox.sh('cp -a repo repo-copy; cp -a home home-copy')
  const theirs = sandbox.borg(args, { ok: 'any', ...options })
  sandbox.sh('rm -rf repo home; mv repo-copy repo; mv home-copy home')
  return { ours: sandbox.borgfs(args, { ok: 'any', ...options }), theirs }
}

function clean(sandbox: Sandbox): boolean {
  return /no problems found/.test(sandbox.borg(['check', '--verify-data', '-v', 'repo'], { ok: 'any' }).stderr)
}

const numbers = (ran: Ran): unknown => (JSON.parse(ran.stdout) as { cache: { stats: unknown } }).cache.stats

for (const mode of ['repokey-blake2', 'none']) {
  run(`${mode}: archives go one by one, in the words and with the numbers of borg, and each finds the other's cache current`, t => {
    const sandbox = new Sandbox(`delete-${mode}`)
    try {
      const source = makeRepository(sandbox, mode, 5)
      const { ours, theirs } = both(sandbox, ['delete', '--list', '--stats', 'repo::a2', 'a4', 'none'])
      t.is(ours.stderr, theirs.stderr)
      t.is(ours.rc, theirs.rc)
      const info = sandbox.borg(['info', '--json', '--debug', 'repo'])
      t.notRegex(info.stderr, /sync/i, 'borg takes over the cache that borgfs left')
      sandbox.sh('rm -rf home/.cache')
      t.deepEqual(numbers(sandbox.borg(['info', '--json', 'repo'])), numbers(info), 'counted anew the same comes out')
      sandbox.borg(['delete', 'repo::a3'])
      const after = sandbox.borgfs(['info', '--json', '--info', 'repo'])
      t.notRegex(after.stderr, /Synchronizing/, 'borgfs takes over the cache that borg left')
      t.deepEqual(numbers(after), numbers(sandbox.borg(['info', '--json', 'repo'])))
      t.true(clean(sandbox))
      t.is(sandbox.borg(['list', '--short', 'repo']).stdout, 'a1\na5\n')
      const out = sandbox.mkdir('out')
      sandbox.borg(['extract', '../repo::a5'], { cwd: out })
      t.is(sandbox.run('diff', ['-r', source, out]).stdout, '')
      sandbox.borgfs(['delete', '-a', 'a*', 'repo'])
      t.is(numbers(sandbox.borg(['info', '--json', 'repo'])) && sandbox.borg(['list', 'repo']).stdout, '')
      sandbox.borg(['compact', 'repo'])
      t.true(clean(sandbox))
    } finally {
      sandbox.close()
    }
  })
}

run('a cold cache, filters, dry runs and complaints are as with borg', t => {
  const sandbox = new Sandbox('delete-words')
  try {
    makeRepository(sandbox, 'repokey', 4)
    for (const args of [
      ['-n', '--list', 'repo::a1', 'x', 'a3'], ['-n', '--list', '--last', '2', 'repo'], ['-n', '--list', '-P', 'a', '--sort-by', 'name', '--first', '1', 'repo'],
      ['-n', '-s', 'repo::a1'], ['-a', 'x', 'repo::a1'], ['-a', 'nothing*', 'repo'], ['-n', '--list', '--info', '--force', '--force', 'repo::a1', 'y'], ['--force', '--force', 'repo', 'y'],
    ]) {
      const [ours, theirs] = [sandbox.borgfs(['delete', ...args], { ok: 'any' }), sandbox.borg(['delete', ...args], { ok: 'any' })]
      t.is(ours.stderr, theirs.stderr, args.join(' '))
      t.is(ours.rc, theirs.rc, args.join(' '))
    }
    sandbox.sh('rm -rf home/.cache')
    sandbox.borgfs(['delete', 'repo::a2'])
    t.true(clean(sandbox))
    const { ours, theirs } = both(sandbox, ['delete', '--list', '--force', '--force', 'repo::a1'])
    t.is(ours.stderr, theirs.stderr)
    t.is(sandbox.borg(['list', '--short', 'repo']).stdout, 'a3\na4\n')
    t.is(sandbox.borg(['check', 'repo'], { ok: 'any' }).rc, 1, 'orphans are left, as told')
    t.regex(sandbox.borgfs(['info', '--info', 'repo']).stderr, /Synchronizing/, 'the chunks index counts anew')
    sandbox.borg(['check', '--repair', 'repo'], { env: { BORG_CHECK_I_KNOW_WHAT_I_AM_DOING: 'YES' } })
    t.true(clean(sandbox))
    t.is(sandbox.borgfs(['delete', 'repo::missing'], { env: { BORG_EXIT_CODES: 'modern' }, ok: 'any' }).rc, 1)
  } finally {
    sandbox.close()
  }
})

run('a whole repository goes after the question, with its cache and what was known of it', t => {
  const sandbox = new Sandbox('delete-repository')
  try {
    makeRepository(sandbox, 'repokey', 2)
    const id = /Repository ID: (\w+)/.exec(sandbox.borg(['info', 'repo']).stdout)![1]!
    const [cache, security] = [sandbox.path('home/.cache/borg', id), sandbox.path('home/.config/borg/security', id)]
    for (const [args, options] of [
      [['--list'], { input: 'no\n' }], [[], { input: 'yes\n' }], [['--list'], { input: '' }], [[], { input: '\n' }], [[], { env: { BORG_DELETE_I_KNOW_WHAT_I_AM_DOING: 'no' } }],
      [['-n', '-v', '--list'], { env: { BORG_DELETE_I_KNOW_WHAT_I_AM_DOING: 'YES' } }], [['-n', '-v', '--force', '--keep-security-info'], {}], [['-n', '-v', '--cache-only'], {}],
      [['--log-json', '-n', '-v'], { input: 'maybe\n' }],
    ] as [string[], { input?: string; env?: Record<string, string> }][]) {
      const [ours, theirs] = [sandbox.borgfs(['delete', ...args, 'repo'], { ok: 'any', ...options }), sandbox.borg(['delete', ...args, 'repo'], { ok: 'any', ...options })]
      const timeless = (ran: Ran): string => ran.stderr.replace(/"time": [\d.]+/g, '"time": 0')
      t.is(timeless(ours), timeless(theirs), args.join(' '))
      t.is(ours.rc, theirs.rc, args.join(' '))
      t.true(existsSync(sandbox.path('repo/config')) && existsSync(cache) && existsSync(security))
    }
    t.is(sandbox.borgfs(['delete', '--cache-only', '-v', 'repo']).stderr, 'Cache deleted.\n')
    t.false(existsSync(cache))
    sandbox.borg(['config', 'repo', 'append_only', '1'])
    t.regex(sandbox.borgfs(['delete', '--force', 'repo'], { ok: [2] }).stderr, /is in append-only mode/)
    sandbox.borg(['config', 'repo', 'append_only', '0'])
    t.true(clean(sandbox))
    // What lies outside is not reached through a symlink inside.
    sandbox.sh('mkdir outside; touch outside/file')
    symlinkSync(sandbox.path('outside'), sandbox.path('repo/link'))
    t.regex(sandbox.borgfs(['delete', '-v', 'repo'], { input: 'YES\n' }).stderr, /Repository deleted\.\nCache deleted\.\n$/)
    t.false(existsSync(sandbox.path('repo')))
    t.false(existsSync(cache) || existsSync(security))
    t.true(existsSync(sandbox.path('outside/file')))

    // Without a manifest nobody knows what is in it; kept is what was asked to be kept.
    sandbox.borg(['init', '-e', 'none', 'other'])
    sandbox.borg(['debug', 'delete-obj', 'other', '0'.repeat(64)])
    const [ours, theirs] = [sandbox.borgfs(['delete', '--list', 'other'], { ok: 'any', input: 'no\n' }), sandbox.borg(['delete', '--list', 'other'], { ok: 'any', input: 'no\n' })]
    t.is(ours.stderr, theirs.stderr)
    sandbox.borgfs(['delete', '--force', '--keep-security-info', 'other'])
    t.false(existsSync(sandbox.path('other')))
    t.is(sandbox.sh('ls home/.config/borg/security | wc -l').stdout.trim(), '1')
  } finally {
    sandbox.close()
  }
})

/** Flips a byte in the middle of a stored object. */
async function damage(sandbox: Sandbox, id: string): Promise<void> {
  const repository = await LocalRepository.open(sandbox.path('repo'), { lock: 'exclusive', lockWaitMs: 1000, log: { write: () => undefined } })
  const { segment, offset, length } = repository.locate(chunkId(Buffer.from(id, 'hex')))
  await repository.close()
  const fd = openSync(join(sandbox.path('repo/data/0'), String(segment)), 'r+')
  const byte = Buffer.alloc(1)
  readSync(fd, byte, 0, 1, offset + length - 3)
  byte[0]! ^= 0x40
  writeSync(fd, byte, 0, 1, offset + length - 3)
  closeSync(fd)
}

const damages = ['metadata missing', 'metadata damaged', 'items missing', 'items damaged'] as const
for (const kind of damages) {
  run(`${kind}: refused with the remedy and nothing changed; --force deletes all the same, and the rest of the archives is whole`, async t => {
    const sandbox = new Sandbox(`delete-${kind.replace(' ', '-')}`)
    try {
      const source = makeRepository(sandbox, 'repokey-blake2', 3)
      sandbox.mkdir('dump')
      const itemId = /\d{6}_(\w{64})\.items/.exec(sandbox.borg(['debug', 'dump-archive-items', '../repo::a2'], { cwd: sandbox.path('dump') }).stdout)![1]!
      const archiveId = (JSON.parse(sandbox.borg(['list', '--json', 'repo']).stdout) as { archives: { id: string; name: string }[] }).archives.find(({ name }) => name === 'a2')!.id
      sandbox.borgfs(['info', 'repo'])
      const id = kind.startsWith('metadata') ? archiveId : itemId
      if (kind.endsWith('missing')) sandbox.borg(['debug', 'delete-obj', 'repo', id])
      else await damage(sandbox, id)

      const refused = sandbox.borgfs(['delete', 'repo::a1', 'a2'], { ok: [2] })
      t.regex(refused.stderr, kind.endsWith('missing') ? new RegExp(`^Object with key ${id} not found in repository .*a2 is damaged, nothing was deleted.*--repair.*--force`) : /^Data integrity error: .*a2 is damaged, nothing was deleted.*--repair.*--force/)
      t.notRegex(refused.stderr, /\bat .*\.js|Exception/)
      t.is(refused.stderr.trimEnd().split('\n').length, 1)
      t.is(sandbox.borg(['list', '--short', 'repo']).stdout, 'a1\na2\na3\n')

      // Without a chunks index it has to be built without the damaged archive.
      if (kind !== 'items missing') {
        sandbox.sh('rm -rf home/.cache')
        t.regex(sandbox.borgfs(['delete', 'repo::a1'], { ok: [2] }).stderr, /Archive a2 is damaged\. Run "borg check --repair"/)
      }
      const forced = sandbox.borgfs(['delete', '--force', 'repo::a1', 'a2'])
      t.is(forced.stderr, 'forced deletion succeeded, but the deleted archive was corrupted.\nborg check --repair is required to free all space.\n')
      t.is(sandbox.borg(['list', '--short', 'repo']).stdout, 'a3\n')
      t.notRegex(sandbox.borgfs(['info', '--info', 'repo']).stderr, /Synchronizing/)
      sandbox.borg(['check', '--repair', 'repo'], { env: { BORG_CHECK_I_KNOW_WHAT_I_AM_DOING: 'YES' } })
      t.true(clean(sandbox))
      const out = sandbox.mkdir('out')
      sandbox.borgfs(['extract', '../repo::a3'], { cwd: out })
      t.is(sandbox.run('diff', ['-r', source, out]).stdout, '')
    } finally {
      sandbox.close()
    }
  })
}

run('a cache that was killed between COMMIT and save costs time only', t => {
  const sandbox = new Sandbox('delete-killed')
  try {
    makeRepository(sandbox, 'repokey', 3)
    sandbox.borgfs(['info', 'repo'])
    sandbox.sh('cp -a home/.cache cache-before')
    sandbox.borgfs(['delete', 'repo::a1'])
    // As if it had been killed right after the COMMIT: the cache is that of before.
    sandbox.sh('rm -rf home/.cache; mv cache-before home/.cache')
    const info = sandbox.borgfs(['info', '--json', '--info', 'repo'])
    t.regex(info.stderr, /Synchronizing chunks cache/)
    sandbox.borgfs(['delete', 'repo::a2'])
    t.true(clean(sandbox))
    t.deepEqual(numbers(sandbox.borgfs(['info', '--json', 'repo'])), numbers(sandbox.borg(['info', '--json', 'repo'])))
  } finally {
    sandbox.close()
  }
})

run('Ctrl-C lets the archive in hand be finished and commits; a terminated run changes nothing', async t => {
  const sandbox = new Sandbox('delete-signals')
  try {
    makeRepository(sandbox, 'repokey', 4)
    sandbox.borgfs(['info', 'repo'])
    for (const [signal, rc, words] of [['SIGTERM', 143, /Received SIGTERM/], ['SIGINT', 2, /Got Ctrl-C/]] as const) {
      const child = sandbox.start(process.execPath, [join(process.cwd(), 'bin/borgfs.js'), 'delete', '--list', '-a', 'a*', 'repo'])
      let said = ''
      child.stderr!.on('data', (data: Buffer) => (said += data.toString()))
      await eventually('the first archive', () => said.includes('(1/'))
      child.kill(signal)
      await eventually('the end', () => child.exitCode !== null || child.signalCode !== null)
      const left = sandbox.archives()
      // It may have been faster than the signal.
      if (child.exitCode !== 0) {
        t.is(child.exitCode, rc)
        t.regex(said, words)
        if (signal === 'SIGTERM') t.is(left.length, 4)
        else t.true(left.length > 0 && left.length < 4)
      }
      t.true(clean(sandbox))
      if (left.length === 0) break
    }
    t.notRegex(sandbox.borg(['info', '--debug', 'repo']).stderr, /sync/i)
  } finally {
    sandbox.close()
  }
})

const mounting = canMount ? test : test.skip
if (!canMount) console.error('SKIPPED aloud: test/interop/delete needs to mount')

mounting('delete --cache-only keeps what was copied into a drive and is not saved, and either program makes its cache anew', async t => {
  const sandbox = new Sandbox('delete-cache')
  try {
    sandbox.borgfs(['init', '-e', 'repokey', 'repo'])
    sandbox.sh('mkdir source; echo content > source/file')
    sandbox.borgfs(['create', 'repo::first', 'source'])
    let mountpoint = sandbox.mount('repo', { args: ['-o', 'settle=3600'] })
    sandbox.sh(`cp -r source ${mountpoint}/incoming/tree; sync ${mountpoint}/incoming/tree/file ${mountpoint}/incoming/tree`)
    await sandbox.killMount(mountpoint)
    t.regex(sandbox.borgfs(['delete', '--cache-only', '-v', 'repo']).stderr, /^What was copied into a drive and is not saved yet is kept: .*\/staging\. .*\nCache deleted\.\n$/m)
    t.regex(sandbox.borgfs(['delete', 'repo'], { input: 'no\n', ok: [2] }).stderr, /Location: .*\nWhat was copied into a drive and is not saved yet will be deleted as well: .*\/staging\n/)
    if (haveBorg) {
      sandbox.borg(['create', 'repo::second', 'source'])
      t.is(sandbox.borg(['check', 'repo']).stderr, '')
    }
    sandbox.borgfs(['create', 'repo::third', 'source'])
    mountpoint = sandbox.mount('repo', { args: ['-o', 'settle=3600'] })
    t.is(sandbox.sh(`cat ${mountpoint}/incoming/tree/file`).stdout, 'content\n')
    // Nobody deletes it while somebody copies, and who does it without being asked is told at least.
    t.regex(sandbox.borgfs(['delete', '--force', 'repo'], { ok: [2] }).stderr, /^The repository .*\/repo is mounted as a drive: unmount it before you delete it\.$/m)
    t.regex(sandbox.borgfs(['delete', '-n', '--force', 'repo']).stderr, /^What was copied into a drive and is not saved yet would be deleted as well: .*\/staging$/m)
    sandbox.unmount(mountpoint)
    // What is left when all is saved is nothing to tell of.
    t.is(sandbox.borgfs(['delete', '--cache-only', '-v', 'repo']).stderr, 'Cache deleted.\n')
  } finally {
    sandbox.close()
  }
})
