import { randomBytes } from 'node:crypto'
import { keyTypeOfMode } from '../../src/engine/crypto/key-types.js'
import type { Key } from '../../src/engine/crypto/key.js'
import { keyFromSecrets } from '../../src/engine/crypto/keys.js'
import { newSecrets } from '../../src/engine/crypto/secrets.js'

/** A new one. */
export function someKey(mode: 'repokey' | 'repokey-blake2' | 'authenticated' = 'repokey'): Key {
  const type = keyTypeOfMode(mode)
  return keyFromSecrets(type, newSecrets(type, randomBytes(32)), false)
}
