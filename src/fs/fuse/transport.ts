/**
 * What a mounted filesystem is to those who start and end it, whichever transport serves it. There are two: `kernel`
 * speaks the FUSE protocol on the device itself, from a thread of its own (attach.ts in the main thread, KernelLoop in the
 * other); `fuse-native` drives a core in the main thread by way of libfuse 2 and loses what `limits` says.
 */
import { BorgError } from '../../engine/errors.js'
import type { KernelNotices } from '../core.js'

export interface MountOptions {
  /** Absolute path. */
  readonly mountpoint: string
  readonly readOnly: boolean
  /** The kernel checks modes and owners. Off: everybody may do what the core allows. */
  readonly defaultPermissions: boolean
  /** Who but the mounting user may look. `root` is kept by the transport, the kernel only knows `everybody`. */
  readonly access: 'owner' | 'root' | 'everybody'
  /** First column of the mount table. */
  readonly fsname: string
  /** Makes the type in the mount table `fuse.SUBTYPE`. */
  readonly subtype?: string | undefined
  /** Flags for the kernel as mount(8) writes them, such as `nodev`, `noexec`, `noatime`. */
  readonly flags: readonly string[]
}

export interface TransportCaps {
  /** Names that are not UTF-8. */
  readonly rawNames: boolean
  /** Times to the nanosecond, before 1970, and UTIME_OMIT. */
  readonly exactTimes: boolean
  /** KernelNotices reach the kernel; without, lifetimes of entries must be short. */
  readonly notices: boolean
  readonly renameFlags: boolean
  readonly sparseFiles: boolean
  /** Largest READ or WRITE, bytes. */
  readonly maxTransfer: number
}

/** How a session ended: 'unmounted' also when somebody else did it, 'failed' when the transport broke (logged). */
export type SessionEnd = 'unmounted' | 'failed'

/** A transport that serves from this thread's event loop. */
export interface Session {
  readonly caps: TransportCaps
  readonly notices: KernelNotices
  readonly closed: Promise<SessionEnd>
  /** BorgError if it is in use and not `lazy`. Once it resolves nothing new can be opened. */
  unmount(options?: { lazy?: boolean }): Promise<void>
}

/** For transports that cannot tell the kernel anything. */
export const noNotices: KernelNotices = {
  invalidateInode() {}, invalidateAttributes() {}, invalidatePages: (_ino, _offset, _length, done) => done(), invalidateEntry() {}, store() {},
}

export const defaultMountOptions: Omit<MountOptions, 'mountpoint'> = {
  readOnly: false,
  defaultPermissions: true,
  access: 'owner',
  fsname: 'borgfs',
  flags: ['nosuid', 'nodev'],
}

/** Flags that mount(8) knows, each with the one it overrides. */
const opposites = new Map([
  ['suid', 'nosuid'], ['dev', 'nodev'], ['exec', 'noexec'], ['async', 'sync'], ['atime', 'noatime'], ['diratime', 'nodiratime'],
  ['relatime', 'strictatime'],
].flatMap(([flag, other]) => [[flag, other], [other, flag]] as [string, string][]))
opposites.set('dirsync', '')

/** What fstab lines contain for mount(8) itself, and libfuse's tuning that does not apply here. */
const ignored = new Set(['defaults', 'auto', 'noauto', 'user', 'nouser', 'users', 'owner', 'group', 'nofail', '_netdev', 'debug',
  'big_writes', 'large_read', 'kernel_cache', 'auto_cache', 'auto_unmount', 'use_ino', 'readdir_ino', 'hard_remove', 'nonempty',
  'splice_read', 'splice_write', 'splice_move', 'async_read', 'default_permissions'])
const ignoredWithValue = new Set(['max_read', 'max_readahead', 'max_write', 'entry_timeout', 'attr_timeout', 'negative_timeout',
  'ac_attr_timeout', 'max_background', 'congestion_threshold', 'max_idle_threads'])

/**
 * One word of `-o` that the mount's own options (mount.md §1) do not know, applied. Undefined if FUSE does not know it
 * either: the caller says so with Borg's sentence.
 */
export function withFuseOption(options: MountOptions, word: string): MountOptions | undefined {
  const equals = word.indexOf('=')
  const name = equals < 0 ? word : word.slice(0, equals)
  const value = equals < 0 ? undefined : word.slice(equals + 1)
  if (value !== undefined) {
    // A comma cannot arrive here, so nothing can be smuggled into the option string.
    if (name === 'fsname') return { ...options, fsname: value }
    if (name === 'subtype') return { ...options, subtype: value }
    return ignoredWithValue.has(name) || name.startsWith('x-') ? options : undefined
  }
  switch (name) {
    case 'allow_other': return { ...options, access: 'everybody' }
    case 'allow_root': return { ...options, access: 'root' }
    case 'default_permissions': return { ...options, defaultPermissions: true }
    case 'ro': return { ...options, readOnly: true }
    // Only says what is the default; what may be written is decided by the core.
    case 'rw': return options
  }
  const opposite = opposites.get(name)
  if (opposite !== undefined) return { ...options, flags: [...options.flags.filter((flag) => flag !== opposite && flag !== name), name] }
  return ignored.has(name) || name.startsWith('x-') ? options : undefined
}

/** Borg's sentence for every mountpoint that will not do (mount.md §2). */
export function unusableMountpoint(mountpoint: string): BorgError {
  return new BorgError('Error', `${mountpoint}: Mountpoint must be a writable directory`)
}
