/** The second transport: what it can do, and that what it cannot is refused rather than done wrongly. */
import { createRequire } from 'node:module'
import test from 'ava'
import { fuseNativeCaps, limits, optionString } from '../../../../src/fs/fuse/fuse-native/adapter.js'
import { foldedIno, nativeStat, nativeStatfs } from '../../../../src/fs/fuse/fuse-native/attributes.js'
import { defaultMountOptions } from '../../../../src/fs/fuse/transport.js'
import { canMount, MountedMemory } from '../../../helpers/mount.js'

const installed = (() => {
  try {
    createRequire(import.meta.url).resolve('fuse-native')
    return true
  } catch {
    return false
  }
})()
// Skipped without root, /dev/fuse, or the optional package.
const mounted = canMount && installed ? test.serial : test.serial.skip

let shared: MountedMemory | undefined
test.before(async () => {
  if (canMount && installed) shared = await MountedMemory.start({ transport: 'fuse-native', manyEntries: 3000, memory: { odd: true } })
})
test.after.always(async () => shared?.close())

test('it says what it cannot do', (t) => {
  t.false(fuseNativeCaps.rawNames || fuseNativeCaps.exactTimes || fuseNativeCaps.notices)
  for (const sentence of limits()) t.regex(sentence, /^[A-Z].*\.$/)
})

test('its option string has what libfuse 2 needs', (t) => {
  t.is(optionString({ ...defaultMountOptions, mountpoint: '/mnt', access: 'everybody' }),
    'fsname=borgfs,rw,nosuid,nodev,default_permissions,allow_other,use_ino,big_writes,nonempty,entry_timeout=1,attr_timeout=1,max_read=131072')
})

test('values are folded into its ranges', (t) => {
  t.is(foldedIno(7), 7)
  t.not(foldedIno(2 ** 32 + 7), foldedIno(2 * 2 ** 32 + 7))
  t.true(foldedIno(20 * 2 ** 32 + 7) > 0 && foldedIno(20 * 2 ** 32 + 7) < 2 ** 32)
  const attr = { ino: 1, size: 0, blocks: 0, mode: 0, nlink: 1, uid: 0, gid: 0, rdev: 0, blksize: 0, atimeNs: -1n, mtimeNs: 1_999_999n, ctimeNs: 0n }
  t.deepEqual([nativeStat(attr).atime, nativeStat(attr).mtime], [0, 1])
  const { blocks, bfree, bsize } = nativeStatfs({ blocks: 2 ** 33, bfree: 2 ** 32, bavail: 0, files: 2 ** 40, ffree: 0, bsize: 4096, frsize: 4096, namelen: 255 })
  t.deepEqual([blocks! * bsize!, bfree! * bsize!], [2 ** 45, 2 ** 44])
  t.true(blocks! < 2 ** 32)
})

mounted('files, directories and links work', async (t) => {
  t.is(await shared!.sh('mkdir d; echo hello > d/f; cat d/f; ln d/f d/g; ln -s f d/l; readlink d/l; stat -c "%h %s" d/g; mv d/f d/h; [ d/g -ef d/h ] && ls -a d; rm -r d; [ ! -e d ] && echo gone'),
    'hello\nf\n2 6\n.\n..\ng\nh\nl\ngone\n')
})

mounted('both times arrive, to the millisecond', async (t) => {
  t.is(await shared!.python(`
open('times', 'w').close()
os.utime('times', ns=(1_000_000_000_123_456_789, 1_500_000_000_987_654_321))
st = os.stat('times'); print(st.st_atime_ns, st.st_mtime_ns)`), '1000000000123000000 1500000000987000000\n')
})

mounted('xattrs say their size and ERANGE', async (t) => {
  t.is(await shared!.python(`
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
open('x', 'w').close(); os.setxattr('x', 'user.a', b'v' * 5000); os.setxattr('x', 'user.bc', b'')
small = ctypes.create_string_buffer(100)
assert libc.getxattr(b'x', b'user.a', small, 100) == -1 and ctypes.get_errno() == 34
assert libc.listxattr(b'x', small, 5) == -1 and ctypes.get_errno() == 34
assert libc.listxattr(b'x', None, 0) == 15
assert os.getxattr('x', 'user.bc') == b''
try: os.getxattr('x', 'user.none')
except OSError as e: assert e.errno == 61
print(os.getxattr('x', 'user.a') == b'v' * 5000, sorted(os.listxattr('x')))`), "True ['user.a', 'user.bc']\n")
})

mounted('names that are not UTF-8 are refused, UTF-8 ones kept', async (t) => {
  t.is(await shared!.python(`
open('café €', 'w').close(); print('café €' in os.listdir('.'))
try: open(b'a\\xff', 'w'); print('made')
except OSError as e: print(e.errno)`), 'True\n22\n')
})

mounted('large files and directories arrive whole, with writes larger than a page', async (t) => {
  const before = (await shared!.tell({ command: 'facts' })).counts.write ?? 0
  t.is(await shared!.python(`
data = os.urandom(5 << 20)
open('large', 'wb').write(data); print(open('large', 'rb').read() == data, len(os.listdir('many')))
os.truncate('large', 5); print(os.stat('large').st_size)`), 'True 3000\n5\n')
  t.true((await shared!.tell({ command: 'facts' })).counts.write! - before <= 80)
})

mounted('an exception in the core is EIO, and a late answer arrives', async (t) => {
  t.regex((await shared!.run('cat', ['throws'])).stderr, /Input\/output error/)
  await shared!.sh('echo late bytes > late')
  const reading = shared!.sh('cat late')
  while ((await shared!.tell({ command: 'facts' })).waiting === 0) await new Promise((resolve) => setTimeout(resolve, 5))
  t.is(await shared!.sh('echo other; ls -d many'), 'other\nmany\n')
  await shared!.tell({ command: 'release' })
  t.is(await reading, 'late bytes\n')
})

mounted('it unmounts with nothing left open', async (t) => {
  const mount = await MountedMemory.start({ transport: 'fuse-native', files: { a: 'x' } })
  t.teardown(() => mount.close())
  await mount.sh('cat a; echo b > b; ls -l')
  await mount.unmount()
  await mount.exited()
  t.deepEqual(mount.end, { end: 'unmounted', handles: 0 })
})
