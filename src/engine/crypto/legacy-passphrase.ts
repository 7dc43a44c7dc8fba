/** The long-gone passphrase mode (crypto.md §8): all keys come from passphrase and repository id, nothing is stored. */
import { pbkdf2Sync } from 'node:crypto'
import { secured, wipe } from './blake2b.js'
import type { Secrets } from './secrets.js'

const iterations = 100_000

/** The secrets that a passphrase stands for; whether it is the right one shows when an object is opened with them. Not wiped. */
export function legacyPassphraseSecrets(passphrase: Uint8Array, repositoryId: Buffer): Secrets {
  const material = pbkdf2Sync(passphrase, repositoryId, iterations, 100, 'sha256')
  try {
    return {
      encKey: secured(material.subarray(0, 32)), encHmacKey: secured(material.subarray(32, 64)), idKey: secured(material.subarray(64, 96)),
      chunkSeed: material.readInt32BE(96), repositoryId: Buffer.from(repositoryId),
      // As Borg's migration; the passphrase mode itself never demanded it.
      tamRequired: true,
    }
  } finally {
    wipe(material)
  }
}
