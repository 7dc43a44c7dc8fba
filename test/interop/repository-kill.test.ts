/**
 * Compaction and repair killed at every single write, fsync, rename and removal they make: afterwards Borg's check is clean, every
 * object is there and none came back, and doing it again ends as if nothing had happened.
 */
import test, { type ExecutionContext } from 'ava'
import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { chunkId, type ChunkId } from '../../src/engine/ids.js'
import { silentLog } from '../../src/engine/log.js'
import { checkRepository } from '../../src/engine/repository/check.js'
import { compactRepository } from '../../src/engine/repository/compact.js'
import { LocalRepository } from '../../src/engine/repository/local-repository.js'
import { createRepository } from '../../src/engine/repository/repository-creation.js'
import { BorgRepositoryProcess, haveBorgRepository } from '../helpers/borg-repository.js'
import { killedAt } from '../helpers/dying-files.js'
import { Random } from '../helpers/random.js'
import { Sandbox } from '../helpers/sandbox.js'

const run = haveBorgRepository ? test.serial : test.serial.skip
if (!haveBorgRepository) console.error('SKIPPED aloud: test/interop/repository-kill asks the real borg')

/** Every so many-th call only; 1 tries them all. */
const step = Number(process.env.BORGFS_KILL_STEP ?? 3)

async function opened(path: string, forCheck: boolean, work: (repository: LocalRepository) => Promise<unknown>): Promise<void> {
  const repository = await LocalRepository.open(path, { lock: 'exclusive', lockWaitMs: 1000, log: silentLog, forCheck })
  try {
    await work(repository)
  } finally {
    await repository.close()
  }
}

/** Sparse segments: some of PUTs, some of DELETEs, with several targets to fill. */
async function makeRepository(path: string): Promise<Map<string, string>> {
  createRepository(path)
  const config = join(path, 'config')
  writeFileSync(config, readFileSync(config, 'utf8').replace(/^max_segment_size = .*$/m, 'max_segment_size = 2500').replace(/^segments_per_dir = .*$/m, 'segments_per_dir = 8'))
  const random = new Random(5)
  const model = new Map<string, string>()
  const id = (hex: string): ChunkId => chunkId(Buffer.from(hex, 'hex'))
  await opened(path, false, async repository => {
    for (let round = 0; round < 4; round++) {
      await repository.transaction(async tx => {
        for (let count = 0; count < 8; count++) {
          const [key, value] = [random.bytes(32).toString('hex'), random.bytes(100 + random.below(400)).toString('hex')]
          model.set(key, value)
          await tx.put(id(key), Buffer.from(value, 'hex'))
        }
        for (const key of [...model.keys()].filter((_, at) => at % 3 === round % 3).slice(0, 5)) {
          if (!model.delete(key)) continue
          await tx.delete(id(key))
        }
      })
    }
  })
  return model
}

async function assertWhole(t: ExecutionContext, borg: BorgRepositoryProcess, path: string, model: ReadonlyMap<string, string>, when: string): Promise<void> {
  const check = await borg.step({ op: 'check', path })
  t.true(check.value, `${when}: ${check.error ?? ''} ${check.log.join('\n')}`)
  t.deepEqual((await borg.step({ op: 'dump', path })).value, Object.fromEntries([...model]), when)
}

async function killEverywhere(t: ExecutionContext, name: string, prepare: (base: string) => void, work: (path: string) => Promise<void>): Promise<void> {
  const sandbox = new Sandbox(name)
  const borg = new BorgRepositoryProcess()
  try {
    const base = sandbox.path('base')
    const model = await makeRepository(base)
    prepare(base)
    let fatal = 0
    for (; ; fatal += step) {
      const path = sandbox.path(`at-${fatal}`)
      cpSync(base, path, { recursive: true })
      const ended = await killedAt(fatal, () => work(path))
      // The process that died took its lock with it, as a stale one would be.
      for (const left of ['lock.exclusive', 'lock.roster']) rmSync(join(path, left), { recursive: true, force: true })
      // One half is looked at by Borg at once, the other goes on with ours first.
      if (fatal % 2 === 0 && name === 'compact') await assertWhole(t, borg, path, model, `${name} killed at ${fatal}`)
      await work(path)
      await assertWhole(t, borg, path, model, `${name} killed at ${fatal} and done again`)
      t.false(readdirSync(path).some(file => /^(index|hints|integrity)\..*\.tmp$/.test(file)))
      for (const folder of readdirSync(join(path, 'data'))) t.true(readdirSync(join(path, 'data', folder)).every(file => /^\d+$/.test(file)))
      rmSync(path, { recursive: true })
      if (ended) break
    }
    t.true(fatal > 30, `only ${fatal} calls`)
    t.log(`${fatal} file calls`)
  } finally {
    borg.close()
    sandbox.close()
  }
}

run('compaction killed at any moment loses nothing and brings nothing back', async t => {
  await killEverywhere(t, 'compact', () => undefined, path => opened(path, false, repository => compactRepository(repository, { thresholdPercent: 0 }, {})))
})

run('repair killed at any moment can be done again', async t => {
  await killEverywhere(t, 'repair', base => {
    // Damage that costs no object: garbage behind the entries, a broken magic, no state files.
    const folder = join(base, 'data', '0')
    for (const name of readdirSync(folder).slice(0, 4)) {
      const bytes = readFileSync(join(folder, name))
      if (bytes.length > 17) writeFileSync(join(folder, name), Number(name) % 2 ? Buffer.concat([bytes, Buffer.from('garbage')]) : Buffer.concat([Buffer.from('broken..'), bytes.subarray(8)]))
    }
    for (const name of readdirSync(base)) if (/^(index|hints|integrity)\./.test(name)) rmSync(join(base, name))
  }, path => opened(path, true, async repository => {
    if (!(await checkRepository(repository, { mode: 'repair' }, {}))) throw new Error('not repaired')
  }))
})
