/**
 * New small files that somebody makes one after the other (cp, tar -x): the directory they come to is lent to the transport, which answers for them by itself
 * from their creation to their close. What arrived is taken over before anything else happens, so nobody here can tell the difference.
 */
import type { Arrivals, DirectoryLoans } from '../core.js'
import { inoOf } from '../inodes.js'
import { defaultAclName } from './acl.js'
import { type Box, ttlMs } from './box.js'
import type { LentRoom } from './bundles.js'
import { nowNs, toldUntil } from './clock.js'
import { hostErrno } from './contents.js'
import type { Handles } from './handles.js'
import { changeRoomBytes } from './journal.js'
import { maxId, rootId, type StagedNode } from './nodes.js'
import type { StagedTree } from './policy.js'
import { setGroupBit } from './set-id.js'

/** Beside the name, in the journal. */
const recordBytes = 288
/** Names of a directory that are told anew for a loan: these, or so many for each file that came by the last one, and for each time that it was not lent for their number. */
const fewNames = 256, namesPerArrival = 16, namesPerRefusal = 64

/** What is asked of a new directory comes before its files: so often it is lent in vain. */
const mostVain = 8

interface Lent {
  readonly directory: StagedNode
  readonly tree: StagedTree
  readonly room: LentRoom
  readonly firstId: number
  readonly firstFh: number
}

export class ArrivingFiles {
  readonly #box: Box
  readonly #handles: Handles
  readonly #loans: DirectoryLoans
  readonly #isLive: boolean
  /** Directories: in which a file was made that is not closed yet, and which is to be lent. */
  #made: number | undefined
  #expected: number | undefined
  #lent: Lent | undefined
  /** The directory whose names the transport has, and `Nodes.namesAdded` of then. */
  #told: { readonly directory: number; readonly namesAdded: number } | undefined
  #cameLast = 0
  /** Loans by which nothing came, one after the other. */
  #vain = 0

  constructor(box: Box, handles: Handles, loans: DirectoryLoans, isLive: boolean) {
    this.#box = box
    this.#handles = handles
    this.#loans = loans
    this.#isLive = isLive
  }

  /** A directory was made: files may come to it. */
  madeDirectory({ id }: StagedNode): void {
    this.#vain = 0
    this.#expected = id
  }

  /** A file was made; when it is closed, others may follow. */
  madeFile({ parent }: StagedNode): void {
    this.#made = parent
  }

  closed(): void {
    if (this.#made === undefined) return
    this.#expected = this.#made
    this.#made = undefined
    this.#vain = 0
  }

  get isLending(): boolean {
    return this.#lent !== undefined
  }

  lend(): void {
    if (this.#expected === undefined || this.#loans.isLent) return
    const directory = this.#box.nodes.peek(this.#expected)
    this.#expected = undefined
    // On a full disk it goes on without.
    if (directory) hostErrno(() => this.#lend(directory))
  }

  #lend(directory: StagedNode): void {
    const { nodes, staging, trees, passing, range } = this.#box
    const { journal, bundles } = staging
    const { id, children, mode, known, nlink, origin, xattrs } = directory
    if (id === rootId || !children || !known || nlink === 0 || origin || mode & setGroupBit || xattrs?.has(defaultAclName) || passing.size > 0 || !journal.isPuttingOff) return
    const tree = trees.containing(id)
    // What is an archive as it stands stays one until somebody does change it.
    if (!tree || tree.frozen || !trees.isChanging(tree)) return
    const untold = this.#told?.directory === id ? nodes.namesSince(this.#told.namesAdded, id) : undefined
    if (!untold && !this.#mayTell(directory)) return
    journal.ready(changeRoomBytes + this.#loans.maxNameBytes + this.#loans.maxFiles * recordBytes)
    const room = bundles.lend()
    if (!room || !staging.mayGrow(room.room)) return
    const { nextId: firstId } = nodes
    if (firstId + this.#loans.maxFiles >= maxId) return
    const { nextHandle: firstFh } = this.#handles
    const isLent = this.#loans.lend({
      directory: this.#box.attr(directory), ttlMs, isLive: this.#isLive, firstIno: inoOf(range, firstId), firstFh, clockNs: nowNs(), data: room.data, dataStart: room.start, dataRoom: room.room,
      names: untold ?? children.keys(), nameCount: children.size, keepsNames: untold !== undefined,
    })
    this.#told = isLent ? { directory: id, namesAdded: nodes.namesAdded } : undefined
    if (isLent) this.#lent = { directory, tree, room, firstId, firstFh }
  }

  /** All names of a directory are told anew only for what makes up for that. */
  #mayTell({ id, children }: StagedNode): boolean {
    if (this.#refused?.directory !== id) this.#refused = { directory: id, times: 0 }
    return children!.size <= Math.max(fewNames, namesPerArrival * this.#cameLast, namesPerRefusal * ++this.#refused.times)
  }
  #refused: { readonly directory: number; times: number } | undefined

  takeBack(): void {
    const lent = this.#lent
    if (!lent) return
    this.#lent = undefined
    const arrivals = this.#loans.end()
    this.#cameLast = arrivals.files.length
    this.#vain = this.#cameLast > 0 ? 0 : this.#vain + 1
    if (this.#cameLast > 0) this.#take(lent, arrivals)
    if (this.#vain < mostVain) this.#expected = lent.directory.id
  }

  #take({ directory, tree, room: { place }, firstId, firstFh }: Lent, { files, dataLength, directoryNs, lastNs }: Arrivals): void {
    const { nodes, staging, trees, durability, cuts } = this.#box
    const { journal, bundles } = staging
    const closed: StagedNode[] = []
    toldUntil(lastNs)
    // Whatever happens, what the kernel has is not given again.
    this.#handles.given(files.length)
    nodes.passOver(firstId + files.length - 1)
    const filled = files.filter(({ size }) => size > 0).length
    if (filled > 0) bundles.arrived(dataLength, filled)
    for (const [index, { name, dataStart, size, isOpen, flags, ...facts }] of files.entries()) {
      const node = nodes.add(directory, name, { ...facts, rdev: 0 }, firstId + index)
      journal.created(node, directory.id, name)
      if (size > 0) {
        const lies = { bundle: place.bundle, start: place.start + dataStart }
        journal.placed(node.id, lies, size)
        staging.counting(node, () => Object.assign(node, { place: lies, size }))
      }
      if (isOpen) this.#handles.openNew(node, flags, firstFh + index)
      else closed.push(node)
    }
    this.#told = { directory: directory.id, namesAdded: nodes.namesAdded }
    this.#box.touch(directory, directoryNs)
    trees.changed(tree)
    durability.noteChange()
    for (const node of closed) cuts.closed(node)
  }
}
