/** Numbers of info, list and create --stats against the real borg. */
import test from 'ava'
import { haveBorg, Sandbox } from '../helpers/sandbox.js'

const run = haveBorg ? test : test.skip
if (!haveBorg) console.error('SKIPPED aloud: test/interop/info needs the real borg')

for (const mode of ['repokey-blake2', 'none']) {
  run(`${mode}: info and list tell what borg tells, of the repository and of archives, and keep its cache current`, t => {
    const sandbox = new Sandbox(`info-${mode}`)
    try {
      const source = sandbox.mkdir('source')
      sandbox.sh('for i in 1 2 3; do head -c 30000 /dev/urandom > f$i; done; cp f1 same; head -c 4000000 /dev/zero > zeros; ln f2 link', { cwd: source })
      sandbox.borg(['init', '-e', mode, 'repo'])
      for (const name of ['a1', 'a2', 'b1']) {
        sandbox.sh(`head -c 50000 /dev/urandom > own-${name}`, { cwd: source })
        sandbox.borg(['create', '--comment', `of ${name}`, `../repo::${name}`, '.'], { cwd: source })
      }
      const unique = '{dsize} {dcsize} {unique_chunks} {num_chunks} {path}{NL}'
      for (const args of [
        ['info', 'repo'], ['info', '--json', 'repo'], ['info', 'repo::a2'], ['info', '--json', 'repo::a2'], ['info', '-a', 'a*', 'repo'], ['info', '--last', '2', '--json', 'repo'],
        ['info', '-P', 'x', 'repo'], ['info', '-P', 'x', '--json', 'repo'], ['info', '--iec', '--first', '1', 'repo'], ['info', '--consider-part-files', 'repo::b1'],
        ['list', '--format', unique, 'repo::a1'], ['list', '--json-lines', '--format', unique, 'repo::b1'],
        ['list', '--format', '{archive} {comment} {hostname} {username} {end} {command_line}{NL}', 'repo'],
      ]) {
        const [ours, theirs] = [sandbox.borgfs(args), sandbox.borg(args)]
        // The order of keys that a format adds is not fixed.
        const lines = (text: string): unknown => (args.includes('--json-lines') ? text.split('\n').filter(Boolean).map(line => JSON.parse(line) as unknown) : text)
        t.deepEqual(lines(ours.stdout), lines(theirs.stdout), args.join(' '))
        t.is(ours.stderr, theirs.stderr, args.join(' '))
      }
      sandbox.sh('rm -rf home/.cache')
      const counted = sandbox.borgfs(['info', '--json', 'repo::b1'])
      t.is(counted.stdout, sandbox.borg(['info', '--json', 'repo::b1']).stdout, 'counted by borgfs')
      t.notRegex(sandbox.borg(['info', '--debug', 'repo']).stderr, /sync/i)
      // A damaged memory of sizes is no matter.
      sandbox.sh('for f in home/.cache/borg/*/borgfs-archive-sums; do printf x | dd of=$f bs=1 seek=60 conv=notrunc status=none; done')
      t.is(sandbox.borgfs(['info', '--json', 'repo::b1']).stdout, counted.stdout)
    } finally {
      sandbox.close()
    }
  })

  run(`${mode}: create --json tells the numbers of borg`, t => {
    const sandbox = new Sandbox(`create-numbers-${mode}`)
    try {
      const source = sandbox.mkdir('source')
      sandbox.sh('for i in 1 2 3; do head -c 30000 /dev/urandom > f$i; done', { cwd: source })
      sandbox.borg(['init', '-e', mode, 'repo'])
      sandbox.borg(['create', '../repo::a1', '.'], { cwd: source })
      interface Told { archive: { stats: Record<string, number> }; cache: { stats: Record<string, number> } }
      for (const change of ['head -c 40000 /dev/urandom > new', 'true']) {
        sandbox.sh(change, { cwd: source })
        sandbox.sh('cp -a repo repo-copy; cp -a home home-copy')
        const theirs = JSON.parse(sandbox.borg(['create', '--json', '../repo::next', '.'], { cwd: source }).stdout) as Told
        sandbox.sh('rm -rf repo home; mv repo-copy repo; mv home-copy home')
        const ours = JSON.parse(sandbox.borgfs(['create', '--json', '../repo::next', '.'], { cwd: source }).stdout) as Told
        t.is(ours.archive.stats.nfiles, theirs.archive.stats.nfiles)
        // The command line in the metadata is another one, times compress differently: some bytes, not a chunk.
        for (const key of ['original_size', 'compressed_size', 'deduplicated_size']) {
          t.true(Math.abs(ours.archive.stats[key]! - theirs.archive.stats[key]!) < 100, `${key}: ${ours.archive.stats[key]} instead of ${theirs.archive.stats[key]}`)
        }
        for (const key of ['total_chunks', 'total_unique_chunks', 'total_size', 'total_csize']) t.is(ours.cache.stats[key], theirs.cache.stats[key], key)
        sandbox.borgfs(['delete', 'repo::next'])
      }
    } finally {
      sandbox.close()
    }
  })
}
