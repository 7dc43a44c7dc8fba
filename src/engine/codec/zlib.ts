/**
 * Method zlib: the bare zlib stream, without a header of Borg's and without fall-back. pako serves chunks below the limit,
 * where a native stream's set-up costs more than its speed saves; Node's zlib serves the rest (docs/compression.md).
 */
import { createRequire } from 'node:module'
import { deflateSync, inflateSync } from 'node:zlib'
import { type Codec, type DecodeLimits, defaultMaxPlaintext } from './codec.js'
import { DecompressionError } from './errors.js'

interface Pako {
  inflate(data: Uint8Array): Uint8Array
}

let loaded: Pako | undefined
const pako = (): Pako => (loaded ??= createRequire(import.meta.url)('pako') as Pako)

/** Below this many compressed bytes pako decodes faster than Node's zlib is set up. */
const pakoLimit = 512

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
    // A stream expands at most 1032 times, so that a small one is no bomb.
    if (payload.length < pakoLimit) {
      const plain = pako().inflate(payload)
      if (plain instanceof Uint8Array) {
        if (plain.length > maxSize) throw new RangeError(`${plain.length} bytes`)
        return Buffer.from(plain.buffer, plain.byteOffset, plain.length)
      }
    }
    return inflateSync(payload, { maxOutputLength: Math.max(1, maxSize) })
  } catch (cause) {
    throw new DecompressionError('the zlib stream is damaged or too long', cause)
  }
}

/** Whether the first two bytes begin a zlib stream. */
export function isZlib(first: number, second: number): boolean {
  return (first & 15) === 8 && (first * 256 + second) % 31 === 0
}
