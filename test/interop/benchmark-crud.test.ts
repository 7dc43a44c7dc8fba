/** benchmark crud: the lines of borg's, but for the numbers; nothing is left behind. */
import test from 'ava'
import { readdirSync } from 'node:fs'
import { haveBorg, Sandbox } from '../helpers/sandbox.js'

const run = haveBorg ? test : test.skip
if (!haveBorg) console.error('SKIPPED aloud: test/interop/benchmark-crud needs the real borg')

run('the lines of borg, and neither archives nor files stay', t => {
  const sandbox = new Sandbox('benchmark-crud')
  try {
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    sandbox.mkdir('data')
    const env = { _BORG_BENCHMARK_CRUD_TEST: 'yes' }
    const lines = (text: string): string => text.replace(/[0-9.]+ MB\/s|[0-9.]+s\)/g, 'N')
    t.is(lines(sandbox.borgfs(['benchmark', 'crud', 'repo', 'data'], { env }).stdout), lines(sandbox.run('borg', ['benchmark', 'crud', 'repo', 'data'], { env }).stdout))
    t.deepEqual(readdirSync(sandbox.path('data')), [])
    t.is(sandbox.borg(['list', 'repo']).stdout, '')
    sandbox.mkdir('data/borg-test-data/mine')
    const refused = sandbox.borgfs(['benchmark', 'crud', 'repo', 'data'], { env, ok: 'any' })
    t.is(refused.rc, 2)
    t.regex(refused.stderr, /File exists: 'data\/borg-test-data'/)
    t.deepEqual(readdirSync(sandbox.path('data/borg-test-data')), ['mine'])
    const wrong = sandbox.borgfs(['benchmark', 'crud', 'repo', 'data2'], { env: { ...env, BORG_PASSPHRASE: 'wrong' }, ok: 'any' })
    t.is(wrong.rc, 2)
    sandbox.mkdir('data2')
    t.regex(sandbox.borgfs(['benchmark', 'crud', 'repo', 'data2'], { env: { ...env, BORG_PASSPHRASE: 'wrong' }, ok: 'any' }).stderr, /create ended with exit code 2/)
    t.deepEqual(readdirSync(sandbox.path('data2')), [])
  } finally {
    sandbox.close()
  }
})
