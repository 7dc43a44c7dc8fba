/** `recreate` told to both programs on copies of one repository: the same archives come out, and borg finds no fault. */
import test from 'ava'
import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { haveBorg, type Ran, type RunOptions, Sandbox } from '../helpers/sandbox.js'
import { differencesBelow, makeEveryKind } from '../helpers/trees.js'

const run = haveBorg ? test : test.skip
if (!haveBorg) console.error('SKIPPED aloud: test/interop/recreate needs the real borg')

/** Two copies of a repository, each with a home of its own, as borg and borgfs see it. */
class Twins {
  readonly sandbox: Sandbox

  constructor(sandbox: Sandbox) {
    this.sandbox = sandbox
    for (const name of ['b', 'f'] as const) {
      cpSync(sandbox.path('repo'), sandbox.path(name, 'repo'), { recursive: true, preserveTimestamps: true })
      cpSync(sandbox.path('home'), sandbox.path(name, 'home'), { recursive: true })
      // The question about the new place is answered here.
      sandbox.borg(['info', 'repo'], this.options(name))
    }
  }

  options(name: 'b' | 'f', more: RunOptions = {}): RunOptions {
    return { cwd: this.sandbox.path(name), ok: 'any', ...more, env: { BORG_BASE_DIR: this.sandbox.path(name, 'home'), ...more.env } }
  }

  run(args: readonly string[]): { theirs: Ran; ours: Ran } {
    return { theirs: this.sandbox.borg(args, this.options('b')), ours: this.sandbox.borgfs(args, this.options('f')) }
  }

  /** What `borg debug dump-archive` says, without what each program does in its own way. */
  dump(name: 'b' | 'f', archive: string, options: { csizes: boolean }): unknown {
    const { _items: items, _meta: meta } = JSON.parse(this.sandbox.borg(['debug', 'dump-archive', `repo::${archive}`, '-'], this.options(name, { ok: [0] })).stdout) as {
      _items: Record<string, unknown>[]; _meta: Record<string, unknown>
    }
    // The item stream counts in the sizes, and differs where one of them is not told: Borg leaves a promoted first name without size. It records the
    // standard chunker params whatever they are.
    const { tam, items: _, size, csize: _c, time_end, recreate_cmdline, chunker_params: _p, ...rest } = meta
    return {
      meta: { ...rest, ...(options.csizes && { size }), tam: tam !== undefined, ended: typeof time_end, recreated: recreate_cmdline !== undefined },
      items: items.map(({ chunks = [], size: _size, ...item }) => ({ ...item, chunks: (chunks as unknown[][]).map(([id, size, csize]) => (options.csizes ? [id, size, csize] : [id, size])) })),
    }
  }
}

function makeTagged(sandbox: Sandbox, source: string): void {
  sandbox.sh(String.raw`
    mkdir -p cache/sub other/nobackup linked
    printf 'Signature: 8a477f597d28d172789f06886806bc55\nmore' > cache/CACHEDIR.TAG
    echo x > cache/x; echo y > cache/sub/y
    echo z > other/nobackup/z; touch other/nobackup/.nobackup
    ln cache/CACHEDIR.TAG linked/aaa; ln cache/CACHEDIR.TAG linked/CACHEDIR.TAG; echo in > linked/in
    printf 'no signature' > other/CACHEDIR.TAG
  `, { cwd: source })
}

for (const mode of ['repokey'] as const) {
  run(`${mode}: what borg recreate makes of an archive, borgfs recreate makes too`, t => {
    const sandbox = new Sandbox(`recreate-${mode}`)
    try {
      const source = makeEveryKind(sandbox)
      makeTagged(sandbox, source)
      // Borg's own dump cannot tell names of xattrs that are not UTF-8.
      sandbox.sh(String.raw`setfattr -x $'user.b\xe4d' dir/random`, { cwd: source })
      sandbox.borg(['init', '-e', mode, 'repo'])
      sandbox.borg(['create', '-C', 'none', '--comment', 'old', '../repo::a', '.'], { cwd: source })
      sandbox.borg(['create', '-C', 'lz4', '../repo::z', 'dir'], { cwd: source })
      const twins = new Twins(sandbox)
      const stories: { readonly args: string[]; readonly archives?: string[]; readonly csizes?: boolean }[] = [
        { args: ['--comment', 'a new one', 'repo::a'], csizes: true },
        { args: ['--target', 'paths', 'repo::a', 'dir', 'with space'], archives: ['paths'], csizes: true },
        { args: ['--list', '-e', 'hard1', '-e', 'dir/deep/*', '--target', 'links', 'repo::a'], archives: ['links'] },
        { args: ['--list', '--filter', 'x', '--exclude-caches', '--exclude-if-present', '.nobackup', '--target', 'tags', 'repo::a'], archives: ['tags'] },
        { args: ['--list', '--exclude-caches', '--exclude-if-present', '.nobackup', '--keep-exclude-tags', '--target', 'kept', 'repo::a'], archives: ['kept'] },
        { args: ['-n', '--list', '-e', '*/hello', 'repo::a'] },
        { args: ['--timestamp', '2020-02-03T04:05:06', '--comment', '', 'repo::paths'], archives: ['paths'] },
        { args: ['--recompress', '-C', 'zlib,6', 'repo::a'] },
        { args: ['--chunker-params', '10,14,12,4095', '--target', 'small', 'repo::a'], archives: ['small'] },
        { args: ['--chunker-params', 'fixed,65536', '--recompress', '-C', 'lz4', 'repo::links'], archives: ['links'] },
        { args: ['-v', '--comment', 'all', 'repo'], archives: ['z', 'kept'] },
        // Nothing to do, in ways that differ, and what is refused.
        { args: ['repo::a'] }, { args: ['-v', 'repo'], archives: [] }, { args: ['--target', 't', 'repo', '-e', 'x'] },
        { args: ['--comment', 'x', 'repo::a.recreate'] }, { args: ['--target', 'z', 'repo::a'] },
        { args: ['--recompress', 'repo::a'] },
      ]
      for (const { args, archives = ['a'], csizes = false } of stories) {
        const { theirs, ours } = twins.run(['recreate', ...args])
        const title = args.join(' ')
        t.is(ours.rc, theirs.rc, title)
        t.is(ours.stdout, theirs.stdout, title)
        // Usage texts and their reasons are argparse's; borg resyncs its cache where it wrote the manifest without need.
        const lines = (text: string): string[] => (text.startsWith('usage') || text.includes('ChunkerParams') || text.includes('invalid choice') ? [] : text.split('\n')).filter(line => !/chunks cache|^Archives: \d|chunks? index|archive index|^Done\.$/.test(line))
        t.deepEqual(lines(ours.stderr), lines(theirs.stderr), title)
        if (theirs.rc === 0 && !args.includes('-n')) for (const archive of archives) t.deepEqual(twins.dump('f', archive, { csizes }), twins.dump('b', archive, { csizes }), title)
      }
      // Borg stumbles over a fifo that loses its first name.
      sandbox.borgfs(['recreate', '-e', 'fifo', '--target', 'fifos', 'repo::a'], twins.options('f', { ok: [0] }))
      t.regex(sandbox.borg(['list', 'repo::fifos', 'fifo2'], twins.options('f')).stdout, /^prw.* fifo2\n$/)
      // What borgfs left is current for borg, sound, and the same when extracted.
      const info = sandbox.borg(['info', '-v', 'repo'], twins.options('f', { ok: [0] }))
      t.notRegex(info.stderr, /Synchronizing/)
      const check = sandbox.borg(['check', '--verify-data', '-v', 'repo'], twins.options('f', { ok: [0] }))
      t.regex(check.stderr, /Archive consistency check complete, no problems found/)
      for (const archive of ['a', 'small']) {
        const out = sandbox.mkdir(`out-${archive}`)
        sandbox.borg(['extract', `../f/repo::${archive}`], { cwd: out, env: { BORG_BASE_DIR: sandbox.path('f', 'home') } })
        t.is(differencesBelow(sandbox, source, out), '', archive)
      }
      // Counted right to the last reference: with all archives gone nothing is left.
      sandbox.borg(['delete', '-a', '*', 'repo'], twins.options('f', { ok: [0] }))
      t.regex(sandbox.borg(['check', '--verify-data', '-v', 'repo'], twins.options('f', { ok: [0] })).stderr, /no problems found/)
      t.regex(sandbox.borg(['info', 'repo'], twins.options('f', { ok: [0] })).stdout, /Chunk index: +0 +0\n/)
    } finally {
      sandbox.close()
    }
  })
}

run('recompressing tells the stored sizes everywhere, drops part files, and finds nothing to do the second time', t => {
  const sandbox = new Sandbox('recreate-sizes')
  try {
    const source = sandbox.mkdir('source')
    sandbox.sh(`yes 'compresses well' | head -c 3000000 > text || true; head -c 700000 /dev/urandom > random; cp text copy; : > empty`, { cwd: source })
    sandbox.borgfs(['init', '-e', 'repokey-blake2', 'repo'])
    // Slow enough for parts.
    sandbox.borgfs(['create', '-C', 'none', '-c', '1', '--chunker-params', 'fixed,500000', '--content-from-command', 'repo::parts', '--', 'sh', '-c', `cat ${source}/text; sleep 1.3; cat ${source}/random`])
    t.regex(sandbox.borg(['list', '--consider-part-files', 'repo::parts']).stdout, /stdin\.borg_part_2/)
    sandbox.borg(['create', '-C', 'none', '../repo::a', '.'], { cwd: source })
    sandbox.borgfs(['recreate', '--recompress', '-C', 'zstd,3', 'repo'])
    t.notRegex(sandbox.borg(['list', '--consider-part-files', 'repo::parts']).stdout, /part/)
    const size = (): number => Number(sandbox.sh('du -sb repo/data | cut -f1').stdout)
    sandbox.borg(['compact', 'repo'])
    const before = size()
    // The random bytes are there twice, cut in different ways.
    t.true(before < 1_500_000, `${before} bytes`)
    for (const archive of ['a', 'parts']) {
      const { _items: items } = JSON.parse(sandbox.borg(['debug', 'dump-archive', `repo::${archive}`, '-']).stdout) as { _items: { chunks?: [string, number, number][] }[] }
      for (const [id, , csize] of items.flatMap(({ chunks = [] }) => chunks)) {
        sandbox.borg(['debug', 'get-obj', 'repo', id.slice(-64), 'object'])
        t.is(readFileSync(sandbox.path('object')).length, csize)
      }
    }
    sandbox.borgfs(['recreate', '--recompress', '-C', 'zstd,9', 'repo::a'])
    sandbox.borg(['compact', 'repo'])
    // Only metadata was written: the method is the same, and what does not shrink is left alone.
    t.true(Math.abs(size() - before) < 5000, `${size()} instead of ${before} bytes`)
    sandbox.assertSound()
    t.notRegex(sandbox.borg(['info', '-v', 'repo']).stderr, /Synchronizing/)
  } finally {
    sandbox.close()
  }
})

run('--stats counts what borg counts: contents, item stream and the archive\'s own metadata', t => {
  const sandbox = new Sandbox('recreate-stats')
  try {
    sandbox.sh('mkdir source; echo one > source/one; echo another > source/two', {})
    sandbox.borg(['init', '-e', 'none', 'repo'])
    sandbox.borg(['create', '-C', 'none', 'repo::a', 'source'])
    const twins = new Twins(sandbox)
    /** The numbers of a run without those of the metadata, which has each program's own command line in it: in mode none 3 bytes more are stored than it has. */
    const numbersOf = (name: 'b' | 'f', { stderr }: Ran, archive: string): number[] => {
      const row = /^This archive: +(\d+) B +(\d+) B +(\d+) B$/m.exec(stderr)
      if (!row) throw new Error(stderr)
      const { archives } = JSON.parse(sandbox.borg(['info', '--json', `repo::${archive}`], twins.options(name)).stdout) as { archives: { id: string }[] }
      sandbox.borg(['debug', 'get-obj', 'repo', archives[0]!.id, 'object'], twins.options(name, { ok: [0] }))
      const stored = readFileSync(sandbox.path(name, 'object')).length
      return [Number(row[1]) - (stored - 3), Number(row[2]) - stored, Number(row[3]) - stored]
    }
    for (const [args, archive] of [[['--comment', 'x', 'repo::a'], 'a'], [['--target', 't', '-e', 'source/two', 'repo::a'], 't'], [['-e', 'source/one', 'repo::a'], 'a']] as const) {
      const { theirs, ours } = twins.run(['recreate', '-v', '--stats', '-C', 'none', ...args])
      t.deepEqual(numbersOf('f', ours, archive), numbersOf('b', theirs, archive), args.join(' '))
    }
  } finally {
    sandbox.close()
  }
})

run('of a damaged archive nothing is recreated and nothing is lost', t => {
  const sandbox = new Sandbox('recreate-damaged')
  try {
    const source = sandbox.mkdir('source')
    sandbox.sh('head -c 300000 /dev/urandom > first; head -c 300000 /dev/urandom > second', { cwd: source })
    sandbox.borgfs(['init', '-e', 'repokey', 'repo'])
    sandbox.borgfs(['create', '../repo::a', '.'], { cwd: source })
    const segment = sandbox.path(sandbox.sh('ls -S repo/data/0/* | head -1').stdout.trim())
    const bytes = readFileSync(segment)
    bytes[150_000]! ^= 0x40
    writeFileSync(segment, bytes)
    const list = sandbox.borg(['list', 'repo']).stdout
    for (const options of [['--recompress', '-C', 'zlib'], ['--chunker-params', '10,14,12,4095']]) {
      const ran = sandbox.borgfs(['recreate', ...options, 'repo::a'], { ok: [2] })
      t.regex(ran.stderr, /^Data integrity error: /)
      t.is(sandbox.borg(['list', 'repo']).stdout, list)
    }
    // Metadata alone is sound: the archive can be commented, and what is whole extracted.
    sandbox.borgfs(['recreate', '--comment', 'has a damaged file', 'repo::a'])
    t.regex(sandbox.borg(['info', 'repo::a']).stdout, /has a damaged file/)
    t.regex(sandbox.borg(['check', '-v', '--archives-only', 'repo']).stderr, /no problems found/)
  } finally {
    sandbox.close()
  }
})
