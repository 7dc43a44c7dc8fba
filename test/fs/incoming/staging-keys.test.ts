import test from 'ava'
import { readFileSync, writeFileSync } from 'node:fs'
import { keyTypeOfMode } from '../../../src/engine/crypto/key-types.js'
import { keyFromMaterial, keyFromSecrets, plaintextKey } from '../../../src/engine/crypto/keys.js'
import { newSecrets } from '../../../src/engine/crypto/secrets.js'
import type { Key } from '../../../src/engine/crypto/key.js'
import { replay } from '../../../src/fs/incoming/journal.js'
import { Nodes, rootId } from '../../../src/fs/incoming/nodes.js'
import { Staging } from '../../../src/fs/incoming/staging.js'
import { openSmall, openStagingKeys, sealSmall, type StagingKeys } from '../../../src/fs/incoming/staging-keys.js'
import { Sandbox } from '../../helpers/sandbox.js'

const facts = { mode: 0o040755, uid: 0, gid: 0, rdev: 0, atimeNs: 0n, mtimeNs: 0n, ctimeNs: 0n }

function someKey(): Key {
  const type = keyTypeOfMode('repokey')
  return keyFromSecrets(type, newSecrets(type, Buffer.alloc(32)), false)
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

test('what is staged is found again with the same key, and nothing of it can be read on disk', t => {
  const sandbox = new Sandbox('staging-keys')
  try {
    const folder = sandbox.mkdir('staging')
    const key = someKey()
    const staging = open(folder, openStagingKeys(folder, key))
    fill(staging, 'the-content')
    staging.close()
    for (let start = 0; start < 2; start++) {
      const disk = sandbox.sh('cat staging/journal staging/keys staging/spool/*').stdout
      for (const secret of ['the-tree', 'the-file', 'the-xattr', 'the-value', 'the-content', 'content']) t.false(disk.includes(secret), secret)
      const again = open(folder, openStagingKeys(folder, key))
      t.is(again.lostRecords, 0)
      t.is(shown(again), 'the-value the-content')
      again.close()
    }
  } finally {
    sandbox.close()
  }
})

test('what an older version left plain is found again, and its journal is sealed from then on', t => {
  const sandbox = new Sandbox('staging-old')
  try {
    const folder = sandbox.mkdir('staging')
    const old = open(folder, undefined)
    fill(old, 'the-content')
    old.close()
    const key = someKey()
    for (let start = 0; start < 2; start++) {
      const staging = open(folder, openStagingKeys(folder, key))
      t.is(staging.lostRecords, 0)
      t.is(shown(staging), 'the-value the-content')
      t.false(readFileSync(sandbox.path('staging/journal'), 'latin1').includes('the-'))
      staging.close()
    }
  } finally {
    sandbox.close()
  }
})

test('a plain record behind sealed ones counts for nothing', t => {
  const sandbox = new Sandbox('staging-forged')
  try {
    const folder = sandbox.mkdir('staging')
    const keys = openStagingKeys(folder, someKey())!
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

test('no nonce is used twice: each start has its own, also with one damaged copy of the file', t => {
  const sandbox = new Sandbox('staging-nonces')
  try {
    const folder = sandbox.mkdir('staging')
    const key = someKey()
    const first = openStagingKeys(folder, key)!
    const path = sandbox.path('staging/keys')
    for (const damaged of [3, 4096 + 70]) {
      const bytes = readFileSync(path)
      bytes[damaged]! ^= 1
      writeFileSync(path, bytes)
      const next = openStagingKeys(folder, key)!
      t.true(next.contents.equals(first.contents))
      t.true(next.firstNonce > first.firstNonce + (1n << 39n))
    }
    t.is(openStagingKeys(folder, key)!.firstNonce, 4n << 40n)
  } finally {
    sandbox.close()
  }
})

test('the folder of another repository is refused, and a repository that is not encrypted has no keys', t => {
  const sandbox = new Sandbox('staging-other')
  try {
    const folder = sandbox.mkdir('staging')
    openStagingKeys(folder, someKey())
    t.throws(() => openStagingKeys(folder, someKey()), { message: /holds what was staged for another repository\. Choose another folder with -o staging=DIR\.$/ })
    t.is(openStagingKeys(folder, plaintextKey()), undefined)
  } finally {
    sandbox.close()
  }
})

test('a sealed mark opens with its key only', t => {
  const sandbox = new Sandbox('staging-mark')
  try {
    const [a, b] = ['a', 'b'].map(name => openStagingKeys(sandbox.mkdir(name), someKey())!)
    const sealed = sealSmall(a!.marks, Buffer.from('{"tree":1}'))
    t.is(openSmall(a!.marks, sealed).toString(), '{"tree":1}')
    t.throws(() => openSmall(b!.marks, sealed))
    sealed[30]! ^= 1
    t.throws(() => openSmall(a!.marks, sealed))
  } finally {
    sandbox.close()
  }
})
