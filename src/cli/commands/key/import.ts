/** `key import` (commands.md §9). */
import { existsSync, readFileSync } from 'node:fs'
import { RepoIdMismatch } from '../../../engine/crypto/errors.js'
import { PaperKeyReader } from '../../../engine/crypto/paper-key.js'
import { CommandError } from '../../../engine/errors.js'
import { importKey, importPaperKey, keyStoreOf } from '../../../engine/operations/keys.js'
import type { Command } from '../../command.js'
import type { CommandContext } from '../../context.js'
import { flushOutput, print } from '../../output/stdout.js'
import { readLine } from '../../prompt.js'

export const keyImport: Command = async context => {
  const location = context.location('repository')
  const path = context.positional('path')[0]
  const repository = await context.openLocal(location, 'none')
  const store = await keyStoreOf(repository, context.places)
  if (context.flag('paper')) {
    if (path !== undefined) throw new CommandError('with --paper import from file is not supported')
    const blob = await readPaper(context, repository.id)
    if (blob) await importPaperKey(store, blob, location)
    return
  }
  if (path === undefined) throw new CommandError('input file to import key from expected')
  if (path !== '-' && !existsSync(path)) throw new CommandError(`input file does not exist: ${path}`)
  await importKey(store, repository, readFileSync(path === '-' ? 0 : path, 'latin1'), location)
}

/** Asks line by line, on stdout as Borg does; undefined if it was given up. */
async function readPaper(context: CommandContext, repositoryId: Buffer): Promise<Buffer | undefined> {
  const reader = new PaperKeyReader(repositoryId)
  for (;;) {
    print(reader.prompt)
    flushOutput()
    const line = (await readLine(context.signal))?.replace(/\r$/, '')
    if (line === undefined || (line.replaceAll(' ', '') === '' && (await context.prompt.confirmTyped('Abort import? [yN]:')))) {
      print('\n - aborted\n')
      return undefined
    }
    const taken = reader.take(line)
    switch (taken.kind) {
      case 'next': break
      case 'again': print(`${taken.why}\n`); break
      case 'other repository': throw new RepoIdMismatch()
      case 'complete': return taken.blob
    }
  }
}
