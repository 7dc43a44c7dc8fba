/**
 * MNT/incoming: the drop box. A full POSIX tree in the thread that answers the kernel; what is copied in becomes archives by
 * trees.ts. While a tree is being committed, operations that would change it wait until that is over.
 */
import { idBytes } from '../../engine/constants.js'
import { byteString, bytesOf } from '../../engine/text.js'
import { type Answer, type AttrReply, type Call, type Created, type DirSink, isDot, isDotDot, type KernelNotices, LATER, type ReadAnswer, type ReadBytes } from '../core.js'
import type { ChunkCache } from '../chunk-cache.js'
import { isLeftBehind } from '../desktop-names.js'
import type { EngineClient } from '../engine-client.js'
import { errnoByCode } from '../errno.js'
import { inodeRange, inoOf, localOf, rootIno } from '../inodes.js'
import { SequentialRead } from '../read-ahead.js'
import type { Likeness, SharedRange, Subtree } from '../subtree.js'
import { type Attr, type AttrChange, type Entry, Errno, type Ino, type Opened, type StatFs } from '../types.js'
import { Contents, hostErrno, tidyUp } from './contents.js'
import { Cuts } from './cuts.js'
import { Durability } from './durability.js'
import { accessAclName, aclAfterChmod, defaultAclName, inheritAcl, modeOfAcl } from './acl.js'
import { changeRoomBytes, removalRoomBytes } from './journal.js'
import { isDirectory, isFile, type NodeFacts, type Nodes, rootId, type StagedNode, typeDirectory, typeFile, typeMask, typeSymlink } from './nodes.js'
import { describe, type PolicyOptions, type StagedTree } from './policy.js'
import type { WireError } from '../engine-port.js'
import type { ShownArchive } from '../archives-dir.js'
import { LiveSeries } from './live-series.js'
import { ExtentReader } from './extent-reader.js'
import { capabilityXattr, setIdBits, withoutSetId } from './set-id.js'
import { refusedXattrName } from './xattr-names.js'
import { Staging, type StagingOptions } from './staging.js'
import { type TreeListener, Trees } from './trees.js'

export interface IncomingOptions extends StagingOptions, PolicyOptions {
  /** live: series to open at once. Byte strings. */
  readonly open?: readonly string[]
}

const ttlMs = 3_600_000
const writeFlags = 3, writeOnly = 1, truncateFlag = 0o1000
const setGroupBit = 0o2000
const noReplace = 1, exchange = 2
const xattrCreate = 1, xattrReplace = 2
/** State of a tree; why the last commit that was asked for was refused; what asks for one. On incoming/ itself: the loose files. */
const stateXattr = 'user.borgfs.state', problemXattr = 'user.borgfs.problem', commitXattr = 'user.borgfs.commit'
/** Value of commitXattr on incoming/ that means the loose files only, not all trees. */
const onlyLoose = 'loose'
const maxNameBytes = 255, maxXattrBytes = 65536

interface Handle {
  readonly sequence: SequentialRead
  readonly node: StagedNode
  readonly writes: boolean
  /** Writes come past the kernel's pages. */
  readonly direct: boolean
  readonly tree: StagedTree | undefined
}

export class Incoming implements Subtree {
  readonly range: number
  readonly root: Ino
  readonly killsPrivileges = true
  readonly trees: Trees
  readonly #staging: Staging
  readonly #nodes: Nodes
  readonly #client: EngineClient
  readonly #notices: KernelNotices
  /** What makes this live/ instead of incoming/. */
  readonly #live: LiveSeries | undefined
  readonly #contents: Contents
  readonly #cuts: Cuts
  readonly #durability: Durability
  readonly #handles = new Map<number, Handle>()
  /** By tree: files of archives that were linked into it, and what they became. */
  readonly #links = new WeakMap<StagedTree, Map<Ino, { readonly id: number; readonly ctimeNs: bigint }>>()
  /** Trees that are about to become archives by a rename: the kernel must not keep the names that it has of them. */
  readonly #passing = new Set<number>()
  /** Listings as they were when the reader began. */
  readonly #listings = new Map<number, { names: [string, number][] }>()
  #nextHandle = 1

  /** `chunks`: asked for only when the mount is served. */
  constructor(options: IncomingOptions, client: EngineClient, notices: KernelNotices, listener: TreeListener, chunks: () => ChunkCache) {
    this.range = options.place === 'live' ? inodeRange.live : inodeRange.incoming
    this.root = inoOf(this.range, rootId)
    this.#staging = new Staging(options)
    this.#cuts = new Cuts(this.#staging, client, node => this.trees.isFrozen(this.#treeOf(node)))
    this.#contents = new Contents(this.#staging, new ExtentReader(chunks, client), this.#cuts)
    this.#durability = new Durability(this.#staging, this.#contents, client)
    this.#nodes = this.#staging.nodes
    this.#client = client
    this.#notices = notices
    this.trees = new Trees(options.place, this.#staging, client, { settleMs: options.settleMs, lingerMs: options.place === 'live' ? Infinity : options.lingerMs }, {
      state: (tree, text) => listener.state(tree, text),
      committed: tree => this.#live?.committed(tree),
    }, tree => this.#leave(tree), (tree, work) => this.#cuts.whenIdle(node => this.#treeOf(node) === tree, work), (tree, work) => (this.#live ? this.#live.prepare(tree, work) : work(undefined)))
    if (this.#staging.lostRecords > 0) client.write('warning', 'borg.fuse', `${this.#staging.lostRecords} records of the staging journal were damaged; what they described is missing from ${options.place}/.`)
    if (options.place !== 'live') return
    this.#live = new LiveSeries(this.#staging, this.trees, client, {
      entry: node => this.#entry(node),
      makeDirectory: (name, mode, call) => this.#makeDirectory(this.root, bytesOf(name), mode, call),
      refuses: name => name.length > maxNameBytes || isLeftBehind(name),
      drop: tree => this.#dropTree(tree),
      touch: () => this.#touch(this.#nodes.get(rootId)!, nowNs()),
      isInUse: tree => [...this.#handles.values()].some(handle => handle.tree === tree),
    }, options.open ?? [])
  }

  /** Files and directories, with those that are only open; open files. */
  get counts(): { readonly nodes: number; readonly openFiles: number } {
    return { nodes: this.#nodes.count, openFiles: this.#handles.size }
  }

  rootEntry(): Entry {
    return this.#entry(this.#nodes.get(rootId)!)
  }

  tick(nowMs: number): void {
    this.#durability.tick(nowMs)
    this.#live?.tick()
    this.#evict()
    this.#cuts.tick(nowMs)
    this.trees.tick(nowMs)
  }

  /** Answers of the cutter are awaited: what it put into the stash is not known here yet. */
  get isCutting(): boolean {
    return this.#cuts.busy
  }

  /** Packed ids of the chunks that files here may need from the stash. */
  stashedIds(): Uint8Array {
    return idsOf(this.#nodes.all())
  }

  set stashBytes(bytes: number) {
    this.#staging.stashBytes = bytes
  }

  archivesChanged(archives: Iterable<ShownArchive>): void {
    if (this.#live) this.#live.archives = archives
  }

  destroy(): void {
    // What is an archive need not linger for anybody.
    tidyUp(this.#client, () => {
      for (const tree of [...this.trees.all()]) if (!this.#live && tree.state.kind === 'committed') this.#dropTree(tree)
    })
    this.#staging.close()
  }

  // --- names ---

  lookup(parent: Ino, name: Buffer, call: Call<Entry>): Answer<Entry> {
    const directory = localOf(parent)
    if (isDot(name) || isDotDot(name)) {
      const above = isDot(name) ? directory : this.#nodes.parentOf(directory)
      return this.#entryOf(directory) && above !== undefined ? this.#entryOf(above) ?? this.#entryOf(directory)! : Errno.ESTALE
    }
    const key = byteString(name)
    const look = (): Answer<Entry> => {
      const id = this.#nodes.childId(directory, key)
      const entry = id === undefined ? undefined : this.#entryOf(id)
      if (entry) return entry
      return this.#nodes.isDirectory(directory) ? Errno.ENOENT : this.#attrOf(directory) ? Errno.ENOTDIR : Errno.ESTALE
    }
    return directory === rootId && this.#live ? this.#live.whenOpen(key, call, look) : look()
  }

  getattr(ino: Ino): Answer<AttrReply> {
    const attr = this.#attrOf(localOf(ino))
    return attr ? { attr, attrTtlMs: ttlMs } : Errno.ESTALE
  }

  readlink(ino: Ino): Answer<Uint8Array> {
    const found = this.#nodes.virtual(localOf(ino))
    if (found) return found.base.tree.isSymlink(found.row) ? found.base.tree.linkTarget(found.row) : Errno.EINVAL
    return this.#node(ino)?.target ?? Errno.EINVAL
  }

  mknod(parent: Ino, name: Buffer, mode: number, rdev: number, call: Call<Entry>): Answer<Entry> {
    return this.#make(parent, name, call, () => ({ mode, rdev, target: undefined }), node => this.#entry(node))
  }

  mkdir(parent: Ino, name: Buffer, mode: number, call: Call<Entry>): Answer<Entry> {
    const live = parent === this.root ? this.#live : undefined
    if (!live) return this.#makeDirectory(parent, name, mode, call)
    const series = byteString(name)
    return live.whenOpen(series, call, later => live.open(series, mode, later))
  }

  #makeDirectory(parent: Ino, name: Buffer, mode: number, call: Call<Entry>): Answer<Entry> {
    return this.#make(parent, name, call, () => ({ mode: (mode & 0o7777) | typeDirectory, rdev: 0, target: undefined }), node => this.#entry(node))
  }

  symlink(parent: Ino, name: Buffer, target: Buffer, call: Call<Entry>): Answer<Entry> {
    const kept = Buffer.from(target)
    return this.#make(parent, name, call, () => ({ mode: typeSymlink | 0o777, rdev: 0, target: kept }), node => this.#entry(node))
  }

  create(parent: Ino, name: Buffer, mode: number, flags: number, call: Call<Created>): Answer<Created> {
    return this.#make(parent, name, call, () => ({ mode: (mode & 0o7777) | typeFile, rdev: 0, target: undefined }), node => ({ entry: this.#entry(node), opened: this.#openNode(node, flags, (flags & writeFlags) === writeOnly) }))
  }

  #make<T>(parent: Ino, name: Buffer, call: Call<T>, facts: () => Pick<NodeFacts, 'mode' | 'rdev' | 'target'>, answer: (node: StagedNode) => T | Errno): Answer<T> {
    const directory = this.#node(parent)
    if (!directory) return Errno.ESTALE
    if (!directory.children) return Errno.ENOTDIR
    const key = byteString(name)
    if (name.length > maxNameBytes) return Errno.ENAMETOOLONG
    if (parent === this.root && isLeftBehind(key)) return Errno.EPERM
    // Directly in live/ there are series.
    if (this.#live && parent === this.root && (facts().mode & typeMask) !== typeDirectory) return Errno.EPERM
    const { uid, gid, umask = 0 } = call
    const tree = this.#treeOfName(directory, key, (facts().mode & typeMask) === typeDirectory)
    return this.#altering(tree, call, () => {
      if (this.#nodes.childId(directory.id, key) !== undefined) return Errno.EEXIST
      if (directory.nlink === 0) return Errno.ENOENT
      this.#staging.adopt(directory)
      const now = nowNs()
      const setGroup = (directory.mode & setGroupBit) !== 0
      const { mode: wanted, rdev, target } = facts()
      const mode = target || directory.xattrs?.has(defaultAclName) ? wanted : wanted & ~umask
      const node = this.#nodes.add(directory, key, {
        mode: setGroup && (mode & typeMask) === typeDirectory ? mode | setGroupBit : mode, rdev, target, uid, gid: setGroup ? directory.gid : gid,
        atimeNs: now, mtimeNs: now, ctimeNs: now,
      })
      inheritAcl(directory, node)
      this.#staging.journal.created(node, directory.id, key)
      for (const [attribute, value] of node.xattrs ?? []) this.#staging.journal.xattr(node.id, attribute, value)
      this.#touch(directory, now)
      return answer(node)
    })
  }

  link(ino: Ino, newParent: Ino, newName: Buffer, call: Call<Entry>): Answer<Entry> {
    const [node, directory] = [this.#node(ino), this.#node(newParent)]
    if (!node || !directory?.children) return Errno.ESTALE
    const key = byteString(newName)
    if (newName.length > maxNameBytes) return Errno.ENAMETOOLONG
    if (this.#live && newParent === this.root) return Errno.EPERM
    return this.#altering(this.#treeOfName(directory, key, false), call, () => {
      if (node.children) return Errno.EPERM
      if (node.nlink === 0) return Errno.ENOENT
      if (this.#nodes.childId(directory.id, key) !== undefined) return Errno.EEXIST
      this.#staging.adopt(directory)
      this.#staging.adopt(node)
      this.#nodes.link(node, directory, key)
      node.ctimeNs = nowNs()
      this.#staging.journal.linked(node.id, directory.id, key)
      this.#touch(directory, node.ctimeNs)
      return this.#entry(node)
    })
  }

  /** `link` from an archive: a file of its own that is the same in all but its contents' place. */
  addLikeness(likeness: Likeness, parent: Ino, name: Buffer, call: Call<Entry>): Answer<Entry> {
    const { attr, target, xattrs, extents } = likeness
    const linked = this.#linkedBefore(likeness, parent, name, call)
    if (linked !== undefined) return linked
    return this.#make(parent, name, call, () => ({ mode: attr.mode, rdev: attr.rdev, target }), node => {
      const { uid, gid, atimeNs, mtimeNs } = attr
      Object.assign(node, { mode: attr.mode, uid, gid, atimeNs, mtimeNs, ctimeNs: nowNs() })
      // Not what the directory's default ACL says of new files.
      for (const known of node.xattrs?.keys() ?? []) this.#setXattr(node, known, undefined)
      for (const [attribute, value] of xattrs ?? []) this.#setXattr(node, attribute, value)
      this.#staging.journal.attributes(node)
      const failed = extents && this.#contents.clone(node, 0, attr.size, extents)
      if (failed) {
        this.#nodes.unlink(this.#node(parent)!, byteString(name))
        this.#staging.journal.unlinked(localOf(parent), byteString(name))
        this.#letGo(node)
        return failed
      }
      if (attr.nlink > 1) this.#noteLink(attr.ino, node)
      return this.#entry(node)
    })
  }

  /**
   * A file that has several names in its archive is linked once for each of them: in one tree these are names of one file again, as long
   * as that was not changed since.
   */
  #linkedBefore({ attr }: Likeness, parent: Ino, name: Buffer, call: Call<Entry>): Answer<Entry> | undefined {
    const directory = this.#node(parent)
    const tree = directory && this.#treeOfName(directory, byteString(name), false)
    const known = attr.nlink > 1 && tree ? this.#links.get(tree)?.get(attr.ino) : undefined
    const node = known && this.#nodes.get(known.id)
    if (!node || node.nlink === 0 || node.ctimeNs !== known.ctimeNs || this.trees.ofNode(node) !== tree) return undefined
    const answer = this.link(inoOf(this.range, node.id), parent, name, call)
    if (answer !== LATER && !(answer instanceof Errno)) this.#noteLink(attr.ino, node)
    return answer
  }

  #noteLink(source: Ino, node: StagedNode): void {
    const tree = this.trees.ofNode(node)
    if (!tree) return
    let links = this.#links.get(tree)
    if (!links) this.#links.set(tree, links = new Map())
    links.set(source, { id: node.id, ctimeNs: node.ctimeNs })
  }

  unlink(parent: Ino, name: Buffer, call: Call<void>): Answer<void> {
    return this.#remove(parent, name, call, node => (node.children ? Errno.EISDIR : undefined))
  }

  rmdir(parent: Ino, name: Buffer, call: Call<void>): Answer<void> {
    if (parent === this.root && this.#live?.close(byteString(name))) return undefined
    return this.#remove(parent, name, call, node => (!node.children ? Errno.ENOTDIR : !this.#nodes.isEmpty(node.id) ? Errno.ENOTEMPTY : undefined))
  }

  #remove(parent: Ino, name: Buffer, call: Call<void>, refuse: (node: StagedNode) => Errno | undefined): Answer<void> {
    const directory = this.#node(parent)
    if (!directory?.children) return Errno.ESTALE
    const key = byteString(name)
    const existing = this.#nodes.child(directory, key)
    if (!existing) return Errno.ENOENT
    return this.#altering(this.#treeOfName(directory, key, isDirectory(existing)), call, () => {
      const node = this.#nodes.child(directory, key)
      if (!node) return Errno.ENOENT
      const refused = refuse(node)
      if (refused) return refused
      this.#adoptName(directory, node)
      this.#nodes.unlink(directory, key)
      this.#staging.journal.unlinked(directory.id, key)
      const now = nowNs()
      node.ctimeNs = now
      this.#touch(directory, now)
      if (directory.id === rootId && node.children) this.trees.forget(key)
      this.#letGo(node)
      return undefined
    }, removalRoomBytes)
  }

  rename(parent: Ino, name: Buffer, newParent: Ino, newName: Buffer, flags: number, call: Call<void>): Answer<void> {
    const [from, to] = [this.#node(parent), this.#node(newParent)]
    if (!from?.children || !to?.children) return Errno.ESTALE
    if (newName.length > maxNameBytes) return Errno.ENAMETOOLONG
    const [key, newKey] = [byteString(name), byteString(newName)]
    const moving = this.#nodes.child(from, key)
    if (!moving) return Errno.ENOENT
    if (newParent === this.root && isLeftBehind(newKey)) return Errno.EPERM
    if (this.#live && (parent === this.root || newParent === this.root)) return Errno.EPERM
    const target = this.#treeOfName(to, newKey, isDirectory(moving))
    return this.#altering(target, call, later => this.#altering(this.#treeOfName(from, key, isDirectory(moving)), later, () => this.#rename(from, key, to, newKey, flags)))
  }

  #rename(from: StagedNode, key: string, to: StagedNode, newKey: string, flags: number): Answer<void> {
    const node = this.#nodes.child(from, key)
    if (!node) return Errno.ENOENT
    const over = this.#nodes.child(to, newKey)
    if (over && flags & noReplace) return Errno.EEXIST
    if (node.children && this.#nodes.isWithin(to, node)) return Errno.EINVAL
    const now = nowNs()
    if (flags & exchange) {
      if (!over) return Errno.ENOENT
      if (over.children && this.#nodes.isWithin(from, over)) return Errno.EINVAL
      for (const changed of [from, to, node, over]) this.#staging.adopt(changed)
      this.#nodes.exchange(from, key, to, newKey)
      this.#staging.journal.exchanged(from.id, key, to.id, newKey)
      over.ctimeNs = now
    } else {
      if (over === node) return undefined
      if (over) {
        if (over.children && !node.children) return Errno.EISDIR
        if (!over.children && node.children) return Errno.ENOTDIR
        if (over.children && !this.#nodes.isEmpty(over.id)) return Errno.ENOTEMPTY
      }
      for (const changed of [from, to, node]) this.#staging.adopt(changed)
      if (over) {
        this.#adoptName(to, over)
        this.#nodes.unlink(to, newKey)
      }
      this.#nodes.move(from, key, to, newKey)
      this.#staging.journal.moved(from.id, key, to.id, newKey)
      if (over) this.#letGo(over)
    }
    node.ctimeNs = now
    this.#touch(from, now)
    if (to !== from) this.#touch(to, now)
    if (node.children) {
      if (from.id === rootId && to.id === rootId && !(flags & exchange)) this.trees.renamed(key, newKey)
      else if (from.id === rootId && !(flags & exchange)) this.trees.forget(key)
    }
    return undefined
  }

  /**
   * `mv MNT/incoming/NAME MNT/ARCHIVE`: commits at once under exactly that name (incoming.md §3).
   *
   * The kernel moves the name that it has of the tree to its new place and would believe it for as long as it was told to, so that the new
   * directory would be one that is no more; a notice that says otherwise cannot come before the rename returns, whose locks it needs. So the
   * name must be one that the kernel asks for each time before it is moved. That is told by answering ESTALE at first: the kernel
   * then tries again by itself and looks all names up anew.
   */
  renameToRoot(parent: Ino, name: Buffer, newName: Buffer, flags: number, call: Call<void>): Answer<void> {
    if (flags & exchange) return Errno.EINVAL
    const key = byteString(name)
    const node = parent === this.root ? this.#nodes.child(this.#nodes.get(rootId)!, key) : undefined
    if (!node) return parent === this.root ? Errno.ENOENT : Errno.EXDEV
    if (!node.children) return Errno.EXDEV
    if (isLeftBehind(byteString(newName))) return Errno.EPERM
    const { id } = node
    if (!this.#passing.has(id)) {
      this.#passing.add(id)
      return Errno.ESTALE
    }
    const tree = this.trees.of(key)
    const exactName = Buffer.from(newName)
    return this.#whenThawed(tree, call, later => {
      const refusal = this.trees.refusal(tree)
      if (refusal !== undefined) {
        this.#passing.delete(id)
        this.trees.refused(tree, refusal)
        return Errno.EBUSY
      }
      const answer = later.defer()
      this.trees.commit(tree, { exactName, patient: true }, error => {
        this.#passing.delete(id)
        if (error) {
          tree.state = { kind: 'writing' }
          tree.changedAtMs = performance.now()
          answer(errnoByCode(error.code))
          return
        }
        // It is an archive by now: what the staging folder does not take leaves it at the next mount.
        const failed = hostErrno(() => this.#dropTree(tree))
        if (failed) this.#client.write('warning', 'borg.fuse', `a tree that became an archive stays in incoming/ until the next mount: the staging folder cannot be written to (errno ${failed})`)
        answer(undefined)
      })
      return LATER
    })
  }

  // --- attributes ---

  setattr(ino: Ino, change: AttrChange, call: Call<AttrReply>): Answer<AttrReply> {
    const before = this.#live && this.#attrOf(localOf(ino))
    if (before && !wouldDrop(before, change, call) && saysNothingNew(before, change)) return { attr: before, attrTtlMs: ttlMs }
    const node = this.#node(ino)
    if (!node) return Errno.ESTALE
    const drops = wouldDrop(node, change, call)
    // The disk takes it for a chmod. Who writes may be anybody.
    if (drops && !call.killSetId && node.writers === 0 && call.uid !== 0 && call.uid !== node.uid && withoutSetId(node, call) !== node.mode) return Errno.EPERM
    return this.#altering(this.#treeOf(node), call, later => {
      this.#staging.adopt(node)
      const now = nowNs()
      if (drops) this.#dropPrivileges(node, later)
      if (change.size !== undefined) {
        if (!isFile(node)) return node.children ? Errno.EISDIR : Errno.EINVAL
        const failed = this.#contents.truncate(node, change.size)
        if (failed) return failed
        node.mtimeNs = now
        if (node.opens === 0) this.#contents.close(node)
      }
      if (change.mode !== undefined) {
        node.mode = (node.mode & typeMask) | (change.mode & 0o7777)
        const acl = node.xattrs?.get(accessAclName)
        if (acl) this.#setXattr(node, accessAclName, aclAfterChmod(acl, node.mode))
      }
      if (change.uid !== undefined) node.uid = change.uid
      if (change.gid !== undefined) node.gid = change.gid
      if (change.atimeNs !== undefined) node.atimeNs = change.atimeNs === 'now' ? now : change.atimeNs
      if (change.mtimeNs !== undefined) node.mtimeNs = change.mtimeNs === 'now' ? now : change.mtimeNs
      node.ctimeNs = now
      node.dirty = false
      this.#staging.journal.attributes(node)
      return { attr: this.#attr(node), attrTtlMs: ttlMs }
    })
  }

  getxattr(ino: Ino, name: Buffer): Answer<Uint8Array> {
    const key = byteString(name)
    const found = this.#nodes.virtual(localOf(ino))
    if (found) return found.base.tree.xattr(found.row, name) ?? refusedXattrName(key) ?? Errno.ENODATA
    const node = this.#node(ino)
    if (!node) return Errno.ESTALE
    if (key === stateXattr || key === problemXattr) {
      const tree = node.id === rootId ? this.trees.find(undefined) : node.parent === rootId && node.children ? this.#treeNamed(node) : undefined
      if (!tree || (tree.name === undefined && tree.empty && tree.state.kind !== 'committed')) return Errno.ENODATA
      if (key === stateXattr) return Buffer.from(describe(tree, performance.now(), this.trees.options))
      return tree.problem === undefined ? Errno.ENODATA : Buffer.from(tree.problem)
    }
    return node.xattrs?.get(key) ?? refusedXattrName(key) ?? Errno.ENODATA
  }

  listxattr(ino: Ino): Answer<Uint8Array[]> {
    const found = this.#nodes.virtual(localOf(ino))
    if (found) return Array.from(found.base.tree.xattrs(found.row), ([name]) => name)
    const node = this.#node(ino)
    return node ? [...(node.xattrs?.keys() ?? [])].map(bytesOf) : Errno.ESTALE
  }

  setxattr(ino: Ino, name: Buffer, value: Buffer, flags: number, call: Call<void>): Answer<void> {
    const node = this.#node(ino)
    if (!node) return Errno.ESTALE
    const key = byteString(name)
    if (key === commitXattr) return this.#commitNow(node, byteString(value), call)
    if (key === stateXattr || key === problemXattr) return Errno.EPERM
    if (value.length > maxXattrBytes) return Errno.E2BIG
    const refusedName = refusedXattrName(key)
    if (refusedName) return refusedName
    const kept = Buffer.from(value)
    const killed = call.killSetId ? setGroupBit : 0
    return this.#altering(this.#treeOf(node), call, () => {
      const exists = node.xattrs?.has(key) ?? false
      if (flags & xattrCreate && exists) return Errno.EEXIST
      if (flags & xattrReplace && !exists) return Errno.ENODATA
      this.#staging.adopt(node)
      if (key === accessAclName || key === defaultAclName) {
        if (key === defaultAclName && !node.children) return Errno.EACCES
        const mode = modeOfAcl(node.mode, kept)
        if (mode === undefined) return Errno.EINVAL
        if (key === accessAclName) node.mode = mode & ~killed
      }
      node.ctimeNs = nowNs()
      // An access ACL that says no more than the mode is not kept, as other file systems do.
      const value = key === accessAclName && kept.length <= 28 ? undefined : kept
      if (value || exists) {
        this.#staging.journal.together(() => {
          this.#setXattr(node, key, value)
          this.#staging.journal.attributes(node)
        })
      } else this.#staging.journal.attributes(node)
      return undefined
    })
  }

  removexattr(ino: Ino, name: Buffer, call: Call<void>): Answer<void> {
    const node = this.#node(ino)
    if (!node) return Errno.ESTALE
    const key = byteString(name)
    return this.#altering(this.#treeOf(node), call, () => {
      // To have no ACL is a way to have one: its removal always succeeds, as elsewhere.
      if (!node.xattrs?.has(key)) return key === accessAclName || key === defaultAclName ? undefined : refusedXattrName(key) ?? Errno.ENODATA
      this.#staging.adopt(node)
      node.ctimeNs = nowNs()
      this.#setXattr(node, key, undefined)
      return undefined
    })
  }

  #setXattr(node: StagedNode, key: string, value: Buffer | undefined): void {
    if (value) (node.xattrs ??= new Map<string, Buffer>()).set(key, value)
    else node.xattrs?.delete(key)
    this.#staging.journal.xattr(node.id, key, value)
  }

  /** setfattr -n user.borgfs.commit: commits the tree and waits; on incoming/ itself all of them, or the loose files only. */
  #commitNow(node: StagedNode, value: string, call: Call<void>): Answer<void> {
    const loose = node.id === rootId && value === onlyLoose
    if (node.id === rootId && !loose) {
      const answer = call.defer()
      this.trees.commitAll(failures => answer(failures.length === 0 ? undefined : Errno.EAGAIN))
      return LATER
    }
    if (!loose && (node.parent !== rootId || !node.children)) return Errno.EINVAL
    const tree = loose ? this.trees.of(undefined) : this.#treeNamed(node)
    if (!tree) return Errno.EINVAL
    return this.#whenThawed(tree, call, later => {
      if (tree.state.kind === 'committed' || this.trees.isEmpty(tree)) return undefined
      const refusal = this.trees.refusal(tree)
      if (refusal !== undefined) {
        this.trees.refused(tree, refusal)
        return Errno.EBUSY
      }
      const answer = later.defer()
      this.trees.commit(tree, { patient: true }, (error: WireError | undefined) => answer(error ? errnoByCode(error.code) : undefined))
      return LATER
    })
  }

  // --- contents ---

  open(ino: Ino, flags: number, call: Call<Opened>): Answer<Opened> {
    const node = this.#node(ino)
    if (!node) return Errno.ESTALE
    if (node.children) return Errno.EISDIR
    if ((flags & writeFlags) === 0 && !(flags & truncateFlag)) {
      const opened = (): Answer<Opened> => {
        // It may have been let go while the archive was awaited.
        const here = this.#node(ino)
        return here ? this.#openNode(here, flags) : Errno.ESTALE
      }
      return this.#live && !node.known ? this.#live.whenWhole(this.#treeOf(node), call, opened) : opened()
    }
    const { killSetId } = call
    return this.#altering(this.#treeOf(node), call, later => {
      this.#staging.adopt(node)
      if (flags & truncateFlag) {
        if (killSetId && this.#dropPrivileges(node, later)) this.#notices.invalidateAttributes(ino)
        const failed = this.#contents.truncate(node, 0)
        if (failed) return failed
        node.mtimeNs = node.ctimeNs = nowNs()
        this.#staging.journal.attributes(node)
      }
      return this.#openNode(node, flags)
    })
  }

  /**
   * `direct`: it is a new file that is only written. Past the kernel's pages that needs no question for capabilities (one for each file), no memory
   * and one copy less. Whoever opens it meanwhile uses pages as ever: see `write`.
   */
  #openNode(node: StagedNode, flags: number, direct = false): Opened {
    const fh = this.#nextHandle++
    this.#nodes.fill(node)
    const writes = (flags & writeFlags) !== 0
    const tree = this.#treeOf(node)
    this.#handles.set(fh, { sequence: new SequentialRead(), node, writes, direct, tree })
    node.opens++
    if (writes) {
      node.writers++
      if (tree) tree.writers++
    }
    // Nothing is left to be done at a close: what was written is in the kernel of the host. The kernel writes out what was mapped when the mapping ends.
    return { fh, keepCache: true, noFlush: true, directIo: direct }
  }

  read(_ino: Ino, fh: number, offset: number, into: Buffer, call: Call<ReadBytes>): Answer<ReadAnswer> {
    const handle = this.#handles.get(fh)
    if (!handle) return Errno.EBADF
    return this.#contents.read(handle.node, handle.sequence, offset, into, call)
  }

  /** What of a file are chunks, up to the first byte that is not. EOPNOTSUPP where it begins with one: the kernel copies then. */
  sharedRange(_ino: Ino, fh: number, offset: number, length: number): SharedRange | Errno {
    const handle = this.#handles.get(fh)
    if (!handle) return Errno.EBADF
    return this.#contents.shared(handle.node, offset, length)
  }

  cloneInto(_ino: Ino, fh: number, offset: number, range: SharedRange, call: Call<number>): Answer<number> {
    const handle = this.#handles.get(fh)
    if (!handle) return Errno.EBADF
    return this.#changing(handle.tree, call, () => {
      const { node } = handle
      const failed = this.#contents.clone(node, offset, range.length, range.extents, range.stashed)
      if (failed) return failed
      node.mtimeNs = node.ctimeNs = nowNs()
      node.dirty = true
      return range.length
    })
  }

  write(_ino: Ino, fh: number, offset: number, data: Buffer, call: Call<number>): Answer<number> {
    const handle = this.#handles.get(fh)
    if (!handle) return Errno.EBADF
    const frozen = this.trees.isFrozen(handle.tree)
    const kept = frozen ? Buffer.from(data) : data
    const { killSetId } = call
    return this.#changing(handle.tree, call, later => {
      const { node, direct } = handle
      if (killSetId && this.#dropPrivileges(node, later)) this.#notices.invalidateAttributes(inoOf(this.range, node.id))
      if (direct && node.xattrs?.has(capabilityXattr)) this.#setXattr(node, capabilityXattr, undefined)
      // O_APPEND is the kernel's work: it knows the size, and the flag can come and go while the file is open. What was written through
      // mmap comes by any handle, with its own place.
      const failed = this.#contents.write(node, offset, kept)
      if (failed) return failed
      node.mtimeNs = node.ctimeNs = nowNs()
      node.dirty = true
      const isAhead = this.#cuts.isAhead(node)
      if (!isAhead && (!direct || node.opens === 1)) return kept.length
      // Pages of who reads it meanwhile: the kernel let go of those before it sent the bytes, and may have asked for them again until now.
      const answer = later.defer()
      const written = (): void => answer(kept.length)
      const seen = direct && node.opens > 1 ? () => this.#notices.invalidatePages(inoOf(this.range, node.id), offset, kept.length, written) : written
      if (isAhead) this.#cuts.holdUp(node, seen)
      else seen()
      return LATER
    })
  }

  /** Set-id bits, of which the kernel says that they go. Whether there were any: the kernel does not know what became of the mode then. */
  #dropPrivileges(node: StagedNode, asker: Pick<Call<unknown>, 'uid' | 'gid' | 'pid'>): boolean {
    const mode = withoutSetId(node, asker)
    if (mode === node.mode) return false
    node.mode = mode
    node.ctimeNs = nowNs()
    this.#staging.journal.attributes(node)
    return true
  }

  flush(_ino: Ino, fh: number): Answer<void> {
    const handle = this.#handles.get(fh)
    if (handle) this.#recordTimes(handle.node)
    return undefined
  }

  /** What was written so far is in the journal with its times. */
  #recordTimes(node: StagedNode): void {
    if (!node.dirty) return
    this.#staging.journal.attributes(node)
    node.dirty = false
  }

  fsync(_ino: Ino, fh: number, _dataOnly: boolean, call: Call<void>): Answer<void> {
    const handle = this.#handles.get(fh)
    if (!handle) return Errno.EBADF
    this.#recordTimes(handle.node)
    return this.#durability.sync(handle.node, call)
  }

  fsyncdir(_ino: Ino, _fh: number, call: Call<void>): Answer<void> {
    return this.#durability.sync(undefined, call)
  }

  /** All that is staged, also what was closed. */
  syncfs(call: Call<void>): Answer<void> {
    for (const { node } of this.#handles.values()) this.#recordTimes(node)
    return this.#durability.syncAll(call)
  }

  release(_ino: Ino, fh: number): void {
    const handle = this.#handles.get(fh)
    if (!handle) return
    this.#handles.delete(fh)
    const { node, tree, writes } = handle
    node.opens--
    if (writes) {
      node.writers--
      if (tree) {
        tree.writers--
        tree.changedAtMs = performance.now()
      }
      // A full disk: nobody can be told any more, and the times in memory are those that are saved.
      hostErrno(() => this.#recordTimes(node))
      if (node.writers === 0) this.#cuts.closed(node)
    }
    if (node.opens > 0) return
    this.#contents.close(node)
    this.#letGo(node)
    if (this.trees.isFrozen(tree)) this.#unused.add(node)
    else this.#nodes.evict(node)
  }

  releaseAll(): void {
    for (const fh of [...this.#handles.keys()]) this.release(0, fh)
  }

  /** Files that were only read need not stay, but whoever waits for a commit to end may be about to change one. */
  #evict(): void {
    for (const node of this.#unused) {
      if (this.trees.isFrozen(this.#treeOf(node))) continue
      this.#unused.delete(node)
      this.#nodes.evict(node)
    }
  }
  readonly #unused = new Set<StagedNode>()

  fallocate(_ino: Ino, fh: number, mode: number, offset: number, length: number, call: Call<void>): Answer<void> {
    const handle = this.#handles.get(fh)
    if (!handle) return Errno.EBADF
    return this.#changing(handle.tree, call, () => {
      const { node } = handle
      const failed = this.#contents.allocate(node, mode, offset, length)
      if (failed) return failed
      node.mtimeNs = node.ctimeNs = nowNs()
      node.dirty = true
      return undefined
    })
  }

  lseek(_ino: Ino, fh: number, offset: number, whence: number): Answer<number> {
    const handle = this.#handles.get(fh)
    if (!handle) return Errno.EBADF
    return this.#contents.seek(handle.node, offset, whence)
  }

  // --- listings ---

  opendir(ino: Ino, call: Call<Opened>): Answer<Opened> {
    const id = localOf(ino)
    if (!this.#nodes.isDirectory(id)) return this.#attrOf(id) ? Errno.ENOTDIR : Errno.ESTALE
    const open = (): Opened => {
      const fh = this.#nextHandle++
      this.#listings.set(fh, { names: [...this.#nodes.names(id)] })
      return { fh }
    }
    return id === rootId && this.#live ? this.#live.whenOpen(undefined, call, open) : open()
  }

  readdir(ino: Ino, fh: number, cookie: number, sink: DirSink): Answer<void> {
    const id = localOf(ino)
    if (!this.#nodes.isDirectory(id)) return Errno.ESTALE
    const listing = this.#listings.get(fh) ?? { names: [...this.#nodes.names(id)] }
    // rewinddir wants to see what is there now.
    if (cookie === 0) listing.names = [...this.#nodes.names(id)]
    const own = this.#entryOf(id)!
    if (cookie < 1 && !sink(dot, own, 1)) return undefined
    const parent = id === rootId ? { attr: { ...own.attr, ino: rootIno }, entryTtlMs: 0, attrTtlMs: 0 } : this.#entryOf(this.#nodes.parentOf(id) ?? id) ?? own
    if (cookie < 2 && !sink(dotDot, parent, 2)) return undefined
    const mayDiffer = this.#nodes.peek(id) !== undefined
    for (let index = Math.max(0, cookie - 2); index < listing.names.length; index++) {
      const [name, child] = listing.names[index]!
      // Gone or another one since the listing was taken.
      if (mayDiffer && this.#nodes.childId(id, name) !== child) continue
      const entry = this.#entryOf(child)
      if (entry && !sink(bytesOf(name), entry, index + 3)) return undefined
    }
    return undefined
  }

  releasedir(_ino: Ino, fh: number): void {
    this.#listings.delete(fh)
  }

  statfs(): Answer<StatFs> {
    let value: StatFs | undefined
    const failed = hostErrno(() => {
      const facts = this.#staging.statfs()
      value = { ...facts, frsize: facts.bsize, namelen: maxNameBytes }
    })
    return failed ?? value!
  }

  // --- what all of them need ---

  #node(ino: Ino): StagedNode | undefined {
    return this.#nodes.get(localOf(ino))
  }

  /** Of what is here, or in a base. */
  #entryOf(id: number): Entry | undefined {
    const node = this.#nodes.peek(id)
    if (node) return this.#entry(node)
    const attr = this.#attrOf(id)
    return attr && { attr, entryTtlMs: ttlMs, attrTtlMs: ttlMs }
  }

  #attrOf(id: number): Attr | undefined {
    const node = this.#nodes.peek(id)
    if (node) return this.#attr(node)
    const attr = this.#nodes.attrOf(id)
    if (attr) attr.ino = inoOf(this.range, id)
    return attr
  }

  #entry(node: StagedNode): Entry {
    return { attr: this.#attr(node), entryTtlMs: this.#passing.has(node.id) ? 0 : ttlMs, attrTtlMs: ttlMs }
  }

  #attr(node: StagedNode): Attr {
    const { id, mode, uid, gid, rdev, nlink, size, atimeNs, mtimeNs, ctimeNs } = node
    const blocks = !isFile(node) || size === 0 ? 0 : node.known ? this.#contents.blocks(node) : Math.ceil(size / 512)
    return { ino: inoOf(this.range, id), size, blocks, mode, nlink, uid, gid, rdev, atimeNs, mtimeNs, ctimeNs, blksize: 4096 }
  }

  /** The tree whose contents a new or old name in a directory is. */
  #treeOfName(directory: StagedNode, name: string, isTree: boolean): StagedTree | undefined {
    if (directory.id === rootId) return isTree ? this.trees.of(name) : this.trees.of(undefined)
    return this.#treeOf(directory)
  }

  #treeOf(node: StagedNode): StagedTree | undefined {
    if (node.id === rootId) return undefined
    return node.children && node.parent === rootId ? this.#treeNamed(node) : this.trees.ofNode(node)
  }

  #treeNamed(node: StagedNode): StagedTree | undefined {
    for (const [name, id] of this.#nodes.get(rootId)!.children!) if (id === node.id) return this.trees.of(name)
    return undefined
  }

  /**
   * Runs a change now, or when the tree it belongs to is not being committed any more. `work` must use the call that it is
   * given: the kernel's own may stand for another request by then.
   */
  #changing<T>(tree: StagedTree | undefined, call: Call<T>, work: (call: Call<T>) => Answer<T>, roomBytes = changeRoomBytes): Answer<T> {
    return this.#whenThawed(tree, call, later => {
      let answer = LATER as Answer<T>
      const failed = hostErrno(() => {
        this.#staging.journal.ready(roomBytes)
        // Before anything is written: a process that ends in between must not leave a changed tree that passes for its archive.
        this.trees.changing(tree)
        answer = work(later)
      })
      if (failed) return failed
      if (!(answer instanceof Errno)) {
        this.trees.changed(tree)
        this.#durability.noteChange()
      }
      return answer
    })
  }

  /** The same for what may touch files that are as a base has them. */
  #altering<T>(tree: StagedTree | undefined, call: Call<T>, work: (call: Call<T>) => Answer<T>, roomBytes?: number): Answer<T> {
    return this.#live ? this.#live.whenWhole(tree, call, later => this.#changing(tree, later, work, roomBytes)) : this.#changing(tree, call, work, roomBytes)
  }

  /** Before a name of a node is taken out of a directory. A file that keeps other names has to be here, because it has fewer now. */
  #adoptName(directory: StagedNode, node: StagedNode): void {
    this.#staging.adopt(directory)
    if (!node.children && node.nlink > 1) this.#staging.adopt(node)
  }

  /** The same for what changes nothing. */
  #whenThawed<T>(tree: StagedTree | undefined, call: Call<T>, work: (call: Call<T>) => Answer<T>): Answer<T> {
    if (!this.trees.isFrozen(tree)) return work(call)
    const { uid, gid, pid, umask = 0 } = call
    const answer = call.defer()
    this.trees.whenThawed(tree!, () => {
      const late = this.#whenThawed(tree, { uid, gid, pid, umask, defer: () => answer }, work)
      if (late !== LATER) answer(late)
    })
    return LATER
  }

  #touch(directory: StagedNode, now: bigint): void {
    directory.mtimeNs = directory.ctimeNs = now
  }

  /** A node that lost a name or a handle: gone when it has neither. */
  #letGo(node: StagedNode): void {
    if (node.opens > 0 || (node.children ? node.nlink > 0 : node.nlink > 0)) return
    this.#passing.delete(node.id)
    this.#staging.forget(node)
  }

  /** A tree that is an archive leaves the box. */
  #leave(tree: StagedTree): void {
    this.#dropTree(tree)
    this.#notices.invalidateInode(this.root)
  }

  #dropTree(tree: StagedTree): void {
    const root = this.#nodes.get(rootId)!
    for (const name of this.#staging.drop(tree.name)) this.#notices.invalidateEntry(this.root, bytesOf(name))
    this.#touch(root, nowNs())
    this.trees.forget(tree.name)
  }
}

/**
 * Whether set-id bits go. The kernel asks for a change of nothing where it has nothing else to change: chown(2) to nobody in particular, and before
 * changes of contents that say nothing of it themselves. Where it cannot be told what it was, it is taken for the one that drops more: root's write
 * to a file that has capabilities, too, and another user's chown of one that somebody writes to.
 */
function wouldDrop(node: { readonly mode: number }, { size, mode, uid, gid, atimeNs, mtimeNs }: AttrChange, { killSetId }: { readonly killSetId?: boolean }): boolean {
  if (!(node.mode & setIdBits) || (node.mode & typeMask) === typeDirectory) return false
  return killSetId === true || (size === undefined && mode === undefined && uid === undefined && gid === undefined && atimeNs === undefined && mtimeNs === undefined)
}

/** For live/, where it must not count as a change: rsync and touch -d set what is set already. */
function saysNothingNew(node: Attr, { size, mode, uid, gid, atimeNs, mtimeNs }: AttrChange): boolean {
  return (size === undefined || size === node.size) && (mode === undefined || (mode & 0o7777) === (node.mode & 0o7777)) && (uid === undefined || uid === node.uid)
    && (gid === undefined || gid === node.gid) && (mtimeNs === undefined || mtimeNs === node.mtimeNs) && (atimeNs === undefined || atimeNs === node.atimeNs || mtimeNs !== undefined)
}

function idsOf(nodes: Iterable<StagedNode>): Uint8Array {
  const stashed = [...nodes].filter(({ stashed, extents }) => stashed && extents)
  const ids = new Uint8Array(stashed.reduce((sum, { extents }) => sum + extents!.count, 0) * idBytes)
  let at = 0
  for (const { extents } of stashed) {
    for (let index = 0; index < extents!.count; index++, at += idBytes) ids.set(extents!.get(index).id, at)
  }
  return ids
}

const dot = Buffer.from('.'), dotDot = Buffer.from('..')

let lastNs = 0n

/** Now in ns, never twice the same: tools take equal times for "unchanged". */
function nowNs(): bigint {
  const now = BigInt(Math.floor((performance.timeOrigin + performance.now()) * 1000)) * 1000n
  lastNs = now > lastNs ? now : lastNs + 1n
  return lastNs
}
