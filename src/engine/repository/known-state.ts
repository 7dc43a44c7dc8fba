/**
 * The state in hand: as it was loaded, or made by the last commit, or why there is none. Loaded anew where another client committed, where a
 * transaction failed, and where its files turn out to be damaged.
 */
import { BorgError, errnoOf, IntegrityError, messageOf, saysNoRoom } from '../errors.js'
import type { Log } from '../log.js'
import type { Segments } from './segments.js'
import { loadState, type LoadOptions, type LostCommit, lostCommit, newestIndex, type RepositoryState, saveState, StateFileDamaged } from './state.js'

/** Whose state it is. */
export interface StatePlace {
  readonly path: string
  readonly location: string
  readonly segments: Segments
  readonly log: Log
  /** Largest index file that is read whole at once. */
  readonly smallIndexBytes?: number | undefined
}

export class KnownState {
  readonly #place: StatePlace
  #loaded: RepositoryState | Error
  /** What is newer than #loaded, and should not be. */
  #lost: LostCommit | undefined
  /** Transaction that refresh() last told of, or that was loaded first. */
  #toldTransaction: number

  private constructor(place: StatePlace, loaded: RepositoryState | Error) {
    this.#place = place
    this.#loaded = loaded
    this.#toldTransaction = loaded instanceof Error ? -1 : loaded.transaction
    this.#noteLost()
  }

  /**
   * `trusting` as in LoadOptions. `orWhy`: where there is none, `current` throws what stood in the way, and not this. `stale`: the files on
   * disk did not hold it.
   */
  static load(place: StatePlace, options: { trusting: boolean; orWhy: boolean }): { known: KnownState; stale: boolean } {
    let loaded: RepositoryState | Error, stale = false
    try {
      ;({ state: loaded, stale } = load(place, { trusting: options.trusting }))
    } catch (error) {
      if (!options.orWhy || !(error instanceof BorgError)) throw error
      loaded = error
    }
    return { known: new KnownState(place, loaded), stale }
  }

  /** Its index may lie unverified in its file: see RepositoryState.complete. Throws what stands in the way. */
  get current(): RepositoryState {
    if (this.#loaded instanceof Error) throw this.#loaded
    return this.#loaded
  }

  /** The same verified, with hints; undefined if there is none. */
  get completeIfAny(): RepositoryState | undefined {
    return this.#loaded instanceof Error ? undefined : this.complete()
  }

  /** A newer transaction, whose COMMIT is not to be found. */
  get lost(): LostCommit | undefined {
    return this.#lost
  }

  /** Verifies an index that was not, and reads the hints. What is damaged is made anew from the segments. */
  complete(): RepositoryState {
    const { complete, index, transaction } = this.current
    if (!complete) return this.current
    const { path, segments, log } = this.#place
    try {
      return (this.#loaded = complete())
    } catch (error) {
      if (!(error instanceof StateFileDamaged)) throw error
      // Another client's new index may have taken this one's place, and the file have gone with it (network file systems).
      const replaced = newestIndex(path) !== transaction
      if (!replaced) log.write('warning', 'borg.repository', error.message)
      segments.closeReaders()
      const { state } = load(this.#place, { rebuild: !replaced })
      this.#loaded = state
      index.close()
      return state
    }
  }

  /** Takes over what another client committed meanwhile. True if it is another transaction than was told of before. */
  refresh(): boolean {
    const { path, segments } = this.#place
    const newest = newestIndex(path)
    if (this.#loaded instanceof Error || newest !== this.#loaded.transaction || segments.lastCommitted(newest) !== newest) {
      segments.closeReaders()
      const before = this.#loaded
      this.#loaded = load(this.#place, { trusting: true }).state
      this.#noteLost()
      close(before)
    }
    const { transaction } = this.current
    const changed = transaction !== this.#toldTransaction
    this.#toldTransaction = transaction
    return changed
  }

  /** Of a transaction that is over: what it made of the state is dropped. */
  rollBack(): void {
    const before = this.#loaded
    try {
      this.#loaded = load(this.#place, {}).state
      this.#noteLost()
    } catch (error) {
      // What made the transaction fail is the news, not this; who goes on with the repository will hear of it.
      this.#loaded = error instanceof Error ? error : new Error(messageOf(error))
    }
    close(before)
  }

  /** A COMMIT of ours is durable, but the lock was broken: others may have gone on from it, and refresh() tells of it. */
  committedUnlocked(state: RepositoryState): void {
    this.#loaded = state
  }

  /** A COMMIT of ours is durable. */
  committed(state: RepositoryState): void {
    this.#loaded = state
    this.#lost = undefined
    this.#toldTransaction = state.transaction
  }

  /** Takes over what was rebuilt from the segments. */
  adopt(state: RepositoryState): void {
    if (!(this.#loaded instanceof Error) && this.#loaded.index !== state.index) this.#loaded.index.close()
    this.#loaded = state
    this.#lost = undefined
    this.#place.segments.closeReaders()
  }

  /** The state files only save time: a disk that does not take them is worth a warning, and the next client makes them anew. */
  trySave(): void {
    const { path, location, log } = this.#place
    try {
      saveState(path, this.current)
    } catch (error) {
      // IntegrityError: the file that the index lay in cannot be read any more.
      if (errnoOf(error) === undefined && !(error instanceof IntegrityError)) throw error
      const why = saysNoRoom(errnoOf(error)) ? 'The disk is full' : messageOf(error)
      log.write('warning', 'borg.repository', `${why}: the index of ${location} was not saved and will be rebuilt when the repository is opened next.`)
    }
  }

  close(): void {
    close(this.#loaded)
  }

  /** Told once: who reads goes on with what there is. */
  #noteLost(): void {
    const { path, location, segments, log } = this.#place
    const lost = lostCommit(path, segments)
    if (lost && lost.transaction !== this.#lost?.transaction) {
      const remedy = lost.segments.length > 0 ? `Run "borg check --repair ${location}" to have it back.` : 'All its segments are gone as well: restore them from a copy, unless they were removed on purpose.'
      log.write('warning', 'borg.repository', `Transaction ${lost.transaction} of ${location} was saved, but its COMMIT is damaged or missing: you see transaction ${lost.left}. ${remedy}`)
    }
    this.#lost = lost
  }
}

function load({ path, location, segments, log, smallIndexBytes }: StatePlace, options: LoadOptions): { state: RepositoryState; stale: boolean } {
  return loadState(path, location, segments, log, { ...options, smallBytes: smallIndexBytes })
}

function close(loaded: RepositoryState | Error): void {
  if (!(loaded instanceof Error)) loaded.index.close()
}
