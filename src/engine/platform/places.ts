/** Where keys, caches and security facts of this user live (environment.md): as Borg, so that both share them. */
import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { files } from './files.js'

export interface Places {
  /** One folder per repository id. */
  readonly cache: string
  readonly config: string
  readonly security: string
  readonly keys: string
  /** BORG_KEY_FILE. */
  readonly keyFile: string | undefined
}

export function placesOf(env: NodeJS.ProcessEnv = process.env): Places {
  const base = env.BORG_BASE_DIR
  const home = base || env.HOME || homedir()
  const xdg = (variable: string, folder: string): string => join((base ? undefined : env[variable]) || join(home, folder), 'borg')
  const cache = env.BORG_CACHE_DIR || xdg('XDG_CACHE_HOME', '.cache')
  const config = env.BORG_CONFIG_DIR || xdg('XDG_CONFIG_HOME', '.config')
  return {
    cache: resolve(cache), config: resolve(config),
    security: resolve(env.BORG_SECURITY_DIR || join(config, 'security')),
    keys: resolve(env.BORG_KEYS_DIR || join(config, 'keys')),
    keyFile: env.BORG_KEY_FILE || undefined,
  }
}

/** Makes a private folder, with those above it. */
export function ensureFolder(path: string): string {
  files.ensureDirectory(path, 0o700)
  return path
}

const cacheTag = 'Signature: 8a477f597d28d172789f06886806bc55\n# This file is a cache directory tag: what lies here can be made anew.\n'

/** Where the cache of a repository is or will be. The folder above is made, with the tag that backup programs skip caches by. */
export function cacheFolderOf(places: Places, repositoryId: Uint8Array): string {
  ensureFolder(places.cache)
  const tag = join(places.cache, 'CACHEDIR.TAG')
  if (!existsSync(tag)) files.write(tag, cacheTag)
  return join(places.cache, Buffer.from(repositoryId).toString('hex'))
}
