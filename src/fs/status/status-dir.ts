/**
 * MNT/.borgfs: `status`, `status.json`, `events`, and the archives as links in `latest/` and `by-date/`. Everything is made when
 * it is looked at; the kernel keeps none of it. A link whose target changes is another inode, because targets are kept.
 */
import { byteString, bytesOf } from '../../engine/text.js'
import type { ShownArchive } from '../archives-dir.js'
import type { Answer, AttrReply, DirSink, ReadAnswer } from '../core.js'
import { inodeRange, inoOf, localOf, rootIno } from '../inodes.js'
import type { Subtree } from '../subtree.js'
import { type Attr, type Entry, Errno, type Ino, type Opened } from '../types.js'
import { dateView, latestView, type View } from './archive-views.js'

export interface StatusFile {
  readonly name: string
  content(): Buffer
}

interface Node {
  readonly ino: Ino
  readonly parent: Ino
  readonly file?: StatusFile
  readonly target?: Buffer
  readonly children?: Map<string, Node>
}

/** Rendered once for stat and the read that follows. */
const keepContentMs = 200
const accessMode = 3

export class StatusDir implements Subtree {
  readonly range = inodeRange.status
  readonly root = inoOf(inodeRange.status, 1)
  readonly #owner: { readonly uid: number; readonly gid: number; readonly timeNs: bigint }
  readonly #files: readonly StatusFile[]
  /** Numbers stay with what they were given to: path, and target of links. */
  readonly #numbers = new Map<string, number>()
  #nodes = new Map<Ino, Node>()
  #top: Node
  #archives: readonly ShownArchive[] = []
  #stale = false
  #changedNs: bigint
  readonly #contents = new Map<StatusFile, { bytes: Buffer; untilMs: number }>()
  readonly #handles = new Map<number, Buffer>()
  #nextHandle = 1

  constructor(owner: { readonly uid: number; readonly gid: number; readonly timeNs: bigint }, files: readonly StatusFile[]) {
    this.#owner = owner
    this.#files = files
    this.#changedNs = owner.timeNs
    this.#top = this.#build()
  }

  archivesChanged(archives: Iterable<ShownArchive>): void {
    this.#archives = [...archives]
    this.#changedNs = BigInt(Date.now()) * 1_000_000n
    // Built when somebody looks.
    this.#stale = true
  }

  rootEntry(): Entry {
    return this.#entry(this.#fresh())
  }

  lookup(parent: Ino, name: Buffer): Answer<Entry> {
    this.#fresh()
    const directory = this.#nodes.get(parent)
    if (!directory) return Errno.ESTALE
    if (!directory.children) return Errno.ENOTDIR
    const child = directory.children.get(byteString(name))
    return child ? this.#entry(child) : Errno.ENOENT
  }

  getattr(ino: Ino): Answer<AttrReply> {
    const node = this.#node(ino)
    return node ? { attr: this.#attr(node), attrTtlMs: 0 } : Errno.ESTALE
  }

  readlink(ino: Ino): Answer<Uint8Array> {
    return this.#node(ino)?.target ?? Errno.EINVAL
  }

  opendir(ino: Ino): Answer<Opened> {
    const node = this.#node(ino)
    return !node ? Errno.ESTALE : node.children ? { fh: 0 } : Errno.ENOTDIR
  }

  releasedir(): void {}

  readdir(ino: Ino, _fh: number, cookie: number, sink: DirSink): Answer<void> {
    const node = this.#node(ino)
    if (!node?.children) return Errno.ESTALE
    const above = this.#nodes.get(node.parent)
    if (cookie < 1 && !sink(dot, this.#entry(node), 1)) return undefined
    if (cookie < 2 && !sink(dotDot, above ? this.#entry(above) : { ...this.#entry(node), attr: { ...this.#attr(node), ino: rootIno } }, 2)) return undefined
    let position = 3
    for (const [name, child] of node.children) {
      if (position > cookie && !sink(bytesOf(name), this.#entry(child), position)) return undefined
      position++
    }
    return undefined
  }

  open(ino: Ino, flags: number): Answer<Opened> {
    const node = this.#node(ino)
    if (!node) return Errno.ESTALE
    if (!node.file) return node.children ? Errno.EISDIR : Errno.ELOOP
    if ((flags & accessMode) !== 0) return Errno.EROFS
    const fh = this.#nextHandle++
    // A reader sees one state from its start to its end; who follows the events reads what comes.
    this.#handles.set(fh, this.#content(node.file))
    return { fh, directIo: true, noFlush: true }
  }

  read(ino: Ino, fh: number, offset: number, into: Buffer): Answer<ReadAnswer> {
    const opened = this.#handles.get(fh)
    const node = this.#nodes.get(ino)
    if (!opened) return Errno.EBADF
    const bytes = node?.file?.name === eventsName ? this.#content(node.file) : opened
    return offset >= bytes.length ? 0 : bytes.copy(into, 0, offset)
  }

  release(_ino: Ino, fh: number): void {
    this.#handles.delete(fh)
  }

  #content(file: StatusFile): Buffer {
    const nowMs = performance.now()
    const known = this.#contents.get(file)
    if (known && nowMs < known.untilMs) return known.bytes
    const bytes = file.content()
    this.#contents.set(file, { bytes, untilMs: nowMs + keepContentMs })
    return bytes
  }

  #node(ino: Ino): Node | undefined {
    return this.#nodes.get(ino)
  }

  #fresh(): Node {
    if (this.#stale) {
      this.#stale = false
      // Nodes that are gone are kept: the kernel may still ask for what it has open.
      this.#top = this.#build()
    }
    return this.#top
  }

  #build(): Node {
    const top: Node = { ino: this.root, parent: rootIno, children: new Map() }
    this.#nodes.set(top.ino, top)
    for (const file of this.#files) this.#add(top, file.name, file.name, { file })
    this.#addView(top, 'latest', 'latest', latestView(this.#archives))
    this.#addView(top, 'by-date', 'by-date', dateView(this.#archives))
    return top
  }

  #addView(parent: Node, name: string, path: string, view: View): void {
    const node = this.#add(parent, name, path, { children: new Map() })
    for (const [child, value] of view) {
      if (value instanceof Map) this.#addView(node, child, `${path}/${child}`, value)
      else this.#add(node, child, `${path}/${child}\0${byteString(value)}`, { target: value })
    }
  }

  #add(parent: Node, name: string, key: string, content: Pick<Node, 'file' | 'target' | 'children'>): Node {
    let number = this.#numbers.get(key)
    if (number === undefined) this.#numbers.set(key, number = localOf(this.root) + 1 + this.#numbers.size)
    const node: Node = { ino: inoOf(this.range, number), parent: parent.ino, ...content }
    this.#nodes.set(node.ino, node)
    parent.children!.set(name, node)
    return node
  }

  #entry(node: Node): Entry {
    return { attr: this.#attr(node), entryTtlMs: 0, attrTtlMs: 0 }
  }

  #attr(node: Node): Attr {
    const { uid, gid } = this.#owner
    const timeNs = node.file ? BigInt(Date.now()) * 1_000_000n : this.#changedNs
    const size = node.file ? this.#content(node.file).length : node.target?.length ?? 0
    return {
      ino: node.ino, size, blocks: 0, mode: node.children ? 0o040555 : node.target ? 0o120777 : 0o100444, nlink: 1, uid, gid, rdev: 0,
      atimeNs: timeNs, mtimeNs: timeNs, ctimeNs: timeNs, blksize: 4096,
    }
  }
}

/** The one file that grows while it is read. */
export const eventsName = 'events'
const dot = Buffer.from('.'), dotDot = Buffer.from('..')
