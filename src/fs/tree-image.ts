/**
 * An archive's tree made by the addon (native/tree.c) from the bytes of its item stream: all columns in one piece of shared
 * memory. TreeBuilder gives the same from items; it is what narrowed views need, whose selection
 * is JavaScript.
 */
import { randomBytes } from 'node:crypto'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { decodeItem } from '../engine/archive/item-codec.js'
import { maxItemBytes } from '../engine/archive/item-stream.js'
import { IntegrityError } from '../engine/errors.js'
import { MsgReader } from '../engine/msgpack.js'
import { native } from '../engine/native.js'
import { shownText } from '../engine/text.js'
import { chunkRowBytes, nameKeyBytes, type TreeColumns } from './tree-columns.js'
import type { ShapeOptions } from './tree-options.js'

/** In the order of native/tree.c, with the bytes of a value. */
export const imageColumns = {
  parent: 4, nameStart: 4, first: 4, count: 4, nextSibling: 4, access: 0, flags: 1, size: 8, mtimeNs: 8, atimeNs: 8, ctimeNs: 8, names: 1, blobs: 1, xattrs: 4, linked: 4, owners: 1, slots: 4, nameKey: 4,
} as const
export type ImageColumn = keyof typeof imageColumns
const columnNames = Object.keys(imageColumns) as ImageColumn[]
/** Rows, chunks, bytes of the image; then offset and bytes of each column. */
const headWords = 3
export const layoutWords = headWords + 2 * columnNames.length

/** All columns of a tree in shared memory; chunk rows apart, because listing needs none. */
export interface TreeImage {
  readonly layout: Float64Array
  readonly image: SharedArrayBuffer
  readonly chunks: SharedArrayBuffer | undefined
}

/** A longer beginning of an item is parsed again only when it has grown by half: a file of a million chunks spans many pieces. */
const patientBytes = 1 << 20
/** So long at most this thread is busy with items without looking around. */
const sliceMs = 5

/** Builds the tree of an item stream that comes in pieces, which may be borrowed until the next is asked for. IntegrityError if they are no items, or one has more than `maxBytes`. `complete` is false if items were left out. */
export async function buildTree(pieces: AsyncIterable<Buffer>, { showParts, log }: Pick<ShapeOptions, 'showParts' | 'log'>, maxBytes = maxItemBytes): Promise<TreeImage & { readonly complete: boolean }> {
  const { makeTree, treeAdd, treeLayout, treeWrite } = native()
  const tree = makeTree(showParts, randomBytes(nameKeyBytes))
  let complete = true
  const leftOut = (path: Buffer, source: Buffer | undefined): void => {
    complete = false
    log.write('warning', 'borg.fuse', source
      ? `Skipping broken hard link: ${shownText(path)} -> ${shownText(source)}`
      : `Skipping item with an unsafe path: ${shownText(path)}`)
  }
  let rest: Buffer[] = []
  let restBytes = 0, wantedBytes = 0
  const add = (bytes: Buffer): void => {
    const used = treeAdd(tree, bytes, leftOut)
    if (used < 0) throw damaged(bytes)
    rest = used < bytes.length ? [Buffer.from(bytes.subarray(used))] : []
    restBytes = bytes.length - used
    if (restBytes > maxBytes) throw new IntegrityError(`an item of more than ${maxBytes} bytes`)
    wantedBytes = restBytes < patientBytes ? 0 : restBytes * 1.5
  }
  let sinceMs = performance.now()
  for await (const piece of pieces) {
    restBytes += piece.length
    if (restBytes < wantedBytes) rest.push(Buffer.from(piece))
    else add(rest.length === 0 ? piece : Buffer.concat([...rest, piece]))
    // Whoever asks this thread for something else is not kept waiting until all is read.
    if (performance.now() - sinceMs < sliceMs) continue
    await nextTurn()
    sinceMs = performance.now()
  }
  if (restBytes > 0) add(Buffer.concat(rest))
  if (restBytes > 0) throw damaged(Buffer.concat(rest))
  const layout = new Float64Array(layoutWords)
  treeLayout(tree, layout)
  const image = new SharedArrayBuffer(layout[2]!), chunks = new SharedArrayBuffer(layout[1]! * chunkRowBytes)
  treeWrite(tree, new Uint8Array(image), new Uint8Array(chunks))
  return { layout, image, chunks, complete }
}

/** Where a column lies in the image. */
export function columnPlace(layout: Float64Array, name: ImageColumn): [at: number, bytes: number] {
  const word = headWords + 2 * columnNames.indexOf(name)
  return [layout[word]!, layout[word + 1]!]
}

/** Views of an image. */
export function columnsOf({ layout, image, chunks }: TreeImage): TreeColumns {
  const place = (name: ImageColumn): [at: number, bytes: number] => columnPlace(layout, name)
  const uint32 = (name: ImageColumn): Uint32Array => {
    const [at, bytes] = place(name)
    return new Uint32Array(image, at, bytes / 4)
  }
  const uint8 = (name: ImageColumn): Uint8Array => new Uint8Array(image, ...place(name))
  const int64 = (name: ImageColumn): BigInt64Array => {
    const [at, bytes] = place(name)
    return new BigInt64Array(image, at, bytes / 8)
  }
  const [sizeAt, sizeBytes] = place('size')
  const [accessAt, accessBytes] = place('access')
  const rowCount = layout[0]!
  const xattrs = uint32('xattrs'), linked = uint32('linked')
  const withXattrs = xattrs.length / 3, linkedRows = linked.length / 2
  return {
    rowCount, chunkCount: layout[1]!,
    parent: uint32('parent'), nameStart: uint32('nameStart'), first: uint32('first'), count: uint32('count'), nextSibling: uint32('nextSibling'),
    access: accessBytes === rowCount * 2 ? new Uint16Array(image, accessAt, rowCount) : new Uint32Array(image, accessAt, rowCount), flags: uint8('flags'),
    size: new Float64Array(image, sizeAt, sizeBytes / 8), mtimeNs: int64('mtimeNs'), atimeNs: int64('atimeNs'), ctimeNs: int64('ctimeNs'),
    names: uint8('names'), chunks: chunks && new Uint8Array(chunks), blobs: uint8('blobs'),
    xattrRow: xattrs.subarray(0, withXattrs), xattrStart: xattrs.subarray(withXattrs, 2 * withXattrs), xattrEnd: xattrs.subarray(2 * withXattrs),
    linkedRow: linked.subarray(0, linkedRows), linkedCount: linked.subarray(linkedRows), owners: uint8('owners'), slots: uint32('slots'), nameKey: uint32('nameKey'),
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
