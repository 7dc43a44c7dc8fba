/** Method zstd: 03 00, then one frame that carries its content size, without which Borg calls it corrupt. */
import { createRequire } from 'node:module'
import { type Codec, type DecodeLimits, defaultMaxPlaintext } from './codec.js'
import { DecompressionError } from './errors.js'
import { withHeader } from './none.js'

interface Zstd {
  compress(data: Uint8Array, parameters: { compressionLevel: number }): Buffer
}
/** libzstd's own functions, below the package's convenient ones. */
interface ZstdBinding {
  /** Bytes written; throws if they do not fit. */
  decompress(into: Uint8Array, data: Uint8Array): number
}

let loaded: Zstd | undefined
const zstdNapi = (): Zstd => (loaded ??= createRequire(import.meta.url)('zstd-napi') as Zstd)
let loadedBinding: ZstdBinding | undefined
const zstdBinding = (): ZstdBinding => (loadedBinding ??= createRequire(import.meta.url)('zstd-napi/binding.js') as ZstdBinding)

export function zstd(level: number): Codec {
  return {
    name: 'zstd',
    spec: `zstd,${level}`,
    compress: data => withHeader(3, zstdNapi().compress(data, { compressionLevel: level }), data),
    maxPayload: size => size + 2,
  }
}

/** The plaintext of a payload with header 03 00. */
export function decompressZstd(payload: Uint8Array, limits: DecodeLimits): Buffer {
  const frame = Buffer.from(payload.buffer, payload.byteOffset + 2, payload.length - 2)
  const claimed = contentSize(frame)
  if (claimed === undefined) throw new DecompressionError('the zstd frame does not tell its size')
  if (claimed > (limits.size ?? limits.maxSize ?? defaultMaxPlaintext)) throw new DecompressionError(`the zstd frame claims ${claimed} bytes`)
  const plain = limits.memory?.(claimed) ?? Buffer.allocUnsafe(claimed)
  let length: number
  try {
    // Into exactly the memory that was claimed: the package's own decompress would add up all frames that follow, or unpack one
    // that tells no size for as long as it goes on.
    length = zstdBinding().decompress(plain, frame)
  } catch (cause) {
    throw new DecompressionError('the zstd frame is damaged', cause)
  }
  if (length !== claimed) throw new DecompressionError(`the zstd frame has ${length} bytes instead of ${claimed}`)
  return plain
}

/** Frame_Content_Size of the header (RFC 8878 §3.1.1.1), undefined if it is missing or this is no frame. */
function contentSize(frame: Buffer): number | undefined {
  if (frame.length < 6 || frame.readUInt32LE(0) !== 0xfd2fb528) return undefined
  const descriptor = frame[4]!
  const singleSegment = (descriptor & 0x20) !== 0
  const sizeFlag = descriptor >> 6
  const at = 5 + (singleSegment ? 0 : 1) + [0, 1, 2, 4][descriptor & 3]!
  const width = sizeFlag === 0 ? (singleSegment ? 1 : 0) : [0, 2, 4, 8][sizeFlag]!
  if (width === 0 || at + width > frame.length) return undefined
  if (width === 1) return frame[at]!
  if (width === 2) return frame.readUInt16LE(at) + 256
  if (width === 4) return frame.readUInt32LE(at)
  return Number(frame.readBigUInt64LE(at))
}
