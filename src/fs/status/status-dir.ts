/**
 * MNT/.borgfs: `status`, `status.json`, `events`, the archives as links in `latest/` and `by-date/`, as snapshots in `snapshots/` and as one
 * tree in `versions/`. Everything is made when it is looked at; the kernel keeps none of it, except what is in archives. A link whose target
 * changes is another inode, because targets are kept.
 */
import { byteString, bytesOf } from '../../engine/text.js'
import type { ShownArchives } from '../archives-dir.js'
import { type Answer, type AttrReply, type Call, changed, type DirSink, isDot, isDotDot, type KernelNotices, type ReadAnswer } from '../core.js'
import { inodeRange, inoOf, localOf, rootIno } from '../inodes.js'
import type { Subtree } from '../subtree.js'
import { type Attr, type Entry, Errno, type Ino, type Opened } from '../types.js'
import { type ArchivePlace, dateView, latestView, type Shown, snapshotView, type View } from './archive-views.js'

export interface StatusFile {
  readonly name: string
  content(): Buffer
}

interface Node {
  readonly ino: Ino
  readonly parent: Ino
  readonly name: string
  /** Identifies it over changes of the list of archives: path, and target of links. */
  readonly key: string
  readonly path: string
  /** The list of archives that it was made for. */
  readonly build: number
  readonly file?: StatusFile
  readonly target?: Buffer
  /** It stands for that directory, whose inode is another. */
  readonly place?: ArchivePlace
  readonly view?: () => View
  /** Of a directory that somebody looked into. */
  children?: Map<string, Node>
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
  /** Numbers stay with what they were given to, by key. */
  readonly #numbers = new Map<string, number>()
  #lastNumber = localOf(inoOf(inodeRange.status, 1))
  /** Entries that the kernel was given and did not give back, by inode. */
  readonly #references = new Map<Ino, number>()
  #nodes = new Map<Ino, Node>()
  #top: Node
  #archives: ShownArchives | undefined
  #build = 0
  #stale = false
  #changedNs: bigint
  readonly #contents = new Map<StatusFile, { bytes: Buffer; untilMs: number }>()
  readonly #handles = new Map<number, Buffer>()
  /** Of directories: what is being listed. */
  readonly #listings = new Map<number, readonly [name: string, child: Node][]>()
  #nextHandle = 1

  constructor(owner: { readonly uid: number; readonly gid: number; readonly timeNs: bigint }, files: readonly StatusFile[], notices: KernelNotices) {
    this.#owner = owner
    this.#files = files
    this.#notices = notices
    this.#changedNs = owner.timeNs
    this.#top = this.#makeTop()
  }

  /** Names that are known: of what is there and was looked at, and of what is gone but the kernel has. */
  get count(): number {
    return this.#nodes.size
  }

  archivesChanged(archives: ShownArchives): void {
    this.#archives = archives
    this.#changedNs = BigInt(Date.now()) * 1_000_000n
    // Built when somebody looks.
    this.#stale = true
  }

  rootEntry(): Entry {
    return this.#entry(this.#fresh())
  }

  lookup(parent: Ino, name: Buffer, call: Call<Entry>): Answer<Entry> {
    const directory = this.#node(parent)
    if (!directory) return Errno.ESTALE
    if (isDot(name)) return this.#given(directory)
    if (isDotDot(name)) return this.#given(this.#node(directory.parent) ?? directory)
    const child = this.#children(directory)?.get(byteString(name))
    if (!child) return isDirectory(directory) ? Errno.ENOENT : Errno.ENOTDIR
    if (!child.place) return this.#given(child)
    const archive = child.place.at(parent, child.name)
    return archive ? changed(call, untilAsked, later => archive.resolveRoot(later)) : Errno.ENOENT
  }

  remember(ino: Ino): void {
    this.#references.set(ino, (this.#references.get(ino) ?? 0) + 1)
  }

  forget(ino: Ino, count: number): void {
    const left = (this.#references.get(ino) ?? 0) - count
    if (left > 0) return void this.#references.set(ino, left)
    this.#references.delete(ino)
    const node = this.#nodes.get(ino)
    if (node && this.#isGone(node)) this.#forgetNode(node)
  }

  #given(node: Node): Entry {
    this.remember(node.ino)
    return this.#entry(node)
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
    return !node ? Errno.ESTALE : isDirectory(node) ? { fh: this.#nextHandle++ } : Errno.ENOTDIR
  }

  releasedir(_ino: Ino, fh: number): void {
    this.#listings.delete(fh)
  }

  readdir(ino: Ino, fh: number, cookie: number, sink: DirSink): Answer<void> {
    const node = this.#node(ino)
    const children = node && this.#children(node)
    if (!children) return Errno.ESTALE
    const above = this.#nodes.get(node.parent)
    if (cookie < 1 && !sink(dot, this.#entry(node), 1)) return undefined
    if (cookie < 2 && !sink(dotDot, above ? this.#entry(above) : { ...this.#entry(node), attr: { ...this.#attr(node), ino: rootIno } }, 2)) return undefined
    // Cookies count; so whoever has read half of the names goes on in the same list, also when archives came or went meanwhile.
    let listing = cookie === 0 ? undefined : this.#listings.get(fh)
    if (!listing) this.#listings.set(fh, listing = [...children])
    for (let index = Math.max(0, cookie - 2); index < listing.length; index++) {
      const [name, child] = listing[index]!
      const archive = child.place?.at(ino, child.name)
      if (child.place && !archive) continue
      if (!sink(bytesOf(name), archive ? untilAsked(archive.rootEntry()) : this.#entry(child), index + 3)) return undefined
    }
    return undefined
  }

  open(ino: Ino, flags: number): Answer<Opened> {
    const node = this.#node(ino)
    if (!node) return Errno.ESTALE
    if (!node.file) return isDirectory(node) ? Errno.EISDIR : Errno.ELOOP
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

  /** As the list of archives has it now. What is gone stays as it was: the kernel may still ask for what it has open. */
  #node(ino: Ino): Node | undefined {
    this.#fresh()
    const node = this.#nodes.get(ino)
    return node && this.#renewed(node)
  }

  #renewed(node: Node): Node {
    if (node.build === this.#build) return node
    const above = this.#nodes.get(node.parent)
    const now = above && this.#children(this.#renewed(above))?.get(node.name)
    return now?.ino === node.ino ? now : node
  }

  #fresh(): Node {
    if (this.#stale) {
      this.#stale = false
      this.#build++
      this.#top = this.#makeTop()
      this.#forgetGone()
    }
    return this.#top
  }

  /** What is not there any more. The kernel has it until it is asked; directories that somebody is in have nothing in them, and hold no archives. */
  #forgetGone(): void {
    for (const node of this.#nodes.values()) {
      if (!this.#isGone(node)) continue
      if (!this.#references.has(node.ino)) {
        this.#forgetNode(node)
        continue
      }
      this.#notices.invalidateEntry(node.parent, bytesOf(node.name))
      const { view: _view, ...left } = node
      if (isDirectory(node)) this.#nodes.set(node.ino, { ...left, children: new Map() })
    }
  }

  #isGone(node: Node): boolean {
    return this.#renewed(node).build !== this.#build
  }

  #forgetNode({ ino, key }: Node): void {
    this.#nodes.delete(ino)
    this.#numbers.delete(key)
  }

  #makeTop(): Node {
    const top: Node = { ino: this.root, parent: rootIno, name: '', key: '', path: '', build: this.#build, children: new Map() }
    this.#nodes.set(top.ino, top)
    for (const file of this.#files) this.#add(top, file.name, file.name, { file })
    const archives = this.#archives
    if (!archives) return top
    const views: [string, Shown][] = [
      ['latest', () => latestView(archives)], ['by-date', () => dateView(archives)], ['snapshots', () => snapshotView(archives)], ['versions', { at: (parent, shown) => archives.merged(parent, shown) }],
    ]
    for (const [name, shown] of views) this.#addShown(top, name, shown)
    return top
  }

  /** Undefined for what is no directory. */
  #children(node: Node): Map<string, Node> | undefined {
    if (!node.children && node.view) {
      node.children = new Map()
      for (const [name, shown] of node.view()) this.#addShown(node, name, shown)
    }
    return node.children
  }

  #addShown(parent: Node, name: string, shown: Shown): void {
    const path = parent.path === '' ? name : `${parent.path}/${name}`
    if (Buffer.isBuffer(shown)) this.#add(parent, name, path, { target: shown })
    else if (shown instanceof Map) this.#add(parent, name, path, { view: () => shown })
    else if (typeof shown === 'function') this.#add(parent, name, path, { view: shown })
    else this.#add(parent, name, path, { place: shown })
  }

  #add(parent: Node, name: string, path: string, content: Pick<Node, 'file' | 'target' | 'place' | 'view'>): void {
    const key = content.target ? `${path}\0${byteString(content.target)}` : path
    let number = this.#numbers.get(key)
    if (number === undefined) this.#numbers.set(key, number = ++this.#lastNumber)
    const node: Node = { ino: inoOf(this.range, number), parent: parent.ino, name, key, path, build: this.#build, ...content }
    this.#nodes.set(node.ino, node)
    parent.children!.set(name, node)
  }

  #entry(node: Node): Entry {
    return { attr: this.#attr(node), entryTtlMs: 0, attrTtlMs: 0 }
  }

  #attr(node: Node): Attr {
    const { uid, gid } = this.#owner
    const timeNs = node.file ? BigInt(Date.now()) * 1_000_000n : this.#changedNs
    const size = node.file ? this.#content(node.file).length : node.target?.length ?? 0
    return {
      ino: node.ino, size, blocks: 0, mode: isDirectory(node) ? 0o040555 : node.target ? 0o120777 : 0o100444, nlink: 1, uid, gid, rdev: 0,
      atimeNs: timeNs, mtimeNs: timeNs, ctimeNs: timeNs, blksize: 4096,
    }
  }
}

function isDirectory({ view, children }: Node): boolean {
  return view !== undefined || children !== undefined
}

/** Which archive a name means may change at any time. */
function untilAsked(entry: Entry): Entry {
  return { ...entry, entryTtlMs: 0 }
}

/** The one file that grows while it is read. */
export const eventsName = 'events'
const dot = Buffer.from('.'), dotDot = Buffer.from('..')
