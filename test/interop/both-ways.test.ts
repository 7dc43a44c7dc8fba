/** Every encryption mode and every compressor, both directions, with the real Borg as judge. */
import test from 'ava'
import { join } from 'node:path'
import { readdirSync, statSync } from 'node:fs'
import { encryptionModes } from '../../src/engine/crypto/key.js'
import { haveBorg, Sandbox } from '../helpers/sandbox.js'
import { differences, differencesBelow, makeEveryKind } from '../helpers/trees.js'

const compressions = ['none', 'lz4', 'zstd,3', 'zlib,6', 'lzma,1', 'auto,zstd,3', 'obfuscate,1,lz4']

const run = haveBorg ? test : test.skip
if (!haveBorg) console.error('SKIPPED aloud: test/interop/both-ways needs the real borg (apt-get install borgbackup; scripts/test does it)')

function dataBytes(repository: string): number {
  const data = join(repository, 'data')
  return readdirSync(data).flatMap(folder => readdirSync(join(data, folder)).map(name => statSync(join(data, folder, name)).size)).reduce((a, b) => a + b, 0)
}

for (const mode of encryptionModes) {
  run(`${mode}: borgfs reads every compressor of borg, borg verifies and extracts what borgfs wrote`, t => {
    const sandbox = new Sandbox(`both-${mode}`)
    try {
      const source = makeEveryKind(sandbox)
      // Written by borg, read by borgfs.
      sandbox.borg(['init', '-e', mode, 'by-borg'])
      for (const [index, compression] of compressions.entries()) {
        sandbox.borg(['create', '-C', compression, `../by-borg::a${index}`, '.'], { cwd: source })
      }
      for (const index of [0, compressions.length - 1]) {
        const out = sandbox.mkdir(`out-borg-${index}`)
        sandbox.borgfs(['extract', `../by-borg::a${index}`], { cwd: out })
        t.is(differencesBelow(sandbox, source, out), '')
      }
      const format = ['--format', '{type} {mode} {uid} {gid} {user} {group} {size} {isomtime} {path} {source}{NL}']
      t.is(sandbox.borgfs(['list', ...format, 'by-borg::a0']).stdout, sandbox.borg(['list', ...format, 'by-borg::a0']).stdout)

      // Written by borgfs, judged by borg.
      sandbox.borgfs(['init', '-e', mode, 'by-borgfs'])
      for (const [index, compression] of compressions.entries()) {
        // Another file content each time, so that each compressor stores something.
        sandbox.sh(`head -c 100000 /dev/urandom > varying; yes ${compression} | head -c 200000 > varying-text || true`, { cwd: source })
        sandbox.borgfs(['create', '-C', compression, `../by-borgfs::a${index}`, '.'], { cwd: source })
        const out = sandbox.mkdir(`out-${index}`)
        sandbox.borg(['extract', `../by-borgfs::a${index}`], { cwd: out })
        t.is(differencesBelow(sandbox, source, out), '', compression)
        const ours = sandbox.mkdir(`ours-${index}`)
        sandbox.borgfs(['extract', `../by-borgfs::a${index}`], { cwd: ours })
        t.is(differences(sandbox, source, ours), '', compression)
      }
      const check = sandbox.borg(['check', '--verify-data', '-v', 'by-borgfs'])
      t.regex(check.stderr, /no problems found/)
      t.notRegex(check.stderr, /warning|[1-9]\d* integrity errors|error:/i)
    } finally {
      sandbox.close()
    }
  })

  run(`${mode}: borg and borgfs alternating in one repository find each other's file chunks`, t => {
    const sandbox = new Sandbox(`alternate-${mode}`)
    try {
      const source = sandbox.mkdir('source')
      sandbox.sh('head -c 6000000 /dev/urandom > big; for i in $(seq 200); do head -c 5000 /dev/urandom > f$i; done', { cwd: source })
      sandbox.borg(['init', '-e', mode, 'repo'])
      // Separate homes: neither can lean on the other's caches.
      const [first, second] = [{ BORG_BASE_DIR: sandbox.mkdir('h1') }, { BORG_BASE_DIR: sandbox.mkdir('h2') }]
      const keys = { BORG_KEYS_DIR: sandbox.path('home/.config/borg/keys') }
      sandbox.borg(['create', '../repo::one', '.'], { cwd: source, env: { ...first, ...keys } })
      const afterOne = dataBytes(sandbox.path('repo'))
      sandbox.borgfs(['create', '../repo::two', '.'], { cwd: source, env: { ...second, ...keys } })
      const afterTwo = dataBytes(sandbox.path('repo'))
      t.true(afterTwo - afterOne < 100_000, `borgfs added ${afterTwo - afterOne} bytes`)
      sandbox.sh('head -c 4000000 /dev/urandom > more', { cwd: source })
      sandbox.borgfs(['create', '../repo::three', '.'], { cwd: source, env: { ...second, ...keys } })
      const afterThree = dataBytes(sandbox.path('repo'))
      const stats = JSON.parse(sandbox.borg(['create', '--json', '../repo::four', '.'], { cwd: source, env: { ...first, ...keys } }).stdout) as { archive: { stats: { deduplicated_size: number } } }
      const afterFour = dataBytes(sandbox.path('repo'))
      t.true(afterFour - afterThree < 100_000, `borg added ${afterFour - afterThree} bytes`)
      t.true(stats.archive.stats.deduplicated_size < 100_000)
      t.regex(sandbox.borg(['check', '--verify-data', '-v', 'repo'], { env: { ...first, ...keys } }).stderr, /no problems found/)
      for (const archive of ['one', 'two', 'three', 'four']) {
        const out = sandbox.mkdir(`out-${archive}`)
        const program = archive === 'one' || archive === 'four' ? sandbox.borgfs.bind(sandbox) : sandbox.borg.bind(sandbox)
        program(['extract', `../repo::${archive}`], { cwd: out, env: { ...first, ...keys } })
        if (archive === 'four') t.is(differencesBelow(sandbox, source, out), '')
      }
    } finally {
      sandbox.close()
    }
  })
}
