/** recreate, on a disk that forgets, killed anywhere, failing anywhere (docs/reliability.md). */
import test from 'ava'
import { commands } from '../../src/cli/commands/all.js'
import { type Operation, tryOperation, type World } from '../helpers/faults.js'

function twoArchives(world: World): void {
  world.sandbox.sh("mkdir source; cd source; seq 2000 > numbers; echo hello > hello; head -c 9000 /dev/zero | tr '\\0' z > zs; touch -d '2015-05-05 05:05:05' *")
  world.begin('repokey', 'one', 'two')
}

const operations: Operation[] = [
  { name: 'recreate with an exclusion', repeatable: false, args: ['recreate', '-e', 'source/hello', 'world/repo::one'], setUp: twoArchives },
  { name: 'recreate that compresses anew', repeatable: true, args: ['recreate', '-C', 'zlib', '--recompress=always', 'world/repo::one'], setUp: twoArchives },
]

const run = 'recreate' in commands ? test : test.skip
if (run !== test) console.error('SKIPPED aloud: test/crash/recreate has no command recreate')

for (const operation of operations) {
  run(`after any crash of ${operation.name}, and whichever call of it fails, the repository is as before or as after, and it can be repeated`, t =>
    tryOperation(t, operation, { states: 40, repeats: 3, checks: 2, kills: 2, points: 6 }))
}
