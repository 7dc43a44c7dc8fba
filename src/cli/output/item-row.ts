/** Values of one item for `list` (output.md §1, §2). */
import { createHash, type Hash } from 'node:crypto'
import type { Item } from '../../engine/archive/item.js'
import type { ChunkIndex } from '../../engine/cache/chunk-index.js'
import { idKey } from '../../engine/ids.js'
import { typeDirectory, typeFile, typeMask, typeSymlink } from '../../engine/platform/attributes.js'
import { shownText } from '../../engine/text.js'
import type { FormatValue } from './format.js'
import { modeText, typeLetter } from './mode-text.js'
import { isoTime, itemMicros } from './units.js'

const hashes: Readonly<Record<string, string>> = {
  md5: 'md5', sha1: 'sha1', sha224: 'sha224', sha256: 'sha256', sha384: 'sha384', sha512: 'sha512', sha3_224: 'sha3-224', sha3_256: 'sha3-256', sha3_384: 'sha3-384',
  sha3_512: 'sha3-512', blake2b: 'blake2b512', blake2s: 'blake2s256',
}
export const contentKeys: ReadonlySet<string> = new Set([...Object.keys(hashes), 'xxh64'])
/** Need reference counts of the whole repository. */
export const uniqueKeys: ReadonlySet<string> = new Set(['dsize', 'dcsize', 'unique_chunks'])

export const itemRowKeys: ReadonlySet<string> = new Set([
  'type', 'mode', 'uid', 'gid', 'user', 'group', 'path', 'bpath', 'source', 'linktarget', 'extra', 'flags', 'size', 'csize', 'num_chunks', 'mtime', 'ctime', 'atime',
  'isomtime', 'isoctime', 'isoatime', 'archiveid', 'archivename', 'health', ...contentKeys, ...uniqueKeys,
])

export interface RowContext {
  readonly archiveId: string
  readonly archiveName: string
  /** Hashes of the content, by key. */
  readonly content: ReadonlyMap<string, string> | undefined
  /** What nothing but the item refers to; loaded where the format asks for it. */
  readonly chunks?: ChunkIndex
}

function isHardLink(item: Item): boolean {
  return item.source !== undefined && (item.mode & typeMask) !== typeSymlink
}

export function itemValue(item: Item, key: string, context: RowContext): FormatValue {
  const type = item.mode & typeMask
  switch (key) {
    case 'type': return typeLetter(item.mode)
    case 'mode': return isHardLink(item) ? `h${modeText(item.mode).slice(1)}` : modeText(item.mode)
    case 'uid': return item.uid
    case 'gid': return item.gid
    case 'user': return item.user === null || item.user.length === 0 ? item.uid : shownText(item.user)
    case 'group': return item.group === null || item.group.length === 0 ? item.gid : shownText(item.group)
    case 'path': case 'bpath': return shownText(item.path)
    case 'source': case 'linktarget': return item.source ? shownText(item.source) : ''
    case 'extra': return !item.source ? '' : type === typeSymlink ? ` -> ${shownText(item.source)}` : ` link to ${shownText(item.source)}`
    case 'flags': return item.bsdflags ?? 0
    case 'size': return type === typeSymlink ? item.source?.length ?? 0 : type === typeDirectory || isHardLink(item) ? 0 : item.size ?? item.chunks?.totalSize ?? 0
    case 'csize': {
      let total = 0
      if (item.chunks && type === typeFile) for (let index = 0; index < item.chunks.length; index++) total += item.chunks.csize(index)
      return total
    }
    case 'dsize': case 'dcsize': case 'unique_chunks': return uniqueSum(item, key, context.chunks)
    case 'num_chunks': return item.chunks?.length ?? 0
    case 'mtime': return { micros: itemMicros(item.mtimeNs) }
    case 'ctime': return { micros: itemMicros(item.ctimeNs ?? item.mtimeNs) }
    case 'atime': return { micros: itemMicros(item.atimeNs ?? item.mtimeNs) }
    case 'isomtime': return isoTime(itemMicros(item.mtimeNs))
    case 'isoctime': return isoTime(itemMicros(item.ctimeNs ?? item.mtimeNs))
    case 'isoatime': return isoTime(itemMicros(item.atimeNs ?? item.mtimeNs))
    case 'archiveid': return context.archiveId
    case 'archivename': return context.archiveName
    case 'health': return item.chunksHealthy ? 'broken' : 'healthy'
  }
  return context.content?.get(key) ?? ''
}

/** Over the chunks that the whole repository refers to no more often than this item does; repeated ones count each time. */
function uniqueSum(item: Item, key: 'dsize' | 'dcsize' | 'unique_chunks', index: ChunkIndex | undefined): number {
  const { chunks } = item
  if (!chunks || !index) return 0
  const counts = new Map<string, number>()
  for (const { id } of chunks) counts.set(idKey(id), (counts.get(idKey(id)) ?? 0) + 1)
  let total = 0
  for (const { id, size, csize } of chunks) {
    if (index.refcount(id) === counts.get(idKey(id))) total += key === 'dsize' ? size : key === 'dcsize' ? csize : 1
  }
  return total
}

/** The JSON line's value of a key that the format names. */
export function itemJsonValue(item: Item, key: string, context: RowContext): string | number {
  const value = itemValue(item, key, context)
  return typeof value === 'object' ? isoTime(value.micros) : value
}

/** Hashes several ways while the content passes once. */
export class ContentHashes {
  readonly #running: [string, Hash][]
  readonly #xxh64: { update(bytes: Uint8Array): void; digest(): string } | undefined

  constructor(keys: Iterable<string>, xxh64?: { update(bytes: Uint8Array): void; digest(): string }) {
    this.#running = [...keys].filter(key => hashes[key]).map(key => [key, createHash(hashes[key]!)])
    this.#xxh64 = xxh64
  }

  update(bytes: Uint8Array): void {
    for (const [, hash] of this.#running) hash.update(bytes)
    this.#xxh64?.update(bytes)
  }

  finish(): Map<string, string> {
    const found = new Map(this.#running.map(([key, hash]) => [key, hash.digest('hex')]))
    if (this.#xxh64) found.set('xxh64', this.#xxh64.digest())
    return found
  }
}
