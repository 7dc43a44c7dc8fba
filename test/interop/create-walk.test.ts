/** What `create` looks at and what it stores of it, where something is in the way: the same as borg. */
import test from 'ava'
import { existsSync } from 'node:fs'
import { archiveFacts } from '../../src/engine/operations/create.js'
import { borgfsProgram, haveBorg, isRoot, type Ran, Sandbox } from '../helpers/sandbox.js'

const run = haveBorg ? test : test.skip
if (!haveBorg) console.error('SKIPPED aloud: test/interop/create-walk needs the real borg')

/** root is asked like any other owner. */
function withoutPrivileges(sandbox: Sandbox, words: readonly string[]): Ran {
  const [program, ...args] = isRoot ? ['setpriv', '--bounding-set', '-dac_override,-dac_read_search', '--inh-caps', '-all', ...words] : words
  return sandbox.run(program!, args, { ok: 'any' })
}

/** `create` by both with the same words; both lists of items. */
function both(t: import('ava').ExecutionContext, sandbox: Sandbox, name: string, args: readonly string[], paths: readonly string[]): void {
  const words = (archive: string): string[] => ['create', '--list', '--files-cache', 'disabled', ...args, `repo::${archive}`, ...paths]
  const theirs = withoutPrivileges(sandbox, ['borg', ...words(`b${name}`)]), ours = withoutPrivileges(sandbox, [process.execPath, borgfsProgram, ...words(`f${name}`)])
  const title = [...args, ...paths].join(' ')
  t.is(ours.stderr, theirs.stderr, title)
  t.is(ours.rc, theirs.rc, title)
  if (args.includes('-n')) return
  const listed = (archive: string): string => sandbox.borg(['list', '--format', '{mode} {size} {path}{extra}{NL}', `repo::${archive}`]).stdout
  t.is(listed(`f${name}`), listed(`b${name}`), title)
}

run('what is excluded is not even looked at, and what cannot be opened is not stored', t => {
  const sandbox = new Sandbox('walk-excluded')
  try {
    sandbox.sh('mkdir -p n/listed/d n/shut n/passed; echo 1 > n/listed/f; echo 2 > n/shut/f; echo 3 > n/unread; echo 4 > n/passed/f; chmod 444 n/listed; chmod 000 n/shut n/unread; chmod 111 n/passed')
    sandbox.borg(['init', '-e', 'none', 'repo'])
    both(t, sandbox, '0', [], ['n'])
    both(t, sandbox, '1', ['-e', 'n/listed/*', '-e', 'n/shut', '-e', 'n/unread', '-e', 'n/passed'], ['n'])
    both(t, sandbox, '2', ['--pattern', '- n/listed/f', '--pattern', '- n/shut'], ['n'])
    both(t, sandbox, '3', ['-n', '-e', 'n/unread'], ['n'])
    both(t, sandbox, '4', ['--pattern', 'R n/listed'], ['n'])
    both(t, sandbox, '5', [], ['n/listed', '--pattern', 'R n'])
    sandbox.assertSound()
  } finally {
    sandbox.sh('chmod -R u+rwX n')
    sandbox.close()
  }
})

run('tags that are kept, tags in them, and tags in what is excluded', t => {
  const sandbox = new Sandbox('walk-tags')
  try {
    sandbox.sh(`mkdir -p n/t/.git/sub n/c n/plain; touch n/t/.nobackup n/t/f n/t/.git/cfg n/t/.git/sub/.nobackup n/plain/f; printf 'Signature: 8a477f597d28d172789f06886806bc55\\n' > n/c/CACHEDIR.TAG; touch n/c/f`)
    sandbox.borg(['init', '-e', 'none', 'repo'])
    const keeping = ['--exclude-if-present', '.nobackup', '--exclude-caches', '--keep-exclude-tags']
    for (const [index, args] of [
      keeping, [...keeping, '--exclude-if-present', '.git'], [...keeping, '--pattern', '- n/t', '--pattern', '- n/c'], [...keeping, '--pattern', '! n/t'], [...keeping, '-n'], keeping.slice(0, 3),
    ].entries()) both(t, sandbox, String(index), args, ['n'])
    sandbox.assertSound()
  } finally {
    sandbox.close()
  }
})

run('paths that are too long for a system call are stored, and come back', t => {
  const sandbox = new Sandbox('walk-long')
  try {
    sandbox.sh(`mkdir n; python3 - <<'EOF'
import os
fd, name = os.open('n', os.O_RDONLY), 'd' * 200
for level in range(24):
    os.mkdir(name, dir_fd=fd)
    fd = os.open(name, os.O_RDONLY, dir_fd=fd)
    with os.fdopen(os.open('f', os.O_CREAT | os.O_WRONLY, dir_fd=fd), 'w') as file: file.write('level %d' % level)
EOF`)
    sandbox.borg(['init', '-e', 'none', 'repo'])
    both(t, sandbox, '0', [], ['n'])
    both(t, sandbox, '1', ['--exclude-if-present', 'no-such-tag', '-e', 'other'], ['n'])
    sandbox.assertSound()
    // Borg can neither store symlinks there nor extract anything.
    sandbox.sh('cd n; for level in $(seq 24); do cd -P ./d*; ln -s f link; done')
    sandbox.borgfs(['create', 'repo::c', 'n'])
    sandbox.sh('mv n before; mkdir after')
    sandbox.borgfs(['extract', '../repo::c'], { cwd: sandbox.path('after') })
    t.is(sandbox.sh('cd after; find n | wc -l').stdout.trim(), '73')
    const contents = (folder: string): string => sandbox.sh(`cd ${folder}; find . -type f -execdir cat {} + -execdir readlink link \\;`).stdout
    t.regex(contents('before'), /level 0[^]*level 23/)
    t.is(contents('after/n'), contents('before'))
  } finally {
    sandbox.sh('rm -rf n before after')
    sandbox.close()
  }
})

run('a command whose output is wanted is not started for an archive that is there already', t => {
  const sandbox = new Sandbox('walk-command')
  try {
    sandbox.borg(['init', '-e', 'none', 'repo'])
    sandbox.borg(['create', 'repo::a', 'home'])
    for (const how of ['--content-from-command', '--paths-from-command']) {
      const words = ['create', how, 'repo::a', 'touch', 'started']
      const [theirs, ours] = [sandbox.borg(words, { ok: [2] }), sandbox.borgfs(words, { ok: [2] })]
      t.is(ours.stderr, theirs.stderr)
      t.false(existsSync(sandbox.path('started')))
    }
  } finally {
    sandbox.close()
  }
})

test('a user without a name is called by the number', t => {
  const { getuid } = process
  process.getuid = () => 54_321
  try {
    t.is(archiveFacts({ comment: Buffer.alloc(0), cmdline: [], chunkerParams: ['fixed', 4096, 0] }, 0, {}).username.toString(), '54321')
  } finally {
    process.getuid = getuid!
  }
})
