import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { ChunkList } from '../../../src/engine/archive/chunk-list.js'
import { type CacheOfFiles, FilesCache, parseFilesCacheMode, type SeenFile } from '../../../src/engine/cache/files-cache.js'
import { type ChunkId, chunkId } from '../../../src/engine/ids.js'
import type { Log } from '../../../src/engine/log.js'
import { MsgReader, MsgWriter } from '../../../src/engine/msgpack.js'

const folder = mkdtempSync(join(tmpdir(), 'borgfs-files-cache-'))
test.after.always(() => rmSync(folder, { recursive: true }))

const mode = parseFilesCacheMode('ctime,size,inode')!
let made = 0

class Warnings implements Log {
  readonly messages: string[] = []
  write(_level: string, _topic: string, message: string): void {
    this.messages.push(message)
  }
}

function cacheFolder(): CacheOfFiles & { json: string | undefined } {
  const path = mkdtempSync(join(folder, `${made++}-`))
  return { folder: path, json: undefined, digests(name) { return name === 'files' ? this.json : undefined }, index: undefined }
}

function hashOf(number: number): ChunkId {
  const hash = Buffer.alloc(32, 3)
  hash.writeUInt32LE((number * 2_654_435_761) % 2 ** 32)
  hash.writeUInt32LE(number, 4)
  return chunkId(hash)
}

const fileOf = (number: number): SeenFile => ({ ino: BigInt(number) + (1n << 40n), size: number, mtimeNs: 5n, ctimeNs: 1_700_000_000_000_000_000n + BigInt(number) })
/** None for some, many for others. */
const chunksOf = (number: number): ChunkId[] => Array.from({ length: number % 7 === 0 ? 0 : number % 500 === 1 ? 300 : 1 }, (_, index) => hashOf(number * 1000 + index + 1))

const count = 20_000

async function filled(cache: CacheOfFiles & { json: string | undefined }): Promise<void> {
  const files = await FilesCache.load(cache, mode, new Warnings(), {})
  for (let number = 0; number < count; number++) {
    const chunks = chunksOf(number)
    files.remember(hashOf(number), fileOf(number), ChunkList.of(chunks.map((id, index) => ({ id, size: index + 1, csize: 0 }))))
  }
  cache.json = files.write()
}

/** Entries of the file by path hash. */
function entries(path: string): Map<string, { age: number; ino: bigint }> {
  const found = new Map<string, { age: number; ino: bigint }>()
  const reader = new MsgReader(readFileSync(path))
  while (!reader.done) {
    reader.arrayHeader()
    const hash = reader.raw().toString('hex')
    reader.arrayHeader()
    found.set(hash, { age: reader.number(), ino: reader.bigint() })
    for (let left = 3; left > 0; left--) reader.skip()
  }
  return found
}

test('files of many reads of the file are known again, and changed ones are not', async t => {
  const cache = cacheFolder()
  await filled(cache)
  t.true(statSync(join(cache.folder, 'files')).size > 1 << 20)
  const log = new Warnings()
  const files = await FilesCache.load(cache, mode, log, {})
  for (let number = 0; number < count - 1; number++) {
    const found = files.lookup(hashOf(number), fileOf(number))
    const chunks = chunksOf(number)
    if (found.state !== 'unchanged' || found.ids.length !== chunks.length || !found.ids.every((id, index) => id.equals(chunks[index]!))) return t.fail(`file ${number}`)
    if (chunks.length > 1 && !found.sizes.every((size, index) => size === index + 1)) return t.fail(`sizes of ${number}`)
  }
  // The newest could still change within its clock tick.
  t.is(files.lookup(hashOf(count - 1), fileOf(count - 1)).state, 'unknown')
  t.is(files.lookup(hashOf(count), fileOf(count)).state, 'unknown')
  const file = fileOf(5)
  t.is(files.lookup(hashOf(5), { ...file, size: 6 }).state, 'changed')
  t.is(files.lookup(hashOf(5), { ...file, ino: 6n }).state, 'changed')
  t.is(files.lookup(hashOf(5), { ...file, ctimeNs: 6n }).state, 'changed')
  t.deepEqual(log.messages, [])
})

test('what was seen is young again, what was not ages and goes in the end', async t => {
  const cache = cacheFolder()
  await filled(cache)
  const path = join(cache.folder, 'files')
  for (let run = 1; run <= 3; run++) {
    const files = await FilesCache.load(cache, mode, new Warnings(), { BORG_FILES_CACHE_TTL: '3' })
    files.confirm(hashOf(1), fileOf(1))
    files.confirm(hashOf(2), { ...fileOf(2), ino: 77n })
    cache.json = files.write()
    const found = entries(path)
    t.deepEqual(found.get(hashOf(1).toString('hex')), { age: 0, ino: fileOf(1).ino })
    t.deepEqual(found.get(hashOf(2).toString('hex')), { age: 0, ino: 77n })
    t.deepEqual(found.get(hashOf(3).toString('hex')), run < 3 ? { age: run, ino: fileOf(3).ino } : undefined)
    t.is(found.size, run < 3 ? count - 1 : 2)
  }
})

const damages: Record<string, (bytes: Buffer) => Buffer> = {
  'cut off': bytes => bytes.subarray(0, -5),
  'a byte turned': bytes => (bytes[bytes.length >> 1]! ^= 1, bytes),
  'no msgpack': () => Buffer.from('c1c1c1', 'hex'),
}
for (const [what, damage] of Object.entries(damages)) {
  test(`a damaged file is an empty cache, with a warning: ${what}`, async t => {
    const cache = cacheFolder()
    await filled(cache)
    const path = join(cache.folder, 'files')
    writeFileSync(path, damage(readFileSync(path)))
    const log = new Warnings()
    const files = await FilesCache.load(cache, mode, log, {})
    t.is(log.messages.length, 2)
    t.regex(log.messages[0]!, /^The files cache is corrupted\. \[/)
    t.is(files.lookup(hashOf(1), fileOf(1)).state, 'unknown')
    files.write()
    t.is(statSync(path).size, 0)
  })
}

test('entries of another shape are damage, also where no digest tells', async t => {
  const shapes: ((writer: MsgWriter) => void)[] = [
    writer => writer.int(5),
    writer => writer.arrayHeader(0),
    writer => { writer.arrayHeader(5); for (let left = 5; left > 0; left--) writer.nil() },
    writer => { writer.arrayHeader(5); for (let left = 4; left > 0; left--) writer.int(1); writer.arrayHeader(1); writer.raw(Buffer.alloc(31)) },
  ]
  for (const shape of shapes) {
    const cache = cacheFolder()
    const writer = new MsgWriter()
    writer.arrayHeader(2)
    writer.raw(hashOf(1))
    shape(writer)
    writeFileSync(join(cache.folder, 'files'), writer.finish())
    const log = new Warnings()
    const files = await FilesCache.load(cache, mode, log, {})
    t.is(log.messages.length, 2)
    t.is(files.lookup(hashOf(1), fileOf(1)).state, 'unknown')
  }
})
