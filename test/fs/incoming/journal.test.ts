import test, { type ExecutionContext } from 'ava'
import { closeSync, fstatSync, ftruncateSync, openSync, readFileSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import { native, type Native } from '../../../src/engine/native.js'
import { changeRoomBytes, Journal } from '../../../src/fs/incoming/journal.js'
import { replay } from '../../../src/fs/incoming/journal-replay.js'
import { type NodeFacts, Nodes, rootId, type StagedNode } from '../../../src/fs/incoming/nodes.js'
import { replaceFiles } from '../../../src/engine/platform/files.js'
import { fillDisk, hostError } from '../../helpers/full-disk.js'
import { Sandbox } from '../../helpers/sandbox.js'
import { someKey } from '../../helpers/some-key.js'

const facts = (mode: number, target?: Buffer): NodeFacts => ({ mode, uid: 7, gid: 8, rdev: 0, atimeNs: -1n, mtimeNs: 1_600_000_000_123_456_789n, ctimeNs: 5n, target })

/** Does one of everything, in memory and in the journal alike. */
function history(path: string): Nodes {
  const nodes = new Nodes(facts(0o040755))
  const journal = Journal.open(path)
  const root = nodes.get(rootId)!
  const make = (parent: typeof root, name: string, mode: number, target?: Buffer) => {
    const node = nodes.add(parent, name, facts(mode, target))
    journal.created(node, parent.id, name)
    return node
  }
  const tree = make(root, 'tree', 0o040750)
  const file = make(tree, 'caf\xe9', 0o100644)
  make(tree, 'gone', 0o100600)
  make(tree, 'link', 0o120777, Buffer.from([0xff, 0x2f]))
  nodes.link(file, tree, 'second')
  journal.linked(file.id, tree.id, 'second')
  nodes.forget(nodes.unlink(tree, 'gone')!.id)
  journal.unlinked(tree.id, 'gone')
  const folder = make(tree, 'folder', 0o040700)
  nodes.move(tree, 'second', folder, 'moved')
  journal.moved(tree.id, 'second', folder.id, 'moved')
  nodes.exchange(tree, 'link', folder, 'moved')
  journal.exchanged(tree.id, 'link', folder.id, 'moved')
  file.mode = 0o104755
  file.mtimeNs = -5n
  journal.attributes(file.id, file)
  file.xattrs = new Map([['user.\xe4', Buffer.from([0, 255])]])
  journal.xattr(file.id, 'user.\xe4', Buffer.from([0, 255]))
  const [small, left, settled] = ['small', 'left', 'settled'].map((name, index) => {
    const node = make(tree, name, 0o100600)
    Object.assign(node, { place: { bundle: 3, start: 4096 * index }, size: 70 + index })
    journal.placed(node.id, node.place, node.size)
    return node
  }) as [typeof file, typeof file, typeof file]
  small.size = 1000
  journal.placed(small.id, small.place, 1000)
  for (const node of [left, settled]) {
    node.former = { place: node.place!, size: node.size, boot: 'this one' }
    node.place = undefined
    journal.takenOver(node.id, 'this one')
  }
  settled.former = undefined
  journal.placed(settled.id, undefined, 0)
  journal.whole(() => {
    const both = make(tree, 'both', 0o100600)
    both.xattrs = new Map([['user.a', Buffer.from('value')]])
    journal.xattr(both.id, 'user.a', Buffer.from('value'))
    both.size = 5
    both.place = { bundle: 4, start: 0 }
    journal.placed(both.id, both.place, 5)
  })
  make(root, 'dropped', 0o040700)
  nodes.forget(nodes.unlink(root, 'dropped')!.id)
  journal.dropped(rootId, 'dropped')
  journal.close()
  return nodes
}

function listed(nodes: Nodes): string[] {
  return [...nodes.walk(nodes.get(rootId)!)].map(({ node, path }) => [path, node.id, node.mode.toString(8), node.nlink, node.uid, node.gid, node.mtimeNs, node.target?.toString('hex'),
    [...(node.xattrs ?? [])].map(([name, value]) => `${name}=${value.toString('hex')}`), JSON.stringify([node.place && node.size, node.place, node.former])].join(' ')).sort()
}

test('replaying a journal gives the tree that was journalled', t => {
  const sandbox = new Sandbox('journal')
  try {
    const nodes = history(sandbox.path('journal'))
    const again = new Nodes(facts(0o040755))
    t.is(replay(sandbox.path('journal'), again), 0)
    t.deepEqual(listed(again), listed(nodes))
    t.true(listed(nodes).length > 5)
  } finally {
    sandbox.close()
  }
})

test('a rewritten journal is shorter and gives the same tree', t => {
  const sandbox = new Sandbox('journal')
  try {
    const path = sandbox.path('journal')
    const nodes = history(path)
    const before = readFileSync(path).length
    const journal = Journal.open(path)
    journal.rewrite(nodes)
    journal.attributes(2, nodes.get(2)!)
    journal.close()
    t.true(readFileSync(path).length < before)
    const again = new Nodes(facts(0o040755))
    t.is(replay(path, again), 0)
    t.deepEqual(listed(again), listed(nodes))
  } finally {
    sandbox.close()
  }
})

test('a journal cut at any byte gives what the whole records before the cut say', t => {
  const sandbox = new Sandbox('journal')
  try {
    history(sandbox.path('journal'))
    const bytes = readFileSync(sandbox.path('journal'))
    const ends = [0]
    for (let at = 0; at < bytes.length; ends.push(at)) at += 8 + bytes.readUInt32LE(at)
    const expected = ends.map(end => {
      writeFileSync(sandbox.path('part'), bytes.subarray(0, end))
      const nodes = new Nodes(facts(0o040755))
      replay(sandbox.path('part'), nodes)
      return listed(nodes)
    })
    for (let cut = 0; cut <= bytes.length; cut++) {
      writeFileSync(sandbox.path('part'), bytes.subarray(0, cut))
      const nodes = new Nodes(facts(0o040755))
      replay(sandbox.path('part'), nodes)
      t.deepEqual(listed(nodes), expected[ends.filter(end => end <= cut).length - 1]!)
    }
  } finally {
    sandbox.close()
  }
})

test('behind what was synced last a journal ends at the first damage; before, damage costs what it hit', t => {
  const sandbox = new Sandbox('journal')
  try {
    const path = sandbox.path('journal')
    const nodes = new Nodes(facts(0o040755))
    const journal = Journal.open(path)
    const root = nodes.get(rootId)!
    const ends: number[] = []
    const make = (name: string): void => {
      journal.created(nodes.add(root, name, facts(0o100644)), rootId, name)
      ends.push(statSync(path).size)
    }
    const synced = (): void => {
      const mark = journal.mark()
      t.not(mark, undefined)
      t.is(journal.mark(), undefined, 'once')
      make(`during ${mark}`)
      journal.synced(mark)
    }
    for (const name of ['a', 'b']) make(name)
    synced()
    for (const name of ['c', 'd']) make(name)
    synced()
    for (const name of ['e', 'f', 'g']) make(name)
    journal.close()
    const bytes = readFileSync(path)
    const names = [...root.children!.keys()]
    const found = (damagedAt: number): { names: string[]; cutOff: number | undefined; lost: number } => {
      const damaged = Buffer.from(bytes)
      damaged[damagedAt]! ^= 1
      writeFileSync(sandbox.path('part'), damaged)
      const again = new Nodes(facts(0o040755))
      let cutOff: number | undefined
      const lost = replay(sandbox.path('part'), again, undefined, undefined, undefined, at => cutOff = at)
      return { names: [...again.get(rootId)!.children!.keys()], cutOff, lost }
    }
    const starts = [0, ...ends]
    for (const [index, name] of names.entries()) {
      // Marks lie between some of them.
      const damagedAt = bytes.indexOf(Buffer.from(name), starts[index])
      const at = found(damagedAt)
      const isSynced = index < names.indexOf('during 2')
      t.deepEqual(at.names, names.filter((_, other) => (isSynced ? other !== index : other < index)), name)
      t.is(at.cutOff !== undefined, !isSynced)
      t.is(at.lost, 1)
    }
    // Without marks, as an older version wrote it, all that is whole counts.
    const plain = Journal.open(sandbox.path('plain'))
    for (const [index, name] of names.entries()) plain.created({ ...nodes.get(index + 2)! }, rootId, name)
    plain.close()
    const old = readFileSync(sandbox.path('plain'))
    old[old.length - 1]! ^= 1
    old[20]! ^= 1
    writeFileSync(sandbox.path('plain'), old)
    const again = new Nodes(facts(0o040755))
    t.is(replay(sandbox.path('plain'), again), 2)
    t.deepEqual([...again.get(rootId)!.children!.keys()], names.slice(1, -1))
  } finally {
    sandbox.close()
  }
})

test('a turned bit costs records, never the whole journal and never an exception', t => {
  const sandbox = new Sandbox('journal')
  try {
    history(sandbox.path('journal'))
    const bytes = readFileSync(sandbox.path('journal'))
    let intact = 0
    for (let at = 0; at < bytes.length; at++) {
      const damaged = Buffer.from(bytes)
      damaged[at]! ^= 1 << at % 8
      writeFileSync(sandbox.path('part'), damaged)
      const nodes = new Nodes(facts(0o040755))
      t.true(replay(sandbox.path('part'), nodes) > 0)
      // All damage behind the first record leaves the tree's own directory.
      if (nodes.child(nodes.get(rootId)!, 'tree')) intact++
    }
    t.true(intact > bytes.length / 2)
  } finally {
    sandbox.close()
  }
})

test('room for a record that is longer than what is kept ready is asked of the disk before anything is changed', t => {
  const sandbox = new Sandbox('journal-room')
  const addon = native() as { fallocate: Native['fallocate'] }
  const real = addon.fallocate
  try {
    const journal = Journal.open(sandbox.path('journal'))
    journal.ready(changeRoomBytes)
    addon.fallocate = (fd, mode, offset, length) => {
      if (offset + length > 1 << 20) throw Object.assign(new Error('full'), { code: 'ENOSPC', errno: 28 })
      real(fd, mode, offset, length)
    }
    t.throws(() => journal.ready(2 << 20), { code: 'ENOSPC' })
    t.notThrows(() => journal.ready(900_000))
    t.notThrows(() => journal.ready(changeRoomBytes))
    journal.close()
  } finally {
    addon.fallocate = real
    sandbox.close()
  }
})

test('a journal of more than two gigabytes is read, also behind damage', t => {
  const sandbox = new Sandbox('journal-long')
  try {
    const path = sandbox.path('journal')
    const journal = Journal.open(path)
    const nodes = new Nodes(facts(0o040755))
    const add = (name: string) => journal.created(nodes.add(nodes.get(rootId)!, name, facts(0o040755)), rootId, name)
    add('first')
    // Records of zeros, which say nothing and take no room on the disk.
    const zeros = Buffer.alloc(16 << 20), header = Buffer.alloc(8)
    header.writeUInt32LE(zeros.length, 0)
    header.writeUInt32LE(crc32(zeros), 4)
    const fd = openSync(path, 'r+')
    let end = fstatSync(fd).size
    const count = 130
    for (let index = 0; index < count; index++, end += header.length + zeros.length) writeSync(fd, header, 0, header.length, end)
    ftruncateSync(fd, end)
    closeSync(fd)
    add('last')
    journal.close()
    const again = new Nodes(facts(0o040755))
    t.is(replay(path, again), count)
    t.deepEqual([...again.names(rootId)].map(([name]) => name), ['first', 'last'])
  } finally {
    sandbox.close()
  }
})

test('a record that is torn where the window ends, and damage that is longer than it, cost what they said', t => {
  const sandbox = new Sandbox('journal-window')
  try {
    const path = sandbox.path('journal')
    const nodes = new Nodes(facts(0o040755))
    const journal = Journal.open(path)
    const root = nodes.get(rootId)!
    const names: string[] = []
    for (let index = 0; index < 900; index++) {
      const node = nodes.add(root, `d${index}`, facts(0o040755))
      journal.created(node, rootId, `d${index}`)
      journal.xattr(node.id, 'user.a', Buffer.alloc(60_000, index))
      names.push(`d${index}`)
    }
    journal.close()
    const whole = new Nodes(facts(0o040755))
    t.is(replay(path, whole), 0)
    t.deepEqual([...whole.names(rootId)].map(([name]) => name), names)
    t.is(whole.child(whole.get(rootId)!, 'd899')!.xattrs!.get('user.a')![0], 899 % 256)
    const fd = openSync(path, 'r+')
    writeSync(fd, Buffer.alloc(40 << 20, 0xff), 0, 40 << 20, 5_000_000)
    closeSync(fd)
    const damaged = new Nodes(facts(0o040755))
    t.true(replay(path, damaged) > 0)
    const left = new Set(Array.from(damaged.names(rootId), ([name]) => name))
    t.true(left.has('d0') && left.has('d80') && left.has('d800') && left.has('d899') && !left.has('d400'))
  } finally {
    sandbox.close()
  }
})

/** A journal that puts off what it can, has room, and is read by `found`. */
const putOff = (work: (t: ExecutionContext, about: { path: string; nodes: Nodes; root: StagedNode; journal: Journal; found: () => unknown }) => void) => (t: ExecutionContext): void => {
  const sandbox = new Sandbox('journal-put-off')
  try {
    const path = sandbox.path('journal')
    const nodes = new Nodes(facts(0o040755))
    const journal = Journal.open(path)
    journal.putsOff = true
    journal.ready(changeRoomBytes)
    work(t, {
      path, nodes, journal, root: nodes.get(rootId)!,
      found: () => {
        const again = new Nodes(facts(0o040755))
        t.is(replay(path, again), 0)
        return listed(again)
      },
    })
    journal.close()
  } finally {
    sandbox.close()
  }
}

test('what is put off is written in its order, many records at once, with the attributes and sizes that it has by then', putOff((t, { path, nodes, root, journal, found }) => {
  let known = 0
  journal.writeContents = () => known = nodes.count
  const make = (name: string) => {
    const node = nodes.add(root, name, facts(0o100644))
    journal.created(node, rootId, name)
    node.place = { bundle: 1, start: 16 * node.id }
    node.size = 3
    journal.placed(node.id, node.place, 3)
    return node
  }
  const empty = found()
  const [first, second] = [make('first'), make('second')]
  Object.assign(first, { mode: 0o100600, uid: 5, mtimeNs: 77n, size: 4 })
  journal.attributes(first.id, first)
  journal.placed(first.id, first.place, 4)
  t.true(journal.isBehind)
  t.deepEqual(found(), empty)
  t.is(known, 0)
  // Another kind of record comes behind all of them, in one write.
  nodes.link(second, root, 'linked')
  journal.linked(second.id, rootId, 'linked')
  t.false(journal.isBehind)
  t.is(known, nodes.count)
  t.deepEqual(found(), listed(nodes))
  const length = journal.length
  second.mode = 0o100640
  journal.attributes(second.id, second)
  journal.attributes(second.id, second)
  t.is(journal.length, length)
  t.not(journal.mark(), undefined, 'what is synced has it')
  t.deepEqual(found(), listed(nodes))
  // Not without end.
  for (let i = 0; i < 1000; i++) {
    journal.ready(changeRoomBytes)
    make(`many ${i}`)
  }
  t.true(statSync(path).size > length + 20_000, `${statSync(path).size} after ${length}`)
  journal.together(() => journal.unlinked(rootId, nodes.unlink(root, 'linked') ? 'linked' : ''))
  t.deepEqual(found(), listed(nodes))
  t.is(readFileSync(path).length, journal.length)
  make('last')
  journal.catchUp()
  t.deepEqual(found(), listed(nodes))
  // In groups: damage in one place does not cost all.
  const bytes = readFileSync(path)
  bytes[bytes.length - 5000]! ^= 1
  writeFileSync(path, bytes)
  const damaged = new Nodes(facts(0o040755))
  replay(path, damaged)
  t.true(damaged.count > nodes.count / 2)
}))

test('what was put off waits while the host refuses it, and nothing is told before it', putOff((t, { path, nodes, root, journal, found }) => {
  const file = nodes.add(root, 'file', facts(0o100644))
  journal.created(file, rootId, 'file')
  const before = fillDisk()
  t.throws(() => journal.catchUp(), { code: 'ENOSPC' })
  t.throws(() => journal.linked(file.id, rootId, 'other'), { code: 'ENOSPC' })
  t.is(journal.mark(), undefined)
  replaceFiles(before)
  t.true(journal.isBehind)
  t.is(statSync(path).size, 0)
  journal.linked(file.id, rootId, 'other')
  nodes.link(file, root, 'other')
  t.deepEqual(found(), listed(nodes))
}))

test('a disk that has no room for the nonces of the first record refuses what would be told later', t => {
  const sandbox = new Sandbox('journal-nonces')
  try {
    let isFull = true
    const journal = Journal.open(sandbox.path('journal'), {
      key: someKey(),
      takeNonces: () => {
        if (isFull) throw hostError('ENOSPC')
        return 0n
      },
    })
    journal.putsOff = true
    t.throws(() => journal.ready(100), { code: 'ENOSPC' })
    isFull = false
    journal.ready(100)
    journal.close()
  } finally {
    sandbox.close()
  }
})
