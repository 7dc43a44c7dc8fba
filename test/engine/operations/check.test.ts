/** check where Borg is weaker, or would do harm: chunk sizes that disagree, a key that is not the repository's, authentication. */
import test, { type ExecutionContext } from 'ava'
import { readFileSync, writeFileSync } from 'node:fs'
import { ChunkList } from '../../../src/engine/archive/chunk-list.js'
import { Manifest } from '../../../src/engine/archive/manifest.js'
import { chunkerFor, parseChunkerParams } from '../../../src/engine/chunker/params.js'
import { lz4 } from '../../../src/engine/codec/lz4.js'
import { Passphrases } from '../../../src/engine/crypto/passphrase.js'
import { packWithTam } from '../../../src/engine/crypto/tam.js'
import { idHex } from '../../../src/engine/ids.js'
import { silentLog } from '../../../src/engine/log.js'
import { unpackMap } from '../../../src/engine/msgpack.js'
import { checkArchives, type ArchivesCheckOptions } from '../../../src/engine/operations/check-archives.js'
import type { Finding } from '../../../src/engine/operations/check/finding.js'
import { inLogOrder } from '../../../src/engine/operations/check/log-order.js'
import { type OpenedRepository, openRepository } from '../../../src/engine/operations/open.js'
import { storeArchive } from '../../../src/engine/operations/store-archive.js'
import { placesOf } from '../../../src/engine/platform/places.js'
import { LocalRepository } from '../../../src/engine/repository/local-repository.js'
import { Workers } from '../../../src/engine/store/workers.js'
import { Sandbox } from '../../helpers/sandbox.js'

const noPrompt = { ask: () => Promise.resolve(undefined), say: () => undefined, confirm: () => Promise.resolve(true), confirmTyped: () => true }

async function within(mode: string, work: (sandbox: Sandbox) => Promise<void>): Promise<void> {
  const sandbox = new Sandbox('check-engine')
  try {
    sandbox.sh('mkdir source; head -c 50000 /dev/urandom > source/file; echo small > source/small')
    sandbox.borgfs(['init', '-e', mode, 'repo'])
    sandbox.borgfs(['create', 'repo::sound', 'source'])
    await work(sandbox)
  } finally {
    sandbox.close()
  }
}

function keyOptions(sandbox: Sandbox): ArchivesCheckOptions['key'] {
  const env = sandbox.env()
  return { places: placesOf(env), passphrases: new Passphrases(env, noPrompt as never) }
}

async function withRepository<T>(sandbox: Sandbox, work: (opened: OpenedRepository<LocalRepository>) => Promise<T>): Promise<T> {
  const repository = await LocalRepository.open(sandbox.path('repo'), { lock: 'exclusive', lockWaitMs: 0, log: silentLog })
  try {
    const opened = await openRepository(repository, { ...keyOptions(sandbox), operation: 'write' })
    return await work(opened)
  } finally {
    await repository.close()
  }
}

async function checked(sandbox: Sandbox, mode: ArchivesCheckOptions['mode'], verifyData = false): Promise<{ sound: boolean; planned: readonly string[]; findings: Finding[] }> {
  const repository = await LocalRepository.open(sandbox.path('repo'), { lock: 'exclusive', lockWaitMs: 0, log: silentLog, readOnly: mode === 'plan' })
  const findings: Finding[] = []
  try {
    const selection = { all: true, choose: (archives: Iterable<{ name: string }>) => Promise.resolve([...archives].sort((a, b) => (a.name < b.name ? -1 : 1)) as never) }
    const result = await checkArchives(repository, { mode, verifyData, crcsVerified: false, selection, key: keyOptions(sandbox) }, { finding: finding => findings.push(finding) })
    return { ...result, findings }
  } finally {
    await repository.close()
  }
}

/** An archive whose one file names the chunk of source/file with another size. */
function storeWrongSize(opened: OpenedRepository<LocalRepository>, name: string): Promise<string> {
  const workers = new Workers({ key: opened.key, codec: lz4, count: 1 })
  return (async () => {
    const plain = readFileSync(`${opened.repository.path}/../source/file`)
    const id = opened.key.idHash(plain)
    const chunks = new ChunkList()
    chunks.add(id, 49_999, 1)
    const item = { path: Buffer.from('file'), mode: 0o100644, uid: 0, gid: 0, user: null, group: null, mtimeNs: 1n }
    const params = parseChunkerParams('default')
    await storeArchive({ opened, workers, codec: lz4, chunker: chunkerFor(params, opened.key.chunkSeed, { sparse: false }) }, name, [{ item, content: { kind: 'chunks', chunks } }],
      () => ({ comment: Buffer.alloc(0), hostname: Buffer.from('h'), username: Buffer.from('u'), cmdline: [], time: '2024-05-01T00:00:00.000000', timeEnd: '2024-05-01T00:00:00.000000', chunkerParams: params }))
    return idHex(id)
  })().finally(() => workers.close())
}

for (const name of ['after', 'zz-later']) {
  for (const verifyData of [false, true]) {
    test.serial(`a chunk size that disagrees is told and corrected (archive ${name}, ${verifyData ? 'with' : 'without'} --verify-data)`, async t => {
      await within('none', async sandbox => {
        const id = await withRepository(sandbox, opened => storeWrongSize(opened, name))
        const found = await checked(sandbox, 'plain', verifyData)
        t.false(found.sound)
        t.deepEqual(found.findings.filter(({ severity }) => severity === 'error').map(({ message }) => message), [`${name}: file: Chunk ${id} has 50000 bytes, but the item says 49999.`])
        const { planned } = await checked(sandbox, 'plan', verifyData)
        t.regex(planned.join('\n'), new RegExp(`Archive ${name} is written anew: 1 wrong sizes corrected\\.`))
        t.true((await checked(sandbox, 'repair', verifyData)).sound)
        t.true((await checked(sandbox, 'plain', verifyData)).sound)
        t.regex(sandbox.borgfs(['extract', `../repo::${name}`], { cwd: sandbox.mkdir('out'), ok: 'any' }).stderr, /^$|size inconsistency/)
        sandbox.sh('cmp source/file out/file')
      })
    })
  }
}

test.serial('a sound archive whose size is told wrongly by an earlier one stays as it is', async t => {
  await within('repokey', async sandbox => {
    await withRepository(sandbox, opened => storeWrongSize(opened, 'before-sound'))
    const before = await withRepository(sandbox, opened => Promise.resolve(idHex(opened.manifest.get('sound').id)))
    const found = await checked(sandbox, 'repair')
    t.is(found.findings.filter(({ severity }) => severity === 'error').length, 1)
    t.is(await withRepository(sandbox, opened => Promise.resolve(idHex(opened.manifest.get('sound').id))), before)
    const again = await checked(sandbox, 'plain', true)
    t.true(again.sound, JSON.stringify(again.findings))
  })
})

test.serial('where not one object opens a repair refuses, whether or not data is verified, and changes nothing', async t => {
  await within('repokey', async sandbox => {
    // Another repository's key under the same passphrase.
    sandbox.borgfs(['init', '-e', 'repokey', 'other'])
    const keyOf = (config: string): string => /^key = [^]*?(?=^\w|(?![^]))/m.exec(config)![0]
    const config = readFileSync(sandbox.path('repo/config'), 'utf8')
    writeFileSync(sandbox.path('repo/config'), config.replace(keyOf(config), keyOf(readFileSync(sandbox.path('other/config'), 'utf8'))))
    sandbox.sh('cp -a repo before')
    for (const verifyData of [false, true]) {
      for (const mode of ['repair', 'plan'] as const) {
        await t.throwsAsync(checked(sandbox, mode, verifyData), { message: /not one object of this repository can be opened with its key/ })
        sandbox.sh('diff -r repo before')
      }
    }
  })
})

/** Gives an archive metadata with a TAM of another key, as a rename by Borg 1.2.4 leaves behind one that does not fit. */
async function spoilTam(t: ExecutionContext, sandbox: Sandbox): Promise<void> {
  await withRepository(sandbox, async ({ repository, manifest, objects, key }) => {
    const info = manifest.get('sound')
    const map = unpackMap(await objects.parse(info.id, await repository.get(info.id)))
    map.set('comment', Buffer.from('changed behind the tag'))
    const { tamKey, ...rest } = { ...key, tamKey: () => Buffer.alloc(64, 1) }
    const plain = packWithTam(map, { ...rest, tamKey } as never, 'archive')
    const id = key.idHash(plain)
    await repository.transaction(async tx => {
      await tx.put(id, await objects.seal(plain))
      await tx.delete(info.id)
      manifest.archives.set('sound', { ...info, id })
      await manifest.write(tx, objects)
    })
  })
  t.pass()
}

test.serial('an archive whose authentication does not verify is told, kept, and not vouched for by a repair', async t => {
  await within('repokey', async sandbox => {
    await spoilTam(t, sandbox)
    const found = await checked(sandbox, 'repair')
    t.true(found.sound)
    t.deepEqual(found.findings.map(({ severity, message }) => [severity, message]), [['warning', 'Archive sound: its authentication does not verify. Borg 1.2.5 and later do not accept it.']])
    t.is((await checked(sandbox, 'plain')).findings.length, 1)
  })
})

test.serial('a lost manifest gives the name to the archive whose authentication verifies, and the other one another', async t => {
  await within('repokey', async sandbox => {
    const genuine = await withRepository(sandbox, opened => Promise.resolve(idHex(opened.manifest.get('sound').id)))
    sandbox.sh('cp -a repo kept')
    await spoilTam(t, sandbox)
    await withRepository(sandbox, async ({ repository, objects, key }) => {
      // The genuine one stands there as well, as after an undone change.
      const kept = await LocalRepository.open(sandbox.path('kept'), { lock: 'none', lockWaitMs: 0, log: silentLog })
      const plain = await objects.parse(Buffer.from(genuine, 'hex') as never, kept.getSync(Buffer.from(genuine, 'hex') as never))
      await kept.close()
      await repository.transaction(async tx => {
        await tx.put(key.idHash(plain), await objects.seal(plain))
        await tx.delete(Buffer.alloc(32) as never)
      })
    })
    t.true((await checked(sandbox, 'repair')).sound)
    await withRepository(sandbox, async ({ manifest }) => {
      t.is(idHex(manifest.get('sound').id), genuine)
      t.deepEqual([...manifest.archives.keys()], ['sound', 'sound.1'])
      t.true(manifest instanceof Manifest)
      await Promise.resolve()
    })
  })
})

test.serial('ids come in the order of the disk, each once', async t => {
  await within('none', async sandbox => {
    for (let number = 0; number < 3; number++) {
      sandbox.sh(`for i in $(seq 20); do echo "${number} $i" > source/f$i; done`)
      sandbox.borgfs(['create', `repo::more-${number}`, 'source'])
    }
    await withRepository(sandbox, ({ repository }) => {
      const places = [...inLogOrder(repository.indexInMemory())].map(id => repository.locate(id))
      t.is(places.length, repository.objectCount)
      for (const [index, place] of places.entries()) {
        const former = places[index - 1]
        t.true(!former || place.segment > former.segment || (place.segment === former.segment && place.offset > former.offset))
      }
      return Promise.resolve()
    })
  })
})
