/** What a transaction of deletions leaves when it is left half-way, and archives that share an id. */
import test from 'ava'
import { ArchiveWriter } from '../../../src/engine/archive/archive-writer.js'
import { ClientCache } from '../../../src/engine/cache/client-cache.js'
import { lz4 } from '../../../src/engine/codec/lz4.js'
import { Passphrases } from '../../../src/engine/crypto/passphrase.js'
import { deleteArchives } from '../../../src/engine/operations/delete.js'
import { initRepository } from '../../../src/engine/operations/init.js'
import { type OpenedRepository, openRepository } from '../../../src/engine/operations/open.js'
import { placesOf } from '../../../src/engine/platform/places.js'
import { LocalRepository } from '../../../src/engine/repository/local-repository.js'
import { createRepository } from '../../../src/engine/repository/repository-creation.js'
import { ChunkList } from '../../../src/engine/archive/chunk-list.js'
import { ChunkWriter } from '../../../src/engine/store/chunk-writer.js'
import { Workers } from '../../../src/engine/store/workers.js'
import { Sandbox } from '../../helpers/sandbox.js'

interface Opened {
  readonly opened: OpenedRepository<LocalRepository>
  readonly workers: Workers
  readonly cache: ClientCache
  close(): Promise<void>
}

const log = { write: () => undefined }
const prompt = { ask: () => Promise.resolve(undefined), say: () => undefined, confirm: () => Promise.resolve(true) }

async function open(sandbox: Sandbox): Promise<Opened> {
  const places = placesOf(sandbox.env())
  const repository = await LocalRepository.open(sandbox.path('repo'), { lock: 'exclusive', lockWaitMs: 1000, log })
  const opened = await openRepository(repository, { places, passphrases: new Passphrases(sandbox.env(), prompt), questions: prompt, operation: 'write' })
  const workers = new Workers({ key: opened.key, codec: lz4, count: 1 })
  const cache = await ClientCache.open(opened, { places, log, lockWaitMs: 1000, env: sandbox.env() })
  return {
    opened, workers, cache,
    async close() {
      cache.close()
      await workers.close()
      opened.key.wipe()
      await repository.close()
    },
  }
}

/** A repository of archives a0 … each of one file: half of its content is its own, half everybody's. */
async function make(sandbox: Sandbox, count: number): Promise<void> {
  const places = placesOf(sandbox.env())
  createRepository(sandbox.path('repo'))
  const repository = await LocalRepository.open(sandbox.path('repo'), { lock: 'exclusive', lockWaitMs: 1000, log })
  await initRepository(repository, { mode: 'none', places, passphrases: new Passphrases(sandbox.env(), prompt), typedPath: 'repo' })
  await repository.close()
  const { opened, workers, close } = await open(sandbox)
  await opened.repository.transaction(async tx => {
    const writer = new ChunkWriter({ repository: opened.repository, transaction: tx, key: opened.key, nonces: opened.nonces, codec: lz4, workers })
    for (let index = 0; index < count; index++) {
      const archive = new ArchiveWriter(writer, opened.objects)
      const stored = [writer.add(Buffer.from('shared by all')), writer.add(Buffer.from(`of archive ${index}`))]
      writer.flush()
      const item = {
        path: Buffer.from('file'), mode: 0o100644, uid: 0, gid: 0, user: null, group: null, mtimeNs: 0n,
        chunks: ChunkList.of(await Promise.all(stored)),
      }
      await archive.addItem(item)
      const time = `2024-05-01T0${index}:00:00.000000`
      const text = Buffer.from('x')
      await archive.save(`a${index}`, { comment: text, hostname: text, username: text, cmdline: [text], time, timeEnd: time, chunkerParams: ['buzhash', 19, 23, 21, 4095] }, tx, opened.manifest)
    }
    await opened.manifest.write(tx, opened.objects)
  })
  await close()
}

const names = ({ opened }: Opened): string[] => [...opened.manifest.archives.keys()]

test('what was committed by a checkpoint stays when the rest fails, in the repository, in memory and in the cache', async t => {
  const sandbox = new Sandbox('delete-checkpoint')
  try {
    await make(sandbox, 4)
    let session = await open(sandbox)
    await session.cache.sync(session.workers)
    const before = session.opened.repository.objectCount
    const doomed = session.opened.manifest.sorted().slice(0, 3)
    await t.throwsAsync(deleteArchives(session, doomed, { force: false, checkpointIntervalMs: 0.0001, considerParts: false }, {}, async deletion => {
      await deletion.delete(doomed[0]!)
      t.true(await deletion.maybeCheckpoint())
      await deletion.delete(doomed[1]!)
      throw new Error('pulled the plug')
    }), { message: 'pulled the plug' })
    t.deepEqual(names(session), ['a1', 'a2', 'a3'])
    // Its metadata, its items and its own chunk.
    t.is(session.opened.repository.objectCount, before - 3)
    await session.close()

    session = await open(sandbox)
    t.deepEqual(names(session), ['a1', 'a2', 'a3'])
    t.true(session.cache.inSync)
    const kept = (await session.cache.sync(session.workers)).summary()
    session.cache.discard()
    t.deepEqual((await session.cache.sync(session.workers)).summary(), kept)
    await session.close()
  } finally {
    sandbox.close()
  }
})

test('an archive that has two names is there until the last of them is deleted', async t => {
  const sandbox = new Sandbox('delete-shared')
  try {
    await make(sandbox, 2)
    const session = await open(sandbox)
    const { manifest, repository, objects } = session.opened
    const twin = manifest.get('a0')
    await repository.transaction(async tx => {
      manifest.archives.set('twin', { name: 'twin', id: twin.id, time: twin.time })
      await manifest.write(tx, objects)
    })
    const index = await session.cache.sync(session.workers)
    t.is(index.refcount(twin.id), 1, 'counted once, as with borg')
    const before = repository.objectCount
    const options = { force: false, checkpointIntervalMs: 0, considerParts: false }
    const one = [manifest.get('a0')]
    const nothing = await deleteArchives(session, one, options, {}, deletion => deletion.delete(one[0]!))
    t.deepEqual(nothing, { size: 0, csize: 0, uniqueCsize: 0 })
    t.is(repository.objectCount, before)
    const last = [manifest.get('twin')]
    const sums = await deleteArchives(session, last, options, {}, deletion => deletion.delete(last[0]!))
    t.true(sums.uniqueCsize > 0)
    t.is(repository.objectCount, before - 3)
    t.deepEqual(names(session), ['a1'])
    await session.close()
  } finally {
    sandbox.close()
  }
})

test('a chunks index that lacks a chunk ends the run with nothing deleted, and is not believed again', async t => {
  const sandbox = new Sandbox('delete-index')
  try {
    await make(sandbox, 2)
    const session = await open(sandbox)
    const index = await session.cache.sync(session.workers)
    const doomed = [session.opened.manifest.get('a0')]
    const before = session.opened.repository.objectCount
    index.remove(doomed[0]!.id)
    await t.throwsAsync(deleteArchives(session, doomed, { force: true, checkpointIntervalMs: 0, considerParts: false }, {}, deletion => deletion.delete(doomed[0]!)), { message: /missing from chunks index/ })
    t.is(session.opened.repository.objectCount, before)
    t.false(session.cache.inSync)
    await session.cache.sync(session.workers)
    await deleteArchives(session, doomed, { force: false, checkpointIntervalMs: 0, considerParts: false }, {}, deletion => deletion.delete(doomed[0]!))
    t.deepEqual(names(session), ['a1'])
    await session.close()
  } finally {
    sandbox.close()
  }
})
