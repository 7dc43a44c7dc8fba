/** `key migrate-to-repokey` (commands.md §9). */
import { Passphrases } from '../../../engine/crypto/passphrase.js'
import { migrateToRepokey } from '../../../engine/operations/keys.js'
import type { Command } from '../../command.js'

export const keyMigrateToRepokey: Command = async context => {
  const repository = await context.openLocal(context.location('repository'), 'shared')
  const { tamMissing } = await migrateToRepokey(repository, { places: context.places, passphrases: new Passphrases(context.env, context.prompt) })
  context.log.message('info', 'borg.archiver', 'Key updated')
  if (tamMissing) {
    context.log.message('warning', 'borg.archiver', `The manifest of this repository has no authentication yet, which the new key demands. Run "borg upgrade --tam --force ${repository.location}" once.`)
  }
}
