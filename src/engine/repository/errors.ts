/** Errors of repositories and locks with Borg's ids, sentences and codes (commands.md §4). */
import { BorgError, IntegrityError } from '../errors.js'
import { idHex } from '../ids.js'

const repositoryError = (name: string, exitCode: number, sentence: (location: string, detail: string) => string) =>
  class extends BorgError {
    constructor(location: string, detail = '', options?: ErrorOptions) {
      super(`Repository.${name}`, sentence(location, detail), exitCode, options)
    }
  }

export const DoesNotExist = repositoryError('DoesNotExist', 13, location => `Repository ${location} does not exist.`)
export const AlreadyExists = repositoryError('AlreadyExists', 10, location => `A repository already exists at ${location}.`)
export const PathAlreadyExists = repositoryError('PathAlreadyExists', 19, location => `There is already something at ${location}.`)
export const ParentPathDoesNotExist = repositoryError('ParentPathDoesNotExist', 18, location => `The parent path of the repo directory [${location}] does not exist.`)
export const PathPermissionDenied = repositoryError('PathPermissionDenied', 21, location => `Permission denied to ${location}.`)
export const InvalidRepository = repositoryError('InvalidRepository', 15, location => `${location} is not a valid repository. Check repo config.`)
export const InvalidRepositoryConfig = repositoryError('InvalidRepositoryConfig', 16, (location, detail) => `${location} does not have a valid configuration. Check repo config [${detail}].`)
export const AtticRepository = repositoryError('AtticRepository', 11, location => `Attic repository detected. Please run "borg upgrade ${location}".`)
export const CheckNeeded = repositoryError('CheckNeeded', 12, location => `Inconsistency detected. Please run "borg check ${location}".`)
export const InsufficientFreeSpace = repositoryError('InsufficientFreeSpaceError', 14, (_location, detail) => `Insufficient free space to complete transaction ${detail}.`)
export const StorageQuotaExceeded = repositoryError('StorageQuotaExceeded', 20, (_location, detail) => `The storage quota ${detail}. Try deleting some archives.`)

export class ObjectNotFound extends BorgError {
  readonly id: Uint8Array
  constructor(id: Uint8Array, location: string) {
    super('Repository.ObjectNotFound', `Object with key ${idHex(id)} not found in repository ${location}.`, 17)
    this.id = id
  }
}

/** Another client committed although this one held a lock: somebody broke it. */
export class ChangedMeanwhile extends BorgError {
  constructor(location: string) {
    super('Error', `Another program changed ${location} since this one looked at it. Nothing was saved. Run the command again.`)
  }
}

/** A transaction was committed, but its COMMIT is not to be found: who writes now would throw away what was called saved. */
export class CommitLost extends BorgError {
  constructor(location: string, transaction: number) {
    super('Repository.CheckNeeded', `Transaction ${transaction} of ${location} was saved, but its COMMIT is damaged or missing, and to go on would throw it away. Nothing was changed. Please run "borg check --repair ${location}".`, 12)
  }
}

/** A damaged entry of a segment. `more` stands behind the place. */
export class SegmentError extends IntegrityError {
  constructor(detail: string, segment: number, offset: number, more = '') {
    super(`${detail} [segment ${segment}, offset ${offset}]${more}`)
  }

  /** From the sentence of one that another thread met. */
  static of(message: string): SegmentError {
    const error = new SegmentError('', 0, 0)
    error.message = message
    return error
  }
}

/** What append-only mode forbids. Borg has no class for it and shows a traceback that begins like this. */
export class AppendOnly extends BorgError {
  /** `undone`: what did not happen, as a sentence. */
  constructor(location: string, undone?: string) {
    super('ValueError', `${location} is in append-only mode${undone === undefined ? '' : `. ${undone} To do it, end that mode first: "borg config ${location} append_only 0".`}`)
  }
}

export class LockTimeout extends BorgError {
  constructor(path: string) {
    super('LockTimeout', `Failed to create/acquire the lock ${path} (timeout).`, 73)
  }
}

export class LockFailed extends BorgError {
  constructor(path: string, reason: string, options?: ErrorOptions) {
    super('LockFailed', `Failed to create/acquire the lock ${path} (${reason}).`, 72, options)
  }
}

export class LockMalformed extends BorgError {
  constructor(path: string, name: string) {
    super('LockErrorT', `Failed to acquire the lock ${path}: it holds a file that is no lock, "${name}". Remove it with "borg break-lock".`, 71)
  }
}

/** Somebody ran break-lock, or took this process for dead, while it was at work. */
export class LockLost extends BorgError {
  constructor(path: string) {
    super('NotMyLock', `The lock ${path} was broken while this command was running, and another program may have written since: nothing further is saved. Run the command again.`, 75)
  }
}
