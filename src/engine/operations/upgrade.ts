/** `upgrade --tam` and `--disable-tam`: whether the manifest must be authenticated, said in manifest, key and security folder. */
import type { ArchiveInfo } from '../archive/manifest.js'
import { wipe } from '../crypto/blake2b.js'
import { KeyBlobError } from '../crypto/errors.js'
import { keyText, sealKeyBlob } from '../crypto/key-blob.js'
import { KeyStore, type TypedLocation } from '../crypto/key-store.js'
import { keyFromSecrets } from '../crypto/keys.js'
import { keyTypeOf } from '../crypto/key-types.js'
import { copySecrets, type Secrets, wipeSecrets } from '../crypto/secrets.js'
import { manifestId } from '../ids.js'
import type { LocalRepository } from '../repository/local-repository.js'
import { RepoObjects } from '../store/repo-objects.js'
import { type OpenedRepository, openRepository, type OpenRepositoryOptions } from './open.js'
import { rememberCommit } from './remember-commit.js'

export interface TamListener {
  /** Archives of the manifest that becomes authenticated: whoever asks for that should look at them. */
  manifestContents(archives: readonly ArchiveInfo[]): void
  keyUpdated(place: string): void
  securityUpdated(): void
  /** What is demanded of the manifest does not count for this run. */
  notVerifying(): void
}

export interface TamOptions extends Omit<OpenRepositoryOptions, 'unlocked' | 'tamNotRequired' | 'questions'> {
  readonly typed: TypedLocation
  /** Nothing is changed, all is told. */
  readonly dryRun: boolean
}

/** TAM errors unless `force`d. False for a repository without a key: nothing can be done then. The exclusive lock is held. */
export async function enableTam(repository: LocalRepository, options: TamOptions & { readonly force: boolean }, listener: TamListener): Promise<boolean> {
  return withSecrets(repository, options, options.force, listener, async (opened, held) => {
    if (!held) return false
    const { manifest, objects, security } = opened
    // Each step holds without those after it: a manifest with a TAM before a key that demands one, the marker last.
    if (!manifest.tamVerified || manifest.config.get('tam_required') !== true) {
      listener.manifestContents(manifest.sorted())
      manifest.config.set('tam_required', true)
      if (!options.dryRun) await repository.transaction(tx => manifest.write(tx, objects))
    }
    if (!held.secrets.tamRequired) await sealKey(repository, options, held, true, listener, opened.keyfile)
    if (!security.tamRequired) {
      if (!options.dryRun) security.setTamRequired(true)
      listener.securityUpdated()
    }
    if (!options.dryRun && security.known) rememberCommit(opened)
    return true
  })
}

/** The reverse, for use with programs that know no TAM. */
export async function disableTam(repository: LocalRepository, options: TamOptions, listener: TamListener): Promise<void> {
  await withSecrets(repository, options, true, listener, async (opened, held) => {
    const { manifest, security } = opened
    if (!options.dryRun) security.setTamRequired(false)
    if (held?.secrets.tamRequired) await sealKey(repository, options, held, false, listener, opened.keyfile)
    manifest.config.set('tam_required', false)
    if (options.dryRun) return
    // The manifest is written by a key that demands nothing, or it would say so again.
    const key = held ? keyFromSecrets(keyTypeOf(opened.key.type)!, { ...copySecrets(held.secrets), tamRequired: false }, opened.key.logicallyUnencrypted) : opened.key
    await repository.transaction(tx => manifest.write(tx, new RepoObjects(key, opened.nonces, opened.objects.codec)))
    if (security.known) rememberCommit({ repository, key, manifest, security })
    if (held) key.wipe()
  })
}

interface Held {
  readonly secrets: Secrets
  readonly passphrase: Buffer
}

async function withSecrets<T>(repository: LocalRepository, options: TamOptions, tamNotRequired: boolean, listener: TamListener,
  work: (opened: OpenedRepository<LocalRepository>, held: Held | undefined) => Promise<T>): Promise<T> {
  let held: Held | undefined
  let opened: OpenedRepository<LocalRepository> | undefined
  try {
    opened = await openRepository(repository, {
      ...options, tamNotRequired,
      unlocked: (secrets, passphrase) => {
        held = { secrets: copySecrets(secrets), passphrase: Buffer.from(passphrase) }
        if (tamNotRequired && secrets.tamRequired) listener.notVerifying()
      },
    })
    return await work(opened, held)
  } finally {
    opened?.key.wipe()
    if (held) {
      wipeSecrets(held.secrets)
      wipe(held.passphrase)
    }
  }
}

async function sealKey(repository: LocalRepository, options: TamOptions, held: Held, tamRequired: boolean, listener: TamListener, keyfile: string | undefined): Promise<void> {
  if (!options.dryRun) {
    const store = new KeyStore(repository, await repository.get(manifestId), { file: options.places.keyFile, folder: options.places.keys })
    if (!(await store.store(keyText(sealKeyBlob({ ...held.secrets, tamRequired }, held.passphrase)), options.typed))) throw new KeyBlobError('it could not be made anew')
  }
  listener.keyUpdated(keyfile ?? repository.location)
}
