import test from 'ava'
import { parseArgs } from '../../src/cli/args.js'

test('an old name of a flag sets the flag that it means, beside it and without it', t => {
  for (const [command, old, name] of [['create', '--numeric-owner', 'numeric-ids'], ['extract', '--numeric-owner', 'numeric-ids'], ['mount', '--numeric-owner', 'numeric-ids'],
    ['create', '--nobsdflags', 'noflags'], ['extract', '--nobsdflags', 'noflags']] as const) {
    t.true(parseArgs([command, old, 'repo', 'place'], 'borg').values[name], `${command} ${old}`)
    t.true(parseArgs([command, old, `--${name}`, 'repo', 'place'], 'borg').values[name], `${command} ${old} and the new name`)
    t.false(parseArgs([command, 'repo', 'place'], 'borg').values[name], `${command} without either`)
  }
})
