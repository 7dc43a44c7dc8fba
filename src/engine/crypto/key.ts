/**
 * The cryptographic key object of a repository (crypto.md §2, §3): one class per family, chosen by the type byte.
 * Secrets live in sodium secure memory and Node KeyObjects; wipe() ends them.
 */
import type { KeyObject } from 'node:crypto'
import type { ChunkId } from '../ids.js'
import type { Hashing } from './hashing.js'

export const encryptionModes = ['none', 'keyfile', 'repokey', 'keyfile-blake2', 'repokey-blake2', 'authenticated', 'authenticated-blake2'] as const
/** As in `init --encryption`. */
export type EncryptionMode = (typeof encryptionModes)[number]

export interface Key {
  /** First byte of each envelope it makes. */
  readonly type: number
  readonly mode: EncryptionMode
  /** True if envelopes carry MAC and nonce. */
  readonly encrypted: boolean
  /** True if nothing is secret: none, authenticated*, repokey* with the empty passphrase (crypto.md §6). */
  readonly logicallyUnencrypted: boolean
  /** int32, signed. 0 in mode none. */
  readonly chunkSeed: number
  readonly tamRequired: boolean
  idHash(plaintext: Uint8Array): ChunkId
  /**
   * The complete stored object of a payload. `nonce` is the first counter value, set aside by the caller and never used
   * again; it uses ceil(payload.length / 16) values. Ignored where the mode has none.
   */
  seal(payload: Uint8Array, nonce: bigint): Buffer
  /** seal, written into `target` at `offset`; returns the object's length. `head`: bytes that belong before the payload. */
  sealInto(payload: Uint8Array, nonce: bigint, target: Buffer, offset: number, head?: Uint8Array): number
  /** sealInto, but for the MAC: setMac puts in what hashing() made of the object. */
  encryptInto(payload: Uint8Array, nonce: bigint, target: Buffer, offset: number, head?: Uint8Array): number
  setMac(object: Buffer, mac: Uint8Array): void
  /** For many hashes: MACs and ids. */
  hashing<T>(): Hashing<T>
  /** Length of the stored object of a payload. */
  sealedLength(payloadLength: number): number
  /** The payload of a stored object. Verifies type byte and MAC before decrypting. IntegrityError. `id` is for the message only.
   * `into`, apart from the object: memory that the payload may be put in, if it fits. */
  open(object: Uint8Array, id: Uint8Array, into?: Buffer): Buffer
  /** IntegrityError unless type and length are those of an object of this key: what can be told before its MAC is computed. `id` is for the message only. */
  checkEnvelope(object: Uint8Array, id: Uint8Array): void
  /** As open, of an object that checkEnvelope has seen, with its MAC as hashing() computed it. `into` may be the object's own payload: it is opened in place then. */
  openWithMac(object: Uint8Array, mac: Uint8Array, id: Uint8Array, into?: Buffer): Buffer
  /** Nonce of an encrypted object, for the manifest bound (crypto.md §4). */
  nonceOf(object: Uint8Array): bigint
  /** 64-byte HMAC-SHA-512 key of the TAM (crypto.md §9). */
  tamKey(salt: Uint8Array, context: 'manifest' | 'archive'): Buffer
  /**
   * A key for another purpose than the repository's, for what this machine keeps about it: HKDF-SHA-512 of all secrets, another for each
   * `salt`. Where the mode has no secret it keeps nothing secret either. See purposeKey.
   */
  derive(salt: Uint8Array, purpose: string, length: number): KeyObject
  /** What a worker thread needs to make the same key; posted by structured clone, see keyFromMaterial. */
  material(): KeyMaterial
  wipe(): void
}

/** Clonable to worker threads: KeyObjects are handed over by reference, their bytes never become visible. See keyFromMaterial. */
export interface KeyMaterial {
  readonly type: number
  readonly mode: EncryptionMode
  readonly chunkSeed: number
  readonly tamRequired: boolean
  readonly logicallyUnencrypted: boolean
  readonly encKey: KeyObject | undefined
  readonly encHmacKey: KeyObject | undefined
  readonly idKey: KeyObject | undefined
}
