/** prune against the real borg: the lines of --list on random sets of archives, and repositories after pruning. */
import test from 'ava'
import { haveBorg, type Ran, Sandbox } from '../helpers/sandbox.js'
import { addEmptyArchives } from '../helpers/many-archives.js'
import { randomOf } from '../helpers/seeded.js'

const run = haveBorg ? test : test.skip
if (!haveBorg) console.error('SKIPPED aloud: test/interop/prune needs the real borg')

function same(ours: Ran, theirs: Ran): boolean {
  return ours.rc === theirs.rc && ours.stderr === theirs.stderr && ours.stdout === theirs.stdout
}

run('on random archives every line of --list --dry-run is that of borg', async t => {
  const sandbox = new Sandbox('prune-random')
  try {
    const seed = Number(process.env.BORGFS_SEED ?? 20240501)
    const random = randomOf(seed)
    const rounds = Number(process.env.BORGFS_PRUNE_ROUNDS ?? 2)
    for (let round = 0; round < rounds; round++) {
      const repository = `repo${round}`
      sandbox.borg(['init', '-e', 'none', repository])
      const archives = new Map<string, string>()
      const now = Date.now()
      const reach = [2, 40, 900, 5000][random(4)]! * 86400_000
      for (let index = 0; index < 60; index++) {
        // Some within a second, some minutes and days apart; some with fractions.
        const moment = random(5) === 0 && archives.size > 0 ? Date.parse(`${[...archives.values()].at(-1)!}Z`) + random(2) * 1000 : now - random(reach)
        const name = `${'ab'[random(2)]!}${random(1000)}${['', '', '', '', '.checkpoint', `.checkpoint.${random(3)}`][random(6)]!}`
        archives.set(name, `${new Date(moment).toISOString().slice(0, 19)}.${random(2) ? '000000' : String(random(1000000)).padStart(6, '0')}`)
      }
      await addEmptyArchives(sandbox, repository, archives)
      for (let trial = 0; trial < 4; trial++) {
        const options: string[] = []
        for (const rule of ['last', 'minutely', 'hourly', 'daily', 'weekly', 'monthly', 'yearly']) if (random(3) === 0) options.push(`--keep-${rule}`, String(random(8) - 1))
        if (random(4) === 0) options.push('--keep-within', `${1 + random(30)}${'Hdwmy'[random(5)]!}`)
        if (options.length === 0) options.push('--keep-daily', '2')
        if (random(3) === 0) options.push('-a', ['a*', 'b?', 'a1*', '*5'][random(4)]!)
        const args = ['prune', '--list', '--dry-run', ...options, repository]
        const env = { TZ: ['UTC', 'Europe/Berlin', 'America/New_York', 'Asia/Kolkata'][random(4)]! }
        const [ours, theirs] = [sandbox.borgfs(args, { env, ok: 'any' }), sandbox.borg(args, { env, ok: 'any' })]
        t.true(same(ours, theirs), `seed ${seed}, round ${round}: ${args.join(' ')} in ${env.TZ}\n--- ours\n${ours.stderr}\n--- borg\n${theirs.stderr}`)
      }
    }
  } finally {
    sandbox.close()
  }
})

run('complaints about rules are those of borg', t => {
  const sandbox = new Sandbox('prune-wrong')
  try {
    sandbox.borg(['init', '-e', 'none', 'repo'])
    for (const args of [[], ['--keep-daily', '0'], ['--keep-within', '5x'], ['--keep-within', '0d'], ['--keep-daily', 'x'], ['-n', '-s', '--keep-daily', '1'], ['-a', 'none*', '--keep-daily', '1', '--list']]) {
      const last = (ran: Ran): string => ran.stderr.trimEnd().split('\n').at(-1)!.replace(/^borg(?:fs)? /, '')
      const [ours, theirs] = [sandbox.borgfs(['prune', ...args, 'repo'], { ok: 'any' }), sandbox.borg(['prune', ...args, 'repo'], { ok: 'any' })]
      t.is(ours.rc, theirs.rc, args.join(' '))
      t.is(last(ours), last(theirs))
    }
  } finally {
    sandbox.close()
  }
})

for (const mode of ['repokey-blake2', 'none']) {
  run(`${mode}: after prune borg finds everything in order, its cache current, and the same numbers`, t => {
    const sandbox = new Sandbox(`prune-${mode}`)
    try {
      const source = sandbox.mkdir('source')
      sandbox.sh('for i in $(seq 12); do head -c 20000 /dev/urandom > f$i; done', { cwd: source })
      sandbox.borg(['init', '-e', mode, 'repo'])
      for (let day = 1; day <= 6; day++) {
        sandbox.sh(`head -c 30000 /dev/urandom > day${day}; rm -f f${day}`, { cwd: source })
        sandbox.borg(['create', '--timestamp', `2024-05-0${day}T10:00:00`, `../repo::d${day}`, '.'], { cwd: source })
      }
      sandbox.sh('cp -a repo repo-before; cp -a home home-before')
      const args = ['prune', '--list', '--stats', '--keep-daily', '2', '--keep-weekly', '1', 'repo']
      const ours = sandbox.borgfs(args)
      const after = sandbox.borg(['info', '--json', '--debug', 'repo'])
      t.notRegex(after.stderr, /Synchronizing|sync/i, 'the cache is current')
      sandbox.sh('mv repo repo-ours; mv home home-ours; mv repo-before repo; mv home-before home')
      const theirs = sandbox.borg(args)
      t.is(ours.stderr, theirs.stderr)
      const numbers = (json: string): unknown => (JSON.parse(json) as { cache: { stats: unknown } }).cache.stats
      t.deepEqual(numbers(after.stdout), numbers(sandbox.borg(['info', '--json', 'repo']).stdout))
      sandbox.sh('rm -rf repo home; mv repo-ours repo; mv home-ours home')
      sandbox.assertSound()
      // borg goes on by the cache that borgfs left, borgfs by the one that borg left.
      sandbox.borg(['prune', '--keep-last', '1', 'repo'])
      t.notRegex(sandbox.borgfs(['info', '--info', 'repo']).stderr, /Synchronizing/)
      const out = sandbox.mkdir('out')
      sandbox.borg(['extract', '../repo::d6'], { cwd: out })
      t.is(sandbox.run('diff', ['-r', source, out]).stdout, '')
      sandbox.assertSound()
    } finally {
      sandbox.close()
    }
  })
}
