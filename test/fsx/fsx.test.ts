/**
 * Staged and live trees held against a directory of the disk: the same operations, by chance but seeded, in both, with the same results;
 * then saved and compared with what the real Borg extracts. fsx.c's head comment says more. BORGFS_FSX=OPERATIONS:SEED:COMPARE_EVERY:COMMIT_EVERY runs
 * others (COMMIT_EVERY 0: only at the end).
 */
import test from 'ava'
import { randomBytes } from 'node:crypto'
import { chmodSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { spawnSync } from 'node:child_process'
import { canMount } from '../helpers/mount.js'
import { haveBorg, isRoot, projectRoot, Sandbox } from '../helpers/sandbox.js'
import { listing, rsyncDifferences } from '../helpers/trees.js'

const haveCompiler = spawnSync('cc', ['--version'], { stdio: 'ignore' }).status === 0
const possible = canMount && haveBorg && isRoot && haveCompiler
if (!possible) console.error('SKIPPED aloud: test/fsx needs root, FUSE, the real borg and a C compiler (cc)')
const run = possible ? test.serial : test.serial.skip
const [operations = '2500', seed = '1', compareEvery = '500', commitEvery = '0'] = (process.env.BORGFS_FSX ?? '').split(':').filter(Boolean)

for (const place of ['incoming', 'live'] as const) {
  run(`${operations} operations by chance in ${place}/ do what they do on the disk, and borg extracts what they left`, t => {
    const sandbox = new Sandbox(`fsx-${place}`)
    try {
      // Other users take part.
      chmodSync(sandbox.folder, 0o755)
      const sources = join(projectRoot, 'test', 'fsx')
      sandbox.run('cc', ['-O1', '-std=gnu17', '-o', 'fsx', ...readdirSync(sources).filter(name => name.endsWith('.c')).map(name => join(sources, name))])
      const [trusted, source] = [sandbox.mkdir('trusted'), sandbox.mkdir('source')]
      for (const [index, size] of [1000, 300_000, 3_000_000, 5_500_000].entries()) writeFileSync(join(source, `f${index}`), randomBytes(size))
      sandbox.borg(['init', '-e', 'repokey', 'repo'])
      sandbox.borg(['create', '../repo::source-1', '.'], { cwd: source })
      const mountpoint = sandbox.mount('repo', { args: ['-o', 'allow_other,default_permissions'] })
      const tested = join(mountpoint, place, 'tree')
      sandbox.run('mkdir', [tested])
      const said = sandbox.run(sandbox.path('fsx'), [seed, operations, compareEvery, commitEvery, trusted, tested, source, join(mountpoint, 'source-1')],
        { timeoutMs: 300_000 + Number(operations) * 60 })
      t.regex(said.stdout, /operations/)
      sandbox.unmount(mountpoint)
      const archive = sandbox.borg(['list', '--short', '--last', '1', 'repo']).stdout.trim()
      t.regex(archive, /^tree-/)
      const out = sandbox.mkdir('out')
      sandbox.borg(['extract', '--numeric-ids', `../repo::${archive}`], { cwd: out })
      // A symlink with several names: Borg extracts one for each.
      t.is(rsyncDifferences(sandbox, trusted, out).split('\n').filter(line => !/ \.\/$|^hL/.test(line)).join('\n'), '')
      const plain = (folder: string): string => listing(sandbox, folder).replaceAll(/^l .*$/gm, '').replaceAll(/\n+/g, '\n')
      t.is(plain(out), plain(trusted))
      t.regex(sandbox.borg(['check', '--verify-data', '-v', 'repo']).stderr, /no problems found/)
    } finally {
      sandbox.close()
    }
  })
}
