/** Commits that end before they begin. */
import test from 'ava'
import { writeFileSync } from 'node:fs'
import { ChunkIndex } from '../../../src/engine/cache/chunk-index.js'
import { files, replaceFiles } from '../../../src/engine/platform/files.js'
import type { StoreContext } from '../../../src/engine/operations/store-archive.js'
import type { CommitRequest } from '../../../src/fs/engine-port.js'
import { commitStaged, type CommitOptions } from '../../../src/fs/incoming/commit.js'
import { Sandbox } from '../../helpers/sandbox.js'

test('the cache that a commit opened to replace an archive is closed when its mark cannot be written', async t => {
  const sandbox = new Sandbox('commit-mark')
  const real = files
  try {
    const stagingFolder = sandbox.mkdir('staging')
    writeFileSync(`${stagingFolder}/journal`, '')
    const id = Buffer.alloc(32, 1)
    const context = { opened: { manifest: { archives: new Map([['t', { name: 't', id, time: '' }]]) } }, chunker: { params: 'fixed' } }
    let isOpen = false
    const options = { comment: Buffer.alloc(0), cmdline: [], nameTemplate: '{name}', openCache: () => {
      isOpen = true
      return Promise.resolve({ sync: () => Promise.resolve(new ChunkIndex()), references: () => Promise.resolve(new ChunkIndex()), close: () => void (isOpen = false) })
    } }
    const request = { staged: { name: 't', stagingFolder }, replaces: { id: id.toString('hex'), keepName: true, needed: new Uint8Array(0) } }
    replaceFiles({ ...real, open(path, ...rest) {
      if (path.includes('committing') && isOpen) throw Object.assign(new Error('full'), { code: 'ENOSPC', errno: -28 })
      return real.open(path, ...rest)
    } })
    await t.throwsAsync(commitStaged(context as unknown as StoreContext, request as unknown as CommitRequest, options as unknown as CommitOptions), { code: 'ENOSPC' })
    t.false(isOpen)
  } finally {
    replaceFiles(real)
    sandbox.close()
  }
})
