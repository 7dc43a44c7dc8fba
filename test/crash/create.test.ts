/** `create` and `init` on a disk that forgets, a process that is killed, a disk that fails (docs/reliability.md). */
import test from 'ava'
import { crash, fail, type Operation, type World } from '../helpers/faults.js'
import { Sandbox } from '../helpers/sandbox.js'

function sources(world: World): void {
  world.sandbox.sh(String.raw`
    mkdir -p source/dir; cd source
    printf 'hello\n' > hello; head -c 20000 /dev/zero | tr '\0' 'x' > dir/xs; seq 3000 > dir/numbers; : > empty; ln -s hello link
    find . -exec touch -h -d '2015-05-05 05:05:05' {} +`)
}

export function create(mode: string): Operation {
  return {
    name: `create in mode ${mode}`, repeatable: false, args: ['create', 'world/repo::new', 'source'],
    setUp(world) {
      sources(world)
      world.borgfs(['init', '-e', mode, 'world/repo'])
      world.borgfs(['create', 'world/repo::old', 'source'])
      world.sandbox.sh("cd source; seq 4000 > more; printf 'other\n' > hello; touch -d '2016-06-06 06:06:06' . hello more")
    },
  }
}

for (const mode of ['none', 'repokey']) {
  test(`${mode}: after any crash of create the repository is as before or as after, and create can be repeated`, async t => {
    const sandbox = new Sandbox('crash-create')
    try {
      t.log(JSON.stringify(await crash(t, sandbox, create(mode), { states: 70, repeats: 4, checks: 2, kills: 3 })))
    } finally {
      sandbox.close()
    }
  })

  test(`${mode}: whichever call of create fails, nothing is lost and create can be repeated`, async t => {
    const sandbox = new Sandbox('fail-create')
    try {
      t.log(`${await fail(t, sandbox, create(mode), { points: 10 })} calls failed`)
    } finally {
      sandbox.close()
    }
  })
}
