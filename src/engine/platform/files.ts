/**
 * Every call that changes a repository, a cache, a key, the security folder or the staging folder. Only here are such calls of
 * node:fs imported (scripts/lint-imports.mjs holds that), and only single system calls: so tests can count them, fail or kill
 * at the n-th, and lose what was not synced (test/helpers/faults.ts hooks below this file, at node:fs; nothing of it is in
 * here; replaceFiles is for tests within one process). Synchronous: the order of calls is the order on disk.
 */
import {
  closeSync, fdatasync, fsync, fdatasyncSync, fsyncSync, ftruncateSync, futimesSync, linkSync, lstatSync, mkdirSync, mkdtempSync, openSync, readdirSync, realpathSync, renameSync,
  rmdirSync, truncateSync, unlinkSync, write, writeSync, writevSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { errnoOf } from '../errors.js'

/** Node takes a place past 2^53, or one that is no number, for where the descriptor stands, and writes over what is there. */
function certain(end: number): void {
  if (!Number.isSafeInteger(end)) throw new RangeError(`${end} is no place in a file`)
}

const realFiles = {
  open(path: string, flags: string | number, mode?: number): number {
    return openSync(path, flags, mode)
  },
  close(fd: number): void {
    closeSync(fd)
  },
  /** All of it, at the descriptor's position or at `position`. */
  writeAll(fd: number, bytes: Uint8Array, position?: number): void {
    if (position !== undefined) certain(position + bytes.length)
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done, position === undefined ? null : position + done)
  },
  /** On libuv's pool: other work goes on meanwhile. The memory is not to be touched before the end. */
  async writeAllLater(fd: number, bytes: Uint8Array, position: number): Promise<void> {
    certain(position + bytes.length)
    for (let done = 0; done < bytes.length; ) {
      done += await new Promise<number>((resolve, reject) => write(fd, bytes, done, bytes.length - done, position + done, (error, count) => (error ? reject(error) : resolve(count))))
    }
  },
  /** All of them, one after the other, at the descriptor's position. */
  writeAllOf(fd: number, parts: readonly Uint8Array[]): void {
    // IOV_MAX is 1024.
    for (let start = 0; start < parts.length; start += 1000) {
      const some = parts.slice(start, start + 1000)
      let total = 0
      for (const part of some) total += part.length
      let done = writevSync(fd, some)
      if (done === total) continue
      for (const part of some) {
        if (done < part.length) this.writeAll(fd, part.subarray(done))
        done = Math.max(0, done - part.length)
      }
    }
  },
  datasync(fd: number): void {
    fdatasyncSync(fd)
  },
  /** On libuv's pool: the disk may take its time, and other work goes on. */
  datasyncLater(fd: number): Promise<void> {
    return new Promise((resolve, reject) => fdatasync(fd, error => (error ? reject(error) : resolve())))
  },
  sync(fd: number): void {
    fsyncSync(fd)
  },
  /** Sets the times of an open file to now: it was used. */
  touch(fd: number): void {
    const now = Date.now() / 1000
    futimesSync(fd, now, now)
  },
  truncate(path: string, length: number): void {
    truncateSync(path, length)
  },
  truncateOpen(fd: number, length: number): void {
    ftruncateSync(fd, length)
  },
  rename(from: string, to: string): void {
    renameSync(from, to)
  },
  link(from: string, to: string): void {
    linkSync(from, to)
  },
  remove(path: string): void {
    unlinkSync(path)
  },
  removeIfThere(path: string): void {
    try {
      this.remove(path)
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error
    }
  },
  makeDirectory(path: string, mode?: number): void {
    mkdirSync(path, mode)
  },
  /** mkdtemp(3): `prefix` and six characters more. Private. */
  makeUniqueDirectory(prefix: string): string {
    return mkdtempSync(prefix)
  },
  removeDirectory(path: string): void {
    rmdirSync(path)
  },
  /** A file or a directory with all below it; nothing there is no error. */
  removeTree(path: string): void {
    try {
      if (lstatSync(path).isDirectory()) {
        for (const name of readdirSync(path)) this.removeTree(join(path, name))
        this.removeDirectory(path)
      } else this.remove(path)
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error
    }
  },
  /** Overwrites a file where it stands: for what a crash may cut off. Not durable. */
  write(path: string, content: Uint8Array | string, options: { readonly mode?: number; readonly append?: boolean } = {}): void {
    const fd = this.open(path, options.append ? 'a' : 'w', options.mode)
    try {
      this.writeAll(fd, typeof content === 'string' ? Buffer.from(content) : content)
    } finally {
      this.close(fd)
    }
  },
  /** Makes a directory and those above it that are missing, each durable in its parent: what is saved below must not vanish with it. */
  ensureDirectory(path: string, mode?: number): void {
    try {
      this.makeDirectory(path, mode)
    } catch (error) {
      if (errnoOf(error) === 'EEXIST') return
      const parent = dirname(path)
      if (errnoOf(error) !== 'ENOENT' || parent === path) throw error
      this.ensureDirectory(parent, mode)
      this.ensureDirectory(path, mode)
      return
    }
    this.syncDirectory(dirname(path))
  },
  /** Makes names in a directory durable. File systems that cannot are left in peace, as Borg does. */
  syncDirectory(path: string): void {
    const fd = this.open(path, 'r')
    try {
      this.sync(fd)
    } catch (error) {
      if (errnoOf(error) !== 'EINVAL' && errnoOf(error) !== 'ENOTSUP') throw error
    } finally {
      this.close(fd)
    }
  },
  async syncDirectoryLater(path: string): Promise<void> {
    const fd = this.open(path, 'r')
    try {
      await new Promise<void>((resolve, reject) => fsync(fd, error => (error ? reject(error) : resolve())))
    } catch (error) {
      if (errnoOf(error) !== 'EINVAL' && errnoOf(error) !== 'ENOTSUP') throw error
    } finally {
      this.close(fd)
    }
  },
}

export type Files = typeof realFiles

/** The layer in use. Replaced by tests only. */
export let files: Files = realFiles

/** Returns the layer that was in use. */
export function replaceFiles(layer: Files): Files {
  const before = files
  files = layer
  return before
}

/**
 * Removes a directory with all that is in it; symlinks are removed, never followed. What is gone already is no error. The
 * directory itself may be a symlink: then what it points to goes, and the link stays.
 */
export function removeTree(folder: string): void {
  for (const name of readdirSync(folder)) files.removeTree(join(folder, name))
  files.removeDirectory(lstatSync(folder).isSymbolicLink() ? realpathSync(folder) : folder)
}
