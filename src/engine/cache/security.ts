/** The security directory: what this client knows of a repository, to notice that it was exchanged (crypto.md §10). */
import { existsSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { NonceError } from '../crypto/errors.js'
import type { Key } from '../crypto/key.js'
import { formatNonce, type NonceStore, parseNonce } from '../crypto/nonces.js'
import { errnoOf, IntegrityError } from '../errors.js'
import { files } from '../platform/files.js'
import { ensureFolder, type Places } from '../platform/places.js'
import { saveFile } from '../platform/save-file.js'
import { CacheConfig } from './cache-config.js'
import { CacheInitAborted, EncryptionMethodMismatch, RepositoryAccessAborted, RepositoryIdNotUnique, RepositoryReplay } from './errors.js'

/** Questions that only a person or an environment variable may answer; the default is no. */
export interface SecurityQuestions {
  confirm(question: string, variable: string): Promise<boolean>
}

export interface SeenManifest {
  readonly timestamp: string
}

export class SecurityFolder implements NonceStore {
  readonly path: string
  readonly #cacheConfig: string

  constructor(places: Places, repositoryId: Uint8Array) {
    const hex = Buffer.from(repositoryId).toString('hex')
    this.path = join(places.security, hex)
    this.#cacheConfig = join(places.cache, hex, 'config')
  }

  get known(): boolean {
    return ['key-type', 'location', 'manifest-timestamp'].every(name => existsSync(join(this.path, name)))
  }

  #read(name: string): string | undefined {
    try {
      return readFileSync(join(this.path, name), 'utf8')
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      throw error
    }
  }

  #write(name: string, content: string): void {
    ensureFolder(this.path)
    saveFile(join(this.path, name), Buffer.from(content), { mode: 0o600 })
  }

  /** Refuses or asks as Borg does before a repository is used. Remembers a confirmed location. */
  async check(location: string, key: Key, manifest: SeenManifest, questions: SecurityQuestions): Promise<void> {
    if (!this.known && key.logicallyUnencrypted) {
      const question = 'Warning: Attempting to access a previously unknown unencrypted repository!\nDo you want to continue? [yN] '
      if (!(await questions.confirm(question, 'BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK'))) throw new CacheInitAborted()
      // Known from now on, whatever is refused next.
      this.save(location, key, manifest)
    }
    // Where the two differ Borg takes the cache's word.
    const previous = this.#cacheValue('previous_location') || this.#read('location')
    if (previous !== undefined && previous !== location) {
      const question = `Warning: The repository at location ${location} was previously located at ${previous}\nDo you want to continue? [yN] `
      if (!(await questions.confirm(question, 'BORG_RELOCATED_REPO_ACCESS_IS_OK'))) throw new RepositoryAccessAborted()
      this.#write('location', location)
      this.#tellCache(location)
    }
    const seen = [this.#read('manifest-timestamp'), this.#cacheValue('timestamp')].filter(value => value !== undefined && value !== '').sort().at(-1)
    if (seen !== undefined && seen > manifest.timestamp) throw key.logicallyUnencrypted ? new RepositoryIdNotUnique() : new RepositoryReplay()
    const keyType = this.#read('key-type')
    if (keyType !== undefined && keyType.trim() !== String(key.type)) throw new EncryptionMethodMismatch()
    if (!this.known) this.save(location, key, manifest)
  }

  /** So that the question is not asked again. A cache that changes at the same moment is outdated by this at worst. */
  #tellCache(location: string): void {
    try {
      const config = CacheConfig.load(this.#cacheConfig, basename(this.path))
      config.set('cache', 'previous_location', location)
      config.save()
    } catch (error) {
      if (!(error instanceof IntegrityError) && errnoOf(error) !== 'ENOENT') throw error
    }
  }

  #cacheValue(name: string): string | undefined {
    try {
      return new RegExp(`^${name} = (.*)$`, 'm').exec(readFileSync(this.#cacheConfig, 'utf8'))?.[1]
    } catch {
      return undefined
    }
  }

  /** After the repository was used: what it looked like. */
  save(location: string, key: Key, manifest: SeenManifest): void {
    for (const [name, content] of [['key-type', String(key.type)], ['location', location], ['manifest-timestamp', manifest.timestamp]] as const) {
      if (this.#read(name) !== content) this.#write(name, content)
    }
  }

  /** Timestamp of the newest manifest that this client has seen. */
  get lastTimestamp(): string | undefined {
    return this.#read('manifest-timestamp')
  }

  /** The marker that this repository's manifest is authenticated. */
  get tamRequired(): boolean {
    return existsSync(join(this.path, 'tam_required'))
  }

  setTamRequired(required: boolean): void {
    if (required === this.tamRequired) return
    if (required) this.#write('tam_required', '')
    else files.removeIfThere(join(this.path, 'tam_required'))
  }

  freeNonce(): Promise<bigint | undefined> {
    const text = this.#read('nonce')
    return Promise.resolve(text === undefined ? undefined : parseNonce(text, join(this.path, 'nonce')))
  }

  async reserveNonces(next: bigint, expected: bigint | undefined): Promise<void> {
    if ((await this.freeNonce()) !== expected) throw new NonceError('The local nonce reservation changed meanwhile: another program uses the same repository. Run the command again.')
    this.#write('nonce', formatNonce(next))
  }
}
