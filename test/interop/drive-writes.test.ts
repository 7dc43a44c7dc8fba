/** Files that are opened for writing only: their data passes the kernel's page cache, and nobody must notice. */
import test from 'ava'
import { haveBorg, isRoot, Sandbox } from '../helpers/sandbox.js'

const run = haveBorg && isRoot ? test.serial : test.serial.skip
if (!haveBorg || !isRoot) console.error('SKIPPED aloud: test/interop/drive-writes changes users, as root')

const place = 'mnt/incoming/t/'

const readers = String.raw`
import mmap, os, random, sys
place = sys.argv[1]; rng = random.Random(3)
# One reads and has it mapped, and changes it by the mapping; another writes.
with open(place + 'a', 'wb') as f: f.write(b'x' * 10000)
known = bytearray(b'x' * 10000)
r = os.open(place + 'a', os.O_RDWR); m = mmap.mmap(r, 10000)
assert m[:] == known
w = os.open(place + 'a', os.O_WRONLY)
def written(at, data):
    os.pwrite(w, data, at)
    known[len(known):at] = bytes(max(0, at - len(known)))
    known[at:at + len(data)] = data
for n in range(150):
    written(rng.randrange(12000), rng.randbytes(rng.randrange(1, 9000)))
    assert os.pread(r, 1 << 20, 0) == known, n
    assert m[:] == known[:10000], n
    at = rng.randrange(10000); m[at] = known[at] = n % 256
    written((at + 4096) % 9000, rng.randbytes(10))
    with open(place + 'a', 'rb') as f: assert f.read() == known, n
# Two append.
ends = [os.open(place + 'b', os.O_WRONLY | os.O_CREAT | os.O_APPEND) for _ in range(2)]; whole = b''
for n in range(200):
    data = rng.randbytes(rng.randrange(1, 3000)); os.write(rng.choice(ends), data); whole += data
    assert os.fstat(ends[n % 2]).st_size == len(whole)
with open(place + 'b', 'rb') as f: assert f.read() == whole
# The ways in which programs have the kernel copy.
source = rng.randbytes(5000000)
with open('source', 'wb') as f: f.write(source)
s = os.open('source', os.O_RDONLY); c = os.open(place + 'c', os.O_WRONLY | os.O_CREAT); at = 0
while at < 3000000: at += os.sendfile(c, s, at, 3000000 - at)
pipe = os.pipe()
while at < len(source):
    left = os.splice(s, pipe[1], min(60000, len(source) - at), offset_src=at); at += left
    while left > 0: left -= os.splice(pipe[0], c, left)
pieces = [rng.randbytes(rng.randrange(1, 300)) for _ in range(900)]
assert os.writev(c, pieces) == sum(map(len, pieces))
source += b''.join(pieces)
with open(place + 'c', 'rb') as f: assert f.read() == source
# Out of a mapping of the same drive, and of the same file.
e = os.open(place + 'e', os.O_WRONLY | os.O_CREAT)
os.write(e, mmap.mmap(os.open(place + 'c', os.O_RDONLY), 0, prot=mmap.PROT_READ))
os.pwrite(e, memoryview(mmap.mmap(os.open(place + 'e', os.O_RDONLY), 0, prot=mmap.PROT_READ))[100:3000000], 0)
with open(place + 'e', 'rb') as f: assert f.read() == source[100:3000000] + source[2999900:]
`

/** What is left of set-id bits and capabilities after another user's write, by how it was opened. */
const privileges = String.raw`
import os, sys
place = sys.argv[1]; os.chmod(place, 0o777); capability = bytes.fromhex('0100000200000020000000000000000000000000')
for user in (1000,):
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND):
        for mode in (0o4777, 0o2777, 0o2767, 0o6777):
            name = place + f'{user}-{flags}-{mode:o}'
            with open(name, 'wb') as f: f.write(b'1')
            os.chmod(name, mode); os.setxattr(name, 'security.capability', capability)
            if os.fork() == 0:
                os.setuid(user); os.write(os.open(name, flags), b'2'); os._exit(0)
            os.wait(); print(user, flags, oct(mode), oct(os.stat(name).st_mode), os.listxattr(name))
`

run('readers, mappings, and whoever has the kernel copy see what was written', t => {
  const sandbox = new Sandbox('drive-writes')
  try {
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'settle=1000'] })
    sandbox.sh(`mkdir ${place}`)
    const ran = sandbox.run('python3', ['-c', readers, place], { ok: 'any' })
    t.is(ran.rc, 0, ran.stderr)
    sandbox.unmount(mountpoint)
  } finally {
    sandbox.close()
  }
})

run('a write of another user takes away set-id bits and capabilities as on a disk', t => {
  const sandbox = new Sandbox('drive-privileges')
  try {
    sandbox.borg(['init', '-e', 'none', 'repo'])
    for (const [index, options] of ['allow_other', 'allow_other,default_permissions'].entries()) {
      const mountpoint = sandbox.mount('repo', { args: ['-o', `settle=1000,${options}`] })
      sandbox.sh(`chmod 755 .; mkdir plain${index} ${place}`)
      t.is(sandbox.run('python3', ['-c', privileges, place]).stdout, sandbox.run('python3', ['-c', privileges, `plain${index}/`]).stdout, options)
      sandbox.unmount(mountpoint)
    }
  } finally {
    sandbox.close()
  }
})
