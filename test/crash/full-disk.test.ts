/** Disks that are really full: small file systems for the repository, the cache, and both. */
import test from 'ava'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { World } from '../helpers/faults.js'
import { canMount } from '../helpers/mount.js'
import { eventually, haveBorg, isRoot, Sandbox } from '../helpers/sandbox.js'

const run = isRoot ? test : test.skip
if (!isRoot) console.error('SKIPPED aloud: test/crash/full-disk mounts small file systems as root')

/** Runs `work` with a file system of so many bytes at `folder`. */
async function withDisk(sandbox: Sandbox, folder: string, size: string, work: () => Promise<void>): Promise<void> {
  sandbox.sh(`mkdir -p ${folder}; mount -t tmpfs -o size=${size} tmpfs ${folder}`)
  sandbox.remember(folder)
  try {
    await work()
  } finally {
    sandbox.sh(`umount -l ${folder}`, { ok: 'any' })
  }
}

for (const mode of ['none', 'repokey']) {
  run(`${mode}: create on a full disk says so, gives the space back, and can be repeated when there is room`, async t => {
    const sandbox = new Sandbox('full-create')
    const world = new World(sandbox)
    try {
      await withDisk(sandbox, world.repository, '6M', async () => {
        sandbox.sh('mkdir old new; head -c 300000 /dev/urandom > old/a; for i in $(seq 12); do head -c 900000 /dev/urandom > new/$i; done')
        world.borgfs(['init', '-e', mode, 'world/repo'])
        world.borgfs(['config', 'world/repo', 'max_segment_size', '200000'])
        // Borg wants room for a whole segment of the largest entry at a commit, where much can be compacted; here nothing can.
        world.borgfs(['create', 'world/repo::old', 'old'])
        const before = await world.audit()
        const used = () => Number(sandbox.sh(`df --output=used -B1 ${world.repository} | tail -n 1`).stdout)
        const usedBefore = used()
        for (let attempt = 0; attempt < 2; attempt++) {
          const ran = world.borgfs(['create', 'world/repo::new', 'new'], { ok: 'any' })
          t.true(ran.rc === 2 || ran.rc === 14, `rc ${ran.rc}`)
          t.regex(ran.stderr, /No space left on device|Insufficient free space/)
          t.notRegex(ran.stderr, /\n\s+at /)
          t.true(used() - usedBefore < 300_000, `${used() - usedBefore} bytes more are used`)
          const audit = await world.audit()
          t.deepEqual([...audit.archives], [...before.archives])
          t.deepEqual(audit.problems, [])
        }
        // What deletes must not need much room.
        sandbox.sh(`mount -o remount,size=40M ${world.repository}`)
        world.borgfs(['create', 'world/repo::new', 'new'])
        const after = await world.audit()
        t.deepEqual(after.problems, [])
        t.deepEqual([...after.archives.keys()].sort(), ['new', 'old'])
        if (haveBorg) t.is(world.borgCheck(), undefined)
      })
    } finally {
      sandbox.close()
    }
  })
}

run('a full cache costs time, not the backup', async t => {
  const sandbox = new Sandbox('full-cache')
  const world = new World(sandbox)
  try {
    const cache = join(world.root, 'home/.cache')
    await withDisk(sandbox, cache, '200k', async () => {
      sandbox.sh('mkdir source; for i in $(seq 600); do echo $i > source/a-file-with-a-rather-long-name-$i; done')
      world.borgfs(['init', '-e', 'repokey', 'world/repo'])
      world.borgfs(['create', 'world/repo::one', 'source'])
      sandbox.sh('for i in $(seq 600); do echo $i > source/b-file-with-a-rather-long-name-$i; done')
      for (const name of ['two', 'three']) {
        sandbox.sh(`mkdir -p ${cache}/borg; head -c 1000000 /dev/zero > ${cache}/borg/ballast || true; truncate -s -20000 ${cache}/borg/ballast`)
        const ran = world.borgfs(['create', `world/repo::${name}`, 'source'], { ok: 'any' })
        t.is(ran.rc, 0, ran.stderr)
        t.regex(ran.stderr, /The cache .* could not be saved: .*ENOSPC/)
      }
      sandbox.sh(`rm ${cache}/borg/ballast; mount -o remount,size=10M ${cache}`)
      t.is(world.borgfs(['create', 'world/repo::four', 'source']).stderr, '')
      const audit = await world.audit()
      t.deepEqual(audit.problems, [])
      t.is(audit.archives.size, 4)
    })
  } finally {
    sandbox.close()
  }
})

const runMounted = isRoot && canMount ? test : test.skip

runMounted('a full staging folder: what was answered is there after kill -9, and saving makes room', async t => {
  const sandbox = new Sandbox('full-staging')
  try {
    await withDisk(sandbox, sandbox.path('stage'), '12M', async () => {
      sandbox.borgfs(['init', '-e', 'repokey', 'repo'])
      const mount = (): string => sandbox.mount('repo', { args: ['-o', `settle=3600,staging=${sandbox.path('stage', 'staged')}`] })
      mount()
      sandbox.sh('mkdir mnt/incoming/t; echo first > mnt/incoming/t/first')
      await eventually('room is kept', () => existsSync(sandbox.path('stage', 'staged', 'room')))
      const told = sandbox.run('python3', ['-c', filler]).stdout
      t.regex(told, /^ENOSPC( ENOSPC)*\n$/)
      const listed = (): string => sandbox.sh('cd mnt/incoming/t; find . -printf "%p %s %m\\n" | sort; find . -type f | sort | xargs md5sum').stdout
      const before = listed()
      await sandbox.killMount()
      sandbox.sh('dd if=/dev/zero of=stage/rest bs=4k 2>/dev/null || true')
      mount()
      t.is(listed(), before)
      // What removes is let through, and what saves.
      sandbox.sh('rm mnt/incoming/t/d0/f1; mv mnt/incoming/t mnt/saved')
      t.is(sandbox.sh('cat mnt/saved/first').stdout, 'first\n')
      // The room comes when the journal is durable.
      sandbox.sh('rm stage/rest; mkdir mnt/incoming/u; until head -c 2M /dev/urandom > mnt/incoming/u/f; do sleep 0.2; done')
      t.is(sandbox.unmount(sandbox.path('mnt')).rc, 0)
      t.notRegex(sandbox.sh('cat home/.cache/borg/*/mount.log').stdout, /\n\s+at /)
    })
  } finally {
    sandbox.close()
  }
})

/** Folders, files and attributes until nothing of all that can be made any more. */
const filler = String.raw`
import errno, os
top, told = 'mnt/incoming/t', set()
for folder in range(400):
    for work in (
        lambda: os.mkdir(f'{top}/d{folder}'), *(lambda n=n: open(f'{top}/d{folder}/f{n}', 'wb').write(os.urandom(n * 20000)) for n in range(5)),
        lambda: os.setxattr(f'{top}/first', f'user.n{folder}', os.urandom(900)), lambda: os.chmod(f'{top}/first', 0o600 + folder % 64), lambda: os.symlink('x' * 1000, f'{top}/s{folder}'),
    ):
        try: work()
        except FileNotFoundError: pass
        except OSError as error: told.add(errno.errorcode[error.errno])
print(*told)
`
