/** Bytes of open files and of whatever else can be read, and whose error it was. */
import { open, read } from 'node:fs'
import type { ByteSource } from '../chunker/chunker.js'
import { adviceDontNeed, adviceSequential, native } from '../native.js'

/** Tells errors of the source from those of the repository: the two must never share a fate. */
export class GuardedSource implements ByteSource {
  readonly #inner: ByteSource
  readonly fd?: number
  problem: unknown

  constructor(inner: ByteSource) {
    this.#inner = inner
    if (inner.fd !== undefined) this.fd = inner.fd
  }

  async read(into: Uint8Array): Promise<number> {
    try {
      return await this.#inner.read(into)
    } catch (error) {
      this.problem = error
      throw error
    }
  }
}

/** Reads an open descriptor from where it stands; it stays the caller's. What was read is not kept in the host's memory. */
export class DescriptorSource implements ByteSource {
  readonly fd: number
  #unforgotten = 0
  #forgotten = 0
  #reading: Promise<unknown> | undefined
  #ended = false

  constructor(fd: number) {
    this.fd = fd
    native().advise(fd, 0, 0, adviceSequential)
  }

  /**
   * Nothing more is read, and nothing is being read when it resolves. Before that the descriptor must not be closed, if somebody may still be reading ahead: its
   * number could be another file's by then, whose position would move.
   */
  async end(): Promise<void> {
    this.#ended = true
    await this.#reading?.catch(() => undefined)
  }

  read(into: Uint8Array): Promise<number> {
    if (this.#ended) return Promise.reject(new Error('the source was given up'))
    const reading = new Promise<number>((resolve, reject) => read(this.fd, into, 0, into.length, null, (error, count) => {
      if (error) return reject(error)
      this.#unforgotten += count
      // A backup must not push out of memory what people work with (Borg does the same).
      if (count === 0 || this.#unforgotten >= forgetBytes) this.#forget()
      resolve(count)
    }))
    this.#reading = reading
    return reading
  }

  /** Up to where the descriptor stands: who reads may have moved it over holes. */
  #forget(): void {
    this.#unforgotten = 0
    let position: number
    try {
      position = native().seekHole(this.fd, 0, fromHere)
    } catch {
      // A pipe keeps nothing.
      return
    }
    native().advise(this.fd, this.#forgotten, position - this.#forgotten, adviceDontNeed)
    this.#forgotten = position
  }
}

const forgetBytes = 8 << 20
/** SEEK_CUR. */
const fromHere = 1

/** Following symlinks and blocking is what --read-special is for: the writer of a fifo may come later. */
export function openSpecial(path: Buffer): Promise<number> {
  return new Promise((resolve, reject) => open(path, 'r', (error, fd) => (error ? reject(error) : resolve(fd))))
}
