/**
 * The files of an archive at a further place of the mount, with inode numbers of their own: the kernel knows a directory at one place only, and
 * would move it about. It costs nothing but the numbers; whatever is asked is answered by the archive.
 */
import type { ArchiveFiles } from './archive-files.js'
import { type Answer, type AttrReply, type Call, changed, type DirSink, type ReadAnswer, type ReadBytes } from './core.js'
import { rangeOf } from './inodes.js'
import type { Likeness, SharedRange, Subtree } from './subtree.js'
import type { Attr, Entry, Errno, Ino, Opened } from './types.js'

/** The archive's own directory may look different once its tree is loaded, which the kernel is told of the first place only. */
const rootTtlMs = 1000

export class ArchiveAlias implements Subtree {
  readonly range: number
  readonly root: Ino
  readonly #files: ArchiveFiles
  readonly above: Ino
  /** In the directory above. */
  readonly name: Buffer

  /** `parent`: the directory above. */
  constructor(files: ArchiveFiles, root: Ino, parent: Ino, name: Buffer) {
    this.name = name
    this.range = rangeOf(root)
    this.root = root
    this.#files = files
    this.above = parent
  }

  rootEntry(): Entry {
    return this.#entry(this.#files.rootEntry())
  }

  /** The archive's own directory with its final attributes. */
  resolveRoot(call: Call<Entry>): Answer<Entry> {
    return changed(call, entry => this.#entry(entry), later => this.#files.resolveRoot(later))
  }

  forget(ino: Ino, count: number): void {
    this.#files.forget(ino, count)
  }

  remember(): void {
    this.#files.remember()
  }

  lookup(parent: Ino, name: Buffer, call: Call<Entry>): Answer<Entry> {
    return changed(call, entry => this.#entry(entry), later => this.#files.lookup(this.#theirs(parent), name, later))
  }

  getattr(ino: Ino, fh: number | undefined, call: Call<AttrReply>): Answer<AttrReply> {
    const ours = ({ attr, attrTtlMs }: AttrReply): AttrReply => ({ attr: this.#attr(attr), attrTtlMs: this.#ttl(attr.ino, attrTtlMs) })
    return changed(call, ours, later => this.#files.getattr(this.#theirs(ino), fh, later))
  }

  readdir(ino: Ino, fh: number, cookie: number, sink: DirSink, call: Call<void>): Answer<void> {
    return this.#files.readdir(this.#theirs(ino), fh, cookie, (name, entry, next) => sink(name, this.#entry(entry), next), call)
  }

  readlink(ino: Ino, call: Call<Uint8Array>): Answer<Uint8Array> {
    return this.#files.readlink(this.#theirs(ino), call)
  }

  opendir(ino: Ino, call: Call<Opened>): Answer<Opened> {
    return this.#files.opendir(this.#theirs(ino), call)
  }

  open(ino: Ino, flags: number, call: Call<Opened>): Answer<Opened> {
    return this.#files.open(this.#theirs(ino), flags, call, ino)
  }

  read(ino: Ino, fh: number, offset: number, into: Buffer, call: Call<ReadBytes>): Answer<ReadAnswer> {
    return this.#files.read(this.#theirs(ino), fh, offset, into, call)
  }

  release(ino: Ino, fh: number): void {
    this.#files.release(this.#theirs(ino), fh)
  }

  lseek(ino: Ino, fh: number, offset: number, whence: number, call: Call<number>): Answer<number> {
    return this.#files.lseek(this.#theirs(ino), fh, offset, whence, call)
  }

  getxattr(ino: Ino, name: Buffer, call: Call<Uint8Array>): Answer<Uint8Array> {
    return this.#files.getxattr(this.#theirs(ino), name, call)
  }

  listxattr(ino: Ino, call: Call<Uint8Array[]>): Answer<Uint8Array[]> {
    return this.#files.listxattr(this.#theirs(ino), call)
  }

  sharedRange(ino: Ino, fh: number, offset: number, length: number): SharedRange | Errno {
    return this.#files.sharedRange(this.#theirs(ino), fh, offset, length)
  }

  withLikeness<T>(ino: Ino, call: Call<T>, work: (likeness: Likeness, call: Call<T>) => Answer<T>): Answer<T> {
    return this.#files.withLikeness(this.#theirs(ino), call, work)
  }

  #theirs(ino: Ino): Ino {
    return ino - this.root + this.#files.root
  }

  /** Of a directory above the archive only `..` tells. */
  #ours(ino: Ino): Ino {
    if (ino === 0) return 0
    return rangeOf(ino) === this.#files.range ? ino - this.#files.root + this.root : this.above
  }

  #attr(attr: Attr): Attr {
    return { ...attr, ino: this.#ours(attr.ino) }
  }

  #entry(entry: Entry): Entry {
    return { ...entry, attr: this.#attr(entry.attr), attrTtlMs: this.#ttl(entry.attr.ino, entry.attrTtlMs) }
  }

  #ttl(ino: Ino, ttlMs: number): number {
    return ino === this.#files.root ? Math.min(ttlMs, rootTtlMs) : ttlMs
  }
}
