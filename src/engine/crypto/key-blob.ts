/** The key blob: secrets sealed by a passphrase, as msgpack and as base64 text (crypto.md §5). */
import { createCipheriv, createDecipheriv, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto'
import { type MsgValue, pack, unpackMap } from '../msgpack.js'
import { secured, wipe } from './blake2b.js'
import { equalInConstantTime } from './constant-time.js'
import type { Derivation } from './derivation.js'
import { KeyBlobError } from './errors.js'
import type { Secrets } from './secrets.js'

const iterationsWritten = 100_000
/** More would only be an attempt to keep us busy. */
const maxIterations = 10_000_000
const maxBlobBytes = 4000

interface SealedSecrets {
  readonly data: Buffer
  readonly hash: Buffer
  readonly salt: Buffer
  readonly iterations: number
}

/** The blob's secrets, or undefined if the passphrase is wrong. KeyBlobError if it is no blob. The passphrase is not wiped. */
export function openKeyBlob(blob: Buffer, passphrase: Uint8Array, tamRequiredDefault = false): Secrets | undefined {
  const sealed = sealedSecrets(blob)
  return openSealed(sealed, pbkdf2Sync(passphrase, sealed.salt, sealed.iterations, 32, 'sha256'), tamRequiredDefault)
}

/** The same without blocking; `derivation` may be under way already. */
export async function openKeyBlobAsync(blob: Buffer, passphrase: Uint8Array, tamRequiredDefault: boolean, derivation: Derivation): Promise<Secrets | undefined> {
  const sealed = sealedSecrets(blob)
  return openSealed(sealed, await derivation.take({ passphrase, salt: sealed.salt, iterations: sealed.iterations }), tamRequiredDefault)
}

/** Begins what opening it with this passphrase will need. Nothing happens if it is no blob: opening it will say so. */
export function beginOpening(blob: Buffer, passphrase: Uint8Array, derivation: Derivation): void {
  let sealed: SealedSecrets
  try {
    sealed = sealedSecrets(blob)
  } catch (error) {
    if (!(error instanceof KeyBlobError)) throw error
    return
  }
  // No more than Borg writes: for who asks for ages it shall be certain that the key is wanted.
  if (sealed.iterations <= iterationsWritten) derivation.begin({ passphrase, salt: sealed.salt, iterations: sealed.iterations })
}

function sealedSecrets(blob: Buffer): SealedSecrets {
  const outer = readMap(blob)
  const [algorithm, data, hash, iterations, salt, version] = ['algorithm', 'data', 'hash', 'iterations', 'salt', 'version'].map(name => outer.get(name))
  if (version !== 1) throw new KeyBlobError(`version ${String(version)}`)
  if (!Buffer.isBuffer(algorithm) || algorithm.toString() !== 'sha256') throw new KeyBlobError('unknown algorithm')
  if (!Buffer.isBuffer(data) || !Buffer.isBuffer(hash) || !Buffer.isBuffer(salt) || typeof iterations !== 'number' || iterations < 1 || iterations > maxIterations) {
    throw new KeyBlobError('a field is missing or malformed')
  }
  return { data, hash, salt, iterations }
}

/** `kek` is wiped. */
function openSealed({ data, hash }: SealedSecrets, kek: Buffer, tamRequiredDefault: boolean): Secrets | undefined {
  const inner = createDecipheriv('aes-256-ctr', kek, Buffer.alloc(16)).update(data)
  const found = createHmac('sha256', kek).update(inner).digest()
  wipe(kek)
  if (!equalInConstantTime(found, hash)) {
    wipe(inner)
    return undefined
  }
  try {
    return readSecrets(readMap(inner), tamRequiredDefault)
  } finally {
    wipe(inner)
  }
}

/** Whether bytes have the shape of a key blob; what it holds shows only with the passphrase. */
export function isKeyBlob(blob: Buffer): boolean {
  try {
    const outer = readMap(blob)
    return outer.get('version') === 1 && ['data', 'hash', 'salt'].every(name => Buffer.isBuffer(outer.get(name)))
  } catch {
    return false
  }
}

function readMap(bytes: Buffer): Map<string, MsgValue> {
  if (bytes.length > maxBlobBytes) throw new KeyBlobError('it is too long')
  try {
    return unpackMap(bytes)
  } catch {
    throw new KeyBlobError('it is no msgpack map')
  }
}

function readSecrets(inner: Map<string, MsgValue>, tamRequiredDefault: boolean): Secrets {
  if (inner.get('version') !== 1) throw new KeyBlobError(`inner version ${String(inner.get('version'))}`)
  const bytes = (name: string): Buffer => {
    const value = inner.get(name)
    if (!Buffer.isBuffer(value)) throw new KeyBlobError(`${name} is missing`)
    return value
  }
  const chunkSeed = inner.get('chunk_seed')
  if (typeof chunkSeed !== 'number' || chunkSeed !== (chunkSeed | 0)) throw new KeyBlobError('chunk_seed is missing or too large')
  const lengths: Record<string, readonly number[]> = { enc_key: [32], enc_hmac_key: [32, 128], id_key: [32, 128] }
  for (const [name, allowed] of Object.entries(lengths)) if (!allowed.includes(bytes(name).length)) throw new KeyBlobError(`${name} has ${bytes(name).length} bytes`)
  const tamRequired = inner.get('tam_required')
  return {
    encKey: secured(bytes('enc_key')), encHmacKey: secured(bytes('enc_hmac_key')), idKey: secured(bytes('id_key')),
    chunkSeed, repositoryId: Buffer.from(bytes('repository_id')),
    tamRequired: typeof tamRequired === 'boolean' ? tamRequired : tamRequiredDefault,
  }
}

/** A new blob with a new salt. The secrets are not wiped. */
export function sealKeyBlob(secrets: Secrets, passphrase: Uint8Array, iterations = iterationsWritten): Buffer {
  const inner = pack(new Map<string, MsgValue>([
    ['version', 1], ['repository_id', secrets.repositoryId], ['enc_key', secrets.encKey], ['enc_hmac_key', secrets.encHmacKey],
    ['id_key', secrets.idKey], ['chunk_seed', secrets.chunkSeed], ['tam_required', secrets.tamRequired],
  ]))
  const salt = randomBytes(32)
  const kek = pbkdf2Sync(passphrase, salt, iterations, 32, 'sha256')
  const data = createCipheriv('aes-256-ctr', kek, Buffer.alloc(16)).update(inner)
  const hash = createHmac('sha256', kek).update(inner).digest()
  wipe(kek)
  wipe(inner)
  return pack(new Map<string, MsgValue>([
    ['version', 1], ['salt', salt], ['iterations', iterations], ['algorithm', Buffer.from('sha256')], ['hash', hash], ['data', data],
  ]))
}

/** Base64 in lines of 70 characters, without a final newline. */
export function keyText(blob: Buffer): string {
  return blob.toString('base64').replace(/.{70}(?=.)/g, '$&\n')
}

/** The blob of a key text, whatever its line lengths. */
export function keyBlobOf(text: string): Buffer {
  return Buffer.from(text.replace(/\s+/g, ''), 'base64')
}
