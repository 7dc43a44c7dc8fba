/** The engine thread's half of a commit: a frozen tree -> one archive in one transaction (incoming.md §3). */
import { lstatSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ChunkList } from '../../engine/archive/chunk-list.js'
import type { Item } from '../../engine/archive/item.js'
import { isValidArchiveName, type ArchiveInfo as ManifestEntry, type Manifest } from '../../engine/archive/manifest.js'
import { nowMicros } from '../../engine/archive/timestamps.js'
import type { ClientCache } from '../../engine/cache/client-cache.js'
import { BorgError } from '../../engine/errors.js'
import { putHeaderBytes } from '../../engine/constants.js'
import { HashTable } from '../../engine/hashindex/hash-table.js'
import { idHex } from '../../engine/ids.js'
import type { Log } from '../../engine/log.js'
import { archiveFacts } from '../../engine/operations/create.js'
import { addAcls, clampTime } from '../../engine/operations/file-item.js'
import type { OpenedRepository } from '../../engine/operations/open.js'
import type { ArchiveEntry, Outcome } from '../../engine/operations/archive-entry.js'
import { storeArchive, type StoreContext } from '../../engine/operations/store-archive.js'
import { expandPlaceholders } from '../../engine/placeholders.js'
import { accessAclName, defaultAclName } from '../../engine/platform/acl.js'
import { typeBlockDevice, typeCharDevice, typeFile, typeMask, typeSocket } from '../../engine/platform/attributes.js'
import { groupNameOf, userNameOf } from '../../engine/platform/owner.js'
import { files } from '../../engine/platform/files.js'
import { magic } from '../../engine/repository/entry.js'
import { saveFile, syncContent } from '../../engine/platform/save-file.js'
import { byteString, bytesOf, escapedBytes, escapedText, shownText } from '../../engine/text.js'
import type { CommitNumbers, CommitRequest } from '../engine-port.js'
import type { LocalRepository } from '../../engine/repository/local-repository.js'
import type { FileSeal } from '../../engine/store/sealed-file.js'
import type { ChunkWriter } from '../../engine/store/chunk-writer.js'
import type { Stash } from '../../engine/store/stash.js'
import type { Transaction } from '../../engine/repository/repository.js'
import { BaseItems, flattened, type Nested } from './base-items.js'
import { FormerArchive } from './former-archive.js'
import { clonedContent, wholeChunksOf } from './cloned-content.js'
import { type CommitMark, type FinishedTree, extentRowsOf, type FrozenItem, type FrozenTree, journalName, looseName, markName } from './frozen.js'
import { FrozenItemReader } from './frozen-items.js'
import { openSmall, sealSmall, type StagingKeys } from './staging-keys.js'
import { withRoom } from './staging-room.js'

export interface CommitOptions {
  /** `-o archive_name`, with Borg's placeholders and {name}. */
  readonly nameTemplate: string
  readonly comment: Buffer
  readonly cmdline: readonly Buffer[]
  readonly log: Log
  /** Told often; 0 to 99. */
  progress(percent: number): void
  /** Chunks that were made ready while the tree was written. */
  readonly stash?: Stash | undefined
  /** Needed only to replace an archive; closed here. */
  openCache(): Promise<ClientCache>
}

export interface Committed {
  readonly info: ManifestEntry
  readonly numbers: CommitNumbers
}

export const defaultNameTemplate = '{name}-{now:%Y-%m-%dT%H:%M:%S}'

/** Makes the archive and returns its entry. The exclusive lock is held. On any throw nothing is saved and the tree stays staged. */
export async function commitStaged(context: StoreContext, request: CommitRequest, options: CommitOptions): Promise<Committed> {
  const tree = request.staged as FrozenTree
  const markPath = join(tree.stagingFolder, markName)
  // What the mark of an earlier commit said, the journal says now, and there it must be on disk first.
  syncContent(join(tree.stagingFolder, journalName))
  files.removeIfThere(markPath)
  const { manifest } = context.opened
  const { exactName, replaces } = request
  // By its id: somebody may have renamed or deleted it since.
  const found = replaces && [...manifest.archives.values()].find(({ id }) => idHex(id) === replaces.id)
  const former = found && await FormerArchive.open(found, replaces.needed, tree, context, options)
  const name = exactName ? byteString(exactName) : former && replaces!.keepName ? former.info.name : freeName(manifest, tree.name, options.nameTemplate)
  const start = nowMicros()
  const origin = { comment: options.comment, cmdline: options.cmdline, chunkerParams: context.chunker.params }
  const facts = archiveFacts(origin, start)
  const mark: CommitMark = { tree: tree.name === undefined ? null : Buffer.from(tree.name, 'latin1').toString('hex'), archive: Buffer.from(name, 'latin1').toString('hex'), time: facts.time }
  // If this process ends between COMMIT and the dropping of the staged tree, the next mount knows by this that both are the same.
  const markBytes = Buffer.from(JSON.stringify(mark))
  // Items are written late and many at once: what was begun says how far it is.
  let before = 0, current = 0
  const tell = (bytes: number): void => options.progress(tree.bytes === 0 ? 0 : Math.min(99, Math.floor((bytes / tree.bytes) * 100)))
  const begun = ({ size }: FrozenItem): void => {
    before += current
    current = size
    tell(before)
  }
  try {
    withRoom(tree.stagingFolder, () => saveFile(markPath, tree.keys ? sealSmall(tree.keys.marks, markBytes) : markBytes, { mode: 0o600 }))
    const store = { ...context, ...(former && { cache: { client: former.cache }, replaces: former }) }
    const { info, stats, newBytes } = await storeArchive(store, name, entries(tree, context.opened, options, begun), () => ({ ...archiveFacts(origin, start), time: facts.time }), {
      reading: (_path, done) => tell(before + done),
    }, { ...(options.stash && { begin: (tx, writer) => storeStashed(tree, context.opened, options.stash!, tx, writer) }) })
    return { info, numbers: { fileCount: stats.nfiles, originalSize: stats.size, newBytes } }
  } catch (error) {
    files.removeIfThere(markPath)
    throw error
  } finally {
    former?.close(options.log)
  }
}

/** Shorter ones are copied: a repository of many small commits shall not be one of many small files. */
const minAdoptedBytes = 1 << 20

/**
 * Takes what the tree needs of the stash into the repository, as it is: it was sealed with counter values that nobody else has. What only
 * parts of are needed is not among it: nothing would refer to it.
 */
async function storeStashed(tree: FrozenTree, { repository }: OpenedRepository<LocalRepository>, stash: Stash, tx: Transaction, writer: ChunkWriter): Promise<void> {
  if (stash.count === 0) return
  // By id, outside the JavaScript heap: there may be millions.
  const wanted = new HashTable(1)
  for (const id of wholeChunksOf(tree)) if (!repository.has(id) && stash.has(id)) wanted.set(id, 0)
  const stored = (count: number, bytes: number): void => {
    writer.newCount += count
    writer.newBytes += bytes - count * putHeaderBytes
  }
  // What becomes the repository's by a second name must be on disk: whether it is, a sync that comes after one that failed would not say. What cannot
  // become so is copied.
  await stash.sync().catch(() => undefined)
  for (const file of stash.wholeFiles(id => wanted.has(id), minAdoptedBytes)) {
    // Where one cannot be, none can.
    if (!tx.adopt(file)) break
    for (const id of file.ids) wanted.delete(id)
    stored(file.ids.length, file.bytes - magic.length)
  }
  for (const { bytes, ids, lengths } of stash.runs(id => wanted.has(id))) {
    await tx.putEntries(bytes, ids, lengths)
    stored(ids.length, bytes.length)
    // Others are to be answered meanwhile.
    await new Promise(resolve => setImmediate(resolve))
  }
}

/** The tree whose archive an earlier process had just made; undefined if there is none. Removes the mark. */
export function finishedBefore(stagingFolder: string, manifest: Manifest, keys: StagingKeys | undefined): FinishedTree | undefined {
  const path = join(stagingFolder, markName)
  let mark: CommitMark
  try {
    mark = markOf(readFileSync(path), keys)
  } catch {
    return undefined
  }
  const made = manifest.archives.get(Buffer.from(mark.archive, 'hex').toString('latin1'))
  const done = made !== undefined && made.time === mark.time
  return done ? { tree: mark.tree === null ? undefined : Buffer.from(mark.tree, 'hex').toString('latin1'), archive: idHex(made.id), archiveName: made.name } : undefined
}

function markOf(bytes: Buffer, keys: StagingKeys | undefined): CommitMark {
  let json = bytes
  try {
    if (keys) json = openSmall(keys.marks, bytes)
  } catch {
    // An older version wrote it as it is.
  }
  return JSON.parse(json.toString()) as CommitMark
}

/** From the template; `.1`, `.2` … are put behind a name that is taken. */
function freeName(manifest: Manifest, tree: string | undefined, template: string): string {
  const wanted = escapedBytes(expandPlaceholders(template, { extra: { name: escapedText(bytesOf(tree ?? looseName)) } }))
  if (!isValidArchiveName(wanted)) throw new BorgError('Error', `"${shownText(wanted)}" cannot be an archive's name (1 to 255 bytes without a slash). Change -o archive_name.`)
  for (let number = 0; ; number++) {
    const name = byteString(number === 0 ? wanted : Buffer.concat([wanted, Buffer.from(`.${number}`)]))
    if (!manifest.archives.has(name)) return name
  }
}

function* entries(tree: FrozenTree, opened: OpenedRepository<LocalRepository>, options: CommitOptions, begun: (item: FrozenItem) => void): Generator<ArchiveEntry> {
  const items = new FrozenItemReader(tree.items)
  const firstNames = new Map<number, Buffer>()
  const bases = tree.bases.map(base => new BaseItems(base, firstNames, id => opened.repository.has(id)))
  const between = function* (from: number, to: number): Generator<Nested<ArchiveEntry>> {
    for (let index = from; index < to; index++) {
      const frozen = items.get(index)
      begun(frozen)
      const entry = entryOf(frozen, tree, opened, options, firstNames)
      if (entry) yield entry
      if (!frozen.beneath) continue
      // What differs from the archive beneath stands where it stood there, what is new behind all else.
      const { base, row, without } = frozen.beneath
      const here = namesIn(items, index)
      yield bases[base]!.below(row, frozen.path === '.' ? noPath : bytesOf(frozen.path), without, name => {
        const range = here.get(name)
        here.delete(name)
        return range && between(...range)
      })
      for (const range of here.values()) yield between(...range)
      index = items.end(index) - 1
    }
  }
  yield* flattened(between(0, items.length))
}

/** Names in a directory, with the items that are each one and all below it. */
function namesIn(items: FrozenItemReader, directory: number): Map<string, [from: number, to: number]> {
  const found = new Map<string, [number, number]>()
  const path = items.path(directory)
  const skipped = path === '.' ? 0 : path.length + 1
  const end = items.end(directory)
  for (let from = directory + 1; from < end; ) {
    const to = items.end(from)
    found.set(items.path(from).slice(skipped), [from, to])
    from = to
  }
  return found
}

/** Undefined for what no archive holds. */
function entryOf(frozen: FrozenItem, tree: FrozenTree, opened: OpenedRepository<LocalRepository>, { log, stash }: CommitOptions, firstNames: Map<number, Buffer>): ArchiveEntry | undefined {
  const type = frozen.mode & typeMask
  const path = bytesOf(frozen.path)
  if (type === typeSocket) {
    log.write('warning', 'borg.fuse', `${shownText(path)}: sockets are not archived`)
    return undefined
  }
  const item = itemOf(frozen, path)
  if (type !== 0o040000 && !frozen.target) {
    const first = frozen.nlink > 1 ? firstNames.get(frozen.id) : undefined
    if (first) {
      item.source = first
      return { item }
    }
    item.hardlinkMaster = frozen.nlink > 1
    if (item.hardlinkMaster) firstNames.set(frozen.id, path)
  }
  if (type !== typeFile) return { item }
  if (frozen.content === undefined) return { item, content: { kind: 'chunks', chunks: new ChunkList() } }
  if (frozen.extentCount > 0) return { item, content: clonedContent(frozen, extentRowsOf(tree, frozen), opened, sealOf(frozen, tree), stash), done: outcome => mustBeStored(path, outcome) }
  const file = Buffer.from(frozen.content.file.path)
  const { position } = frozen.content
  const seal = sealOf(frozen, tree)
  let { size } = frozen
  let ino = 0n
  if (position === undefined) {
    const stat = lstatSync(file, { bigint: true })
    ino = stat.ino
    if (!seal) size = Number(stat.size)
  }
  return {
    item, content: { kind: 'file', path: file, size, ino, ...(seal && { seal }), ...(position !== undefined && { position }) },
    done: outcome => mustBeStored(path, outcome),
  }
}

const noPath = Buffer.alloc(0)

function sealOf(frozen: FrozenItem, { keys }: FrozenTree): FileSeal | undefined {
  const file = frozen.content?.file.cipherNumber
  return keys && file !== undefined ? { key: keys.contents, file, size: frozen.size } : undefined
}

/** A staged file must not be missing from its archive without a word: the tree stays staged. */
function mustBeStored(path: Buffer, outcome: Outcome): void {
  if (outcome.kind === 'failed') throw Object.assign(new Error(`${shownText(path)} cannot be read back from the staging folder`), { code: outcome.error.code })
}

function itemOf(frozen: FrozenItem, path: Buffer): Item {
  const { mode, uid, gid } = frozen
  const item: Item = { path, mode, uid, gid, user: userNameOf(uid) ?? null, group: groupNameOf(gid) ?? null, mtimeNs: clampTime(frozen.mtimeNs), ctimeNs: clampTime(frozen.ctimeNs) }
  if (frozen.target) item.source = Buffer.from(frozen.target)
  if (frozen.bsdflags !== 0) item.bsdflags = frozen.bsdflags
  const type = mode & typeMask
  if (type === typeCharDevice || type === typeBlockDevice) item.rdev = frozen.rdev
  let accessAcl: Buffer | undefined, defaultAcl: Buffer | undefined
  for (const [name, bytes] of frozen.xattrs ?? []) {
    const value = Buffer.from(bytes)
    if (name === accessAclName) accessAcl = value
    else if (name === defaultAclName) defaultAcl = value
    else (item.xattrs ??= new Map<string, Buffer | null>()).set(name, value.length === 0 ? null : value)
  }
  addAcls(item, { xattrs: undefined, accessAcl, defaultAcl }, false)
  return item
}
