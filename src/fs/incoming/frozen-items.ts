/**
 * The files and directories of a frozen tree, packed: a million of them take some 150 MB on their way to the engine thread, where objects would
 * take a gigabyte on either side. Blocks of MessagePack.
 */
import { MsgReader, MsgWriter } from '../../engine/msgpack.js'
import type { FrozenBeneath, FrozenFile, FrozenItem } from './frozen.js'

/** Items of one block. */
const blockItems = 4096

interface Block {
  readonly rows: Uint8Array
  /** Where each item begins. */
  readonly starts: Uint32Array
}

/** Plain data that survives structured clone. */
export interface FrozenItems {
  readonly length: number
  readonly blocks: readonly Block[]
  /** By item: the number of the first one behind all that is below it. */
  readonly ends: Uint32Array
  /** Bundles that contents lie in. */
  readonly files: readonly FrozenFile[]
}

/** Takes items one after the other, directories before what is in them. */
export class FrozenItemPacker {
  readonly #writer = new MsgWriter(1 << 20)
  readonly #blocks: Block[] = []
  readonly #files = new Map<FrozenFile, number>()
  #starts: number[] = []
  #length = 0
  readonly #ends: number[] = []
  /** Directories and files above the next one, perhaps. */
  readonly #above: { readonly item: number; readonly depth: number }[] = []

  /** `content.file` of a bundle must be the same object for all that lie in it. */
  add({ path, id, mode, uid, gid, rdev, mtimeNs, ctimeNs, target, xattrs, nlink, size, content, firstExtent, extentCount, beneath, bsdflags }: FrozenItem): void {
    const writer = this.#writer
    this.#starts.push(writer.length)
    this.#endBefore(depthOf(path))
    this.#length++
    writer.rawByteString(path)
    for (const value of [id, mode, uid, gid, rdev, mtimeNs, ctimeNs, nlink, size, firstExtent, extentCount, bsdflags]) writer.int(value)
    if (target) writer.raw(target)
    else writer.nil()
    writer.arrayHeader(2 * (xattrs?.size ?? 0))
    for (const [name, value] of xattrs ?? []) {
      writer.rawByteString(name)
      writer.raw(value)
    }
    this.#addContent(content)
    if (beneath) {
      writer.arrayHeader(2 + beneath.without.size)
      writer.int(beneath.base)
      writer.int(beneath.row)
      for (const name of beneath.without) writer.rawByteString(name)
    } else writer.nil()
    if (this.#starts.length === blockItems) this.#endBlock()
  }

  #addContent(content: FrozenItem['content']): void {
    const writer = this.#writer
    if (!content) return writer.nil()
    const { file, position } = content
    writer.arrayHeader(2)
    if (position === undefined) {
      writer.raw(file.path)
      if (file.cipherNumber === undefined) writer.nil()
      else writer.int(file.cipherNumber)
      return
    }
    let number = this.#files.get(file)
    if (number === undefined) this.#files.set(file, number = this.#files.size)
    writer.int(number)
    writer.int(position)
  }

  #endBlock(): void {
    // Memory of its own: structured clone takes all of a buffer along.
    this.#blocks.push({ rows: new Uint8Array(this.#writer.bytes), starts: Uint32Array.from(this.#starts) })
    this.#writer.clear()
    this.#starts = []
  }

  /** Whatever is as deep as the next item, or deeper, has nothing more below it. */
  #endBefore(depth: number): void {
    for (let last = this.#above.at(-1); last && last.depth >= depth; last = this.#above.at(-1)) {
      this.#ends[last.item] = this.#length
      this.#above.pop()
    }
    this.#above.push({ item: this.#length, depth })
  }

  finish(): FrozenItems {
    if (this.#starts.length > 0) this.#endBlock()
    this.#endBefore(-1)
    return { length: this.#length, blocks: this.#blocks, ends: Uint32Array.from(this.#ends), files: [...this.#files.keys()] }
  }
}

/** Reads them by their number. */
export class FrozenItemReader {
  readonly #items: FrozenItems
  readonly #rows: readonly Buffer[]

  constructor(items: FrozenItems) {
    this.#items = items
    this.#rows = items.blocks.map(({ rows }) => Buffer.from(rows.buffer, rows.byteOffset, rows.length))
  }

  get length(): number {
    return this.#items.length
  }

  #at(index: number): MsgReader {
    const block = Math.floor(index / blockItems)
    return new MsgReader(this.#rows[block]!, this.#items.blocks[block]!.starts[index % blockItems]!)
  }

  /** The number of the first item behind all that is below this one. */
  end(index: number): number {
    return this.#items.ends[index]!
  }

  path(index: number): string {
    return this.#at(index).rawByteString()
  }

  /** The bytes of its target and xattrs are memory of the items. */
  get(index: number): FrozenItem {
    const reader = this.#at(index)
    const path = reader.rawByteString()
    const id = reader.number(), mode = reader.number(), uid = reader.number(), gid = reader.number(), rdev = reader.number()
    const mtimeNs = reader.bigint(), ctimeNs = reader.bigint()
    const nlink = reader.number(), size = reader.number(), firstExtent = reader.number(), extentCount = reader.number(), bsdflags = reader.number()
    const target = reader.nil() ? undefined : reader.raw()
    let xattrs: Map<string, Uint8Array> | undefined
    for (let left = reader.arrayHeader(); left > 0; left -= 2) (xattrs ??= new Map<string, Uint8Array>()).set(reader.rawByteString(), reader.raw())
    return { path, id, mode, uid, gid, rdev, mtimeNs, ctimeNs, target, xattrs, nlink, size, content: this.#content(reader), firstExtent, extentCount, beneath: beneathOf(reader), bsdflags }
  }

  #content(reader: MsgReader): FrozenItem['content'] {
    if (reader.nil()) return undefined
    reader.arrayHeader()
    if (isInteger(reader)) return { file: this.#items.files[reader.number()]!, position: reader.number() }
    return { file: { path: reader.raw().toString(), cipherNumber: reader.nil() ? undefined : reader.number() }, position: undefined }
  }
}

function beneathOf(reader: MsgReader): FrozenBeneath | undefined {
  if (reader.nil()) return undefined
  const names = reader.arrayHeader() - 2
  const base = reader.number(), row = reader.number()
  const without = new Set<string>()
  for (let left = names; left > 0; left--) without.add(reader.rawByteString())
  return { base, row, without }
}

/** Of the tree's own directory 0. */
function depthOf(path: string): number {
  if (path === '.') return 0
  let depth = 1
  for (let at = path.indexOf('/'); at >= 0; at = path.indexOf('/', at + 1)) depth++
  return depth
}

/** Not the raw of a path. */
function isInteger(reader: MsgReader): boolean {
  const lead = reader.peek()
  return lead < 0x80 || (lead >= 0xcc && lead <= 0xcf)
}
