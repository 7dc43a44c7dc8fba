/**
 * CACHE/ID/chunks.archive.d: one compact chunks index per archive, so that a repository that other clients changed need not be
 * read again as a whole. An archive never changes under its id, and so does its index. Files (Borg's): ARCHIVEID.compact,
 * ARCHIVEID.compact.integrity; of older versions ARCHIVEID, ARCHIVEID.integrity; interrupted: *.tmp.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { errnoOf, IntegrityError, messageOf } from '../errors.js'
import type { Log } from '../log.js'
import { files } from '../platform/files.js'
import { saveFile } from '../platform/save-file.js'
import { finalDigest } from '../repository/integrity.js'
import { ChunkIndex } from './chunk-index.js'
import { readTable, tableDigest } from './table-file.js'

export class ArchiveIndexes {
  readonly #folder: string
  readonly #log: Log
  /** False: nothing is read or kept. A file in the folder's place says so, or BORG_USE_CHUNKS_ARCHIVE. */
  readonly inUse: boolean

  constructor(folder: string, log: Log, env: NodeJS.ProcessEnv) {
    this.#folder = folder
    this.#log = log
    if (!existsSync(folder)) files.makeDirectory(folder, 0o700)
    this.inUse = ['yes', '1', 'true'].includes((env.BORG_USE_CHUNKS_ARCHIVE ?? 'yes').toLowerCase()) && statSync(folder).isDirectory()
  }

  /** Hex ids of the archives that have an index. */
  ids(): Set<string> {
    const ids = new Set<string>()
    if (!this.inUse) return ids
    for (const name of readdirSync(this.#folder)) {
      const match = /^([0-9a-f]{64})(?:\.compact)?$/.exec(name)
      if (match) ids.add(match[1]!)
      // Of a run that was interrupted: the lock is held, nobody is writing it.
      else if (name.endsWith('.tmp')) files.removeIfThere(join(this.#folder, name))
    }
    return ids
  }

  /** undefined if there is none, or none that can be relied upon: then it is removed, with an error line as Borg's. */
  read(id: string, archiveName: string): ChunkIndex | undefined {
    if (!this.inUse) return undefined
    for (const name of [`${id}.compact`, id]) {
      try {
        const path = join(this.#folder, name)
        return new ChunkIndex(readTable(path, name, 3, this.#expected(path)))
      } catch (error) {
        if (errnoOf(error) === 'ENOENT') continue
        if (!(error instanceof IntegrityError)) throw error
        this.#log.write('error', 'borg.cache', `Cached archive chunk index of ${archiveName} is corrupted: ${messageOf(error)}`)
        this.remove(id)
        return undefined
      }
    }
    return undefined
  }

  /** The digest beside a file. Without one an index is not believed: it could have been cut off by a crash. */
  #expected(path: string): string {
    if (!existsSync(path)) throw Object.assign(new Error(`${path} is missing`), { code: 'ENOENT' })
    let json: string
    try {
      json = readFileSync(`${path}.integrity`, 'utf8')
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') throw new IntegrityError('its integrity file is missing')
      throw error
    }
    const digest = finalDigest(json)
    if (digest === undefined) throw new IntegrityError('its integrity file cannot be read')
    return digest
  }

  write(id: string, index: ChunkIndex): void {
    if (!this.inUse) return
    const name = `${id}.compact`
    const compact = index.table.compact()
    // First the digest: Borg believes an index that has none.
    files.write(join(this.#folder, `${name}.integrity`), tableDigest(name, compact), { mode: 0o600 })
    saveFile(join(this.#folder, name), [compact.header, compact.bytes], { mode: 0o600, durable: 'no' })
  }

  remove(id: string): void {
    for (const name of [id, `${id}.compact`]) for (const suffix of ['', '.integrity']) files.removeIfThere(join(this.#folder, name + suffix))
  }
}
