// Writes beside dist/bundle/main.js the code that V8 made of it, after running what people run most: only what ran is compiled.
'use strict'
const { chmodSync, mkdtempSync, rmSync, writeFileSync } = require('node:fs')
const { tmpdir } = require('node:os')
const { join, resolve } = require('node:path')
const { load } = require('../bin/code-cache.js')

class Exit extends Error {}

async function warm() {
  const file = resolve(__dirname, '..', 'dist', 'bundle', 'main.js')
  rmSync(`${file}.code`, { force: true })
  const { script, exports: { main } } = load(file)
  const folder = mkdtempSync(join(tmpdir(), 'borgfs-build-'))
  const repository = join(folder, 'repository')
  Object.assign(process.env, { BORG_BASE_DIR: folder, BORG_PASSPHRASE: 'warm' })
  writeFileSync(join(folder, 'file'), 'content')
  const exit = () => {
    throw new Exit()
  }
  try {
    for (const words of [
      ['init', '-e', 'repokey', repository], ['create', `${repository}::a`, join(folder, 'file')], ['list', repository], ['list', `${repository}::a`],
      ['info', repository], ['extract', '--dry-run', `${repository}::a`], ['create', `${repository}::b`, join(folder, 'file')],
      ['prune', '--dry-run', '--list', '--keep-daily', '1', repository], ['delete', '--dry-run', `${repository}::a`],
      ['prune', '--keep-daily', '1', repository], ['compact', repository],
    ]) {
      process.argv = [process.execPath, 'borgfs', ...words]
      await main('borgfs', exit).catch(error => {
        if (!(error instanceof Exit)) throw error
      })
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  // Commands have set their umask by now; who installs is not always who runs.
  writeFileSync(`${file}.code`, script.createCachedData())
  chmodSync(`${file}.code`, 0o644)
}

// Without it all works, only slower: the build goes on.
warm().then(() => process.exit(0), error => {
  console.error(`note: commands will start slower, their code could not be prepared: ${error.message}`)
  process.exit(1)
})
