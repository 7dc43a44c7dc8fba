/**
 * `diff`: what an archive has, and another has otherwise, path by path (output.md §8). Both item streams are read once, side by side; only items without
 * a counterpart so far are kept, and those that hard links refer to.
 */
import type { ArchiveReader } from '../archive/archive-reader.js'
import type { ChunkList } from '../archive/chunk-list.js'
import type { Item } from '../archive/item.js'
import { idKey } from '../ids.js'
import type { Matcher } from '../patterns/matcher.js'
import { isHardLinkable, typeBlockDevice, typeCharDevice, typeDirectory, typeFifo, typeMask, typeSymlink } from '../platform/attributes.js'
import type { ChunkReader } from '../store/chunk-reader.js'
import { byteString } from '../text.js'

export type Change =
  /** Bytes of the chunks that only the one has or the other; absent where chunks cannot be compared. */
  | { readonly kind: 'modified'; readonly bytes?: { readonly added: number; readonly removed: number } }
  | { readonly kind: 'added' | 'removed'; readonly size: number }
  /** What has no content. */
  | { readonly kind: 'added' | 'removed'; readonly what: 'directory' | 'link' | 'blkdev' | 'chrdev' | 'fifo' }
  | { readonly kind: 'target' }
  | { readonly kind: 'owner'; readonly old: Owner; readonly new: Owner }
  | { readonly kind: 'mode'; readonly old: number; readonly new: number }
  | { readonly kind: 'ctime' | 'mtime'; readonly old: bigint; readonly new: bigint }

/** Names as stored; null: none. */
export interface Owner {
  readonly user: Buffer | null
  readonly group: Buffer | null
}

export interface Difference {
  readonly path: Buffer
  /** Content or link, presence, owner, mode, ctime, mtime. May be empty, as Borg's are. */
  readonly changes: readonly Change[]
}

export interface DiffOptions {
  readonly matcher: Matcher
  /** Equal ids say equal contents, and other ids other contents: both archives were cut by the same parameters. */
  readonly comparable: boolean
  readonly contentOnly: boolean
  readonly parts: boolean
}

/** Of a path: undefined where the archive does not have it. */
interface Pair {
  readonly path: Buffer
  readonly old: Item | undefined
  readonly new: Item | undefined
}

/** Errors of a damaged archive. In Borg's order: what both have as the first has it, what is new, what is gone, and hard links whose first name came after them. */
export async function* diffArchives(first: ArchiveReader, second: ArchiveReader, reader: ChunkReader, options: DiffOptions): AsyncGenerator<Difference> {
  for await (const pair of pairs(first, second, reader, options)) {
    if (await same(pair, reader, options)) continue
    const { old, new: item } = pair
    yield { path: pair.path, changes: [...contentChanges(pair, options), ...(old && item && !options.contentOnly ? attributeChanges(old, item) : [])] }
  }
}

/** Chosen paths of either archive, with what hard links refer to in place of the links. */
async function* pairs(first: ArchiveReader, second: ArchiveReader, reader: ChunkReader, options: DiffOptions): AsyncGenerator<Pair> {
  const links = new Links()
  const olds = chosen(first, reader, options, item => links.read('old', item)), news = chosen(second, reader, options, item => links.read('new', item))
  /** Without a counterpart so far, by path. */
  const lonely = { old: new Map<string, Item>(), new: new Map<string, Item>() }
  const deferred: Pair[] = []
  /** The counterpart of one side's next item, if it was read before. */
  const counterpart = (item: Item, own: 'old' | 'new'): Item | undefined => {
    const key = byteString(item.path), others = lonely[own === 'old' ? 'new' : 'old'], found = others.get(key)
    if (found) others.delete(key)
    else lonely[own].set(key, item)
    return found
  }
  try {
    for (;;) {
      const [{ value: old }, { value: item }] = await Promise.all([olds.next(), news.next()])
      if (!old && !item) break
      const met: Pair[] = []
      if (old && item && old.path.equals(item.path)) met.push({ path: old.path, old, new: item })
      else {
        const later = old && counterpart(old, 'old')
        if (later) met.push({ path: later.path, old, new: later })
        const earlier = item && counterpart(item, 'new')
        if (earlier) met.push({ path: earlier.path, old: earlier, new: item })
      }
      for (const pair of met) {
        if (links.met(pair)) yield links.resolved(pair)
        else deferred.push(pair)
      }
    }
  } finally {
    await Promise.all([olds.return(undefined), news.return(undefined)])
  }
  for (const item of lonely.new.values()) yield links.resolved({ path: item.path, old: undefined, new: item })
  for (const old of lonely.old.values()) yield links.resolved({ path: old.path, old, new: undefined })
  for (const pair of deferred) yield links.resolved(pair)
}

async function* chosen(archive: ArchiveReader, reader: ChunkReader, { matcher, parts }: DiffOptions, read: (item: Item) => void): AsyncGenerator<Item, undefined> {
  for await (const item of archive.items({ parts, reader })) {
    read(item)
    if (matcher.includes(item.path)) yield item
  }
  return undefined
}

/** First names of hard links: the others have no content of their own, only that name. */
class Links {
  readonly #firsts = { old: new Map<string, Item>(), new: new Map<string, Item>() }
  /** Paths of first names that met their counterparts. */
  readonly #met = new Set<string>()

  /** Each item of an archive, chosen or not, in its order. */
  read(side: 'old' | 'new', item: Item): void {
    if (isFirst(item)) this.#firsts[side].set(byteString(item.path), item)
  }

  /** False if either is a link whose first name met no counterpart yet: Borg tells of it last. */
  met({ path, old, new: item }: Pair): boolean {
    const both = [old, item].filter(one => one !== undefined)
    if (both.some(isFirst)) this.#met.add(byteString(path))
    return both.every(one => !isFurther(one) || this.#met.has(byteString(one.source!)))
  }

  resolved({ path, old, new: item }: Pair): Pair {
    const resolve = (side: 'old' | 'new', one: Item | undefined): Item | undefined => (one && isFurther(one) ? this.#firsts[side].get(byteString(one.source!)) ?? one : one)
    return { path, old: resolve('old', old), new: resolve('new', item) }
  }
}

const typeOf = (item: Item | undefined): number | undefined => item && item.mode & typeMask
/** Archives of old versions do not say it. */
const isFirst = (item: Item): boolean => item.source === undefined && item.hardlinkMaster !== false && isHardLinkable(item.mode)
const isFurther = (item: Item): boolean => item.source !== undefined && isHardLinkable(item.mode)

/** What is compared is not all that is told, as with Borg: of a symlink that became a file the content only there is nothing to tell, but it is another. */
async function same({ old, new: item }: Pair, reader: ChunkReader, { contentOnly, comparable }: DiffOptions): Promise<boolean> {
  if (!old || !item) return old === item
  if (!contentOnly && (old.mode !== item.mode || old.mtimeNs !== item.mtimeNs || old.ctimeNs !== item.ctimeNs || !sameName(old.user, item.user) || !sameName(old.group, item.group))) return false
  if (!sameName(old.source ?? null, item.source ?? null)) return false
  if (!old.chunks || !item.chunks) return true
  if (comparable) return old.chunks.bytes.equals(item.chunks.bytes)
  return sizeOf(old) === sizeOf(item) && await sameContent(old.chunks, item.chunks, reader)
}

function contentChanges({ old, new: item }: Pair, { comparable }: DiffOptions): Change[] {
  const changes: Change[] = []
  const kind = !old ? 'added' : !item ? 'removed' : undefined
  const types = [typeOf(old), typeOf(item)]
  if (types.includes(typeSymlink)) {
    if (kind) changes.push({ kind, what: 'link' })
    else if (old?.source && item?.source && !old.source.equals(item.source)) changes.push({ kind: 'target' })
  }
  const only = old ?? item
  if (kind) {
    if (only?.chunks) changes.push({ kind, size: sizeOf(only) })
  } else if (old?.chunks && item?.chunks) {
    changes.push({ kind: 'modified', ...(comparable && { bytes: { added: bytesBeside(item.chunks, old.chunks), removed: bytesBeside(old.chunks, item.chunks) } }) })
  }
  for (const [type, what] of [[typeDirectory, 'directory'], [typeBlockDevice, 'blkdev'], [typeCharDevice, 'chrdev'], [typeFifo, 'fifo']] as const) {
    if (kind && types.includes(type)) changes.push({ kind, what })
  }
  return changes
}

function attributeChanges(old: Item, item: Item): Change[] {
  const changes: Change[] = []
  if (!sameName(old.user, item.user) || !sameName(old.group, item.group)) changes.push({ kind: 'owner', old, new: item })
  if (old.mode !== item.mode) changes.push({ kind: 'mode', old: old.mode, new: item.mode })
  if (old.ctimeNs !== undefined && item.ctimeNs !== undefined && old.ctimeNs !== item.ctimeNs) changes.push({ kind: 'ctime', old: old.ctimeNs, new: item.ctimeNs })
  if (old.mtimeNs !== item.mtimeNs) changes.push({ kind: 'mtime', old: old.mtimeNs, new: item.mtimeNs })
  return changes
}

function sameName(old: Buffer | null, name: Buffer | null): boolean {
  return old === null || name === null ? old === name : old.equals(name)
}

function sizeOf(item: Item): number {
  return item.size ?? item.chunks?.totalSize ?? 0
}

/** Of the chunks of the one that the other does not have; repeated ones count each time. */
function bytesBeside(chunks: ChunkList, others: ChunkList): number {
  const known = new Set<string>()
  for (let index = 0; index < others.length; index++) known.add(idKey(others.id(index)))
  let bytes = 0
  for (let index = 0; index < chunks.length; index++) if (!known.has(idKey(chunks.id(index)))) bytes += chunks.size(index)
  return bytes
}

/** Contents of the same size. */
async function sameContent(old: ChunkList, chunks: ChunkList, reader: ChunkReader): Promise<boolean> {
  const olds = reader.getMany(old), news = reader.getMany(chunks)
  let before: Buffer = Buffer.alloc(0), after: Buffer = before
  try {
    for (;;) {
      for (let next; before.length === 0; before = next.value) if ((next = await olds.next()).done) return true
      for (let next; after.length === 0; after = next.value) if ((next = await news.next()).done) return true
      const length = Math.min(before.length, after.length)
      if (before.compare(after, 0, length, 0, length) !== 0) return false
      before = before.subarray(length)
      after = after.subarray(length)
    }
  } finally {
    await Promise.all([olds.return(undefined), news.return(undefined)])
  }
}
