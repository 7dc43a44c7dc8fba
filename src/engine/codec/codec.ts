/** Compression of chunks (compression.md). A payload starts with its own header, so readers choose by its first bytes. */

/** One method, with its level fixed. Pure functions of bytes, usable in any thread. */
export interface Codec {
  /** Borg's name: none, lz4, zstd, zlib, lzma, auto, obfuscate. */
  readonly name: string
  /** The option text that makes the same codec again, in another thread. */
  readonly spec: string
  /**
   * The complete payload including header. `data` itself, returned, stands for method none without a copy: what is to be stored is
   * 00 00 and then data (see completePayload). That is also the fall-back for data that does not shrink (compression.md §2).
   */
  compress(data: Uint8Array): Uint8Array | Promise<Uint8Array>
  /** Longest payload that compress can make of `size` plaintext bytes: nonces are set aside by it. */
  maxPayload(size: number): number
}

/** What a decoder is told. */
export interface DecodeLimits {
  /** Exact plaintext length, when a chunk list tells it. */
  readonly size?: number
  /** No more plaintext than this is made of one chunk, whatever it claims. */
  readonly maxSize?: number
  /**
   * Gives memory of just so many bytes for the plaintext; asked again, it may take back what it gave before. Never asked for more than is allowed. What is
   * given may be used (lz4, zstd) or not. Without it, plaintexts have memory of their own.
   */
  readonly memory?: (size: number) => Buffer
}

/** Borg's own bound for one chunk is 2^27 bytes; larger claims are bombs. */
export const defaultMaxPlaintext = 1 << 27
