/** Asking a mounted drive to save what is staged in it, by the xattrs that incoming/ has for this (incoming.md §3, §5). */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { errnoOf, messageOf } from '../engine/errors.js'
import { native } from '../engine/native.js'
import { byteString, shownText } from '../engine/text.js'

const atWorkingDirectory = -100
const loose = Buffer.from('loose')

export interface TreeOutcome {
  /** `incoming/NAME`, or `incoming` for the files directly in it. */
  readonly path: string
  /** The archive that holds it. */
  readonly archive?: string
  /** Why it is in none. */
  readonly problem?: string
}

/** True for a mountpoint that borg or borgfs serves. */
export function isOurs(mountpoint: string): boolean {
  const escaped = mountpoint.replace(/[ \t\n\\]/g, character => `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`)
  return readFileSync('/proc/self/mounts', 'utf8').split('\n').some(line => line.startsWith(`borgfs ${escaped} fuse`))
}

/** The serving process tells its number as an xattr of the root. Undefined for a mount of Borg's. */
export function servingProcess(mountpoint: string): number | undefined {
  const pid = Number(attribute(Buffer.from(mountpoint), 'user.borgfs.pid'))
  return Number.isInteger(pid) && pid > 1 ? pid : undefined
}

/** Saves one tree after the other and waits for each. Without `only` (byte string) all of them, and the loose files. Empty where there is no incoming/. */
export function commitTrees(mountpoint: string, only?: string): TreeOutcome[] {
  const incoming = Buffer.from(join(mountpoint, 'incoming'))
  let names: Buffer[]
  try {
    names = readdirSync(incoming, { withFileTypes: true, encoding: 'buffer' }).filter(entry => entry.isDirectory()).map(entry => entry.name as unknown as Buffer)
  } catch {
    return []
  }
  const outcomes: TreeOutcome[] = []
  for (const name of names) {
    if (only !== undefined && byteString(name) !== only) continue
    outcomes.push(...commitTree(Buffer.concat([incoming, Buffer.from('/'), name]), `incoming/${shownText(name)}`, Buffer.alloc(0)))
  }
  if (only === undefined && attribute(incoming, 'user.borgfs.state') !== undefined) outcomes.push(...commitTree(incoming, 'incoming', loose))
  return outcomes
}

/** Nothing for a folder without contents: there is nothing to save. */
function commitTree(object: Buffer, path: string, value: Buffer): TreeOutcome[] {
  try {
    native().setxattrat(atWorkingDirectory, object, Buffer.from('user.borgfs.commit'), value)
  } catch (error) {
    return [{ path, problem: attribute(object, 'user.borgfs.problem') ?? (errnoOf(error) === 'EBUSY' ? 'files in it are still open for writing' : messageOf(error)) }]
  }
  const archive = /^committed (.*)$/s.exec(attribute(object, 'user.borgfs.state') ?? '')?.[1]
  return archive === undefined ? [] : [{ path, archive }]
}

function attribute(object: Buffer, name: string): string | undefined {
  try {
    return native().getxattrat(atWorkingDirectory, object, Buffer.from(name)).toString()
  } catch {
    return undefined
  }
}
