/** What holds for every value, tried on many (fast-check; a failure prints the seed and the smallest case). */
import test from 'ava'
import fc from 'fast-check'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ChunkList } from '../../src/engine/archive/chunk-list.js'
import type { Item } from '../../src/engine/archive/item.js'
import { encodeItem } from '../../src/engine/archive/item-codec.js'
import { decodeItems, ItemStreamWriter } from '../../src/engine/archive/item-stream.js'
import { decompress } from '../../src/engine/codec/decompress.js'
import { completePayload } from '../../src/engine/codec/none.js'
import { parseCompression } from '../../src/engine/codec/spec.js'
import { keyBlobOf, keyText, openKeyBlob, sealKeyBlob } from '../../src/engine/crypto/key-blob.js'
import { paperKey, PaperKeyReader } from '../../src/engine/crypto/paper-key.js'
import { HashTable } from '../../src/engine/hashindex/hash-table.js'
import { chunkId } from '../../src/engine/ids.js'
import { type MsgValue, MsgWriter, pack, unpack } from '../../src/engine/msgpack.js'
import { normalPath, storedPath } from '../../src/engine/patterns/path-text.js'
import { parsePattern } from '../../src/engine/patterns/pattern.js'
import { formatIni } from '../../src/engine/repository/config.js'
import { LocalRepository } from '../../src/engine/repository/local-repository.js'
import { createRepository } from '../../src/engine/repository/repository-creation.js'
import { bytesOf, byteString, escapedBytes, escapedText } from '../../src/engine/text.js'

const runs = { numRuns: 300, seed: 1 }
const few = { numRuns: 40, seed: 1 }
const bytes = (maxLength = 64): fc.Arbitrary<Buffer> => fc.uint8Array({ maxLength }).map(array => Buffer.from(array))
const exactly = (length: number): fc.Arbitrary<Buffer> => fc.uint8Array({ minLength: length, maxLength: length }).map(array => Buffer.from(array))
const byteText = fc.uint8Array({ maxLength: 20 }).map(byteString)
const uint32 = fc.integer({ min: 0, max: 0xffffffff })

const { value: msgValue } = fc.letrec<{ value: MsgValue }>(tie => ({
  value: fc.oneof(
    { maxDepth: 4, depthSize: 'small' },
    fc.constant(null), fc.boolean(), fc.integer({ min: -(2 ** 53) + 1, max: 2 ** 53 - 1 }), fc.bigInt({ min: -(1n << 63n), max: (1n << 64n) - 1n }), bytes(),
    fc.array(tie('value'), { maxLength: 6 }), fc.array(fc.tuple(byteText, tie('value')), { maxLength: 6 }).map(entries => new Map(entries)),
  ) as fc.Arbitrary<MsgValue>,
}))

/** Big integers that fit a number come back as one. */
function narrow(value: MsgValue): MsgValue {
  if (typeof value === 'bigint') return value >= -9007199254740991n && value <= 9007199254740991n ? Number(value) : value
  if (Array.isArray(value)) return value.map(narrow)
  if (value instanceof Map) return new Map([...value].sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, entry]) => [key, narrow(entry)]))
  return value
}

test('every value comes back from MessagePack, and in one form only', t => {
  fc.assert(fc.property(msgValue, value => {
    const packed = pack(value)
    t.deepEqual(unpack(packed), narrow(value))
    t.true(pack(unpack(packed)).equals(packed))
  }), runs)
  t.pass()
})

const ns = fc.bigInt({ min: -(1n << 70n), max: 1n << 70n })
const chunks = fc.array(fc.tuple(exactly(32), uint32, uint32), { maxLength: 5 }).map(refs => ChunkList.of(refs.map(([id, size, csize]) => ({ id: chunkId(id), size, csize }))))
const item: fc.Arbitrary<Item> = fc.record({
  path: bytes(300), mode: fc.integer({ min: 0, max: 0o177777 }), uid: uint32, gid: uint32, user: fc.option(bytes(20)), group: fc.option(bytes(20)), mtimeNs: ns,
  atimeNs: ns, ctimeNs: ns, birthtimeNs: ns, chunks, size: fc.nat(), hardlinkMaster: fc.boolean(), source: bytes(40), rdev: fc.nat(),
  xattrs: fc.array(fc.tuple(byteText, fc.option(bytes(30))), { maxLength: 4 }).map(entries => new Map(entries)), aclAccess: bytes(50), bsdflags: uint32, part: fc.nat(9),
}, { requiredKeys: ['path', 'mode', 'uid', 'gid', 'user', 'group', 'mtimeNs'] }) as fc.Arbitrary<Item>

function packed(items: readonly Item[]): Buffer {
  const writer = new MsgWriter()
  for (const each of items) encodeItem(each, writer)
  return writer.finish()
}

test('items come back from their stream, wherever it is cut', async t => {
  await fc.assert(fc.asyncProperty(fc.array(item, { maxLength: 8 }), fc.array(fc.nat(400), { maxLength: 10 }), async (items, cuts) => {
    const stream = packed(items)
    const again: Item[] = []
    async function* pieces(): AsyncGenerator<Buffer> {
      let at = 0
      for (const cut of cuts) {
        await Promise.resolve()
        yield stream.subarray(at, (at = Math.min(stream.length, at + cut)))
      }
      yield stream.subarray(at)
    }
    for await (const each of decodeItems(pieces())) again.push(each)
    t.is(again.length, items.length)
    t.true(packed(again).equals(stream))
  }), runs)
})

test('chunks of an item stream are its bytes, and its cuts do not depend on when it was flushed', async t => {
  await fc.assert(fc.asyncProperty(fc.array(item, { maxLength: 30 }), fc.integer(), fc.nat(40), async (items, seed, repeat) => {
    const streamOf = async (flushEach: boolean): Promise<Buffer[]> => {
      const stored: Buffer[] = []
      const writer = new ItemStreamWriter(seed | 0, chunk => Promise.resolve(void stored.push(Buffer.from(chunk))))
      for (let round = 0; round <= repeat; round++) {
        for (const each of items) await writer.add(each)
        if (flushEach) await writer.flush(false)
      }
      await writer.flush(true)
      return stored
    }
    const [a, b] = [await streamOf(false), await streamOf(true)]
    t.deepEqual(a.map(({ length }) => length), b.map(({ length }) => length))
    t.true(Buffer.concat(a).equals(Buffer.concat(Array.from({ length: repeat + 1 }, () => packed(items)))))
  }), few)
})

test('whatever bytes are compressed come out again, whichever method', async t => {
  const data = fc.oneof(bytes(2000), fc.tuple(bytes(20), fc.nat(500)).map(([unit, count]) => Buffer.concat(Array.from({ length: count }, () => unit))))
  await fc.assert(fc.asyncProperty(data, fc.constantFrom('none', 'lz4', 'zstd,1', 'zstd,19', 'zlib,0', 'zlib,9', 'lzma,0', 'auto,zlib,6', 'obfuscate,2,zstd,3', 'obfuscate,110,lz4'), async (plain, spec) => {
    const codec = parseCompression(spec)
    const payload = completePayload(await codec.compress(plain), plain)
    t.true(payload.length <= codec.maxPayload(plain.length), spec)
    t.true((await decompress(payload, { size: plain.length })).equals(plain), spec)
    t.true((await decompress(payload)).equals(plain), spec)
  }), { ...runs, numRuns: 200 })
})

test('names survive as text and as byte strings, byte for byte', t => {
  fc.assert(fc.property(bytes(), name => escapedBytes(escapedText(name)).equals(name) && bytesOf(byteString(name)).equals(name)), { ...runs, numRuns: 2000 })
  t.pass()
})

test('stored paths never lead out, and making them normal twice changes nothing', t => {
  const path = fc.array(fc.constantFrom('..', '.', '', 'a', 'b c', '...', '..x', '\udcff'), { maxLength: 8 }).map(parts => parts.join('/'))
  fc.assert(fc.property(path, text => {
    const normal = normalPath(text)
    t.is(normalPath(normal), normal)
    const stored = storedPath(normal)
    t.false(stored.startsWith('/'))
    t.false(stored.split('/').includes('..') && stored !== '..', stored)
  }), { ...runs, numRuns: 2000 })
})

test('a path matches itself, in every style that takes it literally', t => {
  const path = fc.array(fc.string({ minLength: 1, maxLength: 8 }).filter(part => !/[/*?[\]]|^\.{1,2}$/.test(part)), { minLength: 1, maxLength: 4 }).map(parts => parts.join('/'))
  fc.assert(fc.property(path, fc.constantFrom('fm', 'sh', 'pp', 'pf'), (text, style) => parsePattern(`${style}:${text}`, 'fm').matches(text)), runs)
  t.pass()
})

test('a hash table behaves like a map', t => {
  const step = fc.tuple(fc.constantFrom('set', 'set', 'set', 'delete', 'get'), fc.nat(60), uint32.map(word => word % 0xfffffbff))
  fc.assert(fc.property(fc.array(step, { maxLength: 3000, size: 'max' }), fc.nat(2000), (steps, offset) => {
    const [table, model] = [new HashTable(2), new Map<number, number>()]
    const id = (number: number): Buffer => Buffer.alloc(32).fill(number * 7 + 1).fill(offset & 255, 4, 8)
    for (const [kind, number, word] of steps) {
      if (kind === 'set') {
        table.set(id(number), word, number)
        model.set(number, word)
      } else if (kind === 'delete') t.is(table.delete(id(number)), model.delete(number))
      else t.is(table.has(id(number)), model.has(number))
    }
    t.is(table.size, model.size)
    const saved = Buffer.concat([table.header(), table.bucketBytes])
    const loaded = HashTable.load(2, saved.subarray(0, 18), saved.length, into => into.set(saved.subarray(18)))
    for (const [number, word] of model) t.deepEqual([loaded.value(loaded.find(id(number)), 0), loaded.value(loaded.find(id(number)), 1)], [word, number])
  }), few)
})

test('a key on paper is typed in again, and one wrong digit is noticed at its line', t => {
  fc.assert(fc.property(bytes(700).filter(({ length }) => length > 0), exactly(32), fc.nat(), fc.nat(15), (blob, id, where, digit) => {
    const lines = paperKey(blob, id).trimEnd().split('\n').slice(3).map(line => line.slice(4))
    const reader = new PaperKeyReader(id)
    const wrong = where % lines.length
    let refused = 0
    for (const [index, line] of lines.entries()) {
      if (index === wrong) {
        const places = [...line.matchAll(/[0-9a-f]/g)].map(match => match.index)
        const place = places[where % places.length]!
        const changed = `${line.slice(0, place)}${digit.toString(16)}${line.slice(place + 1)}`
        if (changed !== line) {
          // Two check digits: one wrong line in 256 passes, and the whole is refused at the end then.
          if (reader.take(changed).kind !== 'again') return
          refused++
        }
      }
      const taken = reader.take(line)
      if (index === lines.length - 1) t.deepEqual(taken, { kind: 'complete', blob })
      else t.is(taken.kind, 'next')
    }
    t.true(refused <= 1)
  }), { ...runs, numRuns: 150 })
})

test('a key opens with its passphrase, and the text of its blob may be wrapped anyhow', t => {
  fc.assert(fc.property(bytes(30), fc.constantFrom(32, 128), fc.integer(), fc.nat(100), (passphrase, size, seed, width) => {
    const secrets = { encKey: Buffer.alloc(32, 1), encHmacKey: Buffer.alloc(size, 2), idKey: Buffer.alloc(size, 3), chunkSeed: seed | 0, repositoryId: Buffer.alloc(32, 4), tamRequired: seed % 2 === 0 }
    const blob = sealKeyBlob(secrets, passphrase, 1)
    const wrapped = keyText(blob).replaceAll('\n', '').replace(new RegExp(`.{${width + 1}}`, 'g'), '$&\r\n\t')
    const { encKey, encHmacKey, idKey, ...rest } = openKeyBlob(keyBlobOf(wrapped), passphrase)!
    t.deepEqual({ ...rest, encKey: encKey.toString('hex'), encHmacKey: encHmacKey.toString('hex'), idKey: idKey.toString('hex') },
      { ...secrets, encKey: secrets.encKey.toString('hex'), encHmacKey: secrets.encHmacKey.toString('hex'), idKey: secrets.idKey.toString('hex') })
    t.is(openKeyBlob(blob, Buffer.concat([passphrase, Buffer.from('x')])), undefined)
  }), few)
})

test('a repository holds what was put and not deleted, whatever the order and whenever it is opened anew', async t => {
  const step = fc.tuple(fc.constantFrom('put', 'put', 'delete', 'commit', 'abort', 'reopen'), fc.nat(12), bytes(200))
  await fc.assert(fc.asyncProperty(fc.array(fc.array(step, { maxLength: 12 }), { maxLength: 5 }), async transactions => {
    const folder = mkdtempSync(join(tmpdir(), 'borgfs-model-'))
    const path = join(folder, 'repo')
    const quiet = { write: () => undefined }
    try {
      createRepository(path)
      let repository = await LocalRepository.open(path, { lock: 'exclusive', lockWaitMs: 0, log: quiet })
      let committed = new Map<number, Buffer>()
      for (const steps of transactions) {
        const current = new Map(committed)
        const aborted = steps.some(([kind]) => kind === 'abort')
        try {
          await repository.transaction(async tx => {
            for (const [kind, number, value] of steps) {
              const id = chunkId(Buffer.alloc(32, number))
              if (kind === 'put') {
                await tx.put(id, value)
                current.set(number, value)
              } else if (kind === 'delete' && current.delete(number)) await tx.delete(id)
              else if (kind === 'commit') {
                await tx.checkpoint()
                committed = new Map(current)
              } else if (kind === 'abort') throw new RangeError('given up')
            }
          })
          committed = current
        } catch (error) {
          if (!(error instanceof RangeError) || !aborted) throw error
        }
        if (steps.some(([kind]) => kind === 'reopen')) {
          await repository.close()
          repository = await LocalRepository.open(path, { lock: 'exclusive', lockWaitMs: 0, log: quiet })
        }
        t.is(repository.objectCount, committed.size)
        for (const [number, value] of committed) t.true((await repository.get(chunkId(Buffer.alloc(32, number)))).equals(value))
      }
      await repository.close()
    } finally {
      rmSync(folder, { recursive: true })
    }
  }), few)
})

test('values of a config file keep their lines', t => {
  fc.assert(fc.property(fc.array(fc.stringMatching(/^[A-Za-z0-9+/=]{1,70}$/), { minLength: 1, maxLength: 6 }), lines => {
    t.is(formatIni(new Map([['key', lines.join('\n')]])), `[repository]\nkey = ${lines.join('\n\t')}\n\n`)
  }), few)
})
