/**
 * The walk of `create`, in Borg's order: roots as given, a directory before its contents, contents by inode number
 * (commands.md create, patterns.md §5, §6, output.md §3).
 */
import { closeSync, readSync } from 'node:fs'
import { type DirectoryListing, native, wantAcls, wantFsFlags, wantNamesOnly, wantXattrs } from '../native.js'
import { normalPath } from '../patterns/path-text.js'
import type { Decision, Matcher } from '../patterns/matcher.js'
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
  /** `quiet`: it has no line in `--list`. */
  | { readonly kind: 'failed'; readonly path: Buffer; readonly failure: WalkFailure; readonly quiet: boolean }

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
      yield [{ kind: 'failed', ...node, quiet: true }]
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
      yield [{ kind: 'failed', ...node, quiet: false }]
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

/** What becomes of an object that is no directory; undefined if it is passed over. Nothing is known of one that was excluded, and that is no failure. */
function leafStep(path: Buffer, stat: FileStat | undefined, attributes: Buffer | undefined, decision: Decision, options: WalkOptions, visited: ReadonlySet<string>): WalkStep | undefined {
  if (!decision.included) return { kind: 'excluded', path }
  if (stat!.error !== 0) return { kind: 'failed', path, failure: errnoFailure(stat!.error, 'stat'), quiet: false }
  if (visited.size > 0 && visited.has(identityOf(stat!))) return undefined
  if (options.excludeNodump && stat!.fsFlags & fsFlagNodump) return { kind: 'excluded', path }
  return { kind: 'object', path, stat: stat!, attributes }
}

const everythingIncluded: Decision = { included: true, recurse: true }

/** `decision`: what the patterns say of it, if they were asked. */
async function* walkNode(node: Node, rootDev: bigint, options: WalkOptions, visited: ReadonlySet<string>, decision = options.matcher.decideOf(node.path)): AsyncGenerator<WalkRun> {
  const { path, stat } = node
  if ((stat.mode & typeMask) !== typeDirectory) {
    const step = leafStep(path, stat, node.attributes, decision, options, visited)
    if (step) yield [step]
    return
  }
  const { included } = decision
  if (!included) {
    yield [{ kind: 'excluded', path }]
    if (!decision.recurse) return
  }
  if (visited.size > 0 && visited.has(identityOf(stat))) return
  if (options.skip.size > 0 && options.skip.has(identityOf(stat))) return
  if (options.excludeNodump && stat.fsFlags & fsFlagNodump) {
    yield [{ kind: 'excluded', path }]
    return
  }
  const recurse = !options.oneFileSystem || stat.dev === rootDev
  if (recurse && (options.excludeCaches || options.excludeIfPresent.length > 0)) {
    const tags = tagsIn(path, options)
    if (tags.length > 0) {
      if (!included) return
      if (options.keepExcludeTags) {
        yield [objectStep(node)]
        for (const tag of tags) yield* walkTag(joined(path, Buffer.from(tag)), rootDev, options, visited)
      }
      yield [{ kind: 'excluded', path }]
      return
    }
  }
  if (!recurse) {
    if (included) yield [objectStep(node), { kind: 'left', path }]
    return
  }
  let children: Children
  try {
    children = await Children.of(node, rootDev, options, visited)
  } catch (error) {
    // What cannot be opened is not in the archive, as Borg does it; should only its listing fail, it is.
    if (included && (error as { syscall?: string }).syscall !== 'open') yield [objectStep(node)]
    yield [{ kind: 'failed', path, failure: failureOf(error, 'dir_open'), quiet: !included }]
    return
  }
  if (included) yield [objectStep(node)]
  for (;;) {
    yield children.leaves()
    const directory = children.directory()
    if (!directory) break
    yield* walkNode(directory.node, rootDev, options, visited, directory.decision)
  }
  if (included) yield [{ kind: 'left', path }]
}

const includedBit = 1, recurseBit = 2
const noNames = Buffer.alloc(0), nul = Buffer.from('\0')

/** Where there are patterns: what they say of each name, and its row in `found`; -1 for what was not looked at. */
interface Chosen {
  readonly decisions: Uint8Array
  readonly rows: Int32Array
  readonly found: DirectoryListing
}

/** What a directory has, one after the other. */
class Children {
  readonly #path: Buffer
  readonly #listing: DirectoryListing
  readonly #stats: StatRows
  readonly #options: WalkOptions
  readonly #rootDev: bigint
  readonly #count: number
  #next = 0
  /** Listings of the next directories are on their way while this one's files are worked on. */
  readonly #ahead = new Map<number, Promise<DirectoryListing>>()
  #looked = 0
  readonly #visited: ReadonlySet<string>
  readonly #chosen: Chosen | undefined

  /** A system error whose `syscall` is `open` if the directory cannot be opened. */
  static async of(node: Node, rootDev: bigint, options: WalkOptions, visited: ReadonlySet<string>): Promise<Children> {
    const { path } = node
    if (options.matcher.includesEverything) {
      return new Children(path, await (node.listing ?? native().readDirectoryAsync(path, wantOf(options), noNames)), rootDev, options, visited)
    }
    // What is excluded is not even looked at: it may not be permitted, or wait for ever for a server that is gone.
    const listing = await native().readDirectoryAsync(path, wantNamesOnly, noNames)
    const count = listing.nameEnds.length
    const decisions = new Uint8Array(count), rows = new Int32Array(count).fill(-1)
    const wanted: Buffer[] = []
    let chosen = 0
    for (let index = 0; index < count; index++) {
      const { included, recurse } = options.matcher.decideOf(childPath(path, listing, index))
      decisions[index] = (included ? includedBit : 0) | (recurse ? recurseBit : 0)
      if (!included && !recurse) continue
      rows[index] = chosen++
      wanted.push(nameIn(listing, index), nul)
    }
    const found = chosen === 0 ? listing : await native().readDirectoryAsync(path, wantOf(options), Buffer.concat(wanted))
    return new Children(path, listing, rootDev, options, visited, { decisions, rows, found })
  }

  private constructor(path: Buffer, listing: DirectoryListing, rootDev: bigint, options: WalkOptions, visited: ReadonlySet<string>, chosen?: Chosen) {
    this.#path = path
    this.#listing = listing
    this.#chosen = chosen
    this.#stats = new StatRows((chosen?.found ?? listing).stats)
    this.#rootDev = rootDev
    this.#options = options
    this.#visited = visited
    this.#count = listing.nameEnds.length
    this.#lookAhead()
  }

  /** All that comes before the next directory. */
  *leaves(): Generator<WalkStep> {
    while (this.#next < this.#count && !this.#isDirectory(this.#next)) {
      const index = this.#next++
      const row = this.#row(index)
      const stat = row < 0 ? undefined : this.#stats.at(row)
      const path = childPath(this.#path, this.#listing, index)
      const decision = this.#decision(index)
      const step = leafStep(path, stat, this.#attributes(row), decision, this.#options, this.#visited)
      if (step) yield step
      // It might have been a directory to look into.
      if (!decision.included && stat && stat.error !== 0) yield { kind: 'failed', path, failure: errnoFailure(stat.error, 'stat'), quiet: true }
    }
  }

  /** The directory that comes now, if there is one. */
  directory(): { readonly node: Node; readonly decision: Decision } | undefined {
    if (this.#next >= this.#count) return undefined
    const index = this.#next++
    const listing = this.#ahead.get(index)
    this.#ahead.delete(index)
    this.#lookAhead()
    const row = this.#row(index)
    return { node: { path: childPath(this.#path, this.#listing, index), stat: this.#stats.at(row), attributes: this.#attributes(row), listing }, decision: this.#decision(index) }
  }

  #lookAhead(): void {
    // With patterns nobody knows yet whether they will be entered.
    if (this.#chosen) return
    if (this.#looked < this.#next) this.#looked = this.#next
    for (; this.#looked < this.#count && this.#ahead.size < listingsAhead; this.#looked++) {
      if (!this.#isDirectory(this.#looked)) continue
      // Nor is what will not be: to list what another file system has may mean to mount it.
      if (this.#options.oneFileSystem && this.#stats.at(this.#looked).dev !== this.#rootDev) continue
      const promise = native().readDirectoryAsync(childPath(this.#path, this.#listing, this.#looked), wantOf(this.#options), noNames)
      // Met when its turn comes.
      promise.catch(() => undefined)
      this.#ahead.set(this.#looked, promise)
    }
  }

  #row(index: number): number {
    return this.#chosen ? this.#chosen.rows[index]! : index
  }

  #attributes(row: number): Buffer | undefined {
    return row < 0 ? undefined : (this.#chosen?.found ?? this.#listing).attributes[row]
  }

  #decision(index: number): Decision {
    if (!this.#chosen) return everythingIncluded
    const said = this.#chosen.decisions[index]!
    return { included: (said & includedBit) !== 0, recurse: (said & recurseBit) !== 0 }
  }

  #isDirectory(index: number): boolean {
    const row = this.#row(index)
    return row >= 0 && (this.#stats.mode(row) & typeMask) === typeDirectory
  }
}

function nameIn({ names, nameEnds }: DirectoryListing, index: number): Buffer {
  return names.subarray(index === 0 ? 0 : nameEnds[index - 1]!, nameEnds[index]!)
}

function childPath(folder: Buffer, { names, nameEnds }: DirectoryListing, index: number): Buffer {
  return joined(folder, names, index === 0 ? 0 : nameEnds[index - 1]!, nameEnds[index]!)
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

/** A tag that is kept. It may be a directory, with tags in it. */
async function* walkTag(path: Buffer, rootDev: bigint, options: WalkOptions, visited: ReadonlySet<string>): AsyncGenerator<WalkRun> {
  const node = nodeAt(path, options)
  // It may have gone since it was found.
  if ('failure' in node) yield [{ kind: 'failed', ...node, quiet: false }]
  else yield* walkNode(node, rootDev, options, visited)
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
