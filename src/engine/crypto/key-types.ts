/** The type bytes of crypto.md §2 and what each stands for. */
import type { EncryptionMode } from './key.js'

export interface KeyType {
  readonly type: number
  readonly mode: EncryptionMode
  /** As info shows it. */
  readonly displayName: string
  readonly hash: 'sha256' | 'hmac' | 'blake2b'
  readonly encrypted: boolean
  /** Where the key blob lies. */
  readonly kept: 'nowhere' | 'keyfile' | 'repository'
}

const keyTypes: readonly KeyType[] = [
  { type: 0, mode: 'keyfile', displayName: 'key file', hash: 'hmac', encrypted: true, kept: 'keyfile' },
  { type: 2, mode: 'none', displayName: 'plaintext', hash: 'sha256', encrypted: false, kept: 'nowhere' },
  { type: 3, mode: 'repokey', displayName: 'repokey', hash: 'hmac', encrypted: true, kept: 'repository' },
  { type: 4, mode: 'keyfile-blake2', displayName: 'key file BLAKE2b', hash: 'blake2b', encrypted: true, kept: 'keyfile' },
  { type: 5, mode: 'repokey-blake2', displayName: 'repokey BLAKE2b', hash: 'blake2b', encrypted: true, kept: 'repository' },
  { type: 6, mode: 'authenticated-blake2', displayName: 'authenticated BLAKE2b', hash: 'blake2b', encrypted: false, kept: 'repository' },
  { type: 7, mode: 'authenticated', displayName: 'authenticated', hash: 'hmac', encrypted: false, kept: 'repository' },
]

/** Objects of the long-gone passphrase mode; they may stand beside repokey ones in a migrated repository. */
export const legacyPassphraseType = 1

export function keyTypeOf(type: number): KeyType | undefined {
  return keyTypes.find(known => known.type === (type === legacyPassphraseType ? 3 : type))
}

export function keyTypeOfMode(mode: EncryptionMode): KeyType {
  return keyTypes.find(known => known.mode === mode)!
}
