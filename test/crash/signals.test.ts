/**
 * A signal while a command is at any one of its calls: afterwards the repository is as before or as after, nothing is locked, and a
 * command that says it was done was done.
 */
import test from 'ava'
import { judge, type Operation, prepare, sample, World } from '../helpers/faults.js'
import { haveBorg, Sandbox } from '../helpers/sandbox.js'

function setUp(world: World): void {
  world.borgfs(['init', '-e', 'repokey', 'world/repo'])
  world.sandbox.sh("mkdir source; for i in 1 2 3 4; do head -c 9000 /dev/zero | tr '\\0' $i > source/part-$i; done; touch -d '2015-05-05 05:05:05' source/*")
  for (const name of ['monday', 'tuesday']) world.borgfs(['create', '-C', 'none', '--chunker-params', 'fixed,4096', `world/repo::${name}`, 'source'])
  world.sandbox.sh('printf more > source/more')
}

const commands = { create: ['create', 'world/repo::new', 'source'], delete: ['delete', 'world/repo::monday'], rename: ['rename', 'world/repo::monday', 'sunday'], 'upgrade --disable-tam': ['upgrade', '--disable-tam', 'world/repo'] }
const signals = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const

for (const [name, args] of Object.entries(commands)) {
  // Ctrl-C asks create and delete for a checkpoint, and is not for here.
  const sent = (['SIGTERM', 'SIGHUP', 'SIGINT'] as const).filter(signal => signal !== 'SIGINT' || !['create', 'delete'].includes(name))
  test(`a signal at any call of ${name} leaves the repository whole and unlocked`, async t => {
    const sandbox = new Sandbox('crash-signals')
    try {
      const world = new World(sandbox)
      const operation: Operation = { name, args, setUp, repeatable: false }
      const prepared = await prepare(t, world, operation)
      const calls = prepared.calls.filter(({ main }) => main)
      const chosen = sample(calls.map((_, index) => index + 1), 6, 4)
      const ends = new Set<number>()
      for (const [index, at] of chosen.entries()) {
        world.restore(prepared.before)
        const signal = sent[index % sent.length]!
        const paused = await world.paused(args, at)
        paused.signal(signal)
        const { rc, stderr } = await paused.goOn()
        ends.add(rc)
        const label = `${name}, ${signal} at call ${at} of ${calls.length} (${calls[at - 1]!.op}): ${rc} ${stderr}`
        t.true(rc === 0 || rc === signals[signal], label)
        t.notRegex(stderr, /\n\s+at |undefined/, label)
        t.is(sandbox.sh("find world -name 'lock.*'").stdout, '', label)
        const state = await judge(t, world, operation, prepared, label)
        if (rc === 0) t.is(state, 'after', label)
      }
      // One that does not wait for anything any more is done before it hears of a signal.
      if (haveBorg) t.is(world.borgCheck(), undefined)
      t.log(`${chosen.length} of ${calls.length} calls, exit codes ${[...ends].join(' ')}`)
    } finally {
      sandbox.close()
    }
  })
}
