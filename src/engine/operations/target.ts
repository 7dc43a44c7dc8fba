/**
 * The directory that `extract` writes below. Every object is reached through descriptors that the kernel resolves beneath the
 * target without following any symlink, so that no archive, however hostile, can write outside of it (archive.md §5).
 */
import { closeSync, constants, openSync } from 'node:fs'
import { errnoOf } from '../errors.js'
import { native } from '../native.js'
import { type FileStat, statAt, typeDirectory, typeFile, typeMask } from '../platform/attributes.js'

const empty = Buffer.alloc(0)
const slash = 0x2f
const pathOnly = 0o10000000

/** Paths that could only mean harm: absolute, with a `..` component, with a NUL byte, or empty. */
export function isHostilePath(path: Buffer): boolean {
  if (path.length === 0 || path[0] === slash || path.includes(0)) return true
  return path.toString('latin1').split('/').includes('..')
}

export class Target {
  readonly root: number
  #parentPath = '\0'
  #parentFd = -1

  constructor(folder: string) {
    this.root = openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY)
  }

  close(): void {
    this.forgetParent()
    closeSync(this.root)
  }

  /** The cached parent may be about to be removed. */
  forgetParent(): void {
    if (this.#parentFd >= 0) closeSync(this.#parentFd)
    this.#parentFd = -1
    this.#parentPath = '\0'
  }

  /** Descriptor of the directory that holds `path`, made with its parents where missing, and the last component. */
  at(path: Buffer): { parent: number; name: Buffer } {
    const end = path.lastIndexOf(slash)
    if (end < 0) return { parent: this.root, name: path }
    const parentPath = path.toString('latin1', 0, end)
    if (parentPath !== this.#parentPath) {
      const fd = this.#openDirectory(path.subarray(0, end))
      this.forgetParent()
      this.#parentFd = fd
      this.#parentPath = parentPath
    }
    return { parent: this.#parentFd, name: path.subarray(end + 1) }
  }

  #openDirectory(path: Buffer): number {
    for (;;) {
      try {
        return native().openBeneath(this.root, path, pathOnly | constants.O_DIRECTORY | constants.O_NOFOLLOW, 0)
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') throw error
      }
      this.#makeParents(path)
    }
  }

  #makeParents(path: Buffer): void {
    for (let end = path.indexOf(slash); ; end = path.indexOf(slash, end + 1)) {
      const part = end < 0 ? path : path.subarray(0, end)
      const cut = part.lastIndexOf(slash)
      const parent = native().openBeneath(this.root, part.subarray(0, Math.max(0, cut)), pathOnly | constants.O_DIRECTORY | constants.O_NOFOLLOW, 0)
      try {
        native().mkdirat(parent, part.subarray(cut + 1), 0o777)
      } catch (error) {
        if (errnoOf(error) !== 'EEXIST') throw error
      } finally {
        closeSync(parent)
      }
      if (end < 0) return
    }
  }

  /** What is at `path`, undefined if nothing. */
  stat(path: Buffer): FileStat | undefined {
    const { parent, name } = this.at(path)
    try {
      return statAt(native().fstatat(parent, name), 0)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      throw error
    }
  }

  /** Makes room for something that is no directory; EISDIR or ENOTEMPTY if a directory with contents is there. */
  clear(path: Buffer): void {
    const found = this.stat(path)
    if (!found) return
    const { parent, name } = this.at(path)
    const isDirectory = (found.mode & typeMask) === typeDirectory
    try {
      native().unlinkat(parent, name, isDirectory)
    } catch (error) {
      if (errnoOf(error) === 'ENOTEMPTY' || errnoOf(error) === 'EEXIST') throw Object.assign(new Error('Is a directory'), { code: 'EISDIR', errno: 21 })
      throw error
    }
  }

  /**
   * A new, empty file that only we can read yet. A file that is there and cannot be removed, as in a directory that may not be changed or where
   * something is mounted, is overwritten (Borg).
   */
  createFile(path: Buffer): number {
    const { parent, name } = this.at(path)
    const create = (): number => native().openBeneath(parent, name, constants.O_CREAT | constants.O_EXCL | constants.O_RDWR | constants.O_NOFOLLOW, 0o600)
    try {
      return create()
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error
    }
    try {
      this.clear(path)
    } catch (error) {
      if (errnoOf(error) === 'EISDIR') throw error
      return this.#emptied(parent, name)
    }
    return create()
  }

  #emptied(parent: number, name: Buffer): number {
    if ((statAt(native().fstatat(parent, name), 0).mode & typeMask) !== typeFile) throw Object.assign(new Error('File exists'), { code: 'EEXIST', errno: 17 })
    return native().openBeneath(parent, name, constants.O_WRONLY | constants.O_TRUNC | constants.O_NOFOLLOW | constants.O_NONBLOCK, 0)
  }

  /** An existing directory is reused, anything else in its place removed. */
  makeDirectory(path: Buffer): void {
    const { parent, name } = this.at(path)
    try {
      native().mkdirat(parent, name, 0o700)
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error
      if ((this.stat(path)!.mode & typeMask) === typeDirectory) return
      this.clear(path)
      native().mkdirat(parent, name, 0o700)
    }
  }

  openDirectory(path: Buffer): number {
    return native().openBeneath(this.root, path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW, 0)
  }

  symlink(path: Buffer, target: Buffer): void {
    this.clear(path)
    const { parent, name } = this.at(path)
    native().symlinkat(target, parent, name)
  }

  makeNode(path: Buffer, mode: number, rdev: number): void {
    this.clear(path)
    const { parent, name } = this.at(path)
    native().mknodat(parent, name, mode, rdev)
  }

  link(existing: Buffer, path: Buffer): void {
    this.clear(path)
    const end = existing.lastIndexOf(slash)
    const from = native().openBeneath(this.root, existing.subarray(0, Math.max(0, end)), pathOnly | constants.O_DIRECTORY | constants.O_NOFOLLOW, 0)
    try {
      const { parent, name } = this.at(path)
      native().linkat(from, existing.subarray(end + 1), parent, name)
    } finally {
      closeSync(from)
    }
  }
}

/** For calls on a descriptor itself. */
export const itself = empty
