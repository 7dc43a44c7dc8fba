/** What is stored of a file that was exchanged between being looked at and being opened: nothing. */
import test from 'ava'
import { spawnSync } from 'node:child_process'
import { lstatSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { chunkerFor } from '../../../src/engine/chunker/params.js'
import { parseCompression } from '../../../src/engine/codec/spec.js'
import { plaintextKey } from '../../../src/engine/crypto/keys.js'
import type { NonceSource } from '../../../src/engine/crypto/nonces.js'
import { ContentStore, SmallFile, type ContentResult } from '../../../src/engine/operations/content-store.js'
import { LocalRepository } from '../../../src/engine/repository/local-repository.js'
import { createRepository } from '../../../src/engine/repository/repository-creation.js'
import { ChunkWriter } from '../../../src/engine/store/chunk-writer.js'
import { Workers } from '../../../src/engine/store/workers.js'
import { Sandbox } from '../../helpers/sandbox.js'

const key = plaintextKey(), codec = parseCompression('none')
const parts = { due: () => false, reading() {}, save: () => Promise.resolve(), add: () => Promise.resolve(), abandoned() {} }

test('a file that is another one by then is a failure, be it short or long, wherever it was exchanged', async t => {
  const sandbox = new Sandbox('exchanged')
  const workers = new Workers({ key, codec, count: 1 })
  createRepository(sandbox.path('repo'))
  const repository = await LocalRepository.open(sandbox.path('repo'), { lock: 'exclusive', lockWaitMs: 0, log: { write() {} } })
  try {
    const folder = sandbox.mkdir('n', 'd'), secrets = sandbox.mkdir('secrets')
    await repository.transaction(async tx => {
      const writer = new ChunkWriter({ repository, transaction: tx, key, nonces: undefined as unknown as NonceSource, codec, workers })
      const store = new ContentStore(writer, chunkerFor(['buzhash', 10, 13, 11, 4095], 0), parts, undefined)
      const stored = async (path: string, size: number, exchange: () => void): Promise<ContentResult> => {
        const { ino, dev } = lstatSync(path, { bigint: true })
        exchange()
        const found = store.store({ kind: 'file', path: Buffer.from(path), size, ino, dev }, undefined)
        return found instanceof SmallFile ? store.settled(found) : found
      }
      for (const size of [100, 100_000]) {
        const [path, secret] = [`${folder}/f`, `${secrets}/f`]
        const fresh = (): void => {
          sandbox.sh('rm -rf n secrets; mkdir -p n/d secrets')
          writeFileSync(path, Buffer.alloc(size, 'a'))
          writeFileSync(secret, Buffer.alloc(size, 'b'))
        }
        const reasonOf = (result: ContentResult): string | undefined => (result.kind === 'failed' ? result.error.reason ?? result.error.code : 'stored')
        fresh()
        t.is(reasonOf(await stored(path, size, () => undefined)), 'stored')
        fresh()
        t.is(reasonOf(await stored(path, size, () => renameSync(secret, path))), 'file inode changed (race condition), skipping file')
        fresh()
        t.is(reasonOf(await stored(path, size, () => {
          rmSync(folder, { recursive: true })
          symlinkSync(secrets, folder)
        })), 'file inode changed (race condition), skipping file')
        fresh()
        t.is(reasonOf(await stored(path, size, () => {
          rmSync(path)
          spawnSync('mkfifo', [path])
        })), 'file type changed (race condition), skipping file')
        fresh()
        t.is(reasonOf(await stored(path, size, () => rmSync(path))), 'ENOENT')
      }
      await writer.drain()
    })
  } finally {
    await repository.close()
    await workers.close()
    sandbox.close()
  }
})
