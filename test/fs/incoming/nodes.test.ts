/** The tree of what is staged, where it is larger than most. */
import test from 'ava'
import { type NodeFacts, Nodes, rootId, typeDirectory, typeFile } from '../../../src/fs/incoming/nodes.js'

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
