/** A repository of the passphrase mode, which no program makes any more, by Borg's own class. */
import { borgPython } from './borg-repository.js'
import type { Sandbox } from './sandbox.js'

const driver = String.raw`
import sys
from borg.logger import setup_logging
setup_logging()
from borg.repository import Repository
from borg.helpers import Manifest, Location
from borg.crypto.key import PassphraseKey
repository = Repository(sys.argv[1], create=True, exclusive=True)
repository._location = Location(sys.argv[1])
with repository:
    key = PassphraseKey.create(repository, None)
    manifest = Manifest(key, repository)
    manifest.key = key
    manifest.write()
    repository.commit(compact=False)
`

/** At `path` below the sandbox's folder; its passphrase is BORG_PASSPHRASE. */
export function makePassphraseMode(sandbox: Sandbox, path: string, env: Record<string, string> = {}): void {
  sandbox.run(borgPython!, ['-c', driver, sandbox.path(path)], { env })
}
