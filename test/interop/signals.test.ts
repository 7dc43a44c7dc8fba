/** Signals to a command that waits: for a lock, a command, somebody at a terminal. None holds it up, and nothing is left locked. */
import test from 'ava'
import { once } from 'node:events'
import { existsSync, readdirSync, watch } from 'node:fs'
import { borgfsProgram, eventually, haveBorg, Sandbox, type RunOptions } from '../helpers/sandbox.js'

const said = { SIGINT: [130, 'Keyboard interrupt\n'], SIGTERM: [143, 'Received SIGTERM\n'], SIGHUP: [129, 'Received SIGHUP.\n'] } as const

function prepared(t: { teardown(step: () => void): void }): Sandbox {
  const sandbox = new Sandbox('signals')
  t.teardown(() => sandbox.close())
  sandbox.borgfs(['init', '-e', 'repokey', 'repo'])
  return sandbox
}

/** Starts borgfs, sends it a signal when `waits` says that it waits, and tells how it ended. */
async function ended(sandbox: Sandbox, args: readonly string[], signal: keyof typeof said, waits: (stderr: string) => boolean, options: RunOptions = {}): Promise<{ code: number | null; stderr: string }> {
  const child = sandbox.start(process.execPath, [borgfsProgram, ...args], options)
  let stderr = ''
  child.stderr!.on('data', (bytes: Buffer) => (stderr += bytes.toString()))
  const close = once(child, 'close')
  await eventually(`${args.join(' ')} waits`, () => waits(stderr))
  child.kill(signal)
  const [code] = await close as [number | null]
  return { code, stderr }
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  const [code, sentence] = said[signal]

  test(`${signal} ends a command that waits for a lock, and one that waits for BORG_PASSCOMMAND`, async t => {
    const sandbox = prepared(t)
    const holder = sandbox.start(process.execPath, [borgfsProgram, 'with-lock', 'repo', 'sleep', '1000'])
    const locks = (): string[] => readdirSync(sandbox.path('repo')).filter(name => name.startsWith('lock'))
    await eventually('the lock is held', () => locks().length === 2)
    // Its tries make a directory beside the lock, for a moment each.
    let tries = 0
    const watcher = watch(sandbox.path('repo'), (_event, name) => {
      if (name?.startsWith('lock.exclusive.')) tries++
    })
    t.deepEqual(await ended(sandbox, ['--lock-wait', '1000', 'create', 'repo::archive', 'home'], signal, () => tries > 0), { code, stderr: sentence })
    watcher.close()
    t.is(locks().length, 2)
    holder.kill()
    await eventually('the lock is free', () => locks().length === 0)

    const env = { BORG_PASSPHRASE: undefined, BORG_PASSCOMMAND: `bash -c "touch asked; exec sleep 1001"` }
    t.deepEqual(await ended(sandbox, ['list', 'repo'], signal, () => existsSync(sandbox.path('asked')), { env }), { code, stderr: sentence })
    t.deepEqual(locks(), [])
    sandbox.sh('rm asked')
    t.deepEqual(await ended(sandbox, ['init', '-e', 'keyfile', 'other'], signal, () => existsSync(sandbox.path('asked')), { env }), { code, stderr: sentence })
    t.false(existsSync(sandbox.path('other')), 'what init made is removed')
  })

  test(`${signal} ends a command that asks a question`, async t => {
    const sandbox = prepared(t)
    sandbox.sh('mkfifo questions')
    const open = ['-c', 'exec 3<>questions; exec "$@" <&3', 'sh', process.execPath, borgfsProgram]
    const child = sandbox.start('sh', [...open, 'delete', 'repo'])
    let stderr = ''
    child.stderr!.on('data', (bytes: Buffer) => (stderr += bytes.toString()))
    const close = once(child, 'close')
    await eventually('it asks', () => stderr.includes("Type 'YES'"))
    child.kill(signal)
    t.deepEqual((await close as [number | null])[0], code)
    t.true(stderr.endsWith(sentence), stderr)
    t.is(sandbox.borgfs(['list', 'repo']).stderr, '', 'no stale lock is left')
  })
}

const person = `
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
while True:
    line = sys.stdin.buffer.readline()
    if line:
        wanted, answer = eval(line)
        seen = b''
        while wanted not in seen:
            seen += os.read(fd, 4096)
        os.write(fd, answer)
        continue
    try:
        while os.read(fd, 4096): pass
    except OSError: pass
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`
const typing = haveBorg ? test : test.skip
if (!haveBorg) console.error('SKIPPED aloud: test/interop/signals needs Python to type at a terminal')

/** Types answers at a terminal when their questions are there; returns the exit code. */
function typed(sandbox: Sandbox, args: readonly string[], dialogue: readonly (readonly [question: string, answer: string])[]): number {
  const input = dialogue.map(pair => `(${pair.map(text => `bytes.fromhex('${Buffer.from(text).toString('hex')}')`).join(', ')})\n`).join('')
  return sandbox.run('python3', ['-c', person, process.execPath, borgfsProgram, ...args], { input, env: { BORG_PASSPHRASE: undefined }, ok: 'any', timeoutMs: 120_000 }).rc
}

typing('at a terminal, Ctrl-C ends it at a passphrase and at a question, and a question that follows a typed passphrase is answered', t => {
  const sandbox = prepared(t)
  const passphrase = ['Enter passphrase', 'test passphrase\n'] as const
  const question = 'want to continue'
  t.is(typed(sandbox, ['list', 'repo'], [['Enter passphrase', '\x03']]), 130)
  t.is(typed(sandbox, ['list', 'repo'], [passphrase]), 0)
  t.is(typed(sandbox, ['init', '-e', 'repokey', 'other'], [['Enter new', '\x03']]), 130)
  t.false(existsSync(sandbox.path('other')))
  t.is(typed(sandbox, ['delete', 'repo'], [passphrase, [question, '\x03']]), 130)
  t.is(typed(sandbox, ['delete', 'repo'], [passphrase, [question, 'no\n']]), 2)
  t.true(existsSync(sandbox.path('repo', 'config')))
  t.is(typed(sandbox, ['delete', 'repo'], [passphrase, [question, 'YES\n']]), 0)
  t.false(existsSync(sandbox.path('repo')))
})
