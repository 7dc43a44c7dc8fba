/** Items <-> their canonical msgpack (archive.md §1, §4). */
import { idBytes } from '../constants.js'
import { IntegrityError } from '../errors.js'
import { KnownKeys, type MsgReader, type MsgValue, MsgpackError, type MsgWriter } from '../msgpack.js'
import { native } from '../native.js'
import { ChunkList, rowBytes } from './chunk-list.js'
import type { Item } from './item.js'
import { itemKeys } from './item-keys.js'

const knownKeys = new KnownKeys(itemKeys)
/** Borg writes no more than 9. */
const maxTimeBytes = 16
/** All names of a file together have 64 KiB on Linux. */
const maxXattrs = 1 << 16

/** Writes an item; keys in ascending order, absent ones left out. */
export function encodeItem(item: Item, writer: MsgWriter): void {
  const keys = item.unknown && item.unknown.size > 0 ? [...itemKeys, ...item.unknown.keys()].sort() : itemKeys
  let count = 0
  for (const key of keys) if (valueOf(item, key) !== undefined) count++
  writer.mapHeader(count)
  for (const key of keys) {
    const value = valueOf(item, key)
    if (value === undefined) continue
    writer.rawByteString(key)
    if (value instanceof ChunkList) encodeChunks(value, writer)
    else writer.value(value)
  }
}

function valueOf(item: Item, key: string): MsgValue | ChunkList | undefined {
  switch (key) {
    case 'acl_access': return item.aclAccess
    case 'acl_default': return item.aclDefault
    case 'acl_extended': return item.aclExtended
    case 'acl_nfs4': return item.aclNfs4
    case 'atime': return stored(item.atimeNs)
    case 'birthtime': return stored(item.birthtimeNs)
    case 'bsdflags': return item.bsdflags
    case 'chunks': return item.chunks
    case 'chunks_healthy': return item.chunksHealthy
    case 'ctime': return stored(item.ctimeNs)
    case 'gid': return item.gid
    case 'group': return item.group
    case 'hardlink_master': return item.hardlinkMaster
    case 'mode': return item.mode
    case 'mtime': return stored(item.mtimeNs)
    case 'part': return item.part
    case 'path': return item.path
    case 'rdev': return item.rdev
    case 'size': return item.size
    case 'source': return item.source
    case 'uid': return item.uid
    case 'user': return item.user
    case 'xattrs': return item.xattrs
    default: return item.unknown?.get(key)
  }
}

const timeLimit = 1n << 63n, minusTimeLimit = -timeLimit

/** Times outside int64 are stored as a raw: signed, little endian. */
function stored(ns: bigint | undefined): MsgValue | undefined {
  if (ns === undefined || (ns > minusTimeLimit && ns < timeLimit)) return ns
  const bytes: number[] = []
  for (let rest = ns; ; rest >>= 8n) {
    const byte = Number(rest & 255n)
    bytes.push(byte)
    if ((rest >> 8n === 0n && byte < 128) || (rest >> 8n === -1n && byte >= 128)) break
  }
  return Buffer.from(bytes)
}

function encodeChunks(chunks: ChunkList, writer: MsgWriter): void {
  writer.arrayHeader(chunks.length)
  const { bytes } = chunks
  for (let index = 0; index < chunks.length; index++) {
    writer.arrayHeader(3)
    writer.rawPart(bytes, index * rowBytes, idBytes)
    writer.int(chunks.size(index))
    writer.int(chunks.csize(index))
  }
}

/** Reads one item. Its buffers are views of the reader's bytes. MsgpackError, IntegrityError for values of the wrong kind. */
export function decodeItem(reader: MsgReader): Item {
  const item = { mode: 0, uid: 0, gid: 0, user: null, group: null, mtimeNs: 0n } as unknown as Item
  let hasPath = false
  for (let count = reader.mapHeader(); count > 0; count--) {
    const key = reader.key(knownKeys)
    switch (key) {
      case 'path': item.path = reader.raw(); hasPath = true; break
      case 'mode': item.mode = reader.number(); break
      case 'uid': item.uid = numberOr(reader, 0); break
      case 'gid': item.gid = numberOr(reader, 0); break
      case 'user': item.user = reader.nil() ? null : reader.raw(); break
      case 'group': item.group = reader.nil() ? null : reader.raw(); break
      case 'mtime': item.mtimeNs = time(reader); break
      case 'atime': item.atimeNs = time(reader); break
      case 'ctime': item.ctimeNs = time(reader); break
      case 'birthtime': item.birthtimeNs = time(reader); break
      case 'chunks': {
        const chunks = decodeChunks(reader)
        if (chunks) item.chunks = chunks
        break
      }
      case 'chunks_healthy': {
        const chunks = decodeChunks(reader)
        if (chunks) item.chunksHealthy = chunks
        break
      }
      case 'size': item.size = reader.number(); break
      case 'hardlink_master': item.hardlinkMaster = reader.bool(); break
      case 'source': item.source = reader.raw(); break
      case 'rdev': item.rdev = reader.number(); break
      case 'xattrs': item.xattrs = decodeXattrs(reader); break
      case 'acl_access': item.aclAccess = reader.raw(); break
      case 'acl_default': item.aclDefault = reader.raw(); break
      case 'acl_extended': item.aclExtended = reader.raw(); break
      case 'acl_nfs4': item.aclNfs4 = reader.raw(); break
      case 'bsdflags': item.bsdflags = reader.number(); break
      case 'part': item.part = reader.number(); break
      // A bogus key of Attic.
      case 'acl': reader.skip(); break
      default: (item.unknown ??= new Map()).set(key, reader.value())
    }
  }
  if (!hasPath) throw new IntegrityError('an item of the archive has no path')
  return item
}

function numberOr(reader: MsgReader, substitute: number): number {
  return reader.nil() ? substitute : reader.number()
}

function time(reader: MsgReader): bigint {
  const lead = reader.peek()
  if (lead < 0xa0 || (lead >= 0xcc && lead <= 0xd3) || lead >= 0xe0) return reader.bigint()
  const bytes = reader.raw()
  if (bytes.length > maxTimeBytes) throw new MsgpackError(`a time of ${bytes.length} bytes`)
  let value = 0n
  for (let index = bytes.length - 1; index >= 0; index--) value = (value << 8n) | BigInt(bytes[index]!)
  return bytes.length > 0 && bytes.at(-1)! >= 128 ? value - (1n << BigInt(8 * bytes.length)) : value
}

/** Array of three, raw of 32, two integers: the shortest and longest forms that native code reads. */
const minEntryBytes = 37, maxEntryBytes = 46
/** From so many chunks on the call costs less than the loop. */
const worthNative = 4

function decodeChunks(reader: MsgReader): ChunkList | undefined {
  if (reader.nil()) return undefined
  const count = reader.arrayHeader()
  const remaining = reader.end - reader.position
  // A list that ends early, as many do at the end of a chunk of the stream: of what is there, as much as certainly is.
  const sure = count * minEntryBytes <= remaining ? count : Math.min(count, Math.trunc(remaining / maxEntryBytes))
  let list: ChunkList | undefined
  if (sure >= worthNative) {
    const rows = Buffer.allocUnsafe(sure * rowBytes)
    const position = native().unpackChunkRows(reader.end === reader.bytes.length ? reader.bytes : reader.bytes.subarray(0, reader.end), reader.position, sure, rows)
    if (position >= 0) {
      reader.position = position
      list = ChunkList.ofRows(rows)
    }
  }
  // The rest, unusual encodings, and damage: here it is either read or named.
  list ??= new ChunkList(Math.min(count, Math.trunc(remaining / minEntryBytes)) || 1)
  for (let index = list.length; index < count; index++) {
    if (reader.arrayHeader() !== 3) throw new MsgpackError('a chunk entry without exactly three values')
    const id = reader.raw()
    if (id.length !== 32) throw new MsgpackError(`a chunk id of ${id.length} bytes`)
    list.add(id, chunkSize(reader), chunkSize(reader))
  }
  return list
}

/** A chunk's size or csize: uint32, as in every index. */
export function chunkSize(reader: MsgReader): number {
  const size = reader.number()
  if (size < 0 || size > 0xffffffff) throw new MsgpackError(`a chunk of ${size} bytes`)
  return size
}

function decodeXattrs(reader: MsgReader): Map<string, Buffer | null> {
  const xattrs = new Map<string, Buffer | null>()
  const announced = reader.mapHeader()
  if (announced > maxXattrs) throw new MsgpackError(`an item of ${announced} extended attributes`)
  for (let count = announced; count > 0; count--) {
    const name = reader.rawByteString()
    xattrs.set(name, reader.nil() ? null : reader.raw())
  }
  return xattrs
}
