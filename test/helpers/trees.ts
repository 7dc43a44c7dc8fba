/** Trees of files to back up, and ways to tell whether two trees are the same. */
import { join } from 'node:path'
import { isRoot, type Sandbox } from './sandbox.js'

/**
 * A tree with every kind of object that archives hold: files of several chunks, empty and sparse ones, names that are not
 * UTF-8, hard links, symlinks (dangling, not UTF-8), fifos, devices (as root), odd modes, owners, ns times, xattrs (empty,
 * binary, with a name that is not UTF-8), ACLs (access and default). What the host's file system refuses is an error.
 */
export function makeEveryKind(sandbox: Sandbox, name = 'every-kind'): string {
  const folder = sandbox.mkdir(name)
  sandbox.sh(
    String.raw`
    mkdir -p dir/deep/er 'with space' empty-dir
    printf 'hello\n' > dir/hello
    : > empty
    head -c 300000 /dev/urandom > dir/random
    head -c 3000000 /dev/urandom > dir/several-chunks
    yes 'a line of text that compresses well' | head -c 2500000 > dir/deep/text || true
    truncate -s 5M sparse; printf 'end' | dd of=sparse bs=1 seek=5242880 conv=notrunc status=none
    printf 'odd' > $'caf\xe9'; printf 'odder' > $'dir/\xff\xfe\x80'; printf 'nl' > $'new\nline'
    printf 'x' > 'ünï¢ödé 日本'; printf 'y' > "$(printf 'n%.0s' $(seq 255))"
    printf 'h' > hard1; ln hard1 dir/hard2; ln hard1 'with space/hard3'
    ln -s hello dir/link; ln -s nowhere dangling; ln -s $'\xff\xfe' odd-link
    mkfifo fifo; ln fifo fifo2
    chmod 4755 dir/hello; chmod 0600 dir/random; chmod 1777 empty-dir; chmod 0 empty
    setfattr -n user.comment -v 'a note' dir/hello
    setfattr -n user.binary -v 0x00ff0a00 dir/random
    setfattr -n user.empty dir/random
    setfattr -n user.on-dir -v d dir/deep
    setfattr -n $'user.b\xe4d' -v x dir/random
    setfacl -m u:daemon:rw-,g:daemon:r-- dir/random
    setfacl -d -m u:daemon:rwx,g::r-x dir/deep
    ${isRoot ? String.raw`
    mknod char c 1 3; mknod block b 7 200
    chown 1234:4321 dir/random; chown -h 4000000000:12 dangling; chown 1:1 hard1
    chmod 4755 dir/hello
    setfattr -n trusted.t -v secret dir/hello
    setfattr -h -n trusted.link -v l dangling
    setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 'with space/hard3'` : ''}
    # rsync leaves a time alone that differs only below the second.
    find . -mindepth 1 -depth -exec touch -h -d '2015-05-05 05:05:05.505050505' {} +
    touch -d '2001-02-03 04:05:06.123456789' dir/hello
    touch -d '1970-01-01 00:00:00.000000001' empty
    touch -d '2037-12-31 23:59:59.999999999' dir/random
    touch -h -d '2010-10-10 10:10:10.101010101' dangling
    touch -d '2012-12-12 12:12:12.121212121' dir/deep empty-dir
    touch -d '2011-11-11 11:11:11.111111111' dir
    `,
    { cwd: folder },
  )
  return folder
}

/** `count` small text files in nested directories; the same seed gives the same bytes. */
export function makeSmallFiles(sandbox: Sandbox, name: string, count: number, seed = 1): string {
  const folder = sandbox.mkdir(name)
  sandbox.run('python3', ['-c', `
import os, random, sys
rng = random.Random(${seed})
words = [b'alpha', b'beta', b'gamma', b'delta', b'return', b'const', b'value', b'index', b'chunk', b'archive']
pool = b' '.join(rng.choice(words) + b'%d' % rng.randrange(1000) for _ in range(200000))
for i in range(${count}):
    d = 'd%03d/e%02d' % (i // 300, i // 20 % 15)
    os.makedirs(d, exist_ok=True)
    size = min(int(rng.lognormvariate(8, 1.2)), 400000)
    off = rng.randrange(len(pool) - size)
    with open('%s/f%05d' % (d, i), 'wb') as f: f.write(b'%d %d\\n' % (i, rng.getrandbits(60)) + pool[off:off + size])
    os.utime('%s/f%05d' % (d, i), ns=(10**18 + i, 10**18 + i * 1000003))
`], { cwd: folder })
  return folder
}

/** What rsync would have to change to make `copy` like `source`; empty when they agree. Contents are compared. */
export function rsyncDifferences(sandbox: Sandbox, source: string, copy: string): string {
  return sandbox.run('rsync', ['-aHAX', '--numeric-ids', '-c', '-n', '--delete', '--itemize-changes', source + '/', copy + '/']).stdout
}

/** One line per object: kind, mode, owner, links, size, mtime to the ns, path, target. Directory sizes left out. */
export function listing(sandbox: Sandbox, folder: string): string {
  return sandbox
    .sh(String.raw`find . -mindepth 1 \( -type d -printf '%y %m %U:%G - - %T@ %P\n' -o -printf '%y %m %U:%G %n %s %T@ %P -> %l\n' \) | LC_ALL=C sort`, { cwd: folder })
    .stdout
}

/** Everything that differs between two trees, as text for a failed assertion; empty when they agree. */
export function differences(sandbox: Sandbox, source: string, copy: string): string {
  const found = rsyncDifferences(sandbox, source, copy)
  const [a, b] = [listing(sandbox, source).split('\n'), listing(sandbox, copy).split('\n')]
  const [inA, inB] = [new Set(a), new Set(b)]
  return [found, ...a.filter(line => !inB.has(line)).map(line => `- ${line}`), ...b.filter(line => !inA.has(line)).map(line => `+ ${line}`)]
    .filter(Boolean)
    .join('\n')
}

/** `differences` without the top directory itself: borg restores an item `.` before its siblings, so its time does not survive. */
export function differencesBelow(sandbox: Sandbox, source: string, copy: string): string {
  return differences(sandbox, source, copy).split('\n').filter(line => !/ \.\/$/.test(line)).join('\n')
}

/** Unpacks test/fixtures/golden/NAME.tar.gz; returns the repository's path. */
export function unpackGolden(sandbox: Sandbox, archive: string): { folder: string; repository: string } {
  const folder = sandbox.mkdir('golden')
  sandbox.run('tar', ['xzf', archive, '-C', folder])
  const name = archive.split('/').at(-1)!.replace('.tar.gz', '')
  return { folder: join(folder, name), repository: join(folder, name, 'repo') }
}
