/**
 * Method lz4: 01 00, then one raw LZ4 block. lz4-napi puts the plaintext's length (uint32le) before its blocks, which Borg's
 * blocks lack: it is what a chunk list tells, or what the block's own tokens add up to.
 */
import { createRequire } from 'node:module'
import { native } from '../native.js'
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

/** So much is decoded by our own addon while lz4-napi is not there, which is faster but takes longer to load than short commands decode. */
const largestHere = 1 << 20
let bytesHere = 4 << 20
/** Most pieces fit: none of them keeps more memory than it has bytes. */
const scratchBytes = 512 << 10
let scratch: Buffer | undefined

/** Undefined for what does not fit into `size` bytes or is damaged, and for what is lz4-napi's. */
function decodeHere(payload: Uint8Array, size: number): Buffer | undefined {
  if (loaded !== undefined || payload.length > largestHere || payload.length > bytesHere) return undefined
  bytesHere -= payload.length
  const usual = size <= scratchBytes
  const target = usual ? (scratch ??= Buffer.allocUnsafeSlow(scratchBytes)) : Buffer.allocUnsafeSlow(size)
  const length = native().lz4Decode(payload.subarray(2), target.subarray(0, size))
  if (length < 0) return undefined
  const plain = target.subarray(0, length)
  return usual ? Buffer.from(plain) : plain
}

/** What lz4-napi is given: it has decoded it before the next call. Larger ones are rare, and not kept. */
const keptInputBytes = 4 << 20
let keptInput = Buffer.alloc(0)

function inputOf(length: number): Buffer {
  if (length > keptInputBytes) return Buffer.allocUnsafeSlow(length)
  if (keptInput.length < length) keptInput = Buffer.allocUnsafeSlow(Math.min(keptInputBytes, Math.max(256 << 10, 2 * length)))
  return keptInput.subarray(0, length)
}

/** The plaintext of a payload with header 01 00. */
export function decompressLz4(payload: Uint8Array, limits: DecodeLimits): Buffer {
  // Exactly as much memory as is needed: many plaintexts may be under way at a time.
  const size = limits.size ?? native().lz4PlainLength(payload.subarray(2), limits.maxSize ?? defaultMaxPlaintext)
  if (size < 0) throw new DecompressionError('the lz4 block is damaged')
  const here = decodeHere(payload, size)
  if (here) return here
  const input = inputOf(payload.length - 2 + prefixBytes)
  input.set(payload.subarray(2), prefixBytes)
  input.writeUInt32LE(size, 0)
  try {
    return lz4Napi().uncompressSync(input)
  } catch (cause) {
    throw new DecompressionError('the lz4 block is damaged', cause)
  }
}
