/**
 * A part of the mount with one owner: an archive's files, `incoming`. VirtualFs decides by the inode's range who is asked, so
 * a subtree sees only inodes of its own range. Its operations are those of FsCore, with the same rules for answers and
 * borrowed buffers. An absent operation that would change something means EROFS; one that ends something (flush, fsync, release,
 * forget …) has nothing to do; for the others VirtualFs answers as of a file that has no such thing (EINVAL, ENODATA …).
 *
 * `link`, `rename` and `copyFileRange` are called only when both ends lie in this subtree; across subtrees VirtualFs
 * answers EXDEV, with one exception: a rename into the root is offered to `renameToRoot`.
 */
import type { ShownArchives } from './archives-dir.js'
import type { Answer, AttrReply, Call, DirSink, FsCore } from './core.js'
import type { Extents } from './incoming/extents.js'
import type { Attr, Entry, Errno, Ino } from './types.js'

export interface SharedRange {
  readonly length: number
  /** From offset 0 on, without a gap. */
  readonly extents: Extents
  /** Some of the chunks may not be in the repository yet, but in the stash. */
  readonly stashed?: boolean
}

/** A file as it is, but for its name and its contents that are no chunks. */
export interface Likeness {
  readonly attr: Attr
  readonly target: Buffer | undefined
  readonly xattrs: ReadonlyMap<string, Buffer> | undefined
  /** All of a file's contents. */
  readonly extents: Extents | undefined
}

type Required = 'lookup' | 'getattr' | 'readdir'
type Routing = 'syncfs' | 'unserved' | 'destroy' | 'isBehind' | 'lend' | 'takeBack' | Required

export interface Subtree extends Partial<Omit<FsCore, Routing>> {
  /** As in inodes.ts: every inode of the subtree lies in it. */
  readonly range: number
  /** The directory that appears in the root. */
  readonly root: Ino
  /** Where that is not the mount's root: the directory above. Whoever looks up `..` of `root` gets it without asking the subtree. */
  readonly above?: Ino
  lookup(parent: Ino, name: Buffer, call: Call<Entry>): Answer<Entry>
  getattr(ino: Ino, fh: number | undefined, call: Call<AttrReply>): Answer<AttrReply>
  readdir(ino: Ino, fh: number, cookie: number, sink: DirSink, call: Call<void>): Answer<void>
  /** The entry of `root` as the mount's root shows it. */
  rootEntry(): Entry
  /** What an open file has of [offset, offset + length) as chunks of the repository, from its start on; less where it has less, nothing at its end. */
  sharedRange?(ino: Ino, fh: number, offset: number, length: number): SharedRange | Errno
  /** copy_file_range from anywhere in the mount: the file refers to the same chunks. */
  cloneInto?(ino: Ino, fh: number, offset: number, range: SharedRange, call: Call<number>): Answer<number>
  /** Describes a file, link or device, so that another part can have one like it: `link` across parts. `work` gets a call of its own. */
  withLikeness?<T>(ino: Ino, call: Call<T>, work: (likeness: Likeness, call: Call<T>) => Answer<T>): Answer<T>
  /** Comes before that: the archive that it is in may be about to go. */
  beforeLikeness?(call: Call<Entry>, work: (call: Call<Entry>) => Answer<Entry>): Answer<Entry>
  addLikeness?(likeness: Likeness, parent: Ino, name: Buffer, call: Call<Entry>): Answer<Entry>
  /** `mv MNT/incoming/NAME MNT/NEW`: the name is free in the root and contains no slash. Buffers are borrowed. */
  renameToRoot?(parent: Ino, name: Buffer, newName: Buffer, flags: number, call: Call<void>): Answer<void>
  /** Packed ids of the chunks that its files are made of, and that must not go with an archive. */
  neededIds?(): Uint8Array
  syncfs?(call: Call<void>): Answer<void>
  /** Called by the loop now and then (at least every second) and after every request from the engine. */
  tick?(nowMs: number): void
  /** The root shows these now, in this order. */
  archivesChanged?(archives: ShownArchives): void
  /** See FsCore. */
  readonly isBehind?: boolean
  lend?(): void
  takeBack?(): void
  /** See FsCore.unserved. */
  releaseAll?(): void
  destroy?(): void
}
