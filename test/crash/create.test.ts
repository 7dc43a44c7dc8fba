/** `create` and `init` on a disk that forgets, a process that is killed, a disk that fails (docs/reliability.md). */
import test from 'ava'
import { type Operation, tryOperation, type World } from '../helpers/faults.js'

function sources(world: World): void {
  world.sandbox.sh(String.raw`
    mkdir -p source/dir; cd source
    printf 'hello\n' > hello; head -c 20000 /dev/zero | tr '\0' 'x' > dir/xs; seq 3000 > dir/numbers; : > empty; ln -s hello link
    find . -exec touch -h -d '2015-05-05 05:05:05' {} +`)
}

function create(mode: string): Operation {
  return {
    name: `create in mode ${mode}`, repeatable: false, args: ['create', 'world/repo::new', 'source'],
    setUp(world) {
      sources(world)
      world.begin(mode, 'old')
      world.sandbox.sh("cd source; seq 4000 > more; printf 'other\n' > hello; touch -d '2016-06-06 06:06:06' . hello more")
    },
  }
}

for (const mode of ['none', 'repokey']) {
  test(`${mode}: after any crash of create, and whichever call of it fails, the repository is as before or as after, and it can be repeated`, t =>
    tryOperation(t, create(mode), { states: 70, repeats: 4, checks: 2, kills: 3, points: 10 }))
}

/** Time flies: every other look at the clock finds the interval over, within the large file as well as between files. */
const checkpoints: Operation = {
  name: 'create with checkpoints', repeatable: false, steps: true,
  args: ['create', '-c', '1', '--chunker-params', 'fixed,4096', '-C', 'none', 'world/repo::new', 'source'],
  options: { env: { FAULTS_CLOCK: '600' } },
  setUp(world) {
    world.sandbox.sh(String.raw`
      mkdir source; for i in 1 2 3; do seq $((i * 100)) > source/a$i; done; seq 4000 > source/large; seq 300 > source/z
      find source -exec touch -h -d '2015-05-05 05:05:05' {} +`)
    world.borgfs(['init', '-e', 'repokey', 'world/repo'])
    world.borgfs(['create', 'world/repo::old', 'source/a1'])
  },
}

test('after any crash of a create with checkpoints, and whichever call of it fails, there is the state before, a sound checkpoint, or the archive', t =>
  tryOperation(t, checkpoints, { states: 60, repeats: 4, checks: 2, kills: 3, points: 6 }))
