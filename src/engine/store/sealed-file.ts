/** Reading of files that lie on disk as crypto/file-cipher.ts says. */
import { read, readSync } from 'node:fs'
import type { KeyObject } from 'node:crypto'
import type { ByteSource } from '../chunker/chunker.js'
import { fileBlockBytes, FileCipher } from '../crypto/file-cipher.js'
import { ioError } from '../errors.js'

/** What is needed to read one: clonable. */
export interface FileSeal {
  readonly key: KeyObject
  /** Number of the file under that key. */
  readonly file: number
  /** Its size; what lies on disk is longer. */
  readonly size: number
}

/** Whole blocks around [offset, offset + length). */
export function blocksAround(offset: number, length: number): { readonly start: number; readonly end: number } {
  return { start: offset - (offset % fileBlockBytes), end: Math.ceil((offset + length) / fileBlockBytes) * fileBlockBytes }
}

let scratch = Buffer.alloc(0)

/** Memory of this thread, until the next call of whatever uses it. */
export function scratchBytes(length: number): Buffer {
  if (scratch.length < length) scratch = Buffer.allocUnsafeSlow(Math.max(1 << 20, length))
  return scratch.subarray(0, length)
}

/** Plaintext of [offset, offset + into.length); what is not on disk is zeros. */
export function readSealed(fd: number, cipher: FileCipher, file: number, into: Uint8Array, offset: number): void {
  const { start, end } = blocksAround(offset, into.length)
  const blocks = scratchBytes(end - start)
  let done = 0
  while (done < blocks.length) {
    const count = readSync(fd, blocks, done, blocks.length - done, start + done)
    if (count === 0) break
    done += count
  }
  blocks.fill(0, done)
  if (end - start === into.length) return cipher.open(file, start, blocks, into)
  cipher.open(file, start, blocks, blocks)
  into.set(blocks.subarray(offset - start, offset - start + into.length))
}

/** The ciphers of a thread, by key: there are a few keys, and very many files. */
export class FileCiphers {
  #last: { readonly key: KeyObject; readonly cipher: FileCipher } | undefined

  of(key: KeyObject): FileCipher {
    // A key that came with a message is another object each time.
    if (!this.#last?.key.equals(key)) this.#last = { key, cipher: new FileCipher(key) }
    return this.#last!.cipher
  }
}

/**
 * Content of a file from `start` to `end` as a source, from an open descriptor, which stays the caller's. `seal`: it lies encrypted.
 * EIO if the file is shorter.
 */
export class RangeSource implements ByteSource {
  readonly #fd: number
  readonly #end: number
  readonly #seal: { readonly cipher: FileCipher; readonly file: number } | undefined
  #position: number

  constructor(fd: number, start: number, end: number, seal?: { readonly cipher: FileCipher; readonly file: number }) {
    this.#fd = fd
    this.#position = start
    this.#end = end
    this.#seal = seal
  }

  async read(into: Uint8Array): Promise<number> {
    const left = this.#end - this.#position
    const wanted = Math.min(into.length, left)
    if (wanted <= 0) return 0
    const odd = this.#seal ? this.#position % fileBlockBytes : 0
    const length = odd > 0 ? await this.#readOddBlock(into.subarray(0, Math.min(wanted, fileBlockBytes - odd))) : await this.#readBlocks(into, wanted)
    this.#position += length
    return length
  }

  /** From the middle of a block to its end, or less. */
  async #readOddBlock(into: Uint8Array): Promise<number> {
    const block = Buffer.alloc(fileBlockBytes)
    const inBlock = this.#position % fileBlockBytes
    if (await readAll(this.#fd, block, this.#position - inBlock) < inBlock + into.length) throw tooShort()
    this.#seal!.cipher.open(this.#seal!.file, this.#position - inBlock, block, block)
    into.set(block.subarray(inBlock, inBlock + into.length))
    return into.length
  }

  /** From the beginning of a block on, decrypted where it is wanted: whole blocks, but for the last one. */
  async #readBlocks(into: Uint8Array, wanted: number): Promise<number> {
    const whole = this.#seal ? wanted - (wanted % fileBlockBytes) : wanted
    if (whole === 0) return this.#readOddBlock(into.subarray(0, wanted))
    const blocks = into.subarray(0, whole)
    if (await readAll(this.#fd, blocks, this.#position) < whole) throw tooShort()
    this.#seal?.cipher.open(this.#seal.file, this.#position, blocks, blocks)
    return whole
  }
}

function tooShort(): Error {
  return ioError('the file is shorter than it was', 'read')
}

async function readAll(fd: number, into: Uint8Array, position: number): Promise<number> {
  for (let done = 0; ; ) {
    const count = await new Promise<number>((resolve, reject) => read(fd, into, done, into.length - done, position + done, (error, bytes) => (error ? reject(error) : resolve(bytes))))
    done += count
    if (count === 0 || done === into.length) return done
  }
}
