/**
 * Method obfuscate hides the size of chunks: 04 00, uint32be n, inner payload of n bytes, padding (compression.md §4).
 */
import { maxObjectBytes } from '../constants.js'
import type { Codec } from './codec.js'
import { completePayload } from './none.js'

const headerBytes = 6

/** `spec`: 1..6 a reciprocal random factor, 110..123 a random addition, 250 Padmé. */
export function obfuscate(spec: number, inner: Codec): Codec {
  const wrap = (payload: Uint8Array): Uint8Array => {
    const padding = paddingFor(spec, payload.length, Math.random())
    const obfuscated = Buffer.alloc(headerBytes + payload.length + padding)
    obfuscated[0] = 4
    obfuscated.writeUInt32BE(payload.length, 2)
    obfuscated.set(payload, headerBytes)
    return obfuscated
  }
  return {
    name: 'obfuscate',
    spec: `obfuscate,${spec},${inner.spec}`,
    compress(data) {
      const payload = inner.compress(data)
      return payload instanceof Promise ? payload.then(done => wrap(completePayload(done, data))) : wrap(completePayload(payload, data))
    },
    maxPayload(size) {
      const payload = inner.maxPayload(size)
      // The longest padding; with specs 1..6 that of the smallest random number.
      const longest = spec <= 6 ? paddingFor(spec, payload, 0) : spec < 250 ? Math.min(2 ** (spec - 100), limit(payload)) : paddingFor(250, payload, 0) + (payload >> 3)
      return headerBytes + payload + longest
    },
  }
}

function limit(payloadLength: number): number {
  return Math.max(0, maxObjectBytes - 1024 - payloadLength)
}

/** Padding of a payload of `length` bytes; `random` in [0, 1). */
export function paddingFor(spec: number, length: number, random: number): number {
  let padding: number
  if (spec <= 6) padding = Math.floor(length * ((0.001 * 10 ** spec) / Math.max(0.0001, random)))
  else if (spec === 250) padding = padme(length)
  else padding = Math.floor(2 ** (spec - 100) * random)
  return Math.min(padding, limit(length))
}

/** Padmé: a length is rounded up so that it leaks O(log log n) bits. */
function padme(length: number): number {
  if (length < 2) return 0
  const exponent = Math.floor(Math.log2(length))
  const significant = Math.floor(Math.log2(exponent)) + 1
  const unit = 2 ** Math.max(0, exponent - significant)
  return Math.ceil(length / unit) * unit - length
}
