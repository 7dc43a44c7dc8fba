/** Errors of keys, passphrases and authentication, with Borg's ids, sentences and codes (commands.md §4). */
import { BorgError, IntegrityError } from '../errors.js'

export class PassphraseWrong extends BorgError {
  constructor() {
    super('PassphraseWrong', 'passphrase supplied in BORG_PASSPHRASE, by BORG_PASSCOMMAND or via BORG_PASSPHRASE_FD is incorrect.', 52)
  }
}

export class PasswordRetriesExceeded extends BorgError {
  constructor() {
    super('PasswordRetriesExceeded', 'exceeded the maximum password retries', 53)
  }
}

export class PasscommandFailure extends BorgError {
  constructor(detail: string) {
    super('PasscommandFailure', `passcommand supplied in BORG_PASSCOMMAND failed: ${detail}`, 51)
  }
}

export class NoPassphraseFailure extends BorgError {
  constructor(env: NodeJS.ProcessEnv) {
    const state = (name: string): string => `${name} is ${env[name] === undefined ? 'not ' : ''}set.`
    super('NoPassphraseFailure', `can not acquire a passphrase: ${state('BORG_PASSPHRASE')} ${state('BORG_PASSCOMMAND')} Interactive password query failed.`, 50)
  }
}

export class KeyfileNotFoundError extends BorgError {
  constructor(location: string, folder: string) {
    super('KeyfileNotFoundError', `No key file for repository ${location} found in ${folder}.`, 42)
  }
}

export class KeyfileInvalidError extends BorgError {
  constructor(location: string, file: string) {
    super('KeyfileInvalidError', `Invalid key file for repository ${location} found in ${file}.`, 40)
  }
}

export class KeyfileMismatchError extends BorgError {
  constructor(location: string, file: string) {
    super('KeyfileMismatchError', `Mismatch between repository ${location} and key file ${file}.`, 41)
  }
}

export class RepoKeyNotFoundError extends BorgError {
  constructor(location: string) {
    super('RepoKeyNotFoundError', `No key entry found in the config of repository ${location}.`, 44)
  }
}

export class KeyBlobError extends BorgError {
  constructor(detail: string) {
    super('Error', `The key is damaged or of an unknown kind: ${detail}.`, 2)
  }
}

export class UnencryptedRepo extends BorgError {
  constructor() {
    super('UnencryptedRepo', 'Keymanagement not available for unencrypted repositories.', 46)
  }
}

export class NotABorgKeyFile extends BorgError {
  constructor() {
    super('NotABorgKeyFile', 'This file is not a borg key backup, aborting.', 43)
  }
}

export class RepoIdMismatch extends BorgError {
  constructor() {
    super('RepoIdMismatch', 'This key backup seems to be for a different backup repository, aborting.', 45)
  }
}

export class UnsupportedPayloadError extends BorgError {
  constructor(type: number) {
    super('UnsupportedPayloadError', `Unsupported payload type ${type}. A newer version is required to access this repository.`, 48)
  }
}

export class NonceError extends BorgError {
  constructor(detail: string) {
    super('Error', detail, 2)
  }
}

export class TamInvalid extends IntegrityError {
  constructor(what: 'manifest' | 'archive') {
    super(what === 'manifest' ? 'Manifest authentication did not verify' : 'Archive authentication did not verify',
      { msgid: what === 'manifest' ? 'TAMInvalid' : 'ArchiveTAMInvalid', exitCode: what === 'manifest' ? 97 : 95 })
  }
}

export class TamRequired extends IntegrityError {
  constructor(location: string) {
    super(`Manifest of repository ${location} is unauthenticated, but it is required`, { msgid: 'TAMRequiredError', exitCode: 98 })
    this.message = `Manifest is unauthenticated, but it is required for this repository (${location}).`
  }
}

export class TamUnsupportedSuite extends IntegrityError {
  constructor(suite: string) {
    super(`Could not verify manifest: Unsupported suite ${suite}; a newer version is needed.`, { msgid: 'TAMUnsupportedSuiteError', exitCode: 99 })
  }
}
