/**
 * The filesystem as a transport sees it: VirtualFs implements it once, src/fs/fuse/* drive it. It is synchronous and
 * lives in the thread that answers the kernel; whatever cannot be answered at once is deferred.
 *
 * Every operation returns its value, an Errno, or LATER after taking `call.defer()`; the deferred function is then called
 * exactly once, from the same thread, with the value or an Errno. Operations never throw on purpose (a thrown error is a
 * bug; the transport answers EIO and logs it). Buffers handed in (names, data) are borrowed until the operation returns:
 * copy what you keep. An operation a core does not have is absent, and the transport answers ENOSYS.
 */
import type { ArchiveTree } from './archive-tree.js'
import type { HandedFiles } from './handed-files.js'
import { type Attr, type AttrChange, type Entry, Errno, type Ino, type NodeAttributes, type Opened, type StatFs } from './types.js'

export const LATER: unique symbol = Symbol('later')
export type Answer<T> = T | Errno | typeof LATER

/** Who asks, and how to answer later. */
export interface Call<T> {
  readonly uid: number
  readonly gid: number
  readonly pid: number
  /**
   * With `killsPrivileges`: this write, truncation, open or chown drops set-user-id, and set-group-id of group-executable files. Of an access
   * ACL that is set: it drops set-group-id, for the asker is not in the group.
   */
  readonly killSetId?: boolean
  /** With `appliesUmask`, of what makes something: the permissions that it does not get, unless a default ACL says what it gets. */
  readonly umask?: number
  defer(): (answer: T | Errno) => void
}

/** The call with its value changed on the way, where that comes late. */
export function mapped<T>(call: Call<T>, change: (value: T) => T): Call<T> {
  return {
    uid: call.uid, gid: call.gid, pid: call.pid, umask: call.umask ?? 0,
    defer() {
      const answer = call.defer()
      return (value) => answerLate(answer, () => (value instanceof Errno ? value : change(value)))
    },
  }
}

/** The late answer that `work` gives, unless it defers once more. If it throws, whoever waits gets EIO, and whoever called this the error. */
export function answerLate<T>(answer: (value: T | Errno) => void, work: () => Answer<T>): void {
  let value: Answer<T> = Errno.EIO
  try {
    value = work()
  } finally {
    if (value !== LATER) answer(value)
  }
}

/** The value changed, whether it is there or comes late; refusals are passed on. */
export function changed<T>(call: Call<T>, change: (value: T) => T, ask: (call: Call<T>) => Answer<T>): Answer<T> {
  const answer = ask(mapped(call, change))
  return answer === LATER || answer instanceof Errno ? answer : change(answer)
}

/** Names that only lookups for handles have. */
export function isDot(name: Uint8Array): boolean {
  return name.length === 1 && name[0] === 0x2e
}

export function isDotDot(name: Uint8Array): boolean {
  return name.length === 2 && name[0] === 0x2e && name[1] === 0x2e
}

/** Receives directory entries; false when the reply is full (the entry was not taken). */
export type DirSink = (name: Uint8Array, entry: Entry, nextCookie: number) => boolean

/** Where a read puts its bytes: `into` has exactly the size that was asked. Only valid until the operation returns. */
export type ReadAnswer = number | ReadBytes

/** Bytes in one piece or several, one after the other. */
export type ReadBytes = Uint8Array | readonly Uint8Array[]

/** Copies as much as `into` holds; the number of bytes. */
export function copyBytes(bytes: ReadBytes, into: Uint8Array): number {
  let at = 0
  for (const piece of bytes instanceof Uint8Array ? [bytes] : bytes) {
    const part = piece.subarray(0, into.length - at)
    into.set(part, at)
    at += part.length
  }
  return at
}

/**
 * Each Entry that lookup, mknod, mkdir, symlink, link and create answer gives the kernel a reference to its inode; entries
 * of readdir give one only where `remember` says so. `forget` returns them.
 */
export interface FsCore {
  /**
   * The core itself drops `security.capability` at every write past the kernel's pages (`directIo`), and set-id bits where `call.killSetId` says so, or a
   * setattr that sets nothing. Else the kernel does, at the price of a getxattr before each write and a getattr before each chown.
   */
  readonly killsPrivileges?: boolean
  /** Called when the transport is about to wait for the next request: the core may lend it something (DirectoryLoans). */
  lend?(): void
  /** Called before anything else when it has one, or something else to do: the loan is over. */
  takeBack?(): void
  /** Something was put off until nothing is asked for a moment: a `tick` is awaited then. */
  readonly isBehind?: boolean
  /** The core itself takes `call.umask` off the modes of new files. Else the kernel does, where a default ACL should have its place too. */
  readonly appliesUmask?: boolean
  /**
   * An export by NFS looks up what its handles name: `.` is the inode `parent` itself, which need be no directory, and `..` the directory above
   * it. ESTALE if there is no such inode (any more). An Entry whose ino is 0 says that there is no such name, and that the kernel may know so for
   * entryTtlMs. The name may be of any length: ENAMETOOLONG is the core's to say.
   */
  lookup(parent: Ino, name: Buffer, call: Call<Entry>): Answer<Entry>
  /** The kernel dropped `count` references it got by entries. Never answered. */
  forget(ino: Ino, count: number): void
  /** A listing gave the kernel a reference to `ino`, as a lookup does (READDIRPLUS). Called from within the sink. */
  remember?(ino: Ino): void
  getattr(ino: Ino, fh: number | undefined, call: Call<AttrReply>): Answer<AttrReply>
  setattr(ino: Ino, change: AttrChange, call: Call<AttrReply>): Answer<AttrReply>
  readlink(ino: Ino, call: Call<Uint8Array>): Answer<Uint8Array>
  mknod(parent: Ino, name: Buffer, mode: number, rdev: number, call: Call<Entry>): Answer<Entry>
  mkdir(parent: Ino, name: Buffer, mode: number, call: Call<Entry>): Answer<Entry>
  symlink(parent: Ino, name: Buffer, target: Buffer, call: Call<Entry>): Answer<Entry>
  link(ino: Ino, newParent: Ino, newName: Buffer, call: Call<Entry>): Answer<Entry>
  unlink(parent: Ino, name: Buffer, call: Call<void>): Answer<void>
  rmdir(parent: Ino, name: Buffer, call: Call<void>): Answer<void>
  /** flags: RENAME_NOREPLACE 1, RENAME_EXCHANGE 2. */
  rename(parent: Ino, name: Buffer, newParent: Ino, newName: Buffer, flags: number, call: Call<void>): Answer<void>
  /** flags are Linux' O_*. O_TRUNC may be among them: open truncates then, no setattr follows. Nothing checks O_EXCL again in create. */
  open(ino: Ino, flags: number, call: Call<Opened>): Answer<Opened>
  create(parent: Ino, name: Buffer, mode: number, flags: number, call: Call<Created>): Answer<Created>
  /**
   * Fills `into` and returns the count, or returns other memory holding the bytes (valid until the next operation). A late
   * answer gives bytes; `into` must not be used then.
   */
  read(ino: Ino, fh: number, offset: number, into: Buffer, call: Call<ReadBytes>): Answer<ReadAnswer>
  write(ino: Ino, fh: number, offset: number, data: Buffer, call: Call<number>): Answer<number>
  flush(ino: Ino, fh: number, call: Call<void>): Answer<void>
  fsync(ino: Ino, fh: number, dataOnly: boolean, call: Call<void>): Answer<void>
  release(ino: Ino, fh: number): void
  fallocate(ino: Ino, fh: number, mode: number, offset: number, length: number, call: Call<void>): Answer<void>
  /** SEEK_DATA 3, SEEK_HOLE 4. */
  lseek(ino: Ino, fh: number, offset: number, whence: number, call: Call<number>): Answer<number>
  copyFileRange(ino: Ino, fh: number, offset: number, outIno: Ino, outFh: number, outOffset: number, length: number, call: Call<number>): Answer<number>
  opendir(ino: Ino, call: Call<Opened>): Answer<Opened>
  /**
   * Feeds entries after `cookie` (0 = start) to the sink until it is full, `.` and `..` included (their entries only need ino
   * and mode). When the answer is LATER, sink may still be called before the deferred function is.
   */
  readdir(ino: Ino, fh: number, cookie: number, sink: DirSink, call: Call<void>): Answer<void>
  releasedir(ino: Ino, fh: number): void
  fsyncdir(ino: Ino, fh: number, call: Call<void>): Answer<void>
  getxattr(ino: Ino, name: Buffer, call: Call<Uint8Array>): Answer<Uint8Array>
  listxattr(ino: Ino, call: Call<Uint8Array[]>): Answer<Uint8Array[]>
  /** flags: XATTR_CREATE 1, XATTR_REPLACE 2. */
  setxattr(ino: Ino, name: Buffer, value: Buffer, flags: number, call: Call<void>): Answer<void>
  removexattr(ino: Ino, name: Buffer, call: Call<void>): Answer<void>
  statfs(ino: Ino, call: Call<StatFs>): Answer<StatFs>
  syncfs(call: Call<void>): Answer<void>
  /** The kernel's answer to access(2) when default_permissions is off; absent means always allowed. */
  access?(ino: Ino, mask: number, call: Call<void>): Answer<void>
  /**
   * The kernel is gone, and nothing is open any more: closing is told by messages that nobody waits for, and an unmount right behind it throws away those
   * that were not fetched yet.
   */
  unserved?(): void
  /** After unmount, or when the session ends. */
  destroy(): void
}

export interface AttrReply {
  attr: Attr
  attrTtlMs: number
}
export interface Created {
  entry: Entry
  opened: Opened
}

/** What the core tells the kernel unasked. No-ops where the transport cannot. */
export interface KernelNotices {
  invalidateInode(ino: Ino): void
  /** Attributes only, at once: also from within an operation on the inode itself, and before whoever asked for that hears of it. */
  invalidateAttributes(ino: Ino): void
  /** Pages of a file that may hold what they held before; `done` when the kernel has let go of them, later, or without that where the transport cannot. */
  invalidatePages(ino: Ino, offset: number, length: number, done: () => void): void
  invalidateEntry(parent: Ino, name: Uint8Array): void
  /** Puts bytes into the page cache of an immutable file. */
  store(ino: Ino, offset: number, data: Uint8Array): void
  /**
   * The same at once, from within an operation, for the whole content of a file. The caller owes that nobody has the file open whose open was
   * answered: pages are locked while they are read, and the thread that should answer that read would wait for the lock here.
   * False if the kernel does not know the file. Absent where the transport cannot.
   */
  storeNow?(ino: Ino, pieces: readonly Uint8Array[], length: number): boolean
}

/** A tree whose names and attributes the transport may answer for, as ArchiveFiles would. */
export interface ShownTree {
  readonly tree: ArchiveTree
  /** The directory above its root. */
  readonly above: Ino
  /** How long the kernel keeps all of it: whole seconds. */
  readonly ttlMs: number
  /** One number each: at every answer `clock` is counted up, and `lastUse` gets it. */
  readonly lastUse: Float64Array
  readonly clock: Float64Array
  /** Their opening is answered as well. */
  readonly handed: HandedFiles
  /** One number: entries that the kernel was given and did not give back. What is answered and forgotten there counts as well. */
  readonly references: Float64Array
}

/** What is lent to a transport: a directory without set-group-id and default ACL, to make files in while nothing else happens. */
export interface Loan {
  readonly directory: Attr
  readonly ttlMs: number
  /** To set attributes that are set already is no change. */
  readonly isLive: boolean
  /** Of the first file; the others follow. */
  readonly firstIno: Ino
  readonly firstFh: number
  /** Now, as the core tells the time. */
  readonly clockNs: bigint
  /** Where contents go: memory that stays the same from one loan to the next, and the part of it that is free. */
  readonly data: Buffer
  readonly dataStart: number
  readonly dataRoom: number
  /** Byte strings; with `keepsNames` those that came since the last loan, which was of the same directory (of some it may be told again). */
  readonly names: Iterable<string>
  /** Of all. */
  readonly nameCount: number
  readonly keepsNames: boolean
}

/** A file that was made during a loan. */
export interface Arrival extends NodeAttributes {
  /** Byte string. */
  readonly name: string
  /** Where its content lies, from the loan's `dataStart` on. */
  readonly dataStart: number
  readonly size: number
  readonly isOpen: boolean
  /** open(2)'s. */
  readonly flags: number
}

export interface Arrivals {
  readonly files: readonly Arrival[]
  /** Contents lie in so many bytes from the loan's `dataStart` on. */
  readonly dataLength: number
  /** Of the directory; and the last time that was told. */
  readonly directoryNs: bigint
  readonly lastNs: bigint
}

/** Absent where the transport cannot. */
export interface DirectoryLoans {
  /** No more files, and no more bytes of their names, arrive during a loan. */
  readonly maxFiles: number
  readonly maxNameBytes: number
  /** One at a time. */
  readonly isLent: boolean
  /** Until `end` the transport answers for the directory and for what arrives in it, as the core would. False: that is not lent. */
  lend(loan: Loan): boolean
  end(): Arrivals
}

/** Absent where the transport cannot. */
export interface TreeAnswers {
  show(shown: ShownTree): void
  /** Its memory may go. Nothing happens if it is not shown. */
  hide(tree: ArchiveTree): void
}
