import test from 'ava'
import { readdirSync, readlinkSync } from 'node:fs'
import { silentLog } from '../../../src/engine/log.js'
import { chunkId, type ChunkId } from '../../../src/engine/ids.js'
import { files, replaceFiles } from '../../../src/engine/platform/files.js'
import { checkRepository } from '../../../src/engine/repository/check.js'
import { LocalRepository } from '../../../src/engine/repository/local-repository.js'
import { createRepository } from '../../../src/engine/repository/repository-creation.js'
import { hostError } from '../../helpers/full-disk.js'
import { Sandbox } from '../../helpers/sandbox.js'

const options = { lock: 'exclusive', lockWaitMs: 0, log: silentLog, forCheck: true } as const
const id = (byte: number): ChunkId => chunkId(Buffer.alloc(32, byte))

test.serial('what a writer has in hand and a reader could not write out is never committed', async t => {
  const sandbox = new Sandbox('failed-write')
  const real = files
  try {
    const path = sandbox.path('repo')
    createRepository(path)
    const repository = await LocalRepository.open(path, options)
    await repository.transaction(async tx => {
      for (const number of [1, 2]) await tx.put(id(number), Buffer.from(`object ${number}`))
    })
    const before = repository.transactionId
    await t.throwsAsync(repository.transaction(async tx => {
      // The DELETE waits to be written together with what follows.
      await tx.delete(id(1))
      replaceFiles({ ...real, writeAllOf(fd, parts) {
        real.writeAll(fd, parts[0]!.subarray(0, 5))
        throw hostError('EIO')
      } })
      await t.throwsAsync(repository.leased(() => Promise.resolve()), { code: 'EIO' })
      replaceFiles(real)
      await tx.put(id(3), Buffer.from('object 3'))
    }), { code: 'EIO' })
    t.is(repository.transactionId, before)
    await repository.transaction(tx => tx.put(id(4), Buffer.from('object 4')))
    await repository.close()
    const after = await LocalRepository.open(path, options)
    t.true(await checkRepository(after, { mode: 'plain' }, {}))
    t.deepEqual([1, 2, 3, 4].map(number => after.has(id(number))), [true, true, false, true])
    t.is(String(await after.get(id(4))), 'object 4')
    await after.close()
  } finally {
    replaceFiles(real)
    sandbox.close()
  }
})

test.serial('nothing is committed with a file that could not be begun, whoever heard of it', async t => {
  const sandbox = new Sandbox('failed-write')
  const real = files
  try {
    const path = sandbox.path('repo')
    createRepository(path)
    const repository = await LocalRepository.open(path, options)
    await repository.transaction(tx => tx.put(id(1), Buffer.from('object 1')))
    const leftOpen = (): string[] => readdirSync('/proc/self/fd').map(fd => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`)
      } catch {
        return ''
      }
    }).filter(file => file.startsWith(path) && file.endsWith('(deleted)'))
    const before = repository.transactionId
    await t.throwsAsync(repository.transaction(async tx => {
      replaceFiles({ ...real, writeAll(fd, bytes) {
        real.writeAll(fd, bytes.subarray(0, 3))
        throw hostError('ENOSPC')
      } })
      await t.throwsAsync(async () => tx.put(id(2), Buffer.from('object 2')), { code: 'ENOSPC' })
      replaceFiles(real)
      await tx.put(id(3), Buffer.from('object 3'))
    }), { code: 'ENOSPC' })
    t.deepEqual([repository.transactionId, leftOpen()], [before, []])
    await repository.transaction(tx => tx.put(id(4), Buffer.from('object 4')))
    await repository.close()
    const after = await LocalRepository.open(path, options)
    t.true(await checkRepository(after, { mode: 'plain' }, {}))
    t.deepEqual([1, 2, 3, 4].map(number => after.has(id(number))), [true, false, false, true])
    await after.close()
  } finally {
    replaceFiles(real)
    sandbox.close()
  }
})
