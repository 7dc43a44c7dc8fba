/** Method auto: lz4 tells whether compression pays, then the given method is tried (compression.md §3). */
import type { Codec } from './codec.js'
import { lz4 } from './lz4.js'

export function auto(inner: Codec): Codec {
  return {
    name: 'auto',
    spec: `auto,${inner.spec}`,
    compress(data) {
      const cheap = lz4.compress(data) as Buffer
      if (cheap.length / (data.length + 2) >= 0.97) return cheap
      const choose = (expensive: Buffer): Buffer => (expensive.length / cheap.length < 0.99 ? expensive : cheap)
      const expensive = inner.compress(data)
      return Buffer.isBuffer(expensive) ? choose(expensive) : expensive.then(choose)
    },
    maxPayload: size => Math.max(lz4.maxPayload(size), inner.maxPayload(size)),
  }
}
