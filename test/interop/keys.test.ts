import test from 'ava'
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { makePassphraseMode } from '../helpers/passphrase-mode.js'
import { haveBorg, Sandbox } from '../helpers/sandbox.js'

const run = haveBorg ? test : test.skip
if (!haveBorg) console.warn('test/interop/keys: skipped, there is no borg here')

const modes = ['repokey', 'keyfile-blake2', 'authenticated'] as const

function keyOf(sandbox: Sandbox, repo: string, mode: string): string {
  const keys = sandbox.path('home', '.config', 'borg', 'keys')
  return mode.startsWith('keyfile') ? readFileSync(`${keys}/${readdirSync(keys)[0]}`, 'utf8') : readFileSync(sandbox.path(repo, 'config'), 'utf8')
}

run('exports are byte for byte those of borg, and each imports what the other exported', t => {
  const sandbox = new Sandbox('keys')
  try {
    for (const mode of modes.slice(0, 2)) {
      const repo = `r_${mode}`
      sandbox.borg(['init', '-e', mode, repo])
      for (const option of [[], ['--paper']]) {
        const name = `${repo}.${option.length}`
        const theirs = sandbox.borg(['key', 'export', ...option, repo])
        t.is(sandbox.borgfs(['key', 'export', ...option, repo, name]).stdout, '')
        t.is(readFileSync(sandbox.path(name), 'utf8'), theirs.stdout)
        t.is(statSync(sandbox.path(name)).mode & 0o777, 0o600)
      }
      const page = sandbox.borgfs(['key', 'export', '--qr-html', repo]).stdout
      t.true(page.includes('<svg') && page.includes(`>${readFileSync(sandbox.path(`${repo}.0`), 'utf8')}</textarea>`) && !/https?:\/\/(?!www\.w3\.org)/.test(page))

      const results: string[] = []
      const typed = readFileSync(sandbox.path(`${repo}.1`), 'utf8').split('\n').slice(3).map(line => line.slice(4)).join('\n')
      const lose = (): void => void sandbox.sh(mode.startsWith('keyfile') ? 'rm home/.config/borg/keys/*' : `sed -i '/^key = /,$d' ${repo}/config; echo >> ${repo}/config`)
      for (const program of ['borg', 'borgfs'] as const) {
        lose()
        sandbox[program](['key', 'import', repo, `${repo}.0`])
        results.push(keyOf(sandbox, repo, mode))
        lose()
        const ran = sandbox[program](['key', 'import', '--paper', repo], { input: typed })
        results.push(keyOf(sandbox, repo, mode), ran.stdout)
        if (mode === 'repokey') continue
        lose()
        sandbox[program](['key', 'import', repo, '-'], { input: readFileSync(sandbox.path(`${repo}.0`)) })
        results.push(keyOf(sandbox, repo, mode))
      }
      t.deepEqual(results.slice(results.length / 2), results.slice(0, results.length / 2), mode)
      sandbox.borg(['list', repo])
      sandbox.borgfs(['list', repo])
    }
  } finally {
    sandbox.close()
  }
})

run('imports and exports are refused in the words of borg', t => {
  const sandbox = new Sandbox('keys-refused')
  try {
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    sandbox.borg(['init', '-e', 'none', 'plain'])
    writeFileSync(sandbox.path('junk'), 'something not a key\n')
    writeFileSync(sandbox.path('other'), 'BORG_KEY a0a0a0\n')
    const before = readFileSync(sandbox.path('repo', 'config'), 'utf8')
    const wrong = ['import', '--paper', 'repo', 'junk']
    for (const args of [['import', 'repo'], ['import', 'repo', 'missing'], ['import', 'repo', 'junk'], ['import', 'repo', 'other'], wrong, ['export', 'repo', 'home'], ['export', 'plain'], ['import', 'plain', 'junk'], ['change-passphrase', 'plain']]) {
      const [theirs, ours] = [sandbox.borg(['key', ...args], { ok: 'any' }), sandbox.borgfs(['key', ...args], { ok: 'any' })]
      t.deepEqual(ours, theirs, args.join(' '))
      t.is(ours.rc, 2)
    }
    // A dialogue that is given up: at the end of input, and by an empty line.
    for (const input of ['x\n1-2\n1/2/3-zz\n\nno\n', 'a-b-c\n  \nmaybe\nyes\n']) {
      const [theirs, ours] = [sandbox.borg(['key', 'import', '--paper', 'repo'], { ok: 'any', input }), sandbox.borgfs(['key', 'import', '--paper', 'repo'], { ok: 'any', input })]
      t.deepEqual(ours, theirs, JSON.stringify(input))
    }
    // borg writes whatever follows the first line; a sound key is not given up for that here.
    const id = /^id = (.*)$/m.exec(before)![1]!
    writeFileSync(sandbox.path('cut'), `BORG_KEY ${id}\nhqlhbGdvcml0aG2m\n`)
    t.regex(sandbox.borgfs(['key', 'import', 'repo', 'cut'], { ok: [2] }).stderr, /is no key/)
    t.is(readFileSync(sandbox.path('repo', 'config'), 'utf8'), before)
    for (const [code, args] of [[43, ['repo', 'junk']], [45, ['repo', 'other']], [46, ['plain', 'junk']]] as const) {
      t.is(sandbox.borgfs(['key', 'import', ...args], { ok: 'any', env: { BORG_EXIT_CODES: 'modern' } }).rc, code)
    }
  } finally {
    sandbox.close()
  }
})

run('a changed passphrase opens the repository in either program, and the former one does not', t => {
  const sandbox = new Sandbox('keys-passphrase')
  try {
    for (const mode of modes.slice(0, 2)) {
      sandbox.borg(['init', '-e', mode, mode])
      let passphrase = 'test passphrase'
      for (const [changer, reader] of [['borgfs', 'borg'], ['borg', 'borgfs']] as const) {
        const next = `new by ${changer} \u00e4`
        const ran = sandbox[changer](['key', 'change-passphrase', '-v', mode], { env: { BORG_PASSPHRASE: passphrase, BORG_NEW_PASSPHRASE: next } })
        t.is(ran.stderr, `Key updated\nKey location: ${mode.startsWith('keyfile') ? sandbox.path('home', '.config', 'borg', 'keys', 'keyfile_blake2') : sandbox.path(mode)}\n`)
        t.is(sandbox[reader](['list', mode], { env: { BORG_PASSPHRASE: passphrase }, ok: [2] }).rc, 2)
        sandbox[reader](['list', mode], { env: { BORG_PASSPHRASE: next } })
        passphrase = next
      }
      // Nothing of the former blob is left on disk.
      t.deepEqual(readdirSync(sandbox.path(mode)).filter(name => name.startsWith('config')), ['config'])
    }
  } finally {
    sandbox.close()
  }
})

run('a passphrase-mode repository becomes a repokey one', t => {
  const sandbox = new Sandbox('keys-migrate')
  try {
    makePassphraseMode(sandbox, 'old')
    sandbox.sh('cp -a old theirs')
    t.is(sandbox.borgfs(['key', 'migrate-to-repokey', 'old'], { env: { BORG_PASSPHRASE: 'wrong' }, ok: [2] }).rc, 2)
    t.regex(sandbox.borgfs(['list', 'old'], { ok: [2] }).stderr, /No key entry found/)
    const env = { BORG_NEW_PASSPHRASE: 'another' }
    // The same repository id twice: not for one and the same client.
    const home = (repo: string): string => sandbox.mkdir(`home-${repo}`)
    t.is(sandbox.borgfs(['key', 'migrate-to-repokey', '-v', 'old'], { env }).stderr, 'Key updated\n')
    sandbox.borg(['key', 'migrate-to-repokey', 'theirs'], { env })
    for (const repo of ['old', 'theirs']) {
      for (const program of ['borg', 'borgfs'] as const) {
        sandbox[program](['list', repo], { env: { BORG_PASSPHRASE: 'another', BORG_BASE_DIR: home(repo) } })
        sandbox[program](['create', `${repo}::${program}`, 'home'], { env: { BORG_PASSPHRASE: 'another', BORG_BASE_DIR: home(repo) } })
      }
      sandbox.borg(['check', '--verify-data', repo], { env: { BORG_PASSPHRASE: 'another', BORG_BASE_DIR: home(repo) } })
    }
    t.regex(sandbox.borgfs(['key', 'migrate-to-repokey', 'old'], { env, ok: [2] }).stderr, /not of the old passphrase mode/)
  } finally {
    sandbox.close()
  }
})
