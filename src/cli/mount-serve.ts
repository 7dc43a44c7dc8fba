/** The serving half of `mount`: the repository, or one archive, as a drive (mount.md, incoming.md). */
import { accessSync, constants, realpathSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { parseCompression } from '../engine/codec/spec.js'
import { chunkerFor } from '../engine/chunker/params.js'
import { defaultChunkerParams } from '../engine/constants.js'
import { BorgError, messageOf } from '../engine/errors.js'
import { idHex, idKey } from '../engine/ids.js'
import type { Log, LogLevel } from '../engine/log.js'
import { ClientCache } from '../engine/cache/client-cache.js'
import { ensureCacheFolder } from '../engine/cache/cache-folder.js'
import { files } from '../engine/platform/files.js'
import { LockTimeout } from '../engine/repository/errors.js'
import { Lock } from '../engine/repository/lock.js'
import { Stash } from '../engine/store/stash.js'
import { Workers } from '../engine/store/workers.js'
import { escapedBytes, escapedText } from '../engine/text.js'
import { type ArchiveInfo as ManifestEntry, isCheckpointName } from '../engine/archive/manifest.js'
import { stripped } from '../engine/operations/extract.js'
import { changeArchive } from '../fs/archive-changes.js'
import { chosenNow } from '../fs/chosen-archives.js'
import type { ArchiveChangeRequest, ArchiveInfo, CommitRequest, MountView } from '../fs/engine-port.js'
import { prepareMountpoint } from '../fs/fuse/kernel/attach.js'
import { commitStaged, finishedBefore } from '../fs/incoming/commit.js'
import { Cutter } from '../fs/incoming/cutter.js'
import type { IncomingOptions } from '../fs/incoming/incoming.js'
import { openStagingKeys, type StagingKeys } from '../fs/incoming/staging-keys.js'
import { withRoom, withRoomLater } from '../fs/incoming/staging-room.js'
import type { DriveParts } from '../fs/drive.js'
import { startFuseThread } from '../fs/fuse-thread.js'
import { MountSession, type RunningMount, type SessionOptions } from '../fs/mount-session.js'
import { RepositorySource } from '../fs/repository-source.js'
import { restingMemory } from '../fs/resting-memory.js'
import { StoredTrees } from '../fs/stored-trees.js'
import { becomeReady } from './background.js'
import { archiveName, type CommandContext, loadMatcher, selectArchives } from './context.js'
import { type DriveOptions, parseDriveOptions } from './mount-options.js'
import { stagingName } from './staging-name.js'

/** How long an ended drive waits for programs that still have files open in it. */
const lingeringMs = 5_000
const calmAfterMs = 1_000
/** A drive that was at work, and is asked for nothing for so long, gives memory back. */
const idleAfterMs = 10_000

export async function serve(context: CommandContext, foreground: boolean): Promise<void> {
  const { log } = context
  const typed = context.positional('mountpoint')[0]!
  const mountpoint = await prepareMountpoint(typed, log)
  const drive = parseDriveOptions(context.text('o'), mountpoint)
  const location = context.location('either')
  refuseOverlap(mountpoint, context.localPath(location), 'its repository')
  const thread = drive.transport === 'kernel' ? context.fuseThread ?? startFuseThread() : undefined
  if (!thread) void context.fuseThread?.worker.terminate()
  const opened = await context.open(location, 'shared', 'read')
  const archive = location.archive === undefined ? undefined : opened.manifest.get(archiveName(location.archive))
  const cacheFolder = await ensureCacheFolder(context.places, opened.repository.id, log, context.lockWaitMs, context.env)
  const driveLog = new DriveLog(log, drive.logFile ?? join(cacheFolder, 'mount.log'))
  const codec = parseCompression(drive.compression)
  const workers = new Workers({ key: opened.key, codec, rereads: true })
  context.atEnd(() => workers.close())

  const paths = context.positional('paths')
  const strip = context.number('strip-components') ?? 0
  if (drive.versions && archive) throw new BorgError('Error', 'Error: for versions view, do not specify a single archive, but always give the repository as location.')
  const narrowed = archive !== undefined || drive.versions || paths.length > 0 || context.args.ordered.length > 0 || strip > 0
    || ['first', 'last', 'glob-archives', 'prefix'].some(name => context.text(name) !== undefined)
  const numericIds = context.flag('numeric-ids')
  const [uid, gid] = [drive.uid, drive.gid]
  const { matcher } = await loadMatcher(context, paths)
  const chosen = archive ? [archive] : await selectArchives(context, opened.manifest.archives.values(), { hideCheckpoints: true })
  const known = new Set(Array.from(opened.manifest.archives.values(), ({ id }) => idKey(id)))
  const mountTimeNs = BigInt(Date.now()) * 1_000_000n
  const owner = { uid: uid ?? process.geteuid!(), gid: gid ?? process.getegid!() }
  const openCache = (current: typeof opened) => ClientCache.open(current, { places: context.places, log: driveLog, lockWaitMs: context.lockWaitMs, env: context.env })
  const staging = narrowed || drive.mount.readOnly ? undefined : await stagingOptions(context, drive, { ...owner, mountTimeNs }, cacheFolder, opened, driveLog, mountpoint)
  refuseOverlap(mountpoint, cacheFolder, 'its cache folder')
  if (drive.logFile !== undefined) refuseOverlap(mountpoint, drive.logFile, 'its log')
  const trees = new StoredTrees({ folder: join(cacheFolder, 'borgfs-trees'), key: opened.key, workers, maxBytes: drive.treeBytes, log: driveLog })
  const source: RepositorySource = new RepositorySource(opened, workers, {
    log: driveLog, trees, stash: staging?.stash, numericIds, ...owner, timeNs: mountTimeNs, forcedUid: uid, forcedGid: gid, umask: drive.umask, showParts: context.flag('consider-part-files'), versions: drive.versions,
    choose: found => {
      // A narrowed view is what was chosen at the start, as Borg's, in that order; the whole repository shows what comes.
      if (narrowed) return chosenNow(chosen, found, { byName: !archive && !drive.versions, known })
      return context.flag('consider-checkpoints') ? found : found.filter(({ name }) => !isCheckpointName(name))
    },
    selection: matcher.includesEverything && strip === 0 ? undefined : () => ({
      select: ({ path }) => (matcher.includes(path) ? stripped(path, strip) : undefined),
      sourcePath: path => stripped(path, strip) ?? path,
    }),
  }, () => session?.lookAgain() ?? Promise.resolve(), openCache)
  context.atEnd(() => source.settled())
  let session: RunningMount | undefined

  const view: MountView = {
    kind: archive || drive.versions ? 'archive' : 'repository', archives: source.archives(), ...owner, umask: drive.umask,
    mountTimeNs, cacheBytes: drive.cacheBytes, allowDamagedFiles: drive.allowDamagedFiles,
  }
  const chunker = chunkerFor(defaultChunkerParams, opened.key.chunkSeed)
  const shown = (info: ManifestEntry): ArchiveInfo => source.archives().find(({ id }) => id === idHex(info.id)) ?? { name: Buffer.from(info.name, 'latin1'), id: idHex(info.id), timeNs: 0n }
  const commit = async (request: CommitRequest, progress: (percent: number) => void) => {
    const current = source.opened
    const { info, numbers } = await commitStaged({ opened: current, workers, codec, chunker, log: driveLog }, request, {
      nameTemplate: drive.archiveName, comment: Buffer.alloc(0), cmdline: context.argv.map(escapedBytes), log: driveLog, progress: throttled(progress), stash: staging?.stash,
      openCache: () => openCache(current),
    })
    source.listAgain()
    source.keepTree(idHex(info.id))
    driveLog.write('info', 'borg.fuse', `made archive ${escapedText(Buffer.from(info.name, 'latin1'))}`)
    return { archive: shown(info), numbers }
  }
  const change = async (request: ArchiveChangeRequest): Promise<ArchiveInfo | undefined> => {
    const current = source.opened
    const info = await changeArchive({ opened: current, workers, stash: staging?.stash, log: driveLog, openCache: () => openCache(current) }, request)
    if (info) source.renameTree(request.archive, idHex(info.id))
    source.listAgain()
    return info && shown(info)
  }
  const cutter = staging && new Cutter({ stash: staging.stash, workers, codec, chunker, opened: () => source.opened })
  log.message('info', 'borg.archiver', 'Mounting filesystem')
  const sessionOptions: SessionOptions = {
    mount: { ...drive.mount, readOnly: staging === undefined }, view, parts: { incoming: staging?.incoming, live: staging?.live, changes: staging && { allowDelete: drive.allowDelete }, report: narrowed ? undefined : { repository: location.text } }, log: driveLog,
    onlyUid: drive.mount.access === 'root' ? process.geteuid!() : undefined,
    service: {
      source,
      repository: opened.repository, locked: true, holdLock: drive.holdLock, refreshMs: drive.refreshMs, log: driveLog, lockWaitMs: Math.max(context.lockWaitMs, 1000),
      // Where this thread answers the kernel itself, that would be kept waiting.
      ...(thread && { idle: { afterMs: idleAfterMs, ...restingMemory({ workers, source, chunker, cutter }) } }),
      ...(staging ? { commit, changeArchive: change, cutter } : {}),
    },
  }
  // What is mounted has to be unmounted.
  const signal = context.signals.answer()
  session = thread ? await MountSession.start(thread, sessionOptions) : await (await import('../fs/native-session.js')).NativeSession.start(sessionOptions)
  const ready = !signal.aborted
  if (!foreground && ready) {
    becomeReady(context.env)
    driveLog.toFile = true
  }
  // Not before: their start would compete with what the person waits for, which is mostly a listing right after the mount. What needs them starts them.
  const calm = setTimeout(() => {
    workers.start()
    source.tidyTrees()
  }, calmAfterMs)
  context.atEnd(() => clearTimeout(calm))
  await untilEnded(session, signal, driveLog)
  // It was never there for anybody.
  if (!ready) throw signal.reason
}

/** Until it is unmounted, by whomever, or a signal asks for the end. */
async function untilEnded(session: RunningMount, signal: AbortSignal, log: DriveLog): Promise<void> {
  const asked = new Promise<void>(resolve => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve())
  })
  const kept = await Promise.race([session.ended, asked.then(async () => {
    const kept = await session.stop()
    return Promise.race([session.ended, new Promise<readonly string[]>(resolve => setTimeout(() => resolve(kept), lingeringMs))])
  })])
  for (const sentence of kept) log.write('warning', 'borg.fuse', sentence)
}

interface StagingParts extends Pick<DriveParts, 'incoming' | 'live'> {
  readonly stash: Stash
}

/** incoming/ and live/, where they can be. */
async function stagingOptions(context: CommandContext, drive: DriveOptions, view: Pick<MountView, 'uid' | 'gid' | 'mountTimeNs'>, cacheFolder: string, opened: Awaited<ReturnType<CommandContext['open']>>, log: Log, mountpoint: string): Promise<StagingParts | undefined> {
  const folder = drive.stagingFolder ?? join(cacheFolder, stagingName)
  refuseOverlap(mountpoint, folder, 'its staging folder')
  try {
    statSync(opened.repository.path)
    accessSync(opened.repository.path, constants.W_OK)
    files.ensureDirectory(folder, 0o700)
  } catch (error) {
    log.write('warning', 'borg.fuse', `The drive is read-only, there is no incoming/: ${messageOf(error)}`)
    return undefined
  }
  const lock = new Lock(join(folder, 'lock'), log)
  try {
    await withRoomLater(folder, () => lock.acquire('exclusive', 0))
  } catch (error) {
    log.write('warning', 'borg.fuse', error instanceof LockTimeout ? `This drive has no incoming/: another mount of the same repository is using ${folder}.` : `This drive has no incoming/: ${messageOf(error)}`)
    return undefined
  }
  context.atEnd(() => lock.release())
  const now = view.mountTimeNs
  const chunks = (): Pick<IncomingOptions, 'chunks' | 'stashBytes'> => ({ chunks: [stash.shared(), opened.repository.sharedIndex()], stashBytes: stash.bytes })
  const common = {
    maxBytes: drive.stagingMax, settleMs: drive.settleMs, lingerMs: drive.lingerMs,
    rootFacts: { mode: 0o040755, uid: view.uid, gid: view.gid, rdev: 0, atimeNs: now, mtimeNs: now, ctimeNs: now },
    archiveIds: new Set([...opened.manifest.archives.values()].map(({ id }) => idHex(id))),
  }
  const liveFolder = join(folder, 'live')
  let keys: StagingKeys | undefined, liveKeys: StagingKeys | undefined
  let stash: Stash
  try {
    ;[keys, liveKeys] = await withRoomLater(folder, () => {
      files.ensureDirectory(liveFolder, 0o700)
      return openStagingKeys([folder, liveFolder], opened.key)
    })
    stash = withRoom(folder, () => new Stash(join(folder, 'chunks')))
  } catch (error) {
    log.write('warning', 'borg.fuse', `This drive has no incoming/: ${messageOf(error)}`)
    return undefined
  }
  const incoming = { ...common, ...chunks(), folder, keys, place: 'incoming' as const, finished: finishedBefore(folder, opened.manifest, keys) }
  // What is shown with another owner or mode than it is stored with would be stored so.
  if (drive.uid !== undefined || drive.gid !== undefined || drive.umask !== 0) {
    if (drive.live.length > 0) log.write('warning', 'borg.fuse', 'There is no live/ with -o uid, gid or umask: archives made of it would get these owners and modes.')
    return { incoming, live: undefined, stash }
  }
  return { incoming, stash, live: { ...common, ...chunks(), folder: liveFolder, keys: liveKeys, place: 'live' as const, finished: finishedBefore(liveFolder, opened.manifest, liveKeys), open: drive.live.map(archiveName) } }
}

/** What is told for each item is passed on only when it says something new, a few times a second. */
function throttled(progress: (percent: number) => void): (percent: number) => void {
  let last = -1, untilMs = 0
  return percent => {
    const nowMs = performance.now()
    if (percent === last || nowMs < untilMs) return
    last = percent
    untilMs = nowMs + 250
    progress(percent)
  }
}

/** A process that serves a folder must not need that folder itself: it would wait for its own answer. */
function refuseOverlap(mountpoint: string, path: string, what: string): void {
  const inside = (a: string, b: string): boolean => a === b || a.startsWith(b.endsWith('/') ? b : `${b}/`)
  if (inside(withoutLinks(path), mountpoint)) throw new BorgError('Error', `${mountpoint}: the drive would cover ${what} (${path}). Choose another mountpoint.`)
}

/** Of a path that need not be there yet. */
function withoutLinks(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    return dirname(path) === path ? path : join(withoutLinks(dirname(path)), basename(path))
  }
}

/** The terminal until the drive is up, a file of bounded size afterwards. */
class DriveLog implements Log {
  toFile = false
  readonly #inner: Log
  readonly #path: string

  constructor(inner: Log, path: string) {
    this.#inner = inner
    this.#path = path
  }

  write(level: LogLevel, topic: string, message: string): void {
    if (!this.toFile) return this.#inner.write(level, topic, message)
    if (level === 'debug') return
    try {
      if ((statSync(this.#path, { throwIfNoEntry: false })?.size ?? 0) > maxLogBytes) files.removeIfThere(this.#path)
      files.write(this.#path, `${new Date().toISOString()} ${level} ${oneLine(message)}\n`, { append: true, mode: 0o600 })
    } catch {
      // A log that cannot be written must not harm the drive.
    }
  }
}

const maxLogBytes = 4 << 20

/** Names in archives may hold anything, also what looks like a line of the log. Stack traces of faults stay readable. */
function oneLine(message: string): string {
  return message.replace(/[\0-\x08\x0b-\x1f\x7f]|\n(?!    at )/g, control => (control === '\n' ? '\\n' : `\\x${control.charCodeAt(0).toString(16).padStart(2, '0')}`))
}

