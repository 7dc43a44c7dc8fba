/** Trees that the drive keeps in the cache folder: what later mounts show is what the first one did, and Borg does not mind them. */
import test from 'ava'
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { haveBorg, isRoot, Sandbox } from '../helpers/sandbox.js'

const run = haveBorg && isRoot ? test.serial : test.serial.skip
if (!haveBorg || !isRoot) console.error('SKIPPED aloud: test/interop/stored-trees compares with the real borg as root')

const listing = String.raw`find . ! -type d -printf "%p %y %m %U %G %s %T@ %l %n\n" | sort; find . -mindepth 1 -type d -printf "%p %m %U %G %T@\n" | sort; find d0 | sort | getfacl -p -; cat d3/f3 d9/hard`

run('a second mount, other options, damage, deletion by Borg, and archives made in the drive', t => {
  const sandbox = new Sandbox('stored-trees')
  try {
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    sandbox.sh('mkdir src; cd src; for d in $(seq 0 9); do mkdir d$d; for f in $(seq 1 120); do echo $d $f > d$d/f$f; done; done; ln d1/f1 d9/hard; ln -s f1 d0/link; setfacl -m u:daemon:r d0/f1; chmod 4751 d0/f2; borg create ../repo::one .; borg create ../repo::two d1')
    const id = JSON.parse(sandbox.borg(['list', '--json', 'repo']).stdout).repository.id as string
    const folder = sandbox.path('home/.cache/borg', id, 'borgfs-trees')
    const shown = (args: string[] = []): string => {
      const mountpoint = sandbox.mount('repo', { args })
      const answer = sandbox.sh(listing, { cwd: join(mountpoint, 'one') }).stdout
      sandbox.unmount(mountpoint)
      return answer
    }
    const first = shown()
    t.is(first, sandbox.sh(listing, { cwd: join(sandbox.folder, 'src') }).stdout)
    // One of two archives has enough files, and only that one was entered.
    const [name, ...rest] = readdirSync(folder)
    t.deepEqual(rest, [])
    t.is(statSync(join(folder, name!)).mode & 0o777, 0o600)
    t.is(statSync(folder).mode & 0o777, 0o700)
    const kept = readFileSync(join(folder, name!))
    t.is(shown(), first)
    t.true(readFileSync(join(folder, name!)).equals(kept), 'it was used, not made anew')

    const other = shown(['-o', 'umask=077,uid=1234'])
    t.true(readFileSync(join(folder, name!)).equals(kept))
    t.regex(other, /^\.\/d0\/f3 f 600 1234 0 /m)
    t.is(shown(['-o', 'umask=077,uid=1234,trees=0']), other)
    t.is(shown(['-o', 'trees=0']), first)

    const bad = Buffer.from(kept)
    for (let at = 100; at < bad.length; at += 997) bad[at]! ^= 1
    writeFileSync(join(folder, name!), bad)
    t.is(shown(), first)
    t.false(readFileSync(join(folder, name!)).equals(bad), 'it was replaced')
    t.is(shown(), first)

    sandbox.sh('borg create repo::three src; borg delete repo::one; borg prune --keep-last 5 repo; borg check repo')
    const mountpoint = sandbox.mount('repo')
    sandbox.sh('cp -a src mnt/incoming/new && mv mnt/incoming/new mnt/mine')
    sandbox.unmount(mountpoint)
    const archives = JSON.parse(sandbox.borg(['list', '--json', 'repo']).stdout).archives as { name: string; id: string }[]
    t.deepEqual(readdirSync(folder), [archives.find(({ name }) => name === 'mine')!.id])
    const again = sandbox.mount('repo')
    t.is(sandbox.sh('cat d3/f3 d9/hard; stat -c %h d9/hard', { cwd: join(again, 'mine') }).stdout, '3 3\n1 1\n2\n')
    sandbox.sh('mv mnt/mine mnt/renamed')
    sandbox.unmount(again)
    const renamed = JSON.parse(sandbox.borg(['list', '--json', 'repo']).stdout).archives as { name: string; id: string }[]
    t.deepEqual(readdirSync(folder), [renamed.find(({ name }) => name === 'renamed')!.id])

    sandbox.borg(['delete', '--cache-only', 'repo'])
    t.throws(() => readdirSync(folder), { code: 'ENOENT' })
  } finally {
    sandbox.close()
  }
})
