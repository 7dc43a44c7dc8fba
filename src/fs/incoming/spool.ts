/** The contents of staged files: one file each in the staging folder, made when the first byte is written. */
import { constants, fstatSync, readdirSync, readSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { errnoOf } from '../../engine/errors.js'
import { files } from '../../engine/platform/files.js'

export class Spool {
  readonly #folder: string
  /** Open descriptors by id; closed with the last handle of the staged file. */
  readonly #open = new Map<number, number>()

  constructor(stagingFolder: string) {
    this.#folder = join(stagingFolder, 'spool')
    files.ensureDirectory(this.#folder, 0o700)
  }

  path(id: number): string {
    return join(this.#folder, String(id))
  }

  /** Descriptor for reading and writing; undefined if nothing was ever written and `create` is not set. */
  descriptor(id: number, create: boolean): number | undefined {
    let fd = this.#open.get(id)
    if (fd !== undefined) return fd
    try {
      fd = files.open(this.path(id), constants.O_RDWR | (create ? constants.O_CREAT : 0), 0o600)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT' && !create) return undefined
      throw error
    }
    this.#open.set(id, fd)
    return fd
  }

  read(id: number, into: Buffer, offset: number): number {
    const fd = this.descriptor(id, false)
    if (fd === undefined) return 0
    let done = 0
    while (done < into.length) {
      const count = readSync(fd, into, done, into.length - done, offset + done)
      if (count === 0) break
      done += count
    }
    return done
  }

  write(id: number, data: Buffer, offset: number): void {
    const fd = this.descriptor(id, true)!
    files.writeAll(fd, data, offset)
  }

  truncate(id: number, size: number): void {
    const fd = this.descriptor(id, size > 0)
    if (fd !== undefined) files.truncateOpen(fd, size)
  }

  /** Size and change time in the spool; zero if nothing was written. */
  stat(id: number): { size: number; mtimeNs: bigint; blocks: number } {
    try {
      const fd = this.#open.get(id)
      const { size, mtimeNs, blocks } = fd === undefined ? statSync(this.path(id), { bigint: true }) : fstatSync(fd, { bigint: true })
      return { size: Number(size), mtimeNs, blocks: Number(blocks) }
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return { size: 0, mtimeNs: 0n, blocks: 0 }
      throw error
    }
  }

  exists(id: number): boolean {
    return this.#open.has(id) || statSync(this.path(id), { throwIfNoEntry: false }) !== undefined
  }

  close(id: number): void {
    const fd = this.#open.get(id)
    if (fd === undefined) return
    this.#open.delete(id)
    files.close(fd)
  }

  remove(id: number): void {
    this.close(id)
    files.removeIfThere(this.path(id))
  }

  /** Removes the files of nobody. */
  removeOrphans(known: (id: number) => boolean): void {
    for (const name of readdirSync(this.#folder)) if (!known(Number(name))) files.remove(join(this.#folder, name))
  }

  closeAll(): void {
    for (const id of [...this.#open.keys()]) this.close(id)
  }
}
