/**
 * What is loaded of one archive, and who waits for it: its head (what its own directory looks like, facts), its tree, and the tree's chunk rows, which a
 * kept tree leaves for later. The engine thread is asked for each once, however many want it. A tree may be dropped and come again: inode
 * numbers are rows, so the same archive gives the same numbers.
 */
import { letGoShared } from '../engine/shared-garbage.js'
import { shownText } from '../engine/text.js'
import { ArchiveTree } from './archive-tree.js'
import { type Answer, answerLate, type Call, LATER } from './core.js'
import type { EngineClient } from './engine-client.js'
import type { ArchiveHead, ArchiveInfo, WireError } from './engine-port.js'
import { errnoByCode } from './errno.js'
import { Errno, type Ino } from './types.js'
import { Waiters } from './waiters.js'

/** Who shows the tree. */
export interface TreeListener {
  /** A tree has come. Called before those who waited for it; what it gives is called after them. */
  treeComes(tree: ArchiveTree): () => void
  treeGoes(tree: ArchiveTree): void
  /** Its chunk rows have come, and all who waited were told. */
  treeGrew(): void
}

export class ArchiveLoads {
  readonly #root: Ino
  readonly #client: EngineClient
  readonly #listener: TreeListener
  #info: ArchiveInfo
  #head: ArchiveHead | undefined
  #tree: ArchiveTree | undefined
  readonly #headWaiters = new Waiters<[error: Errno | undefined]>()
  readonly #treeWaiters = new Waiters<[error: Errno | undefined]>()
  #chunkWaiters: { readonly tree: ArchiveTree; readonly waiters: Waiters<[error: Errno | undefined, tree: ArchiveTree | undefined]> } | undefined
  /** One number, which orders the uses of all archives. Shared: the addon's answers count as well. */
  readonly lastUse = oneNumber()

  /** `root`: the inode of the tree's first row. */
  constructor(info: ArchiveInfo, root: Ino, client: EngineClient, listener: TreeListener) {
    this.#info = info
    this.#root = root
    this.#client = client
    this.#listener = listener
  }

  get info(): ArchiveInfo {
    return this.#info
  }

  get head(): ArchiveHead | undefined {
    return this.#head
  }

  get tree(): ArchiveTree | undefined {
    return this.#tree
  }

  /** Somebody waits for something of it. */
  get awaited(): boolean {
    return this.treeAwaited || this.#headWaiters.any || this.#chunkWaiters !== undefined
  }

  get treeAwaited(): boolean {
    return this.#treeWaiters.any
  }

  /** The same files as another archive: it was renamed or got another comment. */
  become(info: ArchiveInfo): void {
    this.#info = info
    this.#head = undefined
  }

  used(): void {
    this.lastUse[0] = useClock[0]! += 1
  }

  /** Forgets the tree. */
  dropTree(): void {
    const tree = this.#tree
    if (tree) this.#listener.treeGoes(tree)
    this.#tree = undefined
    letGoShared(tree?.byteLength ?? 0)
  }

  /** Runs `work` with names and attributes, now or when they are loaded: chunk rows may be missing. */
  withTree<T>(call: Call<T>, work: (tree: ArchiveTree) => T | Errno): Answer<T> {
    this.used()
    if (this.#tree) return work(this.#tree)
    const answer = call.defer()
    this.whenTree(error => answerLate(answer, () => error ?? work(this.#tree!)))
    return LATER
  }

  /** The same with the whole tree. */
  withChunks<T>(call: Call<T>, work: (tree: ArchiveTree) => T | Errno): Answer<T> {
    this.used()
    if (this.#tree?.hasChunks) return work(this.#tree)
    const answer = call.defer()
    this.whenChunks((error, tree) => answerLate(answer, () => error ?? work(tree!)))
    return LATER
  }

  whenHead(done: (error: Errno | undefined) => void): void {
    if (this.#headWaiters.add(done)) this.#askForHead()
  }

  #askForHead(): void {
    const { id } = this.#info
    this.#client.request({ kind: 'head', archive: id }, (error, head) => {
      if (this.#isAnother(id)) return this.#askForHead()
      if (!error) this.#head = head
      this.#headWaiters.tell(error && this.#failed(error))
    })
  }

  /** Only while there is no tree. */
  whenTree(done: (error: Errno | undefined) => void): void {
    if (this.#treeWaiters.add(done)) this.#askForTree()
  }

  #askForTree(): void {
    const { id } = this.#info
    this.#client.request({ kind: 'tree', archive: id }, (error, columns) => {
      if (error) return this.#isAnother(id) ? this.#askForTree() : this.#treeWaiters.tell(this.#failed(error))
      let allTold: (() => void) | undefined
      let failed: Errno | undefined = Errno.EIO
      try {
        const tree = new ArchiveTree(columns, this.#root)
        allTold = this.#listener.treeComes(tree)
        this.#tree = tree
        failed = undefined
      } finally {
        this.#treeWaiters.tell(failed)
      }
      allTold()
    })
  }

  /** Renamed, or given another comment, since it was asked for under this id: the files are the same. */
  #isAnother(id: string): boolean {
    return this.#info.id !== id
  }

  /** Given a tree with its chunk rows. */
  whenChunks(done: (error: Errno | undefined, tree: ArchiveTree | undefined) => void): void {
    const tree = this.#tree
    if (!tree) {
      this.whenTree((error) => {
        if (error) done(error, undefined)
        else this.whenChunks(done)
      })
      return
    }
    if (tree.hasChunks) return done(undefined, tree)
    // A tree that was dropped meanwhile still gets what was asked for it.
    if (this.#chunkWaiters?.tree !== tree) this.#chunkWaiters = { tree, waiters: new Waiters() }
    const { waiters } = this.#chunkWaiters
    if (waiters.add(done)) this.#askForChunks(tree, waiters)
  }

  #askForChunks(tree: ArchiveTree, waiters: Waiters<[error: Errno | undefined, tree: ArchiveTree | undefined]>): void {
    const { id } = this.#info
    this.#client.request({ kind: 'tree-chunks', archive: id }, (error, chunks) => {
      if (error && this.#isAnother(id)) return this.#askForChunks(tree, waiters)
      if (this.#chunkWaiters?.tree === tree) this.#chunkWaiters = undefined
      let errno = error && this.#failed(error)
      if (!error) {
        if (chunks.length === tree.chunkBytes) tree.setChunks(chunks)
        else errno = this.#failed({ code: 'EIO', msgid: undefined, message: 'its chunks are not those of its files' })
      }
      waiters.tell(errno, tree)
      if (!errno) this.#listener.treeGrew()
    })
  }

  /** Asked for so seldom, and so dear, that nothing of it is kept here. */
  whenDeduplicatedSize(done: (answer: number | Errno) => void): void {
    this.#client.request({ kind: 'deduplicated-size', archive: this.#info.id }, (error, size) => done(error ? this.#failed(error) : size))
  }

  #failed(error: WireError): Errno {
    this.#client.write('error', 'borg.fuse', `Archive ${shownText(this.#info.name)} cannot be read: ${error.message}`)
    return errnoByCode(error.code)
  }
}

const oneNumber = (): Float64Array => new Float64Array(new SharedArrayBuffer(8))
/** Counts the uses of all archives. */
export const useClock = oneNumber()
