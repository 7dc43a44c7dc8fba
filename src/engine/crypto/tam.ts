/** The authentication tag inside manifest and archive metadata (crypto.md §9). */
import { createHmac, randomBytes } from 'node:crypto'
import { type MsgValue, pack, unpackMapWith } from '../msgpack.js'
import { equalInConstantTime } from './constant-time.js'
import type { Key } from './key.js'

const suite = 'HKDF_HMAC_SHA512'
const tagBytes = 64

export type TamContext = 'manifest' | 'archive'
export type TamState = 'valid' | 'absent' | 'wrong' | 'unsupported'

/** Packs a map with a fresh tag. The map's own `tam` entry, if any, is replaced. */
export function packWithTam(map: Map<string, MsgValue>, key: Key, context: TamContext, salt: Buffer = randomBytes(64)): Buffer {
  const zeroTag = Buffer.alloc(tagBytes)
  const tagged = new Map(map)
  tagged.set('tam', new Map<string, MsgValue>([['hmac', zeroTag], ['salt', salt], ['type', Buffer.from(suite)]]))
  const packed = pack(tagged)
  const tag = createHmac('sha512', key.tamKey(salt, context)).update(packed).digest()
  // The tag is the first run of 64 zero bytes behind its own header, not in some other value: find it by its key.
  const at = packed.indexOf(Buffer.concat([Buffer.from([0xa4]), Buffer.from('hmac'), Buffer.from([0xda, 0, tagBytes]), zeroTag])) + 8
  tag.copy(packed, at)
  return packed
}

/** Unpacks a map and tells what its tag is worth. Works on the received bytes, so any key order verifies. `special`: as unpackMapWith. */
export function unpackWithTam(packed: Buffer, key: Key, context: TamContext, special: Parameters<typeof unpackMapWith>[1] = {}): { map: Map<string, MsgValue>; tam: TamState; suite?: string } {
  const map = unpackMapWith(packed, special)
  const tam = map.get('tam')
  if (tam === undefined) return { map, tam: 'absent' }
  if (!(tam instanceof Map)) return { map, tam: 'wrong' }
  const [type, hmac, salt] = [tam.get('type'), tam.get('hmac'), tam.get('salt')]
  if (!Buffer.isBuffer(type) || type.toString() !== suite) return { map, tam: 'unsupported', suite: Buffer.isBuffer(type) ? type.toString() : 'unnamed' }
  if (!Buffer.isBuffer(hmac) || !Buffer.isBuffer(salt) || hmac.length !== tagBytes) return { map, tam: 'wrong' }
  const zeroed = Buffer.from(packed)
  const at = zeroed.indexOf(hmac)
  zeroed.fill(0, at, at + tagBytes)
  const tag = createHmac('sha512', key.tamKey(salt, context)).update(zeroed).digest()
  return { map, tam: equalInConstantTime(tag, hmac) ? 'valid' : 'wrong' }
}
