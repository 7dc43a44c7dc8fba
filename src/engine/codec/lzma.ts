/** Method lzma: 02 00, then an .xz stream without integrity check. Streams with any check and legacy .lzma are read as well. */
import { createRequire } from 'node:module'
import { type Codec, type DecodeLimits, defaultMaxPlaintext } from './codec.js'
import { DecompressionError } from './errors.js'
import { withHeader } from './none.js'

interface LzmaStream {
  on(event: 'data', listener: (piece: Buffer) => void): LzmaStream
  on(event: 'end', listener: () => void): LzmaStream
  on(event: 'error', listener: (error: Error) => void): LzmaStream
  write(data: Uint8Array, done: (error?: Error | null) => void): boolean
  end(data?: Uint8Array): void
  destroy?(): void
}
interface LzmaNative {
  createStream(coder: string, options: Record<string, unknown>): LzmaStream
  CHECK_NONE: number
}

let loaded: LzmaNative | undefined
const lzmaNative = (): LzmaNative => (loaded ??= createRequire(import.meta.url)('lzma-native') as LzmaNative)

export function lzma(level: number): Codec {
  return {
    name: 'lzma',
    spec: `lzma,${level}`,
    async compress(data) {
      const coder = lzmaNative().createStream('easyEncoder', { preset: level, check: lzmaNative().CHECK_NONE, synchronous: true })
      return withHeader(2, await through(coder, unshared(data), Infinity), data)
    },
    maxPayload: size => size + 2,
  }
}

/** The plaintext of a payload with header 02 00. */
export async function decompressLzma(payload: Uint8Array, limits: DecodeLimits): Promise<Buffer> {
  const stream = payload.subarray(2)
  const maxSize = limits.size ?? limits.maxSize ?? defaultMaxPlaintext
  // Concatenated .xz streams are read as one; what follows the last stream is ignored (compression.md §5).
  const isXz = stream[0] === 0xfd && stream[1] === 0x37
  const coder = lzmaNative().createStream('autoDecoder', { synchronous: true, memlimit: maxDecoderBytes, flags: isXz ? concatenated : 0 })
  try {
    return await through(coder, stream, maxSize)
  } catch (cause) {
    if (cause instanceof DecompressionError) throw cause
    if (isXz) return decompressOne(stream, maxSize)
    throw new DecompressionError('the lzma stream is damaged', cause)
  }
}

/** Level 9 needs 65 MiB; a header may claim a dictionary of 4 GiB. */
const maxDecoderBytes = 256 << 20
/** What is handed to the decoder at once. */
const pieceBytes = 4096

/** LZMA_CONCATENATED of liblzma. */
const concatenated = 8

/** The last bytes of an .xz stream; its length is a multiple of 4. */
const xzEnd = Buffer.from('YZ')
const maxEndsTried = 16

/** For payloads with trailing garbage, which the decoder would take for a further stream: what ends where a stream can end. */
async function decompressOne(stream: Uint8Array, maxSize: number): Promise<Buffer> {
  const bytes = Buffer.from(stream.buffer, stream.byteOffset, stream.length)
  let problem: unknown
  for (let at = bytes.lastIndexOf(xzEnd), tried = 0; at > 0 && tried < maxEndsTried; at = bytes.lastIndexOf(xzEnd, at - 1)) {
    const end = at + xzEnd.length
    if (end % 4 !== 0 || end === bytes.length) continue
    tried++
    try {
      return await through(lzmaNative().createStream('autoDecoder', { synchronous: true, memlimit: maxDecoderBytes, flags: concatenated }), bytes.subarray(0, end), maxSize)
    } catch (error) {
      if (error instanceof DecompressionError) throw error
      problem = error
    }
  }
  throw new DecompressionError('the lzma stream is damaged', problem)
}

/** lzma-native refuses shared memory, in which large chunks lie. */
function unshared(data: Uint8Array): Uint8Array {
  return data.buffer instanceof SharedArrayBuffer ? Buffer.from(data) : data
}

function through(coder: LzmaStream, data: Uint8Array, maxSize: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = []
    let length = 0
    let over = false
    coder.on('data', piece => {
      pieces.push(piece)
      length += piece.length
      if (length > maxSize && !over) {
        over = true
        pieces.length = 0
        reject(new DecompressionError(`more than ${maxSize} bytes come out of the lzma stream`))
        coder.destroy?.()
      }
    })
    coder.on('end', () => resolve(Buffer.concat(pieces, length)))
    coder.on('error', error => {
      over = true
      reject(error)
    })
    if (maxSize === Infinity || data.length <= pieceBytes) return coder.end(data)
    // Piece by piece: the decoder unpacks all that it is given before anybody can count, and a bomb grows 7000 times.
    const feed = (at: number): void => {
      if (over) return
      if (at >= data.length) coder.end()
      else coder.write(data.subarray(at, at + pieceBytes), () => feed(at + pieceBytes))
    }
    feed(0)
  })
}
