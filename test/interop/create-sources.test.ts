/** Where `create` may get paths and contents from, and what it passes over: the same as borg. */
import test from 'ava'
import { haveBorg, type Ran, type RunOptions, Sandbox } from '../helpers/sandbox.js'

const run = haveBorg ? test : test.skip
if (!haveBorg) console.error('SKIPPED aloud: test/interop/create-sources needs the real borg')

function items(sandbox: Sandbox, archive: string): unknown {
  const { _items: found } = JSON.parse(sandbox.borg(['debug', 'dump-archive', archive, '-']).stdout) as { _items: Record<string, unknown>[] }
  return found.map(({ atime: _a, ctime: _c, mtime: _m, chunks = [], ...item }) => ({ ...item, chunks: (chunks as unknown[][]).map(([id, size]) => [id, size]) }))
}

/** argparse prints its usage first. */
function said({ stderr }: Ran): string {
  return stderr.replace(/^usage:[^]*?(?=borg(?: create)?: error)/, '').replace(/^borgfs(?=(?: create)?: error)/, 'borg')
}

run('paths and contents from commands and from stdin are taken as borg takes them', t => {
  const sandbox = new Sandbox('create-sources')
  try {
    sandbox.sh(String.raw`mkdir -p n/d; echo 1 > n/f; echo 2 > n/d/g; ln n/f n/hard; ln -s f n/link; mkfifo n/pipe; printf x > $'n/new\nline'`)
    sandbox.borg(['init', '-e', 'none', 'repo'])
    const stories: { readonly args: readonly string[]; readonly tail?: readonly string[]; readonly input?: string }[] = [
      { args: ['--paths-from-stdin'], input: 'n\nn/d/g\nn/f\nn/hard\nn/link\nn/pipe\nmissing\nn/../n/d/\n\n/dev/null' },
      { args: ['--paths-from-stdin', '--paths-delimiter', String.raw`\0`, '-e', 'n/f'], input: 'n/new\nline\0n/f\0' },
      { args: ['--paths-from-stdin', '--paths-delimiter', String.raw`\x2c\t`], input: 'n/f,\tn/d' },
      { args: ['-n', '--paths-from-stdin'], input: 'n\nn/d/g\nmissing' },
      { args: ['--paths-from-command'], tail: ['--', 'sh', '-c', 'echo n/f; echo n/d'] },
      { args: ['--paths-from-command'], tail: ['--', 'sh', '-c', 'echo n/f; exit 9'] },
      { args: ['--paths-from-command'], tail: ['no-such-program'] },
      { args: ['--content-from-command', '--stdin-name', 'dir/dump', '--stdin-mode', '0600', '--stdin-user', 'daemon', '--stdin-group', 'daemon'], tail: ['--', 'sh', '-c', 'echo content'] },
      { args: ['--content-from-command'], tail: ['--', 'sh', '-c', 'echo content; exit 7'] },
      { args: ['--content-from-command', '-n'], tail: ['no-such-program'] },
      { args: ['--content-from-command'], tail: ['no-such-program'] },
      { args: ['--content-from-command'] }, { args: ['--paths-from-command'] }, { args: [] }, { args: ['--paths-from-stdin'], tail: ['n'] }, { args: ['-C', 'nothing'], tail: ['n'] }, { args: ['-C', 'zstd,23'], tail: ['n'] },
      { args: ['--timestamp', '2023-02-30'], tail: ['n'] }, { args: ['--timestamp', '2023-1-5T24:00'], tail: ['n'] }, { args: ['--timestamp', '2023-1-5'], tail: ['n'] }, { args: ['--comment', '--a comment'], tail: ['n'] },
    ]
    for (const [index, { args, tail = [], input = '' }] of stories.entries()) {
      const words = (name: string): string[] => ['create', '--list', '--files-cache', 'disabled', ...args, `repo::${name}${index}`, ...tail]
      const options: RunOptions = { input, ok: 'any' }
      const theirs = sandbox.borg(words('b'), options), ours = sandbox.borgfs(words('f'), options)
      const title = [...args, ...tail].join(' ')
      // Borg says what it reads before it has read it; of what is not saved in the end there need be no word.
      const lines = (ran: Ran): string[] => said(ran).split('\n').filter(line => ran.rc < 2 || !/^[iA] /.test(line))
      t.deepEqual(lines(ours), lines(theirs), title)
      t.is(ours.rc, theirs.rc, title)
      if (theirs.rc < 2 && !args.includes('-n')) t.deepEqual(items(sandbox, `repo::f${index}`), items(sandbox, `repo::b${index}`), title)
    }
    sandbox.assertSound()
  } finally {
    sandbox.close()
  }
})

run('the repository and the cache are passed over, symlinks to special files read, directories not looked into as the patterns say', t => {
  const sandbox = new Sandbox('create-passed-over')
  try {
    sandbox.sh('mkdir -p n/sub/deep; echo 1 > n/sub/f; echo 2 > n/sub/deep/g; ln -s /dev/null n/null; ln -s f n/plain; ln -s missing n/dangling')
    sandbox.borg(['init', '-e', 'none', 'n/repo'])
    for (const [index, args] of [
      ['-e', 'home/.config', '.'], ['--read-special', 'n'], ['--pattern', '! n/sub', 'n'], ['--pattern', '+ n/sub/deep/g', '--pattern', '- n/sub', 'n'], ['--pattern', '+ n/sub/deep/g', '--pattern', '! n/sub', 'n'],
      ['-e', 'n/sub', 'n'], ['-n', '--pattern', '- n/sub', 'n'],
    ].entries()) {
      const paths = args.filter((word, at) => !word.startsWith('-') && !args[at - 1]?.startsWith('--pattern') && args[at - 1] !== '-e')
      const options = args.filter(word => !paths.includes(word))
      const [theirs, ours] = [sandbox.borg(['create', '--list', '--files-cache', 'disabled', ...options, `n/repo::b${index}`, ...paths], { ok: 'any' }), sandbox.borgfs(['create', '--list', '--files-cache', 'disabled', ...options, `n/repo::f${index}`, ...paths], { ok: 'any' })]
      t.is(ours.stderr, theirs.stderr, args.join(' '))
      t.is(ours.rc, theirs.rc)
      if (!args.includes('-n')) t.deepEqual(items(sandbox, `n/repo::f${index}`), items(sandbox, `n/repo::b${index}`), args.join(' '))
    }
  } finally {
    sandbox.close()
  }
})

run('--no-cache-sync leaves an outdated cache alone and says what is not known', t => {
  const sandbox = new Sandbox('create-no-sync')
  try {
    sandbox.sh('mkdir n other; echo 1 > n/f')
    sandbox.borg(['init', '-e', 'none', 'repo'])
    sandbox.borg(['create', 'repo::first', 'n'])
    // Somebody else writes meanwhile.
    sandbox.borg(['create', 'repo::second', 'n'], { env: { BORG_BASE_DIR: sandbox.path('other') } })
    const theirs = sandbox.borg(['create', '--no-cache-sync', '--stats', 'repo::b', 'n'])
    const before = sandbox.sh('cat home/.cache/borg/*/chunks | sha256sum').stdout
    const ours = sandbox.borgfs(['create', '--no-cache-sync', '--stats', 'repo::f', 'n'])
    t.is(sandbox.sh('cat home/.cache/borg/*/chunks | sha256sum').stdout, before)
    const table = (text: string): string[] => text.split('\n').filter(line => /^Note|^All archives|original size|^Number of files|^Chunk index/i.test(line)).map(line => line.replace(/\d+(?= +unknown)/, 'N').replace(/ +/g, ' '))
    t.deepEqual(table(ours.stderr), table(theirs.stderr))
    sandbox.assertSound()
    // With a current cache the option makes no difference.
    sandbox.borg(['info', 'repo::f'])
    t.regex(sandbox.borgfs(['create', '--no-cache-sync', '--stats', 'repo::g', 'n']).stderr, /All archives: .* B/)
    t.notRegex(sandbox.borg(['info', '-v', 'repo']).stderr, /Synchronizing/)
  } finally {
    sandbox.close()
  }
})
