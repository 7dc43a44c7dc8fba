/**
 * What is known of a repository at one transaction: index and hints, read from their files or made by replaying segments
 * (repository.md §4, §5). The files only save time: whatever is missing, damaged or old is rebuilt from the log.
 */
import { closeSync, fstatSync, openSync, readdirSync, readFileSync, readSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { errnoOf, IntegrityError, messageOf } from '../errors.js'
import { HashTable, headerBytes } from '../hashindex/hash-table.js'
import type { Log } from '../log.js'
import { files } from '../platform/files.js'
import { syncDirectory } from '../platform/save-file.js'
import { CheckNeeded } from './errors.js'
import { Hints } from './hints.js'
import { FileDigest, finalDigest, loadIntegrity, packIntegrity, unpackIntegrity } from './integrity.js'
import { replay } from './replay.js'
import type { Segments } from './segments.js'

const topic = 'borg.repository'

export interface RepositoryState {
  /** Id -> segment, offset. */
  readonly index: HashTable
  readonly hints: Hints
  /** Segment of the last COMMIT, -1 before the first. */
  readonly transaction: number
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
export async function lostCommit(folder: string, segments: Segments): Promise<LostCommit | undefined> {
  const index = newestIndex(folder)
  const left = segments.lastCommitted()
  if (left < 0 || index <= left) return undefined
  await loadIntegrity()
  if (!provenIndex(folder, index)) return undefined
  return { transaction: index, left, segments: segments.files().filter(segment => segment > left && segment <= index) }
}

/** The state at the last commit that is left. `stale` says that the files on disk did not hold it. CheckNeeded as Borg. */
export async function loadState(folder: string, location: string, segments: Segments, log: Log): Promise<{ state: RepositoryState; stale: boolean }> {
  await loadIntegrity()
  const indexTransaction = newestIndex(folder)
  const transaction = segments.lastCommitted()
  if (transaction < 0) {
    if (indexTransaction >= 0) throw new CheckNeeded(location)
    return { state: { index: new HashTable(2), hints: new Hints(), transaction: -1 }, stale: false }
  }
  let base: { index: HashTable; hints: Hints } | undefined
  // An index of a transaction that is lost says nothing about the one before.
  if (indexTransaction >= 0 && indexTransaction <= transaction) base = readFiles(folder, indexTransaction, log)
  const from = base ? indexTransaction : -1
  base ??= { index: new HashTable(2), hints: new Hints() }
  if (from < transaction) replay(segments, base, from, transaction)
  return { state: { ...base, transaction }, stale: from < transaction }
}

/** The index of a transaction, if integrity data that is sound says that it is just as it was written. */
export function provenIndex(folder: string, transaction: number): HashTable | undefined {
  try {
    const digest = unpackIntegrity(readFileSync(join(folder, `integrity.${transaction}`))).get('index')
    return finalDigest(digest) === undefined ? undefined : readIndex(folder, transaction, digest)
  } catch (error) {
    if (error instanceof IntegrityError || errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
}

function readFiles(folder: string, transaction: number, log: Log): { index: HashTable; hints: Hints } | undefined {
  let digests = new Map<string, string>()
  try {
    digests = unpackIntegrity(readFileSync(join(folder, `integrity.${transaction}`)))
  } catch (error) {
    // Missing: an older Borg wrote none. Damaged: nothing to verify by, and the files are checked by their own structure.
    if (error instanceof IntegrityError) log.write('warning', topic, `Repository integrity data is damaged: ${messageOf(error)}`)
  }
  // Either without the other is of no use: hints of a newer state, or an index that counts differently.
  const read = <T>(what: string, load: () => T): T | undefined => {
    try {
      return load()
    } catch (error) {
      log.write('warning', topic, `Repository ${what} missing or corrupted, trying to recover${what === 'index' ? ' from' : ''}: ${messageOf(error)}`)
      return undefined
    }
  }
  const index = read('index', () => readIndex(folder, transaction, digests.get('index')))
  const hints = index && read('hints file', () => readHints(folder, transaction, digests.get('hints')))
  return index && hints ? { index, hints } : undefined
}

function readIndex(folder: string, transaction: number, integrity: string | undefined): HashTable {
  const name = `index.${transaction}`
  const fd = openSync(join(folder, name), 'r')
  try {
    const fill = (into: Uint8Array, position: number): void => {
      for (let done = 0; done < into.length; ) {
        const count = readSync(fd, into, done, Math.min(into.length - done, 1 << 30), position + done)
        if (count === 0) throw new IntegrityError(`${name} ends early`)
        done += count
      }
    }
    const header = Buffer.alloc(headerBytes)
    fill(header, 0)
    const digest = new FileDigest(name)
    digest.update(header)
    digest.part('HashHeader')
    const table = HashTable.load(2, header, fstatSync(fd).size, into => {
      fill(into, headerBytes)
      digest.update(into)
      digest.part('final')
      verify(name, digest, integrity)
    })
    return table
  } finally {
    closeSync(fd)
  }
}

function readHints(folder: string, transaction: number, integrity: string | undefined): Hints {
  const name = `hints.${transaction}`
  const bytes = readFileSync(join(folder, name))
  const digest = new FileDigest(name)
  digest.update(bytes)
  digest.part('final')
  verify(name, digest, integrity)
  return Hints.unpack(bytes)
}

function verify(name: string, digest: FileDigest, integrity: string | undefined): void {
  const expected = finalDigest(integrity)
  if (expected !== undefined && expected !== digest.digests.final) throw new IntegrityError(`the digest of ${name} does not fit`)
}

/** Writes the three files of a transaction and removes all others. */
export function saveState(folder: string, state: RepositoryState): void {
  const { transaction } = state
  const hints = state.hints.pack()
  const hintsDigest = new FileDigest(`hints.${transaction}`)
  hintsDigest.update(hints)
  hintsDigest.part('final')
  const indexDigest = new FileDigest(`index.${transaction}`)
  const header = state.index.header()
  const buckets = state.index.bucketBytes
  indexDigest.update(header)
  indexDigest.part('HashHeader')
  indexDigest.update(buckets)
  indexDigest.part('final')

  const write = (name: string, ...parts: Uint8Array[]): void => {
    const fd = files.open(join(folder, `${name}.tmp`), 'w')
    try {
      for (const part of parts) files.writeAll(fd, part)
      files.sync(fd)
    } finally {
      files.close(fd)
    }
  }
  const rename = (name: string): void => files.rename(join(folder, `${name}.tmp`), join(folder, name))
  write(`hints.${transaction}`, hints)
  write(`index.${transaction}`, header, buckets)
  write(`integrity.${transaction}`, packIntegrity(hintsDigest.json(), indexDigest.json()))
  // Integrity first: an index without it would count as unverified, one with it is safe from its first moment on.
  rename(`integrity.${transaction}`)
  syncDirectory(folder)
  rename(`hints.${transaction}`)
  rename(`index.${transaction}`)
  syncDirectory(folder)
  for (const name of readdirSync(folder)) {
    const match = /^(?:index|hints|integrity)\.(\d+)(?:\.tmp)?$/.exec(name)
    if (match && name !== `index.${transaction}` && name !== `hints.${transaction}` && name !== `integrity.${transaction}`) files.removeIfThere(join(folder, name))
  }
}

/** Bytes of the index's file, for the free space that a commit demands. */
export function indexFileBytes(index: HashTable): number {
  return headerBytes + index.bucketBytes.length
}
