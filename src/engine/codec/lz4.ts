/**
 * Method lz4: 01 00, then one raw LZ4 block. lz4-napi compresses; it puts the plaintext's length (uint32le) before its blocks, which Borg's lack. The
 * addon decodes (native/lz4.c): into memory that is there already, where lz4-napi would make and zero a buffer for each chunk, and copy it. The
 * plaintext's length is what a chunk list tells, or what the block's own tokens add up to.
 */
import { createRequire } from 'node:module'
import { native } from '../native.js'
import { type Codec, type DecodeLimits, defaultMaxPlaintext } from './codec.js'
import { DecompressionError } from './errors.js'

interface Lz4 {
  compressSync(data: Uint8Array): Buffer
}

let loaded: Lz4 | undefined
// Loading an addon takes milliseconds that commands which compress nothing should not pay.
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

/** Most plaintexts are no longer than so many times their blocks, and than the longest chunk of the default parameters. */
const usualRatio = 4, longestUsual = 8 << 20

/** The plaintext of a payload with header 01 00. */
export function decompressLz4(payload: Uint8Array, limits: DecodeLimits): Buffer {
  const block = payload.subarray(2)
  if (limits.size === undefined && limits.memory) {
    // To ask the block for its length takes as long as to decode it, which mostly is possible without.
    const room = limits.memory(Math.min(block.length * usualRatio, longestUsual, limits.maxSize ?? defaultMaxPlaintext))
    const length = native().lz4Decode(block, room)
    if (length >= 0) return room.subarray(0, length)
  }
  // Exactly as much memory as is needed: many plaintexts may be under way at a time.
  const size = limits.size ?? native().lz4PlainLength(block, limits.maxSize ?? defaultMaxPlaintext)
  if (size < 0) throw damaged()
  const plain = limits.memory?.(size) ?? Buffer.allocUnsafe(size)
  const length = native().lz4Decode(block, plain)
  if (length < 0) throw damaged()
  return length === size ? plain : plain.subarray(0, length)
}

function damaged(): DecompressionError {
  return new DecompressionError('the lz4 block is damaged')
}
