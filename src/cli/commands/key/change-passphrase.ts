/** `key change-passphrase` (commands.md §9). */
import { Passphrases } from '../../../engine/crypto/passphrase.js'
import { changePassphrase } from '../../../engine/operations/keys.js'
import type { Command } from '../../command.js'
import { print } from '../../output/stdout.js'

export const keyChangePassphrase: Command = async context => {
  const location = context.location('repository')
  const repository = await context.openLocal(location, 'shared')
  const changed = await changePassphrase(repository, {
    places: context.places, passphrases: new Passphrases(context.env, context.prompt), questions: context.prompt, operation: 'check',
  }, location)
  if (!changed) {
    // Borg says this on stdout.
    print('This repository is not encrypted, cannot change the passphrase.\n')
    return context.exit.force(2)
  }
  context.log.message('info', 'borg.archiver', 'Key updated')
  context.log.message('info', 'borg.archiver', `Key location: ${changed.place}`)
}
