/** Method none: 00 00, then the plaintext. What lz4, zstd and lzma fall back to when they do not shrink. */
import type { Codec } from './codec.js'

/** The header of method none. */
export const plainHeader = Buffer.alloc(2)

/** What compress returned, as one run of bytes. */
export function completePayload(compressed: Uint8Array, data: Uint8Array): Uint8Array {
  return compressed === data ? storePlain(data) : compressed
}

function storePlain(data: Uint8Array): Buffer {
  const payload = Buffer.allocUnsafe(data.length + 2)
  payload[0] = payload[1] = 0
  payload.set(data, 2)
  return payload
}

/** `compressed` behind its 2-byte header, or the plaintext if that is not strictly shorter. */
export function withHeader(method: number, compressed: Uint8Array, data: Uint8Array): Uint8Array {
  if (compressed.length >= data.length) return data
  const payload = Buffer.allocUnsafe(compressed.length + 2)
  payload[0] = method
  payload[1] = 0
  payload.set(compressed, 2)
  return payload
}

export const none: Codec = {
  name: 'none',
  spec: 'none',
  compress: data => data,
  maxPayload: size => size + 2,
}
