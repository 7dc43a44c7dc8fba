/** The config file and copies of a repository that share their files with it (cp -al). */
import test from 'ava'
import { cpSync, linkSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { silentLog } from '../../../src/engine/log.js'
import { compactRepository } from '../../../src/engine/repository/compact.js'
import { LocalRepository } from '../../../src/engine/repository/local-repository.js'
import { createRepository } from '../../../src/engine/repository/repository-creation.js'
import { chunkId } from '../../../src/engine/ids.js'
import { Sandbox } from '../../helpers/sandbox.js'

test('a copy by hard links keeps its config and its segments when the repository changes', async t => {
  const sandbox = new Sandbox('links')
  try {
    const path = sandbox.path('repo'), copy = sandbox.path('copy'), backup = sandbox.path('backup')
    createRepository(path)
    const repository = await LocalRepository.open(path, { lock: 'exclusive', lockWaitMs: 0, log: silentLog })
    const id = chunkId(Buffer.alloc(32, 7))
    await repository.saveKey('first key')
    await repository.transaction(tx => tx.put(id, Buffer.from('value')))
    cpSync(path, copy, { recursive: true })
    mkdirSync(join(backup, 'data', '0'), { recursive: true })
    linkSync(join(path, 'config'), join(backup, 'config'))
    for (const name of readdirSync(join(path, 'data', '0'))) linkSync(join(path, 'data', '0', name), join(backup, 'data', '0', name))

    await repository.saveKey('second key')
    await repository.saveKey('third key')
    await repository.transaction(tx => tx.delete(id))
    await compactRepository(repository, { thresholdPercent: 0 }, {})
    await repository.close()
    t.is(readFileSync(join(backup, 'config'), 'utf8'), readFileSync(join(copy, 'config'), 'utf8'))
    for (const name of readdirSync(join(copy, 'data', '0'))) t.deepEqual(readFileSync(join(backup, 'data', '0', name)), readFileSync(join(copy, 'data', '0', name)), name)
    t.true(readFileSync(join(path, 'config'), 'utf8').includes('third key'))
    t.false(readdirSync(path).includes('config.old'))
  } finally {
    sandbox.close()
  }
})
