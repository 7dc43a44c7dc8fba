/** Asking a mounted drive to save what is staged in it, by the xattrs that incoming/ has for this (incoming.md §3, §5). */
import { readdirSync, realpathSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { errnoOf, messageOf } from '../engine/errors.js'
import { native } from '../engine/native.js'
import { byteString, shownText } from '../engine/text.js'
import { isBorgMount, mountAt } from '../fs/fuse/kernel/mount-table.js'

const atWorkingDirectory = -100
const loose = Buffer.from('loose')

export interface TreeOutcome {
  /** `incoming/NAME`, or `incoming` for the files directly in it. */
  readonly path: string
  /** The archive that holds it. */
  readonly archive?: string
  /** Why it is in none. */
  readonly problem?: string
  /** It was saved before, and stays where it is: live/ only. */
  readonly unchanged?: boolean
}

/** Folders of the drive whose folders become archives. */
export const places = ['incoming', 'live'] as const

/** A mountpoint as the table of mounts has it. A dead mount cannot be looked at: then it is as it was typed. */
export function mountedPath(typed: string): string {
  try {
    return realpathSync(typed)
  } catch {
    return resolve(typed)
  }
}

/** True for a mountpoint that borg or borgfs serves. */
export function isOurs(mountpoint: string): boolean {
  const found = mountAt(mountpoint)
  return found !== undefined && isBorgMount(found)
}

/** The serving process tells its number as an xattr of the root. Undefined for a mount of Borg's. */
export function servingProcess(mountpoint: string): number | undefined {
  const pid = Number(attribute(Buffer.from(mountpoint), 'user.borgfs.pid'))
  return Number.isInteger(pid) && pid > 1 ? pid : undefined
}

/** Saves one tree after the other and waits for each. Without `only` all of them, and the loose files. Empty where nothing can be copied in. */
export function commitTrees(mountpoint: string, only?: { readonly place: string | undefined; readonly name: string }): TreeOutcome[] {
  return places.filter(place => only?.place === undefined || only.place === place).flatMap(place => commitPlace(mountpoint, place, only?.name))
}

function commitPlace(mountpoint: string, place: string, only: string | undefined): TreeOutcome[] {
  const folder = Buffer.from(join(mountpoint, place))
  let names: Buffer[]
  try {
    names = readdirSync(folder, { withFileTypes: true, encoding: 'buffer' }).filter(entry => entry.isDirectory()).map(entry => entry.name as unknown as Buffer)
  } catch {
    return []
  }
  const outcomes: TreeOutcome[] = []
  for (const name of names) {
    if (only !== undefined && byteString(name) !== only) continue
    outcomes.push(...commitTree(Buffer.concat([folder, Buffer.from('/'), name]), `${place}/${shownText(name)}`, Buffer.alloc(0)))
  }
  if (only === undefined && attribute(folder, 'user.borgfs.state') !== undefined) outcomes.push(...commitTree(folder, place, loose))
  return outcomes
}

/** Nothing for a folder without contents: there is nothing to save. */
function commitTree(object: Buffer, path: string, value: Buffer): TreeOutcome[] {
  const archiveOf = (): string | undefined => /^committed (.*)$/s.exec(attribute(object, 'user.borgfs.state') ?? '')?.[1]
  const before = path.startsWith('live/') ? archiveOf() : undefined
  if (before !== undefined) return [{ path, archive: before, unchanged: true }]
  try {
    native().setxattrat(atWorkingDirectory, object, Buffer.from('user.borgfs.commit'), value)
  } catch (error) {
    // A tree that was an archive already, and left the box just now.
    if (errnoOf(error) === 'ENOENT') return []
    return [{ path, problem: attribute(object, 'user.borgfs.problem') ?? (errnoOf(error) === 'EBUSY' ? 'files in it are still open for writing' : messageOf(error)) }]
  }
  const archive = archiveOf()
  return archive === undefined ? [] : [{ path, archive }]
}

function attribute(object: Buffer, name: string): string | undefined {
  try {
    return native().getxattrat(atWorkingDirectory, object, Buffer.from(name)).toString()
  } catch {
    return undefined
  }
}
