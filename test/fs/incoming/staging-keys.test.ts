import test from 'ava'
import { readFileSync, writeFileSync } from 'node:fs'
import { keyFromMaterial, plaintextKey } from '../../../src/engine/crypto/keys.js'
import type { Key } from '../../../src/engine/crypto/key.js'
import { files, replaceFiles } from '../../../src/engine/platform/files.js'
import { replay } from '../../../src/fs/incoming/journal-replay.js'
import { Nodes, rootId } from '../../../src/fs/incoming/nodes.js'
import { Staging } from '../../../src/fs/incoming/staging.js'
import { openSmall, openStagingKeys, sealSmall, type StagingKeys, takeNonces } from '../../../src/fs/incoming/staging-keys.js'
import { Sandbox } from '../../helpers/sandbox.js'
import { someKey } from '../../helpers/some-key.js'

const facts = { mode: 0o040755, uid: 0, gid: 0, rdev: 0, atimeNs: 0n, mtimeNs: 0n, ctimeNs: 0n }

async function keysOf(folder: string, key: Key): Promise<StagingKeys | undefined> {
  return (await openStagingKeys([folder], key))[0]
}

function open(folder: string, keys: StagingKeys | undefined): Staging {
  return new Staging({ folder, maxBytes: undefined, rootFacts: facts, archiveIds: new Set(), place: 'incoming', keys })
}

/** A tree with a file that has a name, a content and an xattr. */
function fill(staging: Staging, content: string): void {
  const { nodes, journal, spool } = staging
  const tree = nodes.add(nodes.get(rootId)!, 'the-tree', facts)
  journal.created(tree, rootId, 'the-tree')
  const file = nodes.add(tree, 'the-file', { ...facts, mode: 0o100600 })
  journal.created(file, tree.id, 'the-file')
  journal.xattr(file.id, 'user.the-xattr', Buffer.from('the-value'))
  spool.write(file.id, Buffer.from(content), 0, 0)
}

function shown({ nodes, spool }: Staging): string {
  const tree = nodes.child(nodes.get(rootId)!, 'the-tree')!
  const file = nodes.child(tree, 'the-file')!
  const content = Buffer.alloc(file.size)
  spool.read(file.id, content, 0, file.size)
  return `${file.xattrs!.get('user.the-xattr')!.toString()} ${content.toString()}`
}

test('what is staged is found again with the same key, and nothing of it can be read on disk', async t => {
  const sandbox = new Sandbox('staging-keys')
  try {
    const folder = sandbox.mkdir('staging')
    const key = someKey()
    const staging = open(folder, await keysOf(folder, key))
    fill(staging, 'the-content')
    staging.close()
    for (let start = 0; start < 2; start++) {
      const disk = sandbox.sh('cat staging/journal staging/keys staging/spool/*').stdout
      for (const secret of ['the-tree', 'the-file', 'the-xattr', 'the-value', 'the-content', 'content']) t.false(disk.includes(secret), secret)
      const again = open(folder, await keysOf(folder, key))
      t.is(again.lostRecords, 0)
      t.is(shown(again), 'the-value the-content')
      again.close()
    }
  } finally {
    sandbox.close()
  }
})

test('what an older version left plain is found again, and its journal is sealed from then on', async t => {
  const sandbox = new Sandbox('staging-old')
  try {
    const folder = sandbox.mkdir('staging')
    const old = open(folder, undefined)
    fill(old, 'the-content')
    old.close()
    const key = someKey()
    for (let start = 0; start < 2; start++) {
      const staging = open(folder, await keysOf(folder, key))
      t.is(staging.lostRecords, 0)
      t.is(shown(staging), 'the-value the-content')
      t.false(readFileSync(sandbox.path('staging/journal'), 'latin1').includes('the-'))
      staging.close()
    }
  } finally {
    sandbox.close()
  }
})

test('a plain record behind sealed ones counts for nothing', async t => {
  const sandbox = new Sandbox('staging-forged')
  try {
    const folder = sandbox.mkdir('staging')
    const keys = (await keysOf(folder, someKey()))!
    const staging = open(folder, keys)
    fill(staging, 'the-content')
    staging.close()
    const plainFolder = sandbox.mkdir('plain')
    const plain = open(plainFolder, undefined)
    plain.journal.created(plain.nodes.add(plain.nodes.get(rootId)!, 'forged', facts, 900), rootId, 'forged')
    plain.close()
    const path = sandbox.path('staging/journal')
    writeFileSync(path, Buffer.concat([readFileSync(path), readFileSync(sandbox.path('plain/journal'))]))
    const nodes = new Nodes(facts)
    t.is(replay(path, nodes, new Map(), keyFromMaterial(keys.records)), 1)
    t.deepEqual([...nodes.get(rootId)!.children!.keys()], ['the-tree'])
  } finally {
    sandbox.close()
  }
})

test('no nonce is used twice: each start that takes some has its own, also with one damaged copy of the file', async t => {
  const sandbox = new Sandbox('staging-nonces')
  try {
    const folder = sandbox.mkdir('staging')
    const key = someKey()
    const first = (await keysOf(folder, key))!
    let last = takeNonces(first)
    const path = sandbox.path('staging/keys')
    for (const damaged of [3, 4096 + 70]) {
      const bytes = readFileSync(path)
      bytes[damaged]! ^= 1
      writeFileSync(path, bytes)
      const next = (await keysOf(folder, key))!
      t.true(next.contents.equals(first.contents))
      const taken = takeNonces(next)
      t.true(taken > last + (1n << 39n))
      last = taken
    }
    t.is(takeNonces((await keysOf(folder, key))!), 4n << 40n)
  } finally {
    sandbox.close()
  }
})

test('nonces are taken, durably, before the first record; a start that seals nothing writes nothing', async t => {
  const sandbox = new Sandbox('staging-lazy')
  try {
    const folder = sandbox.mkdir('staging')
    const key = someKey()
    open(folder, await keysOf(folder, key)).close()
    const path = sandbox.path('staging/keys')
    const before = readFileSync(path)
    const staging = open(folder, await keysOf(folder, key))
    t.deepEqual(readFileSync(path), before)
    const calls: string[] = []
    const real = replaceFiles(new Proxy(files, {
      get: (layer, name, receiver) => {
        if (name === 'datasync' || name === 'rename' || name === 'sync' || name === 'writeAll') calls.push(name)
        return Reflect.get(layer, name, receiver) as unknown
      },
    }))
    try {
      // No await in here: the layer is everybody's.
      fill(staging, 'the-content')
    } finally {
      replaceFiles(real)
    }
    staging.close()
    t.deepEqual(calls.slice(0, 5), ['writeAll', 'datasync', 'rename', 'sync', 'writeAll'])
    t.is(calls.indexOf('datasync', 2), -1)
    t.notDeepEqual(readFileSync(path), before)
  } finally {
    sandbox.close()
  }
})

test('the folder of another repository is refused, and a repository that is not encrypted has no keys', async t => {
  const sandbox = new Sandbox('staging-other')
  try {
    const folder = sandbox.mkdir('staging')
    await keysOf(folder, someKey())
    await t.throwsAsync(keysOf(folder, someKey()), { message: /holds what was staged for another repository\. Choose another folder with -o staging=DIR\.$/ })
    t.is(await keysOf(folder, plaintextKey()), undefined)
  } finally {
    sandbox.close()
  }
})

test('a sealed mark opens with its key only', async t => {
  const sandbox = new Sandbox('staging-mark')
  try {
    const [a, b] = await Promise.all(['a', 'b'].map(name => keysOf(sandbox.mkdir(name), someKey())))
    const sealed = sealSmall(a!.marks, Buffer.from('{"tree":1}'))
    t.is(openSmall(a!.marks, sealed).toString(), '{"tree":1}')
    t.throws(() => openSmall(b!.marks, sealed))
    sealed[30]! ^= 1
    t.throws(() => openSmall(a!.marks, sealed))
  } finally {
    sandbox.close()
  }
})
