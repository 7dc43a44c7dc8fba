/** The fixed-size chunker, which can follow the hole map of sparse files (chunker.md §5). */
import { native } from '../native.js'
import { type Block, Blocks } from './blocks.js'
import type { ByteSource, Chunker, ChunkerParams, CutChunk } from './chunker.js'

const seekData = 3, seekHole = 4
const blockCount = 6

interface Range {
  readonly length: number
  readonly hole: boolean
}

export class FixedChunker implements Chunker {
  readonly params: ChunkerParams
  readonly singleChunkBytes: number
  readonly #blockSize: number
  readonly #headerSize: number
  readonly #sparse: boolean
  readonly #blocks: Blocks
  #zeros: Buffer | undefined

  constructor(params: Extract<ChunkerParams, readonly ['fixed', ...unknown[]]>, options: { sparse?: boolean } = {}) {
    this.params = params
    this.#blockSize = params[1]
    this.#headerSize = Math.max(0, params[2])
    this.#sparse = options.sparse ?? false
    // With a header, or holes, even a small file may be cut.
    this.singleChunkBytes = this.#headerSize > 0 || this.#sparse ? 0 : this.#blockSize
    this.#blocks = new Blocks(this.#blockSize, blockCount)
  }

  rest(): void {
    this.#blocks.rest()
  }

  async *split(source: ByteSource): AsyncIterable<CutChunk> {
    if (this.#headerSize > 0 && !(yield* this.#readRange(source, this.#headerSize))) return
    if (this.#sparse && source.fd !== undefined) {
      const ranges = holeMap(source.fd, this.#headerSize)
      if (ranges) {
        for (const range of ranges) {
          if (range.hole) {
            yield* this.#hole(range.length)
            await skip(source, range.length)
          } else if (!(yield* this.#readRange(source, range.length))) return
        }
        return
      }
    }
    yield* this.#readRange(source, Infinity)
  }

  /** Cuts `length` bytes from the range's own beginning. False when the source ended before. */
  async *#readRange(source: ByteSource, length: number): AsyncGenerator<CutChunk, boolean> {
    for (let left = length; left > 0; ) {
      const wanted = Math.min(left, this.#blockSize)
      const { block, length: count } = await this.#blocks.takeFilled(source, wanted)
      if (count > 0) yield chunk(this.#blocks, block, count)
      else this.#blocks.release(block)
      if (count < wanted) return false
      left -= count
    }
    return true
  }

  *#hole(length: number): Generator<CutChunk> {
    this.#zeros ??= Buffer.from(new SharedArrayBuffer(this.#blockSize))
    for (let left = length; left > 0; left -= this.#blockSize) {
      yield { bytes: this.#zeros.subarray(0, Math.min(left, this.#blockSize)), release() {} }
    }
  }
}

function chunk(blocks: Blocks, block: Block, length: number): CutChunk {
  let released = false
  return {
    bytes: block.bytes.subarray(0, length),
    release() {
      if (released) return
      released = true
      blocks.release(block)
    },
  }
}

/** Data and holes from `start` to the end of the file, undefined where the file cannot tell. Leaves the position at `start`. */
function holeMap(fd: number, start: number): Range[] | undefined {
  const ranges: Range[] = []
  try {
    const { seekHole: seek } = native()
    const end = seek(fd, 0, 2)
    for (let at = start; at < end; ) {
      const data = seek(fd, at, seekData)
      const dataStart = data < 0 ? end : data
      if (dataStart > at) ranges.push({ length: dataStart - at, hole: true })
      if (dataStart >= end) break
      const hole = seek(fd, dataStart, seekHole)
      // Cut off meanwhile: reading finds its end.
      at = hole < 0 ? end : hole
      ranges.push({ length: at - dataStart, hole: false })
    }
    seek(fd, start, 0)
    return ranges
  } catch {
    return undefined
  }
}

/** Moves past a hole; sources that cannot seek read it. */
async function skip(source: ByteSource, length: number): Promise<void> {
  if (source.fd !== undefined) {
    native().seekHole(source.fd, length, 1)
    return
  }
  const scratch = Buffer.alloc(Math.min(length, 1 << 20))
  for (let left = length; left > 0; ) {
    const count = await source.read(scratch.subarray(0, Math.min(left, scratch.length)))
    if (count === 0) return
    left -= count
  }
}
