/** `extract` beside the real Borg, against the golden repositories, and against archives that mean harm. */
import test from 'ava'
import { createHash } from 'node:crypto'
import { chmodSync, existsSync, lstatSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fixtureJson, fixturePath } from '../helpers/fixtures.js'
import { borgfsProgram, haveBorg, isRoot, Sandbox } from '../helpers/sandbox.js'
import { differences, differencesBelow, makeEveryKind, unpackGolden } from '../helpers/trees.js'

const run = haveBorg ? test : test.skip
if (!haveBorg) console.error('SKIPPED aloud: test/interop/extract needs the real borg (apt-get install borgbackup; scripts/test does it)')
const runAsRoot = haveBorg && isRoot ? test : test.skip
if (!isRoot) console.error('SKIPPED aloud: the golden repositories hold owners and devices that only root can restore')

interface GoldenItem {
  path?: string
  path_hex?: string
  type: string
  mode: string
  uid: number
  gid: number
  mtime_ns: string
  sha256?: string
  part?: number
  hardlink_to?: string
}
interface GoldenRepo {
  file: string
  passphrase: string | null
  archives: { name: string; items: GoldenItem[] }[]
}

for (const repo of fixtureJson<{ repos: GoldenRepo[] }>('golden', 'fixtures.json').repos) {
  runAsRoot(`${repo.file} is extracted as it is known, and as borg extracts it`, t => {
    const sandbox = new Sandbox('extract-golden')
    try {
      const { folder, repository } = unpackGolden(sandbox, fixturePath('golden', repo.file))
      const keyfile = join(folder, 'keyfile')
      const env = { BORG_PASSPHRASE: repo.passphrase ?? '', ...(existsSync(keyfile) ? { BORG_KEY_FILE: keyfile } : {}) }
      for (const [index, { name, items }] of repo.archives.entries()) {
        const [ours, theirs] = [sandbox.mkdir(`ours-${index}`), sandbox.mkdir(`theirs-${index}`)]
        const oursRan = sandbox.borgfs(['extract', '--numeric-ids', `${repository}::${name}`], { cwd: ours, env, ok: 'any' })
        const theirsRan = sandbox.borg(['extract', '--numeric-ids', `${repository}::${name}`], { cwd: theirs, env, ok: 'any' })
        t.is(oursRan.rc, theirsRan.rc, `${name}: ${oursRan.stderr}`)
        const madeParents = 'find . -mindepth 1 -type d -newer ../golden -exec touch -d 2000-01-01 {} +'
        for (const cwd of [ours, theirs]) sandbox.sh(madeParents, { cwd })
        t.is(differencesBelow(sandbox, theirs, ours), '', name)
        // Of two items with one path the last counts.
        const last = new Map(items.filter(({ part }) => part === undefined).map(item => [item.path_hex ?? Buffer.from(item.path!).toString('hex'), item]))
        for (const [path, item] of last) {
          const where = Buffer.concat([Buffer.from(`${ours}/`), Buffer.from(path, 'hex')])
          const stat = lstatSync(where, { bigint: true })
          if (item.sha256 !== undefined) t.is(createHash('sha256').update(readFileSync(where)).digest('hex'), item.sha256, `${name}: ${item.path}`)
          // The attributes are those of the first link.
          if (item.hardlink_to !== undefined) continue
          if (item.path !== '.') t.is(String(stat.mtimeNs), item.mtime_ns, `${name}: ${item.path}`)
          if (item.type !== 'symlink') t.is((Number(stat.mode) & 0o7777).toString(8).padStart(4, '0'), item.mode.slice(-4).padStart(4, '0'))
          t.deepEqual([Number(stat.uid), Number(stat.gid)], [item.uid, item.gid], `${name}: ${item.path}`)
        }
      }
    } finally {
      sandbox.close()
    }
  })
}

/** One run of each program with the same words in folders of the same content; everything that can be seen must agree. */
function sideBySide(sandbox: Sandbox, location: string, args: readonly string[], prepare = ''): { ours: string; theirs: string; said: [string, string]; rc: [number, number]; stdout: [string, string] } {
  const found = (['borgfs', 'borg'] as const).map(program => {
    sandbox.sh('rm -rf out && mkdir out')
    const cwd = sandbox.path('out')
    if (prepare) sandbox.sh(prepare, { cwd })
    const ran = sandbox[program](['extract', ...args.filter(word => word.startsWith('-')), location, ...args.filter(word => !word.startsWith('-'))], { cwd, ok: 'any' })
    // Directories that the archive did not tell of are as old as the run.
    sandbox.sh('find . -mindepth 1 -type d -newer ../repo/config -exec touch -d 2000-01-01 {} +', { cwd })
    sandbox.sh(`rm -rf kept-${program} && mv out kept-${program}`)
    return ran
  })
  return {
    ours: sandbox.path('kept-borgfs'), theirs: sandbox.path('kept-borg'),
    said: [found[0]!.stderr, found[1]!.stderr], rc: [found[0]!.rc, found[1]!.rc], stdout: [found[0]!.stdout, found[1]!.stdout],
  }
}

run('each way of asking gives what borg gives', t => {
  const sandbox = new Sandbox('extract-options')
  try {
    const source = makeEveryKind(sandbox)
    sandbox.borg(['init', '-e', 'none', 'repo'])
    sandbox.borg(['create', '../repo::a', '.'], { cwd: source })
    const stories: [string[], string?][] = [
      [['--list']], [['--sparse']], [['-n', '--list']], [['--noxattrs', '--noacls', '--noflags']],
      [['--strip-components=1']], [['--strip-components=2', '--list']], [['--stdout', 'dir/deep']],
      // The first name of the hard links is left out, or only some of the others are wanted.
      [['dir/hard2', 'with space/hard3']], [['with space']], [['--exclude=hard1']], [['fifo2']],
      [['dir', 'never/there']], [['sh:**/*.nothing']], [['--exclude=dir/several-chunks', 'dir']],
      // Things in the way.
      [['dir/hello'], 'mkdir dir; echo other > dir/hello; chmod 400 dir/hello'],
      [['dir/hello'], 'mkdir -p dir/hello'],
      [['dir/link'], 'mkdir -p dir/link'],
      [['empty-dir'], 'echo a file > empty-dir'],
      [['empty-dir'], 'mkdir empty-dir; echo kept > empty-dir/inside; touch -d 2001-01-01 empty-dir/inside'],
      [['fifo'], 'echo a file > fifo'],
      [['hard1', 'dir/hard2'], 'echo one > hard1; mkdir dir; ln hard1 dir/hard2'],
    ]
    for (const [args, prepare] of stories) {
      const { ours, theirs, said, rc, stdout } = sideBySide(sandbox, '../repo::a', args, prepare)
      const what = `${args.join(' ')} ${prepare ?? ''}`
      t.is(differencesBelow(sandbox, theirs, ours), '', what)
      t.is(said[0], said[1], what)
      t.is(rc[0], rc[1], what)
      t.is(stdout[0], stdout[1], what)
    }
  } finally {
    sandbox.close()
  }
})

run('the content of a hard link goes to stdout although its first name is not asked for', t => {
  const sandbox = new Sandbox('extract-stdout-link')
  try {
    sandbox.sh('mkdir n; echo content > n/one; ln n/one n/two; ln n/one n/three')
    sandbox.borg(['init', '-e', 'none', 'repo'])
    sandbox.borg(['create', 'repo::a', 'n'])
    // borg 1.2.4 prints nothing for all but the first, which cannot be what anybody asks for.
    for (const name of ['n/one', 'n/two', 'n/three']) t.is(sandbox.borgfs(['extract', '--stdout', 'repo::a', name]).stdout, 'content\n', name)
  } finally {
    sandbox.close()
  }
})

run('a directory with contents where a file must come is a warning', t => {
  const sandbox = new Sandbox('extract-in-the-way')
  try {
    sandbox.sh('mkdir n; echo 1 > n/a; echo 2 > n/b')
    sandbox.borg(['init', '-e', 'none', 'repo'])
    sandbox.borg(['create', 'repo::a', 'n'])
    const { ours, said, rc } = sideBySide(sandbox, '../repo::a', [], 'mkdir -p n/a/inside')
    t.is(rc[0], 1)
    t.is(rc[1], 1)
    t.regex(said[0], /^n\/a: open: \[Errno 21\] Is a directory/m)
    t.is(readFileSync(join(ours, 'n/b'), 'utf8'), '2\n')
    t.true(existsSync(join(ours, 'n/a/inside')))
  } finally {
    sandbox.close()
  }
})

run('holes are made by --sparse and only by it', t => {
  const sandbox = new Sandbox('extract-sparse')
  try {
    sandbox.sh('truncate -s 20M sparse; printf end >> sparse; truncate -s 30M sparse')
    sandbox.borg(['init', '-e', 'none', 'repo'])
    sandbox.borg(['create', '--chunker-params', 'fixed,1048576', 'repo::a', 'sparse'])
    for (const [name, args] of [['dense', []], ['holes', ['--sparse']]] as const) {
      const out = sandbox.mkdir(name)
      sandbox.borgfs(['extract', ...args, '../repo::a'], { cwd: out })
      const { size, blocks } = statSync(join(out, 'sparse'))
      t.is(size, 30 << 20)
      t.is(blocks * 512 < 2 << 20, name === 'holes', `${blocks}`)
      t.true(readFileSync(join(out, 'sparse')).equals(readFileSync(sandbox.path('sparse'))))
    }
  } finally {
    sandbox.close()
  }
})

/** Makes an archive of hand-made items with borg's own modules: [path, mode, source, content, xattrs]. */
const forge = String.raw`
import sys, json
from borg.repository import Repository
from borg.helpers import Manifest
from borg.cache import Cache
from borg.archive import Archive
from borg.item import Item
from borg.logger import setup_logging
setup_logging()
repository = Repository(sys.argv[1], exclusive=True)
with repository:
    manifest, key = Manifest.load(repository, (Manifest.Operation.WRITE,))
    with Cache(repository, key, manifest, lock_wait=1) as cache:
        archive = Archive(repository, key, manifest, 'hostile', cache=cache, create=True)
        for path, mode, source, content, *more in json.loads(sys.argv[2]):
            item = Item(internal_dict={b'path': path.encode('utf-8', 'surrogateescape'), b'mode': mode, b'mtime': 10**18, b'uid': 0, b'gid': 0, b'user': b'root', b'group': b'root'})
            if source is not None: item._dict['source'] = source
            elif content is not None:
                item._dict['hardlink_master'] = True
                item._dict['chunks'] = [cache.add_chunk(key.id_hash(content.encode()), content.encode(), archive.stats)]
                item._dict['size'] = len(content)
            item._dict['path'] = path
            if path == 'nul-user': item._dict['user'] = item._dict['group'] = 'ro\0ot'
            if more: item._dict['xattrs'] = {name.encode('latin1'): value.encode() for name, value in more[0].items()}
            archive.items_buffer.add(item)
        archive.save()
`

run('no archive, however hostile, writes outside of its target', t => {
  const sandbox = new Sandbox('extract-hostile')
  try {
    sandbox.borg(['init', '-e', 'none', 'repo'])
    sandbox.sh('mkdir outside; echo untouched > outside/victim; chmod 640 outside/victim')
    const [file, folder, symlink] = [0o100644, 0o040755, 0o120777]
    const absolute = sandbox.path('outside')
    const items: [string, number, string | null, string | null, Record<string, string>?][] = [
      ['good', file, null, 'good'],
      ['../outside/up', file, null, 'evil'], [`${absolute}/absolute`, file, null, 'evil'], ['a/../../outside/inside', file, null, 'evil'],
      ['..', folder, null, null], ['../outside/dir', folder, null, null], ['/', folder, null, null],
      ['link', symlink, '../outside', null], ['link/through', file, null, 'evil'], ['link/victim', file, null, 'evil'], ['link', folder, null, null],
      ['link2', symlink, absolute, null], ['link2/dir', folder, null, null], ['link2/fifo', 0o010644, null, null], ['link2/symlink', symlink, 'x', null],
      ['file-link', symlink, '../outside/victim', null], ['file-link', file, null, 'evil'],
      ['hard', file, '../outside/victim', null], ['hard2', file, `${absolute}/victim`, null], ['hard3', file, 'link2/victim', null],
      ['x\0y', file, null, 'evil'], ['', file, null, 'evil'],
      // A directory that becomes a symlink before its attributes are set.
      ['swap', folder, null, null], ['swap', symlink, '../outside', null], ['deep/swap', folder, null, null], ['deep/swap', symlink, '../../outside', null], ['deep', folder, null, null],
      // A hard link to a symlink, and content for it afterwards.
      ['s', symlink, '../outside/victim', null], ['to-s', file, 's', null], ['to-s', file, null, 'evil'],
      // The system would cut these names short.
      ['nul-target', symlink, '../outside\0x', null], ['nul-attribute', file, null, 'x', { 'user.a\0b': 'evil', 'user.fine': 'good' }], ['nul-source', file, 'good\0x', null],
      [`long/${'n'.repeat(256)}`, file, null, 'x'], [`${'d/'.repeat(3000)}f`, file, null, 'x'], ['nul-user', file, null, 'x'], ['no-type', 0, null, 'x'], ['all-bits', 0o7777777, null, 'x'],
      ['after', file, null, 'after'],
    ]
    // The interpreter that borg's modules are installed for.
    const python = sandbox.sh('sed -n "1s/^#!//p" "$(command -v borg)"').stdout.trim()
    sandbox.run(python, ['-c', forge, sandbox.path('repo'), JSON.stringify(items)])
    const before = sandbox.sh('find outside -printf "%y %m %n %s %T@ %C@ %P\n" | sort').stdout
    const out = sandbox.mkdir('out')
    const ran = sandbox.borgfs(['extract', '../repo::hostile'], { cwd: out, ok: 'any' })
    t.is(sandbox.sh('find outside -printf "%y %m %n %s %T@ %C@ %P\n" | sort').stdout, before)
    t.is(ran.rc, 1, ran.stderr)
    t.is(readFileSync(join(out, 'good'), 'utf8'), 'good')
    t.is(readFileSync(join(out, 'after'), 'utf8'), 'after')
    t.is(sandbox.sh('getfattr -dR nul-attribute', { cwd: out }).stdout, '# file: nul-attribute\nuser.fine="good"\n\n')
    t.false(existsSync(join(out, 'nul-target')) || existsSync(join(out, 'nul-source')))
    t.deepEqual(readdirSync(sandbox.folder).sort(), ['home', 'out', 'outside', 'repo'])
    for (const name of ['good', 'after']) t.is(statSync(join(out, name)).nlink, 1)
    // However deep it is.
    t.is(sandbox.sh('find out/d -name f -execdir cat {} +').stdout, 'x')
  } finally {
    sandbox.sh('rm -rf out')
    sandbox.close()
  }
})

run('a missing chunk ends the run with exit code 2, also when nothing is written', t => {
  const sandbox = new Sandbox('extract-missing')
  try {
    sandbox.sh('mkdir n; echo 1 > n/a; echo 2 > n/b; echo 3 > n/c')
    sandbox.borg(['init', '-e', 'none', 'repo'])
    sandbox.borg(['create', 'repo::a', 'n'])
    const id = createHash('sha256').update('2\n').digest('hex')
    sandbox.borg(['debug', 'delete-obj', 'repo', id])
    for (const args of [[], ['-n'], ['--stdout']]) {
      const out = sandbox.mkdir(`out${args.join('')}`)
      const ran = sandbox.borgfs(['extract', ...args, '../repo::a'], { cwd: out, ok: [2] })
      t.regex(ran.stderr, new RegExp(`Object with key ${id} not found in repository`))
      if (args.length === 0) t.is(readFileSync(join(out, 'n/a'), 'utf8'), '1\n')
      else t.deepEqual(readdirSync(out), [])
    }
  } finally {
    sandbox.close()
  }
})

runAsRoot('a user without privileges gets all that is possible, in silence', t => {
  const sandbox = new Sandbox('extract-user')
  try {
    chmodSync(sandbox.folder, 0o755)
    sandbox.sh('mkdir n; echo 1 > n/a; chown 1234:4321 n/a; chmod 4711 n/a; echo 2 > n/b; chmod 0 n/b; mkdir -m 500 n/locked; echo 3 > n/locked/c; setfattr -n user.note -v x n/a')
    sandbox.borg(['init', '-e', 'none', 'repo'])
    sandbox.borg(['create', 'repo::a', 'n'])
    sandbox.sh('chmod -R a+rwX repo')
    const results: string[] = []
    for (const [name, command] of [['f', [process.execPath, borgfsProgram]], ['b', ['borg']]] as const) {
      const cwd = sandbox.mkdir(`out-${name}`)
      chmodSync(cwd, 0o777)
      sandbox.mkdir(`home-${name}`)
      chmodSync(sandbox.path(`home-${name}`), 0o777)
      const ran = sandbox.run('setpriv', ['--reuid=65534', '--regid=65534', '--clear-groups', ...command, 'extract', '../repo::a'], { cwd, env: { BORG_BASE_DIR: sandbox.path(`home-${name}`) }, ok: 'any' })
      results.push(`${ran.rc} ${ran.stderr}\n` + sandbox.sh('find . -mindepth 1 -printf "%y %m %U:%G %T@ %P\n" | sort; getfattr -dR n', { cwd }).stdout)
    }
    t.is(results[0], results[1])
  } finally {
    sandbox.close()
  }
})

run('extracting over an earlier extraction gives the archive again', t => {
  const sandbox = new Sandbox('extract-again')
  try {
    const source = makeEveryKind(sandbox)
    // What is made anew in a directory with a default ACL gets an ACL from it, in borg as well.
    sandbox.sh('setfacl -k dir/deep; touch -d "2012-12-12 12:12:12.121212121" dir/deep', { cwd: source })
    sandbox.borgfs(['init', '-e', 'repokey-blake2', 'repo'])
    sandbox.borgfs(['create', '../repo::a', '.'], { cwd: source })
    const out = sandbox.mkdir('out')
    sandbox.borgfs(['extract', '../repo::a'], { cwd: out })
    writeFileSync(join(out, 'hard1'), 'changed through one name')
    sandbox.sh('rm dir/hello; mkdir dir/hello; rm dangling; ln -s elsewhere dangling', { cwd: out })
    sandbox.borgfs(['extract', '../repo::a'], { cwd: out })
    t.is(differences(sandbox, source, out), '')
  } finally {
    sandbox.close()
  }
})

run('what cannot be removed is overwritten, what is in the way told as borg tells it, and progress comes to what is wanted', t => {
  const sandbox = new Sandbox('extract-in-the-way')
  const unprivileged = isRoot ? ['setpriv', '--bounding-set', '-dac_override,-dac_read_search', '--inh-caps', '-all'] : []
  try {
    sandbox.sh('mkdir -p n/d n/e; echo new > n/d/f; echo newer > n/e/g; mkdir n/e/h; echo 1 > n/e/x; ln n/e/x n/e/y; echo unwanted > n/z')
    sandbox.borg(['init', '-e', 'none', 'repo'])
    sandbox.borg(['create', 'repo::a', 'n'])
    const extracted = (program: readonly string[], folder: string, args: readonly string[] = []): { said: string; found: string } => {
      sandbox.sh(`mkdir -p ${folder}/n/d ${folder}/n/e/g/full; echo old > ${folder}/n/d/f; chmod 555 ${folder}/n/d`)
      const [first, ...rest] = [...unprivileged, ...program, 'extract', ...args, '../repo::a']
      const { rc, stderr } = sandbox.run(first!, rest, { cwd: sandbox.path(folder), ok: 'any' })
      return { said: `${rc}\n${stderr.replaceAll(sandbox.path(folder), 'TARGET')}`, found: sandbox.sh(`cd ${folder}; find n -printf '%p %y %m %n %s\n' | sort; cat n/d/f`).stdout }
    }
    t.deepEqual(extracted([process.execPath, borgfsProgram], 'ours'), extracted(['borg'], 'theirs'))
    t.is(readFileSync(sandbox.path('ours/n/d/f'), 'utf8'), 'new\n')
    interface Step { readonly msgid: string; readonly current: number; readonly total: number; readonly finished: boolean }
    const steps = (stderr: string): Step[] => stderr.trim().split('\n').map(line => JSON.parse(line) as Step).filter(({ msgid, finished }) => msgid === 'extract' && !finished)
    for (const wanted of [[], ['n/e'], ['n/e/y'], ['--strip-components', '2'], ['-e', 'n/e/x']]) {
      const words = ['extract', '--progress', '--log-json', '../repo::a', ...wanted]
      const [theirs, ours] = [sandbox.borg(words, { cwd: sandbox.mkdir('p') }), sandbox.borgfs(words, { cwd: sandbox.mkdir('q') })].map(({ stderr }) => steps(stderr))
      t.like(ours![0], { ...theirs![0], time: (ours![0] as unknown as { time: number }).time, operation: 1 }, wanted.join(' '))
      t.is(ours!.at(-1)!.current, ours!.at(-1)!.total, wanted.join(' '))
      t.is(ours!.at(-1)!.total, theirs!.at(-1)!.total, wanted.join(' '))
    }
  } finally {
    sandbox.sh('chmod -R u+w ours theirs')
    sandbox.close()
  }
})
