/** From an opened store to a usable repository: key, manifest, security checks. */
import { lz4, readyLz4 } from '../codec/lz4.js'
import { Manifest, type OperationClass } from '../archive/manifest.js'
import { SecurityFolder, type SecurityQuestions } from '../cache/security.js'
import { KeyBlobError, RepoKeyNotFoundError, UnsupportedPayloadError } from '../crypto/errors.js'
import { readySodium } from '../crypto/blake2b.js'
import { Derivation } from '../crypto/derivation.js'
import { beginOpening, keyBlobOf, openKeyBlobAsync } from '../crypto/key-blob.js'
import { findKeyfile } from '../crypto/keyfile.js'
import type { Key } from '../crypto/key.js'
import { keyTypeOf } from '../crypto/key-types.js'
import { keyFromSecrets, plaintextKey } from '../crypto/keys.js'
import { NonceSource } from '../crypto/nonces.js'
import type { Passphrases } from '../crypto/passphrase.js'
import type { Secrets } from '../crypto/secrets.js'
import type { Places } from '../platform/places.js'
import type { RepositoryConfig } from '../repository/config.js'
import type { Repository } from '../repository/repository.js'
import { RepoObjects } from '../store/repo-objects.js'

export interface OpenRepositoryOptions {
  readonly places: Places
  readonly passphrases: Passphrases
  /** Who answers for what this client knows of the repository. Absent: that is not asked for, and nothing is refused. */
  readonly questions?: SecurityQuestions
  /** undefined: nothing that features could forbid, such as deleting the whole. */
  readonly operation: OperationClass | undefined
  /** Called with the secrets of the key before they are taken into it and wiped, for who has to write the key anew. */
  readonly unlocked?: (secrets: Secrets, passphrase: Buffer) => void
  /** A manifest without TAM is taken all the same: for who is about to decide about that. */
  readonly tamNotRequired?: boolean
  /** What beginUnlocking began. */
  readonly derivation?: Derivation
  /** False: neither asks whether this repository may be used nor remembers it. */
  readonly checkSecurity?: boolean
}

export interface OpenedRepository<R extends Repository = Repository> {
  readonly repository: R
  readonly key: Key
  /** Path of the key file, for modes that have one. */
  readonly keyfile: string | undefined
  readonly manifest: Manifest
  readonly objects: RepoObjects
  readonly nonces: NonceSource
  readonly security: SecurityFolder
}

/** Errors of key, passphrase, manifest and security; the repository stays the caller's to close. */
export async function openRepository<R extends Repository>(repository: R, options: OpenRepositoryOptions): Promise<OpenedRepository<R>> {
  const object = await Manifest.readObject(repository)
  const security = new SecurityFolder(options.places, repository.id)
  const { key, keyfile } = await loadKey(repository, object, options, security)
  const bound = key.encrypted ? key.nonceOf(object) + BigInt(Math.ceil(object.length / 16)) : 0n
  const nonces = new NonceSource(repository, security, bound)
  const objects = new RepoObjects(key, nonces, lz4)
  const manifest = await Manifest.load(object, objects, repository.location, options.operation, options.tamNotRequired ? false : key.tamRequired)
  if (options.checkSecurity === false) return { repository, key, keyfile, manifest, objects, nonces, security }
  if (manifest.tamVerified || !options.tamNotRequired) security.setTamRequired(manifest.config.get('tam_required') === true)
  if (options.questions) await security.check(repository.location, key, manifest, options.questions)
  return { repository, key, keyfile, manifest, objects, nonces, security }
}

/** What the key, and a new manifest, will take, loaded while the key is still being derived. */
function readyAddons(operation: OperationClass | undefined): void {
  readySodium()
  if (operation === 'write' || operation === 'delete') readyLz4()
}

export type LoadKeyOptions = Pick<OpenRepositoryOptions, 'places' | 'passphrases' | 'unlocked' | 'derivation'> & { readonly operation?: OperationClass | undefined }

/**
 * Begins to derive the key of a repository of which no more than the config is known, if a passphrase is at hand: to be called as
 * early as possible. Asks nobody, and no error is told before openRepository comes to it.
 */
export function beginUnlocking(config: RepositoryConfig, options: Pick<OpenRepositoryOptions, 'places' | 'passphrases'>): Derivation {
  const derivation = new Derivation()
  const passphrase = options.passphrases.atHand
  if (passphrase === undefined) return derivation
  let text = config.keyText
  try {
    text ??= findKeyfile({ file: options.places.keyFile, folder: options.places.keys }, config.id, '').text
  } catch {
    // No key is needed, or it is missing: the type of the manifest will tell.
    return derivation
  }
  beginOpening(keyBlobOf(text), passphrase, derivation)
  return derivation
}

/** The key that a stored object tells the type of: for what must not depend on the manifest. Nothing is checked. */
export async function loadKeyFor(repository: Repository, object: Buffer, options: LoadKeyOptions): Promise<Key> {
  return (await loadKey(repository, object, options, new SecurityFolder(options.places, repository.id))).key
}

async function loadKey(repository: Repository, manifestObject: Buffer, options: LoadKeyOptions, security: SecurityFolder): Promise<{ key: Key; keyfile: string | undefined }> {
  const type = keyTypeOf(manifestObject[0] ?? -1)
  if (!type) throw new UnsupportedPayloadError(manifestObject[0] ?? -1)
  if (type.kept === 'nowhere') return { key: plaintextKey(), keyfile: undefined }
  let text: string | undefined
  let keyfile: string | undefined
  if (type.kept === 'keyfile') {
    const found = findKeyfile({ file: options.places.keyFile, folder: options.places.keys }, repository.id, repository.location)
    text = found.text
    keyfile = found.path
  } else {
    text = await repository.loadKey()
    if (text === undefined) throw new RepoKeyNotFoundError(repository.location)
  }
  const blob = keyBlobOf(text)
  if (blob.length === 0) throw new KeyBlobError('it is no base64')
  const derivation = options.derivation ?? new Derivation()
  const { value, empty } = await options.passphrases.unlock(keyfile ?? repository.location, async passphrase => {
    const opening = openKeyBlobAsync(blob, passphrase, security.tamRequired, derivation)
    readyAddons(options.operation)
    const secrets = await opening
    if (secrets) options.unlocked?.(secrets, passphrase)
    return secrets
  })
  const unencrypted = !type.encrypted || (type.kept === 'repository' && empty)
  return { key: keyFromSecrets(type, value, unencrypted), keyfile }
}
