import test from 'ava'
import { aclFacts, aclWithMode } from '../../src/fs/posix-acl.js'

// Made by setfacl and read by getfattr on ext4.
const minimal = Buffer.from('0200000001000600ffffffff04000400ffffffff20000000ffffffff', 'hex')
const extended = Buffer.from('0200000001000700ffffffff02000600e803000004000100ffffffff10000600ffffffff20000400ffffffff', 'hex')

test('an ACL of owner, group and others is a mode', (t) => {
  t.deepEqual(aclFacts(minimal), { permissions: 0o640, minimal: true })
})

test('with named users the group bits of the mode are the mask', (t) => {
  t.deepEqual(aclFacts(extended), { permissions: 0o764, minimal: false })
})

test('chmod changes the mask and leaves the owning group', (t) => {
  const changed = aclWithMode(extended, 0o100751)
  t.deepEqual(aclFacts(changed), { permissions: 0o751, minimal: false })
  t.is(changed.readUInt16LE(4 + 2 * 8 + 2), 1)
  t.is(changed.readUInt32LE(4 + 8 + 4), 1000)
  t.deepEqual(aclFacts(aclWithMode(minimal, 0o604)), { permissions: 0o604, minimal: true })
})

for (const [name, bytes] of Object.entries({
  'no bytes': '', 'another version': '01000000', 'half an entry': '0200000001000600ffff', 'no owner': '0200000004000400ffffffff20000000ffffffff',
  'a named user without a mask': '0200000001000700ffffffff02000600e803000004000100ffffffff20000400ffffffff', 'unknown permissions': '0200000001000800ffffffff04000400ffffffff20000000ffffffff',
})) {
  test(`${name} is no ACL`, (t) => t.is(aclFacts(Buffer.from(bytes, 'hex')), undefined))
}
