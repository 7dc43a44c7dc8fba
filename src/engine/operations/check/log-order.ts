/** The ids of an index in the order in which their entries lie on disk, so that reading them is one pass over the segments. */
import { idBytes } from '../../constants.js'
import { type ChunkId, chunkId } from '../../ids.js'
import type { MemoryTable } from '../../hashindex/hash-table.js'

const keyWords = idBytes / 4
const deletedMark = 0xfffffffe

/**
 * Each id is a copy. Costs 4 bytes an id while it runs, and 8 for those of the segment in hand. `index` is a repository's:
 * segment, offset. It must not change meanwhile.
 */
export function* inLogOrder(index: MemoryTable): Generator<ChunkId> {
  const words = new Uint32Array(index.buffer)
  const stride = keyWords + index.valueWords
  const used = (bucket: number): boolean => words[bucket * stride + keyWords]! < deletedMark
  const segmentOf = (bucket: number): number => words[bucket * stride + keyWords]!

  // Sorted by segment by counting, within each by offset: sorting all at once would need a number of 64 bits for each.
  const counts = new Map<number, number>()
  let total = 0
  for (let bucket = 0; bucket < index.buckets; bucket++) {
    if (!used(bucket)) continue
    counts.set(segmentOf(bucket), (counts.get(segmentOf(bucket)) ?? 0) + 1)
    total++
  }
  const segments = [...counts.keys()].sort((a, b) => a - b)
  const next = new Map<number, number>()
  let start = 0
  for (const segment of segments) {
    next.set(segment, start)
    start += counts.get(segment)!
  }
  const buckets = new Uint32Array(total)
  for (let bucket = 0; bucket < index.buckets; bucket++) {
    if (!used(bucket)) continue
    const at = next.get(segmentOf(bucket))!
    next.set(segmentOf(bucket), at + 1)
    buckets[at] = bucket
  }
  const bytes = Buffer.from(index.buffer)
  start = 0
  for (const segment of segments) {
    const end = start + counts.get(segment)!
    const order = new BigUint64Array(end - start)
    for (let at = start; at < end; at++) order[at - start] = (BigInt(words[buckets[at]! * stride + keyWords + 1]!) << 32n) | BigInt(buckets[at]!)
    order.sort()
    for (const position of order) {
      const from = Number(position & 0xffffffffn) * stride * 4
      yield chunkId(Buffer.from(bytes.subarray(from, from + idBytes)))
    }
    start = end
  }
}
