/** The kernel transport for real: a MemoryFs mounted by a child process. */
import test from 'ava'
import { canMount, MountedMemory } from '../../../helpers/mount.js'
import { eventually } from '../../../helpers/sandbox.js'

// One after the other: they share a mount and count its requests.
const mounted = canMount ? test.serial : test.serial.skip
// Skipped without root or /dev/fuse: nothing can be mounted then.

let shared: MountedMemory | undefined
async function memory(): Promise<MountedMemory> {
  return shared!
}
test.before(async () => {
  if (canMount) shared = await MountedMemory.start({ manyEntries: 20_000, memory: { odd: true, entryTtlMs: 60_000, attrTtlMs: 60_000 } })
})
test.after.always(async () => shared?.close())

mounted('the mount table shows borgfs with type fuse', async (t) => {
  const mount = await memory()
  const line = (await mount.sh('cat /proc/self/mounts')).split('\n').find((row) => row.split(' ')[1] === mount.mountpoint)!
  const [source, , type, options] = line.split(' ')
  t.is(source, 'borgfs')
  t.is(type, 'fuse')
  t.true(options!.includes('default_permissions'))
  t.true(options!.split(',').includes('nosuid') && options!.split(',').includes('nodev'))
})

mounted('names are raw bytes, up to 255 of them', async (t) => {
  const mount = await memory()
  t.is(await mount.python(`
os.mkdir('names')
names = [b'a\\xff\\xfeb', b'caf\\xe9', 'café'.encode(), b' ', b'\\n', b'x' * 255, bytes(range(1, 47)) + bytes(range(48, 256))]
names[-1] = names[-1][:255]
for i, n in enumerate(names):
  with open(b'names/' + n, 'wb') as f: f.write(b'%d' % i)
assert sorted(os.listdir(b'names')) == sorted(names), os.listdir(b'names')
for i, n in enumerate(names): assert open(b'names/' + n, 'rb').read() == b'%d' % i
try: os.mkdir(b'names/' + b'y' * 2000); print('made')
except OSError as e: print(e.errno)`), '36\n')
})

mounted('times are exact to the nanosecond, before 1970, after 2038, now, and one at a time', async (t) => {
  const mount = await memory()
  t.is(await mount.python(`
open('times', 'w').close()
for ns in (123456789, -1, -1_500_000_000, -123456789012345678, 4102444800_000000001, 2**53 + 1):
  os.utime('times', ns=(ns, ns + 1))
  st = os.stat('times'); assert (st.st_atime_ns, st.st_mtime_ns) == (ns, ns + 1), (ns, st)
os.utime('times', ns=(5, 7))
import subprocess
subprocess.check_call(['touch', '-a', '-d', '@11', 'times'])
st = os.stat('times'); assert (st.st_atime_ns, st.st_mtime_ns) == (11_000_000_000, 7), st
subprocess.check_call(['touch', '-m', '-d', '@-13.5', 'times'])
st = os.stat('times'); assert (st.st_atime_ns, st.st_mtime_ns) == (11_000_000_000, -13_500_000_000), st
os.utime('times')
assert os.stat('times').st_mtime > 1e9
print('exact')`), 'exact\n')
})

mounted('hard links share inode, content and count', async (t) => {
  const mount = await memory()
  t.is(await mount.sh('mkdir links; cd links; echo one > a; ln a b; ln b c; echo two >> c; rm a; stat -c "%h %s" b; [ b -ef c ] && cat c'), '2 8\none\ntwo\n')
})

mounted('symlinks, fifos and devices keep targets, types and numbers', async (t) => {
  const mount = await memory()
  t.is(await mount.python(`
import stat
os.mkdir('special'); os.chdir('special')
os.symlink(b'to/\\xff' + b'z' * 3000, b'link')
assert os.readlink(b'link') == b'to/\\xff' + b'z' * 3000
assert os.lstat('link').st_size == 3004
os.mkfifo('fifo')
os.mknod('device', 0o600 | stat.S_IFBLK, os.makedev(259, 300000))
st = os.stat('device'); assert (os.major(st.st_rdev), os.minor(st.st_rdev)) == (259, 300000), st
print(oct(os.stat('fifo').st_mode), oct(st.st_mode))`), '0o10644 0o60600\n')
})

mounted('rename replaces, refuses to replace, and exchanges', async (t) => {
  const mount = await memory()
  t.is(await mount.python(`
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def renameat2(a, b, flags): return ctypes.get_errno() if libc.renameat2(-100, a.encode(), -100, b.encode(), flags) else 0
os.mkdir('renames'); os.chdir('renames')
for n in 'abc': open(n, 'w').write(n)
os.rename('a', 'b'); assert open('b').read() == 'a' and not os.path.exists('a')
assert renameat2('b', 'c', 1) == 17
assert renameat2('b', 'c', 2) == 0 and open('b').read() == 'c' and open('c').read() == 'a'
os.mkdir('d'); os.mkdir('d/e'); os.rename('d/e', 'e'); assert os.stat('d').st_nlink == 2
try: os.rename('e', 'e/f'); print('moved')
except OSError as e: print(e.errno)`), '22\n')
})

mounted('xattrs are bytes, can be asked for their size, and say ERANGE, ENODATA and EEXIST', async (t) => {
  const mount = await memory()
  t.is(await mount.python(`
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
open('x', 'w').close()
os.setxattr('x', b'user.\\xff', bytes(range(256)) * 200)
assert os.getxattr('x', b'user.\\xff') == bytes(range(256)) * 200
small = ctypes.create_string_buffer(10)
assert libc.getxattr(b'x', b'user.\\xff', small, 10) == -1 and ctypes.get_errno() == 34
assert libc.listxattr(b'x', small, 3) == -1 and ctypes.get_errno() == 34
assert libc.getxattr(b'x', b'user.\\xff', None, 0) == 51200
def errno(f, *a):
  try: f(*a); return 0
  except OSError as e: return e.errno
assert errno(os.setxattr, 'x', b'user.\\xff', b'', os.XATTR_CREATE) == 17
assert errno(os.setxattr, 'x', 'user.none', b'', os.XATTR_REPLACE) == 61
assert errno(os.getxattr, 'x', 'user.none') == 61
os.setxattr('x', 'user.empty', b''); assert os.getxattr('x', 'user.empty') == b''
os.removexattr('x', 'user.empty')
print([os.fsencode(n) for n in os.listxattr('x')])`), "[b'user.\\xff']\n")
})

mounted('POSIX ACLs are stored as xattrs and move the mode', async (t) => {
  const mount = await memory()
  t.is(await mount.python(`
open('acl', 'w').close()
acl = bytes.fromhex('0200000001000600ffffffff02000400e803000004000400ffffffff10000600ffffffff20000400ffffffff')
os.setxattr('acl', 'system.posix_acl_access', acl)
print(os.getxattr('acl', 'system.posix_acl_access') == acl, 'system.posix_acl_access' in os.listxattr('acl'), oct(os.stat('acl').st_mode))`), 'True True 0o100664\n')
})

mounted('holes can be made, punched and found', async (t) => {
  const mount = await memory()
  t.is(await mount.python(`
import subprocess
with open('sparse', 'wb') as f:
  f.seek(1 << 20); f.write(b'data'); f.truncate(4 << 20)
fd = os.open('sparse', os.O_RDWR)
print(os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 1 << 20, os.SEEK_HOLE), os.fstat(fd).st_blocks)
os.posix_fallocate(fd, 0, 5 << 20)
print(os.fstat(fd).st_size)
os.close(fd)
open('full', 'wb').write(b'x' * (1 << 20))
subprocess.check_call(['fallocate', '-p', '-o', '4096', '-l', '8192', 'full'])
data = open('full', 'rb').read()
print(data == b'x' * 4096 + bytes(8192) + b'x' * ((1 << 20) - 12288))`), '1048576 1052672 8\n5242880\nTrue\n')
})

mounted('copy_file_range reaches the core', async (t) => {
  const mount = await memory()
  await mount.python(`
open('from', 'wb').write(os.urandom(300000))
a = os.open('from', os.O_RDONLY); b = os.open('to', os.O_WRONLY | os.O_CREAT)
while os.copy_file_range(a, b, 1 << 20): pass`)
  await mount.sh('cmp from to')
  t.true((await mount.tell({ command: 'facts' })).counts.copyFileRange! > 0)
})

mounted('a large directory is listed completely, with and without attributes', async (t) => {
  const mount = await memory()
  t.is(await mount.sh('ls -f many | wc -l; find many -type f -size 1 | wc -l; find many -type f -links 1 -size -2 | sort -u | wc -l'), '20002\n20000\n20000\n')
  const { counts } = await mount.tell({ command: 'facts' })
  // READDIRPLUS: a lookup for each would be 20,000.
  t.true(counts.lookup! < 20_000, `${counts.lookup} lookups`)
})

mounted('a directory can be emptied while it is listed', async (t) => {
  const mount = await memory()
  t.is(await mount.sh('mkdir emptied; cd emptied; seq -f f%g 3000 | xargs touch; cd ..; rm -r emptied; [ ! -e emptied ] && echo gone'), 'gone\n')
})

mounted('sizes have 64 bits', async (t) => {
  const mount = await memory()
  t.is(await mount.python(`
open('huge', 'w').close()
print(os.stat('huge').st_size == 2**52)
with open('far', 'wb') as f: f.seek(2**45 + 3); f.write(b'end')
with open('far', 'rb') as f: f.seek(2**45); print(f.read())
s = os.statvfs('.'); print(s.f_blocks == 2**33, s.f_bfree == 2**32 + 5, s.f_files == 2**34)`), "True\nb'\\x00\\x00\\x00end'\nTrue True True\n")
})

mounted('large writes and reads arrive whole, a MiB at a time', async (t) => {
  const mount = await memory()
  const before = (await mount.tell({ command: 'facts' })).counts.write ?? 0
  t.is(await mount.python(`
import hashlib
data = os.urandom(16 << 20)
fd = os.open('large', os.O_RDWR | os.O_CREAT)
assert os.write(fd, data) == len(data)
assert os.pread(fd, len(data) + 5, 0) == data
os.close(fd)
fd = os.open('large', os.O_RDONLY | os.O_DIRECT)
import mmap
m = mmap.mmap(-1, 1 << 20)
got = b''
while True:
  n = os.readv(fd, [m])
  if n == 0: break
  got += m[:n]
print(got == data)
with open('large', 'r+b') as f:
  m = mmap.mmap(f.fileno(), 0); print(m[:] == data); m[12345:12350] = b'hello'; m.flush(); m.close()
print(open('large', 'rb').read()[12345:12350])`), "True\nTrue\nb'hello'\n")
  const writes = (await mount.tell({ command: 'facts' })).counts.write! - before
  t.true(writes <= 32, `${writes} writes for 16 MiB`)
})

mounted('O_TRUNC, truncate and append change the size', async (t) => {
  const mount = await memory()
  t.is(await mount.sh('echo 12345678 > t; echo ab > t; cat t; echo cd >> t; cat t; truncate -s 4 t; cat t; truncate -s 1M t; stat -c %s t'), 'ab\nab\ncd\nab\nc1048576\n')
})

mounted('an open file lives on after its last name', async (t) => {
  const mount = await memory()
  t.is(await mount.python(`
fd = os.open('doomed', os.O_RDWR | os.O_CREAT); os.write(fd, b'still here'); os.unlink('doomed')
assert os.listdir('.').count('doomed') == 0 and not [n for n in os.listdir('.') if n.startswith('.fuse')]
os.fchmod(fd, 0o600); print(os.pread(fd, 99, 0), os.fstat(fd).st_nlink, oct(os.fstat(fd).st_mode))`), "b'still here' 0 0o100600\n")
})

mounted('cp -a, tar and rsync make true copies', async (t) => {
  const mount = await memory()
  const source = `${mount.folder}/source`
  const attributes = "find . ! -type d -printf '%p %y %m %U:%G %n %s %T@ %l\\n' -o -printf '%p %m %U:%G %T@\\n' | sort"
  t.is(await mount.sh(`
mkdir -p ${source}/d/e; cd ${source}; head -c 300000 /dev/urandom > d/f; ln d/f d/g; ln -s f d/l; mkfifo d/p
chown 1234:4321 d/g; chmod 2751 d/e; chmod 4755 d/f; touch -d '2001-02-03 04:05:06.123456789' d/f; touch -d '1965-01-01 00:00:00.5' d/e
# rsync leaves a time alone that is right to the second.
touch -h -d '2011-11-11 11:11:11.111111111' d/l d/p d .
${attributes} > ${mount.folder}/a
cd ${mount.mountpoint}; cp -a ${source} by-cp; (mkdir by-tar; tar -C ${source} --format=pax -c . | tar -C by-tar -xp)
if command -v rsync > /dev/null; then rsync -aHAX ${source}/ by-rsync/; else cp -a by-cp by-rsync; fi
for copy in by-cp by-tar by-rsync; do cd ${mount.mountpoint}/$copy; ${attributes} > ${mount.folder}/b; cmp ${source}/d/f d/g; diff ${mount.folder}/a ${mount.folder}/b; done; echo same`), 'same\n')
})

mounted('writing drops set-user-id for a user and keeps it for root', async (t) => {
  const mount = await memory()
  t.is(await mount.sh(`
echo a > suid; chmod 6777 suid; echo b >> suid; stat -c %a suid
chown 65534 suid; stat -c %a suid; chmod 6777 suid; stat -c %a suid`), '6777\n777\n6777\n')
})

mounted('an exception in the core is EIO for that request only', async (t) => {
  const mount = await memory()
  const { rc, stderr } = await mount.run('cat', ['throws'])
  t.is(rc, 1)
  t.regex(stderr, /Input\/output error/)
  t.is(await mount.sh('echo fine > after; cat after'), 'fine\n')
  await t.notThrowsAsync(eventually('the log tells of it', () => mount.logs.some((line) => line.includes('thrown on purpose'))))
})

mounted('a name that is known not to exist is not asked for again', async (t) => {
  const mount = await memory()
  const lookups = async (): Promise<number> => (await mount.tell({ command: 'facts' })).counts.lookup!
  await mount.run('stat', ['negative'])
  const before = await lookups()
  t.is((await mount.run('stat', ['negative'])).rc, 1)
  t.is(await lookups(), before)
})

mounted('ioctl says ENOTTY, locks work in the kernel', async (t) => {
  const mount = await memory()
  t.is(await mount.python(`
import fcntl, struct
f = open('locked', 'w')
try: fcntl.ioctl(f, 0x80086601, struct.pack('l', 0))
except OSError as e: print(e.errno)
fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
g = open('locked', 'w')
try: fcntl.flock(g, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError as e: print(e.errno)`), '25\n11\n')
})

mounted('after everything is closed the core has no handle left, and its loop ends with the mount', async (t) => {
  const mount = await MountedMemory.start({ files: { a: 'x' } })
  t.teardown(() => mount.close())
  await mount.sh('cat a; echo b > b; ls -l')
  await mount.unmount()
  await mount.exited()
  t.deepEqual(mount.end, { end: 'unmounted', handles: 0 })
})

mounted('references come back: after forgetting, deleted inodes are gone', async (t) => {
  const mount = await MountedMemory.start()
  t.teardown(() => mount.close())
  await mount.sh('mkdir d; seq -f d/%g 500 | xargs touch; ls -l d > /dev/null; ls -f d > /dev/null; rm -r d')
  // Forgets are sent in the background; any further request lets them through.
  for (let round = 0; round < 100 && (await mount.tell({ command: 'facts' })).nodes > 1; round++) await mount.sh('ls')
  t.is((await mount.tell({ command: 'facts' })).nodes, 1)
  t.false(mount.logs.some((line) => line.startsWith('error')), mount.logs.join('\n'))
})

mounted('with two processors the threads that serve leave one to who asks and to the thread that answers, and have both again afterwards', async (t) => {
  const mount = await memory()
  t.is(await mount.python(`
import time
def processors():
  seen = {}
  for thread in os.listdir('/proc/${mount.pid}/task'):
    try: seen[thread] = frozenset(os.sched_getaffinity(int(thread)))
    except ProcessLookupError: pass
  return seen
def until(wanted, work):
  end = time.monotonic() + 60
  while time.monotonic() < end:
    work()
    if wanted(processors()): return True
  return False
number = 0
def ask():
  global number
  for _ in range(500):
    number += 1
    try: os.stat('not-there-%d' % number)
    except FileNotFoundError: pass
before = processors()
allowed = frozenset().union(*before.values())
two = os.cpu_count() == 2 and len(allowed) == 2
for _ in range(3):
  if two:
    apart = lambda now: len(set(now.values())) == 2 and all(len(one) == 1 for one in now.values())
    assert until(apart, ask), processors()
  else:
    for _ in range(10): ask()
    assert set(processors().values()) == set(before.values()), (before, processors())
  assert until(lambda now: set(now.values()) == {allowed}, lambda: time.sleep(0.1)), processors()
print('both')`), 'both\n')
})
