/** Key material as the blob holds it (crypto.md §2, §5), in guarded memory. */
import { randomFillSync } from 'node:crypto'
import { secureBuffer, wipe } from './blake2b.js'
import type { KeyType } from './key-types.js'

export interface Secrets {
  readonly encKey: Buffer
  readonly encHmacKey: Buffer
  readonly idKey: Buffer
  /** int32, signed. */
  readonly chunkSeed: number
  readonly repositoryId: Buffer
  readonly tamRequired: boolean
}

/** New random keys. BLAKE2b modes have two 64-byte halves of which the second is zero (crypto.md §2). */
export function newSecrets(type: KeyType, repositoryId: Buffer): Secrets {
  const random = (size: number): Buffer => {
    const bytes = secureBuffer(type.hash === 'blake2b' && size === 64 ? 128 : size)
    bytes.fill(0)
    randomFillSync(bytes, 0, size)
    return bytes
  }
  const hashKeyBytes = type.hash === 'blake2b' ? 64 : 32
  const seed = randomFillSync(Buffer.alloc(4))
  return { encKey: random(32), encHmacKey: random(hashKeyBytes), idKey: random(hashKeyBytes), chunkSeed: seed.readInt32BE(0), repositoryId, tamRequired: true }
}

export function wipeSecrets(secrets: Secrets): void {
  for (const secret of [secrets.encKey, secrets.encHmacKey, secrets.idKey]) wipe(secret)
}

/** A copy in guarded memory of its own: both have to be wiped. */
export function copySecrets(secrets: Secrets): Secrets {
  const copy = (secret: Buffer): Buffer => {
    const bytes = secureBuffer(secret.length)
    bytes.set(secret)
    return bytes
  }
  return { ...secrets, encKey: copy(secrets.encKey), encHmacKey: copy(secrets.encHmacKey), idKey: copy(secrets.idKey) }
}
