/**
 * Method zlib: the bare zlib stream, without a header of Borg's and without fall-back. Node's zlib does the work: it is faster than
 * pako at every size (docs/compression.md). pako, which shares no code with it, is the second opinion: a chunk of a backup is
 * called damaged only when both refuse it.
 */
import { createRequire } from 'node:module'
import { deflateSync, inflateSync } from 'node:zlib'
import { type Codec, type DecodeLimits, defaultMaxPlaintext } from './codec.js'
import { errnoOf } from '../errors.js'
import { DecompressionError } from './errors.js'

interface Pako {
  inflate(data: Uint8Array): Uint8Array
}

let loaded: Pako | undefined
const pako = (): Pako => (loaded ??= createRequire(import.meta.url)('pako') as Pako)

export function zlib(level: number): Codec {
  return {
    name: 'zlib',
    spec: `zlib,${level}`,
    compress: data => deflateSync(data, { level }),
    // Stored blocks: 5 bytes for each 16 KiB at worst, header and checksum.
    maxPayload: size => size + 5 * (Math.ceil(size / 16000) + 1) + 16,
  }
}

/** The plaintext of a zlib stream. Bytes after its end are ignored, a truncated one is an error. */
export function decompressZlib(payload: Uint8Array, limits: DecodeLimits): Buffer {
  const maxSize = limits.size ?? limits.maxSize ?? defaultMaxPlaintext
  try {
    return inflateSync(payload, { maxOutputLength: Math.max(1, maxSize) })
  } catch (cause) {
    // A bomb is a bomb, whoever looks at it, and pako would have to unpack it to know.
    if (errnoOf(cause) !== 'ERR_BUFFER_TOO_LARGE') {
      const plain = secondOpinion(payload)
      if (plain && plain.length <= maxSize) return plain
    }
    throw new DecompressionError('the zlib stream is damaged or too long', cause)
  }
}

/** What pako makes of it; undefined if it finds it damaged as well. */
function secondOpinion(payload: Uint8Array): Buffer | undefined {
  try {
    const plain: unknown = pako().inflate(payload)
    return plain instanceof Uint8Array ? Buffer.from(plain.buffer, plain.byteOffset, plain.length) : undefined
  } catch {
    return undefined
  }
}

/** Whether the first two bytes begin a zlib stream. */
export function isZlib(first: number, second: number): boolean {
  return (first & 15) === 8 && (first * 256 + second) % 31 === 0
}
