/** Targets that read files, and the drive's requests: each input is put into a folder of its own. */
import { closeSync, fstatSync, ftruncateSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, readSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { crc32 } from 'node:zlib'
import { CacheConfig } from '../../src/engine/cache/cache-config.js'
import { FilesCache, parseFilesCacheMode } from '../../src/engine/cache/files-cache.js'
import { chunkId } from '../../src/engine/ids.js'
import { type MsgValue, MsgWriter, unpack } from '../../src/engine/msgpack.js'
import { LocalRepository } from '../../src/engine/repository/local-repository.js'
import { createRepository } from '../../src/engine/repository/repository-creation.js'
import { scanEntries, idsInDiskOrder } from '../../src/engine/repository/low-level-scan.js'
import { loadPatterns } from '../../src/engine/patterns/load.js'
import { Dispatcher } from '../../src/fs/fuse/kernel/dispatch.js'
import { opcode, requestHeaderSize, slotSize } from '../../src/fs/fuse/kernel/protocol.js'
import { Replies } from '../../src/fs/fuse/kernel/replies.js'
import { Incoming, type IncomingOptions } from '../../src/fs/incoming/incoming.js'
import { replay } from '../../src/fs/incoming/journal-replay.js'
import { Nodes, rootId } from '../../src/fs/incoming/nodes.js'
import { inodeRange, inoOf, rootIno } from '../../src/fs/inodes.js'
import { VirtualFs } from '../../src/fs/virtual-fs.js'
import { fixtureJson } from '../helpers/fixtures.js'
import { archiveInfo, build, Contents, directoryMode, FakeEngine, item, linkMode, mountView, treeOptions } from '../helpers/mount-fixtures.js'
import { mutateBytes, mutateMsgpack, mutateText } from './mutate.js'
import type { Random } from './random.js'
import type { Target } from './target.js'
import { noNotices } from '../../src/fs/fuse/transport.js'

const silent = { write: () => undefined }

let folder: string | undefined
/** One for the whole run, removed at exit. */
function scratch(...parts: string[]): string {
  if (folder === undefined) {
    folder = mkdtempSync(join(tmpdir(), 'borgfs-fuzz-'))
    process.once('exit', () => rmSync(folder!, { recursive: true, force: true }))
  }
  return join(folder, ...parts)
}

// --- a whole repository, one of whose files is not as it was ---

const ids = [1, 2, 3, 4].map(number => chunkId(Buffer.alloc(32, number)))
const valueOf = (number: number): Buffer => Buffer.alloc(20 + number * 50, number)
let original: { readonly name: string; readonly content: Buffer }[] = []

/** Two transactions, so that there are a replaced and a deleted object. */
async function makeRepository(): Promise<void> {
  const path = scratch('made')
  createRepository(path)
  const repository = await LocalRepository.open(path, { lock: 'exclusive', lockWaitMs: 0, log: silent })
  await repository.transaction(async tx => {
    for (const [index, id] of ids.entries()) await tx.put(id, valueOf(index))
  })
  await repository.transaction(async tx => {
    await tx.put(ids[1]!, valueOf(1))
    await tx.delete(ids[3]!)
  })
  await repository.close()
  writeFileSync(join(path, 'lock.roster'), '{"shared": [["host@1", 12345, 0]]}')
  writeFileSync(join(path, 'nonce'), '0000000000001000')
  const files = (at: string): string[] => readdirSync(at).flatMap(name => (statSync(join(at, name)).isDirectory() ? files(join(at, name)) : [join(at, name)]))
  original = files(path).sort().map(file => ({ name: relative(path, file), content: readFileSync(file) })).filter(({ name }) => name !== 'README')
}

await makeRepository()

/** A file's number, then what it holds. */
const repositorySamples = original.map(({ content }, index) => Buffer.concat([Buffer.from([index]), content]))
const contentAt = 1

function mutateRepository(sample: Buffer, random: Random, samples: readonly Buffer[]): Buffer {
  const [number, content] = [sample.subarray(0, contentAt), sample.subarray(contentAt)]
  const name = original[number[0]! % original.length]!.name
  const same = samples.filter(other => other[0] === number[0]).map(other => other.subarray(contentAt))
  const changed = name === 'config' || name.includes('roster') || name === 'nonce' ? mutateText(content, random, same) : /^(?:hints|integrity)/.test(name) ? mutateMsgpack(content, random, same)
    : name.startsWith('data/') && !random.oneIn(3) ? mutateSegment(content, random) : mutateBytes(content, random, same)
  return Buffer.concat([number, changed])
}

/** An entry that is wrong in one thing only: its checksum is right again. */
function mutateSegment(content: Buffer, random: Random): Buffer {
  const entries: Buffer[] = []
  for (let at = 8; at + 9 <= content.length; ) {
    const size = Math.max(9, content.readUInt32LE(at + 4))
    entries.push(Buffer.from(content.subarray(at, at + size)))
    at += size
  }
  if (entries.length === 0) return mutateBytes(content, random)
  const index = random.below(entries.length)
  const entry = mutateBytes(entries[index]!, random)
  // Its value stays what it was, or nobody could tell that another was returned.
  if (entry.length >= 9) {
    if (entry.length >= 41 && entry[8] === 0) entry.set(valueNamedBy(entry).subarray(0, entry.length - 41), 41)
    if (!random.oneIn(4)) entry.writeUInt32LE(entry.length, 4)
    entry.writeUInt32LE(crc32(entry.subarray(4)), 0)
  }
  entries[index] = entry
  if (random.oneIn(4)) entries.splice(random.below(entries.length), 0, entry)
  return Buffer.concat([content.subarray(0, 8), ...entries])
}

function valueNamedBy(entry: Buffer): Buffer {
  const index = ids.findIndex(id => id.equals(entry.subarray(9, 41)))
  return index < 0 ? Buffer.alloc(0) : valueOf(index)
}

async function useRepository(input: Buffer): Promise<string | undefined> {
  const path = scratch('repository')
  rmSync(path, { recursive: true, force: true })
  mkdirSync(join(path, 'data', '0'), { recursive: true })
  const number = (input[0] ?? 0) % original.length
  for (const [index, { name, content }] of original.entries()) writeFileSync(join(path, name), index === number ? input.subarray(contentAt) : content)
  const repository = await LocalRepository.open(path, { lock: 'shared', lockWaitMs: 0, log: silent })
  try {
    await repository.loadKey()
    for (const id of await repository.list(undefined, 1000)) {
      try {
        const known = ids.findIndex(own => own.equals(id))
        const object = await repository.get(id)
        repository.storedSize(id)
        // A segment that was written anew with right checksums may hold whatever its author liked, but under a known id only what we put there.
        if (known >= 0 && object.length >= valueOf(known).length && !object.subarray(0, valueOf(known).length).equals(valueOf(known))) return `object ${known} has another value`
      } catch (error) {
        if (!(error instanceof Error && error.name === 'IntegrityError')) throw error
      }
    }
    const seen = [...scanEntries(repository, { damaged: () => undefined })].length + [...idsInDiskOrder(repository)].length
    return seen < 0 ? 'never' : undefined
  } finally {
    await repository.close()
  }
}

// --- caches ---

const repositoryId = 'ab'.repeat(32)
const cacheConfig = Buffer.from(`[cache]\nversion = 1\nrepository = ${repositoryId}\nmanifest = ${'cd'.repeat(32)}\ntimestamp = 2024-05-01T09:00:00.000000\nkey_type = 3\nprevious_location = /somewhere\n\n[integrity]\nmanifest = ${'cd'.repeat(32)}\nchunks = {"algorithm": "XXH64", "digests": {"final": "0123456789abcdef"}}\n`)

function filesCacheSample(): Buffer {
  const writer = new MsgWriter()
  for (const count of [1, 0, 3]) {
    writer.arrayHeader(2)
    writer.raw(Buffer.alloc(32, count))
    writer.arrayHeader(5)
    for (const value of [0, 77, 1000, 1_700_000_000_000_000_000n]) writer.int(value)
    writer.arrayHeader(count)
    for (let index = 0; index < count; index++) writer.raw(Buffer.alloc(32, 50 + index))
  }
  return writer.finish()
}

async function useFilesCache(input: Buffer): Promise<void> {
  const path = scratch('cache')
  mkdirSync(path, { recursive: true })
  writeFileSync(join(path, 'files'), input)
  for (const mode of ['ctime,size,inode', 'size']) {
    const cache = await FilesCache.load({ folder: path, digests: () => undefined, index: undefined }, parseFilesCacheMode(mode)!, silent, {})
    for (const count of [0, 1, 3]) {
      const file = { ino: 77n, size: 1000, ctimeNs: 1_700_000_000_000_000_000n, mtimeNs: 0n }
      if (cache.lookup(chunkId(Buffer.alloc(32, count)), file).state === 'unchanged') cache.confirm(chunkId(Buffer.alloc(32, count)), file)
    }
    cache.write()
  }
}

// --- staging ---

function record(payload: Buffer): Buffer {
  const head = Buffer.alloc(8)
  head.writeUInt32LE(payload.length, 0)
  head.writeUInt32LE(crc32(payload), 4)
  return Buffer.concat([head, payload])
}

const name = (text: string): Buffer => Buffer.from(text)
const facts = [0o644, 1, 2, 0, 5n, 6n, 7n] as const
const records: readonly MsgValue[][] = [
  [1, 2, 1, name('tree'), 0o040755, ...facts.slice(1), null], [1, 3, 2, name('file'), 0o100644, ...facts.slice(1), null], [1, 4, 2, name('link'), 0o120777, ...facts.slice(1), name('target')],
  [1, 5, 2, name('sub'), 0o040755, ...facts.slice(1), null], [2, 3, 5, name('second')], [4, 2, name('file'), 5, name('moved')], [5, 2, name('link'), 5, name('second')],
  [6, 3, 0o100600, 1, 2, 5n, 6n, 7n], [7, 3, name('user.a'), name('value')], [3, 5, name('second')], [8, 2, name('sub')],
]
const pack = (fields: readonly MsgValue[]): Buffer => {
  const writer = new MsgWriter()
  writer.value([...fields])
  return writer.finish()
}
const journalSample = Buffer.concat(records.map(fields => record(pack(fields))))

function mutateJournal(sample: Buffer, random: Random, samples: readonly Buffer[]): Buffer {
  if (random.oneIn(3)) return mutateBytes(sample, random, samples)
  const payloads: Buffer[] = []
  for (let at = 0; at + 8 <= sample.length; ) {
    const length = sample.readUInt32LE(at)
    payloads.push(sample.subarray(at + 8, at + 8 + length))
    at += 8 + length
  }
  for (let rounds = 1 + random.size(5); rounds > 0 && payloads.length > 0; rounds--) {
    const index = random.below(payloads.length)
    if (random.oneIn(4)) payloads.splice(random.below(payloads.length), 0, payloads[index]!)
    else if (random.oneIn(6)) payloads.splice(index, 1)
    else payloads[index] = random.oneIn(2) ? mutateMsgpack(payloads[index]!, random) : otherNumber(payloads[index]!, random)
  }
  return Buffer.concat(payloads.map(record))
}

/** Another of the few ids in use: trees that do not make sense. */
function otherNumber(payload: Buffer, random: Random): Buffer {
  try {
    const fields = unpack(payload)
    if (!Array.isArray(fields)) return payload
    const places = fields.flatMap((field, index) => (typeof field === 'number' && index > 0 && field < 10 ? [index] : []))
    if (places.length > 0) fields[random.pick(places)] = 1 + random.below(6)
    return pack(fields)
  } catch {
    return payload
  }
}

function useJournal(input: Buffer): string | undefined {
  const path = scratch('journal')
  writeFileSync(path, input)
  const nodes = new Nodes({ mode: 0o040755, uid: 0, gid: 0, rdev: 0, atimeNs: 0n, mtimeNs: 0n, ctimeNs: 0n })
  replay(path, nodes)
  let steps = 0
  for (const { node } of nodes.walk(nodes.get(rootId)!)) {
    if (++steps > 100_000) return 'a tree without end'
    if (node.children === undefined && (node.mode & 0o170000) === 0o040000) return 'a directory that can hold nothing'
  }
  return undefined
}

// --- requests of the kernel ---

const requests = fixtureJson<{ requests: Record<string, string> }>('vectors', 'fuse-structs.json').requests

function request(code: number, ino: number, body: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(requestHeaderSize)
  head.writeUInt32LE(requestHeaderSize + body.length, 0)
  head.writeUInt32LE(code, 4)
  head.writeBigUInt64LE(5n, 8)
  head.writeBigUInt64LE(BigInt(ino), 16)
  return Buffer.concat([head, body])
}

const u64 = (...values: number[]): Buffer => Buffer.from(BigUint64Array.from(values, BigInt).buffer)
const archiveIno = 16 * 2 ** 32
const fuseSamples = [
  Buffer.concat([
    request(opcode.init, 0, Buffer.from(Uint32Array.from([7, 38, 1 << 17, 0xffffffff, ...Array.from({ length: 12 }, () => 0)]).buffer)), request(opcode.lookup, rootIno, Buffer.from('archive\0')),
    request(opcode.opendir, archiveIno, u64(0)), request(opcode.readdirplus, archiveIno, u64(1, 0, 4096, 0, 0)), request(opcode.readdir, archiveIno, u64(1, 1, 4096, 0, 0)),
    request(opcode.lookup, archiveIno, Buffer.from('file\0')), request(opcode.open, archiveIno + 2, u64(0)), request(opcode.read, archiveIno + 2, u64(2, 0, 65536, 0, 0)), request(opcode.release, archiveIno + 2, u64(2, 0, 0)),
    request(opcode.readlink, archiveIno + 3), request(opcode.getattr, archiveIno + 2, u64(0, 0)), request(opcode.listxattr, archiveIno, u64(100)), request(opcode.statfs, rootIno), request(opcode.forget, archiveIno + 2, u64(1)),
  ]),
  ...Object.values(requests).map(text => Buffer.from(text, 'hex')),
]

const dropBox = inoOf(inodeRange.incoming, rootId), dropped = (local: number): number => inoOf(inodeRange.incoming, local)
const u32 = (...values: number[]): Buffer => Buffer.from(Uint32Array.from(values).buffer)
const text = (...all: string[]): Buffer => Buffer.from(all.map(each => `${each}\0`).join(''), 'latin1')
/** A copied tree: a directory 2 with file 3, symlink 4, directory 5. */
const dropSamples = [
  Buffer.concat([
    request(opcode.lookup, rootIno, text('incoming')), request(opcode.mkdir, dropBox, Buffer.concat([u32(0o755, 0), text('tree')])), request(opcode.create, dropped(2), Buffer.concat([u32(2, 0o644, 0, 0), text('file')])),
    request(opcode.write, dropped(3), Buffer.concat([u64(1, 0), u32(5, 0), u64(0, 0), Buffer.from('hello')])), request(opcode.read, dropped(3), Buffer.concat([u64(1, 0), u32(100, 0), u64(0, 0)])),
    request(opcode.setattr, dropped(3), Buffer.concat([u32(8 + 1, 0), u64(1, 3, 0, 0, 0, 0), u32(0, 0, 0, 0o600, 0, 0, 0, 0)])), request(opcode.setattr, dropped(3), Buffer.concat([u32(16 + 32, 0), u64(1, 3, 0, 2 ** 62, 2 ** 56, 0), u32(0, 999_999_999, 0, 0, 0, 0, 0, 0)])), request(opcode.symlink, dropped(2), text('link', 'target')),
    request(opcode.mkdir, dropped(2), Buffer.concat([u32(0o755, 0), text('sub')])), request(opcode.link, dropped(5), Buffer.concat([u64(dropped(3)), text('hard')])),
    request(opcode.rename, dropped(2), Buffer.concat([u64(dropped(5)), text('file', 'moved')])), request(opcode.rename2, dropped(2), Buffer.concat([u64(dropped(5)), u32(2, 0), text('link', 'hard')])),
    request(opcode.setxattr, dropped(3), Buffer.concat([u32(5, 0), text('user.a'), Buffer.from('value')])), request(opcode.getxattr, dropped(3), Buffer.concat([u32(100, 0), text('user.a')])),
    request(opcode.setxattr, dropped(3), Buffer.concat([u32(28, 0), text('system.posix_acl_access'), Buffer.from('0200000001000600ffffffff04000400ffffffff20000000ffffffff', 'hex')])),
    request(opcode.listxattr, dropped(3), u32(1000, 0)), request(opcode.lseek, dropped(3), Buffer.concat([u64(1, 0), u32(3, 0)])), request(opcode.flush, dropped(3), u64(1, 0, 0)), request(opcode.fsync, dropped(3), u64(1, 0)),
    request(opcode.release, dropped(3), u64(1, 0, 0)), request(opcode.opendir, dropped(2), u64(0)), request(opcode.readdirplus, dropped(2), Buffer.concat([u64(2, 0), u32(4096, 0), u64(0, 0)])),
    request(opcode.unlink, dropped(5), text('hard')), request(opcode.rmdir, dropped(2), text('sub')), request(opcode.statfs, dropBox),
  ]),
]

function useRequests(input: Buffer, withDropBox = false): string | undefined {
  const contents = new Contents()
  const engine = new FakeEngine(contents)
  engine.trees.set('archive', build([item('sub', { mode: directoryMode }), item('file', { chunks: contents.list(Buffer.alloc(70_000, 1), Buffer.from('end')) }), item('link', { mode: linkMode, source: Buffer.from('file') }), item('sub/hard', { source: Buffer.from('file') })], treeOptions()))
  const notices = noNotices
  if (withDropBox) rmSync(scratch('staging'), { recursive: true, force: true })
  const incoming = withDropBox ? new Incoming({
    folder: scratch('staging'), maxBytes: 1 << 20, place: 'incoming', archiveIds: new Set<string>(), settleMs: 1e9, lingerMs: 0, rootFacts: { mode: 0o040755, uid: 0, gid: 0, rdev: 0, atimeNs: 0n, mtimeNs: 0n, ctimeNs: 0n },
  } as IncomingOptions, engine.client, notices, { state: () => undefined }, () => core.cache) : undefined
  const core: VirtualFs = new VirtualFs({ view: mountView([archiveInfo('archive')]), client: engine.client, notices, ...(incoming ? { parts: new Map([['incoming', incoming]]) } : {}) })
  engine.answer()
  // Appending: what was read is cut off, and the next answer is the whole file again.
  const fd = openSync(scratch('replies'), 'a+')
  ftruncateSync(fd, 0)
  const faults: string[] = []
  try {
    const dispatcher = new Dispatcher(core, new Replies(fd), { log: { write: (level, _topic, message) => void (level === 'error' && message.startsWith('Request ') && faults.push(message)) } })
    for (let at = 0, count = 0; at < input.length && count < 64; count++) {
      const length = Math.min(Math.max(requestHeaderSize, input.length - at >= 4 ? input.readUInt32LE(at) : 0), slotSize, Math.max(requestHeaderSize, input.length - at))
      dispatcher.slot.bytes.fill(0, 0, requestHeaderSize)
      input.copy(dispatcher.slot.bytes, 0, at, at + length)
      at += length
      const code = dispatcher.slot.getU32(4)
      // Room that is set aside is really taken from the disk of whoever runs this.
      if (code === opcode.fallocate) continue
      const replyLength = dispatcher.handle(length)
      writeSync(fd, dispatcher.slot.bytes, 0, replyLength)
      engine.answer()
      if (faults.length > 0) return faults[0]
      const answers = Buffer.alloc(fstatSync(fd).size)
      readSync(fd, answers, 0, answers.length, 0)
      ftruncateSync(fd, 0)
      const silentCode = code === opcode.forget || code === opcode.batchForget || code === opcode.interrupt
      if (answers.length === 0 ? !silentCode && dispatcher.deferredCount === 0 : answers.length !== answers.readUInt32LE(0)) return `request ${code} has ${answers.length} bytes of answer`
    }
    return undefined
  } finally {
    incoming?.destroy()
    closeSync(fd)
  }
}

export const fileTargets: readonly Target[] = [
  { name: 'a repository with one file changed', count: 500, hostErrors: true, samples: repositorySamples, mutate: mutateRepository, run: useRepository },
  {
    name: 'the config of a cache', count: 500, mutate: mutateText, samples: [cacheConfig],
    run(input) {
      const path = scratch('cache-config')
      writeFileSync(path, input)
      const config = CacheConfig.load(path, repositoryId)
      config.digests('chunks')
      config.list('cache', 'ignored_features')
      config.setManifest('')
      config.save()
    },
  },
  { name: 'the files cache', count: 500, mutate: mutateMsgpack, samples: [filesCacheSample()], run: useFilesCache },
  { name: 'the journal of staged files', count: 1000, mutate: mutateJournal, samples: [journalSample], run: useJournal },
  {
    name: 'files of patterns', count: 500, mutate: mutateText, samples: [Buffer.from('R /home\n# comment\nP sh\n+ home/*/keep\n- home/**/cache\n! re:\\.tmp$\n- pf:home/x\n'), Buffer.from('+ fm:*.[ch]\nP pp\n- /var/tmp\n')],
    run(input) {
      const path = scratch('patterns')
      writeFileSync(path, input)
      loadPatterns([{ kind: 'patterns-from', value: path }])
      loadPatterns([{ kind: 'exclude-from', value: path }])
    },
  },
  { name: 'requests of the kernel', count: 600, samples: fuseSamples, run: input => useRequests(input) },
  { name: 'requests of the kernel to the drop box', count: 200, samples: dropSamples, run: input => useRequests(input, true) },
]
