// Writes beside bundles of dist/bundle the code that V8 made of them, after running what people run most: only what ran is compiled.
// There is code for each kind of work (bin/code-cache.js), and each is made in a process of its own. A drive is really mounted for a moment,
// where that is possible; where it is not, its code is prepared as far as it comes.
'use strict'
const { spawn, spawnSync } = require('node:child_process')
const { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } = require('node:fs')
const { tmpdir } = require('node:os')
const { join, resolve } = require('node:path')
const { setTimeout: pause } = require('node:timers/promises')
const threads = require('node:worker_threads')
const { codeFile, load } = require('../bin/code-cache.js')

const bundle = resolve(__dirname, '..', 'dist', 'bundle')
const mainFile = join(bundle, 'main.js'), fuseThreadFile = join(bundle, 'fuse', 'kernel', 'worker-code.js')
const longestMs = 20_000

class Exit extends Error {}

function save(file, kind, script) {
  // Commands have set their umask by now; who installs is not always who runs.
  writeFileSync(codeFile(file, kind), script.createCachedData())
  chmodSync(codeFile(file, kind), 0o644)
}

async function run(main, ...words) {
  process.argv = [process.execPath, 'borgfs', ...words]
  const exit = () => {
    throw new Exit()
  }
  await main('borgfs', { exit }).catch(error => {
    if (!(error instanceof Exit)) throw error
  })
}

async function runCommands(main, folder) {
  const repository = join(folder, 'repository'), file = join(folder, 'file')
  for (const words of [
    ['init', '-e', 'repokey', repository], ['create', `${repository}::a`, file], ['list', repository], ['list', `${repository}::a`],
    ['info', repository], ['extract', '--dry-run', `${repository}::a`], ['create', `${repository}::b`, file],
    ['prune', '--dry-run', '--list', '--keep-daily', '1', repository], ['delete', '--dry-run', `${repository}::a`],
    ['prune', '--keep-daily', '1', repository], ['compact', repository],
  ]) await run(main, ...words)
}

/**
 * What a program says about the mount. In a process of its own: a thread of this one, which serves the mount, would wait for ever for an answer of
 * its own process if that had ended otherwise, and could not be killed.
 */
function ask(...words) {
  return new Promise((done, failed) => {
    const child = spawn(words[0], words.slice(1), { stdio: ['ignore', 'pipe', 'ignore'] })
    let said = ''
    child.stdout.on('data', text => (said += text))
    child.once('error', failed)
    child.once('close', () => done(said))
  })
}

async function runMount(main, folder) {
  const repository = join(folder, 'repository'), file = join(folder, 'file'), point = join(folder, 'mnt')
  mkdirSync(point)
  // By others: their code is no part of a mount's.
  for (const words of [['init', '-e', 'repokey', repository], ['create', `${repository}::a`, file]]) spawnSync(process.execPath, [resolve(__dirname, '..', 'bin', 'borgfs.js'), ...words])
  // The FUSE thread, too, shall say what was compiled.
  threads.Worker = class extends threads.Worker {
    constructor(url, options) {
      super(String(url).endsWith('/fuse/kernel/worker.js') ? __filename : url, options)
    }
  }
  // The second time the archive's tree is a stored one.
  for (let time = 0; time < 2; time++) {
    let ended = false
    const mounted = run(main, 'mount', '--foreground', repository, point).finally(() => (ended = true))
    while (!ended && (await ask('ls', point)) === '') await pause(5)
    if (ended) return
    await ask('ls', '-l', join(point, 'a'))
    await ask('cat', join(point, 'a', file))
    process.emit('SIGTERM')
    await mounted
  }
}

async function warm(kind, folder) {
  // As in bin/borgfs.js: code that was made under other flags is not taken.
  require('node:v8').setFlagsFromString('--no-parallel-scavenge')
  const { script, exports: { main } } = load(mainFile, kind)
  Object.assign(process.env, { BORG_BASE_DIR: folder, BORG_PASSPHRASE: 'warm' })
  writeFileSync(join(folder, 'file'), 'content')
  await (kind === 'mount' ? runMount : runCommands)(main, folder)
  save(mainFile, kind, script)
}

/** In a process that is given up, with whatever it mounted, when it takes too long. */
function warmed(kind) {
  const folder = mkdtempSync(join(tmpdir(), 'borgfs-build-'))
  return new Promise((done, failed) => {
    const child = spawn(process.execPath, [__filename, kind, folder], { stdio: ['ignore', 'ignore', 'pipe'], timeout: longestMs, killSignal: 'SIGKILL' })
    let said = ''
    child.stderr.on('data', text => (said += text))
    child.once('error', failed)
    child.once('close', code => (code === 0 ? done() : failed(new Error(said.trim().split('\n').at(-1)))))
  }).finally(() => {
    const point = join(folder, 'mnt')
    if (readFileSync('/proc/self/mountinfo', 'latin1').includes(` ${point} `) && spawnSync('umount', ['-l', point]).status !== 0) spawnSync('fusermount3', ['-uz', point])
    rmSync(folder, { recursive: true, force: true })
  })
}

/** Without it all works, only slower: the build goes on. */
function complain({ message }) {
  console.error(kind ? message : `note: commands will start slower, their code could not be prepared: ${message}`)
  process.exit(1)
}

const [kind, folder] = process.argv.slice(2)
if (!threads.isMainThread) {
  const { script } = load(fuseThreadFile, 'mount')
  process.on('exit', () => save(fuseThreadFile, 'mount', script))
} else if (kind) warm(kind, folder).then(() => process.exit(0), complain)
else Promise.all(['commands', 'mount'].map(warmed)).catch(complain)
