/** import-tar beside the real borg: the same items and chunks, and whatever goes wrong saves nothing. */
import test from 'ava'
import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { haveBorg, Sandbox } from '../helpers/sandbox.js'

const run = haveBorg ? test : test.skip
if (!haveBorg) console.error('SKIPPED aloud: test/interop/import-tar needs the real borg')

const tree = `
import os
def put(name, content): open(name, 'wb').write(content)
os.makedirs('dir/' + 'd' * 120); os.mkdir('empty')
put('a', b'first'); put('dir/large', os.urandom(6_000_000)); put('none', b''); put('n' * 255, b'255'); put('dir/' + 'd' * 120 + '/x', b'long'); put(b'not-\\xff-text', b'bytes')
for n in range(200): put('dir/small-%d' % n, b'%d' % n * 50)
os.symlink('a', 'link'); os.symlink('t' * 300, 'long-link'); os.link('a', 'dir/hard'); os.link('dir/large', 'z'); os.mkfifo('fifo')
for name, kind in (('chr', 0o20640), ('blk', 0o60640)):
  try: os.mknod(name, kind, os.makedev(300, 70000))
  except PermissionError: pass
os.chmod('a', 0o6755); os.chown('none', 2 ** 21 + 5, 4242)
with open('holes', 'wb') as f: f.seek(3_000_000); f.write(b'x'); f.truncate(9_000_000)
os.utime('a', ns=(0, 1_500_000_000_123_456_789)); os.utime('none', (-2, -2))
`

const format = '{type} {mode} {uid} {gid} {user} {group} {size} {path} {source} {num_chunks} {sha256}{NL}'

for (const mode of ['repokey', 'none']) {
  run(`${mode}: tars of every format become the archive that borg makes of them`, t => {
    const sandbox = new Sandbox(`import-tar-${mode}`)
    try {
      const source = sandbox.mkdir('source')
      sandbox.run('python3', ['-c', tree], { cwd: source })
      sandbox.borg(['init', '-e', mode, 'repo'])
      for (const [name, args] of [['gnu', '--format=gnu *'], ['sparse', '--format=gnu -S *'], ['pax', '--format=posix *'], ['pax-sparse', '--format=posix -S *'], ['absolute', '-P --transform=s,^,/abs/, *']] as const) {
        sandbox.sh(`tar cf ../${name}.tar ${args}`, { cwd: source })
        const ours = sandbox.borgfs(['import-tar', '--list', `repo::ours-${name}`, `${name}.tar`])
        const theirs = sandbox.borg(['import-tar', '--list', `repo::theirs-${name}`, `${name}.tar`])
        // Borg tells of files before they are stored, of the others afterwards; we in order.
        t.is(ours.stderr, theirs.stderr, name)
        const listed = (archive: string): string => sandbox.borg(['list', '--format', format, `repo::${archive}-${name}`]).stdout
        // Borg leaves hard links of such tars as they are, and they lead nowhere.
        if (name === 'absolute') {
          t.regex(listed('ours'), / abs\/dir\/hard abs\/a | abs\/a abs\/dir\/hard /)
          continue
        }
        t.is(listed('ours'), listed('theirs'), name)
        const differences = sandbox.borg(['diff', `repo::ours-${name}`, `theirs-${name}`]).stdout.trimEnd().split('\n').filter(line => line !== '')
        // Borg's times go through a double.
        t.deepEqual(differences.filter(line => !/^ +0 B +0 B \[mtime: |^\[mtime: /.test(line)), [], name)
      }
      const back = sandbox.mkdir('back')
      sandbox.borg(['extract', '../repo::ours-pax-sparse'], { cwd: back })
      t.is(sandbox.run('rsync', ['-aHni', '--checksum', '--delete', '--exclude=none', `${source}/`, `${back}/`]).stdout.split('\n').filter(line => !line.startsWith('.d')).join(''), '')
      // `./a` is stored as `a`, as `create .` would.
      sandbox.sh('tar cf ../dots.tar .', { cwd: source })
      sandbox.borgfs(['import-tar', 'repo::dots', 'dots.tar'])
      t.deepEqual(sandbox.borg(['list', '--short', 'repo::dots']).stdout.split('\n').sort(), sandbox.sh('find . -printf "%P\\n"', { cwd: source }).stdout.replace(/^\n/, '.\n').replaceAll('\udcff', '?').split('\n').map(line => line.replace('not-\ufffd', 'not-?')).sort())
      const again = sandbox.mkdir('again')
      sandbox.borgfs(['extract', '../repo::dots'], { cwd: again })
      t.is(sandbox.sh('stat -c %i again/a again/dir/hard | uniq | wc -l').stdout.trim(), '1')
      sandbox.assertSound()
    } finally {
      sandbox.close()
    }
  })
}

run('filters, stdin, options and numbers; what is no whole tar saves nothing and is said in one sentence', t => {
  const sandbox = new Sandbox('import-tar-options')
  try {
    const source = sandbox.mkdir('source')
    sandbox.sh('seq 100000 > numbers; head -c 1500000 /dev/urandom > random; tar czf ../a.tar.gz *; tar cf ../a.tar *; cat ../a.tar ../a.tar > ../two.tar', { cwd: source })
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    const json = JSON.parse(sandbox.borgfs(['import-tar', '--json', '--comment', 'from a tar', '--timestamp', '2024-05-01T10:00:00', '-C', 'zstd,3', '--chunker-params', '10,15,12,4095', 'repo::gz', 'a.tar.gz']).stdout) as { archive: { name: string; stats: { nfiles: number } } }
    t.is(json.archive.stats.nfiles, 2)
    const info = JSON.parse(sandbox.borg(['info', '--json', 'repo::gz']).stdout) as { archives: { comment: string; start: string; chunker_params: unknown[]; stats: { nfiles: number } }[] }
    t.like(info.archives[0], { comment: 'from a tar', start: '2024-05-01T10:00:00.000000', chunker_params: ['buzhash', 10, 15, 12, 4095] })
    const program = { NODE: process.execPath, BORGFS: new URL('../../../bin/borgfs.js', import.meta.url).pathname }
    sandbox.sh(`cat a.tar | "$NODE" "$BORGFS" import-tar repo::stdin -; gzip -c a.tar | "$NODE" "$BORGFS" import-tar --tar-filter 'gzip -d' repo::filtered -`, { env: program })
    for (const archive of ['stdin', 'filtered']) t.is(sandbox.borg(['diff', '--content-only', `repo::${archive}`, 'gz', '--same-chunker-params']).stdout.split('\n').length, 3)
    t.is(sandbox.borg(['diff', 'repo::stdin', 'filtered']).stdout, '')
    for (const ignore of [[], ['--ignore-zeros']]) {
      const name = `two${ignore.length}`
      sandbox.borgfs(['import-tar', ...ignore, `repo::${name}`, 'two.tar'])
      t.is(sandbox.borg(['list', '--short', `repo::${name}`]).stdout.split('\n').length, 3 + 2 * ignore.length)
    }
    // A volume header of GNU tar is no member that an archive can have.
    sandbox.sh('tar cf ../label.tar -V label numbers', { cwd: source })
    const [ours, theirs] = [sandbox.borgfs(['import-tar', '--list', 'repo::label', 'label.tar'], { ok: 'any' }), sandbox.borg(['import-tar', '--list', 'repo::label2', 'label.tar'], { ok: 'any' })]
    t.is(ours.stderr, theirs.stderr)
    t.deepEqual([ours.rc, theirs.rc], [1, 1])

    const before = sandbox.borg(['list', '--short', 'repo']).stdout
    writeFileSync(sandbox.path('garbage.tar'), 'no tar at all '.repeat(100))
    writeFileSync(sandbox.path('empty.tar'), '')
    // Longer than what waits in pipes: the program that unpacks it is stopped while it has more to give.
    sandbox.sh('head -c 3000000 /dev/urandom | gzip > garbage.tar.gz')
    writeFileSync(sandbox.path('cut.tar'), readFileSync(sandbox.path('a.tar')))
    truncateSync(sandbox.path('cut.tar'), 1_000_000)
    writeFileSync(sandbox.path('cut.tar.gz'), readFileSync(sandbox.path('a.tar.gz')).subarray(0, 900_000))
    for (const [args, sentence] of [
      [['repo::x', 'garbage.tar'], /no tar/], [['repo::x', 'empty.tar'], /empty/], [['repo::x', 'garbage.tar.gz'], /no tar/], [['repo::x', 'cut.tar'], /ends within/], [['repo::x', 'cut.tar.gz'], /ends within|rc=1/], [['repo::x', 'a.tar.gz', '--tar-filter', ''], /no tar, or compressed/],
      [['repo::x', 'nowhere.tar'], /No such file or directory: 'nowhere.tar'/], [['--tar-filter', 'no-such-program', 'repo::x', 'a.tar'], /executable not found: no-such-program/],
      [['--tar-filter', 'sh -c "cat; exit 3"', 'repo::x', 'a.tar'], /filter sh -c "cat; exit 3" failed, rc=3/], [['repo::gz', 'a.tar'], /Archive gz already exists/],
    ] as const) {
      const { rc, stderr } = sandbox.borgfs(['import-tar', ...args], { ok: 'any' })
      t.is(rc, 2, stderr)
      t.regex(stderr, sentence)
      t.notRegex(stderr, /^ +at /m)
      t.is(sandbox.borg(['list', '--short', 'repo']).stdout, before)
    }
    sandbox.assertSound()
  } finally {
    sandbox.close()
  }
})
