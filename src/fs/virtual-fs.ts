/**
 * The mounted drive: sends each operation to the part that owns the inode. It owns the root itself: archive directories and
 * the other parts by name. Lives in the thread that answers the kernel and is written for it: no operation waits.
 */
import { readFileSync } from 'node:fs'
import { ArchiveFiles } from './archive-files.js'
import { ArchivesDir } from './archives-dir.js'
import { ChunkCache } from './chunk-cache.js'
import {
  type Answer, type AttrReply, type Call, changed, type Created, type DirSink, type FsCore, isDot, isDotDot, type KernelNotices, LATER, type ReadAnswer, type ReadBytes, type TreeAnswers,
} from './core.js'
import { shownText } from '../engine/text.js'
import { isLeftBehind } from './desktop-names.js'
import type { EngineClient } from './engine-client.js'
import type { ArchiveChange, ArchiveInfo, MountView } from './engine-port.js'
import { errnoByCode } from './errno.js'
import { FileReader, type OpenFile } from './file-reader.js'
import { rangeOf, rootIno } from './inodes.js'
import { maxNameBytes } from './incoming/box.js'
import type { Subtree } from './subtree.js'
import { type Attr, type AttrChange, type Entry, Errno, type Ino, type Opened, type StatFs } from './types.js'

export interface VirtualFsOptions {
  readonly view: MountView
  readonly client: EngineClient
  readonly notices: KernelNotices
  readonly answers?: TreeAnswers | undefined
  /** Parts of the root beside the archives: byte string of the name -> subtree. None when a single archive is mounted. */
  readonly parts?: ReadonlyMap<string, Subtree>
  /** Archives can be renamed and commented, and deleted if it says so. */
  readonly changes?: ArchiveChanges | undefined
  /** Called after the parts' own. */
  readonly tick?: () => void
}
export interface ArchiveChanges {
  /** `-o allow_delete`. */
  readonly allowDelete: boolean
}

/** Names in the root can come and go; the kernel asks again after so long. */
const rootEntryTtlMs = 1000
const statfsKeepMs = 1000
const pageSize = 4096
/** Cookies of the root: 1 `.`, 2 `..`, then parts, then archives by range. Parts are fewer than inodeRange.firstArchive - 3. */
const firstPartCookie = 3

export class VirtualFs implements FsCore {
  readonly cache: ChunkCache
  readonly #view: MountView
  readonly #client: EngineClient
  readonly #notices: KernelNotices
  readonly #parts: ReadonlyMap<string, Subtree>
  readonly #partByRange = new Map<number, Subtree>()
  readonly #writable: readonly Subtree[]
  /** The single archive's files, which are then the root. */
  readonly #single: ArchiveFiles | undefined
  readonly #archives: ArchivesDir
  readonly #changes: ArchiveChanges | undefined
  readonly #tick: (() => void) | undefined
  #rootTimeNs: bigint
  #statfs: { readonly value: StatFs; readonly untilMs: number } | undefined
  #memory: { readonly available: number; readonly untilMs: number } | undefined

  constructor({ view, client, notices, answers, parts, changes, tick }: VirtualFsOptions) {
    this.#view = view
    this.#tick = tick
    this.#changes = changes
    this.#client = client
    this.#notices = notices
    this.#parts = parts ?? new Map()
    this.#rootTimeNs = view.mountTimeNs
    for (const part of this.#parts.values()) this.#partByRange.set(part.range, part)
    this.#writable = [...this.#parts.values()].filter((part) => part.write)
    this.cache = new ChunkCache(view.cacheBytes, (request, done) => client.request(request, done))
    const reader = new FileReader(this.cache, client, {
      offer: (file, offset, data) => this.#offerToKernel(file, offset, data),
      ...(notices.storeNow && { fill: (ino: Ino, pieces: readonly Uint8Array[], length: number) => notices.storeNow!(ino, pieces, length) }),
    })
    const context = { client, reader, view, answers, rootChanged: (ino: Ino) => notices.invalidateInode(ino) }
    this.#archives = new ArchivesDir(context, new Set(this.#parts.keys()), client)
    if (view.kind === 'archive') {
      this.#single = new ArchiveFiles(view.archives[0]!, rootIno, rootIno, { ...context, treeLoaded() {}, unused() {} })
    } else {
      this.#archives.replace(view.archives)
      this.#tellParts()
      client.onArchives = (archives) => this.#replaceArchives(archives)
    }
    client.request({ kind: 'start', slab: this.cache.slab }, () => {})
  }

  /** Archives are never written, so it is the other parts that decide. */
  get killsPrivileges(): boolean {
    return [...this.#parts.values()].every((part) => !part.write || part.killsPrivileges === true)
  }

  get isBehind(): boolean {
    for (const part of this.#writable) if (part.isBehind) return true
    return false
  }

  lend(): void {
    for (const part of this.#writable) part.lend?.()
  }

  takeBack(): void {
    for (const part of this.#writable) part.takeBack?.()
  }

  /** Nothing is made outside of the parts, and they do. */
  readonly appliesUmask = true

  /** See ArchivesDir. */
  get counts(): { readonly archives: number; readonly openFiles: number } {
    return this.#archives.counts
  }

  /** For the loop: every now and then, and after messages of the engine. */
  tick(nowMs: number): void {
    for (const part of this.#parts.values()) part.tick?.(nowMs)
    this.#tick?.()
    this.#archives.tick(this.#notices, nowMs)
  }

  lookup(parent: Ino, name: Buffer, call: Call<Entry>): Answer<Entry> {
    const owner = this.#owner(parent)
    if (owner) {
      if (parent === owner.root && parent !== rootIno && isDotDot(name)) return this.lookup(owner.above ?? rootIno, dot, call)
      return owner.lookup(parent, name, call)
    }
    if (parent !== rootIno) return Errno.ESTALE
    if (isDot(name) || isDotDot(name)) return { attr: this.#rootAttr(), entryTtlMs: 0, attrTtlMs: rootEntryTtlMs }
    const part = this.#parts.get(name.toString('latin1'))
    if (part) return part.rootEntry()
    const archive = this.#archives.byName(name)
    if (!archive) return name.length > maxNameBytes ? Errno.ENAMETOOLONG : Errno.ENOENT
    return changed(call, forAWhile, later => archive.resolveRoot(later))
  }

  forget(ino: Ino, count: number): void {
    this.#owner(ino)?.forget?.(ino, count)
  }

  remember(ino: Ino): void {
    this.#owner(ino)?.remember?.(ino)
  }

  getattr(ino: Ino, fh: number | undefined, call: Call<AttrReply>): Answer<AttrReply> {
    const owner = this.#owner(ino)
    if (owner) return owner.getattr(ino, fh, call)
    return ino === rootIno ? { attr: this.#rootAttr(), attrTtlMs: rootEntryTtlMs } : Errno.ESTALE
  }

  setattr(ino: Ino, change: AttrChange, call: Call<AttrReply>): Answer<AttrReply> {
    const owner = this.#owner(ino)
    return owner?.setattr ? owner.setattr(ino, change, call) : Errno.EROFS
  }

  readlink(ino: Ino, call: Call<Uint8Array>): Answer<Uint8Array> {
    const owner = this.#owner(ino)
    return owner?.readlink ? owner.readlink(ino, call) : Errno.EINVAL
  }

  mknod(parent: Ino, name: Buffer, mode: number, rdev: number, call: Call<Entry>): Answer<Entry> {
    const owner = this.#owner(parent)
    return owner?.mknod ? owner.mknod(parent, name, mode, rdev, call) : Errno.EROFS
  }

  mkdir(parent: Ino, name: Buffer, mode: number, call: Call<Entry>): Answer<Entry> {
    const owner = this.#owner(parent)
    if (owner?.mkdir) return owner.mkdir(parent, name, mode, call)
    return this.#isRoot(parent) && isLeftBehind(name.toString('latin1')) ? Errno.EPERM : Errno.EROFS
  }

  symlink(parent: Ino, name: Buffer, target: Buffer, call: Call<Entry>): Answer<Entry> {
    const owner = this.#owner(parent)
    return owner?.symlink ? owner.symlink(parent, name, target, call) : Errno.EROFS
  }

  link(ino: Ino, newParent: Ino, newName: Buffer, call: Call<Entry>): Answer<Entry> {
    const owner = this.#owner(newParent)
    if (!owner?.link) return Errno.EROFS
    const source = this.#owner(ino)
    if (source === owner) return owner.link(ino, newParent, newName, call)
    if (!source?.withLikeness || !owner.addLikeness) return Errno.EXDEV
    // The name is borrowed, and the source may have to be loaded first.
    const name = Buffer.from(newName)
    const add = (asking: Call<Entry>): Answer<Entry> => source.withLikeness!(ino, asking, (likeness, later) => owner.addLikeness!(likeness, newParent, name, later))
    return owner.beforeLikeness ? owner.beforeLikeness(call, add) : add(call)
  }

  unlink(parent: Ino, name: Buffer, call: Call<void>): Answer<void> {
    const owner = this.#owner(parent)
    return owner?.unlink ? owner.unlink(parent, name, call) : Errno.EROFS
  }

  rmdir(parent: Ino, name: Buffer, call: Call<void>): Answer<void> {
    const owner = this.#owner(parent)
    if (owner?.rmdir) return owner.rmdir(parent, name, call)
    if (!this.#isRoot(parent)) return Errno.EROFS
    const archive = this.#archives.byName(name)
    if (!archive) return this.#parts.has(name.toString('latin1')) ? Errno.EPERM : Errno.ENOENT
    return this.#changes?.allowDelete ? this.#change(archive, { kind: 'delete', needed: Buffer.concat(Array.from(this.#parts.values(), (part) => part.neededIds?.() ?? noBytes)) }, call) : Errno.EPERM
  }

  rename(parent: Ino, name: Buffer, newParent: Ino, newName: Buffer, flags: number, call: Call<void>): Answer<void> {
    const owner = this.#owner(parent)
    const newOwner = this.#owner(newParent)
    if (owner && owner === newOwner) return owner.rename ? owner.rename(parent, name, newParent, newName, flags, call) : Errno.EROFS
    if (this.#isRoot(parent) && this.#isRoot(newParent)) return this.#renameArchive(name, newName, flags, call)
    if (owner?.renameToRoot && this.#isRoot(newParent)) {
      if (this.#parts.has(newName.toString('latin1')) || this.#archives.byName(newName)) return Errno.EEXIST
      return owner.renameToRoot(parent, name, newName, flags, call)
    }
    // At once, where one end cannot change: EXDEV makes programs copy everything first, and then fail to remove it.
    return owner?.rename && newOwner?.rename ? Errno.EXDEV : Errno.EROFS
  }

  open(ino: Ino, flags: number, call: Call<Opened>): Answer<Opened> {
    const owner = this.#owner(ino)
    return owner?.open ? owner.open(ino, flags, call) : Errno.EISDIR
  }

  create(parent: Ino, name: Buffer, mode: number, flags: number, call: Call<Created>): Answer<Created> {
    const owner = this.#owner(parent)
    return owner?.create ? owner.create(parent, name, mode, flags, call) : Errno.EROFS
  }

  read(ino: Ino, fh: number, offset: number, into: Buffer, call: Call<ReadBytes>): Answer<ReadAnswer> {
    const owner = this.#owner(ino)
    return owner?.read ? owner.read(ino, fh, offset, into, call) : Errno.EBADF
  }

  write(ino: Ino, fh: number, offset: number, data: Buffer, call: Call<number>): Answer<number> {
    const owner = this.#owner(ino)
    return owner?.write ? owner.write(ino, fh, offset, data, call) : Errno.EROFS
  }

  flush(ino: Ino, fh: number, call: Call<void>): Answer<void> {
    return this.#owner(ino)?.flush?.(ino, fh, call)
  }

  fsync(ino: Ino, fh: number, dataOnly: boolean, call: Call<void>): Answer<void> {
    return this.#owner(ino)?.fsync?.(ino, fh, dataOnly, call)
  }

  release(ino: Ino, fh: number): void {
    this.#owner(ino)?.release?.(ino, fh)
  }

  fallocate(ino: Ino, fh: number, mode: number, offset: number, length: number, call: Call<void>): Answer<void> {
    const owner = this.#owner(ino)
    return owner?.fallocate ? owner.fallocate(ino, fh, mode, offset, length, call) : Errno.EROFS
  }

  lseek(ino: Ino, fh: number, offset: number, whence: number, call: Call<number>): Answer<number> {
    const owner = this.#owner(ino)
    return owner?.lseek ? owner.lseek(ino, fh, offset, whence, call) : Errno.ENOSYS
  }

  copyFileRange(ino: Ino, fh: number, offset: number, outIno: Ino, outFh: number, outOffset: number, length: number,
    call: Call<number>): Answer<number> {
    const source = this.#owner(ino), owner = this.#owner(outIno)
    // EOPNOTSUPP makes the kernel copy by itself.
    if (!source?.sharedRange || !owner?.cloneInto) return Errno.EOPNOTSUPP
    const range = source.sharedRange(ino, fh, offset, length)
    return range instanceof Errno ? range : range.length === 0 ? 0 : owner.cloneInto(outIno, outFh, outOffset, range, call)
  }

  opendir(ino: Ino, call: Call<Opened>): Answer<Opened> {
    const owner = this.#owner(ino)
    if (owner) return owner.opendir ? owner.opendir(ino, call) : { fh: 0 }
    return ino === rootIno ? { fh: 0 } : Errno.ESTALE
  }

  readdir(ino: Ino, fh: number, cookie: number, sink: DirSink, call: Call<void>): Answer<void> {
    const owner = this.#owner(ino)
    if (owner) return owner.readdir(ino, fh, cookie, sink, call)
    if (ino !== rootIno) return Errno.ESTALE
    return this.#listRoot(cookie, sink)
  }

  releasedir(ino: Ino, fh: number): void {
    this.#owner(ino)?.releasedir?.(ino, fh)
  }

  fsyncdir(ino: Ino, fh: number, call: Call<void>): Answer<void> {
    return this.#owner(ino)?.fsyncdir?.(ino, fh, call)
  }

  getxattr(ino: Ino, name: Buffer, call: Call<Uint8Array>): Answer<Uint8Array> {
    // For `borgfs umount`, which waits until the serving process has finished.
    if (ino === rootIno && name.equals(pidXattr)) return Buffer.from(String(process.pid))
    const owner = this.#owner(ino)
    return owner?.getxattr ? owner.getxattr(ino, name, call) : Errno.ENODATA
  }

  listxattr(ino: Ino, call: Call<Uint8Array[]>): Answer<Uint8Array[]> {
    const owner = this.#owner(ino)
    return owner?.listxattr ? owner.listxattr(ino, call) : []
  }

  setxattr(ino: Ino, name: Buffer, value: Buffer, flags: number, call: Call<void>): Answer<void> {
    const owner = this.#owner(ino)
    if (name.equals(commentXattr)) return this.#setComment(ino, Buffer.from(value), call)
    return owner?.setxattr ? owner.setxattr(ino, name, value, flags, call) : Errno.EROFS
  }

  removexattr(ino: Ino, name: Buffer, call: Call<void>): Answer<void> {
    const owner = this.#owner(ino)
    if (name.equals(commentXattr)) return this.#setComment(ino, Buffer.alloc(0), call)
    return owner?.removexattr ? owner.removexattr(ino, name, call) : Errno.EROFS
  }

  /** The staging area's figures where something can be written, else those of the disk that holds the repository. */
  statfs(ino: Ino, call: Call<StatFs>): Answer<StatFs> {
    const owner = this.#owner(ino)
    if (owner?.statfs) return owner.statfs(ino, call)
    const nowMs = performance.now()
    if (this.#statfs && nowMs < this.#statfs.untilMs) return this.#statfs.value
    const answer = call.defer()
    this.#client.request({ kind: 'statfs' }, (error, value) => {
      if (error) return answer(errnoByCode(error.code))
      this.#statfs = { value, untilMs: performance.now() + statfsKeepMs }
      answer(value)
    })
    return LATER
  }

  syncfs(call: Call<void>): Answer<void> {
    const parts = [...this.#parts.values()].filter((part) => part.syncfs)
    if (parts.length === 0) return undefined
    const answer = call.defer()
    const { uid, gid, pid } = call
    let left = parts.length, failed: Errno | undefined
    const settled = (result: void | Errno): void => {
      if (result instanceof Errno) failed = result
      if (--left === 0) answer(failed)
    }
    for (const part of parts) {
      const done = part.syncfs!({ uid, gid, pid, defer: () => settled })
      if (done !== LATER) settled(done)
    }
    return LATER
  }

  unserved(): void {
    for (const part of this.#parts.values()) part.releaseAll?.()
  }

  destroy(): void {
    for (const part of this.#parts.values()) part.destroy?.()
    this.#single?.destroy()
    for (const { files } of this.#archives.archives) files.destroy()
  }

  /** Undefined for the root of a repository mount, and for inodes of nobody. */
  #owner(ino: Ino): Subtree | undefined {
    const range = rangeOf(ino)
    if (range === 0) return this.#single
    return this.#partByRange.get(range) ?? this.#archives.byRange(range) ?? this.#archives.aliasByRange(range)
  }

  #isRoot(ino: Ino): boolean {
    return ino === rootIno && !this.#single
  }

  #rootAttr(): Attr {
    const { uid, gid, umask } = this.#view
    const timeNs = this.#rootTimeNs
    return {
      ino: rootIno, size: 0, blocks: 0, mode: 0o040000 | (0o755 & ~umask), nlink: 1, uid, gid, rdev: 0,
      atimeNs: timeNs, mtimeNs: timeNs, ctimeNs: timeNs, blksize: 512,
    }
  }

  #listRoot(cookie: number, sink: DirSink): void {
    const self: Entry = { attr: this.#rootAttr(), entryTtlMs: 0, attrTtlMs: 0 }
    if (cookie < 1 && !sink(dot, self, 1)) return
    if (cookie < 2 && !sink(dotDot, self, 2)) return
    let next = firstPartCookie
    for (const [name, part] of this.#parts) {
      if (next > cookie && !sink(Buffer.from(name, 'latin1'), part.rootEntry(), next)) return
      next++
    }
    for (const { name, files } of this.#archives.archives) {
      if (files.range > cookie && !sink(name, forAWhile(files.rootEntry()), files.range)) return
    }
  }

  #replaceArchives(archives: readonly ArchiveInfo[]): void {
    const names = this.#archives.replace(archives)
    if (names.length === 0) return
    this.#tellParts()
    this.#rootTimeNs = BigInt(Date.now()) * 1_000_000n
    // Also for new names: a rename to the root left the kernel with the staged directory under that name.
    for (const name of names) this.#notices.invalidateEntry(rootIno, name)
    this.#notices.invalidateInode(rootIno)
  }

  /** `mv MNT/OLD MNT/NEW`. */
  #renameArchive(name: Buffer, newName: Buffer, flags: number, call: Call<void>): Answer<void> {
    if (!this.#changes) return Errno.EROFS
    if (this.#parts.has(name.toString('latin1'))) return Errno.EPERM
    const archive = this.#archives.byName(name)
    if (!archive) return Errno.ENOENT
    if (flags & renameExchange) return Errno.EINVAL
    if (name.equals(newName)) return undefined
    if (this.#parts.has(newName.toString('latin1')) || this.#archives.byName(newName)) return Errno.EEXIST
    if (isLeftBehind(newName.toString('latin1'))) return Errno.EPERM
    return this.#change(archive, { kind: 'rename', name: Buffer.from(newName) }, call)
  }

  #setComment(ino: Ino, comment: Buffer, call: Call<void>): Answer<void> {
    const archive = this.#single ?? this.#archives.byRange(rangeOf(ino))
    if (!archive || archive.root !== ino) return archive ? Errno.EROFS : Errno.EPERM
    if (archive.info.merged) return Errno.EROFS
    return this.#changes ? this.#change(archive, { kind: 'comment', comment }, call) : Errno.EROFS
  }

  #change(archive: ArchiveFiles, change: ArchiveChange, call: Call<void>): Answer<void> {
    const answer = call.defer()
    this.#client.request({ kind: 'change-archive', archive: archive.info.id, change }, (error, reply) => {
      if (error) {
        this.#client.write('warning', 'borg.fuse', `Archive ${shownText(archive.info.name)} was not changed: ${error.message}`)
        return answer(errnoByCode(error.code))
      }
      if (reply.archive) archive.become(reply.archive)
      answer(undefined)
      // Afterwards: a notice may wait for what the kernel holds until it has the answer.
      if (reply.archives) this.#replaceArchives(reply.archives)
    })
    return LATER
  }

  #tellParts(): void {
    for (const part of this.#parts.values()) part.archivesChanged?.(this.#archives)
  }

  /**
   * Reads that jump about decode a whole chunk for a few bytes each; what was decoded goes into the page cache, where the
   * kernel finds it without asking. Only for files that fit in half of what memory is free: beyond that, pages would
   * push each other out and the copy would be for nothing. Only whole pages count for the kernel.
   */
  #offerToKernel(file: OpenFile, offset: number, data: Buffer): void {
    if (file.tree.size(file.row) > this.#availableMemory() / 2) return
    const skip = (pageSize - (offset % pageSize)) % pageSize
    const atEnd = offset + data.length >= file.tree.size(file.row)
    const end = atEnd ? data.length : data.length - ((offset + data.length) % pageSize)
    if (end > skip) this.#notices.store(file.ino, offset + skip, data.subarray(skip, end))
  }

  /** Bytes that could be had without swapping; 0 where the system does not say. */
  #availableMemory(): number {
    const nowMs = performance.now()
    if (!this.#memory || nowMs >= this.#memory.untilMs) {
      let kib = 0
      try {
        kib = Number(/^MemAvailable:\s+(\d+)/m.exec(readFileSync('/proc/meminfo', 'latin1'))?.[1] ?? 0)
      } catch {
        // No /proc: nothing is offered.
      }
      this.#memory = { available: kib * 1024, untilMs: nowMs + 1000 }
    }
    return this.#memory.available
  }
}

const noBytes = new Uint8Array(0)
const commentXattr = Buffer.from('user.borgfs.archive.comment')
const renameExchange = 2
const pidXattr = Buffer.from('user.borgfs.pid')
const dot = Buffer.from('.'), dotDot = Buffer.from('..')

/** The archive's attributes stay, its name in the root may not. */
function forAWhile(entry: Entry): Entry {
  return { ...entry, entryTtlMs: Math.min(entry.entryTtlMs || rootEntryTtlMs, rootEntryTtlMs) }
}
