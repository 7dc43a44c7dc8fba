/** `create` beside the real Borg: the same items, the same letters, one files cache for both. */
import test from 'ava'
import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { borgfsProgram, haveBorg, isRoot, Sandbox } from '../helpers/sandbox.js'
import { makeEveryKind } from '../helpers/trees.js'

const run = haveBorg ? test : test.skip
if (!haveBorg) console.error('SKIPPED aloud: test/interop/create needs the real borg (apt-get install borgbackup; scripts/test does it)')
const runAsRoot = haveBorg && isRoot ? test : test.skip
if (!isRoot) console.error('SKIPPED aloud: tests of test/interop/create that take another user need root')

/** What `borg debug dump-archive` says of the items: every key as stored. */
function items(sandbox: Sandbox, location: string): unknown {
  return (JSON.parse(sandbox.borg(['debug', 'dump-archive', location, '-']).stdout) as { _items: unknown })._items
}

const letterLine = /^[A-Za-z?-] /

function letters(stderr: string): string[] {
  return stderr.split('\n').filter(line => letterLine.test(line))
}

run('borgfs stores each kind of object with the very keys and values that borg stores', t => {
  const sandbox = new Sandbox('create-items')
  try {
    const source = makeEveryKind(sandbox)
    // borg's dump cannot show that name.
    sandbox.sh(String.raw`setfattr -x $'user.b\xe4d' dir/random`, { cwd: source })
    sandbox.borg(['init', '-e', 'none', 'repo'])
    for (const [name, options] of [['plain', []], ['numeric', ['--numeric-ids', '--atime', '--noctime']], ['bare', ['--noxattrs', '--noacls', '--noflags', '--sparse']]] as const) {
      // Reading must not change atimes between the two.
      sandbox.sh('find . -exec touch -h -a -d "2030-01-01" {} +', { cwd: source })
      const theirs = sandbox.borg(['create', '-C', 'none', '--list', ...options, `../repo::borg-${name}`, '.'], { cwd: source })
      sandbox.sh('find . -exec touch -h -a -d "2030-01-01" {} +', { cwd: source })
      const ours = sandbox.borgfs(['create', '-C', 'none', '--list', '--files-cache', 'disabled', ...options, `../repo::borgfs-${name}`, '.'], { cwd: source })
      const strip = (found: unknown): unknown => name === 'plain' || name === 'bare'
        // touch changed the ctimes in between
        ? (found as Record<string, unknown>[]).map(({ ctime: _, ...rest }) => rest)
        : found
      t.deepEqual(strip(items(sandbox, `repo::borgfs-${name}`)), strip(items(sandbox, `repo::borg-${name}`)), name)
      t.deepEqual(letters(ours.stderr).map(line => line.slice(2)), letters(theirs.stderr).map(line => line.slice(2)), name)
    }
    sandbox.assertSound()
  } finally {
    sandbox.close()
  }
})

for (const mode of ['ctime,size,inode', 'mtime,size,inode', 'mtime,size', 'ctime,size', 'rechunk,ctime', 'disabled'] as const) {
  run(`both programs believe one files cache in mode ${mode}`, t => {
    const sandbox = new Sandbox('create-cache')
    try {
      const source = sandbox.mkdir('source')
      sandbox.sh('head -c 12000000 /dev/urandom > several-chunks; head -c 500 /dev/urandom > small; : > empty', { cwd: source })
      sandbox.sh('sleep 0.02; printf n > newest', { cwd: source })
      sandbox.borg(['init', '-e', 'repokey', 'repo'])
      const programs = { borg: sandbox.borg.bind(sandbox), borgfs: sandbox.borgfs.bind(sandbox) }
      const said: Record<'borg' | 'borgfs', string[][]> = { borg: [], borgfs: [] }
      // The same story told twice: by borg alone, and with the programs taking turns.
      for (const story of ['borg', 'borgfs'] as const) {
        sandbox.sh('rm -rf home/.cache')
        for (let step = 0; step < 6; step++) {
          if (step === 3) sandbox.sh(`touch -d '2020-01-0${story === 'borg' ? 1 : 2}' small`, { cwd: source })
          const program = story === 'borg' || step % 2 === 0 ? 'borg' : 'borgfs'
          const { stderr } = programs[program](['create', '--list', '--files-cache', mode, `../repo::${story}-${step}`, '.'], { cwd: source })
          t.notRegex(stderr, /corrupted|warning|integrity|Files cache/i)
          // A borg that first has to learn of the other's archive saves its files cache early and forgets its rule of the newest
          // file read for that run (1.2.4), so what it says of that file next depends on who came before.
          said[story].push(letters(stderr).filter(line => !line.endsWith(' newest') && (step === 3 || !line.endsWith(' small'))))
        }
      }
      t.deepEqual(said.borgfs, said.borg)
      sandbox.assertSound()
    } finally {
      sandbox.close()
    }
  })
}

run('a damaged files cache is told of and costs only time', t => {
  const sandbox = new Sandbox('create-damaged-cache')
  try {
    const source = sandbox.mkdir('source')
    // The newest file is never remembered, nor are others of the same clock tick.
    sandbox.sh('for i in $(seq 19); do echo $i > f$i; done; sleep 0.05; echo 20 > f20', { cwd: source })
    sandbox.borgfs(['init', '-e', 'none', 'repo'])
    sandbox.borgfs(['create', '../repo::one', '.'], { cwd: source })
    sandbox.borgfs(['create', '../repo::two', '.'], { cwd: source })
    const path = sandbox.path(sandbox.sh('ls home/.cache/borg/*/files').stdout.trim())
    const bytes = readFileSync(path)
    bytes[bytes.length >> 1]! ^= 1
    writeFileSync(path, bytes)
    const { stderr } = sandbox.borgfs(['create', '--list', '../repo::three', '.'], { cwd: source })
    t.regex(stderr, /The files cache is corrupted\./)
    t.is(letters(stderr).filter(line => line.startsWith('A ')).length, 20)
    sandbox.assertSound()
  } finally {
    sandbox.close()
  }
})

run('a chunk that the repository lost is stored again although the files cache knows the file', t => {
  const sandbox = new Sandbox('create-lost-chunk')
  try {
    const source = sandbox.mkdir('source')
    sandbox.sh('head -c 100000 /dev/urandom > file; sleep 0.02; printf n > newest', { cwd: source })
    sandbox.borgfs(['init', '-e', 'none', 'repo'])
    sandbox.borgfs(['create', '../repo::one', '.'], { cwd: source })
    const [item] = (items(sandbox, 'repo::one') as { path: string; chunks?: [string, number, number][] }[]).filter(({ path }) => path === 'file')
    sandbox.borg(['debug', 'delete-obj', 'repo', item!.chunks![0]![0].replace('\u007f', '')])
    const { stderr } = sandbox.borgfs(['create', '--list', '../repo::two', '.'], { cwd: source })
    t.true(letters(stderr).some(line => line === 'M file' || line === 'A file'), stderr)
    const out = sandbox.mkdir('out')
    sandbox.borg(['extract', '../repo::two'], { cwd: out })
    t.deepEqual(readFileSync(`${out}/file`), readFileSync(`${source}/file`))
  } finally {
    sandbox.close()
  }
})

run('roots given twice, inside each other, with dots or missing are stored as borg does', t => {
  const sandbox = new Sandbox('create-roots')
  try {
    sandbox.sh('mkdir -p n/d; echo 1 > n/f; echo 2 > n/d/g; ln -s n link; mkfifo n/pipe')
    sandbox.borg(['init', '-e', 'none', 'repo'])
    const stories = [['n', 'n'], ['n/f', 'n/f'], ['n/d', 'n'], ['n/f', 'n'], ['n', 'n/f'], ['n', 'n/d'], ['./n/../n'], ['../' + sandbox.folder.split('/').at(-1)! + '/n/d'],
      [sandbox.path('n', 'd')], ['link'], ['missing', 'n/f'], ['n/', 'n//d'], ['n', '--exclude=n/d'], ['n', '--exclude=*/g']]
    for (const [index, roots] of stories.entries()) {
      const theirs = sandbox.borg(['create', '--list', '--files-cache', 'disabled', ...roots.filter(word => word.startsWith('--')), `repo::b${index}`, ...roots.filter(word => !word.startsWith('--'))], { ok: 'any' })
      const ours = sandbox.borgfs(['create', '--list', '--files-cache', 'disabled', ...roots.filter(word => word.startsWith('--')), `repo::f${index}`, ...roots.filter(word => !word.startsWith('--'))], { ok: 'any' })
      t.is(ours.stderr, theirs.stderr, roots.join(' '))
      t.is(ours.rc, theirs.rc)
      t.deepEqual(items(sandbox, `repo::f${index}`), items(sandbox, `repo::b${index}`), roots.join(' '))
    }
  } finally {
    sandbox.close()
  }
})

run('stdin and special files are stored as regular files when that is asked for', t => {
  const sandbox = new Sandbox('create-special')
  try {
    sandbox.borg(['init', '-e', 'none', 'repo'])
    const input = Buffer.alloc(5_000_000, 'what comes through the pipe ')
    const theirs = sandbox.borg(['create', '--list', '--stdin-name', 'a/b', '--stdin-mode', '0640', 'repo::b', '-'], { input })
    const ours = sandbox.borgfs(['create', '--list', '--stdin-name', 'a/b', '--stdin-mode', '0640', 'repo::f', '-'], { input })
    t.is(ours.stderr, theirs.stderr)
    const mask = (found: unknown): unknown => (found as Record<string, unknown>[]).map(({ ctime, mtime, atime, chunks = [], ...rest }) => ({ ...rest, times: [typeof ctime, typeof mtime, typeof atime], chunks: (chunks as [string, number][]).map(([id, size]) => [id, size]) }))
    t.deepEqual(mask(items(sandbox, 'repo::f')), mask(items(sandbox, 'repo::b')))
    sandbox.sh('mkdir s; mkfifo s/pipe; echo plain > s/plain')
    for (const [name, program] of [['b', 'borg'], ['f', `${process.execPath} ${borgfsProgram}`]] as const) {
      sandbox.sh(`(echo through the pipe > s/pipe) & ${program} create --read-special --files-cache disabled repo::special-${name} s; wait`)
    }
    t.deepEqual(mask(items(sandbox, 'repo::special-f')), mask(items(sandbox, 'repo::special-b')))
  } finally {
    sandbox.close()
  }
})

runAsRoot('what a user may not read is a warning and the rest is stored', t => {
  const sandbox = new Sandbox('create-unreadable')
  try {
    sandbox.sh('mkdir -p n/closed n/open; echo 1 > n/closed/f; echo 2 > n/secret; echo 3 > n/open/g; chmod 700 n/closed; chmod 600 n/secret; chmod 755 .; mkdir -m 777 w; chmod -R 777 home')
    chmodSync(sandbox.folder, 0o755)
    const as = ['--reuid=65534', '--regid=65534', '--clear-groups']
    const said: string[] = []
    for (const [name, command] of [['b', ['borg']], ['f', [process.execPath, borgfsProgram]]] as const) {
      const env = { BORG_BASE_DIR: sandbox.path('w', `home-${name}`) }
      sandbox.run('setpriv', [...as, 'borg', 'init', '-e', 'none', sandbox.path('w', `repo-${name}`)], { env })
      const ran = sandbox.run('setpriv', [...as, ...command, 'create', '--list', `${sandbox.path('w', `repo-${name}`)}::a`, 'n'], { env, ok: [1] })
      said.push(ran.stderr)
    }
    t.is(said[1], said[0])
  } finally {
    sandbox.close()
  }
})
