/**
 * The contents of staged files: one file each in the staging folder, made when the first byte is written. With a cipher they lie encrypted
 * (crypto/file-cipher.ts), as `ID.x`; what an older version left lies plain as `ID`, and stays so until it is saved.
 *
 * A sealed file's length on disk tells its size. What is written to the middle of a block of 16 bytes is read, changed and written again; a
 * block lies within one page, which a killed process has written wholly or not at all.
 */
import { constants, fstatSync, readdirSync, readSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type FileCipher, fileBlockBytes, sealedFileLength, sealedFileSize } from '../../engine/crypto/file-cipher.js'
import { errnoOf } from '../../engine/errors.js'
import { native } from '../../engine/native.js'
import { files } from '../../engine/platform/files.js'
import { blocksAround, readSealed, scratchBytes } from '../../engine/store/sealed-file.js'

export const keepSize = 1, punchHole = 2, zeroRange = 16
export const seekData = 3, seekHole = 4
const sealedSuffix = '.x'
const diskBlockBytes = 4096
/** Nodes have no such ids; who puts such a file there gets it removed. */
const maxId = 2 ** 31
const zeros = Buffer.alloc(fileBlockBytes)

export class Spool {
  readonly #folder: string
  readonly #cipher: FileCipher | undefined
  /** Of an older version. */
  readonly #plain = new Set<number>()
  /** Open descriptors by id; closed with the last handle of the staged file. */
  readonly #open = new Map<number, number>()
  /** Ids of the files that are there. */
  readonly #there = new Set<number>()
  /** Opened by the first who wants its names durable. */
  #folderFd: number | undefined
  /** How often a name may have come to the folder, and how many of these times are on disk. */
  #namesMade = 0
  #namesDurable = 0

  constructor(stagingFolder: string, cipher?: FileCipher) {
    this.#folder = join(stagingFolder, 'spool')
    this.#cipher = cipher
    files.ensureDirectory(this.#folder, 0o700)
    for (const name of this.#names()) {
      this.#there.add(idOf(name))
      if (cipher && !name.endsWith(sealedSuffix)) this.#plain.add(Number(name))
    }
  }

  /** Whatever else lies there, as NFS leaves of removed files that somebody has open, is no staged file. */
  #names(): string[] {
    return readdirSync(this.#folder).filter(name => /^\d+(\.x)?$/.test(name))
  }

  /** Of the files that are there, whosever they are: one of a file that the journal forgot is removed, but may be back after a failure of the machine, when it would be taken for that of another file with its id. */
  get highestId(): number {
    let highest = 0
    for (const id of this.#there) if (id < maxId) highest = Math.max(highest, id)
    return highest
  }

  path(id: number): string {
    return `${this.#folder}/${id}${this.isSealed(id) ? sealedSuffix : ''}`
  }

  isSealed(id: number): boolean {
    return this.#cipher !== undefined && !this.#plain.has(id)
  }

  /** Descriptor for reading and writing; undefined if nothing was ever written and `create` is not set. */
  descriptor(id: number, create: boolean): number | undefined {
    let fd = this.#open.get(id)
    if (fd !== undefined) return fd
    if (!create && !this.#there.has(id)) return undefined
    try {
      fd = files.open(this.path(id), constants.O_RDWR | (create ? constants.O_CREAT : 0), 0o600)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT' && !create) return undefined
      throw error
    }
    if (create) this.#namesMade++
    this.#open.set(id, fd)
    this.#there.add(id)
    return fd
  }

  /**
   * The folder, to be synced before a file in it counts as durable, and what to call when it was: the file's own sync does not say that
   * its name stays. Undefined if no name came since.
   */
  unsyncedNames(): { readonly fd: number; synced(): void } | undefined {
    const made = this.#namesMade
    if (made === this.#namesDurable) return undefined
    this.#folderFd ??= files.open(this.#folder, 'r')
    return { fd: this.#folderFd, synced: () => void (this.#namesDurable = Math.max(this.#namesDurable, made)) }
  }

  /** `size`: of the file. Returns how many bytes it has there. */
  read(id: number, into: Buffer, offset: number, size: number): number {
    const fd = this.descriptor(id, false)
    const wanted = Math.min(into.length, size - offset)
    if (fd === undefined || wanted <= 0) return 0
    if (this.isSealed(id)) {
      readSealed(fd, this.#cipher!, id, into.subarray(0, wanted), offset)
      return wanted
    }
    let done = 0
    while (done < wanted) {
      const count = readSync(fd, into, done, wanted - done, offset + done)
      if (count === 0) break
      done += count
    }
    return done
  }

  /** `size`: of the file before. If it fails, some of it may have been written: see stat. */
  write(id: number, data: Uint8Array, offset: number, size: number): void {
    const fd = this.descriptor(id, true)!
    if (!this.isSealed(id)) return files.writeAll(fd, data, offset)
    if (data.length === 0) return
    const after = Math.max(size, offset + data.length)
    try {
      this.#writeSealed(fd, id, data, offset, size, after)
    } catch (error) {
      // Not the zeros that tell the size, if they came to be the end of it.
      if (sealedFileSize(fstatSync(fd).size) > after) this.truncate(id, after)
      throw error
    }
  }

  #writeSealed(fd: number, id: number, data: Uint8Array, offset: number, size: number, after: number): void {
    const cipher = this.#cipher!
    const { start, end } = blocksAround(offset, data.length)
    if (start > size) this.#clearSlack(fd, id, size)
    const head = start < offset && start < size ? Buffer.alloc(fileBlockBytes) : undefined
    if (head) readSealed(fd, cipher, id, head, start)
    const last = end - fileBlockBytes
    const tail = offset + data.length < end && last < size ? Buffer.alloc(fileBlockBytes) : undefined
    if (tail) readSealed(fd, cipher, id, tail, last)
    // The size is told in the same write as the last block: what a killed process wrote of it is a beginning.
    const told = end >= after ? sealedFileLength(after) - end : 0
    const blocks = scratchBytes(end - start + told)
    const plain = blocks.subarray(0, end - start)
    if (plain.length === data.length) cipher.seal(id, start, data, plain)
    else {
      plain.fill(0, 0, offset - start)
      plain.fill(0, offset - start + data.length)
      // What was behind the end is not, whatever stands there.
      if (tail) plain.set(tail.subarray(0, Math.min(fileBlockBytes, size - last)), last - start)
      if (head) plain.set(head.subarray(0, Math.min(offset - start, size - start)))
      plain.set(data, offset - start)
      cipher.seal(id, start, plain, plain)
    }
    blocks.fill(0, end - start)
    files.writeAll(fd, blocks, start)
    if (after > size && sealedFileLength(size) > sealedFileLength(after)) files.truncateOpen(fd, sealedFileLength(after))
  }

  /** Makes the rest of the last block zeros, before it becomes part of the file. */
  #clearSlack(fd: number, id: number, size: number): void {
    const inLast = size % fileBlockBytes
    if (inLast === 0) return
    const block = Buffer.alloc(fileBlockBytes)
    readSealed(fd, this.#cipher!, id, block, size - inLast)
    block.fill(0, inLast)
    this.#cipher!.seal(id, size - inLast, block, block)
    files.writeAll(fd, block, size - inLast)
  }

  truncate(id: number, size: number): void {
    const fd = this.descriptor(id, size > 0)
    if (fd === undefined) return
    if (!this.isSealed(id)) return files.truncateOpen(fd, size)
    const before = sealedFileSize(fstatSync(fd).size)
    this.#clearSlack(fd, id, Math.min(size, before))
    const { end } = blocksAround(0, size)
    // The zeros that tell the size must not be what was cut off. Whoever is killed in between finds the size that it had.
    if (size % fileBlockBytes > 0 && end < blocksAround(0, before).end) files.writeAll(fd, zeros, end)
    files.truncateOpen(fd, sealedFileLength(size))
  }

  /** fallocate(2). `size`: of the file before. */
  allocate(id: number, mode: number, offset: number, length: number, size: number): void {
    const fd = this.descriptor(id, true)!
    if (!this.isSealed(id)) return native().fallocate(fd, mode, offset, length)
    const end = offset + length
    // Ranges that move would have to be sealed anew.
    if (mode & ~(keepSize | punchHole | zeroRange)) throw Object.assign(new Error('EOPNOTSUPP'), { code: 'EOPNOTSUPP' })
    if (mode & (punchHole | zeroRange)) {
      const inner = { start: Math.ceil(offset / fileBlockBytes) * fileBlockBytes, end: end >= size ? Math.ceil(end / fileBlockBytes) * fileBlockBytes : end - (end % fileBlockBytes) }
      const clear = (from: number, to: number): void => {
        if (from < Math.min(to, size)) this.write(id, zeros.subarray(0, Math.min(to, size) - from), from, size)
      }
      clear(offset, Math.min(inner.start, end))
      if (inner.end >= inner.start) clear(Math.max(offset, inner.end), end)
      if (inner.start < inner.end) native().fallocate(fd, mode | keepSize, inner.start, inner.end - inner.start)
    } else native().fallocate(fd, mode | keepSize, offset, length + fileBlockBytes)
    if (!(mode & keepSize) && end > size) this.truncate(id, end)
  }

  /** Gives back the room of a stretch that nothing is read from any more. */
  punch(id: number, from: number, to: number): void {
    const fd = this.descriptor(id, false)
    const start = Math.ceil(from / diskBlockBytes) * diskBlockBytes, end = Math.floor(to / diskBlockBytes) * diskBlockBytes
    if (fd !== undefined && start < end) native().fallocate(fd, punchHole | keepSize, start, end - start)
  }

  /** lseek(2) for SEEK_DATA and SEEK_HOLE: -1 where there is nothing more. `size`: of the file. */
  seek(id: number, from: number, kind: number, size: number): number {
    const fd = from < size ? this.descriptor(id, false) : undefined
    if (fd === undefined) return -1
    const found = native().seekHole(fd, from, kind)
    return kind === seekHole ? Math.min(found, size) : found >= size ? -1 : found
  }

  /** Bytes of [from, to) that take no room. `size`: of the file. */
  emptyBytes(id: number, from: number, to: number, size: number): number {
    let empty = 0
    for (let at = from; at < to; ) {
      const data = this.seek(id, at, seekData, size)
      const next = data < 0 ? to : Math.min(data, to)
      empty += next - at
      at = next < to ? this.seek(id, next, seekHole, size) : to
    }
    return empty
  }

  /** Size and blocks of 512 bytes on disk; zero if nothing was written. */
  stat(id: number): { size: number; blocks: number } {
    if (!this.#there.has(id)) return { size: 0, blocks: 0 }
    try {
      const fd = this.#open.get(id)
      const { size, blocks } = fd === undefined ? statSync(this.path(id)) : fstatSync(fd)
      return { size: this.isSealed(id) ? sealedFileSize(size) : size, blocks }
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return { size: 0, blocks: 0 }
      throw error
    }
  }

  exists(id: number): boolean {
    return this.#there.has(id)
  }

  close(id: number): void {
    const fd = this.#open.get(id)
    if (fd === undefined) return
    this.#open.delete(id)
    files.close(fd)
  }

  remove(id: number): void {
    this.close(id)
    if (this.#there.delete(id)) {
      // Whoever syncs the file next, made anew, must not find the old one after a crash.
      this.#namesMade++
      files.removeIfThere(this.path(id))
    }
    this.#plain.delete(id)
  }

  /** Removes the files of nobody. */
  removeOrphans(known: (id: number) => boolean): void {
    for (const name of this.#names()) {
      const id = idOf(name)
      if (known(id)) continue
      files.remove(join(this.#folder, name))
      // The next sync has it gone for good.
      this.#namesMade++
      this.#there.delete(id)
      this.#plain.delete(id)
    }
  }

  closeAll(): void {
    if (this.#folderFd !== undefined) files.close(this.#folderFd)
    this.#folderFd = undefined
    for (const id of [...this.#open.keys()]) this.close(id)
  }
}

function idOf(name: string): number {
  return Number(name.endsWith(sealedSuffix) ? name.slice(0, -sealedSuffix.length) : name)
}
