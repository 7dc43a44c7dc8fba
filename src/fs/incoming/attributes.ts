/** Owners, modes, times and xattrs of what is staged, and what the drive itself says and hears by xattrs. */
import { byteString, bytesOf } from '../../engine/text.js'
import { type Answer, type AttrReply, type Call, LATER } from '../core.js'
import { errnoByCode } from '../errno.js'
import { localOf } from '../inodes.js'
import { type Attr, type AttrChange, Errno, type Ino, type NodeAttributes } from '../types.js'
import type { WireError } from '../engine-port.js'
import { accessAclName, aclAfterChmod, defaultAclName, modeOfAcl } from './acl.js'
import { type Box, ttlMs } from './box.js'
import { nowNs } from './clock.js'
import { isFile, rootId, type StagedNode, typeDirectory, typeMask } from './nodes.js'
import { describe } from './policy.js'
import { dropPrivileges, setGroupBit, setIdBits, withoutSetId } from './set-id.js'
import { refusedXattrName } from './xattr-names.js'

const xattrCreate = 1, xattrReplace = 2
/** State of a tree; why the last commit that was asked for was refused; what asks for one. On incoming/ itself: the loose files. */
const stateXattr = 'user.borgfs.state', problemXattr = 'user.borgfs.problem', commitXattr = 'user.borgfs.commit'
/** Value of commitXattr on incoming/ that means the loose files only, not all trees. */
const onlyLoose = 'loose'
const maxXattrBytes = 65536

export class Attributes {
  readonly #box: Box

  constructor(box: Box) {
    this.#box = box
  }

  getattr(ino: Ino): Answer<AttrReply> {
    const attr = this.#box.attrOf(localOf(ino))
    return attr ? { attr, attrTtlMs: ttlMs } : Errno.ESTALE
  }

  setattr(ino: Ino, change: AttrChange, call: Call<AttrReply>): Answer<AttrReply> {
    const before = this.#box.live && this.#box.attrOf(localOf(ino))
    if (before && !wouldDrop(before, change, call) && saysNothingNew(before, change)) return { attr: before, attrTtlMs: ttlMs }
    const node = this.#box.node(ino)
    if (!node) return Errno.ESTALE
    const drops = wouldDrop(node, change, call)
    // The disk takes it for a chmod. Who writes may be anybody.
    if (drops && !call.killSetId && node.writers === 0 && call.uid !== 0 && call.uid !== node.uid && withoutSetId(node, call) !== node.mode) return Errno.EPERM
    return this.#box.altering(() => this.#box.treesOf(node), call, later => {
      if (!this.#box.isHere(node)) return Errno.ESTALE
      const { staging, contents } = this.#box
      staging.adopt(node)
      const now = nowNs()
      if (drops) dropPrivileges(staging, node, later)
      if (change.size !== undefined) {
        if (!isFile(node)) return node.children ? Errno.EISDIR : Errno.EINVAL
        const failed = contents.truncate(node, change.size)
        if (failed) return failed
        if (node.opens === 0) contents.close(node)
      }
      const after = changed(node, change, now)
      const acl = change.mode === undefined ? undefined : node.xattrs?.get(accessAclName)
      if (acl) staging.setXattr(node, accessAclName, aclAfterChmod(acl, after.mode), after)
      else staging.setAttributes(node, after)
      return { attr: this.#box.attr(node), attrTtlMs: ttlMs }
    })
  }

  getxattr(ino: Ino, name: Buffer): Answer<Uint8Array> {
    const key = byteString(name)
    const found = this.#box.nodes.virtual(localOf(ino))
    if (found) return found.base.tree.xattr(found.row, name) ?? refusedXattrName(key) ?? Errno.ENODATA
    const node = this.#box.node(ino)
    if (!node) return Errno.ESTALE
    if (key === stateXattr || key === problemXattr) {
      const tree = node.id === rootId ? this.#box.trees.find(undefined) : node.parent === rootId && node.children ? this.#box.trees.containing(node.id) : undefined
      if (!tree || (tree.name === undefined && tree.state.kind !== 'committed' && this.#box.trees.isEmpty(tree))) return Errno.ENODATA
      if (key === stateXattr) return Buffer.from(describe(tree, performance.now(), this.#box.trees.options))
      return tree.problem === undefined ? Errno.ENODATA : Buffer.from(tree.problem)
    }
    return node.xattrs?.get(key) ?? refusedXattrName(key) ?? Errno.ENODATA
  }

  listxattr(ino: Ino): Answer<Uint8Array[]> {
    const found = this.#box.nodes.virtual(localOf(ino))
    if (found) return Array.from(found.base.tree.xattrs(found.row), ([name]) => name)
    const node = this.#box.node(ino)
    return node ? [...(node.xattrs?.keys() ?? [])].map(bytesOf) : Errno.ESTALE
  }

  setxattr(ino: Ino, name: Buffer, value: Buffer, flags: number, call: Call<void>): Answer<void> {
    const node = this.#box.node(ino)
    if (!node) return Errno.ESTALE
    const key = byteString(name)
    if (key === commitXattr) return this.#commitNow(node, byteString(value), call)
    if (key === stateXattr || key === problemXattr) return Errno.EPERM
    if (value.length > maxXattrBytes) return Errno.E2BIG
    const refusedName = refusedXattrName(key)
    if (refusedName) return refusedName
    const kept = Buffer.from(value)
    const killed = call.killSetId ? setGroupBit : 0
    return this.#box.altering(() => this.#box.treesOf(node), call, () => {
      if (!this.#box.isHere(node)) return Errno.ESTALE
      const { staging } = this.#box
      const exists = node.xattrs?.has(key) ?? false
      if (flags & xattrCreate && exists) return Errno.EEXIST
      if (flags & xattrReplace && !exists) return Errno.ENODATA
      let { mode } = node
      if (key === accessAclName || key === defaultAclName) {
        if (key === defaultAclName && !node.children) return Errno.EACCES
        const meant = modeOfAcl(node.mode, kept)
        if (meant === undefined) return Errno.EINVAL
        if (key === accessAclName) mode = meant & ~killed
      }
      staging.adopt(node)
      // An access ACL that says no more than the mode is not kept, as other file systems do.
      const value = key === accessAclName && kept.length <= 28 ? undefined : kept
      if (value || exists) staging.setXattr(node, key, value, { mode, ctimeNs: nowNs() })
      else staging.setAttributes(node, { mode, ctimeNs: nowNs() })
      return undefined
    })
  }

  removexattr(ino: Ino, name: Buffer, call: Call<void>): Answer<void> {
    const node = this.#box.node(ino)
    if (!node) return Errno.ESTALE
    const key = byteString(name)
    return this.#box.altering(() => this.#box.treesOf(node), call, () => {
      if (!this.#box.isHere(node)) return Errno.ESTALE
      // To have no ACL is a way to have one: its removal always succeeds, as elsewhere.
      if (!node.xattrs?.has(key)) return key === accessAclName || key === defaultAclName ? undefined : refusedXattrName(key) ?? Errno.ENODATA
      this.#box.staging.adopt(node)
      this.#box.staging.setXattr(node, key, undefined, { ctimeNs: nowNs() })
      return undefined
    })
  }

  /** setfattr -n user.borgfs.commit: commits the tree and waits; on incoming/ itself all of them, or the loose files only. */
  #commitNow(node: StagedNode, value: string, call: Call<void>): Answer<void> {
    const loose = node.id === rootId && value === onlyLoose
    if (node.id === rootId && !loose) {
      const answer = call.defer()
      this.#box.trees.commitAll(failures => answer(failures.length === 0 ? undefined : Errno.EAGAIN))
      return LATER
    }
    if (!loose && (node.parent !== rootId || !node.children)) return Errno.EINVAL
    const tree = loose ? this.#box.trees.of(undefined) : this.#box.trees.containing(node.id)
    if (!tree) return Errno.EINVAL
    return this.#box.whenThawed(() => [tree], call, later => {
      if (tree.state.kind === 'committed' || this.#box.trees.isEmpty(tree)) return undefined
      const refusal = this.#box.trees.refusal(tree)
      if (refusal !== undefined) {
        this.#box.trees.refused(tree, refusal)
        return Errno.EBUSY
      }
      const answer = later.defer()
      this.#box.trees.commit(tree, { patient: true }, (error: WireError | undefined) => answer(error ? errnoByCode(error.code) : undefined))
      return LATER
    })
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

/** What setattr makes of a node's attributes; `now` also where contents changed. */
function changed(node: StagedNode, { size, mode, uid, gid, atimeNs, mtimeNs }: AttrChange, now: bigint): NodeAttributes {
  return {
    mode: mode === undefined ? node.mode : (node.mode & typeMask) | (mode & 0o7777), uid: uid ?? node.uid, gid: gid ?? node.gid,
    atimeNs: atimeNs === 'now' ? now : atimeNs ?? node.atimeNs, mtimeNs: mtimeNs === 'now' ? now : mtimeNs ?? (size === undefined ? node.mtimeNs : now), ctimeNs: now,
  }
}

/** For live/, where it must not count as a change: rsync and touch -d set what is set already. */
function saysNothingNew(node: Attr, { size, mode, uid, gid, atimeNs, mtimeNs }: AttrChange): boolean {
  return (size === undefined || size === node.size) && (mode === undefined || (mode & 0o7777) === (node.mode & 0o7777)) && (uid === undefined || uid === node.uid)
    && (gid === undefined || gid === node.gid) && (mtimeNs === undefined || mtimeNs === node.mtimeNs) && (atimeNs === undefined || atimeNs === node.atimeNs || mtimeNs !== undefined)
}
