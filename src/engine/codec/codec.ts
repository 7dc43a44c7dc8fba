/** Compression of chunks (compression.md). A payload starts with its own header, so readers choose by its first bytes. */

/** One method, with its level fixed. Pure functions of bytes, usable in any thread. */
export interface Codec {
  /** Borg's name: none, lz4, zstd, zlib, lzma, auto, obfuscate. */
  readonly name: string
  /** The complete payload including header; falls back to none as compression.md §2 says. */
  compress(data: Uint8Array): Buffer | Promise<Buffer>
  /** Longest payload that compress can make of `size` plaintext bytes: nonces are set aside by it. */
  maxPayload(size: number): number
}
// decompress(payload: Uint8Array, sizeHint?: number): Buffer | Promise<Buffer>   lives in codec/decompress.ts
// parseCompression(text: string): Codec                                        lives in codec/spec.ts
