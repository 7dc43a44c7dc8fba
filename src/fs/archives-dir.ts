/**
 * The archives of a mounted repository as directories of the root. Names come from the manifest; the list is replaced whole
 * when it changes. An archive that is gone keeps its inode range, which is never another's, until the kernel has forgotten all of it,
 * so that files that are still open go on working.
 */
import type { Log } from '../engine/log.js'
import type { KernelNotices } from './core.js'
import { byteString, bytesOf, shownText } from '../engine/text.js'
import { ArchiveAlias } from './archive-alias.js'
import { ArchiveFiles, type ArchiveFilesContext } from './archive-files.js'
import type { ArchiveInfo } from './engine-port.js'
import { inodeRange, inodeRangeCount, inoOf, rootIno } from './inodes.js'
import type { Ino } from './types.js'
import { mergedId } from './versions.js'

/** Trees that are not in use are dropped past this, the least recently entered first. */
const maxTreeBytes = 768 * 1024 * 1024

export interface ShownArchive {
  readonly name: Buffer
  readonly files: ArchiveFiles
}

/** The archives that the root shows, in its order, and what other parts of the mount show of them. */
export interface ShownArchives extends Iterable<ShownArchive> {
  /**
   * An archive at a further place, below the directory `parent` by that name, a byte string; asked again for the same place it is the same. Undefined
   * if it is gone.
   */
  again(archive: ShownArchive, parent: Ino, name: string): ArchiveAlias | undefined
  /** All of them as one tree of versions, below `parent` by that name. Another one when the list has changed. */
  merged(parent: Ino, name: string): ArchiveFiles
}

export class ArchivesDir implements ShownArchives {
  readonly #context: ArchiveFilesContext
  readonly #log: Log
  /** Byte strings that other parts of the root use. */
  readonly #reserved: ReadonlySet<string>
  /** Shown name as a byte string -> archive, in the order of first sight. */
  #shown = new Map<string, ShownArchive>()
  /** Ids as the manifest lists them. */
  #ids: readonly string[] = []
  readonly #byRange = new Map<number, ArchiveFiles>()
  /** Gone, but of use to somebody. */
  readonly #retired = new Set<ArchiveFiles>()
  readonly #aliases = new Map<number, ArchiveAlias>()
  readonly #places = new WeakMap<ArchiveFiles, Map<Ino, ArchiveAlias>>()
  #merged: { readonly files: ArchiveFiles; readonly name: string } | undefined
  #mergedBefore: ArchiveFiles | undefined
  /** Further places whose archive is gone, which the kernel was not told yet. */
  readonly #gonePlaces: { readonly parent: Ino; readonly name: Buffer }[] = []
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
    return { archives: this.#byRange.size - (this.#merged ? 1 : 0), openFiles }
  }

  [Symbol.iterator](): Iterator<ShownArchive> {
    return this.#shown.values()
  }

  byName(name: Uint8Array): ArchiveFiles | undefined {
    return this.#shown.get(byteString(name))?.files
  }

  byRange(range: number): ArchiveFiles | undefined {
    return this.#byRange.get(range)
  }

  aliasByRange(range: number): ArchiveAlias | undefined {
    return this.#aliases.get(range)
  }

  again({ files }: ShownArchive, parent: Ino, name: string): ArchiveAlias | undefined {
    if (this.#retired.has(files) || this.#byRange.get(files.range) !== files) return undefined
    let places = this.#places.get(files)
    if (!places) this.#places.set(files, places = new Map())
    let alias = places.get(parent)
    if (!alias) {
      alias = new ArchiveAlias(files, inoOf(this.#newRange(), 0), parent, bytesOf(name))
      places.set(parent, alias)
      this.#aliases.set(alias.range, alias)
    }
    return alias
  }

  merged(parent: Ino, name: string): ArchiveFiles {
    this.#merged ??= { files: this.#newFiles({ name: mergedName, id: mergedId(this.#ids), timeNs: this.#newestNs, merged: true }, parent), name }
    return this.#merged.files
  }

  /** Who is still in the one before goes on there; nobody keeps more. */
  #replaceMerged(): void {
    if (!this.#merged || this.#merged.files.info.id === mergedId(this.#ids)) return
    const { files, name } = this.#merged
    this.#merged = undefined
    this.#mergedBefore?.dropTree()
    this.#mergedBefore = files
    this.#gonePlaces.push({ parent: files.above, name: bytesOf(name) })
    this.#retired.add(files)
    files.retire({ keepsTree: true })
  }

  get #newestNs(): bigint {
    let newest = 0n
    for (const { files: { info: { timeNs } } } of this) if (timeNs > newest) newest = timeNs
    return newest
  }

  /** Takes the complete new list. Returns the names that changed hands: gone, come, or of another archive now. */
  replace(archives: readonly ArchiveInfo[]): Buffer[] {
    this.#ids = archives.map(({ id }) => id)
    this.#replaceMerged()
    const known = new Map<string, ArchiveFiles>()
    for (const { files } of this.#shown.values()) known.set(identity(files.info), files)
    const kept: ArchiveFiles[] = [], fresh: ArchiveFiles[] = []
    for (const info of archives) {
      const files = known.get(identity(info))
      if (files) kept.push(files)
      else fresh.push(this.#newFiles(info))
    }
    const before = this.#shown
    const after = new Map<string, ShownArchive>()
    // What comes has higher ranges than what is there, until all have been used once.
    for (const files of [...kept, ...fresh].sort((a, b) => a.range - b.range)) {
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
      for (const { above, name: placeName } of this.#placesOf(files)) this.#gonePlaces.push({ parent: above, name: placeName })
      files.retire()
    }
    for (const [key, { name }] of after) if (!before.has(key)) changed.push(name)
    return changed
  }

  #forget(files: ArchiveFiles): void {
    this.#byRange.delete(files.range)
    this.#retired.delete(files)
    if (files === this.#mergedBefore) this.#mergedBefore = undefined
    for (const alias of this.#placesOf(files)) this.#aliases.delete(alias.range)
    // It may have come since for somebody who was waiting.
    files.dropTree()
  }

  #placesOf(files: ArchiveFiles): ArchiveAlias[] {
    return [...this.#places.get(files)?.values() ?? []]
  }

  tick(notices: KernelNotices, nowMs: number): void {
    for (const { parent, name } of this.#gonePlaces.splice(0)) notices.invalidateEntry(parent, name)
    for (const files of this.#retired) files.askToForget(notices, nowMs, this.#placesOf(files).map(({ root }) => root))
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

  #newFiles(info: ArchiveInfo, parent: Ino = rootIno): ArchiveFiles {
    const range = this.#newRange()
    const files = new ArchiveFiles(info, inoOf(range, 0), parent, this.#context)
    this.#byRange.set(range, files)
    return files
  }

  /** One that nobody has; it may have been that of something forgotten when two million were used. */
  #newRange(): number {
    for (let tried = inodeRange.firstArchive; tried < inodeRangeCount; tried++) {
      const range = this.#nextRange
      this.#nextRange = range + 1 < inodeRangeCount ? range + 1 : inodeRange.firstArchive
      if (!this.#byRange.has(range) && !this.#aliases.has(range)) return range
    }
    throw new RangeError('more archives than there are numbers for')
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

const mergedName = Buffer.from('.borgfs/versions')

/** The same archive under the same name. */
function identity(info: ArchiveInfo): string {
  return `${info.id} ${byteString(info.name)}`
}
