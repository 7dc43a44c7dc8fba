import { BorgError, IntegrityError } from '../errors.js'

export class ArchiveDoesNotExist extends BorgError {
  constructor(name: string) {
    super('Archive.DoesNotExist', `Archive ${name} does not exist`, 31)
  }
}

export class ArchiveAlreadyExists extends BorgError {
  constructor(name: string) {
    super('Archive.AlreadyExists', `Archive ${name} already exists`, 30)
  }
}

export class NoManifest extends BorgError {
  constructor() {
    super('NoManifestError', 'Repository has no manifest.', 26)
  }
}

export class UnsupportedManifest extends BorgError {
  constructor() {
    super('UnsupportedManifestError', 'Unsupported manifest envelope. A newer version is required to access this repository.', 27)
  }
}

export class MandatoryFeatureUnsupported extends BorgError {
  constructor(names: readonly string[]) {
    super('MandatoryFeatureUnsupported', `Unsupported repository feature(s) ${names.join(', ')}. A newer version of borg is required to access this repository.`, 25)
  }
}

/** Metadata of an archive that cannot be understood. */
export class ArchiveDamaged extends BorgError {
  constructor(name: string, detail: string) {
    super('Error', `The metadata of archive ${name} is damaged: ${detail}. Run "borg check" on the repository.`, 2)
  }
}

/** Whatever was found wrong with the objects of an archive: Borg's sentence, code and id, with the archive's name and the remedy. */
export function damagedArchive(name: string, problem: BorgError, remedy: string): BorgError {
  return new BorgError(problem instanceof IntegrityError ? 'IntegrityError' : problem.msgid, `${problem.message} Archive ${name} is damaged${remedy}`, problem.exitCode, { cause: problem })
}
