/**
 * Loaded into a process by NODE_OPTIONS=--import, so that the program as it ships runs over a disk that a test controls: every
 * call of node:fs that changes something below one folder is counted and written to a log, and the n-th can fail, be cut short,
 * or be the last one that the process makes. The product knows nothing of this file. See faults.ts for the test's side.
 *
 *   FAULTS_ROOT    the folder; a call that changes it without being a single system call is an error
 *   FAULTS_LOG     file for one JSON line per call (LoggedCall)
 *   FAULTS_AT      number of the call, from 1, among those of FAULTS_THREAD
 *   FAULTS_ACTION  kill (before the call), an errno's name, short (a write does half), or pause (before the call, until FAULTS_LOG.go is there)
 *   FAULTS_STICKY  from that call on; ENOSPC and EDQUOT then spare what needs no space
 *   FAULTS_THREAD  main (default) or worker
 *   FAULTS_BOOT    what tells this start of the machine from others
 *   FAULTS_CLOCK   milliseconds that every look at the clock is later than the one before: time passes without being waited for
 */
import childProcess from 'node:child_process'
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { constants as os } from 'node:os'
import { resolve } from 'node:path'
import { promisify } from 'node:util'
import { isMainThread } from 'node:worker_threads'

/** A call as it was made; inode numbers name files, because names change. */
export type LoggedCall = { readonly main: boolean } & (
  | { readonly op: 'open'; readonly path: string; readonly ino: number; readonly created: boolean; readonly truncated: boolean }
  | { readonly op: 'write'; readonly ino: number; readonly at: number; readonly data: string }
  | { readonly op: 'truncate'; readonly ino: number; readonly length: number }
  | { readonly op: 'sync'; readonly ino: number }
  /** The whole file system, by the program sync: what the first `calls` calls of this log did. */
  | { readonly op: 'sync-all'; readonly calls: number }
  | { readonly op: 'rename' | 'link'; readonly from: string; readonly to: string }
  | { readonly op: 'unlink' | 'rmdir'; readonly path: string }
  | { readonly op: 'mkdir'; readonly path: string; readonly ino: number }
)
type Call = LoggedCall extends infer T ? (T extends LoggedCall ? Omit<T, 'main'> : never) : never

const { FAULTS_ROOT, FAULTS_LOG, FAULTS_AT, FAULTS_ACTION = '', FAULTS_STICKY, FAULTS_THREAD = 'main', FAULTS_CLOCK, FAULTS_BOOT } = process.env
const real = { ...fs }

if (FAULTS_CLOCK) {
  const now = performance.now.bind(performance)
  let ahead = 0
  performance.now = () => now() + (ahead += Number(FAULTS_CLOCK))
}

if (FAULTS_BOOT) {
  const { readFileSync } = fs
  fs.readFileSync = ((path: fs.PathOrFileDescriptor, ...rest: []) => (path === '/proc/sys/kernel/random/boot_id' ? FAULTS_BOOT : readFileSync(path, ...rest))) as typeof readFileSync
  syncBuiltinESMExports()
}

if (FAULTS_ROOT) {
  install(FAULTS_ROOT)
  syncBuiltinESMExports()
}

function install(root: string): void {
  const log = FAULTS_LOG ? real.openSync(FAULTS_LOG, 'a') : -1
  const at = FAULTS_AT ? Number(FAULTS_AT) : Infinity
  const counts = isMainThread === (FAULTS_THREAD === 'main')
  let count = 0

  const below = (path: unknown): string | undefined => {
    const full = resolve(Buffer.isBuffer(path) ? path.toString('latin1') : String(path))
    return full === root || full.startsWith(`${root}/`) ? full : undefined
  }
  const watched = (fd: number): boolean => {
    try {
      return below(real.readlinkSync(`/proc/self/fd/${fd}`)) !== undefined
    } catch {
      return false
    }
  }
  const note = (call: Call): void => {
    if (log >= 0) real.writeSync(log, `${JSON.stringify({ main: isMainThread, ...call })}\n`)
  }
  const failure = (code: string, syscall: string, path?: unknown): Error => {
    const errno = os.errno[code as keyof typeof os.errno]
    const text = `${code}: injected, ${syscall}${path === undefined ? '' : ` '${String(path)}'`}`
    return Object.assign(new Error(text), { errno: -errno, code, syscall, ...(path === undefined ? {} : { path: String(path) }) })
  }
  /** Counts a call that is about to be made; true if it shall do half only. */
  const meet = (syscall: string, path?: unknown): boolean => {
    if (!counts) return false
    count++
    if (FAULTS_STICKY ? count < at : count !== at) return false
    if (FAULTS_ACTION === 'kill') process.kill(process.pid, 'SIGKILL')
    if (FAULTS_ACTION === 'short') return true
    if (FAULTS_ACTION === 'pause') {
      real.writeFileSync(`${FAULTS_LOG!}.paused`, '')
      // All of this thread stands still, as under a debugger.
      while (!real.existsSync(`${FAULTS_LOG!}.go`)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10)
      return false
    }
    if (FAULTS_STICKY && (FAULTS_ACTION === 'ENOSPC' || FAULTS_ACTION === 'EDQUOT') && ['unlink', 'rmdir', 'ftruncate', 'truncate', 'rename'].includes(syscall)) return false
    throw failure(FAULTS_ACTION, syscall, path)
  }

  fs.openSync = (path, flags = 'r', mode) => {
    const bits = typeof flags === 'number' ? flags : { r: 0, 'r+': 2, w: 0o1101, wx: 0o1301, a: 0o2101, ax: 0o2301 }[flags] ?? 0
    const full = below(path)
    if (full === undefined || (bits & (fs.constants.O_CREAT | fs.constants.O_TRUNC)) === 0) return real.openSync(path, flags, mode)
    // Half a write would not be one that the disk takes directly.
    if (typeof flags === 'number') flags &= ~fs.constants.O_DIRECT
    const before = real.lstatSync(full, { throwIfNoEntry: false })
    const [created, truncated] = [before === undefined, before !== undefined && before.size > 0 && (bits & fs.constants.O_TRUNC) !== 0]
    if (created || truncated) meet('open', path)
    const fd = real.openSync(path, flags, mode)
    if (created || truncated) note({ op: 'open', path: full, ino: real.fstatSync(fd).ino, created, truncated })
    return fd
  }
  const position = (fd: number, given: unknown): number => {
    if (typeof given === 'number') return given
    const info = real.readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1')
    const appends = (parseInt(/^flags:\s*(\d+)/m.exec(info)![1]!, 8) & fs.constants.O_APPEND) !== 0
    return appends ? real.fstatSync(fd).size : Number(/^pos:\s*(\d+)/m.exec(info)![1])
  }
  const write = (fd: number, bytes: Buffer, given: unknown): number => {
    const half = meet('write')
    const data = half ? bytes.subarray(0, Math.ceil(bytes.length / 2)) : bytes
    const at = position(fd, given)
    const done = real.writeSync(fd, data, 0, data.length, typeof given === 'number' ? given : null)
    note({ op: 'write', ino: real.fstatSync(fd).ino, at, data: data.subarray(0, done).toString('base64') })
    return done
  }
  const writeSync = fs.writeSync as (...args: unknown[]) => number
  fs.writeSync = ((fd: number, data: unknown, ...rest: unknown[]): number => {
    if (!watched(fd)) return writeSync(fd, data, ...rest)
    if (typeof data === 'string') return write(fd, Buffer.from(data), rest[0])
    const view = data as Uint8Array
    const [offset = 0, length = view.byteLength - Number(offset), given] = rest as [number?, number?, number?]
    return write(fd, Buffer.from(view.buffer, view.byteOffset + offset, length), given)
  }) as typeof fs.writeSync
  const writeLater = fs.write as (...args: unknown[]) => void
  fs.write = ((fd: number, data: unknown, ...rest: unknown[]): void => {
    if (!watched(fd)) return writeLater(fd, data, ...rest)
    const done = rest.pop() as (error: NodeJS.ErrnoException | null, count?: number) => void
    setImmediate(() => {
      let count: number
      try {
        count = (fs.writeSync as (...args: unknown[]) => number)(fd, data, ...rest)
      } catch (error) {
        return done(error as NodeJS.ErrnoException)
      }
      done(null, count)
    })
  }) as typeof fs.write
  fs.writevSync = (fd, views, given) => (watched(fd)
    ? write(fd, Buffer.concat(views.map(view => Buffer.from(view.buffer, view.byteOffset, view.byteLength))), given)
    : real.writevSync(fd, views, given))
  const sync = (fd: number, call: () => void): void => {
    if (!watched(fd)) return call()
    meet('fsync')
    call()
    note({ op: 'sync', ino: real.fstatSync(fd).ino })
  }
  fs.fsyncSync = fd => sync(fd, () => real.fsyncSync(fd))
  fs.fdatasyncSync = fd => sync(fd, () => real.fdatasyncSync(fd))
  const later = ((fd: number, done: (error: NodeJS.ErrnoException | null) => void) => {
    setImmediate(() => {
      try {
        sync(fd, () => real.fdatasyncSync(fd))
        done(null)
      } catch (error) {
        done(error as NodeJS.ErrnoException)
      }
    })
  }) as typeof fs.fdatasync
  fs.fdatasync = later
  fs.fsync = later
  // Here it takes its time as well, and other threads go on.
  const { execFile } = childProcess
  const execute = promisify(execFile)
  const executed = async (program: string, args: readonly string[]): Promise<unknown> => {
    const isSync = program === 'sync' && args[0] === '-f' && below(args[1]) !== undefined
    const calls = isSync && log >= 0 ? real.readFileSync(FAULTS_LOG!, 'latin1').split('\n').length - 1 : 0
    const result = await execute(program, args)
    if (isSync) note({ op: 'sync-all', calls })
    return result
  }
  childProcess.execFile = Object.assign((...args: Parameters<typeof execFile>) => execFile(...args), { [promisify.custom]: executed }) as unknown as typeof childProcess.execFile
  fs.ftruncateSync = (fd, length) => {
    if (!watched(fd)) return real.ftruncateSync(fd, length)
    meet('ftruncate')
    real.ftruncateSync(fd, length)
    note({ op: 'truncate', ino: real.fstatSync(fd).ino, length: length ?? 0 })
  }
  fs.truncateSync = (path, length) => {
    if (below(path) === undefined) return real.truncateSync(path, length)
    meet('truncate', path)
    real.truncateSync(path, length)
    note({ op: 'truncate', ino: real.statSync(path).ino, length: length ?? 0 })
  }
  for (const [name, op] of [['renameSync', 'rename'], ['linkSync', 'link']] as const) {
    fs[name] = (from, to) => {
      const [a, b] = [below(from), below(to)]
      if (a === undefined || b === undefined) return real[name](from, to)
      meet(op, from)
      real[name](from, to)
      note({ op, from: a, to: b })
    }
  }
  for (const [name, op] of [['unlinkSync', 'unlink'], ['rmdirSync', 'rmdir']] as const) {
    fs[name] = (path: fs.PathLike): void => {
      const full = below(path)
      if (full === undefined) return real[name](path)
      meet(op, path)
      real[name](path)
      note({ op, path: full })
    }
  }
  fs.mkdirSync = ((path: string, options?: unknown) => {
    const full = below(path)
    if (full === undefined) return real.mkdirSync(path, options as number)
    if (typeof options === 'object' && options !== null && 'recursive' in options) throw new Error(`mkdir of ${path} is more than one system call: use platform/files.ts`)
    if (!real.existsSync(full)) meet('mkdir', path)
    real.mkdirSync(path, options as number)
    note({ op: 'mkdir', path: full, ino: real.statSync(full).ino })
    return undefined
  }) as typeof fs.mkdirSync
  fs.mkdtempSync = ((prefix: string) => {
    if (below(prefix) === undefined) return real.mkdtempSync(prefix)
    meet('mkdir', prefix)
    const made = real.mkdtempSync(prefix)
    note({ op: 'mkdir', path: made, ino: real.statSync(made).ino })
    return made
  }) as typeof fs.mkdtempSync

  for (const name of ['writeFileSync', 'appendFileSync', 'rmSync', 'copyFileSync', 'cpSync', 'createWriteStream'] as const) {
    const original = real[name] as (...args: unknown[]) => unknown
    const guarded = (...args: unknown[]): unknown => {
      const target = name === 'copyFileSync' || name === 'cpSync' ? args[1] : args[0]
      if (typeof target === 'number' ? watched(target) : below(target) !== undefined) throw new Error(`${name} of ${String(target)} goes around platform/files.ts`)
      return original(...args)
    }
    ;(fs as unknown as Record<string, unknown>)[name] = guarded
  }
}
