/** `init` (commands.md). */
import { messageOf } from '../../engine/errors.js'
import { canonical } from '../../engine/location.js'
import { parseSize } from '../../engine/repository/config.js'
import { encryptionModes } from '../../engine/crypto/key.js'
import { Passphrases } from '../../engine/crypto/passphrase.js'
import { initRepository, plannedKeyfile } from '../../engine/operations/init.js'
import { LocalRepository } from '../../engine/repository/local-repository.js'
import { createRepository } from '../../engine/repository/repository-creation.js'
import type { Command } from '../command.js'

const topic = 'borg.archiver'
const smallestQuota = 10_000_000

export const init: Command = async context => {
  const { log } = context
  const location = context.location('repository')
  const path = context.localPath(location)
  const mode = encryptionModes.find(known => known === context.text('encryption'))!
  const quota = context.text('storage-quota')
  const storageQuota = quota === undefined ? undefined : parseSize(quota)
  if (quota !== undefined && storageQuota === undefined) throw context.usage(`argument --storage-quota: invalid parse_storage_quota value: '${quota}'`)
  if (storageQuota !== undefined && storageQuota < smallestQuota) throw context.usage(`argument --storage-quota: quota is too small (${quota}). At least 10M are required.`)

  log.message('info', topic, `Initializing repository at "${canonical(location)}"`)
  const options = { mode, places: context.places, passphrases: new Passphrases(context.env, context.prompt), typedPath: location.path }
  plannedKeyfile(options)
  // What was made so far is removed again, also when a question is not answered.
  const signal = context.signals.answer()
  const undo = createRepository(path, { appendOnly: context.flag('append-only'), makeParentDirs: context.flag('make-parent-dirs'), ...(storageQuota === undefined ? {} : { storageQuota }) })
  let done = false
  context.atEnd(() => {
    if (done) return
    // A repository without a key helps nobody.
    try {
      undo()
    } catch (error) {
      log.message('error', topic, `What was made of the repository could not be removed again (${messageOf(error)}): remove ${path} before you try again.`)
    }
  })
  const repository = await LocalRepository.open(path, { lock: 'exclusive', lockWaitMs: context.lockWaitMs, log })
  context.atEnd(() => repository.close())
  const { keyfile } = await initRepository(repository, options)
  signal.throwIfAborted()
  done = true
  if (mode === 'none') {
    log.message('info', topic, 'Encryption NOT enabled.\nUse the "--encryption=repokey|keyfile" to enable encryption.')
    return
  }
  log.message('info', topic, `Key in "${keyfile ?? canonical(location)}" created.\nKeep this key safe. Your data will be inaccessible without it.`)
  log.message('warning', topic, `\nBy default repositories initialized with this version will produce security\nerrors if written to with an older version (up to and including Borg 1.0.8).\n\nIf you want to use these older versions, you can disable the check by running:\nborg upgrade --disable-tam ${canonical(location)}\n`)
  log.message('warning', topic, '\nIMPORTANT: you will need both KEY AND PASSPHRASE to access this repo!\nKeep a copy of the key in a safe place:\n1. borg key export REPOSITORY encrypted-key-backup\n2. borg key export --paper REPOSITORY encrypted-key-backup.txt\n3. borg key export --qr-html REPOSITORY encrypted-key-backup.html')
}
