/**
 * MNT/incoming: the drop box, and MNT/live: a full POSIX tree in the thread that answers the kernel; what is copied in becomes archives by
 * trees.ts. Here is what the mount sees of it; who does it is names.ts, attributes.ts, handles.ts and listings.ts, by way of box.ts.
 */
import { idBytes } from '../../engine/constants.js'
import { bytesOf } from '../../engine/text.js'
import type { ShownArchive } from '../archives-dir.js'
import type { ChunkCache } from '../chunk-cache.js'
import type { Answer, AttrReply, Call, Created, DirectoryLoans, DirSink, KernelNotices, ReadAnswer, ReadBytes } from '../core.js'
import { isLeftBehind } from '../desktop-names.js'
import type { EngineClient } from '../engine-client.js'
import type { Likeness, SharedRange, Subtree } from '../subtree.js'
import type { AttrChange, Entry, Errno, Ino, Opened, StatFs } from '../types.js'
import { ArrivingFiles } from './arrivals.js'
import { Attributes } from './attributes.js'
import { Box, maxNameBytes } from './box.js'
import { nowNs } from './clock.js'
import { hostErrno, tidyUp } from './contents.js'
import type { Extents } from './extents.js'
import { Handles } from './handles.js'
import { Listings } from './listings.js'
import { LiveSeries } from './live-series.js'
import { Names } from './names.js'
import { rootId, type StagedNode } from './nodes.js'
import type { PolicyOptions } from './policy.js'
import type { StagingOptions } from './staging.js'
import type { TreeListener, Trees } from './trees.js'

export interface IncomingOptions extends StagingOptions, PolicyOptions {
  /** live: series to open at once. Byte strings. */
  readonly open?: readonly string[]
}

export class Incoming implements Subtree {
  readonly killsPrivileges = true
  readonly range: number
  readonly root: Ino
  readonly trees: Trees
  readonly #box: Box
  readonly #names: Names
  readonly #attributes: Attributes
  readonly #handles: Handles
  readonly #listings: Listings
  readonly #arrivals: ArrivingFiles | undefined

  /** `chunks`: asked for only when the mount is served. */
  constructor(options: IncomingOptions, client: EngineClient, notices: KernelNotices, listener: TreeListener, chunks: () => ChunkCache, loans?: DirectoryLoans) {
    const box = new Box(options, client, notices, listener, chunks)
    this.#box = box
    this.range = box.range
    this.root = box.root
    this.trees = box.trees
    this.#attributes = new Attributes(box)
    this.#handles = new Handles(box)
    this.#listings = new Listings(box)
    this.#arrivals = loans && new ArrivingFiles(box, this.#handles, loans, options.place === 'live')
    this.#names = new Names(box, this.#handles, this.#arrivals)
    const { undone } = box.staging
    if (undone.length > 0) client.write('warning', 'borg.fuse', `${undone.length} files of ${options.place}/ that were being changed when the machine failed are as they were before.`)
    if (box.staging.lostRecords > 0) client.write('warning', 'borg.fuse', `${box.staging.lostRecords} records of the staging journal were damaged; what they described is missing from ${options.place}/.`)
    if (options.place !== 'live') return
    box.live = new LiveSeries(box.staging, box.trees, client, {
      entry: node => box.entry(node),
      makeDirectory: (name, mode, call) => this.#names.makeDirectory(box.root, bytesOf(name), mode, call),
      refuses: name => name.length > maxNameBytes || isLeftBehind(name),
      drop: tree => box.dropTree(tree),
      touch: () => box.touch(box.nodes.get(rootId)!, nowNs()),
      isInUse: tree => this.#handles.isInUse(tree),
      isReplacing: () => box.replaced !== undefined,
      whenNothingIsReplaced: (call, work) => box.whenNothingIsReplaced(call, work),
      syncJournal: done => box.durability.syncJournal([], done),
    }, options.open ?? [])
  }

  /** Files and directories, with those that are only open; open files. */
  get counts(): { readonly nodes: number; readonly openFiles: number } {
    return { nodes: this.#box.nodes.count, openFiles: this.#handles.count }
  }

  rootEntry(): Entry {
    return this.#box.entry(this.#box.nodes.get(rootId)!)
  }

  tick(nowMs: number): void {
    const { durability, live, cuts, trees, staging } = this.#box
    // What fails is told by whoever makes things durable, and by the changes: nothing more is put off.
    this.#isRefused = hostErrno(() => staging.catchUp()) !== undefined
    staging.putsOff = !this.#isRefused
    if (!this.isLending) hostErrno(() => staging.bundles.tick(nowMs))
    durability.tick(nowMs)
    live?.tick()
    this.#handles.evict()
    cuts.tick(nowMs)
    trees.tick(nowMs)
    this.#box.giveBackMemory(nowMs)
  }

  lend(): void {
    this.#arrivals?.lend()
  }

  takeBack(): void {
    this.#arrivals?.takeBack()
  }

  /** A directory of it is lent. */
  get isLending(): boolean {
    return this.#arrivals?.isLending === true
  }

  get isBehind(): boolean {
    return (this.#box.staging.isBehind && !this.#isRefused) || this.isLending
  }
  /** The host did not take what was put off: that is tried again with each tick, but not sooner. */
  #isRefused = false

  /** Answers of the cutter are awaited: what it put into the stash is not known here yet. */
  get isCutting(): boolean {
    return this.#box.cuts.busy
  }

  /** Packed ids of the chunks that files here are made of, but for what lies in bases. */
  neededIds(): Uint8Array {
    return idsOf(this.#box.nodes.all(), this.#handles.awaitedExtents())
  }

  /** The places that are staged in beside this one, which refer to the same chunks. */
  set neighbours(places: readonly Incoming[]) {
    this.#box.neighbours = places.filter(place => place !== this).map(place => place.#box)
    this.trees.dependents = {
      neededIds: () => Buffer.concat(places.map(place => place.neededIds())),
      liesOver: archive => places.some(place => place.#box.live?.liesOver(archive)),
    }
  }

  /** Before a file of an archive is linked here: while that archive may be about to be replaced, it waits. */
  beforeLikeness(call: Call<Entry>, work: (call: Call<Entry>) => Answer<Entry>): Answer<Entry> {
    return this.#box.whenNothingIsReplaced(call, work)
  }

  set stashBytes(bytes: number) {
    this.#box.staging.stashBytes = bytes
  }

  archivesChanged(archives: Iterable<ShownArchive>): void {
    if (this.#box.live) this.#box.live.archives = archives
  }

  releaseAll(): void {
    this.#handles.releaseAll()
  }

  /** Calls `done` when what is staged is durable, or cannot be made so. */
  whenDurable(done: () => void): void {
    this.#box.durability.whenDurable(done)
  }

  destroy(): void {
    const { client, live, trees, staging } = this.#box
    // What is an archive need not linger for anybody.
    tidyUp(client, () => {
      for (const tree of [...trees.all()]) if (!live && tree.state.kind === 'committed') this.#box.dropTree(tree)
    })
    const lost = staging.close()
    if (lost) client.write('error', 'borg.fuse', this.#lossOf(lost))
  }

  /** At the end: what was put off and cannot be written, in a sentence. */
  get loss(): string | undefined {
    const lost = hostErrno(() => this.#box.staging.catchUp())
    return lost && this.#lossOf(lost)
  }

  #lossOf({ code }: Errno): string {
    return `What came to ${this.#box.live ? 'live' : 'incoming'}/ last and was not synced could not be written to the staging folder (${code}) and is lost.`
  }

  // --- names ---

  lookup(parent: Ino, name: Buffer, call: Call<Entry>): Answer<Entry> {
    return this.#names.lookup(parent, name, call)
  }

  readlink(ino: Ino): Answer<Uint8Array> {
    return this.#names.readlink(ino)
  }

  mknod(parent: Ino, name: Buffer, mode: number, rdev: number, call: Call<Entry>): Answer<Entry> {
    return this.#names.mknod(parent, name, mode, rdev, call)
  }

  mkdir(parent: Ino, name: Buffer, mode: number, call: Call<Entry>): Answer<Entry> {
    return this.#names.mkdir(parent, name, mode, call)
  }

  symlink(parent: Ino, name: Buffer, target: Buffer, call: Call<Entry>): Answer<Entry> {
    return this.#names.symlink(parent, name, target, call)
  }

  create(parent: Ino, name: Buffer, mode: number, flags: number, call: Call<Created>): Answer<Created> {
    return this.#names.create(parent, name, mode, flags, call)
  }

  link(ino: Ino, newParent: Ino, newName: Buffer, call: Call<Entry>): Answer<Entry> {
    return this.#names.link(ino, newParent, newName, call)
  }

  addLikeness(likeness: Likeness, parent: Ino, name: Buffer, call: Call<Entry>): Answer<Entry> {
    return this.#names.addLikeness(likeness, parent, name, call)
  }

  unlink(parent: Ino, name: Buffer, call: Call<void>): Answer<void> {
    return this.#names.unlink(parent, name, call)
  }

  rmdir(parent: Ino, name: Buffer, call: Call<void>): Answer<void> {
    return this.#names.rmdir(parent, name, call)
  }

  rename(parent: Ino, name: Buffer, newParent: Ino, newName: Buffer, flags: number, call: Call<void>): Answer<void> {
    return this.#names.rename(parent, name, newParent, newName, flags, call)
  }

  renameToRoot(parent: Ino, name: Buffer, newName: Buffer, flags: number, call: Call<void>): Answer<void> {
    return this.#names.renameToRoot(parent, name, newName, flags, call)
  }

  // --- attributes ---

  getattr(ino: Ino): Answer<AttrReply> {
    return this.#attributes.getattr(ino)
  }

  setattr(ino: Ino, change: AttrChange, call: Call<AttrReply>): Answer<AttrReply> {
    return this.#attributes.setattr(ino, change, call)
  }

  getxattr(ino: Ino, name: Buffer): Answer<Uint8Array> {
    return this.#attributes.getxattr(ino, name)
  }

  listxattr(ino: Ino): Answer<Uint8Array[]> {
    return this.#attributes.listxattr(ino)
  }

  setxattr(ino: Ino, name: Buffer, value: Buffer, flags: number, call: Call<void>): Answer<void> {
    return this.#attributes.setxattr(ino, name, value, flags, call)
  }

  removexattr(ino: Ino, name: Buffer, call: Call<void>): Answer<void> {
    return this.#attributes.removexattr(ino, name, call)
  }

  // --- open files ---

  open(ino: Ino, flags: number, call: Call<Opened>): Answer<Opened> {
    return this.#handles.open(ino, flags, call)
  }

  read(_ino: Ino, fh: number, offset: number, into: Buffer, call: Call<ReadBytes>): Answer<ReadAnswer> {
    return this.#handles.read(fh, offset, into, call)
  }

  sharedRange(_ino: Ino, fh: number, offset: number, length: number): SharedRange | Errno {
    return this.#handles.sharedRange(fh, offset, length)
  }

  cloneInto(_ino: Ino, fh: number, offset: number, range: SharedRange, call: Call<number>): Answer<number> {
    return this.#handles.cloneInto(fh, offset, range, call)
  }

  write(_ino: Ino, fh: number, offset: number, data: Buffer, call: Call<number>): Answer<number> {
    return this.#handles.write(fh, offset, data, call)
  }

  flush(_ino: Ino, fh: number): Answer<void> {
    return this.#handles.flush(fh)
  }

  fsync(_ino: Ino, fh: number, _dataOnly: boolean, call: Call<void>): Answer<void> {
    return this.#handles.fsync(fh, call)
  }

  fsyncdir(_ino: Ino, _fh: number, call: Call<void>): Answer<void> {
    return this.#box.durability.sync(undefined, call)
  }

  syncfs(call: Call<void>): Answer<void> {
    return this.#handles.syncfs(call)
  }

  release(_ino: Ino, fh: number): void {
    this.#handles.release(fh)
    this.#arrivals?.closed()
  }

  fallocate(_ino: Ino, fh: number, mode: number, offset: number, length: number, call: Call<void>): Answer<void> {
    return this.#handles.fallocate(fh, mode, offset, length, call)
  }

  lseek(_ino: Ino, fh: number, offset: number, whence: number): Answer<number> {
    return this.#handles.lseek(fh, offset, whence)
  }

  // --- listings ---

  opendir(ino: Ino, call: Call<Opened>): Answer<Opened> {
    return this.#listings.opendir(ino, call)
  }

  readdir(ino: Ino, fh: number, cookie: number, sink: DirSink): Answer<void> {
    return this.#listings.readdir(ino, fh, cookie, sink)
  }

  releasedir(_ino: Ino, fh: number): void {
    this.#listings.releasedir(fh)
  }

  statfs(): Answer<StatFs> {
    let value: StatFs | undefined
    const failed = hostErrno(() => {
      const facts = this.#box.staging.statfs()
      value = { ...facts, frsize: facts.bsize, namelen: maxNameBytes }
    })
    return failed ?? value!
  }
}

function idsOf(nodes: Iterable<StagedNode>, awaited: Iterable<Extents>): Uint8Array {
  const needed = [...awaited]
  for (const { extents, befores } of nodes) {
    if (extents) needed.push(extents)
    for (const before of befores) if (before.extents) needed.push(before.extents)
  }
  const ids = new Uint8Array(needed.reduce((sum, { count }) => sum + count, 0) * idBytes)
  let at = 0
  for (const extents of needed) {
    for (let index = 0; index < extents.count; index++, at += idBytes) ids.set(extents.get(index).id, at)
  }
  return ids
}
