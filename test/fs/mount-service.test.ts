import test from 'ava'
import { BorgError } from '../../src/engine/errors.js'
import { silentLog } from '../../src/engine/log.js'
import { EngineClient } from '../../src/fs/engine-client.js'
import type { ArchiveInfo, EngineReplies, EngineRequest, WireError } from '../../src/fs/engine-port.js'
import { MountService, type MountServiceOptions, type MountSource } from '../../src/fs/mount-service.js'
import { archiveInfo, RecordingLog } from '../helpers/mount-fixtures.js'

function make(changes: Partial<MountServiceOptions> = {}) {
  const state = { transaction: 1, known: 1, archives: [archiveInfo('one')] as ArchiveInfo[], next: [archiveInfo('one')] as ArchiveInfo[], locks: [] as string[] }
  const source: MountSource = {
    archives: () => state.archives,
    async reload() {
      state.archives = state.next
    },
    async head() {
      throw new BorgError('Archive.DoesNotExist', 'Archive x does not exist', 30)
    },
    async tree() {
      throw new Error('a bug')
    },
    async treeChunks() {
      throw new Error('a bug')
    },
    async deduplicatedSize() {
      return 3
    },
    async chunks(request, slab) {
      new Uint8Array(slab)[0] = request.sizes[0]!
      return { data: new Uint8Array([1, 2]), failures: [] }
    },
    async statfs() {
      return { blocks: 1, bfree: 1, bavail: 1, files: 1, ffree: 1, bsize: 1, frsize: 1, namelen: 255 }
    },
  }
  const client: EngineClient = new EngineClient({ post: (message) => service.receive(message) })
  const lists: string[][] = []
  client.onArchives = (archives) => lists.push(archives.map(({ name }) => Buffer.from(name).toString()))
  const repository = {
    acquireLock: async (kind: string) => void state.locks.push(kind),
    releaseLock: () => void state.locks.push('release'),
    lastTransaction: async () => state.transaction,
    async refresh() {
      const changed = state.known !== state.transaction
      state.known = state.transaction
      return changed
    },
  }
  const service: MountService = new MountService({
    source, repository, locked: false, holdLock: false, refreshMs: 0, log: silentLog, lockWaitMs: 0,
    channel: { post: (message) => client.deliver(message) },
    ...changes,
  })
  const ask = <K extends EngineRequest['kind']>(request: Extract<EngineRequest, { kind: K }>) =>
    new Promise<{ error: WireError | undefined; value: EngineReplies[K] }>((resolve) => client.request<K>(request, (error, value) => resolve({ error, value })))
  return { state, service, client, lists, ask, repository }
}

test('answers carry values, chunks go to the slab that was handed over', async (t) => {
  const { ask, service, state } = make()
  const slab = new SharedArrayBuffer(8)
  await ask({ kind: 'start', slab })
  const { value } = await ask({ kind: 'chunks', ids: new Uint8Array(32), sizes: Uint32Array.of(9), pages: new Uint32Array(0), starts: Uint32Array.of(0), urgent: true })
  t.deepEqual([...value.data], [1, 2])
  t.is(new Uint8Array(slab)[0], 9)
  await service.close()
  t.deepEqual(state.locks, ['shared', 'release'])
})

test('errors arrive as the errno the kernel is told', async (t) => {
  const { ask, service } = make()
  t.deepEqual((await ask({ kind: 'head', archive: 'x' })).error, { code: 'ENOENT', msgid: 'Archive.DoesNotExist', message: 'Archive x does not exist' })
  t.like((await ask({ kind: 'tree', archive: 'x' })).error, { code: 'EIO', message: 'a bug' })
  t.like((await ask({ kind: 'commit', staged: 1, patient: true })).error, { message: 'this mount is read-only' })
  await service.close()
})

test('a commit of another client is pushed as a new list, once', async (t) => {
  const { service, state, lists } = make()
  await service.lease.check()
  t.deepEqual(lists, [])
  state.transaction = 4
  state.next = [archiveInfo('one'), archiveInfo('two')]
  await service.lease.check()
  await service.lease.check()
  t.deepEqual(lists, [['one', 'two']])
  await service.close()
})

test('a commit of our own runs with the exclusive lock and brings the new list with the answer', async (t) => {
  const order: string[] = []
  const { service, state, lists, ask } = make({
    commit: async () => {
      order.push(state.locks.at(-1)!)
      state.archives = [...state.archives, archiveInfo('made')]
      return { archive: archiveInfo('made'), numbers: { fileCount: 0, originalSize: 0, newBytes: 0 } }
    },
  })
  const { value } = await ask({ kind: 'commit', staged: {}, patient: true })
  t.is(Buffer.from(value.archive.name).toString(), 'made')
  t.deepEqual(order, ['exclusive'])
  t.deepEqual(value.archives?.map((info) => Buffer.from(info.name).toString()), ['one', 'made'])
  // Pushed as well it would come a second time.
  t.deepEqual(lists, [])
  await service.close()
  t.deepEqual(state.locks, ['exclusive', 'shared', 'release'])
})

test('finishing asks the FUSE thread and gives what it reports', async (t) => {
  const { service, client } = make()
  client.onFinish = () => client.finished(['all committed'])
  t.deepEqual(await service.finish(), ['all committed'])
  await service.close()
})

test('a look at the repository that fails in the middle of a commit of somebody is not told of; what does not pass is, once', async (t) => {
  const log = new RecordingLog()
  let looks = 0, failures = 1
  const made = make({ log, refreshMs: 1 })
  Object.assign(made.repository, {
    async lastTransaction() {
      looks++
      if (failures-- > 0) throw new Error('no index')
      return 1
    },
  })
  const after = async (count: number): Promise<void> => {
    const wanted = looks + count
    while (looks < wanted) await new Promise(resolve => setTimeout(resolve, 1))
  }
  await after(5)
  t.deepEqual(log.lines, [])
  failures = 20
  await after(30)
  t.is(log.lines.filter(line => line.includes('could not be looked at: no index')).length, 1)
  failures = 20
  await after(30)
  t.is(log.lines.length, 2)
  await made.service.close()
})
