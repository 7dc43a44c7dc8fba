/** `config` (commands.md): lists, prints, sets and deletes values of a repository's or its cache's config file. */
import { join } from 'node:path'
import { CacheConfig } from '../../engine/cache/cache-config.js'
import { ensureCacheFolder } from '../../engine/cache/cache-folder.js'
import { maxEntryBytes } from '../../engine/constants.js'
import { BorgError } from '../../engine/errors.js'
import { parseLocation } from '../../engine/location.js'
import { configDefaults, parseSize } from '../../engine/repository/config.js'
import { Lock } from '../../engine/repository/lock.js'
import { RepositoryHome } from '../../engine/repository/repository-home.js'
import type { Command } from '../command.js'
import type { CommandContext } from '../context.js'
import { print } from '../output/stdout.js'

/** One of the two files. Validators throw a BorgError that begins with Borg's words. */
interface ConfigFile {
  readonly section: 'repository' | 'cache'
  get(name: string): string | undefined
  /** undefined deletes. Durable on return. */
  set(name: string, value: string | undefined): void
  list(): string
  validate(name: string, value: string | undefined): void
}

const smallestQuota = 10_000_000
const segmentSizeLimit = 2 ** 32 - maxEntryBytes

export const config: Command = async context => {
  const location = context.location('repository')
  const metavar = 'REPOSITORY'
  if (location.protocol !== 'file') throw context.usage(`argument ${metavar}: "${location.text}": Repository must be local`)
  const typed = context.positional('name')[0], value = context.positional('value')[0]
  if (!context.flag('list') && typed === undefined) {
    context.log.message('error', 'borg.archiver', 'No config key name was provided.')
    context.exit.force(2)
    return
  }
  const home = await RepositoryHome.open(context.localPath(location), { lock: context.flag('bypass-lock') ? 'none' : 'exclusive', lockWaitMs: context.lockWaitMs, log: context.log })
  context.atEnd(() => home.close())
  const file = context.flag('cache') ? await cacheFile(context, home) : repositoryFile(home)
  if (context.flag('list') && !context.flag('delete')) {
    print(file.list())
    return
  }
  // `section.name`, or the name alone.
  const parts = typed!.split('.')
  const [section, name] = parts.length === 2 ? [parts[0]!, parts[1]!] : [file.section as string, typed!]
  if (context.flag('delete') || value) {
    if (section !== file.section) throw new BorgError('Error', `Invalid section: ${section}. Here it is ${file.section}.`)
    const wanted = context.flag('delete') ? undefined : value
    file.validate(name, wanted)
    file.set(name, wanted)
    return
  }
  const found = section === file.section ? file.get(name.toLowerCase()) : undefined
  if (found !== undefined) print(`${found}\n`)
  else {
    context.log.line(section === file.section ? `No option '${name.toLowerCase()}' in section: '${section}'` : `No section: '${section}'`)
    context.exit.force(1)
  }
}

function repositoryFile(home: RepositoryHome): ConfigFile {
  const { config } = home
  return {
    section: 'repository',
    get: name => config.get(name),
    set(name, value) {
      if (config.get(name) === value) return
      config.set(name, value)
      config.save()
    },
    list() {
      const shown = ['version', 'segments_per_dir', 'max_segment_size', 'storage_quota', 'additional_free_space', 'append_only', 'id']
      const lines = shown.map(name => `${name} = ${config.get(name) ?? new Map(configDefaults).get(name) ?? ''}`)
      const last = config.get('last_segment_checked')
      return `${['[repository]', ...lines, ...(last === undefined ? [] : [`last_segment_checked = ${last}`])].join('\n')}\n`
    },
    validate: (name, value) => validateRepository(home, name, value),
  }
}

function validateRepository(home: RepositoryHome, name: string, value: string | undefined): void {
  const invalid = (why: string): BorgError => new BorgError('Error', `Invalid value: ${why}`)
  switch (name) {
    case 'last_segment_checked':
      if (value !== undefined && !/^[+-]?\d+$/.test(value)) throw invalid(`${name} is a whole number`)
      return
    case 'segments_per_dir':
      if (value === undefined) throw invalid(`no client opens a repository without ${name}`)
      if (!/^\+?\d+$/.test(value) || Number(value) < 1) throw invalid(`${name} is a whole number above 0`)
      // Borg lets one do that, and then finds its segments no more.
      if (!home.segmentsFitInto(Number(value))) throw invalid(`segments that exist would no longer be found with ${name} = ${value}`)
      return
    case 'max_segment_size': case 'additional_free_space': case 'storage_quota': {
      if (value === undefined) {
        if (name === 'max_segment_size') throw invalid(`no client opens a repository without ${name}`)
        return
      }
      const bytes = parseSize(value)
      // Borg knows capitals only.
      if (bytes === undefined || /[a-z]$/.test(value)) throw invalid(`${name} is a size, such as 5000000 or 1.5G`)
      if (name === 'storage_quota' && bytes < smallestQuota) throw invalid('storage_quota < 10M')
      if (name === 'max_segment_size' && bytes >= segmentSizeLimit) throw invalid(`max_segment_size >= ${segmentSizeLimit}`)
      return
    }
    case 'append_only':
      if (value !== undefined && value !== '0' && value !== '1') throw invalid('append_only is 0 or 1')
      return
    case 'id':
      // Keys, caches and what other clients remember of the repository hang on it.
      throw invalid('the id of a repository is never changed')
    default:
      throw new BorgError('Error', `Invalid name: ${name} cannot be set here.`)
  }
}

async function cacheFile(context: CommandContext, home: RepositoryHome): Promise<ConfigFile> {
  const id = home.config.id
  const folder = await ensureCacheFolder(context.places, id, context.log, context.lockWaitMs, context.env)
  const lock = new Lock(join(folder, 'lock'), context.log)
  await lock.acquire('exclusive', context.lockWaitMs)
  context.atEnd(() => lock.release())
  const config = CacheConfig.load(join(folder, 'config'), id.toString('hex'))
  return {
    section: 'cache',
    get: name => config.get('cache', name),
    set(name, value) {
      config.set('cache', name, value)
      config.save()
    },
    list: () => `[cache]\nprevious_location = ${config.get('cache', 'previous_location') ?? ''}\n`,
    validate(name, value) {
      if (name !== 'previous_location') throw new BorgError('Error', `Invalid name: ${name} cannot be set here.`)
      if (value !== undefined && !parseLocation(value, undefined)) throw new BorgError('Error', `Invalid location format: "${value}"`)
    },
  }
}
