/** A repository whose index stays in its file: what is read, changed and committed, and what damage does. */
import {
  closeSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, renameSync, rmSync, statSync, truncateSync, writeFileSync, writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { headerBytes } from '../../../src/engine/hashindex/bucket-layout.js'
import { type ChunkId, chunkId, manifestId } from '../../../src/engine/ids.js'
import type { Log } from '../../../src/engine/log.js'
import { LocalRepository } from '../../../src/engine/repository/local-repository.js'
import { createRepository } from '../../../src/engine/repository/repository-creation.js'

const folder = mkdtempSync(join(tmpdir(), 'borgfs-index-on-file-'))
test.after.always(() => rmSync(folder, { recursive: true }))

const count = 400
let made = 0

function idOf(number: number): ChunkId {
  const id = Buffer.alloc(32, 7)
  id.writeUInt32LE((number * 2_654_435_761) % 2 ** 32)
  id.writeUInt32LE(number, 4)
  return chunkId(id)
}

const contentOf = (number: number): Buffer => Buffer.from(`content of ${number}`)

class Warnings implements Log {
  readonly messages: string[] = []
  write(level: string, _topic: string, message: string): void {
    if (level === 'warning') this.messages.push(message)
  }
}

/** `small`: whether the index is read whole. */
function open(path: string, lock: 'shared' | 'exclusive' | 'none', log: Log = new Warnings(), small = false): Promise<LocalRepository> {
  return LocalRepository.open(path, { lock, lockWaitMs: 0, log, smallIndexBytes: small ? 1 << 30 : 0 })
}

async function make(): Promise<string> {
  const path = join(folder, `repo-${made++}`)
  createRepository(path)
  const repository = await open(path, 'exclusive', new Warnings(), true)
  await repository.transaction(async tx => {
    await tx.put(manifestId, Buffer.from('manifest'))
    for (let number = 0; number < count; number++) await tx.put(idOf(number), contentOf(number))
  })
  await repository.close()
  return path
}

function indexPath(path: string): string {
  return join(path, readdirSync(path).find(name => /^index\.\d+$/.test(name))!)
}

/** Value words of every bucket replaced by what `change` makes of them. */
function changeBuckets(file: string, change: (bucket: Buffer) => void): void {
  const bytes = readFileSync(file)
  for (let at = headerBytes; at < bytes.length; at += 40) if (bytes.readUInt32LE(at + 32) < 0xfffffffe) change(bytes.subarray(at, at + 40))
  writeFileSync(file, bytes)
}

test('objects are found, and ids that are absent are absent', async t => {
  const path = await make()
  const log = new Warnings()
  const repository = await open(path, 'shared', log)
  for (let number = 0; number < count; number++) {
    t.deepEqual(repository.getSync(idOf(number)), contentOf(number))
    t.is(repository.storedSize(idOf(number)), contentOf(number).length)
  }
  t.true(repository.has(idOf(1)))
  t.false(repository.has(idOf(count)))
  await t.throwsAsync(repository.get(idOf(count)), { message: /not found/ })
  t.is((await repository.list(undefined, 10_000)).length, count + 1)
  t.deepEqual(log.messages, [])
  await repository.close()
})

test('what is committed from a file is what is committed from memory', async t => {
  const files: string[][] = []
  for (const small of [true, false]) {
    const path = await make()
    const repository = await open(path, 'exclusive', new Warnings(), small)
    await repository.transaction(async tx => {
      for (let number = 0; number < 50; number++) await tx.delete(idOf(number * 3))
      for (let number = count; number < count + 30; number++) await tx.put(idOf(number), contentOf(number))
      await tx.put(idOf(1), Buffer.from('anew'))
      await tx.checkpoint()
      await tx.put(idOf(1000), contentOf(1000))
    })
    // The same object goes on after its commits.
    t.deepEqual(repository.getSync(idOf(1000)), contentOf(1000))
    t.false(repository.has(idOf(3)))
    await repository.transaction(async tx => tx.put(idOf(1001), contentOf(1001)))
    await repository.close()
    const names = readdirSync(path).filter(name => /^(?:index|hints|integrity)\./.test(name)).sort()
    files.push(names.map(name => `${name} ${readFileSync(join(path, name)).toString('hex')}`))
    const reader = await open(path, 'shared', new Warnings(), !small)
    t.deepEqual(reader.getSync(idOf(1)), Buffer.from('anew'))
    t.deepEqual(reader.getSync(idOf(1001)), contentOf(1001))
    await reader.close()
  }
  t.deepEqual(files[0], files[1])
})

const damages: Record<string, (file: string) => void> = {
  'another segment everywhere': file => changeBuckets(file, bucket => bucket.writeUInt32LE(1, 32)),
  'a segment that does not exist': file => changeBuckets(file, bucket => bucket.writeUInt32LE(4711, 32)),
  'another offset everywhere': file => changeBuckets(file, bucket => bucket.writeUInt32LE(bucket.readUInt32LE(36) + 3, 36)),
  'an offset behind the end': file => changeBuckets(file, bucket => bucket.writeUInt32LE(0x7fffffff, 36)),
  'the offset of another object': file => {
    const offsets: number[] = []
    changeBuckets(file, bucket => void offsets.push(bucket.readUInt32LE(36)))
    offsets.push(offsets.shift()!)
    changeBuckets(file, bucket => void bucket.writeUInt32LE(offsets.shift()!, 36))
  },
  'keys changed': file => changeBuckets(file, bucket => void (bucket[20]! ^= 1)),
  'all buckets empty': file => changeBuckets(file, bucket => bucket.writeUInt32LE(0xffffffff, 32)),
  'all buckets deleted': file => changeBuckets(file, bucket => bucket.writeUInt32LE(0xfffffffe, 32)),
  'cut off': file => truncateSync(file, statSync(file).size / 2),
  'only a header': file => truncateSync(file, headerBytes),
  'another magic': file => {
    const fd = openSync(file, 'r+')
    writeSync(fd, 'ATTICIDX', 0, 'latin1')
    closeSync(fd)
  },
}

for (const [what, damage] of Object.entries(damages)) {
  test(`a damaged index (${what}) is made anew with a warning, and nothing wrong is read`, async t => {
    const path = await make()
    damage(indexPath(path))
    const log = new Warnings()
    const repository = await open(path, 'shared', log)
    for (let number = 0; number < count; number++) t.deepEqual(repository.getSync(idOf(number)), contentOf(number))
    t.is(repository.locate(idOf(7)).length, 41 + contentOf(7).length)
    t.false(repository.has(idOf(count)))
    t.is(log.messages.length, 1)
    t.regex(log.messages[0]!, /^Repository index missing or corrupted, trying to recover from: /)
    await repository.close()
  })
}

test('an index that is cut off while it is in use is made anew', async t => {
  const path = await make()
  const log = new Warnings()
  const repository = await open(path, 'shared', log)
  t.deepEqual(repository.getSync(idOf(0)), contentOf(0))
  truncateSync(indexPath(path), headerBytes + 40)
  for (let number = 0; number < count; number++) t.deepEqual(repository.getSync(idOf(number)), contentOf(number))
  t.is(log.messages.length, 1)
  await repository.close()
})

test('damage is never committed again: a writer verifies first', async t => {
  const path = await make()
  changeBuckets(indexPath(path), bucket => bucket.writeUInt32LE(bucket.readUInt32LE(36) + 3, 36))
  const log = new Warnings()
  const repository = await open(path, 'exclusive', log)
  t.is(log.messages.length, 1)
  await repository.transaction(async tx => tx.put(idOf(count), contentOf(count)))
  await repository.close()
  const again = new Warnings()
  const reader = await open(path, 'shared', again)
  for (let number = 0; number <= count; number++) t.deepEqual(reader.getSync(idOf(number)), contentOf(number))
  await reader.close()
  t.deepEqual(again.messages, [])
})

test('damaged hints are no matter to a reader, and are made anew by one who then writes', async t => {
  const path = await make()
  const hints = join(path, readdirSync(path).find(name => name.startsWith('hints.'))!)
  writeFileSync(hints, 'damaged')
  const log = new Warnings()
  const repository = await open(path, 'shared', log)
  t.deepEqual(repository.getSync(idOf(5)), contentOf(5))
  t.deepEqual(log.messages, [])
  await repository.acquireLock('exclusive', 0)
  await repository.transaction(async tx => tx.delete(idOf(5)))
  t.is(log.messages.length, 1)
  await repository.close()
})

test('a reader without a lock follows another client to its new index', async t => {
  const path = await make()
  const reader = await open(path, 'none')
  t.deepEqual(reader.getSync(idOf(2)), contentOf(2))
  const old = indexPath(path)
  const writer = await open(path, 'exclusive')
  await writer.transaction(async tx => tx.put(idOf(count), contentOf(count)))
  await writer.close()
  t.false(existsSync(old))
  // What it had goes on, what is new comes with the refresh.
  t.deepEqual(reader.getSync(idOf(3)), contentOf(3))
  t.true(await reader.refresh())
  t.false(await reader.refresh())
  t.deepEqual(reader.getSync(idOf(count)), contentOf(count))
  await reader.close()
})

test('an index that lags behind is brought up to date where it lies', async t => {
  const path = await make()
  const before = new Map(readdirSync(path).filter(name => /^(?:index|hints|integrity)\./.test(name)).map(name => [name, `${join(path, name)}.kept`]))
  for (const [name, kept] of before) copyFileSync(join(path, name), kept)
  const writer = await open(path, 'exclusive')
  await writer.transaction(async tx => {
    await tx.put(idOf(count), contentOf(count))
    await tx.delete(idOf(9))
  })
  await writer.close()
  for (const name of readdirSync(path)) if (/^(?:index|hints|integrity)\.\d+$/.test(name)) rmSync(join(path, name))
  for (const [name, kept] of before) copyFileSync(kept, join(path, name))
  const reader = await open(path, 'shared')
  t.deepEqual(reader.getSync(idOf(count)), contentOf(count))
  t.false(reader.has(idOf(9)))
  await reader.close()
})

test('the end of the log is found without a look at all of its folders', async t => {
  const path = await make()
  const writer = await open(path, 'exclusive')
  await writer.transaction(async tx => tx.put(idOf(2000), contentOf(2000)))
  await writer.close()
  const config = join(path, 'config')
  writeFileSync(config, readFileSync(config, 'utf8').replace(/segments_per_dir = \d+/, 'segments_per_dir = 1'))
  renameSync(join(path, 'data', '0'), join(path, 'old'))
  for (const name of readdirSync(join(path, 'old'))) {
    mkdirSync(join(path, 'data', name), { recursive: true })
    renameSync(join(path, 'old', name), join(path, 'data', name, name))
  }
  const last = Math.max(...readdirSync(join(path, 'data')).map(Number))
  // Neither the first nor the last: no folder, so that a look into it would fail.
  rmSync(join(path, 'data', '1'), { recursive: true, force: true })
  writeFileSync(join(path, 'data', '1'), 'no folder')
  for (const lock of ['shared', 'exclusive'] as const) {
    const repository = await open(path, lock)
    t.is(repository.transactionId, last)
    t.false(await repository.refresh())
    await repository.close()
  }
})

test('what an aborted transaction left behind the end of the log counts for nothing', async t => {
  const path = await make()
  const data = join(path, 'data', '0')
  const last = Math.max(...readdirSync(data).map(Number))
  writeFileSync(join(data, String(last + 1)), Buffer.concat([Buffer.from('BORG_SEG'), Buffer.alloc(3 << 20)]))
  writeFileSync(join(data, String(last + 2)), '')
  const repository = await open(path, 'shared')
  t.is(repository.transactionId, last)
  await repository.close()
})
