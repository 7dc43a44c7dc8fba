import test from 'ava'
import { createHash } from 'node:crypto'
import { extentBytes, Extents } from '../../../src/fs/incoming/extents.js'
import { Journal } from '../../../src/fs/incoming/journal.js'
import { replay } from '../../../src/fs/incoming/journal-replay.js'
import { Nodes, rootId } from '../../../src/fs/incoming/nodes.js'
import { Sandbox } from '../../helpers/sandbox.js'

const id = (number: number): Buffer => createHash('sha256').update(String(number)).digest()
const fileSize = 400

/** A file as the extents say it is: for each byte chunk and offset within, or nothing. */
function drawn(extents: Extents): string[] {
  const bytes = new Array<string>(fileSize).fill('')
  let end = -1
  for (let index = 0; index < extents.count; index++) {
    const { at, length, from, id: chunk, size } = extents.get(index)
    if (at < end) throw new Error('extents overlap or are out of order')
    if (length === 0 || from + length > size) throw new Error('an extent is empty or longer than its chunk')
    end = at + length
    for (let byte = 0; byte < length; byte++) bytes[at + byte] = `${chunk.toString('hex').slice(0, 8)}+${from + byte}`
  }
  return bytes
}

function random(seed: number): (below: number) => number {
  let state = seed
  return below => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    return (state >>> 8) % below
  }
}

test('put, remove, slice and find do to packed rows what they do to a file drawn byte by byte', t => {
  for (let seed = 1; seed <= 40; seed++) {
    const next = random(seed)
    const extents = new Extents()
    const model = new Array<string>(fileSize).fill('')
    for (let step = 0; step < 60; step++) {
      const at = next(fileSize - 60)
      if (next(3) > 0) {
        const added = new Extents()
        let end = at
        for (let count = 1 + next(3); count > 0 && end < fileSize - 20; count--) {
          const number = next(5), from = next(3)
          const size = 5 + number * 3
          added.push(end, size - from, from, id(number), size, size + 7)
          for (let byte = from; byte < size; byte++) model[end + byte - from] = `${id(number).toString('hex').slice(0, 8)}+${byte}`
          end += size - from
        }
        extents.put(added)
      } else {
        const end = at + 1 + next(50)
        extents.remove(at, end)
        model.fill('', at, end)
      }
      t.deepEqual(drawn(extents), model, `seed ${seed}, step ${step}`)
      const [start, stop] = [next(200), 200 + next(200)]
      const slice = new Array<string>(fileSize).fill('')
      model.slice(start, stop).forEach((byte, index) => slice[index] = byte)
      t.deepEqual(drawn(extents.slice(start, stop, 0)), slice)
      let covered = start
      while (covered < fileSize && model[covered] !== '') covered++
      t.is(extents.coveredFrom(start), covered)
      t.is(extents.bytes, model.filter(Boolean).length)
      t.is(extents.overlaps(start, stop), model.slice(start, stop).some(Boolean))
    }
    t.deepEqual(drawn(new Extents(extents.rows)), model)
  }
})

test('a chunk that was cloned in two halves is one extent again', t => {
  const extents = new Extents()
  const half = (at: number, from: number): Extents => {
    const part = new Extents()
    part.push(at, 50, from, id(1), 100, 0)
    return part
  }
  extents.put(half(10, 0))
  extents.put(half(60, 50))
  t.is(extents.count, 1)
  t.like(extents.get(0), { at: 10, length: 100, from: 0, size: 100 })
  t.is(extents.rows.length, extentBytes)
})

test('clones and cuts come back from the journal, rewritten or not', t => {
  const sandbox = new Sandbox('extents')
  try {
    const facts = (mode: number) => ({ mode, uid: 0, gid: 0, rdev: 0, atimeNs: 0n, mtimeNs: 0n, ctimeNs: 0n })
    const nodes = new Nodes(facts(0o040755))
    const nodesOf = (): Nodes => new Nodes(facts(0o040755))
    const path = sandbox.path('journal')
    const journal = Journal.open(path)
    const node = nodes.add(nodes.get(rootId)!, 'f', facts(0o100644))
    journal.created(node, rootId, 'f')
    node.extents = new Extents()
    // More than one record.
    for (let number = 0; number < 2500; number++) node.extents.push(number * 10, 10, 0, id(number), 10, 5)
    journal.cloned(node.id, node.extents)
    node.extents.remove(15, 12_345)
    journal.cut(node.id, 15, 12_345)
    t.is(replay(path, nodesOf()), 0)
    const settled = (): boolean => {
      const again = nodesOf()
      replay(path, again)
      return again.get(node.id)!.settled
    }
    t.false(settled())
    journal.settled(node.id)
    t.true(settled())
    journal.cloned(node.id, node.extents)
    t.false(settled())
    journal.settled(node.id)
    node.settled = true
    for (const rewritten of [false, true]) {
      if (rewritten) journal.rewrite(nodes)
      t.true(settled())
      const again = new Nodes(facts(0o040755))
      t.is(replay(path, again), 0)
      t.deepEqual(again.get(node.id)!.extents!.rows, node.extents.rows)
    }
    journal.close()
  } finally {
    sandbox.close()
  }
})
