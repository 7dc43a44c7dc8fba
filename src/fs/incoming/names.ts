/** Names in incoming/ and live/: finding, making, linking, removing and moving them, also to where they become archives. */
import { byteString } from '../../engine/text.js'
import { type Answer, type Call, type Created, isDot, isDotDot, LATER } from '../core.js'
import { isLeftBehind } from '../desktop-names.js'
import { errnoByCode } from '../errno.js'
import { inoOf, localOf } from '../inodes.js'
import type { Likeness } from '../subtree.js'
import { type Entry, Errno, type Ino } from '../types.js'
import { defaultAclName, inheritAcl } from './acl.js'
import type { ArrivingFiles } from './arrivals.js'
import { type Box, maxNameBytes } from './box.js'
import { nowNs } from './clock.js'
import { hostErrno } from './contents.js'
import type { Handles } from './handles.js'
import { removalRoomBytes } from './journal.js'
import { isDirectory, isFile, type NodeFacts, rootId, type StagedNode, typeDirectory, typeFile, typeMask, typeSymlink } from './nodes.js'
import type { StagedTree } from './policy.js'
import { setGroupBit } from './set-id.js'

const noReplace = 1, exchange = 2

export class Names {
  readonly #box: Box
  readonly #handles: Handles
  /** By tree: files of archives that were linked into it, and what they became. */
  readonly #links = new WeakMap<StagedTree, Map<Ino, { readonly id: number; readonly ctimeNs: bigint }>>()

  readonly #arrivals: ArrivingFiles | undefined

  constructor(box: Box, handles: Handles, arrivals?: ArrivingFiles) {
    this.#box = box
    this.#handles = handles
    this.#arrivals = arrivals
  }

  lookup(parent: Ino, name: Buffer, call: Call<Entry>): Answer<Entry> {
    const directory = localOf(parent)
    if (isDot(name) || isDotDot(name)) {
      const above = isDot(name) ? directory : this.#box.nodes.parentOf(directory)
      return this.#box.entryOf(directory) && above !== undefined ? this.#box.entryOf(above) ?? this.#box.entryOf(directory)! : Errno.ESTALE
    }
    const key = byteString(name)
    const isTooLong = name.length > maxNameBytes
    const look = (): Answer<Entry> => {
      const id = this.#box.nodes.childId(directory, key)
      const entry = id === undefined ? undefined : this.#box.entryOf(id)
      if (entry) return entry
      return this.#box.nodes.isDirectory(directory) ? isTooLong ? Errno.ENAMETOOLONG : Errno.ENOENT : this.#box.attrOf(directory) ? Errno.ENOTDIR : Errno.ESTALE
    }
    return directory === rootId && this.#box.live ? this.#box.live.whenOpen(key, call, look) : look()
  }

  readlink(ino: Ino): Answer<Uint8Array> {
    const found = this.#box.nodes.virtual(localOf(ino))
    if (found) return found.base.tree.isSymlink(found.row) ? found.base.tree.linkTarget(found.row) : Errno.EINVAL
    return this.#box.node(ino)?.target ?? Errno.EINVAL
  }

  mknod(parent: Ino, name: Buffer, mode: number, rdev: number, call: Call<Entry>): Answer<Entry> {
    return this.#make(parent, name, call, () => ({ mode, rdev, target: undefined }), node => this.#box.entry(node))
  }

  mkdir(parent: Ino, name: Buffer, mode: number, call: Call<Entry>): Answer<Entry> {
    const live = parent === this.#box.root ? this.#box.live : undefined
    if (!live) return this.makeDirectory(parent, name, mode, call)
    const series = byteString(name)
    return live.whenOpen(series, call, later => live.open(series, mode, later))
  }

  makeDirectory(parent: Ino, name: Buffer, mode: number, call: Call<Entry>): Answer<Entry> {
    return this.#make(parent, name, call, () => ({ mode: (mode & 0o7777) | typeDirectory, rdev: 0, target: undefined }), node => {
      this.#arrivals?.madeDirectory(node)
      return this.#box.entry(node)
    })
  }

  symlink(parent: Ino, name: Buffer, target: Buffer, call: Call<Entry>): Answer<Entry> {
    const kept = Buffer.from(target)
    return this.#make(parent, name, call, () => ({ mode: typeSymlink | 0o777, rdev: 0, target: kept }), node => this.#box.entry(node))
  }

  create(parent: Ino, name: Buffer, mode: number, flags: number, call: Call<Created>): Answer<Created> {
    return this.#make(parent, name, call, () => ({ mode: (mode & 0o7777) | typeFile, rdev: 0, target: undefined }), node => {
      this.#arrivals?.madeFile(node)
      return { entry: this.#box.entry(node), opened: this.#handles.openNew(node, flags) }
    })
  }

  #make<T>(parent: Ino, name: Buffer, call: Call<T>, facts: () => Pick<NodeFacts, 'mode' | 'rdev' | 'target'>, answer: (node: StagedNode) => T | Errno): Answer<T> {
    const directory = this.#box.node(parent)
    if (!directory) return Errno.ESTALE
    if (!directory.children) return Errno.ENOTDIR
    const key = byteString(name)
    if (name.length > maxNameBytes) return Errno.ENAMETOOLONG
    if (parent === this.#box.root && isLeftBehind(key)) return Errno.EPERM
    // Directly in live/ there are series.
    if (this.#box.live && parent === this.#box.root && (facts().mode & typeMask) !== typeDirectory) return Errno.EPERM
    const { uid, gid, umask = 0 } = call
    const isTree = (facts().mode & typeMask) === typeDirectory
    return this.#box.altering(() => this.#box.treesOfName(directory, key, isTree), call, () => {
      if (this.#box.nodes.childId(directory.id, key) !== undefined) return Errno.EEXIST
      if (directory.nlink === 0) return Errno.ENOENT
      this.#box.staging.adopt(directory)
      const now = nowNs()
      const setGroup = (directory.mode & setGroupBit) !== 0
      const { mode: wanted, rdev, target } = facts()
      const mode = target || directory.xattrs?.has(defaultAclName) ? wanted : wanted & ~umask
      const node = this.#box.nodes.add(directory, key, {
        mode: setGroup && (mode & typeMask) === typeDirectory ? mode | setGroupBit : mode, rdev, target, uid, gid: setGroup ? directory.gid : gid,
        atimeNs: now, mtimeNs: now, ctimeNs: now,
      })
      inheritAcl(directory, node)
      const failed = hostErrno(() => this.#tellCreated(node, directory, key))
      if (failed) {
        this.#takeBack(node, directory, key)
        return failed
      }
      this.#box.touch(directory, now)
      return answer(node)
    })
  }

  #tellCreated(node: StagedNode, directory: StagedNode, key: string): void {
    const { journal } = this.#box.staging
    if (!node.xattrs) return journal.created(node, directory.id, key)
    journal.whole(() => {
      journal.created(node, directory.id, key)
      for (const [attribute, value] of node.xattrs!) journal.xattr(node.id, attribute, value)
    })
  }

  /** A new node that is not to be. */
  #takeBack(node: StagedNode, directory: StagedNode, key: string): void {
    this.#box.nodes.unlink(directory, key)
    this.#box.letGo(node)
  }

  link(ino: Ino, newParent: Ino, newName: Buffer, call: Call<Entry>): Answer<Entry> {
    const [node, directory] = [this.#box.node(ino), this.#box.node(newParent)]
    if (!node || !directory?.children) return Errno.ESTALE
    const key = byteString(newName)
    if (newName.length > maxNameBytes) return Errno.ENAMETOOLONG
    if (this.#box.live && newParent === this.#box.root) return Errno.EPERM
    // The file itself does not become another one; but it may be one that a base has.
    return this.#box.whenWhole(() => this.#box.treesOf(node), call, whole => this.#box.altering(() => this.#box.treesOfName(directory, key, false), whole, () => {
      if (node.children) return Errno.EPERM
      if (node.nlink === 0 || directory.nlink === 0) return Errno.ENOENT
      if (this.#box.nodes.childId(directory.id, key) !== undefined) return Errno.EEXIST
      this.#box.staging.adopt(directory)
      this.#box.staging.adopt(node)
      this.#box.staging.journal.linked(node.id, directory.id, key)
      this.#box.nodes.link(node, directory, key)
      node.ctimeNs = nowNs()
      this.#box.touch(directory, node.ctimeNs)
      if (node.opens > 0) this.#handles.rehome()
      return this.#box.entry(node)
    }))
  }

  /** `link` from an archive: a file of its own that is the same in all but its contents' place. */
  addLikeness(likeness: Likeness, parent: Ino, name: Buffer, call: Call<Entry>): Answer<Entry> {
    const { attr, target, xattrs, extents } = likeness
    const key = byteString(name)
    const linked = this.#linkedBefore(likeness, parent, name, call)
    if (linked !== undefined) return linked
    return this.#make(parent, name, call, () => ({ mode: attr.mode, rdev: attr.rdev, target }), node => {
      const { mode, uid, gid, atimeNs, mtimeNs } = attr
      const { staging, contents } = this.#box
      const failed = hostErrno(() => {
        // Not what the directory's default ACL says of new files.
        for (const known of [...node.xattrs?.keys() ?? []]) staging.setXattr(node, known, undefined)
        for (const [attribute, value] of xattrs ?? []) staging.setXattr(node, attribute, value)
        staging.setAttributes(node, { mode, uid, gid, atimeNs, mtimeNs, ctimeNs: nowNs() })
      }) ?? (extents && contents.clone(node, 0, attr.size, extents))
      // Where the journal does not take that either, it is there as far as it came to be.
      if (failed && !hostErrno(() => staging.journal.unlinked(localOf(parent), key))) this.#takeBack(node, this.#box.node(parent)!, key)
      if (failed) return failed
      if (attr.nlink > 1) this.#noteLink(attr.ino, node)
      return this.#box.entry(node)
    })
  }

  /**
   * A file that has several names in its archive is linked once for each of them: in one tree these are names of one file again, as long
   * as that was not changed since.
   */
  #linkedBefore({ attr }: Likeness, parent: Ino, name: Buffer, call: Call<Entry>): Answer<Entry> | undefined {
    const directory = this.#box.node(parent)
    const tree = directory && this.#box.treeOfName(directory, byteString(name), false)
    const known = attr.nlink > 1 && tree ? this.#links.get(tree)?.get(attr.ino) : undefined
    const node = known && this.#box.nodes.get(known.id)
    if (!node || !tree || node.nlink === 0 || node.ctimeNs !== known.ctimeNs || !this.#box.treesOf(node).includes(tree)) return undefined
    const answer = this.link(inoOf(this.#box.range, node.id), parent, name, call)
    if (answer !== LATER && !(answer instanceof Errno)) this.#noteLink(attr.ino, node)
    return answer
  }

  #noteLink(source: Ino, node: StagedNode): void {
    for (const tree of this.#box.treesOf(node)) {
      let links = this.#links.get(tree)
      if (!links) this.#links.set(tree, links = new Map())
      links.set(source, { id: node.id, ctimeNs: node.ctimeNs })
    }
  }

  unlink(parent: Ino, name: Buffer, call: Call<void>): Answer<void> {
    return this.#remove(parent, name, call, node => (node.children ? Errno.EISDIR : undefined))
  }

  rmdir(parent: Ino, name: Buffer, call: Call<void>): Answer<void> {
    const closed = parent === this.#box.root && this.#box.live?.close(byteString(name))
    if (closed) return closed === true ? undefined : closed
    return this.#remove(parent, name, call, node => (!node.children ? Errno.ENOTDIR : !this.#box.nodes.isEmpty(node.id) ? Errno.ENOTEMPTY : undefined))
  }

  #remove(parent: Ino, name: Buffer, call: Call<void>, refuse: (node: StagedNode) => Errno | undefined): Answer<void> {
    const directory = this.#box.node(parent)
    if (!directory?.children) return Errno.ESTALE
    const key = byteString(name)
    const existing = this.#box.nodes.child(directory, key)
    if (!existing) return Errno.ENOENT
    return this.#box.altering(() => this.#box.treesOfName(directory, key, isDirectory(existing)), call, () => {
      const node = this.#box.nodes.child(directory, key)
      if (!node) return Errno.ENOENT
      const refused = refuse(node)
      if (refused) return refused
      this.#box.adoptName(directory, node)
      this.#box.staging.journal.unlinked(directory.id, key)
      this.#box.nodes.unlink(directory, key)
      const now = nowNs()
      node.ctimeNs = now
      this.#box.touch(directory, now)
      if (directory.id === rootId && node.children) this.#box.trees.forget(key)
      this.#lostName(node)
      return undefined
    }, removalRoomBytes)
  }

  /** It is gone, or another tree's, if only that has a name of it now. */
  #lostName(node: StagedNode): void {
    if (node.nlink > 0 && node.opens > 0) this.#handles.rehome()
    this.#box.letGo(node)
  }

  rename(parent: Ino, name: Buffer, newParent: Ino, newName: Buffer, flags: number, call: Call<void>): Answer<void> {
    const [from, to] = [this.#box.node(parent), this.#box.node(newParent)]
    if (!from?.children || !to?.children) return Errno.ESTALE
    if (newName.length > maxNameBytes) return Errno.ENAMETOOLONG
    const [key, newKey] = [byteString(name), byteString(newName)]
    if (this.#box.nodes.childId(from.id, key) === undefined) return Errno.ENOENT
    if (newParent === this.#box.root && isLeftBehind(newKey)) return Errno.EPERM
    if (this.#box.live && (parent === this.#box.root || newParent === this.#box.root)) return Errno.EPERM
    return this.#box.altering(() => this.#treesOfRename(from, key, to, newKey, flags), call, () => this.#rename(from, key, to, newKey, flags))
  }

  #treesOfRename(from: StagedNode, key: string, to: StagedNode, newKey: string, flags: number): StagedTree[] {
    const found = new Set<StagedTree>()
    const add = (id: number | undefined): void => {
      const isTree = id !== undefined && this.#box.nodes.isDirectory(id)
      for (const tree of [...this.#box.treesOfName(to, newKey, isTree), ...this.#box.treesOfName(from, key, isTree)]) found.add(tree)
    }
    add(this.#box.nodes.childId(from.id, key))
    if (flags & exchange) add(this.#box.nodes.childId(to.id, newKey))
    return [...found]
  }

  #rename(from: StagedNode, key: string, to: StagedNode, newKey: string, flags: number): Answer<void> {
    const node = this.#box.nodes.child(from, key)
    if (!node) return Errno.ENOENT
    const over = this.#box.nodes.child(to, newKey)
    if (over && flags & noReplace) return Errno.EEXIST
    if (node.children && this.#box.nodes.isWithin(to, node)) return Errno.EINVAL
    const now = nowNs()
    const isSameTree = this.#box.treeOfName(from, key, isDirectory(node)) === this.#box.treeOfName(to, newKey, isDirectory(node))
    if (flags & exchange) {
      if (!over) return Errno.ENOENT
      if (over.children && this.#box.nodes.isWithin(from, over)) return Errno.EINVAL
      for (const changed of [from, to, node, over]) this.#box.staging.adopt(changed)
      this.#box.staging.journal.exchanged(from.id, key, to.id, newKey)
      this.#box.nodes.exchange(from, key, to, newKey)
      for (const each of [node, over]) if (isFile(each)) this.#box.durability.noteSuccessor(each)
      over.ctimeNs = now
    } else {
      if (over === node) return undefined
      if (over) {
        if (over.children && !node.children) return Errno.EISDIR
        if (!over.children && node.children) return Errno.ENOTDIR
        if (over.children && !this.#box.nodes.isEmpty(over.id)) return Errno.ENOTEMPTY
      }
      for (const changed of [from, to, node]) this.#box.staging.adopt(changed)
      if (over) this.#box.adoptName(to, over)
      this.#box.staging.journal.moved(from.id, key, to.id, newKey)
      if (over) this.#box.nodes.unlink(to, newKey)
      this.#box.nodes.move(from, key, to, newKey)
      if (over) this.#lostName(over)
      if (over && isFile(node)) this.#box.durability.noteSuccessor(node)
    }
    node.ctimeNs = now
    this.#box.touch(from, now)
    if (to !== from) this.#box.touch(to, now)
    if (node.children) {
      if (from.id === rootId && to.id === rootId && !(flags & exchange)) this.#box.trees.renamed(key, newKey)
      else if (from.id === rootId && !(flags & exchange)) this.#box.trees.forget(key)
    }
    if (!isSameTree || flags & exchange) this.#handles.rehome()
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
    const node = parent === this.#box.root ? this.#box.nodes.child(this.#box.nodes.get(rootId)!, key) : undefined
    if (!node) return parent === this.#box.root ? Errno.ENOENT : Errno.EXDEV
    if (!node.children) return Errno.EXDEV
    if (isLeftBehind(byteString(newName))) return Errno.EPERM
    const { id } = node
    if (!this.#box.passing.has(id)) {
      this.#box.passing.add(id)
      return Errno.ESTALE
    }
    const tree = this.#box.trees.of(key)
    const exactName = Buffer.from(newName)
    return this.#box.whenThawed(() => [tree], call, later => {
      const refusal = this.#box.trees.refusal(tree)
      if (refusal !== undefined) {
        this.#box.passing.delete(id)
        this.#box.trees.refused(tree, refusal)
        return Errno.EBUSY
      }
      const answer = later.defer()
      this.#box.trees.commit(tree, { exactName, patient: true }, error => {
        this.#box.passing.delete(id)
        if (error) {
          tree.state = { kind: 'writing' }
          tree.changedAtMs = performance.now()
          answer(errnoByCode(error.code))
          return
        }
        // It is an archive by now: what the staging folder does not take leaves it at the next mount.
        const failed = hostErrno(() => this.#box.dropTree(tree))
        if (failed) this.#box.client.write('warning', 'borg.fuse', `a tree that became an archive stays in incoming/ until the next mount: the staging folder cannot be written to (${failed.code})`)
        answer(undefined)
      })
      return LATER
    })
  }
}
