/** A new repository's key, first manifest and security facts (commands.md, init). */
import { lz4 } from '../codec/lz4.js'
import { Manifest } from '../archive/manifest.js'
import { SecurityFolder } from '../cache/security.js'
import { wipe } from '../crypto/blake2b.js'
import { keyText, sealKeyBlob } from '../crypto/key-blob.js'
import { newKeyfilePath, saveKeyfile } from '../crypto/keyfile.js'
import type { EncryptionMode, Key } from '../crypto/key.js'
import { keyTypeOfMode } from '../crypto/key-types.js'
import { keyFromSecrets, plaintextKey } from '../crypto/keys.js'
import { NonceSource } from '../crypto/nonces.js'
import type { Passphrases } from '../crypto/passphrase.js'
import { newSecrets } from '../crypto/secrets.js'
import { files } from '../platform/files.js'
import type { Places } from '../platform/places.js'
import type { Repository } from '../repository/repository.js'
import { RepoObjects } from '../store/repo-objects.js'
import { afterCommit, rememberCommit } from './remember-commit.js'

export interface InitOptions {
  readonly mode: EncryptionMode
  readonly places: Places
  readonly passphrases: Passphrases
  /** Path as typed, and host of a remote repository: a new key file is named by them. */
  readonly typedPath: string
  readonly host?: string
}

/** Path of a new key file; KeyfileExists. Called before anything is made. */
export function plannedKeyfile(options: InitOptions): string | undefined {
  if (keyTypeOfMode(options.mode).kept !== 'keyfile') return undefined
  return newKeyfilePath({ file: options.places.keyFile, folder: options.places.keys }, options.typedPath, options.host)
}

/** Fills an empty repository, which is locked exclusively. Returns where the key went; leaves no key file when it fails. */
export async function initRepository(repository: Repository, options: InitOptions): Promise<{ key: Key; keyfile: string | undefined }> {
  const saved: { keyfile?: string } = {}
  try {
    return await fill(repository, options, saved)
  } catch (error) {
    try {
      // The key of nothing, which would be in the way of the next attempt if BORG_KEY_FILE names it.
      if (saved.keyfile !== undefined) files.removeIfThere(saved.keyfile)
    } catch {
      // What failed first is what is told.
    }
    throw error
  }
}

async function fill(repository: Repository, options: InitOptions, saved: { keyfile?: string }): Promise<{ key: Key; keyfile: string | undefined }> {
  const type = keyTypeOfMode(options.mode)
  let key = plaintextKey()
  let keyfile: string | undefined
  if (type.kept !== 'nowhere') {
    const passphrase = await options.passphrases.choose()
    const secrets = newSecrets(type, repository.id)
    const text = keyText(sealKeyBlob(secrets, passphrase))
    const empty = passphrase.length === 0
    wipe(passphrase)
    if (type.kept === 'keyfile') {
      keyfile = plannedKeyfile(options)!
      saved.keyfile = keyfile
      saveKeyfile(keyfile, repository.id, text)
    } else await repository.saveKey(text)
    key = keyFromSecrets(type, secrets, !type.encrypted || (type.kept === 'repository' && empty))
  }
  const security = new SecurityFolder(options.places, repository.id)
  const objects = new RepoObjects(key, new NonceSource(repository, security, 0n), lz4)
  const manifest = Manifest.empty(key)
  await repository.transaction(tx => manifest.write(tx, objects))
  afterCommit(repository, () => security.setTamRequired(manifest.config.get('tam_required') === true))
  rememberCommit({ repository, key, manifest, security })
  return { key, keyfile }
}
