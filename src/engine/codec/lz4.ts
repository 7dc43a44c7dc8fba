/**
 * Method lz4: 01 00, then one raw LZ4 block. lz4-napi puts the plaintext's length (uint32le) before its blocks, which Borg's
 * blocks lack; when decoding, a length that is too large only costs memory.
 */
import { createRequire } from 'node:module'
import { type Codec, type DecodeLimits, defaultMaxPlaintext } from './codec.js'
import { DecompressionError } from './errors.js'

interface Lz4 {
  compressSync(data: Uint8Array): Buffer
  uncompressSync(data: Uint8Array): Buffer
}

let loaded: Lz4 | undefined
// Loading an addon takes milliseconds that commands which never meet lz4 should not pay.
const lz4Napi = (): Lz4 => (loaded ??= createRequire(import.meta.url)('lz4-napi') as Lz4)

/** Loads the addon now, for who has time. Whoever needs it will hear if it is missing. */
export function readyLz4(): void {
  try {
    lz4Napi()
  } catch {
    // Perhaps nothing is compressed by it.
  }
}

const prefixBytes = 4

export const lz4: Codec = {
  name: 'lz4',
  spec: 'lz4',
  compress(data) {
    const block = lz4Napi().compressSync(data)
    if (block.length - prefixBytes >= data.length) return data
    // The prefix' last two bytes make room for the header.
    block[2] = 1
    block[3] = 0
    return block.subarray(2)
  },
  maxPayload: size => size + 2,
}

/** The plaintext of a payload with header 01 00. */
export function decompressLz4(payload: Uint8Array, limits: DecodeLimits): Buffer {
  const maxSize = limits.maxSize ?? defaultMaxPlaintext
  // Without a known size: a first guess that nearly always fits, then larger ones up to the limit (compression.md §5).
  let guess = limits.size ?? Math.min(maxSize, Math.max(64 * 1024, 6 * payload.length))
  const input = Buffer.allocUnsafe(payload.length - 2 + prefixBytes)
  input.set(payload.subarray(2), prefixBytes)
  for (;;) {
    input.writeUInt32LE(guess, 0)
    try {
      return lz4Napi().uncompressSync(input)
    } catch (cause) {
      if (limits.size !== undefined || guess >= maxSize || !isTooSmall(cause)) throw new DecompressionError('the lz4 block is damaged', cause)
      guess = Math.min(maxSize, guess * 4)
    }
  }
}

function isTooSmall(cause: unknown): boolean {
  return cause instanceof Error && cause.message.includes('too small')
}
