/**
 * The numbered files of the log and the directories they lie in (repository.md §3): which there are, and how they go. Knows nothing of what
 * is in them.
 */
import { readdirSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { errnoOf, saysNoRoom } from '../errors.js'
import { files } from '../platform/files.js'
import { syncDirectory } from '../platform/save-file.js'

export class SegmentFolder {
  readonly path: string
  readonly #perDirectory: number
  /** Directories with removals that a power failure may undo. */
  readonly #removedFrom = new Set<string>()

  constructor(path: string, segmentsPerDir: number) {
    this.path = path
    this.#perDirectory = segmentsPerDir
  }

  pathOf(segment: number): string {
    return join(this.path, String(Math.floor(segment / this.#perDirectory)), String(segment))
  }

  /** Ascending, empty ones included: what a full disk leaves when not even the magic could be written. */
  all(): number[] {
    return this.#directories().flatMap(name => this.#filesIn(name)).sort((a, b) => a - b)
  }

  /** Numbers of the non-empty files above `after`, ascending. */
  numbers(after = -1): number[] {
    return this.all().filter(segment => segment > after && this.size(segment) > 0)
  }

  /** All, highest first, directory by directory: whoever only wants the end of the log looks at that. */
  *descending(): Generator<number> {
    for (const name of this.#directories().reverse()) yield* this.#filesIn(name).reverse()
  }

  /** Number of the first non-empty file, undefined without one. */
  first(): number | undefined {
    for (const name of this.#directories()) for (const segment of this.#filesIn(name)) if (this.size(segment) > 0) return segment
    return undefined
  }

  /** Bytes of a file on disk, 0 if it is missing. */
  size(segment: number): number {
    try {
      return statSync(this.pathOf(segment)).size
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return 0
      throw error
    }
  }

  /** Deletes a file; where even that takes space that is not there, as on copy-on-write file systems, it is emptied first. */
  remove(segment: number): void {
    const path = this.pathOf(segment)
    this.#removedFrom.add(dirname(path))
    try {
      files.removeIfThere(path)
    } catch (error) {
      if (!saysNoRoom(errnoOf(error))) throw error
      // A copy of the repository by hard links has the same content.
      if (statSync(path).nlink > 1) throw error
      files.truncate(path, 0)
      files.remove(path)
    }
  }

  /** What was removed so far stays removed. */
  syncRemovals(): void {
    for (const directory of this.#removedFrom) syncDirectory(directory)
    this.#removedFrom.clear()
  }

  /** Removes what a repair that was killed left beside the segments: each may be as large as one. */
  removeTemporaries(): void {
    for (const name of this.#directories()) {
      for (const file of readdirSync(join(this.path, name))) if (/^\d+-\w+\.tmp$/.test(file)) files.removeIfThere(join(this.path, name, file))
    }
  }

  /** Removes directories that became empty. That of `transaction` stays: Borg makes one only for its first segment. */
  removeEmptyDirectories(transaction: number): void {
    const current = Math.floor(transaction / this.#perDirectory)
    let removed = false
    for (const name of this.#directories()) {
      if (Number(name) >= current || readdirSync(join(this.path, name)).length > 0) continue
      files.removeDirectory(join(this.path, name))
      removed = true
    }
    if (removed) syncDirectory(this.path)
  }

  #filesIn(directory: string): number[] {
    return readdirSync(join(this.path, directory)).filter(name => /^\d+$/.test(name)).map(Number).sort((a, b) => a - b)
  }

  /** In the order of their numbers. */
  #directories(): string[] {
    try {
      return readdirSync(this.path).filter(name => /^\d+$/.test(name)).sort((a, b) => Number(a) - Number(b))
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return []
      throw error
    }
  }
}
