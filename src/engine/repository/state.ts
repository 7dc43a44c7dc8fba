/**
 * What is known of a repository at one transaction: index and hints, read from their files or made by replaying segments
 * (repository.md §4, §5). The files only save time: whatever is missing, damaged or old is rebuilt from the log.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { errnoOf, IntegrityError, messageOf } from '../errors.js'
import { headerBytes } from '../hashindex/bucket-layout.js'
import { HashTable } from '../hashindex/hash-table.js'
import type { Log } from '../log.js'
import { native } from '../native.js'
import { files } from '../platform/files.js'
import { syncDirectory, writePieces } from '../platform/save-file.js'
import { CheckNeeded } from './errors.js'
import { Hints } from './hints.js'
import { FileDigest, finalDigest, packIntegrity, unpackIntegrity } from './integrity.js'
import { replay } from './replay.js'
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
   * believed. StateFileDamaged: the files are worth nothing.
   */
  readonly complete?: (() => RepositoryState) | undefined
}

/** A state file that cannot be read, or is not what it should be; the message is Borg's. */
export class StateFileDamaged extends Error {
  constructor(what: 'index' | 'hints file', cause: unknown) {
    super(`Repository ${what} missing or corrupted, trying to recover${what === 'index' ? ' from' : ''}: ${messageOf(cause)}`, { cause })
  }
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

/**
 * A transaction that was committed, but whose COMMIT cannot be found: its entry is damaged, its file cut short or gone. The state
 * files of a transaction are written when its COMMIT is durable, by Borg as by us, so that an index above the last COMMIT that fits
 * its digest is proof, and no crash leaves one.
 */
export interface LostCommit {
  readonly transaction: number
  /** The last transaction that can be found. */
  readonly left: number
  /** Segment files above the last COMMIT that is left; none where somebody took the transaction back by removing them all. */
  readonly segments: readonly number[]
}

/** CheckNeeded tells of the case that no COMMIT at all is left: then this is undefined. */
export function lostCommit(folder: string, segments: Segments): LostCommit | undefined {
  const index = newestIndex(folder)
  const left = segments.lastCommitted(index)
  if (left < 0 || index <= left) return undefined
  const proof = provenIndex(folder, index)
  proof?.close()
  if (!proof) return undefined
  return { transaction: index, left, segments: segments.folder.all().filter(segment => segment > left && segment <= index) }
}

export interface LoadOptions {
  /** A large index is looked into where it lies: see RepositoryState.complete. */
  readonly trusting?: boolean
  /** Nothing is taken from the files, everything from the segments. */
  readonly rebuild?: boolean
  /** Largest index file that is read whole at once. */
  readonly smallBytes?: number | undefined
}

/** The state at the last commit that is left. `stale` says that the files on disk did not hold it. CheckNeeded as Borg. */
export function loadState(folder: string, location: string, segments: Segments, log: Log, options: LoadOptions = {}): { state: RepositoryState; stale: boolean } {
  const indexTransaction = newestIndex(folder)
  const transaction = segments.lastCommitted(indexTransaction)
  if (transaction < 0) {
    if (indexTransaction >= 0) throw new CheckNeeded(location)
    return { state: { index: new HashTable(2), hints: new Hints(), transaction: -1 }, stale: false }
  }
  let base: RepositoryState | undefined
  // An index of a transaction that is lost says nothing about the one before.
  if (indexTransaction >= 0 && indexTransaction <= transaction && !options.rebuild) {
    try {
      // What is replayed on changes both.
      base = readFiles(folder, indexTransaction, log, indexTransaction < transaction ? { ...options, trusting: false } : options)
    } catch (error) {
      if (!(error instanceof StateFileDamaged)) throw error
      log.write('warning', topic, error.message)
    }
  }
  if (base?.transaction === transaction) return { state: base, stale: false }
  const into = base ?? { index: new HashTable(2), hints: new Hints() }
  replay(segments, into, base ? indexTransaction : -1, transaction)
  return { state: { ...into, transaction }, stale: true }
}

/** The index of a transaction, if integrity data that is sound says that it is just as it was written. */
export function provenIndex(folder: string, transaction: number): HashTable | undefined {
  const name = `index.${transaction}`
  try {
    const expected = finalDigest(unpackIntegrity(readFileSync(join(folder, `integrity.${transaction}`))).get('index'))
    return expected === undefined ? undefined : openTable({ path: join(folder, name), name, valueWords: 2, expected }, { trusting: false }).table
  } catch (error) {
    if (error instanceof IntegrityError || errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
}

/** Either of the files without the other is of no use: hints of a newer state, or an index that counts differently. */
function readFiles(folder: string, transaction: number, log: Log, options: LoadOptions): RepositoryState {
  let digests = new Map<string, string>()
  try {
    digests = unpackIntegrity(readFileSync(join(folder, `integrity.${transaction}`)))
  } catch (error) {
    // Missing: an older Borg wrote none. Damaged: nothing to verify by, and the files are checked by their own structure.
    if (error instanceof IntegrityError) log.write('warning', topic, `Repository integrity data is damaged: ${messageOf(error)}`)
  }
  const read = <T>(what: 'index' | 'hints file', load: () => T): T => {
    try {
      return load()
    } catch (error) {
      throw new StateFileDamaged(what, error)
    }
  }
  const name = `index.${transaction}`
  const file = { path: join(folder, name), name, valueWords: 2, expected: finalDigest(digests.get('index')) }
  const { table: index, verified } = read('index', () => openTable(file, { trusting: options.trusting ?? false, ...(options.smallBytes !== undefined && { smallBytes: options.smallBytes }) }))
  const hints = (): Hints => read('hints file', () => readHints(folder, transaction, digests.get('hints')))
  try {
    if (verified) return { index, hints: hints(), transaction }
  } catch (error) {
    index.close()
    throw error
  }
  const complete = (): RepositoryState => {
    read('index', () => verifyTable(file, index))
    return { index, hints: hints(), transaction }
  }
  return { index, hints: new Hints(), transaction, complete }
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

/** Writes the three files of a transaction and removes all others. */
export function saveState(folder: string, state: RepositoryState): void {
  const { transaction } = state
  const hints = state.hints.pack()
  const hintsDigest = new FileDigest(`hints.${transaction}`)
  hintsDigest.update(hints)
  hintsDigest.part('final')
  const indexDigest = new FileDigest(`index.${transaction}`)

  const open: number[] = []
  try {
    const write = (name: string, parts: Iterable<Uint8Array>): void => {
      const fd = files.open(join(folder, `${name}.tmp`), 'w')
      open.push(fd)
      const bytes = writePieces(fd, parts)
      // All are on their way to the disk before the first is waited for.
      native().startWriteback(fd, 0, bytes)
    }
    write(`hints.${transaction}`, [hints])
    write(`index.${transaction}`, tableBytes(state.index, indexDigest))
    write(`integrity.${transaction}`, [packIntegrity(hintsDigest.json(), indexDigest.json())])
    for (const fd of open) files.sync(fd)
  } finally {
    for (const fd of open) files.close(fd)
  }
  const rename = (name: string): void => files.rename(join(folder, `${name}.tmp`), join(folder, name))
  // Integrity first: an index without it would count as unverified, one with it is safe from its first moment on.
  rename(`integrity.${transaction}`)
  syncDirectory(folder)
  rename(`hints.${transaction}`)
  rename(`index.${transaction}`)
  syncDirectory(folder)
  state.index.movedTo(join(folder, `index.${transaction}`))
  for (const name of readdirSync(folder)) {
    const match = /^(?:index|hints|integrity)\.(\d+)(?:\.tmp)?$/.exec(name)
    const isOld = match && name !== `index.${transaction}` && name !== `hints.${transaction}` && name !== `integrity.${transaction}`
    // What a process that was killed, Borg's or ours, left beside a file that it replaced: nobody else replaces one now.
    if (isOld || /^(?:nonce|config)-[0-9a-z_]{8}\.tmp$/.test(name)) files.removeIfThere(join(folder, name))
  }
}

/** Bytes of the index's file, for the free space that a commit demands. */
export function indexFileBytes(index: HashTable): number {
  return headerBytes + index.byteLength
}
