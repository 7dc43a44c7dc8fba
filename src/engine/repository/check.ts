/**
 * The repository's phase of `check` (repository.md §7): every entry of every committed segment is verified, an index is rebuilt
 * from them and held against the committed one. Says and decides what Borg does. Three ways of doing it:
 *
 *   plain    finds, changes nothing but the note of a partial check in the config
 *   repair   rewrites damaged segments with what can be saved of them, then the state files; each file is replaced when its
 *            successor is durable, segments before the state, so that a crash leaves something that the next repair goes on with
 *   plan     finds what repair would do, changes nothing; the repository is then readable as repair would leave it
 */
import { HashTable } from '../hashindex/hash-table.js'
import { idHex } from '../ids.js'
import { messageOf } from '../errors.js'
import { AppendOnly } from './errors.js'
import { tagCommit } from './entry.js'
import { Hints } from './hints.js'
import { loadIntegrity } from './integrity.js'
import type { LocalRepository } from './local-repository.js'
import { applyEntries, beginSegment, endSegment, type IndexAndHints } from './replay.js'
import { salvageable, salvageSegment } from './salvage.js'
import { SegmentReaders } from './segment-readers.js'
import type { SegmentEntries } from './segment-walk.js'
import { newestIndex, provenIndex, saveState } from './state.js'

export interface RepositoryCheckOptions {
  readonly mode: 'plain' | 'repair' | 'plan'
  /** Ends the check after the segment in hand when so much time has passed, and remembers where; 0: no limit. Plain mode only. */
  readonly maxDurationSeconds?: number
  /** Accepted as by Borg; it changes nothing since Borg 1.0. */
  readonly saveSpace?: boolean
  /** Ends it between two segments; the reason is thrown. Repairs made by then stay. */
  readonly signal?: AbortSignal
}

export interface RepositoryFinding {
  /** As Borg logs it, at level error. */
  readonly message: string
  readonly segment?: number
  /** What repair does about it; said in plan mode only. */
  readonly repair?: string
}

/** All of it optional to listen to. `log` messages are Borg's, of its logger `borg.repository`, findings included. */
export interface RepositoryCheckListener {
  log?(level: 'debug' | 'info' | 'warning' | 'error', message: string): void
  finding?(finding: RepositoryFinding): void
  /** Segments done of all; Borg's text is `Checking segments %3.1f%%`, msgid `repository.check`, every 0.1 %. */
  progress?(done: number, total: number): void
  progressFinished?(): void
}

/** Entries of a segment that travel between threads at once; the rest follows in pieces (41 bytes each). */
const entriesAtOnce = 1 << 18

/**
 * True if nothing is wrong, or is no longer: repair returns true unless there is nothing to repair at all. The repository must be
 * opened with `forCheck` under the exclusive lock; no transaction may be open. In plan mode it must be opened `readOnly`.
 * Afterwards it stands at the state that was checked: the committed one, the repaired one, or the planned one.
 */
export async function checkRepository(repository: LocalRepository, options: RepositoryCheckOptions, listener: RepositoryCheckListener): Promise<boolean> {
  if (options.mode === 'repair' && repository.appendOnly) throw new AppendOnly(repository.path)
  if (options.mode === 'plan' && !repository.readOnly) throw new Error('a plan is made of a repository that is opened for reading only')
  await loadIntegrity()
  return new Check(repository, options, listener).run()
}

class Check {
  readonly #repository: LocalRepository
  readonly #options: RepositoryCheckOptions
  readonly #listener: RepositoryCheckListener
  #errors = 0

  constructor(repository: LocalRepository, options: RepositoryCheckOptions, listener: RepositoryCheckListener) {
    this.#repository = repository
    this.#options = options
    this.#listener = listener
  }

  async run(): Promise<boolean> {
    const { mode, maxDurationSeconds = 0 } = this.#options
    const repository = this.#repository
    const { segments } = repository
    const repair = mode === 'repair', partial = maxDurationSeconds > 0
    this.#log('info', 'Starting repository check')
    const lost = repository.lostCommit
    // Its segments count; where they are gone there is nothing to go back to but the transaction before.
    const restored = lost && lost.segments.length > 0 ? lost.transaction : undefined
    const committed = restored === undefined ? repository.committedState : { index: provenIndex(repository.path, restored) ?? new HashTable(2) }
    const transaction = restored ?? this.#transaction()
    if (transaction < 0) {
      this.#report({ message: 'This repository contains no valid data.' })
      return false
    }
    if (repair) {
      repository.assertLocked()
      segments.removeAbove(transaction)
      segments.folder.removeTemporaries()
    } else if (mode === 'plan') this.#planRemoval(transaction)
    const hadCommit = restored === undefined && segments.lastCommitted() >= 0
    if (lost && restored === undefined) {
      this.#report({
        message: `Transaction ${lost.transaction} was saved, but all its segments are missing: the repository is as of transaction ${transaction}. Restore them from a copy, unless they were removed on purpose.`,
        repair: `index and hints are written anew as of transaction ${transaction}`,
      })
    }

    const rebuilt: IndexAndHints = { index: new HashTable(2, partial ? 0 : (committed?.index.size ?? 0)), hints: new Hints() }
    await this.#checkSegments(transaction, rebuilt)

    let newTransaction = transaction
    if (restored !== undefined) {
      const sentence = `Transaction ${restored} was saved, but its COMMIT is damaged or missing: clients see transaction ${lost!.left}.`
      this.#report({ message: mode === 'repair' ? `${sentence} Adding it again.` : `${sentence} Do not write to the repository before "borg check --repair" was run: it would be thrown away.`, repair: `transaction ${restored} is restored: a COMMIT is written as segment ${restored + 1}` })
      if (repair) newTransaction = this.#addCommit(restored)
    } else if (!hadCommit && mode === 'plain') this.#report({ message: 'No committed segment was found.' })
    else if (!hadCommit) {
      this.#report({ message: `Adding commit tag to segment ${transaction}`, repair: `a COMMIT is written as segment ${transaction + 1}` })
      if (repair) newTransaction = this.#addCommit(transaction)
    }
    if (!partial) {
      this.#log('info', 'Starting repository index check')
      if (committed && !repair) this.#compareIndexes(committed.index, rebuilt.index)
      if (repair) {
        // A COMMIT that was lost with its segment takes the transaction back to the one before, as when a client opens it.
        newTransaction = segments.lastCommitted()
        repository.assertLocked()
        saveState(repository.path, { ...rebuilt, transaction: newTransaction })
      }
      if (mode !== 'plain') repository.adoptState({ ...rebuilt, transaction: newTransaction })
    }
    const kind = partial ? 'partial' : 'full'
    if (this.#errors === 0) this.#log('info', `Finished ${kind} repository check, no problems found.`)
    else if (repair) this.#log('info', `Finished ${kind} repository check, errors found and repaired.`)
    else this.#log('error', `Finished ${kind} repository check, errors found.`)
    return this.#errors === 0 || repair
  }

  /** In a segment of its own, behind all that it commits. */
  #addCommit(transaction: number): number {
    const { segments } = this.#repository
    segments.writer.startAt(transaction + 1)
    const commit = segments.writer.commit()
    if (!this.#repository.confirmCommit(commit)) this.#repository.assertLocked()
    return commit
  }

  /** The transaction to check: the committed one, or what comes nearest to one. -1: there is nothing. */
  #transaction(): number {
    const { committedState, segments, path } = this.#repository
    if (committedState && committedState.transaction >= 0) return committedState.transaction
    const committed = segments.lastCommitted()
    if (committed >= 0) return committed
    this.#log('debug', 'No segments transaction found')
    const index = newestIndex(path)
    if (index >= 0) return index
    this.#log('debug', 'No index transaction found, trying latest segment')
    return segments.folder.all().at(-1) ?? -1
  }

  #planRemoval(transaction: number): void {
    const above = this.#repository.segments.folder.all().filter(segment => segment > transaction)
    if (above.length === 0) return
    // No error: every transaction that was cut short leaves some, and every next one removes them.
    const names = above.length === 1 ? `segment ${above[0]}` : `segments ${above[0]} to ${above.at(-1)}`
    this.#listener.finding?.({ message: `Uncommitted: ${names} of a transaction that was never finished`, repair: `${names} removed` })
  }

  async #checkSegments(transaction: number, rebuilt: IndexAndHints): Promise<void> {
    const { maxDurationSeconds = 0, signal } = this.#options
    const repository = this.#repository
    const { segments, config } = repository
    const partial = maxDurationSeconds > 0
    const all = segments.folder.all()
    let last = -1
    if (partial) {
      last = Number(config.get('last_segment_checked') ?? -1)
      this.#log('info', `skipping to segments >= ${last + 1}`)
    } else this.#remember(undefined)
    const wanted = all.filter(segment => segment > last && segment <= transaction)
    const end = performance.now() + maxDurationSeconds * 1000
    const readers = new SegmentReaders(sum(wanted, segment => segments.size(segment)), wanted.length)
    try {
      const ahead: Promise<SegmentEntries>[] = []
      let given = 0
      for (const [done, segment] of wanted.entries()) {
        signal?.throwIfAborted()
        while (given < wanted.length && given - done < readers.ahead) ahead.push(quiet(readers.walk(this.#job(wanted[given++]!, 0, true))))
        this.#listener.progress?.(all.length - wanted.length + done, all.length)
        const entries = await ahead.shift()!
        await this.#checkSegment(segment, entries, readers, partial ? undefined : rebuilt)
        if (partial && performance.now() > end) {
          this.#log('info', `finished partial segment check, last segment checked is ${segment}`)
          this.#remember(segment)
          return
        }
      }
      // Borg names the last file there is, checked or above the transaction.
      this.#log('info', `finished segment check at segment ${all.at(-1) ?? -1}`)
      this.#remember(undefined)
    } finally {
      await readers.close()
      this.#listener.progressFinished?.()
    }
  }

  #job(segment: number, from: number, checkCrc: boolean) {
    return { path: this.#repository.segments.folder.pathOf(segment), segment, from, limit: entriesAtOnce, checkCrc }
  }

  async #checkSegment(segment: number, first: SegmentEntries, readers: SegmentReaders, rebuilt: IndexAndHints | undefined): Promise<void> {
    const { segments } = this.#repository
    if (rebuilt) beginSegment(rebuilt, segment)
    const apply = (entries: SegmentEntries): void => {
      if (rebuilt) applyEntries(rebuilt, segment, entries, segments)
    }
    if (first.damage === undefined) {
      apply(first)
      for (let from = first; from.next < from.fileBytes; ) apply((from = await readers.walk(this.#job(segment, from.next, false))))
    } else {
      const path = segments.folder.pathOf(segment)
      if (this.#options.mode !== 'plan') this.#report({ message: first.damage, segment })
      if (this.#options.mode === 'repair') {
        this.#log('info', `attempting to recover ${path}`)
        this.#repository.assertLocked()
        salvageSegment(path)
        segments.forget(segment)
        for (const entries of segments.walk(segment)) apply(entries)
      } else if (this.#options.mode === 'plan') {
        let objects = 0, bytes = 0
        for (const entries of salvageable(path)) {
          for (let at = 0; at < entries.count; at++) {
            if (entries.tags[at] !== tagCommit) objects++
            bytes += entries.sizes[at]!
          }
          apply(entries)
        }
        const lost = Math.max(0, first.fileBytes - 8 - bytes)
        this.#report({ message: first.damage, segment, repair: `segment ${segment} is written anew with the ${objects} sound entries in it; ${lost} of its ${first.fileBytes} bytes are given up` })
      }
      // In a plain check a damaged segment counts as empty.
    }
    if (rebuilt) endSegment(rebuilt, segment, segments)
  }

  #compareIndexes(committed: HashTable, rebuilt: HashTable): void {
    const repair = 'index and hints are written anew from the segments'
    if (committed.size !== rebuilt.size) {
      this.#report({ message: 'Index object count mismatch.', repair })
      this.#log('error', `committed index: ${committed.size} objects`)
      this.#log('error', `rebuilt index:   ${rebuilt.size} objects`)
    } else this.#log('info', 'Index object count match.')
    const line = (id: Uint8Array, ours: string, theirs: string): void => {
      this.#log('warning', `ID: ${idHex(id).padEnd(64)} rebuilt index: ${ours.padEnd(16)} committed index: ${theirs.padEnd(16)}`)
    }
    const place = (table: HashTable, bucket: number): string => (bucket < 0 ? '<not found>' : `(${table.value(bucket, 0)}, ${table.value(bucket, 1)})`)
    let moved = 0, missing = 0
    for (const { bucket, otherBucket } of rebuilt.differences(committed)) {
      line(rebuilt.idAt(bucket), place(rebuilt, bucket), place(committed, otherBucket))
      if (otherBucket >= 0) moved++
      else missing++
    }
    // Where every committed object was met, there is none left to name.
    if (committed.size > rebuilt.size - missing) for (const { bucket, otherBucket } of committed.differences(rebuilt)) {
      if (otherBucket < 0) line(committed.idAt(bucket), place(rebuilt, -1), place(committed, bucket))
    }
    // Borg counts objects only, and finds no fault with an index that points to the wrong place.
    if (moved > 0 && this.#errors === 0) this.#report({ message: `Index object location mismatch: ${moved} objects are not where the committed index says.`, repair })
  }

  #remember(segment: number | undefined): void {
    const { config, readOnly } = this.#repository
    const value = segment === undefined ? undefined : String(segment)
    if (config.get('last_segment_checked') === value || readOnly) return
    config.set('last_segment_checked', value)
    try {
      config.save()
    } catch (error) {
      // Worth no failure: the next partial check merely begins elsewhere (as on a read-only file system, without a lock).
      this.#log('warning', `The progress of the check could not be noted in the repository's config: ${messageOf(error)}`)
    }
  }

  #report(finding: RepositoryFinding): void {
    this.#errors++
    this.#log('error', finding.message)
    this.#listener.finding?.(finding)
  }

  #log(level: 'debug' | 'info' | 'warning' | 'error', message: string): void {
    this.#listener.log?.(level, message)
  }
}

/** A promise that fails before somebody waits for it must not end the process. */
function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined)
  return promise
}

function sum(list: readonly number[], of: (value: number) => number): number {
  let total = 0
  for (const value of list) total += of(value)
  return total
}
