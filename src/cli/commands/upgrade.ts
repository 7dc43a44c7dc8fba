/** `upgrade` (commands.md §9). Repositories of Attic are Borg's to convert. */
import { parseTimestamp } from '../../engine/archive/timestamps.js'
import { Passphrases } from '../../engine/crypto/passphrase.js'
import { BorgError } from '../../engine/errors.js'
import { idHex } from '../../engine/ids.js'
import { disableTam, enableTam, type TamListener } from '../../engine/operations/upgrade.js'
import { AtticRepository } from '../../engine/repository/errors.js'
import type { LocalRepository } from '../../engine/repository/local-repository.js'
import { bytesOf, shownText } from '../../engine/text.js'
import type { Command } from '../command.js'
import { print } from '../output/stdout.js'
import { formatTime } from '../output/units.js'

const topic = 'borg.upgrader'

export const upgrade: Command = async context => {
  const { log } = context
  const location = context.location('repository')
  let repository: LocalRepository
  try {
    repository = await context.openLocal(location, 'exclusive')
  } catch (error) {
    if (error instanceof AtticRepository) throw new BorgError('Repository.AtticRepository', `${context.localPath(location)} is an Attic repository, which borgfs does not convert. Run "borg upgrade" of Borg 1.2 on it.`, 11)
    throw error
  }
  const options = {
    places: context.places, passphrases: new Passphrases(context.env, context.prompt), typed: location, dryRun: context.flag('dry-run'),
  }
  const listener: TamListener = {
    manifestContents: archives => {
      print('Manifest contents:\n')
      for (const { name, id, time } of archives) {
        const shown = formatTime(parseTimestamp(time) ?? 0)
        // Borg tells the id twice.
        print(`${shownText(bytesOf(name)).padEnd(36)} ${shown} [${idHex(id)}] [${idHex(id)}]\n`)
      }
    },
    keyUpdated: place => print(`Key updated\nKey location: ${place}\n`),
    securityUpdated: () => print('Updated security database\n'),
    notVerifying: () => log.message('warning', 'borg.crypto.key', 'Manifest authentication DISABLED.'),
  }
  if (context.flag('tam')) {
    if (await enableTam(repository, { ...options, operation: 'check', force: context.flag('force') }, listener)) return
    // Borg says this on stdout.
    print('This repository is not encrypted, cannot enable TAM.\n')
    context.exit.force(2)
  } else if (context.flag('disable-tam')) await disableTam(repository, { ...options, operation: 'unchecked' }, listener)
  else {
    log.always(topic)
    log.message('info', topic, `${repository.location} is a repository of Borg already: there is nothing to convert.`)
  }
}
