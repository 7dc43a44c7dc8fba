/**
 * What to load before it is asked for. Within a file: once two reads follow each other (the kernel's own read-ahead may swap
 * them, so within 1 MiB) the next chunk is wanted, and twice as many each time the reader enters a new one, up to twenty. Across
 * files: once files are read one after the other in archive order, as cp, tar and rsync do, the coming files'
 * chunks are wanted in batches of up to 1 MiB, and short files that are here are given to the kernel before they are opened: it then asks neither for the
 * content nor, because a read changes the time of access, for the attributes again.
 */
import type { ArchiveTree } from './archive-tree.js'

/** Reads of the kernel's read-ahead may come in another order within so many bytes. */
export const reorderBytes = 1024 * 1024
/** Of jobs of four one for each of two workers to hash side by side, one that waits for it, and one that is read meanwhile. */
export const maxWindow = 20
/** Files in a row before the ones behind them are loaded too. */
const filesInARow = 2
/** Rows between two files that still count as "next": directories, links and empty files lie between. */
const maxRowGap = 64
const batchBytes = 1024 * 1024
const maxBatchChunks = 256
/** Batches under way or waiting to be read, beside the one that is being read. */
const batchesAhead = 2
/** Of the cache a batch has one of so many parts at most. */
const cacheParts = 8
/** After so many files that the kernel was given with their opening it is left to ask for one, which shows whether it still has to. */
const handOutsPerAsking = 128

/** Per open file. */
export class SequentialRead {
  #nextOffset = -1
  #window = 0
  #lastChunk = -1
  #jumps = 0

  /** Notes a read; returns how many chunks beyond `lastChunk` are wanted. */
  note(offset: number, length: number, lastChunk: number): number {
    // The first read of all counts as sequential only at the start of the file.
    if (this.#nextOffset < 0 ? offset === 0 : Math.abs(offset - this.#nextOffset) <= reorderBytes) {
      if (this.#window === 0) this.#window = 1
      else if (lastChunk > this.#lastChunk && this.#lastChunk >= 0) this.#window = Math.min(maxWindow, this.#window * 2)
      this.#nextOffset = Math.max(this.#nextOffset, offset + length)
      this.#lastChunk = Math.max(this.#lastChunk, lastChunk)
    } else {
      this.#jumps++
      this.#window = 0
      this.#nextOffset = offset + length
      this.#lastChunk = lastChunk
    }
    return this.#window
  }

  /** True if reads jump about: what was decoded for a small read is worth keeping in the kernel. */
  get jumpsAbout(): boolean {
    return this.#window === 0 && this.#jumps > 1
  }
}

/** Per archive. */
export class FileSequence {
  #lastRow = -1
  #run = 0
  /** First row that was not looked at for prefetching. */
  #aheadRow = 0
  /** Where the batches begin that were asked for and not reached, without the first of them: reaching the first of these asks for another. */
  readonly #batches: number[] = []
  /** Up to here files were given to the kernel before they were opened, or passed over. */
  #givenRow = -1
  /** Files that may be handed to the kernel before one must have been asked for. */
  #handOuts = 0

  /**
   * Notes that the file of `row` is read from its start. Calls `want` with chunk rows of coming files; the caller drops those
   * it has. Nothing is wanted unless files are read in archive order, and of `cacheBytes` never so much that what was wanted first is driven out.
   */
  note(tree: ArchiveTree, row: number, cacheBytes: number, want: (chunk: number) => void): void {
    if (row === this.#lastRow) return
    const follows = this.#isNext(row)
    this.#run = follows ? this.#run + 1 : 0
    this.#lastRow = row
    if (!follows) {
      this.#aheadRow = 0
      this.#givenRow = row
      this.#batches.length = 0
    }
    if (this.#run < filesInARow) return
    while (this.#batches.length > 0 && this.#batches[0]! <= row) this.#batches.shift()
    while (this.#batches.length < batchesAhead) {
      const start = Math.max(row + 1, this.#aheadRow)
      if (start >= tree.rowCount) return
      this.#batches.push(start)
      this.#aheadRow = this.#batch(tree, start, Math.min(batchBytes, cacheBytes / cacheParts), want)
    }
  }

  /** The kernel asked for the content of a file: it has not got these files from an earlier reading. */
  asked(): void {
    this.#handOuts = handOutsPerAsking
  }

  /** True if the file of `row` will be read next, as far as can be told. */
  expects(row: number): boolean {
    return this.#run >= filesInARow && this.#isNext(row)
  }

  /** True, so many times, as long as the kernel seems not to have got what comes. */
  mayHandOut(): boolean {
    if (this.#handOuts === 0) return false
    this.#handOuts--
    return true
  }

  /**
   * Calls `give` with the rows behind `row` that were asked for, each once, which says whether to go on: `later` if this one's turn has not come yet.
   * `tells`: when it is opened, more should be asked for.
   */
  handOutAhead(row: number, give: (row: number, tells: boolean) => 'given' | 'none' | 'later'): void {
    this.#givenRow = Math.max(row, this.#givenRow)
    const tellFrom = this.#batches[0] ?? this.#aheadRow
    let told = this.#givenRow >= tellFrom
    for (let next = this.#givenRow + 1; next < this.#aheadRow; next++) {
      const tells = !told && next >= tellFrom
      const result = give(next, tells)
      if (result === 'later') return
      if (tells && result === 'given') told = true
      this.#givenRow = next
    }
  }

  #isNext(row: number): boolean {
    return row > this.#lastRow && row - Math.max(this.#lastRow, this.#givenRow) <= maxRowGap
  }

  /** Wants a batch of chunks of the rows from `start` and returns the row after the last. */
  #batch(tree: ArchiveTree, start: number, most: number, want: (chunk: number) => void): number {
    let bytes = 0, chunks = 0, row = start
    const end = Math.min(tree.rowCount, start + maxBatchChunks * 4)
    for (; row < end && bytes < most && chunks < maxBatchChunks; row++) {
      const count = tree.targetOf(row) === row ? tree.chunkCount(row) : 0
      const first = tree.chunkStart(row)
      for (let index = 0; index < count && bytes < most && chunks < maxBatchChunks; index++) {
        want(first + index)
        bytes += tree.chunkSize(first + index)
        chunks++
      }
    }
    return row
  }
}
