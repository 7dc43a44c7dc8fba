/**
 * The archives of a mounted repository as directories of the root. Names come from the manifest; the list is replaced whole
 * when it changes. An archive that is gone keeps its inode range, which is never another's, until the kernel has forgotten all of it,
 * so that files that are still open go on working.
 */
import type { Log } from '../engine/log.js'
import type { KernelNotices } from './core.js'
import { byteString, bytesOf, shownText } from '../engine/text.js'
import { ArchiveFiles, type ArchiveFilesContext } from './archive-files.js'
import type { ArchiveInfo } from './engine-port.js'
import { inodeRange, inoOf, rootIno } from './inodes.js'
import type { Ino } from './types.js'

/** Trees that are not in use are dropped past this, the least recently entered first. */
const maxTreeBytes = 768 * 1024 * 1024

export interface ShownArchive {
  readonly name: Buffer
  readonly files: ArchiveFiles
}

export class ArchivesDir {
  readonly #context: ArchiveFilesContext
  readonly #log: Log
  /** Byte strings that other parts of the root use. */
  readonly #reserved: ReadonlySet<string>
  /** Shown name as a byte string -> archive, in the order of first sight. */
  #shown = new Map<string, ShownArchive>()
  readonly #byRange = new Map<number, ArchiveFiles>()
  /** Gone, but of use to somebody. */
  readonly #retired = new Set<ArchiveFiles>()
  #nextRange: number = inodeRange.firstArchive

  constructor(context: Omit<ArchiveFilesContext, 'treeLoaded' | 'unused'>, reserved: ReadonlySet<string>, log: Log) {
    this.#context = { ...context, treeLoaded: (files) => this.#bound(files), unused: files => this.#forget(files) }
    this.#reserved = reserved
    this.#log = log
  }

  /** Archives in listing order, which is that of their ranges. */
  get archives(): Iterable<ShownArchive> {
    return this.#shown.values()
  }

  /** Archives that are shown or still in use, and their open files. */
  get counts(): { readonly archives: number; readonly openFiles: number } {
    let openFiles = 0
    for (const files of this.#byRange.values()) openFiles += files.openCount
    return { archives: this.#byRange.size, openFiles }
  }

  byName(name: Uint8Array): ArchiveFiles | undefined {
    return this.#shown.get(byteString(name))?.files
  }

  byRange(range: number): ArchiveFiles | undefined {
    return this.#byRange.get(range)
  }

  /** Takes the complete new list. Returns the names that changed hands: gone, come, or of another archive now. */
  replace(archives: readonly ArchiveInfo[]): Buffer[] {
    const known = new Map<string, ArchiveFiles>()
    for (const { files } of this.#shown.values()) known.set(identity(files.info), files)
    const kept: ArchiveFiles[] = [], fresh: ArchiveFiles[] = []
    for (const info of archives) {
      const files = known.get(identity(info))
      if (files) kept.push(files)
      else fresh.push(this.#newFiles(info))
    }
    kept.sort((a, b) => a.range - b.range)
    const before = this.#shown
    const after = new Map<string, ShownArchive>()
    for (const files of [...kept, ...fresh]) {
      const name = this.#nameFor(files, after)
      after.set(byteString(name), { name, files })
    }
    this.#shown = after
    const changed: Buffer[] = []
    for (const [key, { name, files }] of before) {
      if (after.get(key)?.files === files) continue
      changed.push(name)
      if (kept.includes(files)) continue
      this.#retired.add(files)
      files.retire()
    }
    for (const [key, { name }] of after) if (!before.has(key)) changed.push(name)
    return changed
  }

  #forget(files: ArchiveFiles): void {
    this.#byRange.delete(files.range)
    this.#retired.delete(files)
  }

  tick(notices: KernelNotices, nowMs: number): void {
    for (const files of this.#retired) files.askToForget(notices, nowMs)
  }

  /** The archive's name, with `~` where something else has it. */
  #nameFor(files: ArchiveFiles, taken: ReadonlyMap<string, unknown>): Buffer {
    const stored = byteString(files.info.name)
    let name = stored
    while (this.#reserved.has(name) || taken.has(name) || name === '.' || name === '..') name += '~'
    if (name !== stored && !this.#warned.has(stored)) {
      this.#warned.add(stored)
      this.#log.write('warning', 'borg.fuse', `Archive ${shownText(files.info.name)} is shown as ${shownText(bytesOf(name))}.`)
    }
    return bytesOf(name)
  }
  readonly #warned = new Set<string>()

  #newFiles(info: ArchiveInfo): ArchiveFiles {
    const range = this.#nextRange++
    const files = new ArchiveFiles(info, inoOf(range, 0) as Ino, rootIno, this.#context)
    this.#byRange.set(range, files)
    return files
  }

  #bound(latest: ArchiveFiles): void {
    const loaded = [...this.#byRange.values()].filter((files) => files.treeBytes > 0)
    let total = loaded.reduce((sum, files) => sum + files.treeBytes, 0)
    loaded.sort((a, b) => a.lastUse - b.lastUse)
    for (const files of loaded) {
      if (total <= maxTreeBytes) return
      if (files === latest) continue
      total -= files.treeBytes
      files.dropTree()
    }
  }
}

/** The same archive under the same name. */
function identity(info: ArchiveInfo): string {
  return `${info.id} ${byteString(info.name)}`
}
