/**
 * MNT/.borgfs: `status`, `status.json`, `events`, and the archives as links in `latest/` and `by-date/`. Everything is made when
 * it is looked at; the kernel keeps none of it. A link whose target changes is another inode, because targets are kept.
 */
import { byteString, bytesOf } from '../../engine/text.js'
import type { ShownArchive } from '../archives-dir.js'
import type { Answer, AttrReply, DirSink, KernelNotices, ReadAnswer } from '../core.js'
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
  readonly name: string
  /** See #numbers. */
  readonly key: string
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
  readonly #notices: KernelNotices
  /** Numbers stay with what they were given to: path, and target of links. None is given twice. */
  readonly #numbers = new Map<string, number>()
  #nextNumber = localOf(inoOf(inodeRange.status, 1))
  /** Those that are shown, and those that are gone but known to the kernel, which may still ask for what it has open. */
  #nodes = new Map<Ino, Node>()
  /** Entries that the kernel was given and did not give back. */
  readonly #references = new Map<Ino, number>()
  #top: Node
  #archives: readonly ShownArchive[] = []
  #stale = false
  #changedNs: bigint
  readonly #contents = new Map<StatusFile, { bytes: Buffer; untilMs: number }>()
  readonly #handles = new Map<number, Buffer>()
  #nextHandle = 1

  constructor(owner: { readonly uid: number; readonly gid: number; readonly timeNs: bigint }, files: readonly StatusFile[], notices: KernelNotices) {
    this.#notices = notices
    this.#owner = owner
    this.#files = files
    this.#changedNs = owner.timeNs
    this.#top = this.#build()
  }

  get nodeCount(): number {
    return this.#nodes.size
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
    if (!child) return Errno.ENOENT
    this.remember(child.ino)
    return this.#entry(child)
  }

  remember(ino: Ino): void {
    if (ino !== this.root) this.#references.set(ino, (this.#references.get(ino) ?? 0) + 1)
  }

  forget(ino: Ino, count: number): void {
    const left = (this.#references.get(ino) ?? 0) - count
    if (left > 0) {
      this.#references.set(ino, left)
      return
    }
    this.#references.delete(ino)
    const node = this.#nodes.get(ino)
    if (node && !this.#shown.has(ino)) this.#drop(node)
  }

  #drop({ ino, key }: Node): void {
    this.#nodes.delete(ino)
    this.#numbers.delete(key)
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
      this.#top = this.#build()
    }
    return this.#top
  }

  #build(): Node {
    const before = this.#shown
    this.#shown = new Set()
    const top: Node = { ino: this.root, parent: rootIno, name: '', key: '', children: new Map() }
    this.#nodes.set(top.ino, top)
    this.#shown.add(top.ino)
    for (const file of this.#files) this.#add(top, file.name, file.name, { file })
    this.#addView(top, 'latest', 'latest', latestView(this.#archives))
    this.#addView(top, 'by-date', 'by-date', dateView(this.#archives))
    for (const ino of before) {
      const node = this.#shown.has(ino) ? undefined : this.#nodes.get(ino)
      if (!node) continue
      if (this.#references.has(ino)) this.#notices.invalidateEntry(node.parent, bytesOf(node.name))
      else this.#drop(node)
    }
    return top
  }
  #shown = new Set<Ino>()

  #addView(parent: Node, name: string, path: string, view: View): void {
    const node = this.#add(parent, name, path, { children: new Map() })
    for (const [child, value] of view) {
      if (value instanceof Map) this.#addView(node, child, `${path}/${child}`, value)
      else this.#add(node, child, `${path}/${child}\0${byteString(value)}`, { target: value })
    }
  }

  #add(parent: Node, name: string, key: string, content: Pick<Node, 'file' | 'target' | 'children'>): Node {
    let number = this.#numbers.get(key)
    if (number === undefined) this.#numbers.set(key, number = ++this.#nextNumber)
    const node: Node = { ino: inoOf(this.range, number), parent: parent.ino, name, key, ...content }
    this.#nodes.set(node.ino, node)
    this.#shown.add(node.ino)
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
