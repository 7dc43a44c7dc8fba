/** Every parser of bytes that come from elsewhere. Those that need files or a mount are in file-targets.ts. */
import { createCipheriv, createHmac, pbkdf2Sync } from 'node:crypto'
import { decodeMetadata } from '../../src/engine/archive/archive-metadata.js'
import type { Item } from '../../src/engine/archive/item.js'
import { encodeItem } from '../../src/engine/archive/item-codec.js'
import { decodeItems } from '../../src/engine/archive/item-stream.js'
import { Manifest } from '../../src/engine/archive/manifest.js'
import { ChunkIndex } from '../../src/engine/cache/chunk-index.js'
import { ItemReferences } from '../../src/engine/cache/item-references.js'
import { BorgError } from '../../src/engine/errors.js'
import { parseChunkerParams } from '../../src/engine/chunker/params.js'
import { decompress } from '../../src/engine/codec/decompress.js'
import { parseCompression } from '../../src/engine/codec/spec.js'
import { none } from '../../src/engine/codec/none.js'
import { isKeyBlob, keyBlobOf, openKeyBlob } from '../../src/engine/crypto/key-blob.js'
import { keyTypeOfMode } from '../../src/engine/crypto/key-types.js'
import { keyFromSecrets, plaintextKey } from '../../src/engine/crypto/keys.js'
import { NonceSource, parseNonce } from '../../src/engine/crypto/nonces.js'
import { PaperKeyReader } from '../../src/engine/crypto/paper-key.js'
import { headerBytes } from '../../src/engine/hashindex/bucket-layout.js'
import { HashTable } from '../../src/engine/hashindex/hash-table.js'
import { chunkId } from '../../src/engine/ids.js'
import { parseLocation } from '../../src/engine/location.js'
import { MsgReader, type MsgValue, MsgWriter, pack, unpack } from '../../src/engine/msgpack.js'
import { Matcher } from '../../src/engine/patterns/matcher.js'
import { makePattern, parsePattern, styles } from '../../src/engine/patterns/pattern.js'
import { expandPlaceholders } from '../../src/engine/placeholders.js'
import { aclBinary, aclText, parseAcl } from '../../src/engine/platform/acl.js'
import { Hints } from '../../src/engine/repository/hints.js'
import { finalDigest, packIntegrity, unpackIntegrity } from '../../src/engine/repository/integrity.js'
import { parseSize } from '../../src/engine/repository/config.js'
import { RepoObjects } from '../../src/engine/store/repo-objects.js'
import { parseTimestamp } from '../../src/engine/archive/timestamps.js'
import { escapedText } from '../../src/engine/text.js'
import { ArchiveTree } from '../../src/fs/archive-tree.js'
import { fixtureJson } from '../helpers/fixtures.js'
import { findSlot } from '../../src/fs/tree-columns.js'
import { buildTree, columnsOf } from '../../src/fs/tree-image.js'
import { shownTree } from '../../src/fs/tree-view.js'
import { build, treeOptions } from '../helpers/mount-fixtures.js'
import { mutateBytes, mutateMsgpack, mutateText } from './mutate.js'
import type { Target } from './target.js'

const hex = (text: string): Buffer => Buffer.from(text, 'hex')
const texts = (...all: string[]): Buffer[] => all.map(text => Buffer.from(text))

interface StoredObjects {
  keys: { enc_key: string; enc_hmac_key: string; id_key: string; chunk_seed: number }
  objects: { role: string; object_hex: string; payload_hex: string; plaintext_hex: string }[]
}
const stored = fixtureJson<StoredObjects>('vectors', 'crypto-objects-repokey.json')
const plainOf = (role: string): Buffer[] => stored.objects.filter(object => object.role.startsWith(role)).map(({ plaintext_hex }) => hex(plaintext_hex))
const itemSamples = fixtureJson<{ items: { msgpack_hex: string }[] }>('vectors', 'archive-items.json').items.map(({ msgpack_hex }) => hex(msgpack_hex)).filter(({ length }) => length < 4096)
const streams = [...plainOf('item metadata'), ...itemSamples]

async function* split(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) {
    await Promise.resolve()
    yield bytes.subarray(at, at + size)
  }
}

async function itemsOf(bytes: Buffer, size: number): Promise<Item[]> {
  const items: Item[] = []
  for await (const item of decodeItems(split(bytes, size))) items.push(item)
  return items
}

const none0 = plaintextKey()
const noNonces = new NonceSource({ freeNonce: () => Promise.resolve(undefined), reserveNonces: () => Promise.resolve() }, { freeNonce: () => Promise.resolve(undefined), reserveNonces: () => Promise.resolve() }, 0n)
const objects = new RepoObjects(none0, noNonces, none)
const secrets = () => ({ encKey: hex(stored.keys.enc_key), encHmacKey: hex(stored.keys.enc_hmac_key), idKey: hex(stored.keys.id_key), chunkSeed: stored.keys.chunk_seed, repositoryId: Buffer.alloc(32), tamRequired: true })
const repokey = keyFromSecrets(keyTypeOfMode('repokey'), secrets(), false)

const passphrase = Buffer.from('fuzz')
const salt = Buffer.alloc(32, 7)
const innerKey = (size: number): Buffer => pack(new Map<string, MsgValue>([
  ['chunk_seed', -5], ['enc_hmac_key', Buffer.alloc(size, 1)], ['enc_key', Buffer.alloc(32, 2)], ['id_key', Buffer.alloc(size, 3)], ['repository_id', Buffer.alloc(32, 4)], ['tam_required', true], ['version', 1],
]))

/** A blob that opens, whatever it holds: the passphrase is known to who made it. */
function sealedBlob(inner: Buffer): Buffer {
  const kek = pbkdf2Sync(passphrase, salt, 1, 32, 'sha256')
  return pack(new Map<string, MsgValue>([
    ['algorithm', Buffer.from('sha256')], ['data', createCipheriv('aes-256-ctr', kek, Buffer.alloc(16)).update(inner)], ['hash', createHmac('sha256', kek).update(inner).digest()],
    ['iterations', 1], ['salt', salt], ['version', 1],
  ]))
}

function hashTableFile(valueWords: number, entries: number): Buffer {
  const table = new HashTable(valueWords)
  for (let index = 0; index < entries; index++) table.set(Buffer.alloc(32, index * 7 + 1), ...Array.from({ length: valueWords }, (_unused, word) => index + word))
  return Buffer.concat([table.header(), table.bucketBytes])
}

/** Buckets of few numbers, so that mutations meet headers and marks and not only ids. */
function smallTable(valueWords: number, buckets: number, marks: readonly number[]): Buffer {
  const file = Buffer.alloc(headerBytes + buckets * (32 + 4 * valueWords))
  file.write('BORG_IDX')
  file.writeInt32LE(marks.filter(mark => mark < 0xfffffffe).length, 8)
  file.writeInt32LE(buckets, 12)
  file[16] = 32
  file[17] = 4 * valueWords
  for (const [index, mark] of marks.entries()) {
    const at = headerBytes + index * (32 + 4 * valueWords)
    file.fill(index + 1, at, at + 32)
    file.writeUInt32LE(mark, at + 32)
  }
  return file
}

function useTable(input: Buffer, valueWords: number): void {
  if (input.length < headerBytes) return
  const table = HashTable.load(valueWords, input.subarray(0, headerBytes), input.length, into => void into.set(input.subarray(headerBytes, headerBytes + into.length)))
  // A damaged file may hold an id twice, or where it is not looked for; then deleting it may uncover the other one, which is no fault of the table.
  const entries = [...table.entries()]
  const unique = new Set(entries.map(({ id }) => id.toString('hex'))).size === table.size && entries.every(({ id, bucket }) => table.find(id) === bucket)
  for (let index = 0; index < 6; index++) {
    const id = Buffer.alloc(32, index)
    table.has(id)
    table.set(id, ...Array.from({ length: valueWords }, () => index))
    if (!table.has(id)) throw new Error('an id that was set is not found')
    if (index % 2 && (!table.delete(id) || (unique && table.has(id)))) throw new Error('an id that was deleted is found')
  }
  let seen = 0
  for (const { bucket } of table.entries()) seen += table.value(bucket, 0) >= 0 ? 1 : 0
  if (seen !== table.size) throw new Error(`${seen} entries, counted as ${table.size}`)
  table.compact()
  const other = new HashTable(valueWords)
  other.addCounts(table)
}

const compressed = fixtureJson<{ vectors: { stored_hex?: string }[]; decoder_acceptance: { stored_hex: string }[] }>('vectors', 'compression-chunks.json')
const payloads = [...compressed.vectors, ...compressed.decoder_acceptance].flatMap(({ stored_hex }) => (stored_hex && stored_hex.length < 20_000 ? [hex(stored_hex)] : []))

/** The last bytes say with which limits: unknown size, right size, a lie. */
async function decompressAny(input: Buffer): Promise<unknown> {
  const plain = await decompress(input)
  const size = input.length > 0 ? input[input.length - 1]! : 0
  for (const limits of [{ size: plain.length }, { maxSize: Math.max(1, plain.length) }]) if (!(await decompress(input, limits)).equals(plain)) return 'another plaintext with a limit that fits'
  try {
    await decompress(input, { size: plain.length + 1 + size })
  } catch (error) {
    if (error instanceof BorgError) return undefined
    throw error
  }
  return 'a wrong size was accepted'
}

const matchPaths = ['', 'a', 'home/user/file', 'x/'.repeat(60), 'a'.repeat(60), '\udcff/\udc80']

/** One parser of text each; the choice is part of the input. */
const textParsers: readonly ((text: string) => unknown)[] = [
  text => parseLocation(text, 'fallback'), text => parseLocation('::archive', text), text => expandPlaceholders(text), text => parseCompression(text), text => parseChunkerParams(text),
  text => parseSize(text), text => parseTimestamp(text), text => parseNonce(text, 'nonce'), text => isKeyBlob(keyBlobOf(text)),
  ...styles.filter(style => style !== 're').map(style => (text: string): void => {
    const pattern = makePattern(style, text)
    for (const path of matchPaths) pattern.matches(path)
  }),
  text => {
    // An expression may be as slow as its author likes; that it is taken or refused is what matters here.
    parsePattern(text, 're')
  },
  text => {
    const matcher = new Matcher([{ command: 'include', pattern: parsePattern(text.replace(/^re:/, 'sh:'), 'sh') }], [text.replace(/^re:/, 'pp:')])
    for (const path of matchPaths) matcher.decide(path)
  },
]

export const targets: readonly Target[] = [
  {
    name: 'msgpack', count: 3000, mutate: mutateMsgpack,
    samples: [...fixtureJson<{ values: { msgpack_hex_head: string; total_length: number }[] }>('vectors', 'archive-msgpack.json').values.map(({ msgpack_hex_head }) => hex(msgpack_hex_head)), ...itemSamples.slice(0, 10)],
    run(input) {
      new MsgReader(input).skip()
      const value = unpack(input)
      return pack(unpack(pack(value))).equals(pack(value)) ? undefined : 'packed and unpacked, it is another value'
    },
  },
  {
    name: 'items', count: 3000, mutate: mutateMsgpack, samples: streams,
    async run(input) {
      const items = await itemsOf(input, Infinity)
      const writer = new MsgWriter()
      for (const item of items) encodeItem(item, writer)
      // However the stream is cut, the same items.
      const again = await itemsOf(input, 1 + (input[0] ?? 0))
      const other = new MsgWriter()
      for (const item of again) encodeItem(item, other)
      return writer.bytes.equals(other.bytes) ? undefined : 'cut differently, the stream has other items'
    },
  },
  {
    name: 'item references', count: 2000, mutate: mutateMsgpack, samples: streams,
    run(input) {
      const index = new ChunkIndex()
      const references = new ItemReferences((bytes, offset, size, csize) => index.addAt(bytes, offset, size, csize))
      for (let at = 0; at < input.length; at += 100) references.feed(input.subarray(at, at + 100))
      references.end()
    },
  },
  {
    name: 'archive tree', count: 1500, mutate: mutateMsgpack, samples: streams,
    async run(input) {
      const data = build(await itemsOf(input, Infinity))
      const tree = new ArchiveTree(data, 16 * 2 ** 32)
      for (let row = 0; row < Math.min(data.rowCount, 50); row++) {
        tree.attr(row)
        tree.pathOf(row)
        for (let child = tree.firstChild(row), steps = 0; child !== 0; child = tree.nextSibling(child)) if (++steps > data.rowCount) return 'a directory without end'
      }
      return undefined
    },
  },
  {
    name: 'archive tree, native', count: 1500, mutate: mutateMsgpack, samples: streams,
    async run(input) {
      const plain = await outcome(async () => build(await itemsOf(input, Infinity)))
      const fast = await outcome(() => buildTree(split(input, 1 + (input[1] ?? 0)), treeOptions()).then((made) => shownTree(columnsOf(made), treeOptions())))
      // The plain one looks at fields that the drive does not need: it may refuse more, never less.
      if (plain instanceof Error) return undefined
      if (fast instanceof Error) return `refused by the addon only: ${fast.message}`
      for (const [name, column] of Object.entries(plain)) {
        // The table of names goes by a random key of each tree's own.
        if (name === 'slots' || name === 'nameKey' || !ArrayBuffer.isView(column)) continue
        const other = (fast as unknown as Record<string, Uint8Array>)[name]!
        if (column.byteLength !== other.byteLength || !Buffer.from(column.buffer, column.byteOffset, column.byteLength).equals(Buffer.from(other.buffer, other.byteOffset, other.byteLength))) return `another column ${name}`
      }
      const found = (tree: typeof plain, row: number): number => tree.slots[findSlot(tree, plain.parent[row]!, plain.names, plain.nameStart[row]!, plain.nameStart[row + 1]!)]!
      for (let row = 1; row < plain.rowCount; row++) if (found(plain, row) !== found(fast, row)) return `another row of that name than ${row}`
      return undefined
    },
  },
  {
    name: 'manifest', count: 2000, mutate: mutateMsgpack, samples: plainOf('manifest'),
    async run(input) {
      const manifest = await Manifest.load(await objects.seal(input), objects, 'here', 'write')
      manifest.sorted()
      manifest.mandatoryFeatures()
    },
  },
  { name: 'archive metadata', count: 2000, mutate: mutateMsgpack, samples: plainOf('archive metadata'), run: input => decodeMetadata(input, none0, 'archive') },
  {
    name: 'key blob', count: 1500, mutate: mutateMsgpack,
    samples: [sealedBlob(innerKey(32)), sealedBlob(innerKey(128))],
    run(input) {
      // Millions of rounds are allowed and slow; that they are bounded has a test of its own.
      const iterations = unpackedField(input, 'iterations')
      if (typeof iterations === 'number' && iterations > 2000 && iterations <= 10_000_000) return
      openKeyBlob(input, passphrase)
    },
  },
  {
    name: 'key blob, sealed', count: 1500, mutate: mutateMsgpack, samples: [innerKey(32), innerKey(128)],
    run(input) {
      const opened = openKeyBlob(sealedBlob(input), passphrase)
      if (!opened) return 'the right passphrase was refused'
      for (const mode of ['repokey', 'keyfile-blake2', 'authenticated'] as const) {
        const copy = { ...opened, encKey: Buffer.from(opened.encKey), encHmacKey: Buffer.from(opened.encHmacKey), idKey: Buffer.from(opened.idKey) }
        const key = keyFromSecrets(keyTypeOfMode(mode), copy, false)
        const id = key.idHash(input)
        key.open(key.seal(input, 0n), id)
        key.tamKey(salt, 'manifest')
        key.wipe()
      }
      return undefined
    },
  },
  {
    name: 'paper key', count: 1000, mutate: mutateText, samples: texts('1 / 000000 000000 000000 / 000000 000000 - 00', '00 - 00', 'abcdef 123456 - ab'),
    run(input) {
      const reader = new PaperKeyReader(Buffer.alloc(32))
      for (const line of input.toString('latin1').split('\n')) reader.take(line)
    },
  },
  { name: 'compressed chunks', count: 2500, samples: payloads, run: decompressAny },
  {
    name: 'envelopes', count: 2000, samples: stored.objects.map(({ object_hex }) => hex(object_hex)),
    mutate: (sample, random, samples) => (random.oneIn(8) ? sample : mutateBytes(sample, random, samples)),
    async run(input) {
      const payload = repokey.open(input, Buffer.alloc(32))
      const known = stored.objects.find(({ payload_hex }) => payload.equals(hex(payload_hex)))
      // The type byte is not under the MAC: the old passphrase mode's is accepted beside this one.
      if (!known) return 'a changed object was opened'
      await decompress(payload)
      return undefined
    },
  },
  { name: 'repository index', count: 1500, samples: [hashTableFile(2, 3), smallTable(2, 1, [5]), smallTable(2, 7, [1, 2, 0xfffffffe, 0xffffffff, 3]), smallTable(2, 3, [1, 2, 3])], run: input => useTable(input, 2) },
  { name: 'chunks index', count: 1500, samples: [hashTableFile(3, 2), smallTable(3, 5, [1, 0xfffffbff, 0xfffffffe, 0xffffffff]), smallTable(3, 2, [0, 0])], run: input => useTable(input, 3) },
  {
    name: 'hints', count: 2000, mutate: mutateBytes, samples: [sampleHints()],
    run: input => Hints.unpack(input).pack(),
  },
  {
    name: 'integrity data', count: 2000, mutate: mutateMsgpack, samples: [packIntegrity('{"algorithm": "XXH64", "digests": {"final": "0123456789abcdef"}}', '{"algorithm": "XXH64", "digests": {"HashHeader": "00", "final": "0123456789abcdef"}}')],
    run(input) {
      for (const text of unpackIntegrity(input).values()) finalDigest(text)
      finalDigest(input.toString('utf8'))
    },
  },
  {
    name: 'ACLs', count: 2000, mutate: (sample, random, samples) => (random.oneIn(2) ? mutateText : mutateBytes)(sample, random, samples),
    samples: [...texts('user::rw-\nuser:root:r--:0\ngroup::r--\nmask::rw-\nother::---', 'group:4294967295:rwx:99999999999'), Buffer.from('02000000010006ffffffffff04000400ffffffff20000000ffffffff', 'hex')],
    run(input) {
      parseAcl(input)
      aclText(input, true)
      for (const numeric of [true, false]) {
        const binary = aclBinary(input, numeric)
        if (binary && !parseAcl(binary)) throw new Error('an ACL was made that cannot be read')
      }
    },
  },
  {
    name: 'locations, patterns, placeholders, specifications', count: 4000, mutate: mutateText,
    samples: texts('ssh://user@host:22/./path::archive', 'host:~/repo::a', '/abs//x/../y::{hostname}-{now:%Y-%m-%dT%H:%M:%S.%f}', '{user:>10.3}{uuid4}{{}}', '{user:>10.3}', '{hostname:>99999999999}', '{pid:0>99999999999999999999}', 'auto,zstd,3', 'obfuscate,110,lzma,9', 'buzhash,19,23,21,4095', 'fixed,4096,512',
      '1.5G', '2024-05-01T09:00:00.000000', '0000000010000000', 'sh:**/*.t[!x-z]t', 'fm:*/cache/*', 're:^home/(?P<user>[^/]+)/.*\\.o$', 'pp:home', 'pf:/etc/passwd', '**/**/**/x/**/', '*a*a*a*a*b'),
    run(input) {
      const text = escapedText(input.subarray(1))
      textParsers[(input[0] ?? 0) % textParsers.length]!(text)
    },
  },
]

/** The value, or the declared error. */
async function outcome<T>(made: () => Promise<T>): Promise<T | BorgError> {
  try {
    return await made()
  } catch (error) {
    if (error instanceof BorgError) return error
    throw error
  }
}

function unpackedField(input: Buffer, name: string): MsgValue | undefined {
  try {
    const value = unpack(input)
    return value instanceof Map ? value.get(name) : undefined
  } catch {
    return undefined
  }
}

function sampleHints(): Buffer {
  const hints = new Hints()
  hints.addLive(1, 3)
  hints.addFreeable(1, 100)
  hints.shadow.set(chunkId(Buffer.alloc(32, 9)), [4])
  hints.quotaUse = 5000
  return hints.pack()
}

