/**
 * An archive's tree made by the addon (native/tree.c) from the bytes of its item stream: all columns in one piece of memory, which
 * changes hands between threads as a whole. TreeBuilder gives the same from items; it is what narrowed views need, whose selection
 * is JavaScript.
 */
import { decodeItem } from '../engine/archive/item-codec.js'
import { IntegrityError } from '../engine/errors.js'
import { MsgReader } from '../engine/msgpack.js'
import { native } from '../engine/native.js'
import { shownText } from '../engine/text.js'
import type { ArchiveTreeData } from './tree-columns.js'
import type { TreeOptions } from './tree-options.js'

/** In the order of native/tree.c. */
const columns = [
  'parent', 'nameStart', 'firstChild', 'nextSibling', 'target', 'mode', 'uid', 'gid', 'nlink', 'rdev', 'flags', 'size', 'mtimeNs', 'atimeNs', 'ctimeNs',
  'contentStart', 'contentCount', 'names', 'chunks', 'blobs', 'xattrs', 'slots',
] as const
const headWords = 2
/** A longer beginning of an item is parsed again only when it has grown by half: a file of a million chunks spans many pieces. */
const patientBytes = 1 << 20

/** What TreeBuilder cannot be without. */
export type ImageOptions = Omit<TreeOptions, 'select' | 'sourcePath'>

/** Builds the tree of an item stream that comes in pieces. IntegrityError if they are no items. */
export async function buildTree(pieces: AsyncIterable<Buffer>, options: ImageOptions): Promise<ArchiveTreeData> {
  const { owners, aclXattr, log } = options
  const { makeTree, treeAdd, treeFinish } = native()
  const tree = makeTree(
    options.uid, options.gid, options.timeNs, options.rootTimeNs, options.forcedUid ?? -1, options.forcedGid ?? -1, options.umask, options.numericIds, options.showParts,
  )
  const owner = (isGroup: boolean, name: Buffer): number | undefined => (isGroup ? owners.group(name) : owners.user(name))
  const leftOut = (path: Buffer, source: Buffer | undefined): void => log.write('warning', 'borg.fuse', source
    ? `Skipping broken hard link: ${shownText(path)} -> ${shownText(source)}`
    : `Skipping item with an unsafe path: ${shownText(path)}`)
  let rest: Buffer[] = []
  let restBytes = 0, wantedBytes = 0
  const add = (bytes: Buffer): void => {
    const used = treeAdd(tree, bytes, owner, aclXattr, leftOut)
    if (used < 0) throw damaged(bytes)
    rest = used < bytes.length ? [bytes.subarray(used)] : []
    restBytes = bytes.length - used
    wantedBytes = restBytes < patientBytes ? 0 : restBytes * 1.5
  }
  for await (const piece of pieces) {
    rest.push(piece)
    restBytes += piece.length
    if (restBytes >= wantedBytes) add(rest.length === 1 ? piece : Buffer.concat(rest))
  }
  if (restBytes > 0) add(Buffer.concat(rest))
  if (restBytes > 0) throw damaged(Buffer.concat(rest))
  const layout = new Float64Array(headWords + 2 * columns.length)
  return treeOfImage(treeFinish(tree, layout), layout)
}

/** Views of an image. `layout`: rows, chunks, then offset and bytes of each column. */
function treeOfImage(image: ArrayBuffer, layout: Float64Array): ArchiveTreeData {
  const place = (name: (typeof columns)[number]): [at: number, bytes: number] => {
    const word = headWords + 2 * columns.indexOf(name)
    return [layout[word]!, layout[word + 1]!]
  }
  const uint32 = (name: (typeof columns)[number]): Uint32Array => {
    const [at, bytes] = place(name)
    return new Uint32Array(image, at, bytes / 4)
  }
  const uint8 = (name: (typeof columns)[number]): Uint8Array => new Uint8Array(image, ...place(name))
  const int64 = (name: (typeof columns)[number]): BigInt64Array => {
    const [at, bytes] = place(name)
    return new BigInt64Array(image, at, bytes / 8)
  }
  const [sizeAt, sizeBytes] = place('size')
  const xattrs = uint32('xattrs')
  const withXattrs = xattrs.length / 3
  return {
    rowCount: layout[0]!, chunkCount: layout[1]!,
    parent: uint32('parent'), nameStart: uint32('nameStart'), firstChild: uint32('firstChild'), nextSibling: uint32('nextSibling'), target: uint32('target'),
    mode: uint32('mode'), uid: uint32('uid'), gid: uint32('gid'), nlink: uint32('nlink'), rdev: uint32('rdev'), flags: uint8('flags'),
    size: new Float64Array(image, sizeAt, sizeBytes / 8), mtimeNs: int64('mtimeNs'), atimeNs: int64('atimeNs'), ctimeNs: int64('ctimeNs'),
    contentStart: uint32('contentStart'), contentCount: uint32('contentCount'), names: uint8('names'), chunks: uint8('chunks'), blobs: uint8('blobs'),
    xattrRow: xattrs.subarray(0, withXattrs), xattrStart: xattrs.subarray(withXattrs, 2 * withXattrs), xattrEnd: xattrs.subarray(2 * withXattrs),
    slots: uint32('slots'),
  }
}

/** The plain decoder says what is wrong with the first item that is none. */
function damaged(bytes: Buffer): Error {
  const reader = new MsgReader(bytes)
  try {
    while (!reader.done) decodeItem(reader)
  } catch (error) {
    if (error instanceof Error) return error
  }
  return new IntegrityError('the items of the archive are damaged')
}
