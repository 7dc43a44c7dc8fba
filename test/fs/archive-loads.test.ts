import test from 'ava'
import { ArchiveLoads } from '../../src/fs/archive-loads.js'
import { EngineClient } from '../../src/fs/engine-client.js'
import type { ArchiveHead, EngineRequest, ToEngine } from '../../src/fs/engine-port.js'

const nothing = Buffer.alloc(0)
const headWith = (comment: string): ArchiveHead => ({ facts: { comment: Buffer.from(comment), hostname: nothing, username: nothing }, root: undefined })

test('the head of an archive that became another one while it was asked for is asked for again', t => {
  const asked: { id: number; request: EngineRequest }[] = []
  const client = new EngineClient({ post: (message: ToEngine) => void (message.type === 'request' && asked.push(message)) })
  const loads = new ArchiveLoads({ name: Buffer.from('a'), id: '01', timeNs: 0n }, 1000, client, { treeComes: () => () => {}, treeGoes() {}, treeGrew() {} })
  const told: (string | undefined)[] = []
  for (let waiter = 0; waiter < 2; waiter++) loads.whenHead(error => told.push(error?.code ?? loads.head?.facts.comment.toString()))
  loads.become({ name: Buffer.from('a'), id: '02', timeNs: 0n })
  client.deliver({ type: 'reply', id: asked[0]!.id, value: headWith('old') })
  t.deepEqual(told, [])
  t.deepEqual(asked.map(({ request }) => request), [{ kind: 'head', archive: '01' }, { kind: 'head', archive: '02' }])
  client.deliver({ type: 'reply', id: asked[1]!.id, value: headWith('new') })
  t.deepEqual(told, ['new', 'new'])
})
