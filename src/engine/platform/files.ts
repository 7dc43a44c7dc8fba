/**
 * Every write, fsync, rename and removal that a repository's safety rests on goes through this object, so that a test can
 * count the calls, fail the n-th one, or lose what was not synced. Synchronous: the order of calls is the order on disk.
 */
import {
  closeSync, fdatasyncSync, fsyncSync, ftruncateSync, linkSync, lstatSync, mkdirSync, openSync, readdirSync, realpathSync, renameSync, rmdirSync, truncateSync,
  unlinkSync, writeSync, writevSync,
} from 'node:fs'
import { join } from 'node:path'
import { errnoOf } from '../errors.js'

export interface Files {
  open(path: string, flags: string, mode?: number): number
  close(fd: number): void
  /** All of it, at the descriptor's position or at `position`. */
  writeAll(fd: number, bytes: Uint8Array, position?: number): void
  /** All of them, one after the other, at the descriptor's position. */
  writeAllOf(fd: number, parts: readonly Uint8Array[]): void
  datasync(fd: number): void
  sync(fd: number): void
  truncate(path: string, length: number): void
  truncateOpen(fd: number, length: number): void
  rename(from: string, to: string): void
  link(from: string, to: string): void
  remove(path: string): void
  removeIfThere(path: string): void
  makeDirectory(path: string, mode?: number): void
  removeDirectory(path: string): void
}

const realFiles: Files = {
  open: (path, flags, mode) => openSync(path, flags, mode),
  close: fd => closeSync(fd),
  writeAll(fd, bytes, position) {
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done, position === undefined ? null : position + done)
  },
  writeAllOf(fd, parts) {
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
  datasync: fd => fdatasyncSync(fd),
  sync: fd => fsyncSync(fd),
  truncate: (path, length) => truncateSync(path, length),
  truncateOpen: (fd, length) => ftruncateSync(fd, length),
  rename: (from, to) => renameSync(from, to),
  link: (from, to) => linkSync(from, to),
  remove: path => unlinkSync(path),
  removeIfThere(path) {
    try {
      this.remove(path)
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error
    }
  },
  makeDirectory: (path, mode) => void mkdirSync(path, mode),
  removeDirectory: path => rmdirSync(path),
}

/** The layer in use. Replaced by tests only. */
export let files: Files = realFiles

/** For fault injection: returns the layer that was in use. */
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
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) removeTree(path)
    else files.removeIfThere(path)
  }
  files.removeDirectory(lstatSync(folder).isSymbolicLink() ? realpathSync(folder) : folder)
}
