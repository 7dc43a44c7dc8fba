import test from 'ava'
import { parseDriveOptions } from '../../src/cli/mount-options.js'

test('owners are numbers that Linux has, and nothing else', t => {
  t.is(parseDriveOptions('uid=4294967294,gid=0', '/m').uid, 4294967294)
  for (const word of ['uid=4294967295', 'uid=4294967296', 'gid=1.5', 'uid=-1', 'gid=me', 'uid']) t.throws(() => parseDriveOptions(word, '/m'), { message: /wanted/ }, word)
})

test('an octal number may have zeros before it', t => {
  for (const word of ['umask=22', 'umask=0022', 'umask=00022', 'umask=0o22']) t.is(parseDriveOptions(word, '/m').umask, 0o22, word)
  for (const word of ['umask=8', 'umask=77777', 'umask=']) t.throws(() => parseDriveOptions(word, '/m'), { message: /an octal number is wanted/ }, word)
})

test('a look at the repository in a month is not one in each millisecond', t => {
  t.is(parseDriveOptions('refresh=99999999', '/m').refreshMs, 2 ** 31 - 1)
  t.is(parseDriveOptions('refresh=0', '/m').refreshMs, 0)
})

test('a cache that no memory holds is refused in words', t => {
  t.throws(() => parseDriveOptions('cache=900T', '/m'), { message: /^-o cache=900T: no more than this machine's memory \(\d+M\) is wanted$/ })
})

test('of a word that is said twice the last counts', t => {
  t.is(parseDriveOptions('cache=1M,uid=1,cache=2M,uid=2', '/m').uid, 2)
  t.is(parseDriveOptions('cache=1M,cache=2M', '/m').cacheBytes, parseDriveOptions('cache=2M', '/m').cacheBytes)
})
