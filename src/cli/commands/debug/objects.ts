/** What the commands on objects share: ids as they are typed, and the key without a manifest. */
import { Passphrases } from '../../../engine/crypto/passphrase.js'
import type { Key } from '../../../engine/crypto/key.js'
import { type ChunkId, chunkId } from '../../../engine/ids.js'
import { loadKeyFor } from '../../../engine/operations/open.js'
import type { LocalRepository } from '../../../engine/repository/local-repository.js'
import { BorgError } from '../../../engine/errors.js'
import type { CommandContext } from '../../context.js'

/** The id, or why it is none, in the words of Python. */
export function parseId(text: string): ChunkId | string {
  if (!/^[0-9a-fA-F]*$/.test(text)) return text.length % 2 ? 'Odd-length string' : 'Non-hexadecimal digit found'
  if (text.length % 2) return 'Odd-length string'
  return text.length === 64 ? chunkId(Buffer.from(text, 'hex')) : 'id must be 256bits or 64 hex digits'
}

/** The key, its type told by any object that there is. */
export async function keyByObject(context: CommandContext, repository: LocalRepository, object: Buffer | undefined): Promise<Key> {
  const any = object ?? (await firstObject(repository))
  const key = await loadKeyFor(repository, any, { places: context.places, passphrases: new Passphrases(context.env, context.prompt) })
  context.atEnd(() => key.wipe())
  return key
}

async function firstObject(repository: LocalRepository): Promise<Buffer> {
  const [id] = await repository.list(undefined, 1)
  if (!id) throw new BorgError('Error', `Repository ${repository.location} holds no object.`)
  return repository.get(id)
}
