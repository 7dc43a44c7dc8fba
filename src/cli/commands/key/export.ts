/** `key export` (commands.md §9). */
import { keyBlobOf } from '../../../engine/crypto/key-blob.js'
import { paperKey } from '../../../engine/crypto/paper-key.js'
import { keyStoreOf } from '../../../engine/operations/keys.js'
import type { Command } from '../../command.js'
import { writeAnswer } from '../../output/answer-file.js'

export const keyExport: Command = async context => {
  const repository = await context.openLocal(context.location('repository'), 'none')
  const store = await keyStoreOf(repository, context.places)
  const path = context.positional('path')[0] ?? '-'
  const text = await store.exported()
  const paper = (): string => paperKey(keyBlobOf(text.slice(text.indexOf('\n') + 1)), repository.id)
  if (context.flag('paper')) writeAnswer(path, paper())
  else if (context.flag('qr-html')) writeAnswer(path, (await import('../../output/key-page.js')).keyPage(text, paper()))
  else writeAnswer(path, Buffer.from(text, 'latin1'))
}
