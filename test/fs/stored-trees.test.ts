import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ChunkList } from '../../src/engine/archive/chunk-list.js'
import type { Key } from '../../src/engine/crypto/key.js'
import { keyTypeOfMode } from '../../src/engine/crypto/key-types.js'
import { keyFromSecrets, plaintextKey, purposeKey, usePlainCrypto } from '../../src/engine/crypto/keys.js'
import { Workers } from '../../src/engine/store/workers.js'
import { rootListingOf } from '../../src/fs/root-listing.js'
import { StoredTrees } from '../../src/fs/stored-trees.js'
import { buildTree, columnsOf, type TreeImage } from '../../src/fs/tree-image.js'
import { anyItem, packed, pieces } from '../helpers/any-items.js'
import { item, RecordingLog } from '../helpers/mount-fixtures.js'
import { someKey } from '../helpers/some-key.js'

function setUp(t: ExecutionContext, options: { key?: Key; maxBytes?: number; minRows?: number; inlineBytes?: number; folder?: string } = {}) {
  const folder = options.folder ?? join(mkdtempSync(join(tmpdir(), 'stored-trees-')), 'trees')
  const key = options.key ?? someKey()
  const workers = new Workers({ key, count: 2 })
  const log = new RecordingLog()
  t.teardown(async () => {
    await workers.close()
    rmSync(join(folder, '..'), { recursive: true, force: true })
  })
  return { folder, key, log, trees: new StoredTrees({ folder, key, workers, maxBytes: options.maxBytes ?? 1e9, log, minRows: options.minRows ?? 0, ...(options.inlineBytes !== undefined && { inlineBytes: options.inlineBytes }) }) }
}

const archive = 'a'.repeat(64), other = 'b'.repeat(64)
const built = async (count: number) => buildTree(pieces(packed(Array.from({ length: count }, (_, index) => {
  const chunks = new ChunkList()
  chunks.add(randomBytes(32), index, index)
  return item(`dir${index % 9}/file${index}`, { chunks, mtimeNs: BigInt(index) })
})), 4096), { showParts: false, log: new RecordingLog() })

const plain = (tree: TreeImage) => ({ layout: [...tree.layout], image: Buffer.from(tree.image), chunks: tree.chunks && Buffer.from(tree.chunks) })

async function opened(trees: StoredTrees, id = archive, source = 'source'): Promise<TreeImage | undefined> {
  const tree = await trees.open(id, source)
  return tree && { ...tree, chunks: await trees.openChunks(id, source) }
}

test('what is opened is what was kept, whatever the items', async (t) => {
  const { trees, log } = setUp(t)
  await fc.assert(fc.asyncProperty(fc.array(anyItem, { maxLength: 40 }), async (items) => {
    const tree = await buildTree(pieces(packed(items), 4096), { showParts: false, log: new RecordingLog() })
    await trees.save(archive, 'source', tree)
    const again = await opened(trees)
    t.deepEqual(plain(again!), plain(tree))
    t.deepEqual(columnsOf(again!), columnsOf(tree))
    t.deepEqual(await trees.rootListing(archive, 'source'), rootListingOf(columnsOf(tree)))
    t.is(await trees.rootListing(archive, 'another source'), undefined)
    log.lines.length = 0
  }), { numRuns: 60 })
  t.deepEqual(log.lines, [])
})

test('a tree of many blocks goes through the byte workers', async (t) => {
  const { trees } = setUp(t, { inlineBytes: 0 })
  const tree = await built(45_000)
  t.true(tree.image.byteLength + tree.chunks!.byteLength > 4 << 20, 'more than one job')
  await trees.save(archive, 'source', tree)
  t.deepEqual(plain((await opened(trees))!), plain(tree))
})

for (const mode of ['repokey', 'repokey-blake2', 'authenticated', 'none'] as const) test(`mode ${mode}: kept and opened, and not with another key`, async (t) => {
  const { folder, key, trees } = setUp(t, { key: mode === 'none' ? plaintextKey() : someKey(mode) })
  const tree = await built(50)
  await trees.save(archive, 'source', tree)
  t.deepEqual(plain((await opened(trees))!), plain(tree))
  t.is(readFileSync(join(folder, archive)).includes('file1'), false)
  const { trees: strange, log } = setUp(t, { folder, key: someKey() })
  t.is(await strange.open(archive, 'source'), undefined)
  t.is(log.lines.length, 1)
  t.regex(log.lines[0]!, /^debug: The kept tree of archive a+ cannot be used: /)
  t.false(purposeKey(key, Buffer.alloc(32), 'one thing').material().encKey!.equals(purposeKey(key, Buffer.alloc(32), 'another').material().encKey!))
})

test('the addon and node:crypto alone read each other', async (t) => {
  const secrets = () => ({ encKey: Buffer.alloc(32, 1), encHmacKey: Buffer.alloc(32, 2), idKey: Buffer.alloc(32, 3), chunkSeed: 1, repositoryId: Buffer.alloc(32), tamRequired: true })
  const key = () => keyFromSecrets(keyTypeOfMode('repokey'), secrets(), false)
  const { folder, trees } = setUp(t, { key: key() })
  const tree = await built(50)
  await trees.save(archive, 'source', tree)
  usePlainCrypto(true)
  try {
    t.deepEqual(plain((await opened(setUp(t, { folder, key: key() }).trees))!), plain(tree))
  } finally {
    usePlainCrypto(false)
  }
})

test('whichever byte is damaged, or wherever it is cut off: never another tree', async (t) => {
  const { folder, trees, log } = setUp(t)
  const tree = await built(300)
  await trees.save(archive, 'source', tree)
  const path = join(folder, archive), good = readFileSync(path)
  for (let round = 0; round < 300; round++) {
    const bad = Buffer.from(good)
    const at = Math.floor(round * bad.length / 300)
    bad[at]! ^= 1 + round % 255
    writeFileSync(path, round % 10 === 9 ? good.subarray(0, at) : bad)
    log.lines.length = 0
    const again = await opened(trees)
    t.true(again === undefined || again.chunks === undefined)
    if (again) t.deepEqual(plain(again).image, Buffer.from(tree.image))
    t.is(log.lines.filter((line) => line.startsWith('debug: The kept tree')).length, 1)
  }
  await trees.save(archive, 'source', tree)
  t.deepEqual(plain((await opened(trees))!), plain(tree))
})

test('a tree made of another archive is not used, and blocks cannot change places', async (t) => {
  const { folder, trees } = setUp(t)
  const tree = await built(200)
  await trees.save(archive, 'source', tree)
  t.is(await trees.open(archive, 'another'), undefined)
  t.is(await trees.open(other, 'source'), undefined)
  // Two columns of the same length, sealed under the same key: their numbers tell them apart.
  const bytes = readFileSync(join(folder, archive))
  const sizes = new Set<string>()
  for (let length = 1; length < 400; length++) {
    if (bytes.length < 2 * length) break
    const swapped = Buffer.concat([bytes.subarray(length, 2 * length), bytes.subarray(0, length), bytes.subarray(2 * length)])
    writeFileSync(join(folder, archive), swapped)
    const again = await trees.open(archive, 'source')
    if (again) sizes.add(String(length))
  }
  t.deepEqual([...sizes], [])
})

test('what was used longest ago goes when there is too much, and what is too large is not kept at all', async (t) => {
  const probe = setUp(t)
  const tree = await built(2000)
  await probe.trees.save(archive, 'source', tree)
  const size = statSync(join(probe.folder, archive)).size
  const { folder, trees, log } = setUp(t, { maxBytes: Math.floor(2.5 * size) })
  const ids = ['1', '2', '3'].map((digit) => digit.repeat(64))
  await trees.save(ids[0]!, 's', tree)
  await trees.save(ids[1]!, 's', tree)
  utimesSync(join(folder, ids[0]!), 1000, 1000)
  utimesSync(join(folder, ids[1]!), 2000, 2000)
  t.truthy(await trees.open(ids[0]!, 's'))
  await trees.save(ids[2]!, 's', tree)
  t.deepEqual(readdirSync(folder).sort(), [ids[0], ids[2]])
  t.deepEqual(log.lines, [])
  const { folder: small, trees: none, log: told } = setUp(t, { maxBytes: Math.floor(size / 2) })
  await none.save(archive, 'source', tree)
  t.deepEqual(readdirSync(small), [])
  t.regex(told.lines.join(), /^debug: The tree of archive a+ cannot be kept: it is larger than/)
})

test('nothing is kept where nothing may be, or where it would not pay', async (t) => {
  const tree = await built(20)
  for (const options of [{ maxBytes: 0 }, { minRows: 1000 }]) {
    const { folder, trees } = setUp(t, options)
    await trees.save(archive, 'source', tree)
    t.is(await trees.open(archive, 'source'), undefined)
    t.throws(() => readdirSync(folder), { code: 'ENOENT' })
  }
})

test('trees of archives that are gone are removed, and what interrupted runs left; a renamed archive keeps its tree', async (t) => {
  const { folder, trees, log } = setUp(t)
  trees.tidy(new Set())
  const tree = await built(20)
  await trees.save(archive, 'source', tree)
  await trees.save(other, 'source', tree)
  writeFileSync(join(folder, `${archive}-old.tmp`), 'x')
  utimesSync(join(folder, `${archive}-old.tmp`), 1000, 1000)
  writeFileSync(join(folder, `${archive}-new.tmp`), 'x')
  trees.tidy(new Set([archive]))
  t.deepEqual(readdirSync(folder).sort(), [archive, `${archive}-new.tmp`].sort())
  trees.rename(archive, other)
  trees.rename(archive, other)
  t.deepEqual(plain((await opened(trees, other))!), plain(tree))
  t.deepEqual(log.lines, [])
})

test('a folder that cannot be written is a debug line', async (t) => {
  const { folder, trees, log } = setUp(t)
  writeFileSync(folder, 'no folder')
  await trees.save(archive, 'source', await built(20))
  t.is(await trees.open(archive, 'source'), undefined)
  trees.tidy(new Set())
  t.true(log.lines.length > 0 && log.lines.every((line) => line.startsWith('debug: ')))
})
