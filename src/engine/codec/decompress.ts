/** Payload -> plaintext, the method detected from the first two bytes (compression.md §1). */
import { type DecodeLimits, defaultMaxPlaintext } from './codec.js'
import { DecompressionError } from './errors.js'
import { decompressLz4 } from './lz4.js'
import { decompressLzma } from './lzma.js'
import { decompressZlib, isZlib } from './zlib.js'
import { decompressZstd } from './zstd.js'

/** How deep obfuscation may nest. */
const maxNesting = 8

/**
 * The plaintext; a view of the payload for method none. At once for all methods but lzma. DecompressionError for unknown
 * methods, damage, more plaintext than allowed, and a plaintext of another length than `limits.size`.
 */
export function decompress(payload: Uint8Array, limits: DecodeLimits = {}): Buffer | Promise<Buffer> {
  // A chunk list may tell any size, and memory is set aside by it.
  const maxSize = limits.maxSize ?? defaultMaxPlaintext
  if (limits.size !== undefined && limits.size > maxSize) throw new DecompressionError(`a chunk of ${limits.size} bytes is too large`)
  return decode(payload, limits, 0)
}

/** Borg's name of the method that made a payload; of an obfuscated one `obfuscate`, whatever is inside. undefined for none that is known. */
export function methodOf(payload: Uint8Array): string | undefined {
  const [first, second] = [payload[0] ?? -1, payload[1] ?? -1]
  if (second === 0 && first >= 0 && first <= 4) return ['none', 'lz4', 'lzma', 'zstd', 'obfuscate'][first]
  return isZlib(first, second) ? 'zlib' : undefined
}

function decode(payload: Uint8Array, limits: DecodeLimits, nesting: number): Buffer | Promise<Buffer> {
  if (payload.length < 2) throw new DecompressionError('the payload is too short')
  const [first, second] = [payload[0]!, payload[1]!]
  if (second === 0) {
    switch (first) {
      case 0: {
        const plain = Buffer.from(payload.buffer, payload.byteOffset + 2, payload.length - 2)
        if (plain.length > (limits.maxSize ?? defaultMaxPlaintext)) throw new DecompressionError(`${plain.length} bytes are too many`)
        return checked(plain, limits)
      }
      case 1: return checked(decompressLz4(payload, limits), limits)
      case 2: return decompressLzma(payload, limits).then(plain => checked(plain, limits))
      case 3: return checked(decompressZstd(payload, limits), limits)
      case 4: {
        if (payload.length < 6 || nesting >= maxNesting) throw new DecompressionError('the obfuscated payload is malformed')
        const length = Buffer.from(payload.buffer, payload.byteOffset, payload.length).readUInt32BE(2)
        return decode(payload.subarray(6, 6 + length), limits, nesting + 1)
      }
    }
  }
  if (isZlib(first, second)) return checked(decompressZlib(payload, limits), limits)
  throw new DecompressionError(`unknown compression ${first.toString(16).padStart(2, '0')}${second.toString(16).padStart(2, '0')}`)
}

function checked(plain: Buffer, limits: DecodeLimits): Buffer {
  if (limits.size !== undefined && plain.length !== limits.size) {
    throw new DecompressionError(`the chunk has ${plain.length} bytes instead of ${limits.size}`)
  }
  return plain
}
