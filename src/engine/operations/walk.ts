/**
 * The walk of `create`, in Borg's order: roots as given, a directory before its contents, contents by inode number
 * (commands.md create, patterns.md §5, §6, output.md §3).
 */
import { closeSync, readSync } from 'node:fs'
import { type DirectoryListing, native, wantAcls, wantFsFlags, wantXattrs } from '../native.js'
import { normalPath } from '../patterns/path-text.js'
import type { Matcher } from '../patterns/matcher.js'
import { fsFlagNodump, statAt, StatRows, type FileStat, typeDirectory, typeMask, typeSymlink } from '../platform/attributes.js'
import { escapedBytes, escapedText } from '../text.js'

export interface WalkOptions {
  readonly matcher: Matcher
  readonly oneFileSystem: boolean
  readonly excludeNodump: boolean
  readonly excludeCaches: boolean
  readonly excludeIfPresent: readonly string[]
  readonly keepExcludeTags: boolean
  readonly noXattrs: boolean
  readonly noAcls: boolean
  readonly noFlags: boolean
  /** Directories that are passed over as if they were not there (identityOf): a backup must not back up itself. */
  readonly skip: ReadonlySet<string>
}

export interface WalkFailure {
  readonly code: string
  readonly errno: number
  /** Operation as Borg names it: stat, dir_open; empty for a root that is not there. */
  readonly operation: string
}

export type WalkStep =
  /** An object to be stored. `path`: as reached from its root, for people and for opening it. */
  | { readonly kind: 'object'; readonly path: Buffer; readonly stat: FileStat; readonly attributes: Buffer | undefined }
  /** All of a directory was walked. */
  | { readonly kind: 'left'; readonly path: Buffer }
  | { readonly kind: 'excluded'; readonly path: Buffer }
  | { readonly kind: 'failed'; readonly path: Buffer; readonly failure: WalkFailure; readonly root: boolean }

interface Node {
  readonly path: Buffer
  readonly stat: FileStat
  readonly attributes: Buffer | undefined
  /** Of a directory, if it was asked for in advance. */
  readonly listing?: Promise<DirectoryListing> | undefined
}

/** Directories of one parent that are read in advance. */
const listingsAhead = 4
export const cacheTagName = 'CACHEDIR.TAG'
export const cacheTagContent = Buffer.from('Signature: 8a477f597d28d172789f06886806bc55')

/**
 * Steps that need no waiting, to be gone through once, before the next run is asked for. Most files of a tree are in long ones: a promise for
 * each file would cost more time and memory than looking at it.
 */
export type WalkRun = Iterable<WalkStep>

export async function* walk(roots: readonly Buffer[], options: WalkOptions): AsyncGenerator<WalkRun> {
  // Roots that were walked are not visited again, neither as roots nor inside a later one.
  const visited = new Set<string>()
  for (const typed of roots) {
    const node = nodeAt(escapedBytes(normalPath(escapedText(typed))), options, '')
    if ('failure' in node) {
      yield [{ kind: 'failed', ...node, root: true }]
      continue
    }
    yield* walkNode(node, node.stat.dev, options, visited)
    visited.add(identityOf(node.stat))
  }
}

/**
 * The paths that somebody lists, each for itself: a directory without its contents, and whatever is excluded elsewhere
 * (`--paths-from-stdin`, `--paths-from-command`).
 */
export async function* listed(paths: AsyncIterable<Buffer>, options: WalkOptions): AsyncGenerator<WalkRun> {
  for await (const typed of paths) {
    const node = nodeAt(escapedBytes(normalPath(escapedText(typed))), options)
    if ('failure' in node) {
      yield [{ kind: 'failed', ...node, root: false }]
      continue
    }
    yield [objectStep(node)]
    if ((node.stat.mode & typeMask) === typeDirectory) yield [{ kind: 'left', path: node.path }]
  }
}

/** An object whatever its path. */
export function identityOf(stat: { readonly dev: bigint; readonly ino: bigint }): string {
  return `${stat.dev}:${stat.ino}`
}

function wantOf(options: WalkOptions): number {
  return (options.noXattrs ? 0 : wantXattrs) | (options.noAcls ? 0 : wantAcls) | (options.noFlags && !options.excludeNodump ? 0 : wantFsFlags)
}

/** What there is at a path, looked at by itself. `operation`: what its failure is called. */
function nodeAt(path: Buffer, options: WalkOptions, operation = 'stat'): Node | { readonly path: Buffer; readonly failure: WalkFailure } {
  try {
    const { stat, attributes } = native().readAttributes(path, wantOf(options))
    return { path, stat: statAt(stat, 0), attributes }
  } catch (error) {
    return { path, failure: failureOf(error, operation) }
  }
}

function objectStep({ path, stat, attributes }: Node): WalkStep {
  return { kind: 'object', path, stat, attributes }
}

/** What becomes of an object that is no directory; undefined if it is passed over. */
function leafStep(path: Buffer, stat: FileStat, attributes: Buffer | undefined, options: WalkOptions, visited: ReadonlySet<string>): WalkStep | undefined {
  if (visited.size > 0 && visited.has(identityOf(stat))) return undefined
  if (stat.error !== 0) return { kind: 'failed', path, failure: errnoFailure(stat.error, 'stat'), root: false }
  const included = options.matcher.includesEverything || options.matcher.decide(escapedText(path)).included
  if (!included || (options.excludeNodump && stat.fsFlags & fsFlagNodump)) return { kind: 'excluded', path }
  return { kind: 'object', path, stat, attributes }
}

async function* walkNode(node: Node, rootDev: bigint, options: WalkOptions, visited: ReadonlySet<string>): AsyncGenerator<WalkRun> {
  const { path, stat } = node
  if ((stat.mode & typeMask) !== typeDirectory) {
    const step = leafStep(path, stat, node.attributes, options, visited)
    if (step) yield [step]
    return
  }
  if (visited.size > 0 && visited.has(identityOf(stat))) return
  if (options.skip.size > 0 && options.skip.has(identityOf(stat))) return
  const decision = options.matcher.includesEverything ? undefined : options.matcher.decide(escapedText(path))
  if (options.excludeNodump && stat.fsFlags & fsFlagNodump) {
    yield [{ kind: 'excluded', path }]
    return
  }
  const included = decision?.included ?? true
  if (!included) {
    yield [{ kind: 'excluded', path }]
    if (!decision!.recurse) return
  }
  if (options.excludeCaches || options.excludeIfPresent.length > 0) {
    const tags = tagsIn(path, options)
    if (tags.length > 0) {
      if (options.keepExcludeTags) {
        yield [objectStep(node)]
        for (const tag of tags) yield* walkTag(joined(path, Buffer.from(tag)), rootDev, options, visited)
        yield [{ kind: 'left', path }]
      }
      yield [{ kind: 'excluded', path }]
      return
    }
  }
  if (included) yield [objectStep(node)]
  if (!options.oneFileSystem || stat.dev === rootDev) {
    let listing
    try {
      listing = await (node.listing ?? native().readDirectoryAsync(path, wantOf(options)))
    } catch (error) {
      yield [{ kind: 'failed', path, failure: failureOf(error, 'dir_open'), root: false }]
      return
    }
    const children = new Children(path, listing, options, visited)
    for (;;) {
      yield children.leaves()
      const directory = children.directory()
      if (!directory) break
      yield* walkNode(directory, rootDev, options, visited)
    }
  }
  if (included) yield [{ kind: 'left', path }]
}

/** What a directory has, one after the other. */
class Children {
  readonly #path: Buffer
  readonly #listing: DirectoryListing
  readonly #stats: StatRows
  readonly #options: WalkOptions
  readonly #count: number
  #next = 0
  /** Listings of the next directories are on their way while this one's files are worked on. */
  readonly #ahead = new Map<number, Promise<DirectoryListing>>()
  #looked = 0
  readonly #visited: ReadonlySet<string>

  constructor(path: Buffer, listing: DirectoryListing, options: WalkOptions, visited: ReadonlySet<string>) {
    this.#path = path
    this.#listing = listing
    this.#stats = new StatRows(listing.stats)
    this.#options = options
    this.#visited = visited
    this.#count = listing.nameEnds.length
    this.#lookAhead()
  }

  /** All that comes before the next directory. */
  *leaves(): Generator<WalkStep> {
    while (this.#next < this.#count && !this.#isDirectory(this.#next)) {
      const index = this.#next++
      const step = leafStep(this.#pathOf(index), this.#stats.at(index), this.#listing.attributes[index], this.#options, this.#visited)
      if (step) yield step
    }
  }

  /** The directory that comes now, if there is one. */
  directory(): Node | undefined {
    if (this.#next >= this.#count) return undefined
    const index = this.#next++
    const listing = this.#ahead.get(index)
    this.#ahead.delete(index)
    this.#lookAhead()
    return { path: this.#pathOf(index), stat: this.#stats.at(index), attributes: this.#listing.attributes[index], listing }
  }

  #lookAhead(): void {
    // With patterns nobody knows yet whether they will be entered.
    if (!this.#options.matcher.includesEverything) return
    if (this.#looked < this.#next) this.#looked = this.#next
    for (; this.#looked < this.#count && this.#ahead.size < listingsAhead; this.#looked++) {
      if (!this.#isDirectory(this.#looked)) continue
      const promise = native().readDirectoryAsync(this.#pathOf(this.#looked), wantOf(this.#options))
      // Met when its turn comes.
      promise.catch(() => undefined)
      this.#ahead.set(this.#looked, promise)
    }
  }

  #isDirectory(index: number): boolean {
    return (this.#stats.mode(index) & typeMask) === typeDirectory
  }

  #pathOf(index: number): Buffer {
    const { names, nameEnds } = this.#listing
    return joined(this.#path, names, index === 0 ? 0 : nameEnds[index - 1]!, nameEnds[index]!)
  }
}

/** `folder` and the name that lies in [start, end) of `names`. */
function joined(folder: Buffer, names: Buffer, start = 0, end = names.length): Buffer {
  const isHere = folder.length === 1 && folder[0] === 0x2e, isRoot = folder.length === 1 && folder[0] === 0x2f
  const at = isHere ? 0 : isRoot ? 1 : folder.length + 1
  const path = Buffer.allocUnsafe(at + end - start)
  if (at > 0) {
    folder.copy(path)
    path[at - 1] = 0x2f
  }
  names.copy(path, at, start, end)
  return path
}

/** Names of the tags that exclude a directory. */
function tagsIn(path: Buffer, options: WalkOptions): string[] {
  const tags: string[] = []
  if (options.excludeCaches && isCacheTag(joined(path, Buffer.from(cacheTagName)))) tags.push(cacheTagName)
  for (const name of options.excludeIfPresent) {
    // Symlinks are followed; a dangling one does not count.
    try {
      native().readAttributes(Buffer.concat([joined(path, Buffer.from(name)), Buffer.from('/.')]), 0)
      tags.push(name)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOTDIR') tags.push(name)
    }
  }
  return tags
}

function isCacheTag(path: Buffer): boolean {
  try {
    const fd = native().openForReading(path)
    try {
      const head = Buffer.alloc(cacheTagContent.length)
      return readSync(fd, head, 0, head.length, 0) === head.length && head.equals(cacheTagContent)
    } finally {
      closeSync(fd)
    }
  } catch {
    return false
  }
}

/** A tag that is kept: a directory with all its content. */
async function* walkTag(path: Buffer, rootDev: bigint, options: WalkOptions, visited: ReadonlySet<string>): AsyncGenerator<WalkRun> {
  const node = nodeAt(path, options)
  // It may have gone since it was found.
  if ('failure' in node) yield [{ kind: 'failed', ...node, root: false }]
  else yield* walkNode(node, rootDev, { ...options, excludeCaches: false, excludeIfPresent: [] }, visited)
}

function failureOf(error: unknown, operation: string): WalkFailure {
  const { code, errno } = error as NodeJS.ErrnoException
  if (code === undefined || errno === undefined) throw error
  return { code, errno: Math.abs(errno), operation }
}

function errnoFailure(errno: number, operation: string): WalkFailure {
  return { code: `errno ${errno}`, errno, operation }
}

export function isSymlink(stat: FileStat): boolean {
  return (stat.mode & typeMask) === typeSymlink
}
