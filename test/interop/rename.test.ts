/** rename against the real borg. */
import test from 'ava'
import { haveBorg, Sandbox } from '../helpers/sandbox.js'

const run = haveBorg ? test : test.skip
if (!haveBorg) console.error('SKIPPED aloud: test/interop/rename needs the real borg')

interface Listed { readonly archives: { name: string; id: string; time: string; tam?: string }[] }

for (const mode of ['repokey-blake2', 'none']) {
  run(`${mode}: the archive has another name and id, the same contents and times, a valid TAM, and both caches stay current`, t => {
    const sandbox = new Sandbox(`rename-${mode}`)
    try {
      const source = sandbox.mkdir('source')
      sandbox.sh('head -c 50000 /dev/urandom > f; ln f g', { cwd: source })
      sandbox.borg(['init', '-e', mode, 'repo'])
      sandbox.borg(['create', '--comment', 'a note', '--timestamp', '2024-05-01T10:00:00', '../repo::old', '.'], { cwd: source })
      sandbox.borg(['create', '../repo::other', '.'], { cwd: source })
      const before = JSON.parse(sandbox.borg(['info', '--json', 'repo::old']).stdout) as { archives: Record<string, unknown>[]; cache: { stats: Record<string, number> } }
      const ran = sandbox.borgfs(['rename', 'repo::old', 'new-{user}-ü'])
      t.is(ran.stderr + ran.stdout, '')
      const name = `new-${sandbox.run('id', ['-un']).stdout.trim()}-ü`
      const listed = JSON.parse(sandbox.borgfs(['list', '--json', '--format', '{tam}', 'repo']).stdout) as Listed
      t.deepEqual(listed.archives.map(archive => archive.name), [name, 'other'])
      t.is(listed.archives[0]!.tam, 'verified')
      const info = sandbox.borg(['info', '--json', '--debug', `repo::${name}`])
      t.notRegex(info.stderr, /sync/i)
      const after = JSON.parse(info.stdout) as typeof before
      const facts = ({ name: _name, id: _id, limits: _limits, stats, ...rest }: Record<string, unknown>) => ({ ...rest, files: (stats as { nfiles: number }).nfiles })
      t.deepEqual(facts(after.archives[0]!), facts(before.archives[0]!))
      t.not(after.archives[0]!.id, before.archives[0]!.id)
      t.is(after.cache.stats.total_chunks, before.cache.stats.total_chunks)
      t.is(after.cache.stats.total_unique_chunks, before.cache.stats.total_unique_chunks)
      sandbox.assertSound()
      const out = sandbox.mkdir('out')
      sandbox.borg(['extract', `../repo::${name}`], { cwd: out })
      t.is(sandbox.run('diff', ['-r', source, out]).stdout, '')

      // Borg's own rename leaves a stale TAM (1.2.4); ours makes it valid again.
      sandbox.borg(['rename', 'repo::other', 'by-borg'])
      t.notRegex(sandbox.borgfs(['info', '--info', 'repo']).stderr, /Synchronizing/)
      sandbox.borgfs(['rename', 'repo::by-borg', 'by-us'])
      t.is((JSON.parse(sandbox.borgfs(['list', '--json', '--format', '{tam}', 'repo']).stdout) as Listed).archives.find(archive => archive.name === 'by-us')!.tam, 'verified')
      sandbox.assertSound()
    } finally {
      sandbox.close()
    }
  })
}

run('names that are no good and archives that are not there are refused as by borg, and nothing changes', t => {
  const sandbox = new Sandbox('rename-names')
  try {
    sandbox.borg(['init', '-e', 'none', 'repo'])
    sandbox.sh('mkdir empty; for a in a b; do (cd empty; borg create ../repo::$a .); done')
    for (const args of [['repo::a', 'b'], ['repo::a', 'x/y'], ['repo::a', 'x::y'], ['repo::a', ''], ['repo::none', 'c'], ['repo', 'c'], ['repo::a', 'a']]) {
      const [ours, theirs] = [sandbox.borgfs(['rename', ...args], { ok: 'any' }), sandbox.borg(['rename', ...args], { ok: 'any' })]
      t.is(ours.rc, theirs.rc, args.join(' '))
      t.is(ours.stderr.trimEnd().split('\n').at(-1)!.replace(/^borgfs /, ''), theirs.stderr.trimEnd().split('\n').at(-1)!.replace(/^borg /, ''))
    }
    // Borg would write a manifest that it cannot read any more.
    t.regex(sandbox.borgfs(['rename', 'repo::a', 'ü'.repeat(128)], { ok: [2] }).stderr, /Invalid archive name.*255 bytes/)
    sandbox.borgfs(['rename', 'repo::a', 'n'.repeat(255)])
    t.is(sandbox.borg(['list', '--short', 'repo']).stdout, `${'n'.repeat(255)}\nb\n`)
  } finally {
    sandbox.close()
  }
})
