import test from 'ava'
import { ArchiveLoads } from '../../src/fs/archive-loads.js'
import { EngineClient } from '../../src/fs/engine-client.js'
import type { ArchiveHead, EngineRequest, ToEngine } from '../../src/fs/engine-port.js'
import { Errno } from '../../src/fs/types.js'
import { build, call, item } from '../helpers/mount-fixtures.js'

const nothing = Buffer.alloc(0)
const headWith = (comment: string): ArchiveHead => ({ facts: { comment: Buffer.from(comment), hostname: nothing, username: nothing }, root: undefined })

interface Asked {
  readonly id: number
  readonly request: EngineRequest
}

function loading(treeComes: () => void = () => {}): { loads: ArchiveLoads; asked: Asked[]; client: EngineClient } {
  const asked: Asked[] = []
  const client = new EngineClient({ post: (message: ToEngine) => void (message.type === 'request' && asked.push(message)) })
  const loads = new ArchiveLoads({ name: Buffer.from('a'), id: '01', timeNs: 0n }, 1000, client, {
    treeComes() {
      treeComes()
      return () => {}
    },
    treeGoes() {}, treeGrew() {},
  })
  return { loads, asked, client }
}

test('a tree that cannot be shown is EIO for all who waited, and asked for again by the next', t => {
  let broken = true
  const { loads, asked, client } = loading(() => {
    if (broken) throw new Error('not to be shown')
  })
  const told: (string | undefined)[] = []
  for (let waiter = 0; waiter < 2; waiter++) loads.whenTree(error => told.push(error?.code))
  t.throws(() => client.deliver({ type: 'reply', id: asked[0]!.id, value: build([item('f')]) }), { message: 'not to be shown' })
  t.deepEqual(told, ['EIO', 'EIO'])
  broken = false
  loads.whenTree(error => told.push(error?.code))
  client.deliver({ type: 'reply', id: asked[1]!.id, value: build([item('f')]) })
  t.deepEqual(told, ['EIO', 'EIO', undefined])
})

test('who asks of a tree what throws is answered EIO, and the others what they asked', t => {
  const { loads, asked, client } = loading()
  const [broken, other] = [call<number>(), call<number>()]
  loads.withTree(broken, () => {
    throw new Error('a fault')
  })
  loads.withTree(other, tree => tree.rowCount)
  t.throws(() => client.deliver({ type: 'reply', id: asked[0]!.id, value: build([item('f')]) }), { message: 'a fault' })
  t.is(broken.later(), Errno.EIO)
  t.is(other.later(), 2)
})

test('the tree and the chunks of an archive that became another one while they were asked for are asked for again', t => {
  const { loads, asked, client } = loading()
  const told: (string | undefined)[] = []
  loads.whenChunks(error => told.push(error?.code))
  loads.become({ name: Buffer.from('b'), id: '02', timeNs: 0n })
  const gone = { code: 'ESTALE', msgid: undefined, message: 'not in the repository any more' }
  client.deliver({ type: 'error', id: asked[0]!.id, error: gone })
  client.deliver({ type: 'reply', id: asked[1]!.id, value: { ...build([item('f')]), chunks: undefined, chunkCount: 1 } })
  loads.become({ name: Buffer.from('c'), id: '03', timeNs: 0n })
  client.deliver({ type: 'error', id: asked[2]!.id, error: gone })
  t.deepEqual(told, [])
  client.deliver({ type: 'reply', id: asked[3]!.id, value: new Uint8Array(40) })
  t.deepEqual(told, [undefined])
  t.deepEqual(asked.map(({ request }) => request), [
    { kind: 'tree', archive: '01' }, { kind: 'tree', archive: '02' }, { kind: 'tree-chunks', archive: '02' }, { kind: 'tree-chunks', archive: '03' },
  ])
})

test('the head of an archive that became another one while it was asked for is asked for again', t => {
  const { loads, asked, client } = loading()
  const told: (string | undefined)[] = []
  for (let waiter = 0; waiter < 2; waiter++) loads.whenHead(error => told.push(error?.code ?? loads.head?.facts.comment.toString()))
  loads.become({ name: Buffer.from('a'), id: '02', timeNs: 0n })
  client.deliver({ type: 'reply', id: asked[0]!.id, value: headWith('old') })
  t.deepEqual(told, [])
  t.deepEqual(asked.map(({ request }) => request), [{ kind: 'head', archive: '01' }, { kind: 'head', archive: '02' }])
  client.deliver({ type: 'reply', id: asked[1]!.id, value: headWith('new') })
  t.deepEqual(told, ['new', 'new'])
})
