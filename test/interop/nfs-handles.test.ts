/** Handles, by which an NFS server names files: those of inodes that the kernel has never heard of, of ones that are gone, and of an earlier mount. */
import test from 'ava'
import { isRoot, Sandbox } from '../helpers/sandbox.js'

const run = isRoot ? test.serial : test.serial.skip
if (!isRoot) console.error('SKIPPED aloud: test/interop/nfs-handles needs root, who alone may open handles')

/** `handle PATH` prints one; `open PATH HANDLE` what it leads to. A handle of FUSE is inode (upper, lower half) and generation, then those of the parent. */
const probe = String.raw`
import ctypes, errno, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def handle(path):
    room = ctypes.create_string_buffer(struct.pack('Ii', 128, 0) + bytes(128), 136)
    mount = ctypes.c_int()
    if libc.name_to_handle_at(-100, path.encode(), room, ctypes.byref(mount), 0) < 0: raise OSError(ctypes.get_errno(), path)
    length, kind = struct.unpack_from('Ii', room.raw)
    return kind, room.raw[8:8 + length]
def opened(top, kind, data):
    fd = os.open(top, os.O_RDONLY)
    room = ctypes.create_string_buffer(struct.pack('Ii', len(data), kind) + data, 8 + len(data))
    found = libc.open_by_handle_at(fd, room, os.O_RDONLY)
    if found < 0: return errno.errorcode[ctypes.get_errno()]
    if os.path.isdir('/proc/self/fd/%d' % found): return os.readlink('/proc/self/fd/%d' % found) + ' ' + ' '.join(sorted(os.listdir(found)))
    return os.read(found, 99).decode().strip()
def shifted(data, rows): return struct.pack('III', data[0], data[1] + rows, data[2])
top = sys.argv[1]
for line in sys.stdin.read().splitlines():
    words = line.split(' ')
    if words[0] == 'handle': print(*[str(part) for part in (lambda kind, data: (kind, data.hex()))(*handle(top + '/' + words[1]))])
    elif words[0] == 'open': print(opened(top, int(words[1]), bytes.fromhex(words[2])))
    elif words[0] == 'next':
        kind, data = handle(top + '/' + words[1])
        print(opened(top, 0x81, shifted(struct.unpack_from('III', data), int(words[2]))))
    elif words[0] == 'unlink': os.unlink(top + '/' + words[1])
`

run('handles of archives, views and staged trees open what they were given for; those of an earlier mount open nothing', t => {
  const sandbox = new Sandbox('handles')
  try {
    sandbox.sh('mkdir -p source/d/e; for n in 1 2 3; do echo "text $n" > source/d/e/f$n; done')
    sandbox.borgfs(['init', '-e', 'none', 'repo'])
    sandbox.borgfs(['create', '--timestamp', '2026-05-01T00:00:00', 'repo::one', 'source/d'])
    const ask = (...lines: string[]): string[] => sandbox.run('python3', ['-c', probe, mountpoint], { input: lines.join('\n') }).stdout.trim().split('\n')
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'settle=1000'] })
    sandbox.sh('mkdir -p mnt/incoming/box/in; echo staged > mnt/incoming/box/in/file; echo gone > mnt/incoming/box/in/gone')
    const place = '.borgfs/snapshots/one/@GMT-2026.05.01-00.00.00'
    // Rows of an archive follow each other as its items do: source, d, e, and the files. Only the first was looked up.
    t.deepEqual(ask('next one 0', 'next one 1', 'next one 3', 'next one 4', 'next one 6', 'next one 7', `next ${place} 3`, `next ${place} 5`, 'next .borgfs/versions 3'), [
      `${mountpoint}/one source`, `${mountpoint}/one/source d`, `${mountpoint}/one/source/d/e f1 f2 f3`, 'text 1', 'text 3', 'ESTALE',
      `${mountpoint}/${place}/source/d/e f1 f2 f3`, 'text 2', `${mountpoint}/.borgfs/versions/source/d/e f1 f2 f3`,
    ])
    const handles = ask('handle one/source/d/e/f1', 'handle incoming/box/in/file', 'handle incoming/box/in', 'handle incoming/box/in/gone', 'handle .borgfs/latest')
    t.deepEqual(ask(...handles.map(handle => `open ${handle}`)), ['text 1', 'staged', `${mountpoint}/incoming/box/in file gone`, 'gone', `${mountpoint}/.borgfs/latest one`])
    t.deepEqual(ask('unlink incoming/box/in/gone', `open ${handles[3]!}`, `open ${handles[2]!}`), ['ESTALE', `${mountpoint}/incoming/box/in file`])
    sandbox.unmount(mountpoint)
    sandbox.mount('repo', { args: ['-o', 'settle=1000'] })
    t.deepEqual(ask(...handles.map(handle => `open ${handle}`)), handles.map(() => 'ESTALE'))
    t.is(ask('next one 6')[0], 'text 3')
    sandbox.unmount(mountpoint)
  } finally {
    sandbox.close()
  }
})
