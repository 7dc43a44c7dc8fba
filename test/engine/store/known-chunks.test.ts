/** What byte workers take for known while the repository's index lies in its file. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { parseCompression } from '../../../src/engine/codec/spec.js'
import type { NonceSource } from '../../../src/engine/crypto/nonces.js'
import { plaintextKey } from '../../../src/engine/crypto/keys.js'
import { chunkId, manifestId } from '../../../src/engine/ids.js'
import { LocalRepository } from '../../../src/engine/repository/local-repository.js'
import { createRepository } from '../../../src/engine/repository/repository-creation.js'
import type { Transaction } from '../../../src/engine/repository/repository.js'
import { ChunkReader } from '../../../src/engine/store/chunk-reader.js'
import { ChunkWriter } from '../../../src/engine/store/chunk-writer.js'
import { Workers } from '../../../src/engine/store/workers.js'

const folder = mkdtempSync(join(tmpdir(), 'borgfs-known-chunks-'))
test.after.always(() => rmSync(folder, { recursive: true }))

const key = plaintextKey(), codec = parseCompression('none')
const contents = Array.from({ length: 30 }, (_, number) => Buffer.from(`content of chunk ${number}`))

async function within(work: (repository: LocalRepository, workers: Workers) => Promise<void>): Promise<void> {
  const path = mkdtempSync(join(folder, 'repo-'))
  createRepository(path)
  const workers = new Workers({ key, codec, count: 2 })
  const open = (): Promise<LocalRepository> => LocalRepository.open(path, { lock: 'exclusive', lockWaitMs: 0, log: { write: () => undefined }, smallIndexBytes: 0 })
  let repository = await open()
  try {
    await repository.transaction(async tx => {
      await tx.put(manifestId, Buffer.from('manifest'))
      const writer = writerOf(repository, tx, workers)
      for (const bytes of contents) void writer.add(bytes)
      await writer.drain()
    })
    await repository.close()
    repository = await open()
    await work(repository, workers)
  } finally {
    await workers.close()
    await repository.close()
  }
}

function writerOf(repository: LocalRepository, transaction: Transaction, workers: Workers): ChunkWriter {
  return new ChunkWriter({ repository, transaction, key, nonces: undefined as unknown as NonceSource, codec, workers })
}

test('chunks of a former run are known, new ones stored once', async t => {
  await within(async (repository, workers) => {
    t.truthy(repository.sharedIndex().path)
    await repository.transaction(async tx => {
      const writer = writerOf(repository, tx, workers)
      const stored = await Promise.all([...contents, Buffer.from('new'), Buffer.from('new')].map(bytes => writer.add(bytes)))
      t.deepEqual(stored.map(({ isNew }) => isNew), [...contents.map(() => false), true, false])
      t.is((await writer.add(Buffer.from('new'))).isNew, false)
    })
  })
})

test('a chunk that was deleted after the workers were told is stored again', async t => {
  await within(async (repository, workers) => {
    await repository.transaction(async tx => {
      const writer = writerOf(repository, tx, workers)
      await writer.add(contents[0]!)
      await tx.delete(chunkId(key.idHash(contents[1]!)))
      const [kept, again, twice] = await Promise.all([writer.add(contents[0]!), writer.add(contents[1]!), writer.add(contents[1]!)])
      t.deepEqual([kept.isNew, again.isNew, twice.isNew], [false, true, false])
    })
    const reader = new ChunkReader(repository, workers)
    for (const bytes of contents) t.deepEqual(await reader.get(chunkId(key.idHash(bytes)), bytes.length), bytes)
  })
})
