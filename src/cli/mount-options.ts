/** The words of `mount -o` (mount.md §1, incoming.md). */
import { totalmem } from 'node:os'
import { resolve } from 'node:path'
import { CommandError } from '../engine/errors.js'
import { parseSize } from '../engine/repository/config.js'
import { defaultMountOptions, type MountOptions, withFuseOption } from '../fs/fuse/transport.js'
import { defaultNameTemplate } from '../fs/incoming/commit.js'

export interface DriveOptions {
  readonly allowDamagedFiles: boolean
  readonly uid: number | undefined
  readonly gid: number | undefined
  readonly umask: number
  readonly cacheBytes: number
  /** Of the trees kept in the cache folder. */
  readonly treeBytes: number
  readonly holdLock: boolean
  readonly refreshMs: number
  readonly settleMs: number
  readonly lingerMs: number
  readonly stagingFolder: string | undefined
  readonly stagingMax: number | undefined
  readonly archiveName: string
  readonly compression: string
  readonly transport: 'kernel' | 'fuse-native'
  readonly logFile: string | undefined
  readonly versions: boolean
  readonly allowDelete: boolean
  /** Series to open in live/. */
  readonly live: readonly string[]
  readonly mount: MountOptions
}

/** One less than the number that means none. */
const maxOwner = 0xfffffffe
/** Node's timers take no more. */
const maxTimerMs = 0x7fffffff
const standardCacheBytes = 256 * 1024 * 1024, standardTreeBytes = 256 * 1024 * 1024

/** CommandError names the word that is wrong. */
export function parseDriveOptions(text: string | undefined, mountpoint: string): DriveOptions {
  const values = new Map<string, string | undefined>()
  let mount: MountOptions = { mountpoint, ...defaultMountOptions }
  const own = new Set(['versions', 'allow_damaged_files', 'ignore_permissions', 'uid', 'gid', 'umask', 'cache', 'trees', 'lock', 'refresh', 'settle', 'linger', 'staging', 'staging_max', 'archive_name', 'compression', 'transport', 'log', 'allow_delete', 'live'])
  for (const word of (text ?? '').split(',').filter(Boolean)) {
    const equals = word.indexOf('=')
    const name = equals < 0 ? word : word.slice(0, equals)
    if (own.has(name)) values.set(name, equals < 0 ? undefined : word.slice(equals + 1))
    else {
      const next = withFuseOption(mount, word)
      if (!next) throw new CommandError(`fuse: unknown option(s): \`-o ${word}'`)
      mount = next
    }
  }
  const wrong = (name: string, wanted: string): never => {
    throw new CommandError(`-o ${name}=${values.get(name) ?? ''}: ${wanted}`)
  }
  const flag = (name: string): boolean => {
    if (!values.has(name)) return false
    const value = values.get(name)
    if (value === undefined || /^(yes|true|1|y)$/.test(value)) return true
    return /^(no|false|0|n)$/.test(value) ? false : wrong(name, 'yes or no is wanted')
  }
  const number = (name: string): number | undefined => {
    if (!values.has(name)) return undefined
    const value = values.get(name)
    return value !== undefined && /^\d+(\.\d+)?$/.test(value) ? Number(value) : wrong(name, 'a number is wanted')
  }
  const owner = (name: string): number | undefined => {
    const value = number(name)
    return value === undefined || (Number.isInteger(value) && value <= maxOwner) ? value : wrong(name, `a whole number up to ${maxOwner} is wanted`)
  }
  const size = (name: string): number | undefined => {
    if (!values.has(name)) return undefined
    return parseSize((values.get(name) ?? '').replace(/i?B?$/, '')) ?? wrong(name, 'a size such as 512M is wanted')
  }
  const octal = (name: string): number => {
    const value = values.get(name)
    if (!values.has(name)) return 0
    return value !== undefined && /^(0o)?0*[0-7]{1,4}$/.test(value) ? parseInt(value.replace('o', ''), 8) : wrong(name, 'an octal number is wanted')
  }
  if (flag('ignore_permissions')) mount = { ...mount, defaultPermissions: false }
  const transport = values.get('transport') ?? 'kernel'
  if (transport !== 'kernel' && transport !== 'fuse-native') return wrong('transport', 'kernel or fuse-native is wanted')
  const lock = values.get('lock')
  if (lock !== undefined && lock !== 'hold' && lock !== 'polite') return wrong('lock', 'hold or polite is wanted')
  const cacheBytes = size('cache') ?? standardCacheBytes
  if (cacheBytes > totalmem()) return wrong('cache', `no more than this machine's memory (${Math.floor(totalmem() / 1e6)}M) is wanted`)
  return {
    allowDamagedFiles: flag('allow_damaged_files'), uid: owner('uid'), gid: owner('gid'), umask: octal('umask'), cacheBytes, treeBytes: size('trees') ?? standardTreeBytes,
    holdLock: lock === 'hold', refreshMs: Math.min((number('refresh') ?? 5) * 1000, maxTimerMs), settleMs: (number('settle') ?? 10) * 1000, lingerMs: (number('linger') ?? 60) * 1000,
    stagingFolder: values.get('staging') === undefined ? undefined : resolve(values.get('staging')!), stagingMax: size('staging_max'),
    archiveName: values.get('archive_name') ?? defaultNameTemplate, compression: values.get('compression') ?? 'lz4', transport,
    versions: flag('versions'), allowDelete: flag('allow_delete'), live: (values.get('live') ?? '').split(':').filter(Boolean), logFile: values.get('log') === undefined ? undefined : resolve(values.get('log')!), mount,
  }
}
