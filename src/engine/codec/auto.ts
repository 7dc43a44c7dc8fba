/** Method auto: lz4 tells whether compression pays, then the given method is tried (compression.md §3). */
import type { Codec } from './codec.js'
import { lz4 } from './lz4.js'

export function auto(inner: Codec): Codec {
  return {
    name: 'auto',
    spec: `auto,${inner.spec}`,
    compress(data) {
      const cheap = lz4.compress(data) as Uint8Array
      const length = (payload: Uint8Array): number => (payload === data ? data.length + 2 : payload.length)
      if (length(cheap) / (data.length + 2) >= 0.97) return cheap
      const choose = (expensive: Uint8Array): Uint8Array => (length(expensive) / length(cheap) < 0.99 ? expensive : cheap)
      const expensive = inner.compress(data)
      return expensive instanceof Promise ? expensive.then(choose) : choose(expensive)
    },
    maxPayload: size => Math.max(lz4.maxPayload(size), inner.maxPayload(size)),
  }
}
