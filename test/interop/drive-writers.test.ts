/** What writing does to a file beside its bytes, and what others see of it meanwhile: staged files held against a directory of the disk. */
import test from 'ava'
import { chmodSync, writeFileSync } from 'node:fs'
import { canMount } from '../helpers/mount.js'
import { isRoot, Sandbox } from '../helpers/sandbox.js'

const run = canMount && isRoot ? test.serial : test.serial.skip
if (!canMount || !isRoot) console.error('SKIPPED aloud: test/interop/drive-writers needs root and a mount')

/** Who writes how to what: mode and capabilities afterwards, as whoever asks for everything is told, and as who asks for the mode alone. */
const privileges = `
import ctypes, itertools, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
capability = bytes.fromhex('0100000200040000000000000000000000000000')
def mode_alone(path):
    buffer = ctypes.create_string_buffer(256)
    assert libc.statx(-100, path.encode(), 0, 2, buffer) == 0
    return int.from_bytes(buffer.raw[28:30], 'little') & 0o7777
def mapped(fd):
    with mmap.mmap(fd, 4) as memory: memory[0] = 65
ways = {
    'write': lambda f, p: os.pwrite(f, b'x', 1), 'write nothing': lambda f, p: os.pwrite(f, b'', 0), 'append': lambda f, p: os.pwrite(f, b'xyz', 4096), 'truncate': lambda f, p: os.truncate(p, 2),
    'ftruncate': lambda f, p: os.ftruncate(f, 3), 'to the same size': lambda f, p: os.ftruncate(f, 4), 'open to truncate': lambda f, p: os.close(os.open(p, os.O_WRONLY | os.O_TRUNC)),
    'allocate': lambda f, p: os.posix_fallocate(f, 0, 9000), 'chown to nobody': lambda f, p: os.chown(p, -1, -1), 'chown': lambda f, p: os.chown(p, os.geteuid(), -1), 'chgrp': lambda f, p: os.chown(p, -1, os.getegid()),
    'times': lambda f, p: os.utime(f, ns=(1, 2)), 'map': lambda f, p: mapped(f), 'chmod': lambda f, p: os.chmod(p, 0o6711),
}
by_path = {'truncate', 'open to truncate', 'chown to nobody', 'chown', 'chgrp', 'chmod'}
people = {'root': None, 'owner in the group': (1001, 1001, [1002]), 'owner': (1001, 1003, []), 'other': (1004, 1002, [])}
def attempt(folder, number, way, person, mode, capable, opened):
    path = f'{folder}/{number}'
    # Made by one who only writes, or opened anew.
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    os.pwrite(fd, b'abcd', 0)
    os.chown(path, 1001, 1002)
    if capable: os.setxattr(path, 'security.capability', capability)
    os.chmod(path, mode)
    if opened: os.close(fd)
    if opened and opened != 'closed': fd = os.open(path, opened)
    os.stat(path)
    child = os.fork()
    if child == 0:
        try:
            if people[person]:
                uid, gid, groups = people[person]
                os.setgroups(groups); os.setresgid(gid, gid, gid); os.setresuid(uid, uid, uid)
            ways[way](fd, path)
            os._exit(0)
        except OSError as error: os._exit(error.errno)
        except BaseException: os._exit(255)
    result = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    alone = mode_alone(path)
    try: kept = len(os.getxattr(path, 'security.capability'))
    except OSError as error: kept = -error.errno
    whole = os.stat(path)
    if opened != 'closed': os.close(fd)
    return f'{way}, {person}, {mode:o}, {"capable" if capable else "plain"}, {opened}: {result} {alone:o} {whole.st_mode & 0o7777:o} {whole.st_size} {whole.st_uid} {whole.st_gid} {kept}'
os.umask(0)
cases = itertools.product(ways, people, (0o4755, 0o2767, 0o6777), (False, True), (0, os.O_WRONLY, os.O_RDWR, 'closed'))
for number, (way, person, mode, capable, opened) in enumerate(cases):
    if way == 'map' and opened != os.O_RDWR or opened == 'closed' and way not in by_path: continue
    print(attempt(sys.argv[1], number, way, person, mode, capable, opened))
`

run('set-id bits and capabilities go by writing, truncating, allocating and chown as on the disk, for root and for others', t => {
  const sandbox = new Sandbox('drive-writers')
  try {
    chmodSync(sandbox.folder, 0o755)
    sandbox.borgfs(['init', '-e', 'repokey', 'repo'])
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'allow_other,default_permissions,suid'] })
    writeFileSync(sandbox.path('privileges.py'), privileges)
    const [trusted, incoming] = [sandbox.mkdir('trusted'), `${mountpoint}/incoming/tree`]
    sandbox.run('mkdir', [incoming])
    for (const folder of [trusted, incoming]) chmodSync(folder, 0o777)
    const said = (folder: string): string[] => sandbox.run('python3', [sandbox.path('privileges.py'), folder]).stdout.trim().split('\n')
    const [there, here] = [said(trusted), said(incoming)]
    t.true(there.length > 800, `${there.length}`)
    const differing = there.flatMap((line, index) => (line === here[index] ? [] : [`${line} |${here[index]!.split(':')[1]}`]))
    t.deepEqual(differing.filter(line => !tellsTooLittle.some(rule => rule.test(line))), [])
    // Nor do they come unseen.
    t.true(differing.length <= 32, differing.join('\n'))
  } finally {
    sandbox.close()
  }
})

/** One makes a file and only writes it; others read it and map it meanwhile, as fast as they can. Each write is there for them when it has returned. */
const readers = `
import mmap, os, random, sys
path, rounds = sys.argv[1], int(sys.argv[2])
choose = random.Random(7)
writer = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
expected = bytearray(choose.randbytes(5000))
assert os.pwrite(writer, expected, 0) == 5000
hasty = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        os.close(writer)
        other = os.open(path, os.O_RDONLY)
        while True:
            size = os.fstat(other).st_size
            os.pread(other, 4096, max(0, size - 4096))
            with mmap.mmap(other, size, prot=mmap.PROT_READ) as memory: sum(memory[::512])
            os.pread(other, size, 0)
    hasty.append(child)
try:
    reader = os.open(path, os.O_RDWR)
    wrong = 0
    for number in range(rounds):
        at = len(expected) if number % 3 else choose.randrange(len(expected))
        data = choose.randbytes(choose.choice((1, 100, 3000, 4096, 9001)))
        expected[at:at + len(data)] = data
        assert os.pwrite(writer, data, at) == len(data)
        wrong += os.pread(reader, len(expected) + 1, 0) != expected
        with mmap.mmap(reader, len(expected)) as memory:
            wrong += memory[:] != expected
            if number % 7 == 0:
                place = choose.randrange(len(expected))
                memory[place] = expected[place] = number & 255
    print(wrong, os.stat(path).st_size == len(expected))
finally:
    for child in hasty: os.kill(child, 9); os.waitpid(child, 0)
for fd in (writer, reader): os.close(fd)
print(open(path, 'rb').read() == expected)
`

run('what one writes who made a file and does not read it is what others see, in their pages too', t => {
  const sandbox = new Sandbox('drive-readers')
  try {
    sandbox.borgfs(['init', '-e', 'repokey', 'repo'])
    const mountpoint = sandbox.mount('repo')
    writeFileSync(sandbox.path('readers.py'), readers)
    sandbox.run('mkdir', [`${mountpoint}/incoming/tree`])
    t.is(sandbox.run('python3', [sandbox.path('readers.py'), `${mountpoint}/incoming/tree/file`, '400']).stdout, '0 True\nTrue\n')
  } finally {
    sandbox.close()
  }
})

/**
 * The kernel asks for the same, and what happens is what drops more: root writes through pages to a file with capabilities; another user's chown to
 * nobody, which takes off capabilities before it is refused, and is not refused while somebody writes.
 */
const tellsTooLittle = [
  /^(?:write|append|allocate), root, \d+, capable, \d: 0 (\d+) \1 .*\| 0 (\d+) \2 /,
  /^chown to nobody, other, \d+, capable, closed: 1 (\d+) \1 .* 20 \| 1 \1 \1 .* -61$/,
  /^chown to nobody, other, \d+, (?:plain|capable), \d: 1 (\d+) \1 .*\| 0 (\d+) \2 /,
]
