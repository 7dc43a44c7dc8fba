/**
 * Chunks go with an archive to which nothing else in the repository refers; but staged files may be made of them still: of parts of them, where something
 * was written in between, and of all of them, where a file was cloned. Those go to the stash before.
 */
import type { ChunkIndex } from '../../engine/cache/chunk-index.js'
import { idBytes } from '../../engine/constants.js'
import { errnoOf, messageOf } from '../../engine/errors.js'
import { HashTable } from '../../engine/hashindex/hash-table.js'
import { type ChunkId, chunkId } from '../../engine/ids.js'
import type { Log } from '../../engine/log.js'
import { framePut } from '../../engine/repository/entry.js'
import type { LocalRepository } from '../../engine/repository/local-repository.js'
import type { Stash } from '../../engine/store/stash.js'

/** Written to the stash at a time. */
const runBytes = 4 << 20

export interface Departure {
  /** Packed ids of what staged files are made of. */
  readonly needed: Uint8Array
  /** Of all archives. */
  readonly index: ChunkIndex
  /** Of the one that goes. */
  readonly references: ChunkIndex
  /** What another archive is going to refer to by the same transaction. */
  readonly staying: Iterable<ChunkId>
}

/** Whether what is needed is in the stash, durably. The exclusive lock is held. A host that fails is told. */
export async function stashDeparting(departure: Departure, repository: LocalRepository, stash: Stash, log: Log): Promise<boolean> {
  let entries: Buffer[] = [], own: ChunkId[] = [], bytes = 0, any = false
  const flush = async (): Promise<void> => {
    if (own.length > 0) await stash.append(Buffer.concat(entries), own, entries.map(({ length }) => length))
    ;[entries, own, bytes] = [[], [], 0]
  }
  try {
    for (const id of departing(departure)) {
      if (!repository.has(id)) continue
      any = true
      if (stash.has(id)) continue
      entries.push(framePut(id, await repository.get(id)))
      own.push(id)
      bytes += entries.at(-1)!.length
      if (bytes >= runBytes) await flush()
    }
    await flush()
    if (any) await stash.sync()
    return true
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    log.write('warning', 'borg.fuse', `The staging folder cannot take data of an archive: ${messageOf(error)}`)
    return false
  }
}

/** What is needed and would go, once each. */
function* departing({ needed, index, references, staying }: Departure): Generator<ChunkId> {
  const known = new HashTable(1)
  for (const id of staying) known.set(id, 0)
  for (let at = 0; at < needed.length; at += idBytes) {
    const id = chunkId(Buffer.from(needed.subarray(at, at + idBytes)))
    const count = references.refcount(id)
    if (count === 0 || index.refcount(id) > count || known.has(id)) continue
    known.set(id, 0)
    yield id
  }
}
