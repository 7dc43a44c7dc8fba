/** Memory that chunkers read into: a few shared blocks, used again when all chunks in them were released. */
import { native } from '../native.js'

export interface Block {
  readonly bytes: Buffer
  /** Chunks cut from it that are still in use, plus one while the chunker itself uses it. */
  users: number
}

export class Blocks {
  /** Bytes of a block. */
  readonly size: number
  /** How many are made at most; those that were made stay. */
  max: number
  readonly #free: Block[] = []
  #made = 0
  /** In their order; each release lets one go on. */
  readonly #waiting: (() => void)[] = []

  constructor(size: number, max: number) {
    this.size = size
    this.max = max
  }

  /** A block with one user. Waits while all are in use. */
  async take(): Promise<Block> {
    for (;;) {
      const block = this.#free.pop()
      if (block) {
        block.users = 1
        return block
      }
      if (this.#made < this.max) {
        this.#made++
        return { bytes: Buffer.from(new SharedArrayBuffer(this.size)), users: 1 }
      }
      await new Promise<void>(resolve => this.#waiting.push(resolve))
    }
  }

  release(block: Block): void {
    if (--block.users > 0) return
    this.#free.push(block)
    this.#waiting.shift()?.()
  }

  /** What nobody uses goes back to the host, and comes again when it is filled the next time. */
  rest(): void {
    for (const { bytes } of this.#free) native().giveBackPages(bytes)
  }

  /** A block with what the source gives, behind `start` bytes that `prepare` puts in. Nothing is held if the source fails. */
  async takeFilled(source: { read(into: Uint8Array): Promise<number> }, end: number, start = 0, prepare?: (bytes: Buffer) => void): Promise<{ block: Block; length: number }> {
    const block = await this.take()
    try {
      prepare?.(block.bytes)
      return { block, length: start + (await fill(source, block.bytes, start, end)) }
    } catch (error) {
      this.release(block)
      throw error
    }
  }
}

/** Reads until the range is full or the source ends; the number of bytes read. */
export async function fill(source: { read(into: Uint8Array): Promise<number> }, into: Buffer, start: number, end: number): Promise<number> {
  let at = start
  while (at < end) {
    const count = await source.read(into.subarray(at, end))
    if (count === 0) break
    at += count
  }
  return at - start
}
