/** upgrade --tam and --disable-tam on two copies of a repository, one for each program: the same words, and either reads the other's. */
import test from 'ava'
import { writeFileSync } from 'node:fs'
import { haveBorg, Sandbox, type Ran } from '../helpers/sandbox.js'

const run = haveBorg ? test.serial : test.serial.skip
if (!haveBorg) console.error('SKIPPED aloud: test/interop/upgrade needs the real borg')

for (const mode of ['repokey', 'keyfile-blake2', 'none']) {
  run(`the TAM is switched off and on as by Borg (${mode})`, t => {
    const sandbox = new Sandbox('upgrade')
    try {
      sandbox.sh('mkdir borg; echo x > source')
      const of = (program: string) => ({ cwd: sandbox.path(program), env: { BORG_BASE_DIR: sandbox.path(program, 'home') }, ok: 'any' as const })
      sandbox.borg(['init', '-e', mode, 'repo'], of('borg'))
      sandbox.borg(['create', 'repo::first', '../source'], of('borg'))
      sandbox.sh('cp -a borg borgfs')
      const words = ({ rc, stdout, stderr }: Ran) => ({ rc, stdout: stdout.replaceAll(sandbox.folder, '').replaceAll('/borgfs/', '/borg/'), stderr })
      for (const args of [['--tam'], ['--disable-tam'], ['--tam'], ['--tam', '--force']]) {
        const [borg, borgfs] = [sandbox.borg(['upgrade', ...args, 'repo'], of('borg')), sandbox.borgfs(['upgrade', ...args, 'repo'], of('borgfs'))]
        t.deepEqual(words(borgfs), words(borg), args.join(' '))
        t.is(sandbox.sh('ls home/.config/borg/security/*', of('borgfs')).stdout, sandbox.sh('ls home/.config/borg/security/*', of('borg')).stdout, args.join(' '))
        // Each opens what the other left.
        t.is(sandbox.borg(['list', '--short', 'repo'], of('borgfs')).stdout, 'first\n')
        t.is(sandbox.borgfs(['list', '--short', 'repo'], of('borg')).stdout, 'first\n')
      }
      t.is(sandbox.borg(['check', '--verify-data', 'repo'], of('borgfs')).rc, 0)
    } finally {
      sandbox.close()
    }
  })
}

run('a dry run changes nothing, a repository of Borg needs no conversion, one of Attic is refused in a sentence', t => {
  const sandbox = new Sandbox('upgrade-plain')
  try {
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    sandbox.borgfs(['upgrade', '--disable-tam', 'repo'])
    sandbox.sh('cp -a repo before; cp -a home home-before')
    t.regex(sandbox.borgfs(['upgrade', '--dry-run', '--tam', 'repo']).stdout, /Manifest contents:\nKey updated\n/)
    sandbox.sh('diff -r repo before; diff -r home home-before')
    t.regex(sandbox.borgfs(['upgrade', '--inplace', 'repo']).stderr, /nothing to convert/)
    writeFileSync(sandbox.path('repo/data/0/0'), 'ATTICSEG')
    sandbox.sh('find repo/data -type f ! -name 0 -delete')
    const refused = sandbox.borgfs(['upgrade', 'repo'], { ok: 'any' })
    t.is(refused.rc, 2)
    t.regex(refused.stderr, /^\S+ is an Attic repository, which borgfs does not convert\. .*\n$/)
  } finally {
    sandbox.close()
  }
})
