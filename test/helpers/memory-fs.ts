/**
 * A complete FsCore in memory, to test transports and what runs above a mount: files with holes, links, xattrs, handles,
 * and inodes that live as long as the kernel or a handle knows them. Some names do something odd on purpose, see `odd`.
 */
import type { Answer, AttrReply, Call, Created, DirSink, FsCore, ReadAnswer } from '../../src/fs/core.js'
import { LATER } from '../../src/fs/core.js'
import { accessAclName, aclAfterChmod, modeOfAcl } from '../../src/fs/incoming/acl.js'
import { type Attr, type AttrChange, type Entry, Errno, type Ino, type Opened, type StatFs } from '../../src/fs/types.js'

const pageSize = 4096
const typeMask = 0o170000, directoryType = 0o040000, fileType = 0o100000, symlinkType = 0o120000
const openTruncate = 0o1000

export interface MemoryNode {
  readonly ino: Ino
  mode: number
  uid: number
  gid: number
  rdev: number
  nlink: number
  size: number
  atimeNs: bigint
  mtimeNs: bigint
  ctimeNs: bigint
  /** Page number -> page. A missing one is a hole. */
  readonly pages: Map<number, Buffer>
  /** Byte string of the name -> child, and the cookie under which it is listed. */
  readonly children: Map<string, { node: MemoryNode; cookie: number }> | undefined
  parent: MemoryNode | undefined
  target: Buffer
  readonly xattrs: Map<string, Buffer>
  /** References of the kernel, and open handles. */
  references: number
  handles: number
}

export interface MemoryFsOptions {
  readonly entryTtlMs?: number
  readonly attrTtlMs?: number
  readonly keepCache?: boolean
  /** Owner of the root. */
  readonly uid?: number
  readonly gid?: number
  /**
   * Names that misbehave: `throws` throws in lookup, `late` answers reads only when `release()` is called, `never` never does,
   * `huge` says it has 2^52 bytes.
   */
  readonly odd?: boolean
  readonly killsPrivileges?: boolean
}

export class MemoryFs implements FsCore {
  readonly killsPrivileges: boolean
  readonly root: MemoryNode
  /** Every operation's name, as often as it was asked. */
  readonly counts: Record<string, number> = {}
  /** Deferred reads of the file `late`. */
  readonly waiting: (() => void)[] = []
  destroyed = false
  readonly #nodes = new Map<Ino, MemoryNode>()
  readonly #options: MemoryFsOptions
  readonly #handles = new Map<number, MemoryNode>()
  #nextIno = 2
  #nextHandle = 1
  #nextCookie = 3

  constructor(options: MemoryFsOptions = {}) {
    this.#options = options
    this.killsPrivileges = options.killsPrivileges ?? true
    this.root = this.#make(directoryType | 0o755, options.uid ?? 0, options.gid ?? 0, 0, 1)
    this.root.nlink = 2
  }

  /** Inodes known; for tests of forget. */
  get nodeCount(): number {
    return this.#nodes.size
  }
  get handleCount(): number {
    return this.#handles.size
  }

  lookup(parent: Ino, name: Buffer, _call: Call<Entry>): Answer<Entry> {
    this.#count('lookup')
    const key = name.toString('latin1')
    if (this.#options.odd && key === 'throws') throw new Error('thrown on purpose')
    if (this.#options.odd && key === 'negative') return { attr: { ...attrOf(this.root), ino: 0 }, entryTtlMs: 1e9, attrTtlMs: 0 }
    const node = this.#directory(parent)?.get(key)?.node
    return node ? this.#entry(node) : Errno.ENOENT
  }

  forget(ino: Ino, count: number): void {
    this.#count('forget')
    const node = this.#nodes.get(ino)
    if (!node) throw new Error(`forget of unknown inode ${ino}`)
    node.references -= count
    if (node.references < 0) throw new Error(`inode ${ino} forgotten too often`)
    this.#drop(node)
  }

  remember(ino: Ino): void {
    this.#node(ino).references++
  }

  getattr(ino: Ino, _fh: number | undefined, _call: Call<AttrReply>): Answer<AttrReply> {
    this.#count('getattr')
    return { attr: attrOf(this.#node(ino)), attrTtlMs: this.#options.attrTtlMs ?? 1000 }
  }

  setattr(ino: Ino, change: AttrChange, call: Call<AttrReply>): Answer<AttrReply> {
    this.#count('setattr')
    const node = this.#node(ino)
    const now = nowNs()
    if (change.size !== undefined) {
      if (node.children) return Errno.EISDIR
      truncate(node, change.size)
      node.mtimeNs = now
      if (call.killSetId) killSetId(node)
      node.xattrs.delete('security.capability')
    }
    if (change.uid !== undefined || change.gid !== undefined) {
      if (!node.children) killSetId(node)
      node.xattrs.delete('security.capability')
    }
    if (change.mode !== undefined) {
      node.mode = (node.mode & typeMask) | (change.mode & 0o7777)
      const acl = node.xattrs.get(accessAclName)
      if (acl) node.xattrs.set(accessAclName, aclAfterChmod(acl, node.mode))
    }
    if (change.uid !== undefined) node.uid = change.uid
    if (change.gid !== undefined) node.gid = change.gid
    if (change.atimeNs !== undefined) node.atimeNs = change.atimeNs === 'now' ? now : change.atimeNs
    if (change.mtimeNs !== undefined) node.mtimeNs = change.mtimeNs === 'now' ? now : change.mtimeNs
    node.ctimeNs = now
    return { attr: attrOf(node), attrTtlMs: this.#options.attrTtlMs ?? 1000 }
  }

  readlink(ino: Ino): Answer<Uint8Array> {
    this.#count('readlink')
    const node = this.#node(ino)
    return (node.mode & typeMask) === symlinkType ? node.target : Errno.EINVAL
  }

  mknod(parent: Ino, name: Buffer, mode: number, rdev: number, call: Call<Entry>): Answer<Entry> {
    return this.#create(parent, name, mode & typeMask ? mode : mode | fileType, rdev, call)
  }

  mkdir(parent: Ino, name: Buffer, mode: number, call: Call<Entry>): Answer<Entry> {
    return this.#create(parent, name, (mode & 0o7777) | directoryType, 0, call)
  }

  symlink(parent: Ino, name: Buffer, target: Buffer, call: Call<Entry>): Answer<Entry> {
    const answer = this.#create(parent, name, symlinkType | 0o777, 0, call)
    if (answer instanceof Errno) return answer
    const node = this.#node(answer.attr.ino)
    node.target = Buffer.from(target)
    node.size = target.length
    return { ...answer, attr: attrOf(node) }
  }

  link(ino: Ino, newParent: Ino, newName: Buffer): Answer<Entry> {
    this.#count('link')
    const node = this.#node(ino)
    const children = this.#directory(newParent)
    if (!children) return Errno.ENOTDIR
    if (node.children) return Errno.EPERM
    const key = newName.toString('latin1')
    if (children.has(key)) return Errno.EEXIST
    children.set(key, { node, cookie: this.#nextCookie++ })
    node.nlink++
    node.ctimeNs = nowNs()
    this.#touch(newParent)
    return this.#entry(node)
  }

  unlink(parent: Ino, name: Buffer): Answer<void> {
    this.#count('unlink')
    const found = this.#child(parent, name)
    if (!found) return Errno.ENOENT
    if (found.children) return Errno.EISDIR
    this.#remove(parent, name, found)
  }

  rmdir(parent: Ino, name: Buffer): Answer<void> {
    this.#count('rmdir')
    const found = this.#child(parent, name)
    if (!found) return Errno.ENOENT
    if (!found.children) return Errno.ENOTDIR
    if (found.children.size > 0) return Errno.ENOTEMPTY
    this.#remove(parent, name, found)
  }

  rename(parent: Ino, name: Buffer, newParent: Ino, newName: Buffer, flags: number): Answer<void> {
    this.#count('rename')
    const from = this.#directory(parent), to = this.#directory(newParent)
    if (!from || !to) return Errno.ENOTDIR
    const oldKey = name.toString('latin1'), newKey = newName.toString('latin1')
    const moved = from.get(oldKey), replaced = to.get(newKey)
    if (!moved) return Errno.ENOENT
    const newParentNode = this.#node(newParent)
    for (let above: MemoryNode | undefined = newParentNode; above; above = above.parent) if (above === moved.node) return Errno.EINVAL
    if (flags & 1 && replaced) return Errno.EEXIST
    if (flags & 2) {
      if (!replaced) return Errno.ENOENT
      from.set(oldKey, { node: replaced.node, cookie: moved.cookie })
      to.set(newKey, { node: moved.node, cookie: replaced.cookie })
      this.#reparent(replaced.node, newParentNode, this.#node(parent))
      this.#reparent(moved.node, this.#node(parent), newParentNode)
    } else {
      if (replaced?.node === moved.node) return
      if (replaced) {
        if (replaced.node.children && !moved.node.children) return Errno.EISDIR
        if (!replaced.node.children && moved.node.children) return Errno.ENOTDIR
        if (replaced.node.children && replaced.node.children.size > 0) return Errno.ENOTEMPTY
        this.#remove(newParent, newName, replaced.node)
      }
      from.delete(oldKey)
      to.set(newKey, { node: moved.node, cookie: this.#nextCookie++ })
      this.#reparent(moved.node, this.#node(parent), newParentNode)
    }
    moved.node.ctimeNs = nowNs()
    this.#touch(parent)
    this.#touch(newParent)
  }

  open(ino: Ino, flags: number, call: Call<Opened>): Answer<Opened> {
    this.#count('open')
    const node = this.#node(ino)
    if (node.children) return Errno.EISDIR
    if (flags & openTruncate) {
      truncate(node, 0)
      node.mtimeNs = node.ctimeNs = nowNs()
      if (call.killSetId) killSetId(node)
    }
    return this.#opened(node)
  }

  create(parent: Ino, name: Buffer, mode: number, _flags: number, call: Call<Created>): Answer<Created> {
    const entry = this.#create(parent, name, (mode & 0o7777) | fileType, 0, call)
    return entry instanceof Errno ? entry : { entry, opened: this.#opened(this.#node(entry.attr.ino)) }
  }

  read(ino: Ino, _fh: number, offset: number, into: Buffer, call: Call<Uint8Array>): Answer<ReadAnswer> {
    this.#count('read')
    const node = this.#node(ino)
    const length = Math.max(0, Math.min(into.length, node.size - offset))
    if (this.#options.odd && node === this.root.children?.get('throws-on-read')?.node) throw new Error('thrown while reading')
    if (this.#options.odd && node === this.root.children?.get('late')?.node) {
      const answer = call.defer()
      const bytes = Buffer.alloc(length)
      readInto(node, offset, bytes)
      this.waiting.push(() => answer(bytes))
      return LATER
    }
    // Both forms of answers are taken: in place, and other memory.
    const page = node.pages.get(offset / pageSize)
    if (length === pageSize && page) return page
    readInto(node, offset, into.subarray(0, length))
    return length
  }

  write(ino: Ino, _fh: number, offset: number, data: Buffer, call: Call<number>): Answer<number> {
    this.#count('write')
    const node = this.#node(ino)
    writeFrom(node, offset, data)
    node.mtimeNs = node.ctimeNs = nowNs()
    node.xattrs.delete('security.capability')
    if (call.killSetId) killSetId(node)
    return data.length
  }

  flush(): Answer<void> {
    this.#count('flush')
  }

  fsync(): Answer<void> {
    this.#count('fsync')
  }

  release(ino: Ino, fh: number): void {
    this.#count('release')
    const node = this.#handles.get(fh)
    if (node?.ino !== ino) throw new Error(`release of handle ${fh}, which inode ${ino} does not have`)
    this.#handles.delete(fh)
    node.handles--
    this.#drop(node)
  }

  fallocate(ino: Ino, _fh: number, mode: number, offset: number, length: number): Answer<void> {
    this.#count('fallocate')
    const node = this.#node(ino)
    if (mode & ~(1 | 2 | 16)) return Errno.EOPNOTSUPP
    if (mode & (2 | 16)) punch(node, offset, Math.min(offset + length, node.size))
    if (!(mode & 1)) node.size = Math.max(node.size, offset + length)
    if (mode === 0 || mode === 1) return
    node.mtimeNs = node.ctimeNs = nowNs()
  }

  lseek(ino: Ino, _fh: number, offset: number, whence: number): Answer<number> {
    this.#count('lseek')
    const node = this.#node(ino)
    if (offset >= node.size) return Errno.ENXIO
    const isData = whence === 3
    for (let page = Math.floor(offset / pageSize); page * pageSize < node.size; page++) {
      if (node.pages.has(page) === isData) return Math.max(offset, page * pageSize)
    }
    return isData ? Errno.ENXIO : node.size
  }

  copyFileRange(ino: Ino, _fh: number, offset: number, outIno: Ino, _outFh: number, outOffset: number, length: number): Answer<number> {
    this.#count('copyFileRange')
    const from = this.#node(ino), to = this.#node(outIno)
    const bytes = Buffer.alloc(Math.max(0, Math.min(length, from.size - offset, 1 << 24)))
    readInto(from, offset, bytes)
    writeFrom(to, outOffset, bytes)
    to.mtimeNs = to.ctimeNs = nowNs()
    return bytes.length
  }

  opendir(ino: Ino): Answer<Opened> {
    this.#count('opendir')
    const node = this.#node(ino)
    return node.children ? this.#opened(node) : Errno.ENOTDIR
  }

  readdir(ino: Ino, _fh: number, cookie: number, sink: DirSink, call: Call<void>): Answer<void> {
    this.#count('readdir')
    const node = this.#node(ino)
    const list = (): void => {
      if (cookie < 1 && !sink(Buffer.from('.'), this.#facts(node), 1)) return
      if (cookie < 2 && !sink(Buffer.from('..'), this.#facts(node.parent ?? node), 2)) return
      for (const [name, child] of node.children!) {
        if (child.cookie > cookie && !sink(Buffer.from(name, 'latin1'), this.#facts(child.node), child.cookie)) return
      }
    }
    if (this.#options.odd && node === this.root.children?.get('late-directory')?.node) {
      const answer = call.defer()
      this.waiting.push(() => {
        list()
        answer(undefined)
      })
      return LATER
    }
    list()
  }

  releasedir(ino: Ino, fh: number): void {
    this.release(ino, fh)
  }

  fsyncdir(): Answer<void> {
    this.#count('fsyncdir')
  }

  getxattr(ino: Ino, name: Buffer): Answer<Uint8Array> {
    this.#count('getxattr')
    return this.#node(ino).xattrs.get(name.toString('latin1')) ?? Errno.ENODATA
  }

  listxattr(ino: Ino): Answer<Uint8Array[]> {
    this.#count('listxattr')
    return [...this.#node(ino).xattrs.keys()].map((name) => Buffer.from(name, 'latin1'))
  }

  setxattr(ino: Ino, name: Buffer, value: Buffer, flags: number): Answer<void> {
    this.#count('setxattr')
    const node = this.#node(ino)
    const key = name.toString('latin1')
    if (flags & 1 && node.xattrs.has(key)) return Errno.EEXIST
    if (flags & 2 && !node.xattrs.has(key)) return Errno.ENODATA
    node.ctimeNs = nowNs()
    if (key === accessAclName) {
      const mode = modeOfAcl(node.mode, value)
      if (mode === undefined) return Errno.EINVAL
      node.mode = mode
      node.xattrs.delete(key)
      // Owner, group and others only: no more than the mode.
      if (value.length <= 28) return
    }
    node.xattrs.set(key, Buffer.from(value))
  }

  removexattr(ino: Ino, name: Buffer): Answer<void> {
    this.#count('removexattr')
    return this.#node(ino).xattrs.delete(name.toString('latin1')) ? undefined : Errno.ENODATA
  }

  statfs(): Answer<StatFs> {
    this.#count('statfs')
    return { blocks: 2 ** 33, bfree: 2 ** 32 + 5, bavail: 2 ** 32, files: 2 ** 34, ffree: 2 ** 33, bsize: 4096, frsize: 4096, namelen: 255 }
  }

  syncfs(): Answer<void> {
    this.#count('syncfs')
  }

  destroy(): void {
    this.destroyed = true
  }

  /** Puts a file there without a transport. */
  add(parent: MemoryNode, name: string | Buffer, content: Buffer, mode = 0o644): MemoryNode {
    const node = this.#make(fileType | mode, 0, 0, 0, this.#nextIno++)
    writeFrom(node, 0, content)
    this.#attach(parent, Buffer.from(name as string), node)
    return node
  }

  addDirectory(parent: MemoryNode, name: string | Buffer): MemoryNode {
    const node = this.#make(directoryType | 0o755, 0, 0, 0, this.#nextIno++)
    node.nlink = 2
    this.#attach(parent, Buffer.from(name as string), node)
    return node
  }

  #attach(parent: MemoryNode, name: Buffer, node: MemoryNode): void {
    node.parent = parent
    parent.children!.set(name.toString('latin1'), { node, cookie: this.#nextCookie++ })
    if (node.children) parent.nlink++
  }

  #make(mode: number, uid: number, gid: number, rdev: number, ino: Ino): MemoryNode {
    const now = nowNs()
    const node: MemoryNode = {
      ino, mode, uid, gid, rdev, nlink: 1, size: 0, atimeNs: now, mtimeNs: now, ctimeNs: now, pages: new Map(),
      children: (mode & typeMask) === directoryType ? new Map() : undefined, parent: undefined, target: Buffer.alloc(0), xattrs: new Map(),
      references: ino === 1 ? 1 : 0, handles: 0,
    }
    this.#nodes.set(ino, node)
    return node
  }

  #create(parent: Ino, name: Buffer, mode: number, rdev: number, call: { uid: number; gid: number }): Entry | Errno {
    this.#count('create')
    const children = this.#directory(parent)
    if (!children) return Errno.ENOTDIR
    if (children.has(name.toString('latin1'))) return Errno.EEXIST
    const node = this.#make(mode, call.uid, call.gid, rdev, this.#nextIno++)
    if (node.children) node.nlink = 2
    if (this.#options.odd && name.toString('latin1') === 'huge') node.size = 2 ** 52
    this.#attach(this.#node(parent), name, node)
    this.#touch(parent)
    return this.#entry(node)
  }

  #remove(parent: Ino, name: Buffer, node: MemoryNode): void {
    this.#directory(parent)!.delete(name.toString('latin1'))
    node.nlink -= node.children ? 2 : 1
    if (node.children) this.#node(parent).nlink--
    node.ctimeNs = nowNs()
    this.#touch(parent)
    this.#drop(node)
  }

  #reparent(node: MemoryNode, from: MemoryNode, to: MemoryNode): void {
    node.parent = to
    if (!node.children) return
    from.nlink--
    to.nlink++
  }

  /** Gone when no name, no handle and no reference of the kernel is left. */
  #drop(node: MemoryNode): void {
    if (node.nlink === 0 && node.references === 0 && node.handles === 0) this.#nodes.delete(node.ino)
  }

  #opened(node: MemoryNode): Opened {
    const fh = this.#nextHandle++
    this.#handles.set(fh, node)
    node.handles++
    return { fh, keepCache: this.#options.keepCache ?? false }
  }

  #touch(directory: Ino): void {
    const node = this.#node(directory)
    node.mtimeNs = node.ctimeNs = nowNs()
  }

  #entry(node: MemoryNode): Entry {
    node.references++
    return this.#facts(node)
  }

  #facts(node: MemoryNode): Entry {
    return { attr: attrOf(node), entryTtlMs: this.#options.entryTtlMs ?? 1000, attrTtlMs: this.#options.attrTtlMs ?? 1000 }
  }

  #node(ino: Ino): MemoryNode {
    const node = this.#nodes.get(ino)
    if (!node) throw new Error(`unknown inode ${ino}`)
    return node
  }

  #directory(ino: Ino): MemoryNode['children'] {
    return this.#node(ino).children
  }

  #child(parent: Ino, name: Buffer): MemoryNode | undefined {
    return this.#directory(parent)?.get(name.toString('latin1'))?.node
  }

  #count(operation: string): void {
    this.counts[operation] = (this.counts[operation] ?? 0) + 1
  }
}

function attrOf(node: MemoryNode): Attr {
  const { ino, size, mode, nlink, uid, gid, rdev, atimeNs, mtimeNs, ctimeNs } = node
  return { ino, size, blocks: (node.pages.size * pageSize) / 512, mode, nlink, uid, gid, rdev, atimeNs, mtimeNs, ctimeNs, blksize: pageSize }
}

function nowNs(): bigint {
  return BigInt(Date.now()) * 1_000_000n
}

/** As the kernel does: set-group-id only where the group may execute. */
function killSetId(node: MemoryNode): void {
  node.mode &= ~0o4000
  if (node.mode & 0o010) node.mode &= ~0o2000
}

function truncate(node: MemoryNode, size: number): void {
  if (size < node.size) punch(node, size, node.size)
  node.size = size
}

function readInto(node: MemoryNode, offset: number, into: Buffer): void {
  for (let done = 0; done < into.length; ) {
    const position = offset + done
    const start = position % pageSize
    const length = Math.min(pageSize - start, into.length - done)
    const page = node.pages.get(Math.floor(position / pageSize))
    if (page) page.copy(into, done, start, start + length)
    else into.fill(0, done, done + length)
    done += length
  }
}

function writeFrom(node: MemoryNode, offset: number, data: Buffer): void {
  for (let done = 0; done < data.length; ) {
    const position = offset + done
    const start = position % pageSize
    const length = Math.min(pageSize - start, data.length - done)
    const number = Math.floor(position / pageSize)
    let page = node.pages.get(number)
    if (!page) node.pages.set(number, (page = Buffer.alloc(pageSize)))
    data.copy(page, start, done, done + length)
    done += length
  }
  node.size = Math.max(node.size, offset + data.length)
}

/** Zeroes [start, end); whole pages become holes. */
function punch(node: MemoryNode, start: number, end: number): void {
  for (const [number, page] of node.pages) {
    const from = number * pageSize
    if (from >= start && from + pageSize <= end) node.pages.delete(number)
    else if (from < end && from + pageSize > start) page.fill(0, Math.max(0, start - from), Math.min(pageSize, end - from))
  }
  // The page in which the file ends keeps no bytes behind the end.
  const last = node.pages.get(Math.floor(start / pageSize))
  if (last && end === node.size) last.fill(0, start % pageSize)
}
