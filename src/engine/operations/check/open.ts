/** A repository as check needs it: usable without its manifest, which may be what is damaged. */
import { lz4 } from '../../codec/lz4.js'
import { SecurityFolder } from '../../cache/security.js'
import { keyTypeOf } from '../../crypto/key-types.js'
import type { Key } from '../../crypto/key.js'
import { NonceSource } from '../../crypto/nonces.js'
import { BorgError, IntegrityError } from '../../errors.js'
import { type ChunkId, manifestId } from '../../ids.js'
import type { LocalRepository } from '../../repository/local-repository.js'
import { RepoObjects } from '../../store/repo-objects.js'
import { type LoadKeyOptions, loadKeyFor } from '../open.js'
import { inLogOrder } from './log-order.js'

export interface CheckedRepository {
  readonly repository: LocalRepository
  readonly key: Key
  readonly objects: RepoObjects
  readonly security: SecurityFolder
}

/** Objects whose type byte is looked at: damage of one must not decide. */
const voters = 9
const maxTries = 999

/**
 * Key errors; IntegrityError if no object tells the type of the key. `willWrite`: nonces are set aside that surely nobody used,
 * even if manifest and nonce files are lost.
 */
export async function openForCheck(repository: LocalRepository, options: LoadKeyOptions, willWrite: boolean): Promise<CheckedRepository> {
  const manifestObject = readable(repository, manifestId)
  const key = await loadKeyFor(repository, typicalObject(repository, manifestObject, await repository.list(undefined, maxTries)), options)
  const security = new SecurityFolder(options.places, repository.id)
  let bound = 0n
  if (key.encrypted && willWrite) {
    bound = manifestObject && manifestObject.length >= 41 ? boundOf(key, manifestObject) : 0n
    if (bound === 0n || (await repository.freeNonce()) === undefined) bound = highestNonce(repository, key, bound)
  }
  const objects = new RepoObjects(key, new NonceSource(repository, security, bound), lz4)
  return { repository, key, objects, security }
}

function readable(repository: LocalRepository, id: ChunkId): Buffer | undefined {
  try {
    return repository.getSync(id)
  } catch (error) {
    if (error instanceof BorgError) return undefined
    throw error
  }
}

/** An object of the type that most of a few have. */
function typicalObject(repository: LocalRepository, manifestObject: Buffer | undefined, sample: readonly ChunkId[]): Buffer {
  const votes = new Map<number, { count: number; object: Buffer }>()
  let seen = 0, tries = 0
  const vote = (object: Buffer | undefined): void => {
    const type = keyTypeOf(object?.[0] ?? -1)
    if (!object || !type) return
    seen++
    const { count } = votes.get(type.type) ?? { count: 0 }
    votes.set(type.type, { count: count + 1, object })
  }
  vote(manifestObject)
  for (const id of sample) {
    if (seen >= voters || ++tries > maxTries) break
    if (!id.equals(manifestId)) vote(readable(repository, id))
  }
  if (votes.size === 0) throw new IntegrityError(tries === 0 ? 'make_key: repository has no chunks at all!' : `make_key: failed to create the key (tried ${tries} chunks)`)
  return [...votes.values()].sort((a, b) => b.count - a.count)[0]!.object
}

function boundOf(key: Key, object: Buffer): bigint {
  return key.nonceOf(object) + BigInt(Math.ceil(object.length / 16))
}

/** Behind the counter values of every object: what remains to go by when both nonce files and the manifest may be lost. */
function highestNonce(repository: LocalRepository, key: Key, atLeast: bigint): bigint {
  let highest = atLeast
  for (const id of inLogOrder(repository.indexInMemory())) {
    const object = readable(repository, id)
    if (object && object.length >= 41 && boundOf(key, object) > highest) highest = boundOf(key, object)
  }
  return highest
}
