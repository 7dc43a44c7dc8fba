/**
 * Borg's locks (locking.md): P.exclusive, a directory whose only file names its holder, and P.roster, a JSON list of readers
 * that is read and written only while holding P.exclusive.
 */
import { readdirSync, readFileSync, type Stats, statSync, watch } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { errnoOf, messageOf, saysNoRoom } from '../errors.js'
import type { Log } from '../log.js'
import { files } from '../platform/files.js'
import { isAlive, lockName, parseLockName, type ProcessId, thisProcess } from '../platform/process-id.js'
import { LockFailed, LockLost, LockMalformed, LockTimeout } from './errors.js'

export type LockKind = 'shared' | 'exclusive'
type Entry = [host: string, pid: number, thread: number]
interface Roster {
  shared?: Entry[]
  exclusive?: Entry[]
}

const pollMs = 100

/** What this process holds, of all repositories and caches. */
const held = new Set<Lock>()

export class Lock {
  readonly #path: string
  readonly #id: ProcessId
  readonly #log: Log
  #held: LockKind | undefined

  /** `path` without suffix, such as REPO/lock. */
  constructor(path: string, log: Log, id: ProcessId = thisProcess()) {
    this.#path = path
    this.#log = log
    this.#id = id
  }

  get held(): LockKind | undefined {
    return this.#held
  }

  /** Takes the lock, or turns the one held into the other kind. LockTimeout after `waitMs`; then what was held is held still. */
  async acquire(kind: LockKind, waitMs: number): Promise<void> {
    // One that somebody broke is taken anew.
    if (this.#held !== undefined && !this.stillHeld()) this.#held = undefined
    if (this.#held === kind) return
    const end = Date.now() + waitMs
    for (;;) {
      await this.#enter(end)
      let done = false
      try {
        done = kind === 'shared' ? this.#joinReaders() : this.#becomeWriter()
      } finally {
        // The writer keeps P.exclusive; everybody else only borrowed it.
        if (!(done && kind === 'exclusive')) this.#leave()
      }
      if (done) {
        this.#held = kind
        held.add(this)
        return
      }
      if (Date.now() >= end) throw new LockTimeout(this.#path)
      await pause()
    }
  }

  /** Never throws for a lock that somebody broke meanwhile: what it protected is over. */
  release(): void {
    if (this.#held === undefined) return
    const kind = this.#held
    const lost = kind === 'exclusive' && !this.stillHeld()
    this.#held = undefined
    held.delete(this)
    // Whatever is there now is somebody else's.
    if (lost) return
    if (kind === 'shared') this.#enterNow()
    try {
      this.#change(roster => drop(roster, kind, this.#entry))
    } finally {
      this.#leave()
    }
  }

  /**
   * Calls `touched` whenever somebody takes or tries the lock: that makes and removes P.exclusive for a moment. Where folders cannot be
   * watched it never does. Returns what ends it.
   */
  watch(touched: () => void): () => void {
    const name = basename(this.#exclusivePath)
    try {
      const watcher = watch(dirname(this.#exclusivePath), { persistent: false }, (_event, changed) => {
        if (changed === name) touched()
      })
      watcher.on('error', () => watcher.close())
      return () => watcher.close()
    } catch {
      return () => undefined
    }
  }

  /** Other holders as HOST@PID, whoever has it exclusively first; for telling people whom they wait for. */
  others(): string[] {
    const writers = this.#holders().map(parseLockName).filter(holder => holder !== undefined)
    const readers = (this.#roster().shared ?? []).map(([host, pid, thread]) => ({ host, pid, thread }))
    const own = this.#id
    return [...writers, ...readers].filter(({ host, pid, thread }) => host !== own.host || pid !== own.pid || thread !== own.thread)
      .map(({ host, pid }) => `${host.split('@')[0]!}@${pid}`)
  }

  /** True while the lock on disk is still ours; somebody may have broken it. */
  stillHeld(): boolean {
    if (this.#held === 'exclusive') return this.#holders().includes(lockName(this.#id))
    return this.#held === 'shared' && (this.#roster().shared ?? []).some(entry => same(entry, this.#entry))
  }

  /** Before anything that only the writer may do. LockLost if the exclusive lock was broken; throws for one never taken. */
  requireExclusive(): void {
    if (this.#held !== 'exclusive') throw new Error('this needs the exclusive lock')
    this.refuseIfLost()
  }

  /** LockLost if a lock was taken, of either kind, and somebody broke it. */
  refuseIfLost(): void {
    if (this.#held !== undefined && !this.stillHeld()) throw new LockLost(this.#held === 'exclusive' ? this.#exclusivePath : `${this.#path}.roster`)
  }

  get #entry(): Entry {
    return [this.#id.host, this.#id.pid, this.#id.thread]
  }

  get #exclusivePath(): string {
    return `${this.#path}.exclusive`
  }

  #joinReaders(): boolean {
    this.#change(roster => {
      drop(roster, 'exclusive', this.#entry)
      add(roster, 'shared', this.#entry)
    })
    return true
  }

  #becomeWriter(): boolean {
    const roster = this.#roster()
    const others = (roster.shared ?? []).filter(entry => !same(entry, this.#entry) && alive(entry))
    if (others.length > 0) return false
    this.#change(current => {
      delete current.shared
      add(current, 'exclusive', this.#entry)
    })
    return true
  }

  #living(kind: LockKind, entries: Entry[]): Entry[] {
    return entries.filter(entry => {
      if (alive(entry)) return true
      const [host, pid, thread] = entry
      this.#log.write('warning', 'borg.locking', `Removed stale ${kind} roster lock for host ${host} pid ${pid} thread ${thread}.`)
      return false
    })
  }

  /** Takes P.exclusive, already held by this process as a writer or not. */
  async #enter(end: number): Promise<void> {
    if (this.#held === 'exclusive') return
    for (;;) {
      if (this.#tryEnter()) return
      if (Date.now() >= end) throw new LockTimeout(this.#exclusivePath)
      await pause()
    }
  }

  /** For release, which must not wait for long: P.exclusive is only ever borrowed for moments by other readers. */
  #enterNow(): void {
    for (let tries = 0; !this.#tryEnter(); tries++) {
      if (tries > 200) throw new LockTimeout(this.#exclusivePath)
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10)
    }
  }

  #tryEnter(): boolean {
    let temporary: string
    try {
      temporary = files.makeUniqueDirectory(`${this.#exclusivePath}.`)
    } catch (error) {
      throw new LockFailed(this.#exclusivePath, messageOf(error), { cause: error })
    }
    try {
      files.write(join(temporary, lockName(this.#id)), '')
      // Succeeds only where nothing or an empty directory is.
      files.rename(temporary, this.#exclusivePath)
      return true
    } catch (error) {
      files.removeTree(temporary)
      const code = errnoOf(error)
      if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw new LockFailed(this.#exclusivePath, messageOf(error), { cause: error })
      // A dead holder's lock is free now: that is not worth a wait.
      return this.#killStale() && this.#tryEnter()
    }
  }

  /** True if a lock was removed. */
  #killStale(): boolean {
    let killed = false
    for (const name of this.#holders()) {
      const holder = parseLockName(name)
      if (!holder) throw new LockMalformed(this.#exclusivePath, name)
      if (isAlive(holder)) continue
      try {
        files.remove(join(this.#exclusivePath, name))
        killed = true
        this.#log.write('warning', 'borg.locking', `Killed stale lock ${name}.`)
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') throw new LockFailed(this.#exclusivePath, messageOf(error), { cause: error })
      }
    }
    try {
      files.removeDirectory(this.#exclusivePath)
    } catch {
      // Held by a living process, or taken again meanwhile.
    }
    return killed
  }

  #holders(): string[] {
    try {
      return readdirSync(this.#exclusivePath)
    } catch {
      return []
    }
  }

  #leave(): void {
    try {
      files.remove(join(this.#exclusivePath, lockName(this.#id)))
    } catch (error) {
      // Broken by somebody: then there is nothing to leave.
      if (errnoOf(error) === 'ENOENT') return
      throw error
    }
    try {
      files.removeDirectory(this.#exclusivePath)
    } catch {
      // Somebody renamed a lock of his own over the empty directory.
    }
  }

  /** LockFailed for one that is there and cannot be read: nobody knows who is in it. */
  #roster(): Roster {
    let text: string
    try {
      text = readFileSync(`${this.#path}.roster`, 'utf8')
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return {}
      throw new LockFailed(`${this.#path}.roster`, messageOf(error), { cause: error })
    }
    try {
      const parsed: unknown = JSON.parse(text)
      if (typeof parsed !== 'object' || parsed === null) return {}
      const roster: Roster = {}
      for (const kind of ['shared', 'exclusive'] as const) {
        const entries: unknown = (parsed as Record<string, unknown>)[kind]
        if (Array.isArray(entries)) roster[kind] = entries.filter(isEntry)
      }
      return roster
    } catch {
      // Empty or broken counts as nobody, as does a missing one (Borg).
      return {}
    }
  }

  #change(edit: (roster: Roster) => void): void {
    const roster = this.#roster()
    for (const kind of ['shared', 'exclusive'] as const) if (roster[kind]) roster[kind] = this.#living(kind, roster[kind])
    edit(roster)
    if ((roster.shared?.length ?? 0) === 0 && (roster.exclusive?.length ?? 0) === 0) files.removeIfThere(`${this.#path}.roster`)
    else this.#save(JSON.stringify(roster))
  }

  /**
   * In one step: a list that was cut off counts as nobody's, for Borg as for us, and readers in it would be passed over. P.exclusive is held, so that
   * the name beside it is nobody else's. Where that would take it from others, being another user's or open to more, it is overwritten as Borg does it; and
   * on a full disk what does not get longer: whoever leaves must be able to.
   */
  #save(text: string): void {
    const path = `${this.#path}.roster`, beside = `${path}.tmp`
    const there = statSync(path, { throwIfNoEntry: false }), length = Buffer.byteLength(text)
    try {
      files.write(beside, text)
      if (!there || isOpenToTheSame(there, statSync(beside))) return files.rename(beside, path)
    } catch (error) {
      files.removeIfThere(beside)
      if (!there || !saysNoRoom(errnoOf(error)) || length > there.size) throw error
    }
    files.removeIfThere(beside)
    const bytes = Buffer.alloc(Math.max(there.size, length), ' ')
    bytes.write(text)
    const fd = files.open(path, 'r+')
    try {
      files.writeAll(fd, bytes, 0)
    } finally {
      files.close(fd)
    }
  }
}

function isOpenToTheSame(a: Stats, b: Stats): boolean {
  return a.uid === b.uid && a.gid === b.gid && a.mode === b.mode
}

/** Anything else names nobody that could be waited for. */
function isEntry(value: unknown): value is Entry {
  return Array.isArray(value) && value.length === 3 && typeof value[0] === 'string' && Number.isSafeInteger(value[1]) && Number.isSafeInteger(value[2])
}

function alive([host, pid, thread]: Entry): boolean {
  return isAlive({ host, pid, thread })
}

function same(a: Entry, b: Entry): boolean {
  return a[0] === b[0] && a[1] === b[1] && a[2] === b[2]
}

function drop(roster: Roster, kind: LockKind, entry: Entry): void {
  const rest = (roster[kind] ?? []).filter(other => !same(other, entry))
  if (rest.length > 0) roster[kind] = rest
  else delete roster[kind]
}

function add(roster: Roster, kind: LockKind, entry: Entry): void {
  drop(roster, kind, entry)
  roster[kind] = [...(roster[kind] ?? []), entry]
}

function pause(): Promise<void> {
  return new Promise(resolve => setTimeout(resolve, pollMs))
}

/**
 * For a process that is about to end in the middle of something: to other clients that is as if it were killed, but they need not find out that
 * its locks are stale. Nothing may be done with a repository after this.
 */
export function releaseHeldLocks(): void {
  for (const lock of held) {
    try {
      lock.release()
    } catch {
      // A dead process's lock is in nobody's way.
    }
  }
}

/** break-lock: removes whatever is there. */
export function breakLock(path: string): void {
  files.removeTree(`${path}.roster`)
  files.removeIfThere(`${path}.roster.tmp`)
  files.removeTree(`${path}.exclusive`)
}
