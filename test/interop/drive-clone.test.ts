/** Cloning from archives into incoming/ by copy_file_range and link: no data is read or stored, and what is made of it is right to the byte. */
import test from 'ava'
import { mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { haveBorg, isRoot, Sandbox } from '../helpers/sandbox.js'
import { differences, differencesBelow, makeEveryKind } from '../helpers/trees.js'

const run = haveBorg && isRoot ? test.serial : test.serial.skip
if (!haveBorg || !isRoot) console.error('SKIPPED aloud: test/interop/drive-clone compares with the real borg as root')

const quiet = ['-o', 'settle=1000,linger=1000']

function stagedKiB(sandbox: Sandbox): number {
  return Number(sandbox.sh('du -sk home/.cache/borg/*/staging/spool | cut -f1').stdout)
}

function dataBytes(sandbox: Sandbox): number {
  return Number(sandbox.sh('du -sb repo/data | cut -f1').stdout)
}

run('cp, cp -al and rsync --link-dest from an archive cost metadata only, and the archives made of them are equal', t => {
  const sandbox = new Sandbox('clone')
  try {
    const source = makeEveryKind(sandbox, 'source')
    sandbox.sh('head -c 9000000 /dev/urandom > large', { cwd: source })
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    sandbox.borg(['create', '../repo::one', '.'], { cwd: source })
    const mountpoint = sandbox.mount('repo', { args: quiet })
    sandbox.sh('mkdir mnt/incoming/copied; cp mnt/one/large mnt/incoming/copied/large; cp mnt/incoming/copied/large mnt/incoming/copied/again')
    sandbox.sh('cp -al mnt/one mnt/incoming/linked; rsync -aHAX --link-dest="$PWD/mnt/one/" source/ mnt/incoming/synced/')
    t.true(stagedKiB(sandbox) < 300, `${stagedKiB(sandbox)} KiB staged`)
    t.is(statSync(join(mountpoint, 'incoming/copied/large')).blocks, Math.ceil(9_000_000 / 512))
    t.is(sandbox.sh('cmp source/large mnt/incoming/copied/large && cmp source/large mnt/incoming/copied/again && echo same').stdout, 'same\n')
    t.is(differences(sandbox, source, join(mountpoint, 'incoming/synced')), '')
    const before = dataBytes(sandbox)
    const report = sandbox.borgfs(['commit', mountpoint]).stdout
    t.is(report.split('\n').filter(line => line.includes('saved as')).length, 3)
    t.true(dataBytes(sandbox) - before < 100_000, `${dataBytes(sandbox) - before} bytes stored`)
    sandbox.unmount(mountpoint)
    sandbox.assertSound()
    for (const name of sandbox.archives().filter(name => /^(linked|synced)-/.test(name))) {
      const out = sandbox.mkdir(`out-${name}`)
      sandbox.borg(['extract', '--numeric-ids', `../repo::${name}`], { cwd: out })
      t.is(differencesBelow(sandbox, source, out), '', name)
    }
  } finally {
    sandbox.close()
  }
})

const operations = String.raw`
import ctypes, mmap, os, random, sys
seed, count = int(sys.argv[1]), int(sys.argv[2])
rng = random.Random(seed)
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
roots = ['plain', 'mnt/incoming/t']
sources = ['source', 'mnt/one']
fds = [[os.open(f'{r}/{n}', os.O_RDWR) for n in 'ab'] for r in roots]
sfds = [[os.open(f'{s}/{n}', os.O_RDONLY) for n in 'ab'] for s in sources]
def both(what):
    seen = []
    for side in (0, 1):
        try: seen.append(what(side))
        except OSError as e: seen.append(('error', e.errno))
    if seen[0] != seen[1]: sys.exit(f'seed {seed}: {name} differs: {str(seen)[:300]}')
    return seen[0]
for step in range(count):
    f = rng.randrange(2); size = os.fstat(fds[0][f]).st_size
    at = rng.randrange(size + 1 + size // 20 + 100); length = 1 + int(rng.expovariate(1 / 9000))
    kind = rng.random(); name = f'step {step} on {"ab"[f]}: '
    if kind < 0.25:
        data = rng.randbytes(length); name += f'pwrite {at}+{length}'
        both(lambda s: os.pwrite(fds[s][f], data, at))
    elif kind < 0.35:
        name += f'truncate {at}'
        both(lambda s: os.ftruncate(fds[s][f], at))
    elif kind < 0.45:
        name += f'punch {at}+{length}'
        both(lambda s: libc.fallocate(fds[s][f], 3, at, length))
    elif kind < 0.5:
        name += f'zero {at}+{length}'
        both(lambda s: libc.fallocate(fds[s][f], 16, at, length))
    elif kind < 0.7:
        g = rng.randrange(2); there = rng.randrange(os.fstat(sfds[0][g]).st_size); length *= 9
        name += f'clone {"ab"[g]} {there}+{length} to {at}'
        def clone(s):
            done = 0
            while done < length:
                n = os.copy_file_range(sfds[s][g], fds[s][f], length - done, there + done, at + done)
                if n == 0: break
                done += n
            return done
        both(clone)
    elif kind < 0.75:
        g = 1 - f; there = rng.randrange(os.fstat(fds[0][g]).st_size + 1); length *= 4
        name += f'copy {"ab"[g]} {there}+{length} to {at}'
        def copy(s):
            done = 0
            while done < length:
                n = os.copy_file_range(fds[s][g], fds[s][f], length - done, there + done, at + done)
                if n == 0: break
                done += n
            return done
        both(copy)
    elif kind < 0.8 and size > 0:
        at = rng.randrange(size); length = min(length, size - at); data = rng.randbytes(length); name += f'mmap {at}+{length}'
        def mapped(s):
            m = mmap.mmap(fds[s][f], size); m[at:at + length] = data; m.flush(); m.close()
        both(mapped)
    elif kind < 0.85:
        name += f'holes of a file of {size}'
        # Where holes are may differ, but not that they read as zeros and that data is found.
        for s in (1,):
            p = 0; whole = os.pread(fds[s][f], size, 0)
            while p < size:
                try: d = os.lseek(fds[s][f], p, os.SEEK_DATA)
                except OSError: d = size
                if whole[p:d].strip(b'\0'): sys.exit(f'seed {seed}: {name}: data in a hole at {p}..{d}')
                if d == size: break
                h = os.lseek(fds[s][f], d, os.SEEK_HOLE)
                if h <= d: sys.exit(f'seed {seed}: {name}: empty data at {d}')
                p = h
    else:
        name += f'read {at}+{length}'
        both(lambda s: os.pread(fds[s][f], length * 3, at))
    both(lambda s: os.fstat(fds[s][f]).st_size)
for f in (0, 1):
    name = 'at the end'
    both(lambda s: os.pread(fds[s][f], os.fstat(fds[s][f]).st_size, 0))
    os.fsync(fds[1][f])
`

run('clones that are written, cut, punched, mapped and cloned over at random stay equal to plain files, through kill -9 and in the archive', async t => {
  const sandbox = new Sandbox('clone-random')
  try {
    sandbox.mkdir('source')
    sandbox.sh('head -c 3000000 /dev/urandom > source/a; head -c 400000 /dev/urandom > source/b')
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    // Many small chunks.
    sandbox.borg(['create', '--chunker-params', '10,16,13,4095', '../repo::one', '.'], { cwd: sandbox.path('source') })
    const mountpoint = sandbox.mount('repo', { args: quiet })
    for (const seed of [1, 2, 3]) {
      sandbox.sh('rm -rf plain mnt/incoming/t; mkdir plain mnt/incoming/t; cp source/a source/b plain; cp mnt/one/a mnt/one/b mnt/incoming/t')
      sandbox.run('python3', ['-c', operations, String(seed), '700'])
      t.pass()
    }
    await sandbox.killMount()
    sandbox.mount('repo', { args: quiet })
    t.is(sandbox.sh('cmp plain/a mnt/incoming/t/a && cmp plain/b mnt/incoming/t/b && echo same').stdout, 'same\n', 'after kill -9')
    sandbox.sh('mv mnt/incoming/t mnt/made')
    t.is(sandbox.sh('cmp plain/a mnt/made/a && cmp plain/b mnt/made/b && echo same').stdout, 'same\n', 'in the mount')
    sandbox.unmount(mountpoint)
    sandbox.assertSound()
    sandbox.borg(['extract', '../repo::made'], { cwd: sandbox.mkdir('out') })
    t.is(sandbox.sh('cmp plain/a out/a && cmp plain/b out/b && echo same').stdout, 'same\n', 'extracted by borg')
  } finally {
    sandbox.close()
  }
})

run('a clone of what another client deletes and compacts fails its commit with a sentence, and the rest stays staged', t => {
  const sandbox = new Sandbox('clone-gone')
  try {
    sandbox.mkdir('source')
    sandbox.sh('head -c 300000 /dev/urandom > source/f')
    sandbox.borg(['init', '-e', 'none', 'repo'])
    sandbox.borg(['create', 'repo::one', 'source'])
    const mountpoint = sandbox.mount('repo', { args: quiet })
    mkdirSync(join(mountpoint, 'incoming/t'))
    sandbox.sh('ln mnt/one/source/f mnt/incoming/t/linked; echo x > mnt/incoming/t/own')
    sandbox.borg(['--lock-wait', '60', 'delete', 'repo::one'])
    sandbox.borg(['--lock-wait', '60', 'compact', '--threshold', '0', 'repo'])
    const refused = sandbox.borgfs(['commit', mountpoint], { ok: [2] })
    t.regex(refused.stderr, /incoming\/t was not saved and stays staged: linked refers to data of an archive that was deleted meanwhile/)
    sandbox.sh('cp source/f mnt/incoming/t/linked')
    sandbox.borgfs(['commit', mountpoint])
    const made = readdirSync(mountpoint).find(name => name.startsWith('t-'))!
    t.deepEqual(readFileSync(join(mountpoint, made, 'linked')), readFileSync(sandbox.path('source/f')))
    sandbox.unmount(mountpoint)
  } finally {
    sandbox.close()
  }
})
