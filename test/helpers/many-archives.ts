/** Repositories of many small archives, written by the engine in one transaction: as many runs of a program would take minutes. */
import { encodeMetadata } from '../../src/engine/archive/archive-metadata.js'
import { Passphrases } from '../../src/engine/crypto/passphrase.js'
import { openRepository } from '../../src/engine/operations/open.js'
import { placesOf } from '../../src/engine/platform/places.js'
import { LocalRepository } from '../../src/engine/repository/local-repository.js'
import type { Sandbox } from './sandbox.js'

/** Adds empty archives with these names and start times (UTC, as stored) to a repository of the sandbox. */
export async function addEmptyArchives(sandbox: Sandbox, repositoryName: string, archives: Iterable<readonly [name: string, time: string]>): Promise<void> {
  const env = sandbox.env()
  const repository = await LocalRepository.open(sandbox.path(repositoryName), { lock: 'exclusive', lockWaitMs: 1000, log: { write: () => undefined } })
  try {
    const prompt = { ask: () => Promise.resolve(undefined), say: () => undefined, confirm: () => Promise.resolve(true) }
    const { key, objects, manifest } = await openRepository(repository, { places: placesOf(env), passphrases: new Passphrases(env, prompt), questions: prompt, operation: 'write' })
    await repository.transaction(async tx => {
      const text = (value: string): Buffer => Buffer.from(value)
      for (const [name, time] of archives) {
        const facts = { comment: text(''), hostname: text('h'), username: text('u'), cmdline: [text('borg')], time, timeEnd: time, chunkerParams: ['buzhash', 19, 23, 21, 4095] as const }
        const plain = encodeMetadata(name, facts, { size: 0, csize: 0, nfiles: 0 }, [], key)
        const id = key.idHash(plain)
        await tx.put(id, await objects.seal(plain))
        manifest.archives.set(name, { name, id, time })
      }
      await manifest.write(tx, objects)
    })
    key.wipe()
  } finally {
    await repository.close()
  }
}
