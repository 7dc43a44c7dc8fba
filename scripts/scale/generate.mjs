// scripts/scale/generate.mjs REPO [--chunks N] [--files F] [--archives M] [--archive-files G] [--chunk-bytes B] [--encryption MODE]
//
// Makes a repository that is large in numbers and small on disk: archive `base` of F files that share N different chunks of B random
// bytes, and M archives more of G files each (1), every one a chunk of its own among 1,000 that they share. Everything goes through the engine, in one transaction, and leaves index and
// client cache current, as after `create`. About 5 microseconds and 190 bytes a chunk. Environment as for borg (BORG_BASE_DIR,
// BORG_PASSPHRASE …). Needs `npm run build`.
import { randomFillSync } from 'node:crypto'
import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { parseArgs } from 'node:util'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const from = path => import(join(root, 'dist', 'src', path))
const { LocalRepository } = await from('engine/repository/local-repository.js')
const { openRepository } = await from('engine/operations/open.js')
const { Passphrases } = await from('engine/crypto/passphrase.js')
const { placesOf } = await from('engine/platform/places.js')
const { ClientCache } = await from('engine/cache/client-cache.js')
const { Workers } = await from('engine/store/workers.js')
const { ChunkWriter } = await from('engine/store/chunk-writer.js')
const { ArchiveWriter } = await from('engine/archive/archive-writer.js')
const { ChunkList } = await from('engine/archive/chunk-list.js')
const { parseCompression } = await from('engine/codec/spec.js')
const { plainHeader } = await from('engine/codec/none.js')
const { framePutInPlace } = await from('engine/repository/entry.js')
const { formatTimestamp } = await from('engine/archive/timestamps.js')
const { defaultChunkerParams } = await from('engine/constants.js')

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    chunks: { type: 'string', default: '10000' }, files: { type: 'string' }, archives: { type: 'string', default: '0' }, 'archive-files': { type: 'string', default: '1' },
    'chunk-bytes': { type: 'string', default: '64' }, encryption: { type: 'string', default: 'repokey' },
  },
})
const path = positionals[0]
if (!path) throw new Error('generate.mjs REPO [--chunks N] [--files F] [--archives M] [--archive-files G] [--chunk-bytes B] [--encryption MODE]')
const chunkCount = Number(values.chunks), archiveCount = Number(values.archives), chunkBytes = Number(values['chunk-bytes'])
const fileCount = Number(values.files ?? Math.max(1, Math.ceil(chunkCount / 1000)))
const archiveFiles = Number(values['archive-files']), sharedChunks = 1000
const entryOverhead = 41, batch = 4096

const init = spawnSync(process.execPath, [join(root, 'bin', 'borgfs.js'), 'init', '-e', values.encryption, path], { stdio: ['ignore', 'ignore', 'pipe'] })
if (init.status !== 0) throw new Error(init.stderr.toString())
const log = { write: (level, topic, message) => (level === 'debug' || level === 'info' ? undefined : console.error(message)) }
const prompt = { confirm: () => Promise.resolve(true), ask: () => Promise.reject(new Error('set BORG_PASSPHRASE')) }
const places = placesOf(process.env)
const repository = await LocalRepository.open(path, { lock: 'exclusive', lockWaitMs: 1000, log })
const opened = await openRepository(repository, { places, passphrases: new Passphrases(process.env, prompt), questions: prompt, operation: 'write' })
const codec = parseCompression('none')
const workers = new Workers({ key: opened.key, codec })
const cache = await ClientCache.open(opened, { places, log, lockWaitMs: 1000 })
const index = await cache.sync(workers)
const { key, nonces, manifest, objects } = opened
objects.codec = codec
let clock = Date.now() * 1000 - (archiveCount + 1) * 1e6

await repository.transaction(async tx => {
  const writer = new ChunkWriter({ repository, transaction: tx, key, nonces, codec, workers })
  const add = async (name, items) => {
    const archive = new ArchiveWriter(writer, objects, index)
    for await (const item of items) await archive.addItem(item)
    const time = formatTimestamp((clock += 1e6))
    const facts = { comment: Buffer.alloc(0), cmdline: [Buffer.from('scale')], chunkerParams: defaultChunkerParams, hostname: Buffer.from('scale'), username: Buffer.from('scale'), time, timeEnd: time }
    return archive.save(name, facts, tx, manifest)
  }
  await add('base', baseItems(tx))
  const known = archiveCount > 0 ? await all(randomChunks(tx, archiveFiles === 1 ? 1 : sharedChunks)) : []
  for (let number = 0; number < archiveCount; number++) {
    const items = Array.from({ length: archiveFiles }, (_, index) => fileItem(`file-${number}-${index}`, known[(number + index) % known.length]))
    await add(`archive-${String(number).padStart(6, '0')}`, items)
  }
  await manifest.write(tx, objects)
})
opened.security.save(repository.location, key, manifest)
cache.commit()
cache.close()
await workers.close()
await repository.close()

async function* baseItems(tx) {
  let open, left = chunkCount, filesLeft = fileCount
  const begin = () => ({ chunks: new ChunkList(), want: Math.ceil(left / filesLeft), number: fileCount - filesLeft-- })
  for await (const chunk of randomChunks(tx, chunkCount)) {
    open ??= begin()
    open.chunks.add(chunk.id, chunk.size, chunk.csize)
    left--
    if (open.chunks.length < open.want) continue
    yield fileItem(nameOf(open.number), open.chunks)
    open = undefined
  }
  // More files than chunks: the rest is empty.
  while (filesLeft > 0) yield fileItem(nameOf(begin().number), new ChunkList())
}

function nameOf(number) {
  return `dir${String(Math.floor(number / 1000)).padStart(4, '0')}/file${String(number).padStart(7, '0')}`
}

function fileItem(name, chunks) {
  const timeNs = 1_700_000_000_000_000_000n
  const list = chunks instanceof ChunkList ? chunks : one(chunks)
  return {
    path: Buffer.from(name), mode: 0o100644, uid: 0, gid: 0, user: Buffer.from('root'), group: Buffer.from('root'), hardlinkMaster: false,
    mtimeNs: timeNs, ctimeNs: timeNs, atimeNs: timeNs, chunks: list, size: list.totalSize,
  }
}

function one({ id, size, csize }) {
  const list = new ChunkList()
  list.add(id, size, csize)
  return list
}

async function all(generator) {
  const values = []
  for await (const value of generator) values.push(value)
  return values
}

/** Stores `count` chunks of random bytes, sealed and framed here: through the workers each would cost a message. */
async function* randomChunks(tx, count) {
  const payloadBytes = chunkBytes + plainHeader.length
  const csize = key.sealedLength(payloadBytes), blocks = Math.ceil(payloadBytes / 16)
  const plain = Buffer.alloc(chunkBytes * batch)
  for (let done = 0; done < count; done += batch) {
    const some = Math.min(batch, count - done)
    const target = Buffer.alloc(some * (entryOverhead + csize))
    let nonce = key.encrypted ? await nonces.take(blocks * some) : 0n
    randomFillSync(plain)
    const ids = [], lengths = []
    let used = 0
    for (let number = 0; number < some; number++) {
      const bytes = plain.subarray(number * chunkBytes, (number + 1) * chunkBytes)
      const id = key.idHash(bytes)
      key.sealInto(bytes, nonce, target, used + entryOverhead, plainHeader)
      nonce += BigInt(blocks)
      lengths.push(framePutInPlace(target, used, id, csize))
      ids.push(id)
      used += lengths.at(-1)
    }
    await tx.putEntries(target, ids, lengths)
    for (const id of ids) yield { id, size: chunkBytes, csize }
  }
}
