/**
 * The second transport: the npm package fuse-native (libfuse 2.9). It must live in the main thread and loses what `limits` says;
 * what can be repaired from outside is: mtime in utimens, ERANGE of xattrs, writes larger than 4 KiB, handlers that
 * never answer. Once unmounted its threads linger: the process must end by process.exit.
 */
import { BorgError, messageOf } from '../../../engine/errors.js'
import type { Log } from '../../../engine/log.js'
import type { FsCore } from '../../core.js'
import { Errno } from '../../types.js'
import { detach } from '../kernel/attach.js'
import { mountAt } from '../kernel/mount-table.js'
import { type MountOptions, noNotices, type Session, type SessionEnd, type TransportCaps } from '../transport.js'
import { type NativeHandlers, nativeHandlers } from './operations.js'

export const fuseNativeCaps: TransportCaps = {
  rawNames: false, exactTimes: false, notices: false, renameFlags: false, sparseFiles: false, maxTransfer: 128 << 10,
}

/** What a mount by this transport cannot do; each a sentence for the person who mounts. */
export function limits(): string[] {
  return [
    'File names that are not UTF-8 are shown with a replacement character and cannot be created.',
    'Times are exact to the millisecond, times before 1970 are shown as 1970, and "touch -a" and "touch -m" change nothing.',
    'Inode numbers have 32 bits: files of different archives can rarely look like hard links of each other.',
    'Files have no holes, and renaming cannot exchange two names or refuse to replace one.',
    'All files that are created belong to the user who mounted.',
    'Changes by other clients of the repository appear with a second of delay.',
  ]
}

/** op_utimens of fuse-native 2.2.6, and where its request record holds both times (ms, 64-bit platforms). */
const utimensOpcode = 12, atimeOffset = 104, mtimeOffset = 112
const pollMs = 500

type FuseClass = typeof import('fuse-native').default

/** Mounts and serves from this thread's event loop. The mountpoint is checked by prepareMountpoint first. */
export async function mountFuseNative(core: FsCore, options: MountOptions, log: Log): Promise<Session> {
  const Fuse = await load()
  const handlers = nativeHandlers(core, log)
  const fuse = new Fuse(options.mountpoint, handlers.operations, { timeout: false })
  repairTimes(fuse, handlers)
  repairXattrs(fuse, handlers)
  fuse._fuseOptions = () => `-o${optionString(options)}`
  await new Promise<void>((resolve, reject) => fuse.mount((error) => (error ? reject(mountFailed(options, error)) : resolve())))
  return {
    caps: fuseNativeCaps,
    notices: noNotices,
    closed: closing(options.mountpoint),
    unmount: (how) => detach(options.mountpoint, how),
  }
}

async function load(): Promise<FuseClass> {
  try {
    return (await import('fuse-native')).default
  } catch (error) {
    if (messageOf(error).includes('libfuse')) {
      throw new BorgError('Error', 'fuse-native needs libfuse 2, which is not installed (Debian: apt-get install libfuse2). The built-in FUSE transport needs none.', 2, { cause: error })
    }
    throw new BorgError('Error', `The package fuse-native is not installed (${messageOf(error).split('\n', 1)[0]}). Run "npm install fuse-native" in the folder of borgfs, or use the built-in FUSE transport.`, 2, { cause: error })
  }
}

/** libfuse 2's words for the same mount. use_ino: hard links keep one number. big_writes: else 4 KiB each. */
export function optionString(options: MountOptions): string {
  return [
    `fsname=${options.fsname}`,
    ...(options.subtype ? [`subtype=${options.subtype}`] : []),
    options.readOnly ? 'ro' : 'rw',
    ...options.flags,
    ...(options.defaultPermissions ? ['default_permissions'] : []),
    ...(options.access === 'everybody' ? ['allow_other'] : options.access === 'root' ? ['allow_root'] : []),
    'use_ino', 'big_writes', 'nonempty', 'entry_timeout=1', 'attr_timeout=1', `max_read=${fuseNativeCaps.maxTransfer}`,
  ].join(',')
}

/** Its C code passes the access time twice; the record of the request still has both. */
function repairTimes(fuse: InstanceType<FuseClass>, handlers: NativeHandlers): void {
  const original = fuse._handlers[utimensOpcode]!
  fuse._handlers[utimensOpcode] = (record, opcode, ...values) => {
    const atimeMs = record.length >= mtimeOffset + 8 ? record.readBigInt64LE(atimeOffset) : undefined
    const passedMs = BigInt(values[1] as number) + BigInt(values[2] as number) * 4294967296n
    // Another layout of the record (another version, 32 bits) is noticed by the access time, which is passed rightly.
    if (atimeMs !== undefined && BigInt.asUintN(64, atimeMs) === passedMs) {
      handlers.setTimes({ atimeNs: atimeMs * 1_000_000n, mtimeNs: record.readBigInt64LE(mtimeOffset) * 1_000_000n })
    }
    try {
      return original(record, opcode, ...values)
    } finally {
      handlers.setTimes(undefined)
    }
  }
}

function repairXattrs(fuse: InstanceType<FuseClass>, handlers: NativeHandlers): void {
  fuse._op_getxattr = (signal, path, name, into) => {
    handlers.getxattr(path, name).then((value) => signal(fitted(value, into), into.buffer), (error: unknown) => signal(handlers.failure(error), into.buffer))
  }
  fuse._op_listxattr = (signal, path, into) => {
    handlers.listxattr(path).then(
      (names) => signal(fitted(Buffer.concat(names.flatMap((name) => [name, nul])), into), into.buffer),
      (error: unknown) => signal(handlers.failure(error), into.buffer))
  }
}

const nul = Buffer.alloc(1)

/** A buffer of no length asks how much room is needed. */
function fitted(value: Uint8Array, into: Buffer): number {
  if (into.length === 0) return value.length
  if (value.length > into.length) return -Errno.ERANGE.number
  into.set(value)
  return value.length
}

function mountFailed(options: MountOptions, error: Error): BorgError {
  if (error.message === 'Mountpoint in use') return new BorgError('Error', `${options.mountpoint}: something is mounted here already.`)
  return new BorgError('Error', `Mounting at ${options.mountpoint} failed: ${error.message}. fuse-native needs /dev/fuse and, for users other than root, the program fusermount.`, 2, { cause: error })
}

/** The binding tells nobody that its loop has ended, so the mount table is looked at. */
function closing(mountpoint: string): Promise<SessionEnd> {
  return new Promise((resolve) => {
    const timer = setInterval(() => {
      if (mountAt(mountpoint)) return
      clearInterval(timer)
      resolve('unmounted')
    }, pollMs)
  })
}
