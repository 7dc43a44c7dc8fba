/**
 * Names of Borg's versions view (mount.md §5): all archives in one tree, in which each file is a directory of its versions. `d/a.txt` is
 * `d/a.txt/a.00001.txt`; the number goes up when the contents differ from those of the version before.
 */
import { createHash } from 'node:crypto'
import type { Item } from '../engine/archive/item.js'
import { byteString } from '../engine/text.js'
import type { ShapeOptions } from './tree-options.js'

const typeMask = 0o170000, typeDirectory = 0o040000, typeSymlink = 0o120000
const slash = Buffer.from('/'), dot = 0x2e

/** What stands for all of these archives in one tree where an archive's id is asked for. */
export function mergedId(ids: Iterable<string>): string {
  const hash = createHash('sha256')
  for (const id of ids) hash.update(id)
  return `${mergedIdStart}${hash.digest('hex')}`
}

export function isMergedId(id: string): boolean {
  return id.startsWith(mergedIdStart)
}
const mergedIdStart = 'versions-'

interface Version {
  readonly number: number
  /** Of the ids of its chunks. */
  readonly contents: string
}

export class VersionNames {
  /** By shown path. */
  readonly #versions = new Map<string, Version>()

  /** For the items of one archive after the other. `inner`: what is shown, and where, without versions. */
  over(inner: Pick<ShapeOptions, 'select' | 'sourcePath'> | undefined): Required<Pick<ShapeOptions, 'select' | 'sourcePath'>> {
    const shownSource = (source: Buffer): Buffer => inner?.sourcePath?.(source) ?? source
    return {
      select: item => {
        const path = inner?.select ? inner.select(item) : item.path
        if (path === undefined || (item.mode & typeMask) === typeDirectory) return path
        return this.#named(path, this.#next(path, item, shownSource))
      },
      sourcePath: source => {
        const shown = shownSource(source)
        return this.#named(shown, this.#versions.get(byteString(shown)))
      },
    }
  }

  /** Undefined for what has no contents: links, devices. */
  #next(path: Buffer, item: Item, shownSource: (source: Buffer) => Buffer): Version | undefined {
    const key = byteString(path)
    const before = this.#versions.get(key)
    const isLink = item.source !== undefined && (item.mode & typeMask) !== typeSymlink
    const contents = isLink ? this.#versions.get(byteString(shownSource(item.source!)))?.contents : item.chunks && contentsOf(item.chunks)
    if (contents === undefined) return undefined
    if (before?.contents === contents) return before
    const version = { number: (before?.number ?? 0) + 1, contents }
    this.#versions.set(key, version)
    return version
  }

  #named(path: Buffer, version: Version | undefined): Buffer {
    const name = path.subarray(path.lastIndexOf('/') + 1)
    return Buffer.concat([path, slash, version ? versionedName(name, version.number) : name])
  }
}

/** The extension stays last, so that programs know the file's kind. Dots that a name begins with are none. */
export function versionedName(name: Buffer, version: number): Buffer {
  let first = 0
  while (name[first] === dot) first++
  const end = name.lastIndexOf('.')
  const split = end > first ? end : name.length
  return Buffer.concat([name.subarray(0, split), Buffer.from(`.${String(version).padStart(5, '0')}`), name.subarray(split)])
}

function contentsOf(chunks: NonNullable<Item['chunks']>): string {
  const hash = createHash('sha256')
  for (let index = 0; index < chunks.length; index++) hash.update(chunks.id(index))
  return hash.digest('base64')
}
