/** The three families of keys: plain, authenticated, encrypted (envelopes of crypto.md §3). */
import { createCipheriv, createDecipheriv, createHash, createHmac, createSecretKey, hkdfSync, type KeyObject } from 'node:crypto'
import { idBytes } from '../constants.js'
import { type ChunkId, chunkId, idHex } from '../ids.js'
import { IntegrityError } from '../errors.js'
import { blake2b256, secured, wipe } from './blake2b.js'
import { equalInConstantTime } from './constant-time.js'
import { type Hashing, ManyHashing, PlainHashing } from './hashing.js'
import { hashFastest, native, type NativeEnvelope } from '../native.js'
import type { EncryptionMode, Key, KeyMaterial } from './key.js'
import { type KeyType, keyTypeOf, keyTypeOfMode, legacyPassphraseType } from './key-types.js'
import { type Secrets, wipeSecrets } from './secrets.js'

const noHead = Buffer.alloc(0)
const macOffset = 1, nonceOffset = 33, headerBytes = 41

/** Ciphers return new memory for each call: slices of this size come from memory that was just used, a whole chunk would not. */
const sliceBytes = 64 * 1024

/** Chunks and entries lie in shared memory, to and from which V8 copies slowly; but what is shorter than this is there before the addon was called. */
const minCopyBytes = 256

function copy(from: Uint8Array, target: Buffer, at: number): void {
  if (from.length < minCopyBytes) target.set(from, at)
  else native().copyMemory(from, target.subarray(at))
}

type Hash = (data: Uint8Array) => Buffer

function sha256(data: Uint8Array): Buffer {
  return createHash('sha256').update(data).digest()
}

/** A keyed hash of one or two inputs: HMAC-SHA-256, or BLAKE2b with the key as ordinary input. */
function keyedHash(type: KeyType, key: KeyObject, raw: Buffer | undefined): Hash {
  if (type.hash !== 'blake2b') return data => createHmac('sha256', key).update(data).digest()
  return data => blake2b256(raw!, data)
}

abstract class BaseKey implements Key {
  readonly type: number
  readonly mode: EncryptionMode
  abstract readonly encrypted: boolean
  readonly chunkSeed: number
  readonly tamRequired: boolean
  readonly logicallyUnencrypted: boolean

  protected constructor(type: KeyType, facts: { chunkSeed: number; tamRequired: boolean; logicallyUnencrypted: boolean }) {
    this.type = type.type
    this.mode = type.mode
    this.chunkSeed = facts.chunkSeed
    this.tamRequired = facts.tamRequired
    this.logicallyUnencrypted = facts.logicallyUnencrypted
  }

  abstract idHash(plaintext: Uint8Array): ChunkId
  abstract tamKey(salt: Uint8Array, context: 'manifest' | 'archive'): Buffer
  protected abstract hkdf(salt: Uint8Array, info: string, length: number): Buffer
  abstract material(): KeyMaterial

  derive(salt: Uint8Array, purpose: string, length: number): KeyObject {
    const raw = this.hkdf(salt, `borgfs-${purpose}`, length)
    try {
      return createSecretKey(raw)
    } finally {
      wipe(raw)
    }
  }

  sealedLength(payloadLength: number): number {
    return payloadLength + 1
  }

  seal(payload: Uint8Array, nonce: bigint): Buffer {
    const object = Buffer.allocUnsafe(this.sealedLength(payload.length))
    this.sealInto(payload, nonce, object, 0)
    return object
  }

  sealInto(payload: Uint8Array, _nonce: bigint, target: Buffer, offset: number, head: Uint8Array = noHead): number {
    target[offset] = this.type
    target.set(head, offset + 1)
    copy(payload, target, offset + 1 + head.length)
    return head.length + payload.length + 1
  }

  encryptInto(payload: Uint8Array, nonce: bigint, target: Buffer, offset: number, head?: Uint8Array): number {
    return this.sealInto(payload, nonce, target, offset, head)
  }

  setMac(_object: Buffer, _mac: Uint8Array): void {}

  hashing<T>(): Hashing<T> {
    return new PlainHashing(() => noHead, plaintext => this.idHash(plaintext))
  }

  checkEnvelope(object: Uint8Array, id: Uint8Array): void {
    if (object[0] !== this.type) throw wrongType(object, id)
  }

  open(object: Uint8Array, id: Uint8Array, into?: Buffer): Buffer {
    this.checkEnvelope(object, id)
    return this.openWithMac(object, noHead, id, into)
  }

  openWithMac(object: Uint8Array, _mac: Uint8Array, _id: Uint8Array, _into?: Buffer): Buffer {
    return Buffer.from(object.buffer, object.byteOffset + 1, object.length - 1)
  }

  nonceOf(_object: Uint8Array): bigint {
    return 0n
  }

  wipe(): void {}
}

function wrongType(object: Uint8Array, id: Uint8Array): IntegrityError {
  return new IntegrityError(`Chunk ${idHex(id)}: Invalid encryption envelope (type ${object[0] ?? 'missing'})`)
}

/** Mode none. */
class PlaintextKey extends BaseKey {
  readonly encrypted = false

  constructor() {
    super(keyTypeOfMode('none'), { chunkSeed: 0, tamRequired: false, logicallyUnencrypted: true })
  }

  idHash(plaintext: Uint8Array): ChunkId {
    return chunkId(sha256(plaintext))
  }

  tamKey(salt: Uint8Array, context: string): Buffer {
    return Buffer.concat([salt, Buffer.from(context)])
  }

  protected hkdf(salt: Uint8Array, info: string, length: number): Buffer {
    return Buffer.from(hkdfSync('sha512', noHead, salt, info, length))
  }

  material(): KeyMaterial {
    return { type: this.type, mode: this.mode, chunkSeed: 0, tamRequired: false, logicallyUnencrypted: true, encKey: undefined, encHmacKey: undefined, idKey: undefined }
  }
}

/** What authenticated and encrypted keys share: the id hash and the TAM. */
class AuthenticatedKey extends BaseKey {
  readonly encrypted: boolean = false
  protected readonly keyType: KeyType
  protected readonly encKey: KeyObject
  protected readonly encHmacKey: KeyObject
  readonly #idKey: KeyObject
  protected readonly rawIdKey: Buffer | undefined
  protected readonly rawHmacKey: Buffer | undefined
  readonly #idHash: Hash
  /** Does the same by the addon; undefined for BLAKE2b and where the addon finds no OpenSSL. */
  protected readonly envelope: NativeEnvelope | undefined

  constructor(type: KeyType, facts: { chunkSeed: number; tamRequired: boolean; logicallyUnencrypted: boolean },
    keys: { encKey: KeyObject; encHmacKey: KeyObject; idKey: KeyObject }) {
    super(type, facts)
    this.keyType = type
    this.encKey = keys.encKey
    this.encHmacKey = keys.encHmacKey
    this.#idKey = keys.idKey
    if (type.hash === 'blake2b') {
      this.rawIdKey = secured(keys.idKey.export())
      this.rawHmacKey = secured(keys.encHmacKey.export())
    }
    this.#idHash = keyedHash(type, keys.idKey, this.rawIdKey)
    this.envelope = type.hash === 'blake2b' || plainCrypto ? undefined : makeEnvelope(type.encrypted ? keys.encKey : undefined, keys.encHmacKey, keys.idKey)
  }

  idHash(plaintext: Uint8Array): ChunkId {
    if (!this.envelope) return chunkId(this.#idHash(plaintext))
    const id = Buffer.allocUnsafe(idBytes)
    native().envelopeIdHash(this.envelope, plaintext, id)
    return chunkId(id)
  }

  override hashing<T>(): Hashing<T> {
    return this.envelope ? new ManyHashing(this.envelope, this.encrypted) : super.hashing()
  }

  tamKey(salt: Uint8Array, context: 'manifest' | 'archive'): Buffer {
    return this.hkdf(salt, `borg-metadata-authentication-${context}`, 64)
  }

  /** Of all keys as one. */
  protected hkdf(salt: Uint8Array, info: string, length: number): Buffer {
    const parts = [this.#idKey.export(), this.encKey.export(), this.encHmacKey.export()]
    const secret = Buffer.concat(parts)
    try {
      return Buffer.from(hkdfSync('sha512', secret, salt, info, length))
    } finally {
      for (const bytes of [...parts, secret]) wipe(bytes)
    }
  }

  material(): KeyMaterial {
    const { type, mode, chunkSeed, tamRequired, logicallyUnencrypted, encKey, encHmacKey } = this
    return { type, mode, chunkSeed, tamRequired, logicallyUnencrypted, encKey, encHmacKey, idKey: this.#idKey }
  }

  override wipe(): void {
    if (this.rawIdKey) wipe(this.rawIdKey)
    if (this.rawHmacKey) wipe(this.rawHmacKey)
  }
}

/** AES-256-CTR with HMAC-SHA-256 or BLAKE2b-256: type 1, MAC 32, nonce 8, ciphertext. */
class EncryptedKey extends AuthenticatedKey {
  override readonly encrypted = true

  override sealedLength(payloadLength: number): number {
    return payloadLength + headerBytes
  }

  override sealInto(payload: Uint8Array, nonce: bigint, target: Buffer, offset: number, head: Uint8Array = noHead): number {
    if (this.envelope) return native().envelopeSeal(this.envelope, this.type, nonce, head, payload, target, offset)
    const length = this.encryptInto(payload, nonce, target, offset, head)
    const object = target.subarray(offset, offset + length)
    this.setMac(object, this.#mac(object))
    return length
  }

  override encryptInto(payload: Uint8Array, nonce: bigint, target: Buffer, offset: number, head: Uint8Array = noHead): number {
    if (this.envelope) return native().envelopeEncrypt(this.envelope, this.type, nonce, head, payload, target, offset)
    const counter = Buffer.alloc(16)
    counter.writeBigUInt64BE(nonce, 8)
    target[offset] = this.type
    target.set(counter.subarray(8), offset + nonceOffset)
    const cipher = createCipheriv('aes-256-ctr', this.encKey, counter)
    if (head.length > 0) target.set(cipher.update(head), offset + headerBytes)
    const start = offset + headerBytes + head.length
    for (let at = 0; at < payload.length; at += sliceBytes) copy(cipher.update(payload.subarray(at, at + sliceBytes)), target, start + at)
    return headerBytes + head.length + payload.length
  }

  override setMac(object: Buffer, mac: Uint8Array): void {
    object.set(mac, macOffset)
  }

  override hashing<T>(): Hashing<T> {
    return this.envelope ? super.hashing() : new PlainHashing(object => this.#mac(object), plaintext => this.idHash(plaintext))
  }

  override checkEnvelope(object: Uint8Array, id: Uint8Array): void {
    const type = object[0]
    // Objects of the legacy passphrase mode may stand in repositories that were migrated to repokey.
    const legacy = type === legacyPassphraseType && (this.mode === 'repokey' || this.mode === 'repokey-blake2')
    if (type !== this.type && !legacy) throw wrongType(object, id)
    if (object.length < headerBytes) throw new IntegrityError(`Chunk ${idHex(id)}: Encryption envelope is too short`)
  }

  override open(object: Uint8Array, id: Uint8Array, into?: Buffer): Buffer {
    this.checkEnvelope(object, id)
    if (!this.envelope) return this.openWithMac(object, this.#mac(object), id, into)
    const target = payloadTarget(object, into)
    return opened(native().envelopeOpen(this.envelope, object, target), target, id)
  }

  override openWithMac(object: Uint8Array, mac: Uint8Array, id: Uint8Array, into?: Buffer): Buffer {
    if (this.envelope) {
      const target = payloadTarget(object, into)
      return opened(native().envelopeDecrypt(this.envelope, object, target, mac), target, id)
    }
    if (!equalInConstantTime(mac, object.subarray(macOffset, nonceOffset))) throw wrongMac(id)
    const counter = Buffer.alloc(16)
    counter.set(object.subarray(nonceOffset, headerBytes), 8)
    const decipher = createDecipheriv('aes-256-ctr', this.encKey, counter)
    if (object.length <= sliceBytes) return decipher.update(object.subarray(headerBytes))
    const payload = Buffer.allocUnsafeSlow(object.length - headerBytes)
    for (let at = headerBytes; at < object.length; at += sliceBytes) payload.set(decipher.update(object.subarray(at, at + sliceBytes)), at - headerBytes)
    return payload
  }

  override nonceOf(object: Uint8Array): bigint {
    return Buffer.from(object.buffer, object.byteOffset, object.length).readBigUInt64BE(nonceOffset)
  }

  #mac(object: Uint8Array): Buffer {
    const data = object.subarray(nonceOffset)
    return this.rawHmacKey ? blake2b256(this.rawHmacKey, data) : createHmac('sha256', this.encHmacKey).update(data).digest()
  }
}

function payloadTarget(object: Uint8Array, into: Buffer | undefined): Buffer {
  const length = object.length - headerBytes
  return into && into.length >= length ? into : Buffer.allocUnsafeSlow(length)
}

/** What the addon opened: `length` is negative where the MAC was wrong. */
function opened(length: number, target: Buffer, id: Uint8Array): Buffer {
  if (length < 0) throw wrongMac(id)
  return target.subarray(0, length)
}

function wrongMac(id: Uint8Array): IntegrityError {
  return new IntegrityError(`Chunk ${idHex(id)}: Encryption envelope checksum mismatch`)
}

function makeEnvelope(encKey: KeyObject | undefined, hmacKey: KeyObject, idKey: KeyObject): NativeEnvelope | undefined {
  const raw = [encKey?.export() ?? noHead, hmacKey.export(), idKey.export()] as const
  try {
    return native().makeEnvelope(...raw, hashFastest)
  } finally {
    for (const bytes of raw) wipe(bytes)
  }
}

let plainCrypto = false

/** For tests: keys made from now on use node:crypto alone, which the addon's one-pass code is held against. */
export function usePlainCrypto(plain: boolean): void {
  plainCrypto = plain
}

/** The key of mode none. */
export function plaintextKey(): Key {
  return new PlaintextKey()
}

/** The key of any other mode. The secrets are taken over and wiped. */
export function keyFromSecrets(type: KeyType, secrets: Secrets, logicallyUnencrypted: boolean): Key {
  const keys = { encKey: createSecretKey(secrets.encKey), encHmacKey: createSecretKey(secrets.encHmacKey), idKey: createSecretKey(secrets.idKey) }
  const facts = { chunkSeed: secrets.chunkSeed, tamRequired: secrets.tamRequired, logicallyUnencrypted }
  wipeSecrets(secrets)
  return type.encrypted ? new EncryptedKey(type, facts, keys) : new AuthenticatedKey(type, facts, keys)
}

/** The same key in another thread. */
export function keyFromMaterial(material: KeyMaterial): Key {
  const type = keyTypeOf(material.type)!
  const { encKey, encHmacKey, idKey } = material
  if (!encKey || !encHmacKey || !idKey) return new PlaintextKey()
  return type.encrypted ? new EncryptedKey(type, material, { encKey, encHmacKey, idKey }) : new AuthenticatedKey(type, material, { encKey, encHmacKey, idKey })
}

/**
 * An encrypting key (envelopes as mode repokey's) for something of the client's own beside the repository, named by `purpose`: another for
 * each `salt`, with nonces of its own. See Key.derive.
 */
export function purposeKey(key: Key, salt: Uint8Array, purpose: string): Key {
  const derive = (part: string): KeyObject => key.derive(salt, purpose + part, 32)
  const facts = { chunkSeed: 0, tamRequired: true, logicallyUnencrypted: false }
  return new EncryptedKey(keyTypeOfMode('repokey'), facts, { encKey: derive(''), encHmacKey: derive('-mac'), idKey: derive('-id') })
}
