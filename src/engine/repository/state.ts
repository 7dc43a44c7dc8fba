/**
 * What is known of a repository at one transaction: index and hints, read from their files or made by replaying segments
 * (repository.md §4, §5). The files only save time: whatever is missing, damaged or old is rebuilt from the log.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { IntegrityError, messageOf } from '../errors.js'
import { HashTable, headerBytes } from '../hashindex/hash-table.js'
import type { Log } from '../log.js'
import { files } from '../platform/files.js'
import { syncDirectory, writePieces } from '../platform/save-file.js'
import { tagDelete, tagPut } from './entry.js'
import { CheckNeeded } from './errors.js'
import { Hints } from './hints.js'
import { FileDigest, finalDigest, packIntegrity, unpackIntegrity } from './integrity.js'
import type { Segments } from './segments.js'
import { openTable, tableBytes, verifyTable } from './table-file.js'

const topic = 'borg.repository'

export interface RepositoryState {
  /** Id -> segment, offset. */
  readonly index: HashTable
  readonly hints: Hints
  /** Segment of the last COMMIT, -1 before the first. */
  readonly transaction: number
  /**
   * Present while the index lies unverified in its file and the hints are not read: readers need no more, as they see by each
   * entry whether it is the one they wanted. Verifies and reads, and is due before anything is changed or an absence is
   * believed. IntegrityError, host errors: the files are worth nothing.
   */
  readonly complete?: (() => RepositoryState) | undefined
}

/** Number of the newest non-empty index file, -1 if there is none. */
export function newestIndex(folder: string): number {
  let newest = -1
  for (const name of readdirSync(folder)) {
    const match = /^index\.(\d+)$/.exec(name)
    if (match && Number(match[1]) > newest && statSync(join(folder, name)).size > 0) newest = Number(match[1])
  }
  return newest
}

export interface LoadOptions {
  /** A large index is looked into where it lies: see RepositoryState.complete. */
  readonly trusting?: boolean
  /** Nothing is taken from the files, everything from the segments. */
  readonly rebuild?: boolean
  /** Largest index file that is read whole at once. */
  readonly smallBytes?: number | undefined
}

/** The state at the last commit. `stale` says that the files on disk did not hold it. CheckNeeded as Borg. */
export function loadState(folder: string, location: string, segments: Segments, log: Log, options: LoadOptions = {}): { state: RepositoryState; stale: boolean } {
  const indexTransaction = newestIndex(folder)
  const transaction = segments.lastCommitted(indexTransaction)
  if (transaction < 0) {
    if (indexTransaction >= 0) throw new CheckNeeded(location)
    return { state: { index: new HashTable(2), hints: new Hints(), transaction: -1 }, stale: false }
  }
  let base: RepositoryState | undefined
  // An index from a future that was lost says nothing about the present.
  if (indexTransaction >= 0 && indexTransaction <= transaction && !options.rebuild) base = readFiles(folder, indexTransaction, log, options, indexTransaction < transaction)
  const from = base ? indexTransaction : -1
  if (base && from === transaction) return { state: base, stale: false }
  base ??= { index: new HashTable(2), hints: new Hints(), transaction }
  replay(segments, base, from, transaction)
  return { state: { ...base, transaction }, stale: true }
}

function readFiles(folder: string, transaction: number, log: Log, options: LoadOptions, behind: boolean): RepositoryState | undefined {
  let digests = new Map<string, string>()
  try {
    digests = unpackIntegrity(readFileSync(join(folder, `integrity.${transaction}`)))
  } catch (error) {
    // Missing: an older Borg wrote none. Damaged: nothing to verify by, and the files are checked by their own structure.
    if (error instanceof IntegrityError) log.write('warning', topic, `Repository integrity data is damaged: ${messageOf(error)}`)
  }
  const name = `index.${transaction}`
  const file = { path: join(folder, name), name, valueWords: 2, expected: finalDigest(digests.get('index')) }
  try {
    const { table: index, verified } = openTable(file, { trusting: (options.trusting ?? false) && !behind, ...(options.smallBytes !== undefined && { smallBytes: options.smallBytes }) })
    const hints = (): Hints => readHints(folder, transaction, digests.get('hints'))
    if (verified) return { index, hints: hints(), transaction }
    const complete = (): RepositoryState => {
      verifyTable(file, index)
      return { index, hints: hints(), transaction }
    }
    return { index, hints: new Hints(), transaction, complete }
  } catch (error) {
    tellDamage(log, error)
    return undefined
  }
}

/** Borg's sentence for state files that are made anew. */
export function tellDamage(log: Log, error: unknown): void {
  log.write('warning', topic, `Repository index missing or corrupted, trying to recover from: ${messageOf(error)}`)
}

function readHints(folder: string, transaction: number, integrity: string | undefined): Hints {
  const name = `hints.${transaction}`
  const bytes = readFileSync(join(folder, name))
  const digest = new FileDigest(name)
  digest.update(bytes)
  digest.part('final')
  const expected = finalDigest(integrity)
  if (expected !== undefined && expected !== digest.digests.final) throw new IntegrityError(`the digest of ${name} does not fit`)
  return Hints.unpack(bytes)
}

/** Applies the committed segments in (from, to] to index and hints, as Borg replays them. */
function replay(segments: Segments, into: { index: HashTable; hints: Hints }, from: number, to: number): void {
  const { index, hints } = into
  for (const segment of segments.numbers(from)) {
    if (segment > to) break
    if (!hints.segments.has(segment)) hints.segments.set(segment, 0)
    for (const entry of segments.scan(segment)) {
      if (!entry.id) continue
      const bucket = index.find(entry.id)
      const older = bucket < 0 ? undefined : { segment: index.value(bucket, 0), offset: index.value(bucket, 1) }
      if (entry.tag === tagPut) {
        if (older) {
          hints.addFreeable(older.segment, entry.size)
          hints.addLive(older.segment, -1)
          hints.addShadow(entry.id, older.segment)
        }
        index.set(entry.id, segment, entry.offset)
        hints.addLive(segment, 1)
        hints.quotaUse += entry.size
      } else if (entry.tag === tagDelete && older) {
        index.delete(entry.id)
        // A compaction may have removed the file since; then it is counted no more.
        if (segments.size(older.segment) > 0) {
          const size = segments.read(older.segment, older.offset, 9).readUInt32LE(4)
          hints.addLive(older.segment, -1)
          hints.addFreeable(older.segment, size)
          hints.addShadow(entry.id, older.segment)
          hints.quotaUse -= size
        }
      }
    }
    if (hints.segments.get(segment) === 0) hints.compact.set(segment, segments.size(segment))
  }
}

/** Writes the three files of a transaction and removes all others. */
export function saveState(folder: string, state: RepositoryState): void {
  const { transaction } = state
  const hints = state.hints.pack()
  const hintsDigest = new FileDigest(`hints.${transaction}`)
  hintsDigest.update(hints)
  hintsDigest.part('final')
  const indexDigest = new FileDigest(`index.${transaction}`)

  const write = (name: string, parts: Iterable<Uint8Array>): void => {
    const fd = files.open(join(folder, `${name}.tmp`), 'w')
    try {
      writePieces(fd, parts)
      files.sync(fd)
    } finally {
      files.close(fd)
    }
  }
  const rename = (name: string): void => files.rename(join(folder, `${name}.tmp`), join(folder, name))
  write(`hints.${transaction}`, [hints])
  write(`index.${transaction}`, tableBytes(state.index, indexDigest))
  write(`integrity.${transaction}`, [packIntegrity(hintsDigest.json(), indexDigest.json())])
  // Integrity first: an index without it would count as unverified, one with it is safe from its first moment on.
  rename(`integrity.${transaction}`)
  syncDirectory(folder)
  rename(`hints.${transaction}`)
  rename(`index.${transaction}`)
  syncDirectory(folder)
  state.index.movedTo(join(folder, `index.${transaction}`))
  for (const name of readdirSync(folder)) {
    const match = /^(?:index|hints|integrity)\.(\d+)(?:\.tmp)?$/.exec(name)
    if (match && name !== `index.${transaction}` && name !== `hints.${transaction}` && name !== `integrity.${transaction}`) files.removeIfThere(join(folder, name))
  }
}

/** Bytes of the index's file, for the free space that a commit demands. */
export function indexFileBytes(index: HashTable): number {
  return headerBytes + index.byteLength
}
