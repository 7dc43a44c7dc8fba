import test from 'ava'
import type { Item } from '../../src/engine/archive/item.js'
import { versionedName, VersionNames } from '../../src/fs/versions.js'
import { Contents, directoryMode, item, linkMode } from '../helpers/mount-fixtures.js'

for (const [name, expected] of [
  ['a.txt', 'a.00007.txt'], ['sp ace.tar.gz', 'sp ace.tar.00007.gz'], ['noext', 'noext.00007'], ['.bashrc', '.bashrc.00007'], ['..x', '..x.00007'], ['.a.b', '.a.00007.b'], ['end.', 'end.00007.'],
] as const) test(`version 7 of ${name} is ${expected}`, t => t.is(versionedName(Buffer.from(name), 7).toString(), expected))

test('the number goes up with the contents only; what has no contents has no number; links follow their file', t => {
  const contents = new Contents()
  const one = contents.list(Buffer.from('one')), two = contents.list(Buffer.from('two'))
  const names = new VersionNames()
  const shown = (...items: Item[]): (string | undefined)[] => {
    const { select } = names.over({})
    return items.map(each => select!(each)?.toString())
  }
  const file = (path: string, chunks: typeof one) => item(path, { chunks })
  const link = item('d/hard', { source: Buffer.from('d/a.txt') })
  t.deepEqual(shown(item('d', { mode: directoryMode }), file('d/a.txt', one), link, item('l', { mode: linkMode, source: Buffer.from('x') }), item('p', { mode: 0o010644 })),
    ['d', 'd/a.txt/a.00001.txt', 'd/hard/hard.00001', 'l/l', 'p/p'])
  t.deepEqual(shown(file('d/a.txt', one), link), ['d/a.txt/a.00001.txt', 'd/hard/hard.00001'])
  t.deepEqual(shown(file('d/a.txt', two), link), ['d/a.txt/a.00002.txt', 'd/hard/hard.00002'])
  t.deepEqual(shown(file('d/a.txt', one)), ['d/a.txt/a.00003.txt'])
  t.is(names.over({}).sourcePath!(Buffer.from('d/a.txt')).toString(), 'd/a.txt/a.00003.txt')
})
