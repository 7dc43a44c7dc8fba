/**
 * Programs that are particular about their file system work in a staged tree as on a disk, and what they left is found again by the
 * same programs in what the real Borg extracts of the archive.
 */
import test from 'ava'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { canMount } from '../helpers/mount.js'
import { haveBorg, isRoot, Sandbox } from '../helpers/sandbox.js'
import { differencesBelow, makeEveryKind } from '../helpers/trees.js'

const missing = ['git', 'make', 'cc', 'python3', 'rsync'].filter(program => spawnSync(program, ['--version'], { stdio: 'ignore' }).error)
const possible = canMount && haveBorg && isRoot && missing.length === 0
if (!possible) console.error(`SKIPPED aloud: test/interop/drive-programs needs root, FUSE, the real borg and ${missing.join(', ') || 'nothing else'}`)
const run = possible ? test : test.skip

interface Scene {
  readonly sandbox: Sandbox
  /** A directory of a staged tree, `mnt/incoming/tree`. */
  readonly tree: string
  /** Makes the archive and unmounts; what the real Borg extracts of it. */
  save(): string
}

function within(name: string, work: (scene: Scene) => void): void {
  const sandbox = new Sandbox(`programs-${name}`)
  try {
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'settle=3600'] })
    const tree = join(mountpoint, 'incoming', 'tree')
    sandbox.run('mkdir', [tree])
    work({
      sandbox, tree,
      save() {
        sandbox.run('mv', [tree, join(mountpoint, 'saved')])
        sandbox.unmount(mountpoint)
        const out = sandbox.mkdir('out')
        sandbox.borg(['extract', '--numeric-ids', '../repo::saved'], { cwd: out })
        return out
      },
    })
  } finally {
    sandbox.close()
  }
}

const git = 'git -c user.name=n -c user.email=e@example.com -c safe.directory=* -c init.defaultBranch=main -c gc.auto=0'

run('git clones into it, commits, packs and finds nothing wrong, there and in the archive', t => {
  within('git', ({ sandbox, tree, save }) => {
    sandbox.sh(String.raw`
      mkdir origin; cd origin; ${git} init -q .
      for round in 1 2 3; do
        for i in $(seq 20); do mkdir -p d$((i % 7)); seq $((i * round)) > d$((i % 7))/f$i; done
        head -c 700000 /dev/urandom > large; ln -sfn d$round link; chmod +x d1/f1
        ${git} add -A; ${git} commit -qm "round $round"
      done`)
    sandbox.sh(String.raw`
      ${git} clone -q --no-hardlinks ../../../origin clone; cd clone
      ${git} fsck --full --strict
      test -z "$(${git} status --porcelain)"
      seq 1000 > d1/new; ${git} add -A; ${git} commit -qm more; ${git} checkout -q -b side HEAD~2; ${git} checkout -q main
      ${git} mv d2 moved; ${git} commit -qm moved; ${git} gc -q --prune=now; ${git} fsck --full --strict
      ${git} worktree add -q ../worktree HEAD~1; test -z "$(${git} status --porcelain)"`, { cwd: tree })
    const head = sandbox.sh(`${git} rev-parse HEAD`, { cwd: join(tree, 'clone') }).stdout
    const out = save()
    t.is(sandbox.sh(`${git} fsck --full --strict; ${git} status --porcelain; ${git} rev-parse HEAD`, { cwd: join(out, 'clone') }).stdout, head)
  })
})

run('make builds in it with several jobs, again only what changed, and nothing in the archive', t => {
  within('make', ({ sandbox, tree, save }) => {
    sandbox.sh(String.raw`
      for i in $(seq 5); do echo "int f$i(void) { return $i; }" > f$i.c; done
      { for i in $(seq 5); do echo "int f$i(void);"; done; echo '#include <stdio.h>'
        echo 'int main(void) { printf("%d\n", f1() + f2() + f3() + f4() + f5()); return 0; }'; } > main.c
      printf 'OBJECTS := $(patsubst %%.c,build/%%.o,$(wildcard *.c))\nprogram: $(OBJECTS)\n\tcc -o $@ $^\nbuild/%%.o: %%.c | build\n\tcc -MMD -c -o $@ $<\nbuild:\n\tmkdir $@\n-include $(wildcard build/*.d)\n' > Makefile
      make -s -j4; test "$(./program)" = 15; make -q
      echo 'int f3(void) { return 103; }' > f3.c
      test "$(make -n | grep -c ' -c ')" = 1; make -s -j4; test "$(./program)" = 115; make -q`, { cwd: tree })
    const out = save()
    t.is(sandbox.sh('make -q && ./program', { cwd: out }).stdout, '115\n')
  })
})

// Writers and a reader in processes of their own; WAL shares memory between them by a mapped file.
const database = String.raw`
import os, sqlite3, subprocess, sys
def opened():
    db = sqlite3.connect('data.db', timeout=60, isolation_level=None)
    assert db.execute('pragma journal_mode=wal').fetchone() == ('wal',)
    db.execute('pragma synchronous=full')
    return db
if len(sys.argv) > 1:
    db = opened()
    for i in range(15):
        db.execute('begin immediate')
        db.execute('insert into t select ?, ? + value, randomblob(500) from (with recursive c(value) as (select 0 union all select value + 1 from c where value < 19) select value from c)', (sys.argv[1], 20 * i))
        db.execute('update sums set n = n + 20')
        db.execute('commit')
    sys.exit()
db = opened()
db.execute('create table t (who text, i integer, data blob, primary key (who, i))')
db.execute('create table sums (n integer)')
db.execute('insert into sums values (0)')
writers = [subprocess.Popen([sys.executable, '-c', open('/proc/self/cmdline', 'rb').read().split(b'\0')[2].decode(), str(who)]) for who in range(2)]
seen = 0
while any(w.poll() is None for w in writers):
    db.execute('begin')
    n, = db.execute('select n from sums').fetchone()
    count, = db.execute('select count(*) from t').fetchone()
    db.execute('commit')
    assert n == count >= seen, (n, count, seen)
    seen = n
assert [w.returncode for w in writers] == [0, 0]
db.execute('pragma wal_checkpoint(passive)')
db.execute("insert into t values ('left in the log', 0, randomblob(300000))")
assert db.execute('pragma integrity_check').fetchone() == ('ok',)
os._exit(0)  # Not closed: the log stays.
`
const judge = `
import sqlite3
db = sqlite3.connect('data.db')
print(db.execute('pragma integrity_check').fetchone(), db.execute('select n from sums').fetchone(), db.execute('select count(*), sum(length(data)) from t').fetchone())
`

run('a database with a write-ahead log is shared by processes in it, and is whole in the archive, log and all', t => {
  within('sqlite', ({ sandbox, tree, save }) => {
    sandbox.run('python3', ['-c', database], { cwd: tree })
    sandbox.run('test', ['-s', join(tree, 'data.db-wal')])
    const out = save()
    t.is(sandbox.run('python3', ['-c', judge], { cwd: out }).stdout, "('ok',) (600,) (601, 600000)\n")
  })
})

run('rsync -aHAXS --inplace brings everything into it, and later the changes, as they are', t => {
  within('rsync', ({ sandbox, tree, save }) => {
    const source = makeEveryKind(sandbox)
    const synced = (): string => {
      sandbox.run('rsync', ['-aHAXS', '--inplace', '--numeric-ids', '--delete', `${source}/`, `${tree}/`])
      return differencesBelow(sandbox, source, tree)
    }
    t.is(synced(), '')
    sandbox.sh(String.raw`
      printf 'in the middle' | dd of=dir/several-chunks bs=1 seek=1234567 conv=notrunc status=none
      fallocate -p -o 500000 -l 700000 dir/deep/text; truncate -s 1000000 sparse; printf 'tail' >> dir/random
      rm hard1; ln dir/several-chunks 'another name'; chmod 640 dir/several-chunks; setfattr -n user.comment -v 'another note' dir/hello; setfacl -b dir/random
      rm -r empty-dir; mkdir -m 700 new-dir; mv caf* new-dir
      # rsync leaves a time alone that differs only below the second.
      touch -d '2020-02-02 02:02:02.020202020' new-dir`, { cwd: source })
    t.is(synced(), '')
    t.is(differencesBelow(sandbox, source, save()), '')
  })
})

run('rotating snapshots as rsnapshot does it, and rsync --link-dest, share files in it and in the archive', t => {
  within('snapshots', ({ sandbox, tree, save }) => {
    sandbox.sh(String.raw`
      mkdir source plain; cd source; for i in $(seq 60); do mkdir -p d$((i % 5)); head -c $((i * 1000)) /dev/urandom > d$((i % 5))/f$i; done
      cp -a . ../source-2`)
    const rotate = (target: string, source: string): void => void sandbox.sh(String.raw`
      for day in 1 2 3; do
        rm -rf daily.2; test ! -e daily.1 || mv daily.1 daily.2
        test ! -e daily.0 || cp -al daily.0 daily.1
        rsync -a --delete ${source}/ daily.0/
        rsync -aH --delete $(test $day = 1 || echo --link-dest=$PWD/linked.$((day - 1))) ${source}/ linked.$day/
        echo "day $day" > ${source}/d$day/changed; touch -d 2020-01-0$day ${source}/d$day/changed
        rm ${source}/d0/f$((day * 5)); mv ${source}/d4/f$((day * 5 + 4)) ${source}/d$day/
      done`, { cwd: target })
    rotate(sandbox.path('plain'), sandbox.path('source'))
    rotate(tree, sandbox.path('source-2'))
    // Which names are one file, and everything else about them.
    const names = (folder: string): string => sandbox.sh(String.raw`find . -type f -printf '%i %m %s %T@ %P\n' | sort -k5 | awk '{ if (!($1 in first)) first[$1] = $5; $1 = first[$1]; print }'`, { cwd: folder }).stdout
    const expected = names(sandbox.path('plain'))
    t.true(expected.split('\n').length > 300)
    t.is(names(tree), expected)
    const out = save()
    t.is(names(out), expected)
    sandbox.sh('diff -r plain out')
  })
})
