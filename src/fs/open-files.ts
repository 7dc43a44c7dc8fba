/** The open files of an archive: by handle, how often each is open, and those that share the handle of what was handed out. */
import type { ArchiveTree } from './archive-tree.js'
import type { OpenFile } from './file-reader.js'
import { handedHandle, HandedFiles } from './handed-files.js'

/** Beyond it they are looked up anew. */
const maxLostFiles = 64

export class OpenFiles {
  readonly #byHandle = new Map<number, OpenFile>()
  /** Rows that are open by handles of their own -> how often. */
  readonly #counts = new Map<number, number>()
  #nextHandle = handedHandle + 1
  #handed = new HandedFiles(0)
  /** The tree of files handed out and open, where the archive dropped it. */
  #keptTree: ArchiveTree | undefined
  /** Files handed out that the kernel asks for after all. */
  readonly #lost = new Map<number, OpenFile>()

  get count(): number {
    return this.#byHandle.size + this.#handed.opens[0]!
  }

  /** Of as many rows as the tree has that was shown. */
  get handed(): HandedFiles {
    return this.#handed
  }

  /** The archive's tree has come, for the first time or once more. */
  show(tree: ArchiveTree): void {
    this.#keptTree = undefined
    if (this.#handed.states.length !== tree.rowCount) this.#handed = new HandedFiles(tree.rowCount)
  }

  /** And goes. */
  drop(tree: ArchiveTree): void {
    if (this.#handed.opens[0]! > 0) this.#keptTree ??= tree
    this.#lost.clear()
  }

  /** `isFirst`: nobody else has the file open. */
  add(file: OpenFile): { readonly fh: number; readonly isFirst: boolean } {
    const fh = this.#nextHandle++
    this.#byHandle.set(fh, file)
    const others = this.#counts.get(file.row) ?? 0
    this.#counts.set(file.row, others + 1)
    return { fh, isFirst: others === 0 }
  }

  /** By a handle of its own. */
  isOpen(row: number): boolean {
    return this.#counts.has(row)
  }

  get(fh: number): OpenFile | undefined {
    return this.#byHandle.get(fh)
  }

  /**
   * A file that was handed out and is read: what the kernel was given it has lost. `tree`: the present one, if it has its chunk rows. Undefined if
   * another has to be loaded first.
   */
  getLost(row: number, tree: ArchiveTree | undefined, make: (tree: ArchiveTree) => OpenFile): OpenFile | undefined {
    const known = this.#lost.get(row)
    if (known) return known
    const of = tree ?? this.#keptTree
    if (!of?.has(row) || !of.isRegular(row)) return undefined
    if (this.#lost.size >= maxLostFiles) this.#lost.clear()
    const file = make(of)
    this.#lost.set(row, file)
    return file
  }

  /** False if there is no such handle. */
  remove(fh: number): boolean {
    if (fh === handedHandle) {
      const was = this.#handed.release()
      if (this.#handed.opens[0] === 0) this.#keptTree = undefined
      return was
    }
    const file = this.#byHandle.get(fh)
    if (!file) return false
    this.#byHandle.delete(fh)
    const others = this.#counts.get(file.row)! - 1
    if (others > 0) this.#counts.set(file.row, others)
    else this.#counts.delete(file.row)
    return true
  }

  clear(): void {
    this.#byHandle.clear()
    this.#counts.clear()
    this.#lost.clear()
    this.#keptTree = undefined
  }
}
