/** `delete` (commands.md): archives, or the whole repository. */
import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { completeCacheFolder } from '../../engine/cache/cache-folder.js'
import { NoManifest } from '../../engine/archive/errors.js'
import type { ArchiveInfo, Manifest } from '../../engine/archive/manifest.js'
import { BorgError, CommandError } from '../../engine/errors.js'
import { canonical, type Location } from '../../engine/location.js'
import { deleteArchives } from '../../engine/operations/delete.js'
import { collectStatistics } from '../../engine/operations/statistics.js'
import { files, removeTree } from '../../engine/platform/files.js'
import { syncDirectory } from '../../engine/platform/save-file.js'
import { journalName } from '../../fs/incoming/frozen.js'
import { LockTimeout } from '../../engine/repository/errors.js'
import { Lock } from '../../engine/repository/lock.js'
import type { Command } from '../command.js'
import { archiveName, choosesArchives, type CommandContext, selectArchives } from '../context.js'
import { deletionListener, endedBySignal, printDeletionStats } from '../deletion.js'
import { warningCode } from '../exit.js'
import { stagingName } from '../staging-name.js'
import { syncListener } from '../output/progress.js'
import { archiveLine, dashes } from '../output/summary.js'
import { bytesOf, shownText } from '../../engine/text.js'
import { rememberCommit } from '../../engine/operations/remember-commit.js'

const topic = 'borg.archiver'

export const deleteCommand: Command = async context => {
  const location = context.location('either')
  const filtered = choosesArchives(context)
  const names = [...(location.archive === undefined ? [] : [location.archive]), ...context.positional('archives')].map(archiveName)
  if (context.flag('stats') && context.flag('dry-run')) context.log.message('warning', topic, 'Ignoring --stats. It is not supported when using --dry-run.')
  if (filtered && names.length > 0) throw new CommandError('Mixing archive filters and explicitly named archives is not supported.')
  if (context.flag('list')) context.log.always('borg.output.list')
  if (!filtered && names.length === 0) return deleteRepository(context, location)

  const opened = await context.open(location, 'exclusive', 'delete')
  const { manifest } = opened
  const chosen = names.length > 0 ? names : (await selectArchives(context, manifest.archives.values(), { hideCheckpoints: false })).map(({ name }) => name)
  if (chosen.length === 0) return
  const steps = new DeleteSteps(context, chosen, manifest)
  if ((context.number('force') ?? 0) >= 2) return steps.drop(opened)
  if (context.flag('dry-run')) {
    for (const name of chosen) steps.tell(name)
    return
  }
  const { workers, cache } = await context.openCache(opened)
  const doomed = [...new Set(chosen)].flatMap(name => manifest.archives.get(name) ?? [])
  const options = { force: (context.number('force') ?? 0) > 0, checkpointIntervalMs: context.number('checkpoint-interval')! * 1000, considerParts: context.flag('consider-part-files') }
  await cache.sync(workers, syncListener(context), options.force ? doomed : [])
  context.signals.answer()
  let interrupted = false
  const sums = await deleteArchives({ opened, workers, cache }, doomed, options, deletionListener(context, context.flag('progress')), async deletion => {
    for (const name of chosen) {
      const info = steps.tell(name)
      if (!info) continue
      await deletion.delete(info)
      if ((interrupted = await endedBySignal(context, deletion))) return
      await deletion.maybeCheckpoint()
    }
  })
  if (context.flag('stats')) printDeletionStats(context, sums, await collectStatistics({ opened, workers, cache, considerParts: options.considerParts }))
  if (interrupted) throw new BorgError('Error', 'Got Ctrl-C / SIGINT.')
}

class DeleteSteps {
  readonly #context: CommandContext
  readonly #names: readonly string[]
  readonly #manifest: Manifest
  #told = 0

  constructor(context: CommandContext, names: readonly string[], manifest: Manifest) {
    this.#context = context
    this.#names = names
    this.#manifest = manifest
  }

  /** Says what happens to the next name; the archive if there is one. */
  tell(name: string, words = this.#context.flag('dry-run') ? 'Would delete archive:' : 'Deleting archive:'): ArchiveInfo | undefined {
    const { log, exit } = this.#context
    const count = `(${++this.#told}/${this.#names.length})`
    const info = this.#manifest.archives.get(name)
    if (!info) {
      log.message('warning', topic, `Archive ${shownText(bytesOf(name))} not found ${count}.`)
      exit.warnModern(1)
    } else if (this.#context.flag('list')) log.message('info', 'borg.output.list', `${words} ${archiveLine(info)} ${count}`)
    return info
  }

  /** --force --force: out of the manifest, without reading the archive or touching a chunk. */
  async drop(opened: Awaited<ReturnType<CommandContext['open']>>): Promise<void> {
    const { log, exit } = this.#context
    const dryRun = this.#context.flag('dry-run')
    const before = new Map(this.#manifest.archives)
    let dropped = false
    for (const name of this.#names) {
      if (this.tell(name, dryRun ? 'Would delete:' : 'Deleted archive:')) dropped = this.#manifest.archives.delete(name) || dropped
      else exit.warn(warningCode.generic)
    }
    if (dryRun) log.message('info', topic, 'Finished dry-run.')
    else if (dropped) {
      const { repository, manifest, objects } = opened
      try {
        await repository.transaction(tx => manifest.write(tx, objects))
      } catch (error) {
        for (const [name, info] of before) manifest.archives.set(name, info)
        throw error
      }
      rememberCommit(opened)
      log.message('warning', topic, 'Done. Run "borg check --repair" to clean up the mess.')
    } else log.message('warning', topic, 'Aborted.')
  }
}

async function deleteRepository(context: CommandContext, location: Location): Promise<void> {
  const { log } = context
  const dryRun = context.flag('dry-run'), keepSecurity = context.flag('keep-security-info')
  const say = (message: string): void => log.message('info', topic, message)
  const repository = await context.openLocal(location, 'exclusive')
  const id = repository.id.toString('hex')
  const cache = join(context.places.cache, id)
  const staging = join(cache, stagingName)
  if (!context.flag('cache-only')) {
    if (!dryRun) await refuseMounted(context, location, staging)
    if ((context.number('force') ?? 0) === 0) {
      if (!(await confirmed(context, location, repository))) {
        context.exit.force(2)
        return
      }
    } else if (holdsContent(staging)) log.message('warning', topic, `What was copied into a drive and is not saved yet ${dryRun ? 'would be' : 'is'} deleted as well: ${staging}`)
    if (!dryRun) {
      repository.destroy()
      say('Repository deleted.')
      const security = join(context.places.security, id)
      if (!keepSecurity && existsSync(security)) removeTree(security)
    } else {
      say('Would delete repository.')
      say(`Would ${keepSecurity ? 'keep' : 'delete'} security info.`)
    }
  }
  if (dryRun) {
    say('Would delete cache.')
    return
  }
  if (context.flag('cache-only') && existsSync(staging)) {
    emptyCache(cache, id, context.env)
    if (holdsContent(staging)) log.message('warning', topic, `What was copied into a drive and is not saved yet is kept: ${staging}. Mount the repository to save it.`)
  } else if (existsSync(cache)) {
    // The config first: what a crash leaves behind is no cache to anybody.
    files.removeIfThere(join(cache, 'config'))
    removeTree(cache)
  }
  say('Cache deleted.')
}

/** What waits in a drive is no cache: nobody else has it. Beside it stays an empty cache, because Borg takes a folder for one. */
function emptyCache(folder: string, id: string, env: NodeJS.ProcessEnv): void {
  files.removeIfThere(join(folder, 'config'))
  for (const name of readdirSync(folder)) if (name !== stagingName) files.removeTree(join(folder, name))
  completeCacheFolder(folder, id, env)
  syncDirectory(folder)
}

/** Who copies into a drive at this moment would lose it. Borg's mounts hold a lock. */
async function refuseMounted(context: CommandContext, location: Location, staging: string): Promise<void> {
  if (!existsSync(staging)) return
  const lock = new Lock(join(staging, 'lock'), context.log)
  try {
    await lock.acquire('exclusive', 0)
  } catch (error) {
    if (error instanceof LockTimeout) throw new BorgError('Error', `The repository ${canonical(location)} is mounted as a drive: unmount it before you delete it.`)
    throw error
  }
  context.atEnd(() => lock.release())
}

/**
 * Whether there is more than what a drive leaves that has nothing to save. The journal of incoming/ alone can be all there is: of empty files,
 * and of what the repository has already. That of live/ tells of unchanged series as well.
 */
function holdsContent(staging: string): boolean {
  if (!existsSync(staging)) return false
  return (statSync(join(staging, journalName), { throwIfNoEntry: false })?.size ?? 0) > 0 || readdirSync(staging, { recursive: true, withFileTypes: true }).some(entry => entry.isFile() && /\/(?:spool|bundles|chunks)$/.test(entry.parentPath))
}

async function confirmed(context: CommandContext, location: Location, repository: Awaited<ReturnType<CommandContext['openLocal']>>): Promise<boolean> {
  let archives: ArchiveInfo[] | undefined
  try {
    archives = (await context.unlock(repository, undefined, { checkSecurity: false })).manifest.sorted()
  } catch (error) {
    if (!(error instanceof NoManifest)) throw error
  }
  const lines = [
    `You requested to completely DELETE the following repository *including* ${archives ? `${archives.length} archives it contains` : 'all archives it may contain'}:`,
    dashes, `Repository ID: ${repository.id.toString('hex')}`, `Location: ${location.protocol === 'file' ? repository.location : canonical(location)}`,
  ]
  const staging = join(context.places.cache, repository.id.toString('hex'), stagingName)
  if (holdsContent(staging)) lines.push(`What was copied into a drive and is not saved yet will be deleted as well: ${staging}`)
  if (context.flag('list')) {
    lines.push('', 'Archives:')
    if (!archives) lines.push("This repository seems to have no manifest, so we can't tell anything about its contents.")
    else if (archives.length === 0) lines.push('This repository seems to not have any archives.')
    else lines.push(...archives.map(archiveLine))
  }
  lines.push(dashes, "Type 'YES' if you understand this and want to continue: ")
  return context.prompt.confirm(lines.join('\n'), 'BORG_DELETE_I_KNOW_WHAT_I_AM_DOING', { only: 'YES' })
}
