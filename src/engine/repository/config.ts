/** The repository's config file: INI, one section `[repository]` (repository.md §1, §2). */
import { readFileSync, statSync, type Stats } from 'node:fs'
import { join } from 'node:path'
import { maxEntryBytes } from '../constants.js'
import { errnoOf, messageOf } from '../errors.js'
import { files } from '../platform/files.js'
import { saveFile } from '../platform/save-file.js'
import { InvalidRepository, InvalidRepositoryConfig } from './errors.js'

const section = 'repository'

export const configDefaults: readonly (readonly [string, string])[] = [
  ['version', '1'], ['segments_per_dir', '1000'], ['max_segment_size', '524288000'], ['append_only', '0'], ['storage_quota', '0'], ['additional_free_space', '0'],
]

export class RepositoryConfig {
  readonly #path: string
  readonly #location: string
  readonly #values: Map<string, string>

  constructor(path: string, location: string, values: Map<string, string>) {
    this.#path = path
    this.#location = location
    this.#values = values
  }

  /** InvalidRepository without the file, InvalidRepositoryConfig without its section or for values that are none. */
  static load(folder: string, location: string): RepositoryConfig {
    const path = join(folder, 'config')
    let text: string
    try {
      text = readFileSync(path, 'utf8')
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') throw new InvalidRepository(location)
      throw new InvalidRepositoryConfig(location, messageOf(error), { cause: error })
    }
    const values = parseIni(text)
    if (!values) throw new InvalidRepositoryConfig(location, 'no repository section found')
    const config = new RepositoryConfig(path, location, values)
    const version = config.get('version')
    if (version !== '1') throw new InvalidRepositoryConfig(location, version === undefined ? 'the version is missing' : `repository version ${version} is not supported by this borg version`)
    if (!/^[0-9a-fA-F]{64}$/.test(config.get('id') ?? '')) throw new InvalidRepositoryConfig(location, 'the id is missing or malformed')
    return config
  }

  get(key: string): string | undefined {
    return this.#values.get(key)
  }

  set(key: string, value: string | undefined): void {
    if (value === undefined) this.#values.delete(key)
    else this.#values.set(key, value)
  }

  get id(): Buffer {
    return Buffer.from(this.get('id')!, 'hex')
  }

  /** The base64 text of a repokey. */
  get keyText(): string | undefined {
    return this.get('key')?.trim() || undefined
  }

  get segmentsPerDir(): number {
    return this.#size('segments_per_dir', 1, 0xffffffff)
  }

  get maxSegmentSize(): number {
    return this.#size('max_segment_size', 1, 2 ** 32 - maxEntryBytes - 1)
  }

  get storageQuota(): number {
    return this.#size('storage_quota', 0, Number.MAX_SAFE_INTEGER)
  }

  get additionalFreeSpace(): number {
    return this.#size('additional_free_space', 0, Number.MAX_SAFE_INTEGER)
  }

  get appendOnly(): boolean {
    return this.get('append_only') === '1'
  }

  #size(key: string, lowest: number, highest: number): number {
    const text = this.get(key) ?? configDefaults.find(([name]) => name === key)![1]
    const value = parseSize(text)
    if (value === undefined || value < lowest || value > highest) throw new InvalidRepositoryConfig(this.#location, `${key} = ${text} is out of range`)
    return value
  }

  /** As Borg: a hard link keeps the old file while the new one replaces it; then its content is overwritten, as it may hold an old key. */
  save(): void {
    const old = `${this.#path}.old`
    // Left over by a crash.
    eraseFile(old)
    try {
      files.link(this.#path, old)
    } catch (error) {
      // A new repository has none; some file systems know no hard links, and replacing is safe without.
      if (!['ENOENT', 'EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'EMLINK', 'ENOSYS', 'EACCES', 'EIO'].includes(errnoOf(error) ?? '')) throw error
    }
    saveFile(this.#path, Buffer.from(formatIni(this.#values)))
    eraseFile(old)
  }
}

/**
 * Overwrites a file and removes it. One with further hard links is only removed: they belong to a copy of the repository, whose key
 * it may be.
 */
function eraseFile(path: string): void {
  let facts: Stats
  try {
    facts = statSync(path)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return
    throw error
  }
  if (facts.nlink === 1) {
    const fd = files.open(path, 'r+')
    try {
      files.writeAll(fd, Buffer.alloc(facts.size))
      files.datasync(fd)
    } finally {
      files.close(fd)
    }
  }
  files.remove(path)
}

/** Numbers with an optional suffix, powers of 1000. */
export function parseSize(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)([KMGTP]?)$/i.exec(text.trim())
  if (!match) return undefined
  return Math.floor(Number(match[1]) * 1000 ** ['', 'K', 'M', 'G', 'T', 'P'].indexOf(match[2]!.toUpperCase()))
}

/** Values of the section, undefined if it is missing. Indented lines continue a value. */
function parseIni(text: string): Map<string, string> | undefined {
  let values: Map<string, string> | undefined
  let inside = false
  let last: string | undefined
  for (const line of text.split('\n')) {
    const header = /^\[([^\]]*)\]\s*$/.exec(line)
    if (header) {
      inside = header[1] === section
      if (inside) values ??= new Map()
      last = undefined
    } else if (inside && values) {
      if (/^\s/.test(line) && last !== undefined) {
        if (line.trim()) values.set(last, `${values.get(last)!}\n${line.trim()}`)
      } else if (line.trim() && !/^[#;]/.test(line)) {
        const match = /^([^=:]+?)\s*[=:]\s*(.*)$/.exec(line)
        if (match) values.set((last = match[1]!.trim().toLowerCase()), match[2]!.trim())
      }
    }
  }
  return values
}

/** As Python's configparser writes: continuation lines are indented by a tab, an empty line ends the section. */
export function formatIni(values: ReadonlyMap<string, string>): string {
  let text = `[${section}]\n`
  for (const [key, value] of values) text += `${key} = ${value.replaceAll('\n', '\n\t')}\n`
  return `${text}\n`
}
