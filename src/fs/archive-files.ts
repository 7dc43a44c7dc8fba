/**
 * The files of one archive as a subtree. What is asked before it was loaded (archive-loads.ts) is answered later. Nothing about an archive ever changes, so the
 * kernel may keep all it learns.
 */
import { byteString } from '../engine/text.js'
import { archiveFact, chunkLines, chunksXattr, deduplicatedSizeXattr, factPrefix } from './archive-facts.js'
import { listNames, listTree } from './archive-listing.js'
import { ArchiveLoads, useClock } from './archive-loads.js'
import { ArchiveRoot, unchanging, unchangingTtlMs } from './archive-root.js'
import type { ArchiveTree } from './archive-tree.js'
import { type Answer, answerLate, type AttrReply, type Call, type DirSink, isDot, isDotDot, type KernelNotices, LATER, type ReadAnswer, type ReadBytes, type TreeAnswers } from './core.js'
import type { EngineClient } from './engine-client.js'
import type { ArchiveInfo, MountView } from './engine-port.js'
import { type FileReader, type FilesAhead, OpenFile } from './file-reader.js'
import { handedHandle } from './handed-files.js'
import { localOf, rangeOf } from './inodes.js'
import { KernelLeftovers } from './kernel-leftovers.js'
import { OpenFiles } from './open-files.js'
import { FileSequence } from './read-ahead.js'
import { maxNameBytes } from './incoming/box.js'
import { Extents, extentsOf } from './incoming/extents.js'
import type { Likeness, SharedRange, Subtree } from './subtree.js'
import { type Entry, Errno, type Ino, type Opened } from './types.js'

const seekData = 3, seekHole = 4
const accessMode = 3, truncate = 0o1000

export interface ArchiveFilesContext {
  readonly client: EngineClient
  readonly reader: FileReader
  readonly view: MountView
  readonly answers?: TreeAnswers | undefined
  /** Called when a tree has come, so that the owner of all archives can bound what they take together. */
  treeLoaded(files: ArchiveFiles): void
  /** The tree's root says other than what the kernel was told. */
  rootChanged(ino: Ino): void
  /** Nobody refers to anything of it any more: neither the kernel nor an open file. Called for retired ones only. */
  unused(files: ArchiveFiles): void
}

export class ArchiveFiles implements Subtree {
  readonly range: number
  readonly root: Ino
  readonly above: Ino
  readonly #context: ArchiveFilesContext
  readonly #loads: ArchiveLoads
  readonly #top: ArchiveRoot
  readonly #sequence = new FileSequence()
  readonly #open = new OpenFiles()
  #ahead: FilesAhead | undefined
  /** One number: entries that the kernel was given and did not give back, of all its inodes. The transport counts what it answers itself. */
  readonly #references = new Float64Array(1)
  /** Of a retired one. */
  #leftovers: KernelLeftovers | undefined

  /** `parentIno` is the directory above the archive's root: the mount's root, or the archive's root itself. */
  constructor(info: ArchiveInfo, root: Ino, parentIno: Ino, context: ArchiveFilesContext) {
    this.root = root
    this.range = rangeOf(root)
    this.above = parentIno
    this.#context = context
    this.#loads = new ArchiveLoads(info, root, context.client, {
      treeComes: tree => this.#show(tree), treeGoes: tree => this.#hide(tree), treeGrew: () => context.treeLoaded(this),
    })
    this.#top = new ArchiveRoot(root, parentIno, this.#loads, context.view)
  }

  get info(): ArchiveInfo {
    return this.#loads.info
  }

  /** The same files as another archive: it was renamed or got another comment. */
  become(info: ArchiveInfo): void {
    this.#loads.become(info)
  }

  /** Runs `work` with the whole tree, chunk rows included, now or when it is loaded. */
  withTree<T>(call: Call<T>, work: (tree: ArchiveTree) => T | Errno): Answer<T> {
    return this.#loads.withChunks(call, work)
  }

  /** The same with names and attributes alone: chunk rows may be missing. */
  withNames<T>(call: Call<T>, work: (tree: ArchiveTree) => T | Errno): Answer<T> {
    return this.#loads.withTree(call, work)
  }

  /** It is not shown any more. Who still has something of it goes on; `keepsTree`: also with what was not asked for yet. */
  retire({ keepsTree = false } = {}): void {
    this.#leftovers = new KernelLeftovers(this.#loads.tree)
    if (!keepsTree) this.dropTree()
    this.#tellIfUnused()
  }

  /** Of a retired archive: asks the kernel to let go of what nobody uses. `places`: roots of its aliases. */
  askToForget(notices: KernelNotices, nowMs: number, places: readonly Ino[]): void {
    // Whoever waited for something of it when it retired may have got an error, which is nothing that the kernel forgets.
    this.#tellIfUnused()
    if (this.openCount === 0) this.#leftovers?.ask(notices, nowMs, [this.root, ...places])
  }

  /** Open files. */
  get openCount(): number {
    return this.#open.count
  }

  #tellIfUnused(): void {
    if (this.#leftovers && this.#references[0]! <= 0 && this.openCount === 0 && !this.#loads.awaited) this.#context.unused(this)
  }

  /** Memory of the tree, 0 while there is none. */
  get treeBytes(): number {
    return this.#loads.tree?.byteLength ?? 0
  }

  /** Orders the uses of all archives, for choosing what to drop. */
  get lastUse(): number {
    return this.#loads.lastUse[0]!
  }

  /** Forgets the tree; open files keep theirs. */
  dropTree(): void {
    this.#loads.dropTree()
  }

  /** The archive's own directory without asking anyone; undefined until its head was loaded once. */
  knownRootEntry(): Entry | undefined {
    return this.#top.knownEntry
  }

  /** Before the head is known: a directory of the archive's time, which the kernel must not keep. */
  rootEntry(): Entry {
    return this.#top.entry
  }

  /** The archive's own directory with its final attributes, for the kernel to keep. */
  resolveRoot(call: Call<Entry>): Answer<Entry> {
    const given = (): Entry => {
      this.remember()
      return this.rootEntry()
    }
    if (this.knownRootEntry()) return given()
    const answer = call.defer()
    this.#loads.whenHead((error) => answer(error ?? given()))
    return LATER
  }

  lookup(parent: Ino, name: Buffer, call: Call<Entry>): Answer<Entry> {
    const { tree } = this.#loads
    if (tree) return this.#lookup(tree, this.#row(parent), name)
    const kept = Buffer.from(name)
    return this.#loads.withTree(call, loaded => this.#lookup(loaded, this.#row(parent), kept))
  }

  forget(_ino: Ino, count: number): void {
    this.#references[0]! -= count
    this.#tellIfUnused()
  }

  /** The kernel was given an entry of it by a listing, or that of its root. */
  remember(): void {
    this.#references[0]!++
  }

  getattr(ino: Ino, _fh: number | undefined, call: Call<AttrReply>): Answer<AttrReply> {
    const row = this.#row(ino)
    if (row === 0) {
      const known = this.#top.attr
      if (known) return { attr: known, attrTtlMs: unchangingTtlMs }
      const answer = call.defer()
      this.#loads.whenHead((error) => answer(error ?? { attr: this.rootEntry().attr, attrTtlMs: unchangingTtlMs }))
      return LATER
    }
    return this.#loads.withTree(call, (tree) => tree.has(row) ? { attr: tree.attr(row), attrTtlMs: unchangingTtlMs } : Errno.ESTALE)
  }

  readlink(ino: Ino, call: Call<Uint8Array>): Answer<Uint8Array> {
    const row = this.#row(ino)
    return this.#loads.withTree(call, (tree) => tree.has(row) && tree.isSymlink(row) ? tree.linkTarget(row) : Errno.EINVAL)
  }

  opendir(ino: Ino, call: Call<Opened>): Answer<Opened> {
    if (!this.#loads.tree && this.#row(ino) === 0 && this.#loads.head?.listing) {
      this.#loads.used()
      // A listing without attributes is nothing for the kernel to keep.
      return { fh: 0, keepCache: true }
    }
    return this.#loads.withTree(call, () => ({ fh: 0, keepCache: true, cacheDir: true }))
  }

  readdir(ino: Ino, _fh: number, cookie: number, sink: DirSink, call: Call<void>): Answer<void> {
    const directory = this.#row(ino)
    const listing = directory === 0 && !this.#loads.tree ? this.#loads.head?.listing : undefined
    if (!listing) {
      return this.#loads.withTree(call, (tree) => tree.has(directory) && tree.isDirectory(directory)
        ? listTree(tree, directory, this.#top, cookie, sink) : Errno.ENOTDIR)
    }
    // Whatever comes next will need the tree. Not sooner: all cores are at work on it then, and the listing would wait for them.
    if (listNames(listing, this.#top, cookie, sink) && !this.#loads.treeAwaited) this.#loads.whenTree(() => {})
  }

  #mayBeOpened(tree: ArchiveTree, row: number): boolean {
    return this.#context.view.allowDamagedFiles || !tree.isDamaged(row)
  }

  /** `shown`: the inode of another place under which the kernel knows the file. */
  open(ino: Ino, flags: number, call: Call<Opened>, shown = ino): Answer<Opened> {
    if ((flags & (accessMode | truncate)) !== 0) return Errno.EROFS
    const row = this.#row(ino)
    return this.#loads.withChunks(call, (tree) => {
      if (!tree.has(row) || !tree.isRegular(row)) return Errno.EINVAL
      if (!this.#mayBeOpened(tree, row)) {
        this.#context.client.write('warning', 'borg.fuse',
          'File has damaged (all-zero) chunks. Try running borg check --repair. Mount with allow_damaged_files to read damaged files.')
        return Errno.EIO
      }
      const file = this.#fileOf(tree, row, shown)
      const { handed } = this.#open
      if (shown === ino && handed.has(row)) {
        const { fh, tells } = handed.open(row)
        if (tells) this.#context.reader.passing(file)
        return { fh, keepCache: true, noFlush: true }
      }
      const { fh, isFirst } = this.#open.add(file)
      if (isFirst && (shown !== ino || handed.mayGive(row))) this.#context.reader.opening(file)
      return { fh, keepCache: true, noFlush: true }
    })
  }

  read(ino: Ino, fh: number, offset: number, into: Buffer, call: Call<ReadBytes>): Answer<ReadAnswer> {
    if (fh === handedHandle) return this.#readHanded(this.#row(ino), offset, into, call)
    const file = this.#open.get(fh)
    return file ? this.#context.reader.read(file, offset, into, call) : Errno.EBADF
  }

  /** The kernel had the content and has it no longer. */
  #readHanded(row: number, offset: number, into: Buffer, call: Call<ReadBytes>): Answer<ReadAnswer> {
    if (this.#open.handed.opens[0] === 0) return Errno.EBADF
    const known = this.#handedFile(row)
    // Behind the end there is nothing that could have been given.
    if (known && offset >= known.tree.size(row)) return 0
    this.#open.handed.lost()
    if (known) return this.#context.reader.read(known, offset, into, call)
    const { length } = into
    const answer = call.defer()
    this.#loads.whenChunks((error, tree) => {
      if (error) return answer(error)
      const bytes = Buffer.alloc(length)
      answerLate(answer, () => {
        const late = this.#context.reader.read(this.#fileOf(tree!, row), offset, bytes, { ...call, defer: () => answer })
        return typeof late === 'number' ? bytes.subarray(0, late) : late
      })
    })
    return LATER
  }

  sharedRange(ino: Ino, fh: number, offset: number, length: number): SharedRange | Errno {
    // EOPNOTSUPP makes the kernel copy by itself.
    const file = fh === handedHandle ? this.#handedFile(this.#row(ino)) ?? Errno.EOPNOTSUPP : this.#open.get(fh)
    if (file instanceof Errno) return file
    if (!file) return Errno.EBADF
    const { tree, row, sums } = file
    const end = Math.min(offset + length, tree.size(row), sums[sums.length - 1]!)
    if (offset >= end) return { length: 0, extents: new Extents() }
    return { length: end - offset, extents: extentsOf(tree, row, file.chunkAt(offset), sums[file.chunkAt(offset)]!, offset, end) }
  }

  withLikeness<T>(ino: Ino, call: Call<T>, work: (likeness: Likeness, call: Call<T>) => Answer<T>): Answer<T> {
    const row = this.#row(ino)
    const made = (tree: ArchiveTree, own: Call<T>): Answer<T> => {
      if (!tree.has(row)) return Errno.ESTALE
      if (tree.isDirectory(row)) return Errno.EPERM
      if (tree.isDamaged(row) && !this.#context.view.allowDamagedFiles) return Errno.EIO
      const xattrs = new Map(Array.from(tree.xattrs(row), ([name, value]) => [byteString(name), Buffer.from(value)] as const))
      return work({
        attr: tree.attr(row), target: tree.isSymlink(row) ? Buffer.from(tree.linkTarget(row)) : undefined, xattrs: xattrs.size > 0 ? xattrs : undefined,
        extents: tree.isRegular(row) && tree.size(row) > 0 ? extentsOf(tree, row, 0, 0, 0, tree.size(row)) : undefined,
      }, own)
    }
    this.#loads.used()
    const { tree: known } = this.#loads
    if (known?.hasChunks) return made(known, call)
    const { uid, gid, pid, umask = 0 } = call
    const answer = call.defer()
    this.#loads.whenChunks((error, tree) => answerLate(answer, () => error ?? made(tree!, { uid, gid, pid, umask, defer: () => answer })))
    return LATER
  }

  release(_ino: Ino, fh: number): void {
    if (this.#open.remove(fh)) this.#tellIfUnused()
  }

  #fileOf(tree: ArchiveTree, row: number, shown = this.root + row): OpenFile {
    const ahead = shown === this.root + row ? this.#ahead : undefined
    return new OpenFile(tree, row, shown, this.#sequence, Buffer.from(this.info.name), ahead)
  }

  /** A file that was handed out, unless its tree has to be loaded first. */
  #handedFile(row: number): OpenFile | undefined {
    const { tree: known } = this.#loads
    return this.#open.getLost(row, known?.hasChunks ? known : undefined, tree => this.#fileOf(tree, row))
  }

  /** Archives know no holes: all is data, with the hole that every file has behind its end. */
  lseek(ino: Ino, _fh: number, offset: number, whence: number, call: Call<number>): Answer<number> {
    const row = this.#row(ino)
    return this.#loads.withTree(call, (tree) => {
      const size = tree.has(row) ? tree.size(row) : 0
      if (whence !== seekData && whence !== seekHole) return Errno.EINVAL
      if (offset < 0 || offset >= size) return Errno.ENXIO
      return whence === seekData ? offset : size
    })
  }

  getxattr(ino: Ino, name: Buffer, call: Call<Uint8Array>): Answer<Uint8Array> {
    const row = this.#row(ino)
    const text = name.toString('latin1')
    if (row === 0 && text.startsWith(factPrefix)) {
      const { head } = this.#loads
      const isSize = text === deduplicatedSizeXattr && !this.info.merged
      if (head && !isSize) return archiveFact(text, this.info, head)
      const answer = call.defer()
      if (isSize) this.#loads.whenDeduplicatedSize(size => answer(size instanceof Errno ? size : Buffer.from(String(size))))
      else this.#loads.whenHead((error) => answer(error ?? archiveFact(text, this.info, this.#loads.head!)))
      return LATER
    }
    const kept = this.#loads.tree ? name : Buffer.from(name)
    if (text === chunksXattr) {
      return this.#loads.withChunks(call, tree => (!tree.has(row) ? Errno.ESTALE : tree.isRegular(row) ? chunkLines(tree, row) : Errno.ENODATA))
    }
    return this.#loads.withTree(call, (tree) => {
      if (!tree.has(row)) return Errno.ESTALE
      return tree.xattr(row, kept) ?? Errno.ENODATA
    })
  }

  listxattr(ino: Ino, call: Call<Uint8Array[]>): Answer<Uint8Array[]> {
    const row = this.#row(ino)
    return this.#loads.withTree(call, (tree) => tree.has(row) ? Array.from(tree.xattrs(row), ([name]) => name) : Errno.ESTALE)
  }

  destroy(): void {
    this.dropTree()
    this.#open.clear()
  }

  #row(ino: Ino): number {
    return localOf(ino) - localOf(this.root)
  }

  #lookup(tree: ArchiveTree, parent: number, name: Buffer): Entry | Errno {
    if (!tree.has(parent)) return Errno.ESTALE
    // A handle may be anything: a further name has no inode.
    if (isDot(name) && tree.targetOf(parent) !== parent) return Errno.ESTALE
    const row = isDot(name) ? parent : isDotDot(name) ? tree.parentOf(parent) : tree.lookup(parent, name)
    if (row < 0) return name.length > maxNameBytes ? Errno.ENAMETOOLONG : noEntry
    this.#references[0]!++
    return unchanging(tree.attr(row))
  }

  #show(tree: ArchiveTree): () => void {
    const before = this.#top.attr
    // Somebody was waiting for it when it retired, and the kernel gets names that nobody knew then.
    if (this.#leftovers) this.#leftovers = new KernelLeftovers(tree)
    this.#open.show(tree)
    const { handed } = this.#open
    this.#ahead = { handed, keepsBack: row => this.#open.isOpen(row) || !this.#mayBeOpened(tree, row) }
    this.#context.answers?.show({ tree, above: this.above, ttlMs: unchangingTtlMs, lastUse: this.#loads.lastUse, clock: useClock, handed, references: this.#references })
    return () => {
      const after = tree.attr(0)
      if (before && (before.mode !== after.mode || before.uid !== after.uid || before.gid !== after.gid || before.mtimeNs !== after.mtimeNs)) this.#context.rootChanged(this.root)
      this.#context.treeLoaded(this)
    }
  }

  #hide(tree: ArchiveTree): void {
    this.#context.answers?.hide(tree)
    this.#open.drop(tree)
  }
}

/** No such name, which stays so. */
const noEntry: Entry = {
  attr: { ino: 0, size: 0, blocks: 0, mode: 0, nlink: 0, uid: 0, gid: 0, rdev: 0, atimeNs: 0n, mtimeNs: 0n, ctimeNs: 0n, blksize: 0 },
  entryTtlMs: unchangingTtlMs, attrTtlMs: 0,
}
