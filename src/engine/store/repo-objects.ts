/** Plaintext <-> stored object, in this thread: for the few objects that are not file content (crypto.md §1). */
import type { Codec } from '../codec/codec.js'
import { decompress } from '../codec/decompress.js'
import { completePayload } from '../codec/none.js'
import { equalInConstantTime } from '../crypto/constant-time.js'
import type { Key } from '../crypto/key.js'
import type { NonceSource } from '../crypto/nonces.js'
import { IntegrityError } from '../errors.js'
import { type ChunkId, idHex, manifestId } from '../ids.js'

export class RepoObjects {
  readonly key: Key
  readonly #nonces: NonceSource
  codec: Codec

  constructor(key: Key, nonces: NonceSource, codec: Codec) {
    this.key = key
    this.#nonces = nonces
    this.codec = codec
  }

  /** The stored object of a plaintext. */
  async seal(plain: Uint8Array): Promise<Buffer> {
    const payload = completePayload(await this.codec.compress(plain), plain)
    const nonce = this.key.encrypted ? await this.#nonces.take(Math.ceil(payload.length / 16)) : 0n
    return this.key.seal(payload, nonce)
  }

  /** The verified plaintext. IntegrityError, DecompressionError. The manifest has no id to verify. */
  async parse(id: ChunkId, object: Buffer, size?: number): Promise<Buffer> {
    const plain = await decompress(this.key.open(object, id), size === undefined ? {} : { size })
    verifyId(this.key, id, plain)
    return plain
  }
}

/** IntegrityError unless the plaintext is what the id stands for. */
export function verifyId(key: Key, id: ChunkId, plain: Uint8Array): void {
  if (!id.equals(manifestId) && !equalInConstantTime(key.idHash(plain), id)) throw wrongId(id)
}

export function wrongId(id: ChunkId): IntegrityError {
  return new IntegrityError(`Chunk ${idHex(id)}: id verification failed`)
}
