/** A repository's directory, config and lock, without its index: all that some commands need. */
import { statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { errnoOf } from '../errors.js'
import type { Log } from '../log.js'
import { RepositoryConfig } from './config.js'
import { DoesNotExist, InvalidRepository, PathPermissionDenied } from './errors.js'
import { breakLock, Lock } from './lock.js'
import { SegmentFolder } from './segment-folder.js'

/** The absolute path and the config of what is a repository. DoesNotExist, InvalidRepository, … Takes no lock and writes nothing. */
export function findRepository(path: string): { readonly folder: string; readonly config: RepositoryConfig } {
  const folder = resolve(path)
  try {
    if (!statSync(folder).isDirectory()) throw new InvalidRepository(folder)
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'ELOOP'].includes(errnoOf(error) ?? '')) throw new DoesNotExist(folder)
    if (errnoOf(error) === 'EACCES') throw new PathPermissionDenied(folder)
    throw error
  }
  return { folder, config: RepositoryConfig.load(folder, folder) }
}

export class RepositoryHome {
  readonly path: string
  readonly config: RepositoryConfig
  readonly #lock: Lock

  private constructor(path: string, config: RepositoryConfig, lock: Lock) {
    this.path = path
    this.config = config
    this.#lock = lock
  }

  /** With the exclusive lock, or none where the person asked to bypass it. The config is read under it. */
  static async open(path: string, options: { lock: 'exclusive' | 'none'; lockWaitMs: number; log: Log }): Promise<RepositoryHome> {
    const { folder } = findRepository(path)
    const lock = new Lock(lockPath(folder), options.log)
    if (options.lock === 'exclusive') await lock.acquire('exclusive', options.lockWaitMs)
    try {
      return new RepositoryHome(folder, findRepository(folder).config, lock)
    } catch (error) {
      lock.release()
      throw error
    }
  }

  /** Whether all segments would be looked for where they are if a directory held so many of them. */
  segmentsFitInto(segmentsPerDir: number): boolean {
    const data = join(this.path, 'data')
    const now = new SegmentFolder(data, this.config.segmentsPerDir)
    const then = new SegmentFolder(data, segmentsPerDir)
    return now.all().every(segment => now.pathOf(segment) === then.pathOf(segment))
  }

  close(): void {
    this.#lock.release()
  }
}

/** The lock's path without suffix. */
export function lockPath(folder: string): string {
  return join(folder, 'lock')
}

/** Removes the locks of a repository, whoever holds them. Returns its id, for its cache's. */
export function breakRepositoryLock(path: string): Buffer {
  const { folder, config } = findRepository(path)
  breakLock(lockPath(folder))
  return config.id
}
