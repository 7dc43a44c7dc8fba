/** The drive's read side through real mounts, held against what borg extracts. */
import test from 'ava'
import { closeSync, openSync, readdirSync, readFileSync, readSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { borgPython } from '../helpers/borg-repository.js'
import { fixtureJson, fixturePath } from '../helpers/fixtures.js'
import { eventually, haveBorg, isRoot, Sandbox } from '../helpers/sandbox.js'
import { differences, differencesBelow, makeEveryKind, makeSmallFiles, unpackGolden } from '../helpers/trees.js'

interface GoldenRepo {
  file: string
  passphrase: string | null
  archives: { name: string; items: { path?: string; type: string; part?: number; size?: number; mtime_ns?: string }[] }[]
}

const golden = fixtureJson<{ repos: GoldenRepo[] }>('golden', 'fixtures.json').repos
const run = haveBorg && isRoot ? test : test.skip
if (!haveBorg || !isRoot) console.error('SKIPPED aloud: test/interop/mount-read compares with the real borg as root')

for (const repo of golden) {
  run(`${repo.file} mounts equal to what borg extracts`, t => {
    const sandbox = new Sandbox('golden')
    try {
      const { folder, repository } = unpackGolden(sandbox, fixturePath('golden', repo.file))
      const env = { BORG_PASSPHRASE: repo.passphrase ?? undefined, BORG_KEY_FILE: readdirSync(folder).includes('keyfile') ? join(folder, 'keyfile') : undefined }
      const mountpoint = sandbox.mount(repository, { args: ['--numeric-ids'], env })
      t.deepEqual(readdirSync(mountpoint).filter(name => !name.startsWith('.') && !['incoming', 'live'].includes(name)).sort(),
        repo.archives.map(archive => archive.name).filter(name => !/\.checkpoint(\.\d+)?$/.test(name)).sort())
      for (const archive of repo.archives) {
        if (/\.checkpoint(\.\d+)?$/.test(archive.name)) continue
        // borg restores a '.' item before its siblings, so its own mtime does not survive; a tar's hard links carry attributes of their own.
        if (archive.items.some(item => item.path === '.') || archive.name.includes('i-tar')) continue
        const out = sandbox.mkdir('out', archive.name)
        sandbox.borg(['extract', '--numeric-ids', `${repository}::${archive.name}`], { cwd: out, env, ok: [0, 1] })
        // Directories that no item describes are made by each program in its own way.
        const described = new Set(archive.items.filter(item => item.type === 'dir').map(item => item.path))
        const found = differencesBelow(sandbox, out, join(mountpoint, archive.name)).split('\n')
          .filter(line => !(/^(\.d|[-+] d )/.test(line) && !described.has(line.replace(/^(\.\S+ |[-+] d .* )/, '').replace(/\/$/, ''))))
        t.is(found.join('\n'), '', archive.name)
      }
      sandbox.unmount(mountpoint)
      t.false(sandbox.isMounted(mountpoint))
    } finally {
      sandbox.close()
    }
  })
}

run('names that are too long for hosts of today, or for the kernel, and archives of impossible names hide nothing beside them', t => {
  const sandbox = new Sandbox('mount-names')
  try {
    sandbox.sh('borg init -e none repo')
    // macOS has names of 255 characters; the others are nobody's.
    sandbox.run(borgPython!, ['-c', String.raw`
import io, tarfile
tar = tarfile.open('long.tar', 'w', format=tarfile.PAX_FORMAT)
for name in ['d/' + '\u00e9' * 150, 'd/' + 'm' * 1024, 'd/' + 'x' * 1500, 'd/' + 'y' * 5000, 'd/zz', 'd/' + 'D' * 300 + '/f']:
    entry = tarfile.TarInfo(name); entry.size = 2; tar.addfile(entry, io.BytesIO(b'hi'))
tar.close()`])
    sandbox.borg(['import-tar', 'repo::long', 'long.tar'])
    sandbox.run(borgPython!, ['-c', String.raw`
from borg.repository import Repository
from borg.helpers import Manifest
from borg.logger import setup_logging
setup_logging()
with Repository('repo', exclusive=True) as repository:
    manifest, key = Manifest.load(repository, Manifest.NO_OPERATION_CHECK)
    info = manifest.archives.get('long')
    for name in ['a/b', 'n/' * 120, '']: manifest.archives[name] = (info.id, info.ts)
    manifest.write()
    repository.commit(compact=False)`])
    const mountpoint = sandbox.mount('repo')
    t.deepEqual(readdirSync(mountpoint).filter(name => !name.startsWith('.') && !['incoming', 'live'].includes(name)).sort(), ['_', 'a_b', 'long', 'n_'.repeat(100)])
    t.deepEqual(readdirSync(join(mountpoint, '.borgfs/latest')).length, 4)
    const names = ['D'.repeat(300), 'm'.repeat(1024), 'zz', 'é'.repeat(150)]
    t.deepEqual(readdirSync(join(mountpoint, 'long/d')).sort(), names)
    // What the kernel has by the listing is not asked for.
    sandbox.sh('echo 2 > /proc/sys/vm/drop_caches || true')
    for (const name of names.slice(1)) t.is(readFileSync(join(mountpoint, 'long/d', name), 'latin1'), 'hi')
    t.is(readFileSync(join(mountpoint, 'long/d', names[0]!, 'f'), 'latin1'), 'hi')
    for (const folder of ['long/d', 'incoming', '.']) t.throws(() => statSync(join(mountpoint, folder, 'q'.repeat(300))), { code: 'ENAMETOOLONG' }, folder)
    sandbox.unmount(mountpoint)
  } finally {
    sandbox.close()
  }
})

run('sizes that an archive lies about are an error where they would show other memory, and harm nothing else', t => {
  const sandbox = new Sandbox('mount-sizes')
  try {
    sandbox.sh('borg init -e none repo; mkdir good; for n in $(seq 50); do head -c 9000 /dev/urandom > good/$n; done; borg create repo::good good')
    sandbox.run(borgPython!, ['-c', String.raw`
import msgpack
from borg.repository import Repository
from borg.helpers import Manifest
from borg.logger import setup_logging
setup_logging()
with Repository('repo', exclusive=True) as repository:
    manifest, key = Manifest.load(repository, Manifest.NO_OPERATION_CHECK)
    def put(data):
        id = key.id_hash(data)
        repository.put(id, key.encrypt(data))
        return id
    chunk, time = put(b'x' * 1000), '2020-01-01T00:00:00.000000'
    entry = lambda path, said, **more: msgpack.packb(dict(path=path, mode=0o100644, uid=0, gid=0, user='root', group='root', mtime=1, chunks=[(chunk, said, 1)], **more), use_bin_type=False)
    items = [entry('right', 1000), entry('longer', 1000, size=10**15), entry('shorter', 1000, size=10), entry('../a\nforged', 1000)] + [entry('said-%d' % size, size) for size in (0, 10, 5000, 100000, 2**32 - 2, 2**32 - 1)]
    data = dict(version=1, name='lies', items=[put(b''.join(items))], cmdline=[], hostname='', username='', time=time, time_end=time, chunker_params=('buzhash', 19, 23, 21, 4095), comment='')
    manifest.archives['lies'] = (put(msgpack.packb(data, use_bin_type=False)), time)
    manifest.write()
    repository.commit(compact=False)`])
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'cache=1M'] })
    const read = (name: string): string => sandbox.sh(`dd if=mnt/lies/${name} iflag=direct bs=4096 count=1 2>/dev/null || echo refused`).stdout
    for (let round = 0; round < 2; round++) {
      sandbox.sh('cat mnt/good/good/* | cmp - <(cat good/*)')
      for (const size of [10, 5000, 100_000, 2 ** 32 - 2, 2 ** 32 - 1]) t.is(read(`said-${size}`), 'refused\n', `${size}`)
      t.is(read('said-0'), '')
      t.is(read('right'), 'x'.repeat(1000))
      t.is(read('shorter'), 'x'.repeat(10))
      t.is(read('longer'), 'x'.repeat(1000))
    }
    sandbox.unmount(mountpoint)
    // Nor does a name make lines of the log.
    t.is(sandbox.sh("sed -n 's/.*\\(unsafe path.*\\)/\\1/p; /^forged/p' home/.cache/borg/*/mount.log").stdout, 'unsafe path: ../a\\nforged\n')
  } finally {
    sandbox.close()
  }
})

run('a read of thousands of chunks is one answer', t => {
  const sandbox = new Sandbox('mount-pieces')
  try {
    sandbox.sh('head -c 2000000 /dev/urandom > file; borg init -e none repo; borg create --chunker-params fixed,64 repo::small file')
    const mountpoint = sandbox.mount('repo')
    for (const round of ['before they are here', 'and then']) t.is(sandbox.sh('dd if=mnt/small/file iflag=direct bs=1M | cmp - file').rc, 0, round)
    sandbox.unmount(mountpoint)
  } finally {
    sandbox.close()
  }
})

run('ls is told once where nothing has an ACL, and still marks what has one; no program copies less, and no user may more or less', t => {
  const sandbox = new Sandbox('mount-marks')
  try {
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    sandbox.sh(`mkdir -p bare/d marked/d; for n in $(seq 100); do echo $n > bare/d/f$n; done; cp -r bare/d marked; chmod 640 bare/d/f5; chown 1000 bare/d/f6; setfacl -m u:daemon:r marked/d/f7 marked/d/f90
      (cd bare; borg create ../repo::bare .); (cd marked; borg create ../repo::marked .); (cd bare; borg create ../repo::more .)`)
    const mountpoint = sandbox.mount('repo', { args: ['--numeric-ids', '-o', 'allow_other'] })
    const marked = (command: string): string => sandbox.sh(`${command} | grep -o '^-[-rwx]*+.*' | sed 's/.* //' | tr '\\n' ' '`, { ok: 'any' }).stdout.trim()
    t.is(marked('ls -l mnt/marked/d'), 'f7 f90')
    t.is(marked('ls -lR mnt'), 'f7 f90')
    t.is(marked('ls -l mnt/bare/d/f7 mnt/marked/d/f7 mnt/more/d/f7'), 'mnt/marked/d/f7')
    t.is(sandbox.sh('ls -lR --time-style=full-iso mnt/bare/d | tail -n +3').stdout, sandbox.sh('ls -lR --time-style=full-iso bare/d | tail -n +3').stdout)
    // Of ACLs the kernel remembers what it was told.
    const asked = `python3 -c "
import errno, os
for n in list(range(1, 101)):
    try: os.getxattr(f'mnt/more/d/f{n}', 'security.selinux')
    except OSError as e: print(errno.errorcode[e.errno])
" | sort | uniq -c`
    t.deepEqual(sandbox.sh(asked).stdout.trim().split(/\s+/), ['63', 'ENODATA', '37', 'ENOTSUP'])
    sandbox.sh('cp -a mnt/bare copied; mkdir synced unpacked; rsync -aAX mnt/bare/ synced; tar --acls --xattrs --selinux -C mnt/bare -cf - . | tar --acls --xattrs -C unpacked -xf -')
    for (const made of ['copied', 'synced', 'unpacked', 'mnt/bare']) {
      t.is(differences(sandbox, sandbox.path('bare'), sandbox.path(made)), '', made)
      t.is(sandbox.sh('getfacl -p --numeric -R . | sort', { cwd: sandbox.path(made) }).stdout, sandbox.sh('getfacl -p --numeric -R . | sort', { cwd: sandbox.path('bare') }).stdout, made)
    }
    // The kernel asks for ACLs to know who may.
    sandbox.sh(`chmod 755 .`)
    t.is(sandbox.sh('setpriv --reuid=65534 --regid=65534 --clear-groups sh -c "cat mnt/bare/d/f* mnt/bare/d/f* | wc -l; cat mnt/bare/d/f5" 2>&1', { ok: 'any' }).stdout.replace(/^cat: .*f5: Permission denied\n/gm, ''), '198\n')
    t.is(sandbox.sh('setpriv --reuid=1 --regid=1 --clear-groups cat mnt/marked/d/f7').stdout, '7\n')
    sandbox.unmount(mountpoint)
  } finally {
    sandbox.close()
  }
})

run('rsync finds no difference between a tree with every kind of file and its archive in the mount', t => {
  const sandbox = new Sandbox('mount-kinds')
  try {
    const source = makeEveryKind(sandbox)
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    sandbox.borg(['create', '../repo::a', '.'], { cwd: source })
    const mountpoint = sandbox.mount('repo', { args: ['--numeric-ids'] })
    t.is(differences(sandbox, source, join(mountpoint, 'a')), '')
    t.is(sandbox.sh('getfacl -p --numeric -R . | sort', { cwd: source }).stdout, sandbox.sh('getfacl -p --numeric -R . | sort', { cwd: join(mountpoint, 'a') }).stdout)
    t.is(sandbox.sh('cp x mnt/a/x 2>&1 || cp source mnt/a/x 2>&1 || true; touch mnt/a/new 2>&1 || true').stdout.includes('Read-only file system'), true)
    t.true(sandbox.sh('cat /proc/self/mounts').stdout.split('\n').some(line => line.startsWith(`borgfs ${mountpoint} fuse`)))
    sandbox.unmount(mountpoint)
  } finally {
    sandbox.close()
  }
})

run('one archive mounts as its files', t => {
  const sandbox = new Sandbox('mount-one')
  try {
    const source = makeSmallFiles(sandbox, 'source', 300)
    sandbox.borg(['init', '-e', 'none', 'repo'])
    sandbox.borg(['create', '../repo::a', '.'], { cwd: source })
    const mountpoint = sandbox.mount('repo::a')
    t.is(differences(sandbox, source, mountpoint), '')
    sandbox.unmount(mountpoint)
  } finally {
    sandbox.close()
  }
})

run('a damaged chunk gives EIO for the reads that touch it and nothing else', async t => {
  const sandbox = new Sandbox('mount-damage')
  try {
    const source = sandbox.mkdir('source')
    sandbox.sh('for i in 1 2 3; do head -c 20000 /dev/urandom > f$i; done', { cwd: source })
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    sandbox.borg(['create', '-C', 'none', '../repo::a', '.'], { cwd: source })
    // f2's object is found by its stored length and order, and one byte in its middle is turned over.
    const found: { segment: string; at: number }[] = []
    for (const name of readdirSync(sandbox.path('repo/data/0')).sort((a, b) => Number(a) - Number(b))) {
      const segment = sandbox.path('repo/data/0', name)
      const bytes = readFileSync(segment)
      for (let at = 8; at < bytes.length; at += bytes.readUInt32LE(at + 4)) if (bytes.readUInt32LE(at + 4) > 20000 && bytes[at + 8] === 0) found.push({ segment, at })
    }
    t.is(found.length, 3)
    const damaged = readFileSync(found[1]!.segment)
    damaged[found[1]!.at + 10000]! ^= 1
    writeFileSync(found[1]!.segment, damaged)
    const mountpoint = sandbox.mount('repo')
    const results = ['f1', 'f2', 'f3'].map(name => sandbox.sh(`cat mnt/a/${name} | cmp - source/${name}`, { ok: 'any' }))
    t.is(results.filter(result => result.rc === 0).length, 2)
    t.regex(results.map(result => result.stderr).join(''), /Input\/output error/)
    t.is(sandbox.sh('ls mnt/a').stdout, 'f1\nf2\nf3\n')
    sandbox.unmount(mountpoint)
  } finally {
    sandbox.close()
  }
})

run('an archive made by another client appears in a mounted drive, and the drive does not delay it', async t => {
  const sandbox = new Sandbox('mount-refresh')
  try {
    const source = makeSmallFiles(sandbox, 'source', 50)
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    sandbox.borg(['create', '../repo::one', '.'], { cwd: source })
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'refresh=1'] })
    t.is(statSync(join(mountpoint, 'one')).isDirectory(), true)
    sandbox.borg(['--lock-wait', '30', 'create', '../repo::two', '.'], { cwd: source })
    await eventually('the new archive in the mount', () => readdirSync(mountpoint).includes('two'))
    t.is(differences(sandbox, source, join(mountpoint, 'two')), '')
    sandbox.unmount(mountpoint)
  } finally {
    sandbox.close()
  }
})

run('reads at any offset give the right bytes while the cache is far smaller than the file', t => {
  const sandbox = new Sandbox('mount-random')
  try {
    const source = sandbox.mkdir('source')
    sandbox.sh('head -c 60000000 /dev/urandom > big', { cwd: source })
    sandbox.borg(['init', '-e', 'repokey-blake2', 'repo'])
    sandbox.borg(['create', '../repo::a', '.'], { cwd: source })
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'cache=8M'] })
    const expected = readFileSync(join(source, 'big'))
    const fd = openSync(join(mountpoint, 'a', 'big'), 'r')
    const buffer = Buffer.alloc(300_000)
    let state = 12345
    for (let index = 0; index < 200; index++) {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0
      const offset = state % (expected.length + 1000)
      const length = 1 + ((state >>> 8) % buffer.length)
      const count = readSync(fd, buffer, 0, length, offset)
      t.true(buffer.subarray(0, count).equals(expected.subarray(offset, offset + length)))
    }
    closeSync(fd)
    sandbox.unmount(mountpoint)
  } finally {
    sandbox.close()
  }
})

run('the second transport, fuse-native, shows archives, takes files in and says what it cannot do', t => {
  const sandbox = new Sandbox('mount-native')
  try {
    const source = makeSmallFiles(sandbox, 'source', 100)
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    sandbox.borg(['create', '../repo::a', '.'], { cwd: source })
    const mountpoint = sandbox.mkdir('mnt')
    sandbox.remember(mountpoint)
    t.regex(sandbox.borgfs(['mount', '-o', 'transport=fuse-native', 'repo', mountpoint]).stderr, /exact to the millisecond/)
    t.is(sandbox.sh('diff -r source mnt/a && cp -r source mnt/incoming/').stdout, '')
    sandbox.unmount(mountpoint)
    t.false(sandbox.isMounted(mountpoint))
    const archive = sandbox.archives()[1]!
    t.regex(archive, /^source-\d{4}/)
    const out = sandbox.mkdir('out')
    sandbox.borg(['extract', `../repo::${archive}`], { cwd: out })
    t.is(sandbox.sh('diff -r source out').stdout, '')
  } finally {
    sandbox.close()
  }
})

run('files read in order are handed to the kernel ahead, and are right also when it lost them and when they are copied', t => {
  const sandbox = new Sandbox('mount-handed')
  try {
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    makeSmallFiles(sandbox, 'src', 3000)
    sandbox.sh('dd if=/dev/urandom of=src/long bs=300k count=1 2>/dev/null; : > src/empty; cd src; borg create ../repo::a .')
    const mountpoint = sandbox.mount('repo')
    const same = (): string => sandbox.sh('tar cf - -C mnt/a . | tar df - -C src 2>&1 | grep -v "differs$" | head', { ok: 'any' }).stdout
    t.is(same(), '')
    t.is(same(), '', 'what the kernel has')
    // Every fourth is dropped from the page cache while it is open.
    writeFileSync(sandbox.path('drop.py'), `import os, sys
wrong = 0
for turn in range(2):
    for folder, folders, names in os.walk(b'mnt/a'):
        for number, name in enumerate(names):
            path = os.path.join(folder, name)
            fd = os.open(path, os.O_RDONLY)
            if number % 4 == turn:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            with os.fdopen(fd, 'rb') as file, open(b'src' + path[len(b'mnt/a'):], 'rb') as own:
                wrong += file.read() != own.read()
print(wrong)
`)
    t.is(sandbox.sh('python3 drop.py').stdout, '0\n')
    sandbox.sh('cp -r mnt/a mnt/incoming/again && mv mnt/incoming/again mnt/again && sync')
    sandbox.unmount(mountpoint)
    t.is(sandbox.sh('mkdir out; cd out; borg extract ../repo::again; diff -r ../src .').stdout, '')
  } finally {
    sandbox.close()
  }
})
