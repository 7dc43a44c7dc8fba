/** Files of the stash that become segments as they are: what they hold, what becomes of them when a transaction fails, and where they cannot be. */
import { appendFileSync, chmodSync, chownSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { type ChunkId, chunkId, manifestId } from '../../../src/engine/ids.js'
import { framePut } from '../../../src/engine/repository/entry.js'
import { Hints } from '../../../src/engine/repository/hints.js'
import { LocalRepository } from '../../../src/engine/repository/local-repository.js'
import type { EntryFile } from '../../../src/engine/repository/repository.js'
import { createRepository } from '../../../src/engine/repository/repository-creation.js'
import { Stash } from '../../../src/engine/store/stash.js'

const folder = mkdtempSync(join(tmpdir(), 'borgfs-adopt-'))
test.after.always(() => rmSync(folder, { recursive: true }))
const log = { write: (): void => undefined }
const open = (path: string): Promise<LocalRepository> => LocalRepository.open(path, { lock: 'exclusive', lockWaitMs: 0, log })
const idOf = (number: number): ChunkId => chunkId(Buffer.alloc(32, number))

async function stashOf(path: string, ...numbers: number[]): Promise<Stash> {
  const stash = new Stash(path)
  const entries = numbers.map(number => framePut(idOf(number), Buffer.alloc(5000 + number, number)))
  await stash.append(Buffer.concat(entries), numbers.map(idOf), entries.map(({ length }) => length))
  await stash.sync()
  return stash
}

function only(stash: Stash): EntryFile {
  const [file, ...more] = stash.wholeFiles(() => true, 0)
  if (!file || more.length > 0) throw new Error('not one file')
  return file
}

function segmentsOf(path: string): number[] {
  return readdirSync(join(path, 'data', '0')).map(Number).sort((a, b) => a - b)
}

test.serial('a file becomes a segment under a second name, and is found again in the log', async t => {
  const path = join(folder, 'whole')
  createRepository(path)
  const stash = await stashOf(join(folder, 'whole-stash'), 1, 2, 3)
  const repository = await open(path)
  await repository.transaction(async tx => {
    await tx.put(idOf(9), Buffer.from('before'))
    t.true(tx.adopt(only(stash)))
    await tx.put(manifestId, Buffer.from('manifest'))
  })
  await repository.close()
  const own = join(folder, 'whole-stash', '1')
  t.is(statSync(own).nlink, 2)
  // What comes later goes to another file, and the first name may go.
  await stash.append(framePut(idOf(4), Buffer.from('later')), [idOf(4)], [46])
  t.is(readdirSync(join(folder, 'whole-stash')).length, 2)
  stash.keep(id => id.equals(idOf(4)), true)
  t.deepEqual(readdirSync(join(folder, 'whole-stash')), ['2'])
  stash.close()

  const again = await open(path)
  t.is(again.objectCount, 5)
  for (const number of [1, 2, 3]) t.deepEqual(await again.get(idOf(number)), Buffer.alloc(5000 + number, number))
  const hints = (): Hints => Hints.unpack(readFileSync(join(path, readdirSync(path).find(name => name.startsWith('hints.'))!)))
  const { quotaUse } = hints()
  t.is(quotaUse, 3 * 41 + 15_006 + 41 + 6 + 41 + 8)
  const live = [...hints().segments].filter(([, count]) => count > 0)
  await again.close()
  // The log alone says the same.
  for (const name of readdirSync(path)) if (/^(index|hints|integrity)\./.test(name)) rmSync(join(path, name))
  const replayed = await open(path)
  t.is(replayed.objectCount, 5)
  await replayed.transaction(tx => tx.put(manifestId, Buffer.from('manifest')))
  t.deepEqual([...hints().segments].filter(([, count]) => count > 0).slice(0, 2), live.slice(0, 2))
  await replayed.close()
})

test.serial('what fails leaves the file where it was, and nothing in the repository', async t => {
  const path = join(folder, 'fails')
  createRepository(path)
  const stash = await stashOf(join(folder, 'fails-stash'), 1, 2)
  const repository = await open(path)
  await t.throwsAsync(repository.transaction(tx => {
    t.true(tx.adopt(only(stash)))
    return Promise.reject(new Error('on purpose'))
  }), { message: 'on purpose' })
  t.false(repository.has(idOf(1)))
  t.deepEqual(segmentsOf(path).filter(segment => segment > 1), [])
  t.deepEqual(stash.get(idOf(2)), Buffer.alloc(5002, 2))
  await repository.transaction(tx => {
    t.true(tx.adopt(only(stash)))
    return Promise.resolve()
  })
  t.deepEqual(await repository.get(idOf(2)), Buffer.alloc(5002, 2))
  await repository.close()
  stash.close()
})

test.serial('only whole files count: all wanted, and nothing else in them', async t => {
  const stash = await stashOf(join(folder, 'parts'), 1, 2)
  t.is([...stash.wholeFiles(id => !idOf(2).equals(id), 0)].length, 0)
  t.is([...stash.wholeFiles(() => true, 20_000)].length, 0)
  // What a killed process left behind the last whole entry.
  appendFileSync(join(folder, 'parts', '1'), 'half of')
  t.is([...stash.wholeFiles(() => true, 0)].length, 0)
  stash.close()
})

test.serial('where files would be another kind of files, none is adopted, and the next number is free', async t => {
  const path = join(folder, 'rules')
  createRepository(path)
  mkdirSync(join(path, 'data', '0'), { recursive: true })
  const stash = await stashOf(join(folder, 'rules-stash'), 1, 2)
  const repository = await open(path)
  const tried: boolean[] = []
  await repository.transaction(async tx => {
    const own = join(folder, 'rules-stash', '1'), data = join(path, 'data', '0')
    const { mode } = statSync(own)
    chmodSync(own, 0o604)
    tried.push(tx.adopt(only(stash)))
    chmodSync(own, mode)
    if (process.getuid!() === 0) {
      chownSync(data, 0, 12_345)
      chmodSync(data, 0o2755)
      tried.push(tx.adopt(only(stash)))
      chmodSync(data, 0o755)
    }
    t.false(tried.includes(true))
    await tx.put(idOf(7), Buffer.from('after'))
    t.true(tx.adopt(only(stash)))
  })
  const segments = segmentsOf(path)
  t.deepEqual(segments, segments.map((_, index) => index + segments[0]!), 'no number is left out')
  for (const number of [1, 2]) t.deepEqual(await repository.get(idOf(number)), Buffer.alloc(5000 + number, number))
  t.deepEqual(await repository.get(idOf(7)), Buffer.from('after'))
  await repository.close()
  stash.close()
})
