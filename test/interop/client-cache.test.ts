/** The folder that this client keeps of a repository: shared with borg, brought up to date after others, and of no harm when it is damaged. */
import test from 'ava'
import { cpSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { haveBorg, type Ran, Sandbox } from '../helpers/sandbox.js'

const run = haveBorg ? test : test.skip
if (!haveBorg) console.error('SKIPPED aloud: test/interop/client-cache needs the real borg')

function cacheFolder(sandbox: Sandbox): string {
  const caches = sandbox.path('home', '.cache', 'borg')
  return join(caches, readdirSync(caches).find(name => /^[0-9a-f]{64}$/.test(name))!)
}

function filesBelow(folder: string, under = ''): string[] {
  return readdirSync(join(folder, under)).flatMap(name => {
    const path = join(under, name)
    return statSync(join(folder, path)).isDirectory() ? filesBelow(folder, path) : [path]
  })
}

run('whatever happens to a file of the cache costs time only', t => {
  const sandbox = new Sandbox('cache-damage')
  try {
    const source = sandbox.mkdir('source')
    sandbox.sh('head -c 3000000 /dev/urandom > large; for i in $(seq 20); do echo $i > f$i; done; sleep 0.05; echo n > newest', { cwd: source })
    sandbox.borgfs(['init', '-e', 'repokey', 'repo'])
    const create = (name: string): Ran => sandbox.borgfs(['create', '--stats', '--chunker-params', '16,20,18,4095', `../repo::${name}`, '.'], { cwd: source })
    create('first')
    create('second')
    // A resync leaves an index of each archive.
    rmSync(join(cacheFolder(sandbox), 'chunks'))
    create('third')
    const whole = sandbox.path('whole')
    cpSync(cacheFolder(sandbox), whole, { recursive: true })
    const names = filesBelow(whole)
    t.true(['config', 'chunks', 'files', 'pre12-meta'].every(name => names.includes(name)) && names.some(name => name.endsWith('.compact')), names.join())
    let count = 0
    const damages: Record<string, (path: string, bytes: Buffer) => void> = {
      gone: path => rmSync(path),
      half: (path, bytes) => truncateSync(path, bytes.length >> 1),
      flipped: (path, bytes) => writeFileSync(path, bytes.map((byte, at) => (at === bytes.length >> 1 ? byte ^ 0x10 : byte))),
    }
    // What is not needed for reading archives is damaged in one go with what is.
    const archiveIndex = names.find(name => name.endsWith('.compact'))!
    for (const name of ['config', 'chunks', 'files', archiveIndex, `${archiveIndex}.integrity`, 'README', 'pre12-meta']) {
      for (const [how, damage] of Object.entries(damages)) {
        if (['README', 'pre12-meta'].includes(name) && how !== 'gone') continue
        rmSync(cacheFolder(sandbox), { recursive: true })
        cpSync(whole, sandbox.path('home', '.cache', 'borg', repositoryId(sandbox)), { recursive: true })
        const path = join(cacheFolder(sandbox), name)
        damage(path, readFileSync(path))
        const archive = `a${count++}`
        const ran = create(archive)
        t.is(ran.rc, 0, `${name} ${how}`)
        t.notRegex(ran.stderr, /Traceback|Local Exception/, `${name} ${how}`)
      }
    }
    const check = sandbox.borg(['check', '--verify-data', '-v', 'repo'])
    t.regex(check.stderr, /Archive consistency check complete, no problems found/)
    const last = create('last')
    const [, unique, total] = /Chunk index: +(\d+) +(\d+)/.exec(last.stderr)!
    // Borg counts anew what we say.
    rmSync(sandbox.path('home', '.cache'), { recursive: true })
    const info = sandbox.borg(['info', 'repo']).stdout
    t.regex(info, new RegExp(`Chunk index: +${unique} +${total}\\n`))
    const out = sandbox.mkdir('out')
    sandbox.borg(['extract', '../repo::last'], { cwd: out })
    t.is(sandbox.sh('diff -r source out && echo same').stdout, 'same\n')
  } finally {
    sandbox.close()
  }
})

function repositoryId(sandbox: Sandbox): string {
  return /^id = ([0-9a-f]{64})$/m.exec(readFileSync(sandbox.path('repo', 'config'), 'utf8'))![1]!
}

run('after other clients the cache is brought up to date from what each archive has, by either program for both', t => {
  const sandbox = new Sandbox('cache-resync')
  try {
    const source = sandbox.mkdir('source')
    sandbox.sh('seq 100000 > f', { cwd: source })
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    const elsewhere = { cwd: source, env: { BORG_BASE_DIR: sandbox.path('elsewhere') } }
    sandbox.borg(['create', '../repo::a', '.'], { cwd: source })
    sandbox.borgfs(['create', '../repo::b', '.'], elsewhere)
    sandbox.borg(['create', '../repo::c', '.'], elsewhere)
    const indexes = (): string[] => readdirSync(join(cacheFolder(sandbox), 'chunks.archive.d')).filter(name => name.endsWith('.compact'))
    const sync = sandbox.borgfs(['create', '-v', '--stats', '../repo::d', '.'], { cwd: source })
    t.regex(sync.stderr, /Synchronizing chunks cache\.\.\.\nArchives: 3, w\/ cached Idx: \d, w\/ outdated Idx: 0, w\/o cached Idx: \d\.\n/)
    t.is(indexes().length, 3)
    t.notRegex(sandbox.borg(['info', '-v', 'repo']).stderr, /Synchronizing/)
    // What borgfs wrote is believed by borg: only the archives that came since are read.
    sandbox.borgfs(['create', '../repo::e', '.'], elsewhere)
    const theirs = sandbox.borg(['info', '-v', 'repo'])
    t.regex(theirs.stderr, /Archives: 5, w\/ cached Idx: 3, w\/ outdated Idx: 0, w\/o cached Idx: 2\.\n/)
    t.is((theirs.stderr.match(/Reading cached archive chunk index/g) ?? []).length, 3)
    t.notRegex(theirs.stderr, /corrupted/)
    // And the other way round.
    sandbox.borg(['create', '../repo::f', '.'], elsewhere)
    const ours = sandbox.borgfs(['create', '-v', '--stats', '../repo::g', '.'], { cwd: source })
    t.regex(ours.stderr, /Archives: 6, w\/ cached Idx: 5, w\/ outdated Idx: 0, w\/o cached Idx: 1\.\n/)
    t.notRegex(sandbox.borg(['info', '-v', 'repo']).stderr, /Synchronizing/)
  } finally {
    sandbox.close()
  }
})

run('a repository that moved, went back in time, or has a double is asked about or refused as by borg', t => {
  const stories: Record<'borg' | 'borgfs', string[]> = { borg: [], borgfs: [] }
  for (const program of ['borg', 'borgfs'] as const) {
    const sandbox = new Sandbox('cache-security')
    try {
      sandbox.sh('mkdir n; echo 1 > n/f')
      for (const mode of ['repokey', 'none'] as const) {
        const tell = (title: string, args: readonly string[], env: Record<string, string | undefined> = {}): void => {
          const { rc, stderr } = sandbox[program](args, { ok: 'any', env: { BORG_RELOCATED_REPO_ACCESS_IS_OK: undefined, ...env } })
          stories[program].push(`${mode}, ${title}: ${rc}\n${stderr.replaceAll(sandbox.folder, 'HERE')}`)
        }
        const home = (): void => sandbox.sh('rm -rf home; mkdir home') && undefined
        home()
        sandbox.borg(['init', '-e', mode, 'r'])
        sandbox.borg(['create', 'r::a', 'n'])
        sandbox.sh('rm -rf old; cp -r r old')
        sandbox.borg(['create', 'r::b', 'n'])
        sandbox.sh('mv r moved')
        tell('moved, nobody answers', ['create', 'moved::c', 'n'])
        tell('moved, no', ['create', 'moved::c', 'n'], { BORG_RELOCATED_REPO_ACCESS_IS_OK: 'no' })
        tell('moved, yes', ['create', 'moved::c', 'n'], { BORG_RELOCATED_REPO_ACCESS_IS_OK: 'yes' })
        tell('answered once', ['create', 'moved::d', 'n'])
        // Only the cache remembers the place.
        sandbox.sh('rm -rf home/.config; mv moved r')
        tell('moved, said by the cache', ['create', 'r::e', 'n'])
        tell('moved, said by the cache, yes', ['create', 'r::e', 'n'], { BORG_RELOCATED_REPO_ACCESS_IS_OK: 'yes' })
        // An older state comes back.
        sandbox.sh('mv r new; mv old r')
        tell('replayed', ['create', 'r::f', 'n'])
        tell('replayed, list', ['list', '--short', 'r'])
        sandbox.sh('rm -rf home/.config/borg/security/*/manifest-timestamp')
        tell('replayed, said by the cache', ['create', 'r::f', 'n'])
        home()
        tell('never seen', ['list', '--short', 'r'], { BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK: undefined })
        sandbox.sh('rm -rf r new')
      }
    } finally {
      sandbox.close()
    }
  }
  t.deepEqual(stories.borgfs, stories.borg)
})
