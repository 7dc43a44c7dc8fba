/** recreate, on a disk that forgets, killed anywhere, failing anywhere (docs/reliability.md). */
import test from 'ava'
import { commands } from '../../src/cli/commands/all.js'
import { crash, fail, type Operation, type World } from '../helpers/faults.js'
import { Sandbox } from '../helpers/sandbox.js'

function twoArchives(world: World): void {
  world.sandbox.sh("mkdir source; cd source; seq 2000 > numbers; echo hello > hello; head -c 9000 /dev/zero | tr '\\0' z > zs; touch -d '2015-05-05 05:05:05' *")
  world.borgfs(['init', '-e', 'repokey', 'world/repo'])
  world.borgfs(['create', 'world/repo::one', 'source'])
  world.borgfs(['create', 'world/repo::two', 'source'])
}

const operations: Operation[] = [
  { name: 'recreate with an exclusion', repeatable: false, args: ['recreate', '-e', 'source/hello', 'world/repo::one'], setUp: twoArchives },
  { name: 'recreate that compresses anew', repeatable: true, args: ['recreate', '-C', 'zlib', '--recompress=always', 'world/repo::one'], setUp: twoArchives },
]

const run = 'recreate' in commands ? test : test.skip
if (run !== test) console.error('SKIPPED aloud: test/crash/recreate has no command recreate')

for (const operation of operations) {
  run(`after any crash of ${operation.name} the repository is as before or as after, and it can be repeated`, async t => {
    const sandbox = new Sandbox('crash-recreate')
    try {
      t.log(JSON.stringify(await crash(t, sandbox, operation, { states: 40, repeats: 3, checks: 2, kills: 2 })))
    } finally {
      sandbox.close()
    }
  })

  run(`whichever call of ${operation.name} fails, nothing is lost and it can be repeated`, async t => {
    const sandbox = new Sandbox('fail-recreate')
    try {
      t.log(`${await fail(t, sandbox, operation, { points: 6 })} calls failed`)
    } finally {
      sandbox.close()
    }
  })
}
