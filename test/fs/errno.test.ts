import test from 'ava'
import { BorgError, IntegrityError } from '../../src/engine/errors.js'
import { errnoByCode, errnoFrom, FsError } from '../../src/fs/errno.js'
import { inoOf, localOf, rangeOf, rootIno } from '../../src/fs/inodes.js'
import { Errno } from '../../src/fs/types.js'

const host = (code: string) => Object.assign(new Error(code), { code })

for (const [name, error, expected] of [
  ['an own refusal', new FsError(Errno.EXDEV, 'x'), Errno.EXDEV],
  ['a host file error', host('ENOSPC'), Errno.ENOSPC],
  ['an errno that is not passed on', host('ECONNRESET'), Errno.EIO],
  ['damaged data', new IntegrityError('x'), Errno.EIO],
  ['a missing archive', new BorgError('Archive.DoesNotExist', 'x', 30), Errno.ENOENT],
  ['a lock that is held', new BorgError('LockTimeout', 'x', 73), Errno.EAGAIN],
  ['a full quota', new BorgError('Repository.StorageQuotaExceeded', 'x', 20), Errno.EDQUOT],
  ['a repository error with a host error below', new BorgError('Repository.DoesNotExist', 'x', 13, { cause: host('EACCES') }), Errno.EACCES],
  ['anything else', 'text', Errno.EIO],
] as const) {
  test(`${name} is ${expected.code}`, (t) => {
    t.is(errnoFrom(error), expected)
  })
}

test('errnos are found by name', (t) => {
  t.is(errnoByCode('ENOTEMPTY'), Errno.ENOTEMPTY)
  t.is(errnoByCode(undefined), Errno.EIO)
})

test('inode numbers are a range and a number within it', (t) => {
  t.is(rangeOf(rootIno), 0)
  for (const [range, local] of [[0, 1], [1, 0], [16, 2 ** 32 - 1], [2 ** 21 - 1, 2 ** 32 - 1]] as const) {
    const ino = inoOf(range, local)
    t.true(Number.isSafeInteger(ino))
    t.deepEqual([rangeOf(ino), localOf(ino)], [range, local])
  }
  t.throws(() => inoOf(2 ** 21, 0), { instanceOf: RangeError })
})
