/** Making an empty repository (repository.md §1): where one may be made, and how to leave nothing when it fails. */
import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { errnoOf } from '../errors.js'
import { files } from '../platform/files.js'
import { saveFile, syncDirectory } from '../platform/save-file.js'
import { configDefaults, RepositoryConfig } from './config.js'
import { AlreadyExists, ParentPathDoesNotExist, PathAlreadyExists, PathPermissionDenied } from './errors.js'

export interface CreateOptions {
  readonly appendOnly?: boolean
  readonly storageQuota?: number
  readonly makeParentDirs?: boolean
}

const readme = 'This is a Borg Backup repository.\nSee https://borgbackup.readthedocs.io/\n'

/**
 * Makes an empty repository; the path may be an empty directory, or hold what an init left that was killed early. Leaves nothing when it
 * fails. Returns what removes it again, for when what makes it useful fails.
 */
export function createRepository(path: string, options: CreateOptions = {}): () => void {
  const folder = resolve(path)
  refuseExisting(folder)
  let made = false
  const undo = (): void => {
    if (made) files.removeTree(folder)
    // It was the person's own, and may be a mountpoint.
    else for (const name of readdirSync(folder)) files.removeTree(join(folder, name))
  }
  try {
    if (options.makeParentDirs) files.ensureDirectory(dirname(folder))
    files.makeDirectory(folder)
    made = true
    syncDirectory(dirname(folder))
  } catch (error) {
    if (made) tryAll(undo)
    if (errnoOf(error) === 'ENOENT') throw new ParentPathDoesNotExist(folder)
    if (errnoOf(error) === 'EACCES') throw new PathPermissionDenied(folder)
    if (errnoOf(error) !== 'EEXIST') throw error
  }
  try {
    saveFile(join(folder, 'README'), Buffer.from(readme))
    files.ensureDirectory(join(folder, 'data'))
    const values = new Map(configDefaults)
    if (options.appendOnly) values.set('append_only', '1')
    if (options.storageQuota) values.set('storage_quota', String(options.storageQuota))
    values.set('id', randomBytes(32).toString('hex'))
    new RepositoryConfig(join(folder, 'config'), folder, values).save()
  } catch (error) {
    tryAll(undo)
    throw error
  }
  return undo
}

/** A repository here or in a directory above is refused, and so is anything but an empty directory. */
function refuseExisting(folder: string): void {
  const begun = isBegun(folder)
  for (let parent = begun ? dirname(folder) : folder; ; parent = dirname(parent)) {
    if (looksLikeRepository(parent)) throw new AlreadyExists(parent)
    if (parent === dirname(parent)) break
  }
  if (begun) return
  try {
    if (readdirSync(folder).length > 0) throw new PathAlreadyExists(folder)
  } catch (error) {
    if (errnoOf(error) === 'ENOTDIR') throw new PathAlreadyExists(folder)
    if (errnoOf(error) !== 'ENOENT') throw error
  }
}

/** What an init leaves that was killed before the config was there: nothing else is in it, so that nothing is lost by going on. */
function isBegun(folder: string): boolean {
  try {
    const names = readdirSync(folder)
    return names.length > 0 && names.every(name => {
      const path = join(folder, name)
      if (name === 'data') return readdirSync(path).length === 0
      if (name === 'README') return readme.startsWith(readFileSync(path, 'latin1'))
      return /^(?:README|config)-[0-9a-f]{8}\.tmp$/.test(name)
    })
  } catch {
    return false
  }
}

/** What fails is left; the error that led here is the news. */
function tryAll(undo: () => void): void {
  try {
    undo()
  } catch {
    // As said.
  }
}

function looksLikeRepository(folder: string): boolean {
  try {
    return /Borg(?: Backup)? repository/.test(readFileSync(join(folder, 'README')).toString('latin1', 0, 100))
  } catch {
    return false
  }
}
