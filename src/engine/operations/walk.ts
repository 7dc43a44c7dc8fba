/**
 * The walk of `create`, in Borg's order: roots as given, a directory before its contents, contents by inode number
 * (commands.md create, patterns.md §5, §6, output.md §3).
 */
import { closeSync, readSync } from 'node:fs'
import { type DirectoryListing, native, statField, statStride, wantAcls, wantFsFlags, wantXattrs } from '../native.js'
import { normalPath } from '../patterns/path-text.js'
import type { Matcher } from '../patterns/matcher.js'
import { fsFlagNodump, statAt, type FileStat, typeDirectory, typeMask, typeSymlink } from '../platform/attributes.js'
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

export async function* walk(roots: readonly Buffer[], options: WalkOptions): AsyncGenerator<WalkStep> {
  // Roots that were walked are not visited again, neither as roots nor inside a later one.
  const visited = new Set<string>()
  for (const typed of roots) {
    const path = escapedBytes(normalPath(escapedText(typed)))
    let node: Node
    try {
      const { stat, attributes } = native().readAttributes(path, wantOf(options))
      node = { path, stat: statAt(stat, 0), attributes }
    } catch (error) {
      yield { kind: 'failed', path, failure: failureOf(error, ''), root: true }
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
export async function* listed(paths: AsyncIterable<Buffer>, options: WalkOptions): AsyncGenerator<WalkStep> {
  for await (const typed of paths) {
    const path = escapedBytes(normalPath(escapedText(typed)))
    let node: Node
    try {
      const { stat, attributes } = native().readAttributes(path, wantOf(options))
      node = { path, stat: statAt(stat, 0), attributes }
    } catch (error) {
      yield { kind: 'failed', path, failure: failureOf(error, 'stat'), root: false }
      continue
    }
    yield { kind: 'object', ...node }
    if ((node.stat.mode & typeMask) === typeDirectory) yield { kind: 'left', path }
  }
}

/** An object whatever its path. */
export function identityOf(stat: { readonly dev: bigint; readonly ino: bigint }): string {
  return `${stat.dev}:${stat.ino}`
}

function wantOf(options: WalkOptions): number {
  return (options.noXattrs ? 0 : wantXattrs) | (options.noAcls ? 0 : wantAcls) | (options.noFlags && !options.excludeNodump ? 0 : wantFsFlags)
}

async function* walkNode(node: Node, rootDev: bigint, options: WalkOptions, visited: ReadonlySet<string>): AsyncGenerator<WalkStep> {
  const { path, stat } = node
  if (visited.size > 0 && visited.has(identityOf(stat))) return
  if (stat.error !== 0) {
    yield { kind: 'failed', path, failure: errnoFailure(stat.error, 'stat'), root: false }
    return
  }
  const isDirectory = (stat.mode & typeMask) === typeDirectory
  if (isDirectory && options.skip.size > 0 && options.skip.has(identityOf(stat))) return
  const decision = options.matcher.includesEverything ? undefined : options.matcher.decide(escapedText(path))
  if (options.excludeNodump && stat.fsFlags & fsFlagNodump) {
    yield { kind: 'excluded', path }
    return
  }
  const included = decision?.included ?? true
  if (!included) {
    yield { kind: 'excluded', path }
    if (!isDirectory || !decision!.recurse) return
  }
  if (!isDirectory) {
    yield { kind: 'object', ...node }
    return
  }
  if (options.excludeCaches || options.excludeIfPresent.length > 0) {
    const tags = tagsIn(path, options)
    if (tags.length > 0) {
      if (options.keepExcludeTags) {
        yield { kind: 'object', ...node }
        for (const tag of tags) yield* walkTag(joined(path, Buffer.from(tag)), rootDev, options, visited)
        yield { kind: 'left', path }
      }
      yield { kind: 'excluded', path }
      return
    }
  }
  if (included) yield { kind: 'object', ...node }
  if (!options.oneFileSystem || stat.dev === rootDev) {
    let listing
    try {
      listing = await (node.listing ?? native().readDirectoryAsync(path, wantOf(options)))
    } catch (error) {
      yield { kind: 'failed', path, failure: failureOf(error, 'dir_open'), root: false }
      return
    }
    // Listings of the next directories are on their way while this one's files are worked on.
    const ahead = new Map<number, Promise<DirectoryListing>>()
    let looked = 0
    for (let index = 0; index < listing.names.length; index++) {
      for (; looked < listing.names.length && ahead.size < listingsAhead; looked++) {
        const mode = Number(listing.stats[looked * statStride + statField.mode])
        if (looked < index || (mode & typeMask) !== typeDirectory || decision !== undefined) continue
        const promise = native().readDirectoryAsync(joined(path, listing.names[looked]!), wantOf(options))
        // Met when its turn comes.
        promise.catch(() => undefined)
        ahead.set(looked, promise)
      }
      const child: Node = { path: joined(path, listing.names[index]!), stat: statAt(listing.stats, index), attributes: listing.attributes[index], listing: ahead.get(index) }
      ahead.delete(index)
      const simple = (child.stat.mode & typeMask) !== typeDirectory && decision === undefined && visited.size === 0 && child.stat.error === 0 && !options.excludeNodump
      if (simple) yield { kind: 'object', ...child }
      else yield* walkNode(child, rootDev, options, visited)
    }
  }
  if (included) yield { kind: 'left', path }
}

function joined(folder: Buffer, name: Buffer): Buffer {
  if (folder.length === 1 && folder[0] === 0x2e) return name
  if (folder.length === 1 && folder[0] === 0x2f) return Buffer.concat([folder, name])
  const path = Buffer.allocUnsafe(folder.length + 1 + name.length)
  folder.copy(path)
  path[folder.length] = 0x2f
  name.copy(path, folder.length + 1)
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
async function* walkTag(path: Buffer, rootDev: bigint, options: WalkOptions, visited: ReadonlySet<string>): AsyncGenerator<WalkStep> {
  const { stat, attributes } = native().readAttributes(path, wantOf(options))
  yield* walkNode({ path, stat: statAt(stat, 0), attributes }, rootDev, { ...options, excludeCaches: false, excludeIfPresent: [] }, visited)
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
