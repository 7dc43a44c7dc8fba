/** The tree of what is staged, where it is larger than most. */
import test from 'ava'
import { Journal } from '../../../src/fs/incoming/journal.js'
import { replay } from '../../../src/fs/incoming/journal-replay.js'
import { type NodeFacts, Nodes, rootId, typeDirectory, typeFile } from '../../../src/fs/incoming/nodes.js'
import { Sandbox } from '../../helpers/sandbox.js'

const facts = (mode: number): NodeFacts => ({ mode, rdev: 0, target: undefined, uid: 0, gid: 0, atimeNs: 0n, mtimeNs: 0n, ctimeNs: 0n })

test('a directory of half a million files is dropped with all above it', t => {
  const nodes = new Nodes(facts(typeDirectory | 0o755))
  const root = nodes.get(rootId)!
  const inner = nodes.add(nodes.add(root, 'tree', facts(typeDirectory | 0o755)), 'inner', facts(typeDirectory | 0o755))
  const file = facts(typeFile | 0o644)
  // More than a call can have arguments, also on the larger stack of a thread.
  const count = 500_000
  for (let index = 0; index < count; index++) nodes.add(inner, `f${index}`, file)
  t.is(nodes.dropTree(root, 'tree').length, count)
  t.is([...nodes.all()].length, 1)
})

test('twenty thousand directories, each in the one before, are walked, journalled, read back and dropped', t => {
  const sandbox = new Sandbox('nodes-deep')
  try {
    const directory = facts(typeDirectory | 0o755), depth = 20_000
    const nodes = new Nodes(directory)
    const root = nodes.get(rootId)!
    let above = root
    for (let count = 0; count < depth; count++) above = nodes.add(above, 'd', directory)
    nodes.add(above, 'file', facts(typeFile | 0o644))
    const journal = Journal.open(sandbox.path('journal'))
    journal.rewrite(nodes)
    journal.close()
    const again = new Nodes(directory)
    t.is(replay(sandbox.path('journal'), again), 0)
    const walked = (of: Nodes): number[] => Array.from(of.walk(of.child(of.get(rootId)!, 'd')!), ({ node }) => node.id)
    t.is(walked(again).length, depth + 1)
    t.deepEqual(walked(again), walked(nodes))
    t.is(again.dropTree(again.get(rootId)!, 'd').length, 1)
    t.is(again.count, 1)
  } finally {
    sandbox.close()
  }
})
