/** A repository of hundreds of tiny segments, whose files are scattered over all of them. */
import test from 'ava'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { haveBorg, isRoot, Sandbox } from '../helpers/sandbox.js'
import { differences } from '../helpers/trees.js'
import { Random } from '../helpers/random.js'

const run = haveBorg && isRoot ? test : test.skip
if (!haveBorg || !isRoot) console.error('SKIPPED aloud: test/interop/many-segments compares with the real borg as root')

run('extract, check, recreate and parallel reads of a mount meet no wrong segment', async t => {
  const sandbox = new Sandbox('many-segments')
  try {
    const source = sandbox.mkdir('source')
    const random = new Random(11)
    const blocks = Array.from({ length: 900 }, () => random.bytes(4096))
    // First all blocks in their order, then files of blocks from everywhere.
    writeFileSync(join(source, 'all'), Buffer.concat(blocks))
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    sandbox.borg(['config', 'repo', 'max_segment_size', '9000'])
    sandbox.borg(['create', '--chunker-params', 'fixed,4096', '-C', 'none', '../repo::all', '.'], { cwd: source })
    for (let file = 0; file < 8; file++) writeFileSync(join(source, `scattered-${file}`), Buffer.concat(Array.from({ length: 600 }, () => random.pick(blocks))))
    sandbox.borg(['create', '--chunker-params', 'fixed,4096', '-C', 'none', '../repo::a', '.'], { cwd: source })
    t.true(readdirSync(sandbox.path('repo/data/0')).length > 300)

    const out = sandbox.mkdir('out')
    sandbox.borgfs(['extract', '../repo::a'], { cwd: out })
    t.is(differences(sandbox, source, out), '')
    sandbox.borgfs(['check', '--verify-data', 'repo'])

    const mountpoint = sandbox.mount('repo')
    sandbox.sh(`for i in 0 1 2 3 4 5 6 7; do cmp mnt/a/scattered-$i source/scattered-$i & pids="\${pids:-} $!"; done; for p in $pids; do wait $p; done`)
    t.is(differences(sandbox, source, join(mountpoint, 'a')), '')
    sandbox.unmount(mountpoint)

    sandbox.borgfs(['recreate', '-C', 'zstd,1', '--recompress', 'always', 'repo'])
    sandbox.borgfs(['compact', '--threshold', '0', 'repo'])
    sandbox.borg(['check', '--verify-data', 'repo'])
    const again = sandbox.mkdir('again')
    sandbox.borgfs(['extract', '../repo::a'], { cwd: again })
    for (const name of readdirSync(source)) t.true(readFileSync(join(again, name)).equals(readFileSync(join(source, name))))
  } finally {
    sandbox.close()
  }
})
