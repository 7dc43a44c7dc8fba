import test from 'ava'
import type { ArchiveInfo } from '../../src/engine/archive/manifest.js'
import { type ChunkId, idKey } from '../../src/engine/ids.js'
import { chosenNow } from '../../src/fs/chosen-archives.js'

const archive = (name: string, id: number, time: string): ArchiveInfo => ({ name, id: Buffer.alloc(32, id) as unknown as ChunkId, time })
const [a, b, c] = [archive('a', 1, 'noon'), archive('b', 2, 'noon'), archive('c', 3, 'night')]
const known = new Set([a, b, c].map(({ id }) => idKey(id)))

test('an archive is followed under other names and ids, in the order that was chosen', t => {
  const [renamed, commented] = [archive('z', 4, 'night'), archive('a', 5, 'noon')]
  t.deepEqual(chosenNow([c, a], [commented, b, renamed], { byName: true, known }), [renamed, commented])
})

test('of archives begun at the same moment none stands for another: each is there once, and what is gone is gone', t => {
  const [other, another] = [archive('other', 4, 'noon'), archive('another', 5, 'noon')]
  for (const byName of [false, true]) {
    t.deepEqual(chosenNow([a, b], [other, b], { byName, known }), [other, b])
    t.deepEqual(new Set(chosenNow([a, b], [other, another], { byName, known })), new Set([other, another]))
    t.deepEqual(chosenNow([a, b], [b], { byName, known }), [b])
    // b was never chosen.
    t.deepEqual(chosenNow([a], [b, c], { byName, known }), [])
  }
})
