/** The open files of an archive: by handle, and how often each is open. */
import type { OpenFile } from './file-reader.js'

export class OpenFiles {
  readonly #byHandle = new Map<number, OpenFile>()
  /** Rows that are open -> how often. */
  readonly #counts = new Map<number, number>()
  #nextHandle = 1

  get count(): number {
    return this.#byHandle.size
  }

  /** `isFirst`: nobody else has the file open. */
  add(file: OpenFile): { readonly fh: number; readonly isFirst: boolean } {
    const fh = this.#nextHandle++
    this.#byHandle.set(fh, file)
    const others = this.#counts.get(file.row) ?? 0
    this.#counts.set(file.row, others + 1)
    return { fh, isFirst: others === 0 }
  }

  isOpen(row: number): boolean {
    return this.#counts.has(row)
  }

  get(fh: number): OpenFile | undefined {
    return this.#byHandle.get(fh)
  }

  /** False if there is no such handle. */
  remove(fh: number): boolean {
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
  }
}
