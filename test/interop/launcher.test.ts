import { existsSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { once } from 'node:events'
import { dirname, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { borgfsProgram, eventually, projectRoot, Sandbox } from '../helpers/sandbox.js'

// What npm puts on the PATH. It finds Node there as well: the one that runs the tests comes first.
const launcher = join(projectRoot, 'bin', 'borgfs')
const path = `${dirname(process.execPath)}:${process.env.PATH}`

function prepared(t: ExecutionContext): Sandbox {
  const sandbox = new Sandbox('launcher')
  t.teardown(() => sandbox.close())
  sandbox.borgfs(['init', '-e', 'repokey', 'repo'])
  sandbox.mkdir('mnt')
  return sandbox
}

test('--version is answered by the name it was called by, through links of links', t => {
  const sandbox = new Sandbox('launcher')
  t.teardown(() => sandbox.close())
  symlinkSync(launcher, sandbox.path('first'))
  symlinkSync('first', sandbox.path('borg'))
  t.is(sandbox.run(sandbox.path('borg'), ['--version']).stdout, 'borg 1.2.4\n')
  t.is(sandbox.run(sandbox.path('borg'), ['list', '--help'], { env: { PATH: path } }).rc, 0)
  t.is(sandbox.run(launcher, ['-V']).stdout, 'borgfs 1.2.4\n')
  const refused = sandbox.run(sandbox.path('borg'), ['list', '--no-such-option'], { ok: [2], env: { PATH: path } })
  t.regex(refused.stderr, /^borg/)
})

test('a file of further certificates is not read for borgfs, and is there for what it starts', t => {
  const sandbox = prepared(t)
  // Node warns of a file that it cannot read.
  const env = { PATH: path, NODE_EXTRA_CA_CERTS: sandbox.path('no such file') }
  const print = 'echo "$NODE_EXTRA_CA_CERTS"; env | grep -c BORGFS_'
  const ran = sandbox.run(launcher, ['with-lock', 'repo', 'sh', '-c', print], { env, ok: 'any' })
  t.is(ran.stdout, `${env.NODE_EXTRA_CA_CERTS}\n0\n`)
  t.is(ran.stderr, '')
  t.is(sandbox.run(launcher, ['with-lock', 'repo', 'sh', '-c', print], { env: { PATH: path }, ok: 'any' }).stdout, '\n0\n')
})

test('a command of two words tells what there is to choose from, and has its own help', t => {
  const sandbox = new Sandbox('launcher')
  t.teardown(() => sandbox.close())
  for (const words of [['key'], ['key', '--help'], ['help', 'key'], ['-v', 'key']]) t.regex(sandbox.borgfs(words).stdout, /^usage: borgfs key COMMAND[^]*  key export [^]*  key import /, words.join(' '))
  t.regex(sandbox.borgfs(['debug']).stdout, /  debug info\n/)
  for (const words of [['key', 'export', '--help'], ['--lock-wait', '5', 'key', 'export', '-h']]) t.regex(sandbox.borgfs(words).stdout, /^usage: borgfs key export .*PATH[^]*--qr-html/, words.join(' '))
})

test('options that every command has may stand before it, with values of their own', t => {
  const sandbox = prepared(t)
  for (const options of [['--lock-wait', '5'], ['--lock-wait=5', '-v'], ['--rsh', 'ssh', '--umask', '0077']]) {
    t.is(sandbox.run(launcher, [...options, 'list', 'repo'], { env: { PATH: path } }).stdout, '', options.join(' '))
  }
  t.regex(sandbox.run(launcher, ['--lock-wait', '5', 'repo'], { env: { PATH: path }, ok: [2] }).stderr, /borgfs mount: error: .*MOUNTPOINT/)
})

test('mount goes to the background once the drive answers, and keeps words with spaces and no words apart', t => {
  const sandbox = prepared(t)
  sandbox.mkdir('a place')
  sandbox.run(launcher, ['mount', '--sort-by', 'name', 'repo', 'a place'], { env: { PATH: path } })
  sandbox.remember(sandbox.path('a place'))
  t.true(readdirSync(sandbox.path('a place')).includes('incoming'))
  t.is(sandbox.run(launcher, ['umount', 'a place'], { env: { PATH: path } }).rc, 0)
  t.false(sandbox.isMounted(sandbox.path('a place')))
})

test('what goes wrong before that is told, with its exit code, and nothing is mounted', t => {
  const sandbox = prepared(t)
  const wrong = sandbox.run(launcher, ['mount', 'repo', 'mnt'], { env: { PATH: path, BORG_PASSPHRASE: 'wrong', BORG_EXIT_CODES: 'modern' }, ok: 'any' })
  t.is(wrong.rc, 52)
  t.regex(wrong.stderr, /passphrase supplied/)
  t.is(sandbox.run(launcher, ['mount', 'nowhere', 'mnt'], { env: { PATH: path }, ok: [2] }).rc, 2)
  t.notRegex(readFileSync('/proc/self/mountinfo', 'utf8'), new RegExp(sandbox.path('mnt')))
})

test('standard input reaches the drive that asks for it', t => {
  const sandbox = prepared(t)
  const ran = sandbox.run(launcher, ['mount', 'repo', 'mnt'], { env: { PATH: path, BORG_PASSPHRASE: undefined, BORG_PASSCOMMAND: 'cat' }, input: 'test passphrase\n', ok: 'any' })
  t.is(ran.rc, 0, ran.stderr)
  sandbox.unmount(sandbox.path('mnt'))
})

test('a signal ends the drive that waits for its passphrase', async t => {
  const sandbox = prepared(t)
  const child = sandbox.start(launcher, ['mount', 'repo', 'mnt'], { env: { PATH: path, BORG_PASSPHRASE: undefined, BORG_PASSCOMMAND: 'bash -c "touch asked; exec sleep 1002"' } })
  await eventually('it asks', () => existsSync(sandbox.path('asked')))
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  t.deepEqual(await ended, [143, null])
  await eventually('nothing is left of it', () => sandbox.processes().length === 0)
})

/** The step of going to the background that stands still, as a program or a module that waits until the file `go` is there. */
const steps = [
  { name: 'the session is not made yet', launcher, program: 'setsid' },
  { name: 'Node is not there yet', launcher, program: 'node' },
  { name: 'Node has not come to our code yet', launcher, program: undefined },
  { name: 'Node has not come to our code yet, and Node waits for it', launcher: borgfsProgram, program: undefined },
]
for (const step of steps) {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    test(`${signal} is not lost while ${step.name}`, async t => {
      const sandbox = prepared(t)
      const here = sandbox.mkdir('bin')
      const [begun, go] = [sandbox.path('begun'), sandbox.path('go')]
      writeFileSync(join(here, step.program ?? 'none'), `#!/bin/sh\n: > ${begun}\nwhile ! [ -e ${go} ]; do sleep 0.02; done\nPATH=${path} exec ${step.program} "$@"\n`, { mode: 0o755 })
      const module = sandbox.path('module.cjs')
      writeFileSync(module, `if (process.env.BORGFS_READY_FD || process.env.BORGFS_READY_PID) {
        const { existsSync, writeFileSync } = require('node:fs')
        writeFileSync(${JSON.stringify(begun)}, '')
        while (!existsSync(${JSON.stringify(go)})) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20)
      }`)
      const child = sandbox.start(step.launcher, ['mount', 'repo', 'mnt'], { env: {
        PATH: `${here}:${path}`, BORG_PASSPHRASE: undefined, BORG_PASSCOMMAND: 'sleep 1003', ...(step.program ? {} : { NODE_OPTIONS: `--require=${module}` }),
      } })
      let stderr = ''
      child.stderr!.on('data', (bytes: Buffer) => (stderr += bytes.toString()))
      const ended = once(child, 'close')
      await eventually('it has come so far', () => existsSync(begun))
      child.kill(signal)
      writeFileSync(go, '')
      t.deepEqual(await ended, [{ SIGINT: 130, SIGTERM: 143, SIGHUP: 129 }[signal], null])
      t.regex(stderr, /^(Keyboard interrupt|Received SIGTERM|Received SIGHUP\.)\n$/)
      await eventually('nothing is left of it', () => sandbox.processes().length === 0)
    })
  }
}

test('umount does not wait for a parent that has not collected the drive\'s process', async t => {
  const sandbox = prepared(t)
  const mountpoint = sandbox.path('mnt')
  sandbox.remember(mountpoint)
  sandbox.start(process.execPath, [borgfsProgram, 'mount', '-f', 'repo', mountpoint])
  await eventually('the drive is there', () => sandbox.isMounted(mountpoint))
  // This process waits for umount and collects nobody meanwhile.
  t.is(sandbox.borgfs(['umount', mountpoint], { timeoutMs: 30_000 }).rc, 0)
})
