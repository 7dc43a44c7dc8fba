/**
 * The items of a stream that may have gaps and damage (archive.md §10, step 5): behind a gap the next place is looked for where a
 * whole and sound item begins. Stricter there than Borg, which takes any map with a path: the inside of a cut item, its xattrs
 * say, must not be taken for an item.
 */
import { decodeItem } from '../../archive/item-codec.js'
import { maxItemBytes } from '../../archive/item-stream.js'
import type { Item } from '../../archive/item.js'
import { itemKeys } from '../../archive/item-keys.js'
import { messageOf } from '../../errors.js'
import { KnownKeys, MsgpackError, MsgReader } from '../../msgpack.js'
import { bytesOf, shownText } from '../../text.js'

export type StreamEvent =
  | { readonly kind: 'item'; readonly item: Item }
  /** Something that is no item, or not a sound one. It is left out. */
  | { readonly kind: 'invalid'; readonly reason: string }
  /** What follows is no msgpack; the next item is looked for. */
  | { readonly kind: 'crashed' }

const requiredKeys = ['path', 'mtime']
const knownKeys = new KnownKeys(itemKeys)
/** Values nest at most so deep. Real items have three levels. */
const maxDepth = 16
/**
 * Steps that looking for an item may take for each byte that was fed, and then for each beginning that seems possible. What was cut off costs far
 * less; an archive can be made so that each beginning leads through all that follows.
 */
const stepsPerByte = 4, stepsBeyond = 64
/** For any item; small enough to be counted down fast. */
const enoughSteps = 0x3fffffff
/** A chunk that Borg or this program cut is never longer, so no plaintext and no run of zeros is. */
const maxChunkBytes = 20 * 1024 * 1024

export class RobustItems {
  readonly #maxBytes: number
  readonly #allowedKeys: ReadonlySet<string>
  readonly #firstKeys: readonly Buffer[]
  #pieces: Buffer[] = []
  #bytes = 0
  /** Not worth trying again before there are so many bytes: an item may go on over many chunks. */
  #wanted = 0
  #searching = false
  #steps = { left: 0 }

  /** `allowedKeys`: those of the manifest, as byte strings. `maxBytes`: of an item; what claims more is none, and would be gathered in memory. */
  constructor(allowedKeys: ReadonlySet<string>, maxBytes = maxItemBytes) {
    this.#maxBytes = maxBytes
    this.#allowedKeys = allowedKeys
    this.#firstKeys = [...allowedKeys].filter(key => key.length <= 31).map(key => bytesOf(String.fromCharCode(0xa0 + key.length) + key))
  }

  /** A chunk is missing here. */
  gap(): void {
    this.#pieces = []
    this.#bytes = this.#wanted = 0
    this.#searching = true
  }

  /** The next chunk of the stream. Items are views of its memory. */
  *feed(chunk: Buffer): Generator<StreamEvent> {
    this.#pieces.push(chunk)
    this.#bytes += chunk.length
    this.#steps.left = Math.min(enoughSteps, this.#steps.left + stepsPerByte * chunk.length)
    if (this.#bytes < this.#wanted) return
    const bytes = this.#pieces.length === 1 ? chunk : Buffer.concat(this.#pieces)
    let at = 0
    while (at < bytes.length) {
      if (this.#searching) {
        const found = this.#search(bytes, at)
        at = found.at
        if (!found.item) break
        this.#searching = false
        at = found.end
        yield { kind: 'item', item: found.item }
        continue
      }
      const reader = new MsgReader(bytes, at)
      const sound = this.#sound(reader)
      if (typeof sound === 'object') {
        at = reader.position
        yield { kind: 'item', item: sound }
        continue
      }
      const end = valueEnd(bytes, at, 0, { left: enoughSteps })
      if (end === incomplete && bytes.length - at <= this.#maxBytes) break
      if (end === malformed || end === incomplete) {
        this.#searching = true
        at++
        yield { kind: 'crashed' }
        continue
      }
      at = end
      yield { kind: 'invalid', reason: sound }
    }
    this.#pieces = at < bytes.length ? [bytes.subarray(at)] : []
    this.#bytes = bytes.length - at
    this.#wanted = at === 0 ? this.#bytes * 2 : 0
  }

  /** True if the stream ends within an item. */
  endsEarly(): boolean {
    return this.#bytes > 0 && !this.#searching
  }

  /** The first whole and sound item at or behind `from`; without one, where the next attempt has to begin. */
  #search(bytes: Buffer, from: number): { at: number; end: number; item?: Item } {
    let retry = -1
    for (let at = from; at < bytes.length; at++) {
      const lead = bytes[at]!
      const head = (lead & 0xf0) === 0x80 ? 1 : lead === 0xde ? 3 : 0
      if (head === 0) continue
      // A key cut off by the end of what is there may become one of ours.
      const possible = this.#firstKeys.some(key => {
        const length = Math.min(key.length, bytes.length - at - head)
        return length <= 0 || key.compare(bytes, at + head, at + head + length, 0, length) === 0
      })
      if (!possible) continue
      this.#steps.left = Math.max(this.#steps.left, stepsBeyond)
      const end = valueEnd(bytes, at, 0, this.#steps)
      if (end === incomplete) {
        if (retry < 0 && bytes.length - at <= this.#maxBytes) retry = at
        continue
      }
      if (end === malformed) continue
      const reader = new MsgReader(bytes, at, end)
      const item = this.#sound(reader)
      if (typeof item === 'object') return { at, end, item }
    }
    return { at: retry < 0 ? bytes.length : retry, end: 0 }
  }

  /** The item at the reader, or why there is none; the reader then stands anywhere. */
  #sound(reader: MsgReader): Item | string {
    const start = reader.position
    let item: Item
    try {
      item = decodeItem(reader)
    } catch (error) {
      reader.position = start
      const reason = this.#unsound(reader)
      return reason || `malformed values: ${messageOf(error)}`
    }
    // Whether mtime is there at all shows only on a closer look; 0 is hardly ever one.
    if (item.mtimeNs === 0n || item.unknown) {
      const end = reader.position
      reader.position = start
      const reason = this.#unsound(reader)
      if (reason) return reason
      reader.position = end
    }
    for (const list of [item.chunks, item.chunksHealthy]) {
      if (!list) continue
      for (let index = 0; index < list.length; index++) if (list.size(index) > maxChunkBytes) return `a chunk of ${list.size(index)} bytes`
    }
    return item
  }

  /** Borg's reason for not taking a value as an item; empty if its keys are all right. */
  #unsound(reader: MsgReader): string {
    const keys = new Set<string>()
    try {
      for (let count = reader.mapHeader(); count > 0; count--) {
        keys.add(reader.key(knownKeys))
        reader.skip()
      }
    } catch (error) {
      if (error instanceof MsgpackError && keys.size === 0) return 'not a dictionary'
      return ''
    }
    // A bogus key of Attic.
    keys.delete('acl')
    const missing = requiredKeys.filter(key => !keys.has(key))
    if (missing.length > 0) return `missing required keys: ${shown(missing)}`
    const invalid = [...keys].filter(key => !this.#allowedKeys.has(key))
    return invalid.length > 0 ? `invalid keys: ${shown(invalid)}` : ''
  }
}

function shown(keys: readonly string[]): string {
  return keys.map(key => shownText(bytesOf(key))).join(', ')
}

const incomplete = -1, malformed = -2

/** End of the value at `at`, or that it goes on behind the bytes, or that it is no old msgpack, or takes more steps than are left. */
function valueEnd(bytes: Buffer, at: number, depth: number, steps: { left: number }): number {
  if (depth > maxDepth || --steps.left < 0) return malformed
  if (at >= bytes.length) return incomplete
  const lead = bytes[at]!
  if (lead < 0x80 || lead >= 0xe0 || lead === 0xc0 || lead === 0xc2 || lead === 0xc3) return at + 1
  const within = (end: number): number => (end > bytes.length ? incomplete : end)
  if (lead >= 0xa0 && lead <= 0xbf) return within(at + 1 + (lead & 0x1f))
  if (lead >= 0xcc && lead <= 0xd3) return within(at + 1 + (1 << (lead & 3)))
  if (lead >= 0x80 && lead <= 0x8f) return valuesEnd(bytes, at + 1, 2 * (lead & 0xf), true, depth, steps)
  if (lead >= 0x90 && lead <= 0x9f) return valuesEnd(bytes, at + 1, lead & 0xf, false, depth, steps)
  const width = [1, 2, 4, 1, 2, 4, 2, 4, 2, 4][[0xc4, 0xc5, 0xc6, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf].indexOf(lead)]
  if (width === undefined) return malformed
  if (at + 1 + width > bytes.length) return incomplete
  const length = bytes.readUIntBE(at + 1, width)
  const start = at + 1 + width
  if (lead <= 0xdb) return within(start + length)
  return valuesEnd(bytes, start, lead >= 0xde ? 2 * length : length, lead >= 0xde, depth, steps)
}

function valuesEnd(bytes: Buffer, start: number, count: number, isMap: boolean, depth: number, steps: { left: number }): number {
  let at = start
  for (let index = 0; index < count; index++) {
    if (isMap && index % 2 === 0 && at < bytes.length && !isRaw(bytes[at]!)) return malformed
    at = valueEnd(bytes, at, depth + 1, steps)
    if (at < 0) return at
  }
  return at
}

function isRaw(lead: number): boolean {
  return (lead >= 0xa0 && lead <= 0xbf) || (lead >= 0xc4 && lead <= 0xc6) || (lead >= 0xd9 && lead <= 0xdb)
}
