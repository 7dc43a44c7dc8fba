import test from 'ava'
import { parseLocation } from '../../src/engine/location.js'

test('an archive follows the first `::`, and is a name, not a path', t => {
  for (const [text, path, archive] of [
    ['/r::a', '/r', 'a'], ['/r::a::b', '/r', 'a::b'], ['r::a:b', 'r', 'a:b'], ['/r:x::a', '/r:x', 'a'], ['file:///r::a', '/r', 'a'], ['ssh://h/r::a::b', '/r', 'a::b'], ['h:r::a', 'r', 'a'], ['/r', '/r', undefined],
  ] as const) {
    const found = parseLocation(text)
    t.is(found?.path, path, text)
    t.is(found?.archive, archive, text)
  }
})

test('what is neither a repository nor an archive is refused, and is no path of that name', t => {
  for (const text of ['/r::a/b', '::a/b', '/r::', 'r::a/', ':', '::', 'ssh://h/r::a/b', 'file:///r::a/b', 'h:r::a/b', '']) t.is(parseLocation(text), undefined, text)
})

test('what is missing in front of `::` comes from BORG_REPO', t => {
  t.like(parseLocation('::a', '/r'), { path: '/r', archive: 'a' })
  t.like(parseLocation('::', '/r'), { path: '/r', archive: undefined })
  t.is(parseLocation('::a/b', '/r'), undefined)
  t.is(parseLocation('::a', '/r::b'), undefined)
})
