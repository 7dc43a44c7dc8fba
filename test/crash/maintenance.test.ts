/** What deletes, moves and repairs, on a disk that forgets, killed anywhere, failing anywhere (docs/reliability.md). */
import test from 'ava'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { commands } from '../../src/cli/commands/all.js'
import { type Operation, tryOperation, type World } from '../helpers/faults.js'
import { haveBorg } from '../helpers/sandbox.js'

/** Three archives with chunks of their own and in common, the segments small, so that there is something to compact. */
function threeArchives(world: World, mode: string): void {
  world.sandbox.mkdir('source')
  world.borgfs(['init', '-e', mode, 'world/repo'])
  world.borgfs(['config', 'world/repo', 'max_segment_size', '20000'])
  for (const [index, name] of ['monday', 'tuesday', 'wednesday'].entries()) {
    world.sandbox.sh(`cd source; printf same > same; for i in 1 2 3 4; do head -c 7000 /dev/zero | tr '\\0' ${index} > part-${index}-$i; printf "$i ${name}" >> part-${index}-$i; done; touch -d '2015-05-05 05:05:05' *`)
    world.borgfs(['create', '-C', 'none', '--chunker-params', 'fixed,4096', '--timestamp', `2020-01-0${index + 1}T00:00:00`, `world/repo::${name}`, 'source'])
    if (index < 2) world.sandbox.sh(`rm source/part-${index}-[12]`)
  }
}

function oneArchive(world: World, mode: string): void {
  world.sandbox.sh('mkdir source; echo hello > source/hello')
  world.begin(mode, 'monday')
}

/** As a client leaves it that has used the space well: sparse segments, deletes, old commits. */
function sparse(world: World, mode: string): void {
  threeArchives(world, mode)
  // By whichever program can; compaction then begins from what either leaves.
  world[haveBorg ? 'borg' : 'borgfs'](['delete', 'world/repo::monday'])
}

function damaged(world: World): void {
  threeArchives(world, 'none')
  const folder = join(world.repository, 'data', '0')
  // A byte in the content of a file's chunk: one segment is rewritten, a file is filled up with zeros, the index is written anew.
  for (const name of readdirSync(folder)) {
    const bytes = readFileSync(join(folder, name))
    const at = bytes.indexOf('1 monday')
    if (at < 0) continue
    bytes[at] = 0x21
    writeFileSync(join(folder, name), bytes)
  }
}

const operations: Operation[] = [
  { name: 'delete', repeatable: false, args: ['delete', 'world/repo::tuesday'], setUp: world => threeArchives(world, 'repokey') },
  { name: 'delete of two archives', repeatable: false, args: ['delete', 'world/repo', 'monday', 'tuesday'], setUp: world => threeArchives(world, 'none') },
  // A COMMIT after each.
  {
    name: 'delete of two archives with checkpoints', repeatable: false, steps: true, args: ['delete', '-c', '1', 'world/repo', 'monday', 'tuesday'], options: { env: { FAULTS_CLOCK: '2000' } },
    again: ['delete', 'world/repo', 'monday', 'tuesday'], setUp: world => threeArchives(world, 'none'),
  },
  { name: 'prune', repeatable: true, args: ['prune', '--keep-last', '1', 'world/repo'], setUp: world => threeArchives(world, 'none') },
  { name: 'rename', repeatable: false, args: ['rename', 'world/repo::tuesday', 'mardi'], setUp: world => threeArchives(world, 'repokey') },
  { name: 'compact', repeatable: true, args: ['compact', '--threshold', '0', 'world/repo'], setUp: world => sparse(world, 'repokey') },
  { name: 'check --repair', repeatable: true, repairs: true, args: ['check', '--repair', 'world/repo'], setUp: damaged },
  { name: 'key change-passphrase of a repokey', repeatable: true, args: ['key', 'change-passphrase', 'world/repo'], setUp: world => oneArchive(world, 'repokey') },
  { name: 'key change-passphrase of a key file', repeatable: true, args: ['key', 'change-passphrase', 'world/repo'], setUp: world => oneArchive(world, 'keyfile') },
  { name: 'config', repeatable: true, args: ['config', 'world/repo', 'additional_free_space', '1M'], setUp: world => oneArchive(world, 'repokey') },
]

for (const operation of operations) {
  const command = operation.args[0] === 'key' ? operation.args.slice(0, 2).join(' ') : operation.args[0]!
  const run = command in commands ? test : test.skip
  if (run !== test) console.error(`SKIPPED aloud: test/crash/maintenance has no command ${command}`)
  run(`after any crash of ${operation.name}, and whichever call of it fails, the repository is as before or as after, and it can be repeated`, t =>
    tryOperation(t, operation, { states: 40, repeats: operation.repairs ? 10 : 3, checks: 2, kills: 2, points: 6 }))
}
