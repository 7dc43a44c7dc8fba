/** Several clients of one repository, borgfs and borg mixed: no commit is lost, whoever waits, dies, or has the lock broken under it. */
import test from 'ava'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { manifestId } from '../../src/engine/ids.js'
import { hostId } from '../../src/engine/platform/process-id.js'
import { breakLock } from '../../src/engine/repository/lock.js'
import { LocalRepository } from '../../src/engine/repository/local-repository.js'
import { silentLog } from '../helpers/audit.js'
import { borgfsProgram, eventually, haveBorg, Sandbox } from '../helpers/sandbox.js'

const run = haveBorg ? test : test.skip
if (!haveBorg) console.error('SKIPPED aloud: test/interop/clients needs the real borg')

const modern = { BORG_EXIT_CODES: 'modern' }

interface Waiting {
  readonly child: ChildProcess
  stderr: string
  end(): void
  readonly done: Promise<number | null>
}

/** `create REPO::NAME -`, waiting for its standard input after some megabytes of it were stored. */
async function waiting(sandbox: Sandbox, name: string): Promise<Waiting> {
  const child = spawn(process.execPath, [borgfsProgram, 'create', '--chunker-params', 'fixed,65536', '-C', 'none', `repo::${name}`, '-'], { cwd: sandbox.folder, env: sandbox.env(modern), stdio: ['pipe', 'ignore', 'pipe'] })
  const started: Waiting = {
    child, stderr: '', end: () => child.stdin!.end('the end'),
    done: new Promise(resolve => child.once('close', code => resolve(code))),
  }
  child.stderr!.on('data', (bytes: Buffer) => (started.stderr += bytes.toString()))
  child.stdin!.on('error', () => undefined)
  child.stdin!.write(Buffer.from(Array.from({ length: 3 << 20 }, (_, index) => (index * 7919 + (index >> 16)) & 0xff)))
  const data = sandbox.path('repo', 'data', '0')
  const before = segments(data)
  await eventually('the first segments are written', () => segments(data) > before || child.exitCode !== null)
  return started
}

const segments = (folder: string): number => readdirSync(folder).length

function isClean(sandbox: Sandbox): boolean {
  return /no problems found/.test(sandbox.borg(['check', '--verify-data', '-v', 'repo'], { ok: 'any' }).stderr)
}

/** With small segments, so that a transaction has several before it commits. */
function repository(sandbox: Sandbox): void {
  sandbox.borg(['init', '-e', 'repokey', 'repo'])
  sandbox.borg(['config', 'repo', 'max_segment_size', '1000000'])
  writeFileSync(sandbox.path('file'), 'content of the first archive\n')
  sandbox.borg(['create', 'repo::first', 'file'])
}

run('a create whose lock was broken refuses to commit over what another client saved', async t => {
  const sandbox = new Sandbox('broken-lock')
  try {
    repository(sandbox)
    const create = await waiting(sandbox, 'broken')
    sandbox.borg(['break-lock', 'repo'])
    sandbox.borg(['create', 'repo::other', 'file'])
    create.end()
    t.is(await create.done, 75)
    t.regex(create.stderr, /The lock .*\/lock\.exclusive was broken while this command was running/)
    t.notRegex(create.stderr, /\n\s+at /)
    t.deepEqual(sandbox.archives().sort(), ['first', 'other'])
    t.true(isClean(sandbox))
    sandbox.borgfs(['create', 'repo::broken', 'file'])
    t.deepEqual(sandbox.archives().sort(), ['broken', 'first', 'other'])
  } finally {
    sandbox.close()
  }
})

run('a create whose lock was broken keeps its hands off a transaction that another client is in', async t => {
  const sandbox = new Sandbox('taken-lock')
  try {
    repository(sandbox)
    const first = await waiting(sandbox, 'broken')
    sandbox.borg(['break-lock', 'repo'])
    const second = await waiting(sandbox, 'second')
    first.end()
    t.is(await first.done, 75, first.stderr)
    second.end()
    t.is(await second.done, 0, second.stderr)
    t.deepEqual(sandbox.archives().sort(), ['first', 'second'])
    t.true(isClean(sandbox))
  } finally {
    sandbox.close()
  }
})

run('a lock that was broken and not taken by anybody ends the create as well', async t => {
  const sandbox = new Sandbox('broken-only')
  try {
    repository(sandbox)
    const create = await waiting(sandbox, 'broken')
    sandbox.borg(['break-lock', 'repo'])
    create.end()
    t.is(await create.done, 75, create.stderr)
    t.deepEqual(sandbox.archives().sort(), ['first'])
    t.false(existsSync(sandbox.path('repo/lock.exclusive')))
    t.true(isClean(sandbox))
  } finally {
    sandbox.close()
  }
})

run('a process goes on after its lock was broken once it has the lock again and has looked at the repository', async t => {
  const sandbox = new Sandbox('lock-again')
  try {
    sandbox.borg(['init', '-e', 'none', 'repo'])
    const open = () => LocalRepository.open(sandbox.path('repo'), { lock: 'exclusive', lockWaitMs: 0, log: silentLog })
    const repository = await open()
    const manifest = await repository.get(manifestId)
    await t.throwsAsync(repository.transaction(async tx => {
      await tx.put(manifestId, manifest)
      breakLock(sandbox.path('repo/lock'))
    }), { message: /was broken while/ })
    await t.throwsAsync(repository.transaction(tx => tx.put(manifestId, manifest)), { message: /was broken while/ })
    await t.throwsAsync(async () => repository.saveKey('a key'), { message: /was broken while/ })
    await t.throwsAsync(repository.reserveNonces(5n, undefined), { message: /was broken while/ })
    await repository.acquireLock('exclusive', 0)
    await repository.refresh()
    await repository.transaction(tx => tx.put(manifestId, manifest))
    await repository.close()
    t.deepEqual(readdirSync(sandbox.path('repo')).filter(name => name.startsWith('lock')), [])
    t.true(isClean(sandbox))
  } finally {
    sandbox.close()
  }
})

run('a transaction never removes segments that somebody committed since the repository was looked at', async t => {
  const sandbox = new Sandbox('changed-meanwhile')
  try {
    repository(sandbox)
    // The lock is the same process's in both, so that only the segments can tell.
    const stale = await LocalRepository.open(sandbox.path('repo'), { lock: 'exclusive', lockWaitMs: 0, log: silentLog })
    const lock = readdirSync(sandbox.path('repo/lock.exclusive'))[0]!
    breakLock(sandbox.path('repo/lock'))
    sandbox.borg(['create', 'repo::other', 'file'])
    mkdirSync(sandbox.path('repo/lock.exclusive'))
    writeFileSync(sandbox.path('repo/lock.exclusive', lock), '')
    await t.throwsAsync(stale.transaction(tx => tx.delete(manifestId)), { message: /Another program changed/ })
    await stale.close()
    t.deepEqual(sandbox.archives().sort(), ['first', 'other'])
    t.true(isClean(sandbox))
  } finally {
    sandbox.close()
  }
})

run('two writers and readers at the same time: every archive is there, every read is whole', async t => {
  const sandbox = new Sandbox('two-writers')
  try {
    repository(sandbox)
    sandbox.sh('mkdir tree; for i in $(seq 20); do seq $((i * 100)) > tree/f$i; done')
    const wait = ['--lock-wait', '120']
    const start = (program: string, args: readonly string[]) => new Promise<{ rc: number | null; stderr: string; stdout: string }>(resolve => {
      const child = spawn(program, args, { cwd: sandbox.folder, env: sandbox.env(), stdio: ['ignore', 'pipe', 'pipe'] })
      let stdout = '', stderr = ''
      child.stdout.on('data', (bytes: Buffer) => (stdout += bytes.toString()))
      child.stderr.on('data', (bytes: Buffer) => (stderr += bytes.toString()))
      child.once('close', rc => resolve({ rc, stderr, stdout }))
    })
    const ours = (...args: string[]) => start(process.execPath, [borgfsProgram, ...args])
    const theirs = (...args: string[]) => start('borg', args)
    const writers = [
      (async () => { for (let index = 0; index < 4; index++) t.is((await ours('create', ...wait, `repo::ours-${index}`, 'tree')).rc, 0) })(),
      (async () => { for (let index = 0; index < 4; index++) t.is((await theirs('create', ...wait, `repo::theirs-${index}`, 'tree')).rc, 0) })(),
    ]
    let writing = true
    const all = Promise.all(writers).finally(() => (writing = false))
    const reader = (async () => {
      let rounds = 0
      for (; writing; rounds++) {
        const read = await ours('extract', ...wait, '--stdout', 'repo::first')
        t.is(read.rc, 0, read.stderr)
        t.is(read.stdout, 'content of the first archive\n')
      }
      return rounds
    })()
    await all
    t.true(await reader > 0)
    t.deepEqual(sandbox.archives().sort(), ['first', ...[0, 1, 2, 3].flatMap(index => [`ours-${index}`, `theirs-${index}`])].sort())
    t.true(isClean(sandbox))
  } finally {
    sandbox.close()
  }
})

/** Ids of a process that lived here, of one that lives, of another machine's. */
const here = hostId()
const deadPid = spawnSync('true').pid
const locks = [
  { what: 'a dead process of this host', host: here, pid: deadPid, holds: false },
  { what: 'a living process of this host', host: here, pid: 1, holds: true },
  { what: 'another host, where the same pid may live', host: 'elsewhere.example@123456789', pid: deadPid, holds: true },
] as const

for (const { what, host, pid, holds } of locks) {
  for (const kind of ['exclusive', 'shared'] as const) {
    run(`the ${kind} lock of ${what} ${holds ? 'holds' : 'is taken over'}, as with borg`, t => {
      const sandbox = new Sandbox('stale-lock')
      try {
        sandbox.borg(['init', '-e', 'none', 'repo'])
        writeFileSync(sandbox.path('file'), 'x')
        // The names in a lock are this host's own: the sandbox hides nothing of it.
        const put = (): void => {
          rmSync(sandbox.path('repo/lock.exclusive'), { recursive: true, force: true })
          if (kind === 'exclusive') {
            mkdirSync(sandbox.path('repo/lock.exclusive'))
            writeFileSync(sandbox.path('repo/lock.exclusive', `${host}.${pid}-0`), '')
          }
          writeFileSync(sandbox.path('repo/lock.roster'), JSON.stringify({ [kind]: [[host, pid, 0]] }))
        }
        for (const [program, name] of [['borg', 'theirs'], ['borgfs', 'ours']] as const) {
          put()
          const ran = sandbox[program](['create', '--lock-wait', holds ? '0' : '1', `repo::${name}`, 'file'], { ok: 'any', env: modern })
          if (holds) {
            t.true(ran.rc === 2 || ran.rc === 73, `${program}: rc ${ran.rc} ${ran.stderr}`)
            t.regex(ran.stderr, /Failed to create\/acquire the lock .*\(timeout\)/)
            t.true(readFileSync(sandbox.path('repo/lock.roster'), 'utf8').includes(host), 'the roster was left alone')
            if (kind === 'exclusive') t.true(existsSync(sandbox.path('repo/lock.exclusive', `${host}.${pid}-0`)))
            // Reading is no less in the way of an exclusive lock, and goes along with a shared one.
            t.is(sandbox[program](['list', '--lock-wait', '0', 'repo'], { ok: 'any' }).rc, kind === 'exclusive' ? 2 : 0)
          } else {
            t.is(ran.rc, 0, `${program}: ${ran.stderr}`)
            t.deepEqual(readdirSync(sandbox.path('repo')).filter(file => file.startsWith('lock')), [])
          }
        }
        breakLock(sandbox.path('repo/lock'))
        t.deepEqual(sandbox.archives().sort(), holds ? [] : ['ours', 'theirs'])
        t.true(isClean(sandbox))
      } finally {
        sandbox.close()
      }
    })
  }
}
