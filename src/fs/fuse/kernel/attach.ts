/**
 * Gets the device attached to a mountpoint: as root by mount(2), or by mount(8) with an inherited descriptor, as anybody else by fusermount3,
 * which is set-uid root, opens the device itself and sends the descriptor back through a socket. And gets it off again.
 * The kernel asks nothing before the descriptor is read, but whoever touches the mountpoint from now on waits for that.
 */
import { spawn } from 'node:child_process'
import { accessSync, closeSync, constants, openSync, realpathSync, statSync, writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { BorgError, errnoOf } from '../../../engine/errors.js'
import { type Log, silentLog } from '../../../engine/log.js'
import { native } from '../../../engine/native.js'
import { type MountOptions, unusableMountpoint } from '../transport.js'
import { isBorgMount, mountAt } from './mount-table.js'
import { maxTransfer } from './protocol.js'

export interface Attachment {
  /** The FUSE device. */
  readonly fd: number
  /** Resolved: without symlinks. */
  readonly mountpoint: string
  /** Afterwards the loop ends with 'unmounted'. BorgError if it is in use and not `lazy`. */
  unmount(options?: { lazy?: boolean }): Promise<void>
  /**
   * Ends the connection; only when no thread uses `fd` any more (the loop's and that of its notices: when the FUSE worker has exited).
   * A mount that is still there is dead then, and is taken off. Never rejects.
   */
  close(): Promise<void>
}

const device = '/dev/fuse'
/** Worth it only for root, who may say so: 5 to 15 % on sequential reads. */
const readAheadKib = 1024

/**
 * Says whether a mountpoint will do, with Borg's sentence if not, and removes what a killed server left there. Returns the
 * resolved path.
 */
export async function prepareMountpoint(mountpoint: string, log: Log = silentLog): Promise<string> {
  const absolute = resolve(mountpoint)
  // Looked up before it is touched: a mount that hangs would hang us.
  if (hasBorgMount(absolute)) await removeDead(absolute, mountpoint, log)
  let path: string
  try {
    path = realpathSync(absolute)
    if (path !== absolute && hasBorgMount(path)) await removeDead(path, mountpoint, log)
    if (!statSync(path).isDirectory()) throw unusableMountpoint(mountpoint)
    accessSync(path, constants.R_OK | constants.W_OK | constants.X_OK)
  } catch (error) {
    if (error instanceof BorgError) throw error
    if (errnoOf(error) === 'ENOTCONN') {
      throw new BorgError('Error', `${mountpoint}: a file system whose program has ended is still mounted here. Remove it with "fusermount3 -uz ${mountpoint}".`)
    }
    throw unusableMountpoint(mountpoint)
  }
  return path
}

function hasBorgMount(path: string): boolean {
  const found = mountAt(path)
  return found !== undefined && isBorgMount(found)
}

/** Takes a dead mount of ours off; a living one is refused. */
async function removeDead(path: string, shown: string, log: Log): Promise<void> {
  if (!isDead(path)) throw unusableMountpoint(shown)
  await detach(path, { lazy: true })
  log.write('warning', 'fuse', `Removed the dead mount that an earlier process left at ${shown}.`)
}

/** A mount whose server has ended. A server that lives and does not answer is waited for. */
function isDead(path: string): boolean {
  try {
    statSync(path)
    return false
  } catch (error) {
    return errnoOf(error) === 'ENOTCONN'
  }
}

/** Mounts. The mountpoint is checked by prepareMountpoint first. */
export async function attach(options: MountOptions): Promise<Attachment> {
  const fd = process.geteuid?.() === 0 ? await attachAsRoot(options) : await attachByFusermount(options)
  widenReadAhead(options.mountpoint)
  let open = true
  return {
    fd,
    mountpoint: options.mountpoint,
    unmount: (how) => detach(options.mountpoint, how),
    async close() {
      if (!open) return
      open = false
      closeSync(fd)
      // If that fails the mount stays dead, and whoever mounts here next removes it (prepareMountpoint).
      if (isDead(options.mountpoint)) await detach(options.mountpoint, { lazy: true }).catch(() => undefined)
    },
  }
}

/** Unmounts whatever is mounted at `path`, served or dead. BorgError with the program's own words. */
export async function detach(path: string, { lazy = false }: { lazy?: boolean } = {}): Promise<void> {
  const ran = await firstFound(unmountCommands(path, lazy))
  if (ran.code === 0 || !mountAt(path)) return
  if (/busy/i.test(ran.stderr)) {
    throw new BorgError('Error', `${path}: the mount is in use. Leave it with every program and shell (see "fuser -vm ${path}") and try again.`)
  }
  throw new BorgError('Error', `${path}: cannot unmount: ${ran.stderr.trim() || `exit code ${ran.code}`}`)
}

/** What to try, in this order, as far as installed. For root, umount: it also knows mounts that others made. */
function unmountCommands(path: string, lazy: boolean): [program: string, args: string[]][] {
  const umount: [string, string[]] = ['umount', [...withoutHelper(path), ...(lazy ? ['-l'] : []), '--', path]]
  if (process.geteuid?.() === 0) return [umount]
  const args = ['-u', ...(lazy ? ['-z'] : []), '--', path]
  return [['fusermount3', args], ['fusermount', args], umount]
}

/** For umount(8): the helper that it would find for a type of its own is ours. */
export function withoutHelper(path: string): string[] {
  return mountAt(path)?.type.includes('.') ? ['-i'] : []
}

/** The option string of both programs; `extra` is what only one of them needs. */
export function mountOptionString(options: MountOptions, extra: readonly string[]): string {
  return [...extra, options.readOnly ? 'ro' : 'rw', ...options.flags, ...ownOptions(options)].join(',')
}

/** What the kernel's FUSE itself knows. */
function ownOptions(options: MountOptions): string[] {
  return [
    ...(options.defaultPermissions ? ['default_permissions'] : []),
    ...(options.access === 'owner' ? [] : ['allow_other']),
    `max_read=${maxTransfer}`,
  ]
}

/** Flags of mount(2) by the words of mount(8); 0: what is so anyway. */
const flagBits: Readonly<Record<string, number>> = {
  nosuid: 2, nodev: 4, noexec: 8, sync: 16, dirsync: 128, noatime: 1024, nodiratime: 2048, relatime: 1 << 21, strictatime: 1 << 24,
  suid: 0, dev: 0, exec: 0, async: 0, atime: 0, diratime: 0,
}

/** Without a program, whose start takes longer than all else here. False: whatever was wrong, mount(8) shall try, and say it in its words. */
function mountHere(options: MountOptions, type: string, data: readonly string[]): boolean {
  let flags = options.readOnly ? 1 : 0
  for (const word of options.flags) {
    const bits = flagBits[word]
    if (bits === undefined) return false
    flags |= bits
  }
  try {
    native().mountAt(Buffer.from(options.fsname), Buffer.from(options.mountpoint), Buffer.from(type), flags, Buffer.from(data.join(',')))
    return true
  } catch {
    return false
  }
}

async function attachAsRoot(options: MountOptions): Promise<number> {
  const fd = openDevice()
  try {
    const rest = ['rootmode=40000', `user_id=${process.getuid!()}`, `group_id=${process.getgid!()}`]
    const type = options.subtype ? `fuse.${options.subtype}` : 'fuse'
    if (mountHere(options, type, [`fd=${fd}`, ...rest, ...ownOptions(options)])) return fd
    const own = ['fd=3', ...rest]
    // -i: no helper program, which would be ours again for fuse.borgfs. -n is not needed, there is no mtab to write.
    const args = ['-i', '-t', type, '-o', mountOptionString(options, own), '--', options.fsname, options.mountpoint]
    const ran = await run('mount', args, fd)
    if (ran.code === 0) return fd
    throw new BorgError('Error', `Mounting at ${options.mountpoint} failed: ${lastLine(ran.stderr) || `mount ended with ${ran.code}`}`)
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

async function attachByFusermount(options: MountOptions): Promise<number> {
  const own = [`fsname=${options.fsname}`, ...(options.subtype ? [`subtype=${options.subtype}`] : [])]
  const args = ['-o', mountOptionString(options, own), '--', options.mountpoint]
  const [ours, theirs] = native().socketPair()
  let theirsOpen = true
  try {
    const ran = await firstFound([['fusermount3', args], ['fusermount', args]], theirs)
    closeSync(theirs)
    theirsOpen = false
    // The descriptor waits in the socket; the sender has ended already.
    const fd = ran.code === 0 ? native().receiveDescriptor(ours) : -1
    if (fd >= 0) return fd
    throw new BorgError('Error', `Mounting at ${options.mountpoint} failed: ${lastLine(ran.stderr) || `fusermount3 ended with ${ran.code}`}${adviceFor(ran.stderr)}`)
  } finally {
    closeSync(ours)
    if (theirsOpen) closeSync(theirs)
  }
}

function adviceFor(stderr: string): string {
  if (/user_allow_other/.test(stderr)) return '. An administrator can add the line "user_allow_other" to /etc/fuse.conf.'
  if (/\/dev\/fuse/.test(stderr)) return `. ${deviceAdvice}`
  return ''
}

const deviceAdvice = 'Load the kernel module with "modprobe fuse"; a container must be started with "--device /dev/fuse --cap-add SYS_ADMIN".'

function openDevice(): number {
  try {
    return openSync(device, 'r+')
  } catch (error) {
    const reason = errnoOf(error)
    if (reason === 'ENOENT' || reason === 'ENODEV' || reason === 'ENXIO') {
      throw new BorgError('Error', `borg mount not available: ${device} is missing. ${deviceAdvice}`, 2, { cause: error })
    }
    throw new BorgError('Error', `borg mount not available: ${device} cannot be opened (${reason}). ${deviceAdvice}`, 2, { cause: error })
  }
}

/** The kernel takes the smaller of this and what INIT says. Without the right to, nothing is lost but some speed. */
function widenReadAhead(mountpoint: string): void {
  const found = mountAt(mountpoint)?.device
  if (!found) return
  try {
    writeFileSync(`/sys/class/bdi/${found}/read_ahead_kb`, String(readAheadKib), { flag: 'r+' })
  } catch {
    // Not root, or /sys is read-only: the default stays.
  }
}

interface Ran {
  readonly code: number
  readonly stderr: string
}

/** Runs the first of the programs that is installed. */
async function firstFound(commands: readonly [string, string[]][], inherited?: number): Promise<Ran> {
  for (const [program, args] of commands) {
    try {
      return await run(program, args, inherited)
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error
    }
  }
  throw new BorgError('Error', `borg mount not available: ${commands[0]![0]} is not installed. Install the package "fuse3".`)
}

/** `inherited` becomes descriptor 3 of the program, which fusermount3 is told of. Rejects if it cannot be started. */
function run(program: string, args: readonly string[], inherited?: number): Promise<Ran> {
  const { promise, resolve: done, reject } = deferred<Ran>()
  const child = spawn(program, args, {
    stdio: ['ignore', 'ignore', 'pipe', ...(inherited === undefined ? [] : [inherited])],
    cwd: '/',
    // Nothing else of ours: the environment may hold passphrases, and the words must not depend on the language.
    env: { PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin:/usr/bin:/bin`, LC_ALL: 'C', ...(inherited === undefined ? {} : { _FUSE_COMMFD: '3' }) },
  })
  let stderr = ''
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  child.once('error', reject)
  child.once('close', (code, signal) => done({ code: code ?? 128, stderr: signal ? `${stderr}\nended by ${signal}` : stderr }))
  return promise
}

function deferred<T>(): { promise: Promise<T>; resolve: (value: T) => void; reject: (error: Error) => void } {
  let resolve!: (value: T) => void
  let reject!: (error: Error) => void
  const promise = new Promise<T>((ok, failed) => {
    resolve = ok
    reject = failed
  })
  return { promise, resolve, reject }
}

function lastLine(text: string): string {
  return text.trim().split('\n').findLast((line) => line !== '') ?? ''
}
