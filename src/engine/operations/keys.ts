/** Keys as their owner handles them: giving away, putting back, changing the passphrase, leaving the passphrase mode (crypto.md §6-8). */
import { Manifest } from '../archive/manifest.js'
import { wipe } from '../crypto/blake2b.js'
import { KeyBlobError, NotABorgKeyFile, RepoIdMismatch } from '../crypto/errors.js'
import { keyText, sealKeyBlob } from '../crypto/key-blob.js'
import { KeyStore, type TypedLocation } from '../crypto/key-store.js'
import { keyfileHeader } from '../crypto/keyfile.js'
import { keyTypeOf, legacyPassphraseType } from '../crypto/key-types.js'
import { keyFromSecrets } from '../crypto/keys.js'
import { legacyPassphraseSecrets } from '../crypto/legacy-passphrase.js'
import type { Passphrases } from '../crypto/passphrase.js'
import { copySecrets, type Secrets, wipeSecrets } from '../crypto/secrets.js'
import { decompress } from '../codec/decompress.js'
import { BorgError, CommandError, IntegrityError } from '../errors.js'
import { manifestId } from '../ids.js'
import type { Places } from '../platform/places.js'
import type { Repository } from '../repository/repository.js'
import { openRepository, type OpenRepositoryOptions } from './open.js'

/** Errors as KeyStore, and NoManifest. */
export async function keyStoreOf(repository: Repository, places: Places): Promise<KeyStore> {
  return new KeyStore(repository, await Manifest.readObject(repository), { file: places.keyFile, folder: places.keys })
}

/** Puts back an exported key. NotABorgKeyFile, RepoIdMismatch. */
export async function importKey(store: KeyStore, repository: Repository, exported: string, typed: TypedLocation): Promise<void> {
  const header = keyfileHeader(repository.id)
  const text = exported.replace(/\r\n?/g, '\n')
  if (!text.startsWith(header)) throw text.startsWith('BORG_KEY') ? new RepoIdMismatch() : new NotABorgKeyFile()
  await storeKey(store, text.slice(header.length), typed)
}

/** Puts back a key that was typed in. */
export async function importPaperKey(store: KeyStore, blob: Buffer, typed: TypedLocation): Promise<void> {
  await storeKey(store, `${keyText(blob)}\n`, typed)
}

async function storeKey(store: KeyStore, text: string, typed: TypedLocation): Promise<void> {
  if (!(await store.store(text, typed))) throw new CommandError('What was given is no key, and the repository has a sound one: nothing was changed. Check the key backup.')
}

/** Returns where the key is kept. CommandError for repositories without a key. */
export async function changePassphrase<R extends Repository>(repository: R, options: OpenRepositoryOptions, typed: TypedLocation): Promise<{ place: string } | undefined> {
  let secrets: Secrets | undefined
  try {
    const { key, keyfile } = await openRepository(repository, { ...options, unlocked: unlocked => (secrets = copySecrets(unlocked)) })
    key.wipe()
    if (!secrets) return undefined
    await sealAnew(await keyStoreOf(repository, options.places), secrets, options.passphrases, typed)
    return { place: keyfile ?? repository.location }
  } finally {
    if (secrets) wipeSecrets(secrets)
  }
}

/** A blob of the same secrets under a new passphrase takes the former one's place. */
async function sealAnew(store: KeyStore, secrets: Secrets, passphrases: Passphrases, typed: TypedLocation): Promise<void> {
  const passphrase = await passphrases.choose()
  try {
    const text = keyText(sealKeyBlob(secrets, passphrase))
    if (!(await store.store(text, typed))) throw new KeyBlobError('it could not be made anew')
  } finally {
    wipe(passphrase)
  }
}

/**
 * Stores the derived keys of a passphrase-mode repository as a repokey; its objects stay as they are. True if its manifest has no
 * TAM, which the repokey demands from now on.
 */
export async function migrateToRepokey(repository: Repository, options: { places: Places; passphrases: Passphrases }): Promise<{ tamMissing: boolean }> {
  const object = await Manifest.readObject(repository)
  if (object[0] !== legacyPassphraseType) {
    throw new BorgError('CommandError', `Repository ${repository.location} is not of the old passphrase mode: there is nothing to migrate.`, 4)
  }
  let secrets: Secrets | undefined
  let manifest: Buffer | undefined
  try {
    await options.passphrases.unlock(repository.location, passphrase => {
      const derived = legacyPassphraseSecrets(passphrase, repository.id)
      manifest = opened(object, copySecrets(derived))
      if (manifest) secrets = derived
      else wipeSecrets(derived)
      return manifest
    })
    const plain = await decompress(manifest!)
    await sealAnew(new KeyStore(repository, object, { file: options.places.keyFile, folder: options.places.keys }), secrets!, options.passphrases, { path: '' })
    return { tamMissing: !plain.includes('HKDF_HMAC_SHA512') }
  } finally {
    if (secrets) wipeSecrets(secrets)
  }
}

/** The payload, if these are the secrets that it was sealed with; they are wiped. */
function opened(object: Buffer, secrets: Secrets): Buffer | undefined {
  const key = keyFromSecrets(keyTypeOf(legacyPassphraseType)!, secrets, false)
  try {
    return key.open(object, manifestId)
  } catch (error) {
    if (error instanceof IntegrityError) return undefined
    throw error
  } finally {
    key.wipe()
  }
}
