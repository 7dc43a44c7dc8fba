/** Errors of the client's own memory of repositories (commands.md §4). */
import { BorgError } from '../errors.js'

export class CacheInitAborted extends BorgError {
  constructor() {
    super('Cache.CacheInitAbortedError', 'Cache initialization aborted', 60)
  }
}

export class EncryptionMethodMismatch extends BorgError {
  constructor() {
    super('Cache.EncryptionMethodMismatch', 'Repository encryption method changed since last access, refusing to continue', 61)
  }
}

export class RepositoryAccessAborted extends BorgError {
  constructor() {
    super('Cache.RepositoryAccessAborted', 'Repository access aborted', 62)
  }
}

export class RepositoryIdNotUnique extends BorgError {
  constructor() {
    super('Cache.RepositoryIDNotUnique', 'Cache is newer than repository - do you have multiple, independently updated repos with same ID?', 63)
  }
}

export class RepositoryReplay extends BorgError {
  constructor() {
    super('Cache.RepositoryReplay', 'Cache, or information obtained from the security directory is newer than repository - this is either an attack or unsafe (multiple repos with same ID)', 64)
  }
}
