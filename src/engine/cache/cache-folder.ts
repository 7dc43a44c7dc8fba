/** CACHE/ID as Borg expects to find it: it takes a folder that exists for a complete cache. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { errnoOf } from '../errors.js'
import { HashTable } from '../hashindex/hash-table.js'
import type { Log } from '../log.js'
import { files } from '../platform/files.js'
import { cacheFolderOf, type Places } from '../platform/places.js'
import { saveFile, syncDirectory } from '../platform/save-file.js'
import { Lock } from '../repository/lock.js'
import { CacheConfig } from './cache-config.js'

/** Name of the files cache: one per set of sources, if wished. */
export function filesCacheName(env: NodeJS.ProcessEnv): string {
  return env.BORG_FILES_CACHE_SUFFIX ? `files.${env.BORG_FILES_CACHE_SUFFIX}` : 'files'
}

/** The cache folder of a repository, made if it is missing, completed if it is not whole. Its lock may be needed for that. */
export async function ensureCacheFolder(places: Places, repositoryId: Uint8Array, log: Log, lockWaitMs: number, env: NodeJS.ProcessEnv = process.env): Promise<string> {
  const folder = cacheFolderOf(places, repositoryId)
  const id = Buffer.from(repositoryId).toString('hex')
  if (!existsSync(folder)) makeNew(folder, id, env)
  if (existsSync(join(folder, 'config'))) return folder
  const lock = new Lock(join(folder, 'lock'), log)
  await lock.acquire('exclusive', lockWaitMs)
  try {
    if (!existsSync(join(folder, 'config'))) completeCacheFolder(folder, id, env)
  } finally {
    lock.release()
  }
  return folder
}

/** Nobody may see it half made. */
function makeNew(folder: string, id: string, env: NodeJS.ProcessEnv): void {
  const temporary = files.makeUniqueDirectory(`${folder}.new-`)
  try {
    completeCacheFolder(temporary, id, env)
    // Borg ends with a traceback if there is a folder without a config.
    syncDirectory(temporary)
    files.rename(temporary, folder)
  } catch (error) {
    files.removeTree(temporary)
    // Somebody else was faster.
    if (errnoOf(error) !== 'ENOTEMPTY' && errnoOf(error) !== 'EEXIST') throw error
  }
}

/** Adds what is missing, the config last. With the lock, unless nobody else knows the folder. */
export function completeCacheFolder(folder: string, id: string, env: NodeJS.ProcessEnv): void {
  const missing = (name: string): boolean => !existsSync(join(folder, name))
  if (missing('README')) files.write(join(folder, 'README'), 'This is a Borg Backup cache.\nSee https://borgbackup.readthedocs.io/\n', { mode: 0o600 })
  if (missing('chunks.archive.d')) files.makeDirectory(join(folder, 'chunks.archive.d'), 0o700)
  if (missing('chunks')) {
    const chunks = new HashTable(3)
    // There is no digest for it yet, and Borg takes it as it is.
    saveFile(join(folder, 'chunks'), [chunks.header(), chunks.bucketBytes], { mode: 0o600, durable: 'content' })
  }
  if (missing(filesCacheName(env))) files.write(join(folder, filesCacheName(env)), '', { mode: 0o600 })
  if (missing('pre12-meta')) files.write(join(folder, 'pre12-meta'), '{}', { mode: 0o600 })
  if (missing('config')) CacheConfig.empty(join(folder, 'config'), id).save()
}
