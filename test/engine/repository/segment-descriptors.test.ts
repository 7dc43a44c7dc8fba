/** A descriptor that a job was given is its segment's own until the job has ended, however many segments there are. */
import test from 'ava'
import { mkdirSync, readdirSync, readFileSync, readlinkSync, readSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { none } from '../../../src/engine/codec/none.js'
import { Passphrases } from '../../../src/engine/crypto/passphrase.js'
import type { ChunkId } from '../../../src/engine/ids.js'
import { silentLog } from '../../../src/engine/log.js'
import { initRepository } from '../../../src/engine/operations/init.js'
import { openRepository } from '../../../src/engine/operations/open.js'
import { placesOf } from '../../../src/engine/platform/places.js'
import { LocalRepository } from '../../../src/engine/repository/local-repository.js'
import { createRepository } from '../../../src/engine/repository/repository-creation.js'
import { SegmentDescriptors } from '../../../src/engine/repository/segment-descriptors.js'
import { ChunkReader } from '../../../src/engine/store/chunk-reader.js'
import { ChunkWriter } from '../../../src/engine/store/chunk-writer.js'
import { Workers } from '../../../src/engine/store/workers.js'
import { Random } from '../../helpers/random.js'
import { Sandbox } from '../../helpers/sandbox.js'

/** How many open files of this process lie below a folder, by their links in /proc. */
function openBelow(folder: string): number {
  let count = 0
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      if (readlinkSync(`/proc/self/fd/${fd}`).startsWith(`${folder}/`)) count++
    } catch {
      // That of readdir itself.
    }
  }
  return count
}

test('leases hold what is forgotten, evicted and replaced, are bounded, and leave nothing open', async t => {
  const sandbox = new Sandbox('descriptors')
  try {
    const folder = sandbox.mkdir('segments')
    for (let segment = 0; segment < 600; segment++) writeFileSync(join(folder, String(segment)), `segment ${segment}`)
    const descriptors = new SegmentDescriptors(segment => join(folder, String(segment)))
    const content = (fd: number): string => {
      const bytes = Buffer.alloc(40)
      return bytes.toString('latin1', 0, readSync(fd, bytes, 0, 40, 0))
    }
    let most = 0, working = 0
    const random = new Random(3)
    const job = () => descriptors.leased(async lease => {
      const wanted = Array.from({ length: 40 }, () => random.below(500))
      const fds = wanted.map(segment => lease.fd(segment))
      working++
      most = Math.max(most, working)
      for (let round = 0; round < 3; round++) {
        await sleep(random.below(4))
        for (const [index, segment] of wanted.entries()) t.is(content(fds[index]!), `segment ${segment}`)
        descriptors.forget(random.pick(wanted))
        if (random.below(5) === 0) descriptors.forgetAll()
        for (let count = 0; count < 10; count++) {
          const segment = random.below(500)
          t.is(content(descriptors.borrow(segment)), `segment ${segment}`)
        }
        t.true(openBelow(folder) <= 64 + 255 + 40)
      }
      working--
    })
    await Promise.all(Array.from({ length: 60 }, job))
    t.true(most > 2 && most < 20, `${most} at a time`)

    // A file that is replaced: the lease keeps the old one, who comes later has the new one.
    await descriptors.leased(async lease => {
      const old = lease.fd(550)
      writeFileSync(join(folder, 'new'), 'replaced')
      renameSync(join(folder, 'new'), join(folder, '550'))
      descriptors.forget(550)
      t.is(content(descriptors.borrow(550)), 'replaced')
      await descriptors.leased(async other => t.is(content(other.fd(550)), 'replaced'))
      t.is(content(old), 'segment 550')
      t.is(lease.fd(550), old)
      t.throws(() => lease.fd(9999), { code: 'ENOENT' })
      await Promise.resolve()
    })
    await t.throwsAsync(descriptors.leased(async lease => {
      lease.fd(1)
      throw new Error('of the job')
    }), { message: 'of the job' })
    descriptors.forgetAll()
    t.is(openBelow(folder), 0)
  } finally {
    sandbox.close()
  }
})

test('chunks of 300 segments are read in random order by many batches at once, while readers are forgotten', async t => {
  const sandbox = new Sandbox('many-segments')
  const prompt = { ask: () => Promise.resolve(undefined), say: () => undefined, confirm: () => Promise.resolve(true) }
  const path = sandbox.path('repo'), places = placesOf(sandbox.env()), passphrases = new Passphrases(sandbox.env(), prompt)
  mkdirSync(path)
  createRepository(path)
  const config = join(path, 'config')
  writeFileSync(config, readFileSync(config, 'utf8').replace(/^max_segment_size = .*$/m, 'max_segment_size = 3000'))
  const repository = await LocalRepository.open(path, { lock: 'exclusive', lockWaitMs: 1000, log: silentLog })
  await initRepository(repository, { mode: 'none', places, passphrases, typedPath: 'repo' })
  const opened = await openRepository(repository, { places, passphrases, questions: prompt, operation: 'write' })
  const workers = new Workers({ key: opened.key, codec: none, count: 3 })
  try {
    const random = new Random(5)
    const contents: Buffer[] = Array.from({ length: 1200 }, () => random.bytes(900))
    const ids: ChunkId[] = []
    await repository.transaction(async tx => {
      const writer = new ChunkWriter({ repository, transaction: tx, key: opened.key, nonces: opened.nonces, codec: none, workers })
      const stored = contents.map(bytes => writer.add(bytes))
      writer.flush()
      for (const { id } of await Promise.all(stored)) ids.push(id)
    })
    t.true(readdirSync(join(path, 'data', '0')).length > 300)
    const reader = new ChunkReader(repository, workers)
    const one = async (): Promise<void> => {
      const order = Array.from({ length: 700 }, () => random.below(ids.length))
      let at = 0
      for await (const plain of reader.getMany(order.map(index => ({ id: ids[index]!, size: 900 })))) {
        t.true(plain.equals(contents[order[at++]!]!))
        if (at % 50 === 0) repository.segments.closeReaders()
        if (at % 7 === 0) repository.getSync(ids[random.below(ids.length)]!)
      }
      t.is(at, order.length)
    }
    await Promise.all(Array.from({ length: 8 }, one))
  } finally {
    await workers.close()
    opened.key.wipe()
    await repository.close()
    sandbox.close()
  }
})
