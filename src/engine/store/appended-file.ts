/**
 * A file that is appended to by this process alone. What is long is written past the page cache where the host can do that (O_DIRECT): it
 * is not read again soon, pages for it would take the place of what is, and a later sync finds it on the disk already. Only the last block,
 * which is not full yet, is written as usual, so that whatever was appended survives the death of the process.
 */
import { constants, readSync } from 'node:fs'
import { errnoOf, ioError } from '../errors.js'
import { native } from '../native.js'
import { files } from '../platform/files.js'

/** Disks want whole blocks at their places, from memory at such an address. */
const blockBytes = 4096
/** Less is not worth the way to another thread. */
const minDirectBytes = 256 << 10
const memoryBytes = 2 << 20

/** Of this thread; one file uses it at a time. */
let memory: Uint8Array | undefined

export class AppendedFile {
  readonly path: string
  readonly #fd: number
  /** null: the host cannot do it. */
  #direct: number | null | undefined

  /** `fd`: of the file, for reading and writing; stays the caller's. */
  constructor(path: string, fd: number) {
    this.path = path
    this.#fd = fd
  }

  /**
   * All of it at `end`, where the file ends. If it fails, some of it may have been written. One call after the other, of all these files, and
   * nobody changes the bytes meanwhile.
   */
  async append(bytes: Uint8Array, end: number): Promise<void> {
    if (bytes.length >= minDirectBytes) this.#direct ??= this.#open()
    if (bytes.length < minDirectBytes || this.#direct === undefined || this.#direct === null) return files.writeAll(this.#fd, bytes, end)
    memory ??= native().alignedMemory(memoryBytes)
    const begin = end - (end % blockBytes), stop = end + bytes.length, lastBlock = stop - (stop % blockBytes)
    // What the first block holds already is written again with it.
    let filled = end - begin
    if (filled > 0 && readSync(this.#fd, memory, 0, filled, begin) < filled) throw ioError('a file became shorter', 'read')
    for (let at = begin, used = 0; at < lastBlock; filled = 0) {
      const length = Math.min(memoryBytes, lastBlock - at)
      native().copyMemory(bytes.subarray(used, (used += length - filled)), memory.subarray(filled))
      try {
        await files.writeAllLater(this.#direct, memory.subarray(0, length), at)
      } catch (error) {
        if (errnoOf(error) !== 'EINVAL') throw error
        // It took the flag, but has other wishes.
        this.close()
        this.#direct = null
        return files.writeAll(this.#fd, bytes, end)
      }
      at += length
    }
    files.writeAll(this.#fd, bytes.subarray(bytes.length - (stop - lastBlock)), lastBlock)
  }

  #open(): number | null {
    try {
      return files.open(this.path, constants.O_WRONLY | constants.O_DIRECT)
    } catch (error) {
      if (errnoOf(error) !== 'EINVAL') throw error
      return null
    }
  }

  /** Nothing more is appended. */
  close(): void {
    if (this.#direct !== undefined && this.#direct !== null) files.close(this.#direct)
    this.#direct = undefined
  }
}
