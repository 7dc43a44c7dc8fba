/** Where plaintext is cut (chunker.md). The params are what archive metadata stores. */

export type ChunkerParams =
  | readonly ['buzhash', minExp: number, maxExp: number, maskBits: number, window: number]
  | readonly ['fixed', blockSize: number, headerSize: number]

/** A run of a file: bytes that were read, or a hole that was not (only fixed chunkers with --sparse see holes). */
export type Piece =
  | { readonly kind: 'data'; readonly bytes: Buffer }
  | { readonly kind: 'hole'; readonly size: number }

/** Fills `into` from the source's position as far as it can; a result of 0 is the end. */
export interface ByteSource {
  read(into: Uint8Array): Promise<number>
  /** Known for regular files: lets the chunker follow the hole map by SEEK_DATA/SEEK_HOLE. */
  readonly fd?: number
}

/**
 * Cuts one source into chunks, in order. `bytes` is memory of the chunker's own (a SharedArrayBuffer, so that worker
 * threads may read it) and is valid until `release` of that chunk was called; the chunker reads ahead only while it has
 * free memory, so a consumer that never releases stops it.
 */
export interface Chunker {
  readonly params: ChunkerParams
  split(source: ByteSource): AsyncIterable<CutChunk>
}
export interface CutChunk {
  readonly bytes: Buffer
  release(): void
}
