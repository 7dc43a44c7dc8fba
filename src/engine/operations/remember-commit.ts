/**
 * What this client remembers of a repository after its COMMIT, in the security folder. The COMMIT is durable by then: nothing may be
 * called failed any more, and what cannot be noted down is a warning. The next command that opens the repository notes it.
 */
import type { Key } from '../crypto/key.js'
import { errnoOf, messageOf } from '../errors.js'
import type { Log } from '../log.js'
import type { SecurityFolder, SeenManifest } from '../cache/security.js'

export interface CommittedRepository {
  readonly repository: { readonly location: string; readonly log: Log }
  readonly key: Key
  readonly manifest: SeenManifest
  readonly security: SecurityFolder
}

/** Call between COMMIT and saving the cache: a cache that is newer than its repository would count as an attack. */
export function rememberCommit({ repository, key, manifest, security }: CommittedRepository, log: Log = repository.log): void {
  afterCommit({ location: repository.location, log }, () => security.save(repository.location, key, manifest))
}

/** The same for another note in the security folder. Anything but a failing host is thrown. */
export function afterCommit(repository: CommittedRepository['repository'], note: () => void): void {
  try {
    note()
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    repository.log.write('warning', 'borg.archiver', `What was done is saved, but not what this client remembers of the repository ${repository.location}: ${messageOf(error)}`)
  }
}
