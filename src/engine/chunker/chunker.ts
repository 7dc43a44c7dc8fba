/** Where plaintext is cut (chunker.md). The params are what archive metadata stores. */

export type ChunkerParams =
  | readonly ['buzhash', minExp: number, maxExp: number, maskBits: number, window: number]
  | readonly ['fixed', blockSize: number, headerSize: number]

/** Fills `into` from the source's position as far as it can; a result of 0 is the end. */
export interface ByteSource {
  read(into: Uint8Array): Promise<number>
  /** Known for regular files: lets the fixed chunker follow the hole map by SEEK_DATA/SEEK_HOLE. */
  readonly fd?: number
}

/** One chunk in memory of the chunker, which other threads may read. It is valid until release(). */
export interface CutChunk {
  readonly bytes: Buffer
  release(): void
}

/**
 * Cuts one source into chunks, in order. It reads ahead only while it has free memory, so that a consumer that never releases
 * stops it. Several sources may be cut at once: some of them then wait for others, but none for a source whose consumer waits for it.
 */
export interface Chunker {
  readonly params: ChunkerParams
  /** A source of at most so many bytes is one chunk. */
  readonly singleChunkBytes: number
  split(source: ByteSource): AsyncIterable<CutChunk>
  /** Gives the memory back to the host that no source uses now. The next one faults it in again. */
  rest(): void
}
