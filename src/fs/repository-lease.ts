/**
 * When the mount holds the repository's lock (incoming.md §7). Shared while something is read, and let go after 10 idle
 * seconds, or at once when another client asks for it, so that a mounted drive does not keep other clients waiting; coming back
 * it looks whether they committed.
 * While another client holds the exclusive lock, reading goes on without one: every object is verified as always, and what
 * cannot be found is looked for again after a refresh.
 */
import type { Log } from '../engine/log.js'
import { BorgError, messageOf } from '../engine/errors.js'
import { InTurn } from '../engine/in-turn.js'

/** What a repository offers beside its port. `acquireLock` takes the lock or changes its kind; LockTimeout after `waitMs`. */
export interface LockableRepository {
  acquireLock(kind: 'shared' | 'exclusive', waitMs: number): Promise<void>
  releaseLock(): void
  refresh(): Promise<boolean>
  lastTransaction(): Promise<number>
  /** HOST@PID of others who have a lock; the one with the exclusive lock first. */
  otherHolders?(): string[]
  /** Calls `touched` whenever somebody, this process included, takes or tries the lock, until the function that it returns is called. */
  watchLock?(touched: () => void): () => void
}

const idleMs = 10_000
/** After a vain try for the shared lock, reads go on without it for so long. */
const retryMs = 1_000
/** Touches of the lock that follow this process' own by less are taken for its own. */
const ownTouchMs = 150
/** So often whoever waits for the exclusive lock hears who has it. */
const tellMs = 200

export class RepositoryLease {
  readonly #repository: LockableRepository
  readonly #log: Log
  readonly #hold: boolean
  /** Called when the repository turned out to have changed, before whoever waits goes on. */
  readonly #changed: () => Promise<void>
  #state: 'none' | 'shared' | 'exclusive'
  #users = 0
  #idle: NodeJS.Timeout | undefined
  /** Changes of the lock, one after the other. */
  readonly #changes = new InTurn()
  #noTryBefore = 0
  #closed = false
  /** Somebody waits for the exclusive lock, perhaps long: who reads does not stand behind. */
  #claimed = false
  #seen = -2
  /** It changed, and `changed` failed. */
  #untold = false
  /** Another client tried the lock while something was read: it goes when that is done. */
  #wanted = false
  #ownTouch = -Infinity
  readonly #unwatch: (() => void) | undefined

  /** `locked`: the repository was opened with the shared lock. `hold`: keep it until `close`, as Borg's mount does. */
  constructor(repository: LockableRepository, options: { locked: boolean; hold: boolean; log: Log; changed(): Promise<void> }) {
    this.#repository = repository
    this.#state = options.locked ? 'shared' : 'none'
    this.#hold = options.hold
    this.#log = options.log
    this.#changed = options.changed
    if (options.locked) this.#touched()
    this.#unwatch = options.hold ? undefined : repository.watchLock?.(() => this.#asked())
    this.#rest()
  }

  /** Whether a lock is held, so that what is seen of the repository is what it is. */
  get locked(): boolean {
    return this.#state !== 'none'
  }

  /** Runs `work` with the shared lock, or without one while another client has the exclusive one. */
  async reading<T>(work: () => Promise<T>): Promise<T> {
    this.#users++
    clearTimeout(this.#idle)
    try {
      if (this.#state === 'none' && !this.#claimed) await this.#changes.run(() => this.#share())
      return await work()
    } finally {
      this.#users--
      this.#rest()
    }
  }

  /**
   * Runs `work` with the exclusive lock; reads of this process go on meanwhile. LockTimeout after `waitMs`. `waiting` is told now and
   * then who else has a lock, until it is taken.
   */
  exclusively<T>(waitMs: number, work: () => Promise<T>, waiting?: (holder: string | undefined) => void): Promise<T> {
    return this.#changes.run(async () => {
      clearTimeout(this.#idle)
      this.#claimed = true
      const telling = waiting && setInterval(() => waiting(this.#repository.otherHolders?.()[0]), tellMs)
      try {
        try {
          await this.#repository.acquireLock('exclusive', waitMs)
          this.#touched()
        } catch (error) {
          waiting?.(this.#repository.otherHolders?.()[0])
          throw error
        } finally {
          clearInterval(telling)
        }
        this.#state = 'exclusive'
        await this.#refresh()
        return await work()
      } finally {
        this.#claimed = false
        if (this.#state === 'exclusive') {
          await this.#downgrade()
          // What cannot be told now is looked at the next time.
          this.#seen = this.#untold ? -2 : await this.#repository.lastTransaction().catch(() => -2)
        }
        this.#letGo(() => this.#releaseUnused())
      }
    })
  }

  /** What was done under the exclusive lock stands, also where no other can be had: a full disk has no room for the list of readers. */
  async #downgrade(): Promise<void> {
    try {
      await this.#repository.acquireLock('shared', 0)
      this.#state = 'shared'
    } catch (error) {
      this.#log.write('warning', 'borg.fuse', `The exclusive lock is given back, but the shared one could not be taken: ${messageOf(error)}`)
      this.#letGo(() => this.#release())
    }
    this.#touched()
  }

  /** Nor does it matter for what was done whether the lock goes. */
  #letGo(release: () => void): void {
    try {
      release()
    } catch (error) {
      this.#log.write('warning', 'borg.fuse', `The lock could not be released: ${messageOf(error)}`)
    }
  }

  /** Looks now whether other clients committed; costs no lock unless they did. */
  async check(): Promise<void> {
    if (this.#state === 'exclusive' || await this.#repository.lastTransaction() === this.#seen) return
    await this.#changes.run(async () => {
      const held = this.#state !== 'none'
      try {
        await this.#share()
        if (this.#state === 'shared') await this.#refresh()
      } finally {
        // Also where what is there cannot be read: whoever is to repair it needs the lock.
        if (held) this.#rest()
        else this.#releaseUnused()
      }
    })
  }

  /** After this nothing is locked. */
  close(): Promise<void> {
    return this.#changes.run(async () => {
      this.#closed = true
      this.#unwatch?.()
      clearTimeout(this.#idle)
      this.#release()
    })
  }

  async #share(): Promise<void> {
    if (this.#state !== 'none' || this.#closed || performance.now() < this.#noTryBefore) return
    try {
      await this.#repository.acquireLock('shared', 0)
      this.#touched()
      this.#state = 'shared'
      this.#wanted = false
    } catch (error) {
      if (!(error instanceof BorgError) || !error.msgid.startsWith('Lock')) throw error
      this.#noTryBefore = performance.now() + retryMs
      this.#log.write('debug', 'borg.fuse', `Reading without the lock: ${messageOf(error)}`)
      return
    }
    await this.#refresh({ forReading: true })
  }

  /** `forReading`: what cannot be taken in is said, and does not keep from reading what was known before. */
  async #refresh({ forReading = false } = {}): Promise<void> {
    // The repository tells of a change once; what could not be taken in then is still to be.
    if (await this.#repository.refresh()) this.#untold = true
    try {
      if (this.#untold) await this.#changed()
    } catch (error) {
      if (!forReading) throw error
      return this.#log.write('warning', 'borg.fuse', `What other clients changed cannot be read: ${messageOf(error)}`)
    }
    this.#untold = false
    this.#seen = await this.#repository.lastTransaction()
  }

  #rest(): void {
    clearTimeout(this.#idle)
    if (this.#hold || this.#users > 0 || this.#state !== 'shared' || this.#closed) return
    this.#idle = setTimeout(() => {
      void this.#changes.run(async () => {
        if (this.#users === 0) this.#release()
      }).catch((error: unknown) => this.#log.write('warning', 'borg.fuse', `The lock could not be released: ${messageOf(error)}`))
    }, this.#wanted ? 0 : idleMs)
    this.#idle.unref()
  }

  #touched(): void {
    this.#ownTouch = performance.now()
  }

  /** Borg tries the lock, waits a second and tries again: by then it should be free. */
  #asked(): void {
    if (performance.now() - this.#ownTouch < ownTouchMs) return
    this.#wanted = true
    this.#rest()
  }

  /**
   * At once, where nobody reads: the client whose commit was just noticed may be about to go on (create, then prune), and must
   * not find a lock.
   */
  #releaseUnused(): void {
    if (this.#users === 0 && !this.#hold) this.#release()
    else this.#rest()
  }

  #release(): void {
    if (this.#state === 'none') return
    this.#state = 'none'
    this.#wanted = false
    this.#repository.releaseLock()
    this.#touched()
  }
}
