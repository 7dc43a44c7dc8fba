/**
 * What this client remembers of a repository, in the folder and the format of Borg, so that both take turns: `chunks` says
 * how often each chunk is referred to, and `config` for which manifest that holds.
 *
 * Nothing here is ever believed that does not fit the repository: `chunks` counts only if the config names the repository's
 * present manifest and the digest fits. Borg changes the folder under txn.active, a copy of the former state that the next
 * one who holds the lock puts back. Here instead the config is first saved without manifest and digests, which is to either
 * program an outdated cache, then the files are replaced, then the config names the new manifest. Whoever is killed in between
 * leaves a cache that is made anew: Borg, rolled back, would not be better off, as the repository has moved on by then.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { damagedArchive } from '../archive/errors.js'
import type { ArchiveInfo, Manifest } from '../archive/manifest.js'
import type { Key } from '../crypto/key.js'
import { BorgError, errnoOf, IntegrityError, messageOf } from '../errors.js'
import { HashTable } from '../hashindex/hash-table.js'
import { type ChunkId, idHex } from '../ids.js'
import type { Log } from '../log.js'
import type { Places } from '../platform/places.js'
import { files } from '../platform/files.js'
import { saveFile, syncDirectory } from '../platform/save-file.js'
import { finalDigest, loadIntegrity } from '../repository/integrity.js'
import type { LocalRepository } from '../repository/local-repository.js'
import { Lock } from '../repository/lock.js'
import { ChunkReader } from '../store/chunk-reader.js'
import type { RepoObjects } from '../store/repo-objects.js'
import type { Workers } from '../store/workers.js'
import { bytesOf, shownText } from '../text.js'
import { ArchiveIndexes } from './archive-indexes.js'
import { type ArchiveReferences, collectReferences } from './archive-references.js'
import { ArchiveSumsFile } from './archive-sums.js'
import { CacheConfig } from './cache-config.js'
import { completeCacheFolder, ensureCacheFolder } from './cache-folder.js'
import { ChunkIndex } from './chunk-index.js'
import { EncryptionMethodMismatch } from './errors.js'
import { readTable, writeTable } from './table-file.js'

/** What the cache is about. */
export interface CachedRepository {
  readonly repository: LocalRepository
  readonly key: Key
  readonly manifest: Manifest
  readonly objects: RepoObjects
}

export interface ClientCacheOptions {
  readonly places: Places
  readonly log: Log
  readonly lockWaitMs: number
  readonly env?: NodeJS.ProcessEnv
  readonly steps?: CacheStepListener | undefined
}

/** Told before each step of reading or saving the cache, and without a message when all are done. `group` is Borg's message id. */
export type CacheStepListener = (group: 'cache.begin_transaction' | 'cache.commit', message?: string) => void

export interface SyncListener {
  /** Before each archive. */
  progress?(done: number, total: number, archive: string): void
  finished?(): void
}

/** The files cache, seen from here. */
export interface SavedFile {
  readonly name: string
  /** Replaces the file and returns the text of its digests. */
  write(): string
}

const topic = 'borg.cache'

export class ClientCache {
  readonly folder: string
  readonly #opened: CachedRepository
  readonly #log: Log
  readonly #steps: CacheStepListener | undefined
  readonly #lock: Lock
  readonly #config: CacheConfig
  readonly #archives: ArchiveIndexes
  /** What archives say of their sizes. */
  readonly sums: ArchiveSumsFile
  /** For the manifest that it was synced to, with the changes made since. */
  #index: ChunkIndex | undefined
  /** Hex ids of archives that the index knows nothing of. */
  readonly #uncounted = new Set<string>()

  private constructor(folder: string, opened: CachedRepository, lock: Lock, config: CacheConfig, archives: ArchiveIndexes, log: Log, steps: CacheStepListener | undefined) {
    this.folder = folder
    this.#opened = opened
    this.#lock = lock
    this.#config = config
    this.#archives = archives
    this.sums = new ArchiveSumsFile(join(folder, 'borgfs-archive-sums'))
    this.#log = log
    this.#steps = steps
  }

  /** Takes the cache's lock until close(). LockTimeout; EncryptionMethodMismatch. */
  static async open(opened: CachedRepository, options: ClientCacheOptions): Promise<ClientCache> {
    const { log, lockWaitMs, env = process.env } = options
    await loadIntegrity()
    const id = idHex(opened.repository.id)
    const folder = await ensureCacheFolder(options.places, opened.repository.id, log, lockWaitMs, env)
    const lock = new Lock(join(folder, 'lock'), log)
    await lock.acquire('exclusive', lockWaitMs)
    try {
      rollBackBorg(folder)
      completeCacheFolder(folder, id, env)
      const config = loadConfig(folder, id, log)
      const keyType = config.get('cache', 'key_type')
      if (keyType !== undefined && keyType !== String(opened.key.type)) throw new EncryptionMethodMismatch()
      const cache = new ClientCache(folder, opened, lock, config, new ArchiveIndexes(join(folder, 'chunks.archive.d'), log, env), log, options.steps)
      cache.#refuseOtherFeatures()
      return cache
    } catch (error) {
      lock.release()
      throw error
    }
  }

  /** True if the chunks index on disk is for the manifest as it is now. */
  get inSync(): boolean {
    return this.#config.manifest === idHex(this.#opened.manifest.id)
  }

  /** What sync() gave, with the changes made since; undefined before it and after rollback(). */
  get index(): ChunkIndex | undefined {
    return this.#index
  }

  /** Digests of a file of this folder, for whoever reads it; undefined if there are none to rely upon. */
  digests(name: string): string | undefined {
    return this.#config.digests(name)
  }

  /**
   * The chunks index of the present manifest: from the file if that is current, else rebuilt from the archives and saved.
   * Changes are the caller's to make in it, and to commit. Errors of the objects of a damaged archive, unless it is one of
   * `doomed`, which are about to be deleted: then nothing of it is counted, see isUncounted().
   */
  async sync(workers: Workers, listener: SyncListener = {}, doomed: readonly ArchiveInfo[] = []): Promise<ChunkIndex> {
    if (this.#index) return this.#index
    this.#index = this.inSync ? this.#load() : undefined
    if (!this.#index) {
      this.#index = await this.#rebuild(workers, listener, new Set(doomed.map(({ id }) => idHex(id))))
      this.commit()
    }
    return this.#index
  }

  /** The archive was too damaged to be counted. While the manifest has it, the chunks index is not saved. */
  isUncounted(id: ChunkId): boolean {
    return this.#uncounted.has(idHex(id))
  }

  /** Without asking the archives; undefined if the file is not current or damaged. */
  load(): ChunkIndex | undefined {
    if (!this.#index && this.inSync) this.#index = this.#load()
    return this.#index
  }

  #load(): ChunkIndex | undefined {
    this.#steps?.('cache.begin_transaction', 'Initializing cache transaction: Reading chunks')
    const index = this.#read()
    this.#steps?.('cache.begin_transaction')
    return index
  }

  #read(): ChunkIndex | undefined {
    const path = join(this.folder, 'chunks')
    try {
      const expected = finalDigest(this.#config.digests('chunks'))
      if (expected === undefined) throw new IntegrityError('its digest is missing')
      return new ChunkIndex(readTable(path, 'chunks', 3, expected))
    } catch (error) {
      if (!(error instanceof IntegrityError) && errnoOf(error) !== 'ENOENT') throw error
      this.#log.write('warning', topic, `The chunks cache is corrupted. [${messageOf(error)}] It is built anew.`)
      // Neither program may believe it at the next run, should this one not get so far.
      this.#config.setManifest('')
      this.#config.setDigests('chunks', undefined)
      this.#config.save()
      return undefined
    }
  }

  async #rebuild(workers: Workers, listener: SyncListener, doomed: ReadonlySet<string>): Promise<ChunkIndex> {
    const { repository, manifest } = this.#opened
    const say = (message: string): void => this.#log.write('info', topic, message)
    say('Synchronizing chunks cache...')
    // Two names of one archive count once, as with Borg: deleting one of them takes no reference away.
    const archives = [...new Map([...manifest.archives.values()].map(info => [idHex(info.id), info])).values()]
    const wanted = new Set(archives.map(({ id }) => idHex(id)))
    const known = this.#archives.ids()
    const outdated = [...known].filter(id => !wanted.has(id))
    say(`Archives: ${wanted.size}, w/ cached Idx: ${known.size}, w/ outdated Idx: ${outdated.length}, w/o cached Idx: ${[...wanted].filter(id => !known.has(id)).length}.`)
    for (const id of outdated) this.#archives.remove(id)

    const all = new ChunkIndex(new HashTable(3, archives.length > 0 ? repository.objectCount : 0))
    const reader = new ChunkReader(repository, workers)
    // Some archives are read ahead, so that the workers do not wait for what is counted and written here.
    const missing = archives.filter(({ id }) => !known.has(idHex(id)))
    const ahead = new Map<ArchiveInfo, Promise<ArchiveReferences>>()
    const fetch = (info: ArchiveInfo): Promise<ArchiveReferences> => {
      const found = ahead.get(info)
      if (found) {
        ahead.delete(info)
        return found
      }
      return collectReferences(info, this.#opened, reader)
    }
    try {
      for (const [done, info] of archives.entries()) {
        while (missing.length > 0 && ahead.size < 2) {
          const next = missing.shift()!
          const started = collectReferences(next, this.#opened, reader)
          started.catch(() => undefined)
          ahead.set(next, started)
        }
        const name = shownText(bytesOf(info.name))
        listener.progress?.(done, archives.length, name)
        const hex = idHex(info.id)
        if (known.has(hex)) say(`Reading cached archive chunk index for ${name} ...`)
        let index = known.has(hex) ? this.#archives.read(hex, name) : undefined
        if (!index) {
          say(`Fetching and building archive index for ${name} ...`)
          try {
            index = (await fetch(info)).index
          } catch (error) {
            if (!(error instanceof BorgError)) throw error
            if (!doomed.has(hex)) throw damagedArchive(name, error, '. Run "borg check --repair" on the repository.')
            this.#uncounted.add(hex)
            continue
          }
          this.#archives.write(hex, index)
        }
        say('Merging into master chunks index ...')
        all.merge(index)
      }
    } finally {
      await Promise.allSettled(ahead.values())
    }
    listener.finished?.()
    say('Done.')
    return all
  }

  /** What one archive refers to; from its own index if there is one. */
  async references(info: ArchiveInfo, workers: Workers): Promise<ChunkIndex> {
    return this.#archives.read(idHex(info.id), shownText(bytesOf(info.name))) ?? (await collectReferences(info, this.#opened, new ChunkReader(this.#opened.repository, workers))).index
  }

  /**
   * After the repository's COMMIT: makes what lies on disk current. Without an index (none was asked for, or rollback) only
   * `files` is saved, and the chunks index stays that of its former manifest. A cache that cannot be written is no error of
   * what was committed: there is a warning, and the next one makes it anew.
   */
  commit(files?: SavedFile): void {
    const index = this.#isComplete() ? this.#index : undefined
    if (!index && !files) return
    try {
      this.#save(index, files)
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      this.#log.write('warning', topic, `The cache ${this.folder} could not be saved: ${messageOf(error)}. It will be built anew.`)
    }
  }

  #isComplete(): boolean {
    return this.#uncounted.size === 0 || ![...this.#opened.manifest.archives.values()].some(({ id }) => this.isUncounted(id))
  }

  #save(index: ChunkIndex | undefined, files: SavedFile | undefined): void {
    const { manifest, key, repository } = this.#opened
    const config = this.#config
    const former = config.manifest
    // For who is killed here: that the files cache is another is no damage. Should only the chunks index be, its digest tells and the manifest,
    // which is not the repository's any more; and Borg ends with a traceback if the config itself is not whole.
    if (files) {
      if (index) {
        config.setManifest('')
        config.setDigests('chunks', undefined)
      }
      config.setDigests(files.name, undefined)
      config.save()
      this.#steps?.('cache.commit', 'Saving files cache')
      config.setDigests(files.name, files.write())
    }
    if (index) this.#steps?.('cache.commit', 'Saving chunks cache')
    if (index) config.setDigests('chunks', writeTable(join(this.folder, 'chunks'), 'chunks', index.table))
    syncDirectory(this.folder)
    config.setManifest(index ? idHex(manifest.id) : former)
    if (index) {
      config.set('cache', 'timestamp', manifest.timestamp)
      this.#noteFeatures()
    }
    config.set('cache', 'previous_location', repository.location)
    config.set('cache', 'key_type', String(key.type))
    this.#steps?.('cache.commit', 'Saving cache config')
    config.save()
    this.#steps?.('cache.commit')
  }

  /** The repository's transaction failed: what was counted in it is forgotten. */
  rollback(): void {
    this.#index?.table.close()
    this.#index = undefined
  }

  /** The chunks index proved wrong: neither program believes it again. */
  discard(): void {
    this.#index = undefined
    this.#config.setManifest('')
    this.#config.setDigests('chunks', undefined)
    this.#config.save()
  }

  /** Lets go of the lock. What was not committed is lost. */
  close(): void {
    this.rollback()
    this.#lock.release()
  }

  /** Nothing was left uncounted for want of a feature: this program, like Borg 1.x, knows none by name. */
  #refuseOtherFeatures(): void {
    if (this.#config.list('cache', 'mandatory_features').length === 0) return
    this.#log.write('warning', topic, 'Discarding incompatible cache and forcing a cache rebuild')
    for (const id of this.#archives.ids()) this.#archives.remove(id)
    for (const name of readdirSync(this.folder)) if (name === 'files' || name.startsWith('files.')) files.write(join(this.folder, name), '')
    this.#config.setManifest('')
    for (const key of ['ignored_features', 'mandatory_features']) this.#config.set('cache', key, '')
    for (const name of readdirSync(this.folder)) this.#config.setDigests(name, undefined)
    this.#config.save()
  }

  #noteFeatures(): void {
    const ignored = new Set([...this.#config.list('cache', 'ignored_features'), ...this.#opened.manifest.mandatoryFeatures()])
    this.#config.set('cache', 'ignored_features', [...ignored].join(','))
    this.#config.set('cache', 'mandatory_features', '')
  }
}

/** What a Borg that was killed left: txn.tmp is worth nothing, txn.active is the state before its transaction. */
function rollBackBorg(folder: string): void {
  const [active, temporary] = [join(folder, 'txn.active'), join(folder, 'txn.tmp')]
  files.removeTree(temporary)
  if (!existsSync(active)) return
  for (const name of readdirSync(active)) if (/^(?:config|chunks|files(?:\..*)?)$/.test(name)) saveFile(join(folder, name), readFileSync(join(active, name)), { mode: 0o600, durable: 'content' })
  syncDirectory(folder)
  files.rename(active, temporary)
  files.removeTree(temporary)
}

function loadConfig(folder: string, id: string, log: Log): CacheConfig {
  const path = join(folder, 'config')
  try {
    return CacheConfig.load(path, id)
  } catch (error) {
    if (!(error instanceof IntegrityError)) throw error
    log.write('warning', topic, `The config of the cache is corrupted. [${messageOf(error)}] The cache is built anew.`)
    const config = CacheConfig.empty(path, id)
    config.save()
    return config
  }
}
