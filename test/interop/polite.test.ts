import { existsSync, readFileSync } from 'node:fs'
import test from 'ava'
import { eventually, haveBorg, Sandbox } from '../helpers/sandbox.js'

const run = haveBorg ? test : test.skip

run('a drive that was just looked into keeps nobody waiting: both programs write with their usual second of patience', async t => {
  const sandbox = new Sandbox('polite')
  t.teardown(() => sandbox.close())
  sandbox.borgfs(['init', '-e', 'repokey', 'repo'])
  sandbox.sh('mkdir source; echo content > source/file')
  sandbox.borg(['create', 'repo::one', 'source'])
  const mountpoint = sandbox.mount('repo')
  for (const [archive, create] of [['one', () => sandbox.borg(['create', 'repo::two', 'source'], { ok: [0, 2] })], ['two', () => sandbox.borgfs(['create', 'repo::three', 'source'], { ok: [0, 2] })]] as const) {
    // An archive that was not entered yet: what is known already needs no lock.
    await eventually(`${archive} in the drive`, () => existsSync(`${mountpoint}/${archive}/source/file`))
    t.true(JSON.parse(readFileSync(sandbox.path('repo', 'lock.roster'), 'utf8')).shared.length > 0, 'the drive has the lock')
    // It lets go when it is asked, not when it has been idle for ten seconds: on a machine that is busy the first second may be too short.
    const began = performance.now()
    let { rc } = create()
    while (rc !== 0 && performance.now() - began < 9000) ({ rc } = create())
    t.is(rc, 0, archive)
  }
  t.is(sandbox.unmount(mountpoint).rc, 0)
})
