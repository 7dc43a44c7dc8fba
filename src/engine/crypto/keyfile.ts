/** Key files: where they are looked for, how they are named, what they look like (crypto.md §5). */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { files } from '../platform/files.js'
import { saveFile } from '../platform/save-file.js'
import { KeyBlobError, KeyfileInvalidError, KeyfileMismatchError, KeyfileNotFoundError } from './errors.js'

const marker = 'BORG_KEY '

export interface KeyfilePlaces {
  /** BORG_KEY_FILE, made absolute; then nothing else is looked at. */
  readonly file: string | undefined
  readonly folder: string
}

/** Path and base64 text of the key file of a repository. Errors name the location as people know it. */
export function findKeyfile(places: KeyfilePlaces, repositoryId: Buffer, location: string): { path: string; text: string } {
  const path = locateKeyfile(places, repositoryId, location)
  return { path, text: textOf(readFileSync(path, 'latin1')) }
}

/** The file with the repository's header, whatever follows it. KeyfileNotFoundError, KeyfileInvalidError, KeyfileMismatchError. */
export function locateKeyfile(places: KeyfilePlaces, repositoryId: Buffer, location: string): string {
  const header = marker + repositoryId.toString('hex')
  if (places.file !== undefined) {
    const path = resolve(places.file)
    if (!existsSync(path)) throw new KeyfileNotFoundError(location, path)
    const content = readFileSync(path, 'latin1')
    if (!content.startsWith(marker)) throw new KeyfileInvalidError(location, path)
    if (!content.startsWith(header)) throw new KeyfileMismatchError(location, path)
    return path
  }
  for (const name of existsSync(places.folder) ? readdirSync(places.folder).sort() : []) {
    const path = join(places.folder, name)
    let content: string
    try {
      content = readFileSync(path, 'latin1')
    } catch {
      // A folder or a file of somebody else: not the key that is looked for.
      continue
    }
    if (content.startsWith(header)) return path
  }
  throw new KeyfileNotFoundError(location, places.folder)
}

function textOf(content: string): string {
  const end = content.indexOf('\n')
  if (end < 0) throw new KeyBlobError('the key file has one line only')
  return content.slice(end + 1).trim()
}

/** First line of the key file of a repository, with its newline. */
export function keyfileHeader(repositoryId: Uint8Array): string {
  return `${marker}${Buffer.from(repositoryId).toString('hex')}\n`
}

/** Path of the file that holds or, named by BORG_KEY_FILE, is to hold the key of a repository; undefined if a new one is wanted. */
export function existingKeyfile(places: KeyfilePlaces, repositoryId: Buffer): string | undefined {
  if (places.file !== undefined) return resolve(places.file)
  try {
    return locateKeyfile(places, repositoryId, '')
  } catch (error) {
    if (error instanceof KeyfileNotFoundError) return undefined
    throw error
  }
}

/** Where a new key file goes. `path` is the location's path as typed, `host` for remote ones. KeyBlobError if BORG_KEY_FILE exists. */
export function newKeyfilePath(places: KeyfilePlaces, path: string, host?: string): string {
  if (places.file !== undefined) {
    const file = resolve(places.file)
    if (existsSync(file)) throw new KeyfileExists(file)
    return file
  }
  files.ensureDirectory(places.folder, 0o700)
  const name = (host === undefined ? '' : `${host}__`) + path
  const base = name.replace(/[^\p{L}\p{N}_]/gu, '_').replace(/^_+|_+$/g, '').slice(0, 100)
  for (let number = 1; ; number++) {
    const file = join(places.folder, number === 1 ? base : `${base}.${number}`)
    if (!existsSync(file)) return file
  }
}

export class KeyfileExists extends KeyBlobError {
  constructor(file: string) {
    super('')
    this.message = `Aborting because key in "${file}" already exists.`
  }
}

export function saveKeyfile(path: string, repositoryId: Buffer, text: string): void {
  saveFile(path, Buffer.from(`${keyfileHeader(repositoryId)}${text}\n`), { mode: 0o600 })
}
