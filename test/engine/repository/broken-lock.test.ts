/** A lock that is broken under a running process: no commit is lost, none is mixed with another. */
import test from 'ava'
import { readdirSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { silentLog } from '../../../src/engine/log.js'
import { chunkId, type ChunkId } from '../../../src/engine/ids.js'
import { files, replaceFiles } from '../../../src/engine/platform/files.js'
import { checkRepository } from '../../../src/engine/repository/check.js'
import { commitEntry } from '../../../src/engine/repository/entry.js'
import { LockLost, LockTimeout } from '../../../src/engine/repository/errors.js'
import { breakLock } from '../../../src/engine/repository/lock.js'
import { LocalRepository } from '../../../src/engine/repository/local-repository.js'
import { createRepository } from '../../../src/engine/repository/repository-creation.js'
import { Sandbox } from '../../helpers/sandbox.js'

const open = (path: string): Promise<LocalRepository> => LocalRepository.open(path, { lock: 'exclusive', lockWaitMs: 0, log: silentLog })
const id = (byte: number): ChunkId => chunkId(Buffer.alloc(32, byte))

test('a writer whose lock was broken commits nothing, and leaves what the next writer wrote', async t => {
  const sandbox = new Sandbox('broken-lock')
  try {
    const path = sandbox.path('repo')
    createRepository(path)
    const first = await open(path)
    await first.transaction(tx => tx.put(id(1), Buffer.from('before')))
    await t.throwsAsync(open(path), { instanceOf: LockTimeout })
    await t.throwsAsync(first.transaction(async tx => {
      await tx.put(id(2), Buffer.from('of the first'))
      breakLock(join(path, 'lock'))
      const second = await open(path)
      await second.transaction(inner => inner.put(id(3), Buffer.from('of the second')))
      await second.close()
    }), { instanceOf: LockLost })
    // Nonces set aside now might be used twice.
    await t.throwsAsync(first.reserveNonces(5n, undefined), { instanceOf: LockLost })
    await first.close().catch(() => undefined)

    const after = await LocalRepository.open(path, { lock: 'exclusive', lockWaitMs: 0, log: silentLog, forCheck: true })
    t.true(await checkRepository(after, { mode: 'plain' }, {}))
    t.deepEqual([after.has(id(1)), after.has(id(2)), after.has(id(3))], [true, false, true])
    await after.close()
  } finally {
    sandbox.close()
  }
})

/** What another client does the moment before a COMMIT is written, when the lock was looked at for the last time. */
for (const [what, meddle] of [
  ['alone', () => undefined],
  ['and what it stands for removed', (path: string, segment: number) => unlinkSync(join(path, 'data/0', String(segment)))],
] as const) {
  test.serial(`a COMMIT that is written after the lock was broken, ${what}, is taken back`, async t => {
    const sandbox = new Sandbox('late-lock')
    const real = files
    try {
      const path = sandbox.path('repo')
      createRepository(path)
      const first = await open(path)
      await first.transaction(tx => tx.put(id(1), Buffer.from('before')))
      const before = first.transactionId
      replaceFiles({ ...real, writeAllOf(fd, parts) {
        if (parts.some(part => commitEntry.equals(part))) {
          breakLock(join(path, 'lock'))
          meddle(path, before + 1)
        }
        real.writeAllOf(fd, parts)
      } })
      await t.throwsAsync(first.transaction(tx => tx.put(id(2), Buffer.from('late'))), { instanceOf: LockLost })
      replaceFiles(real)
      await first.close()
      t.deepEqual(readdirSync(path).filter(name => name.startsWith('index.')), [`index.${before}`])
      const after = await LocalRepository.open(path, { lock: 'exclusive', lockWaitMs: 0, log: silentLog, forCheck: true })
      t.is(after.transactionId, before)
      t.true(await checkRepository(after, { mode: 'plain' }, {}))
      t.deepEqual([after.has(id(1)), after.has(id(2))], [true, false])
      await after.close()
    } finally {
      replaceFiles(real)
      sandbox.close()
    }
  })
}
