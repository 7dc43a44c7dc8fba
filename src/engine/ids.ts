/** Object ids: 32 bytes, their hex, and their use as map keys. */
import { idBytes } from './constants.js'
import { asBuffer } from './text.js'

declare const chunkIdBrand: unique symbol

/** The 32 bytes under which an object is stored; never just any buffer. */
export type ChunkId = Buffer & { readonly [chunkIdBrand]: true }

/** Takes 32 bytes as an id, without copying. RangeError on any other length. */
export function chunkId(bytes: Uint8Array): ChunkId {
  if (bytes.length !== idBytes) throw new RangeError(`an object id has ${idBytes} bytes, not ${bytes.length}`)
  return asBuffer(bytes) as ChunkId
}

/** The id as a key of a Map or Set: 32 characters, one per byte. */
export function idKey(id: Uint8Array): string {
  return asBuffer(id).toString('latin1')
}

export function idFromKey(key: string): ChunkId {
  return chunkId(Buffer.from(key, 'latin1'))
}

export function idHex(id: Uint8Array): string {
  return asBuffer(id).toString('hex')
}

/** The manifest is stored under 32 zero bytes and is never id-checked (crypto.md §1). */
export const manifestId: ChunkId = chunkId(Buffer.alloc(idBytes))
