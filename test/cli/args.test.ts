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

test('a value may look like an option if it is a sentence, unless it begins with an option that there is', t => {
  for (const comment of ['--foo bar', '-z bar', '--stats too', '- x', '-1']) t.is(parseArgs(['create', '--comment', comment, 'repo::a', 'place'], 'borg').values.comment, comment)
  for (const comment of ['-e bar', '--stats=1 x', '--foo', '-z']) t.throws(() => parseArgs(['create', '--comment', comment, 'repo::a', 'place'], 'borg'), { message: /expected one argument/ }, comment)
})

test('behind a word that is missing, those are named too of which there may be none, as by Borg', t => {
  const cases: [string[], string][] = [
    [['mount', 'repo'], 'MOUNTPOINT, PATH'], [['mount'], 'REPOSITORY_OR_ARCHIVE, MOUNTPOINT, PATH'], [['extract'], 'ARCHIVE, PATH'], [['diff', 'repo::a'], 'ARCHIVE2, PATH'],
    [['export-tar', 'repo::a'], 'FILE, PATH'], [['with-lock', 'repo'], 'COMMAND, ARGS'], [['rename', 'repo::a'], 'NEWNAME'],
  ]
  for (const [words, missing] of cases) t.throws(() => parseArgs(words, 'borg'), { message: new RegExp(`the following arguments are required: ${missing}$`) }, words.join(' '))
})
