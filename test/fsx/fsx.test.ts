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
/** Seconds. Its sockets would be gone if it were saved before. */
const untilUnmounted = 3600
const [operations = '2500', seed = '1', compareEvery = '500', commitEvery = '0'] = (process.env.BORGFS_FSX ?? '').split(':').filter(Boolean)

for (const place of ['incoming', 'live'] as const) {
  run(`${operations} operations by chance in ${place}/ do what they do on the disk, and borg extracts what they left`, async t => {
    const sandbox = new Sandbox(`fsx-${place}`)
    try {
      // Other users take part.
      chmodSync(sandbox.folder, 0o755)
      const sources = join(projectRoot, 'test', 'fsx')
      sandbox.run('cc', ['-O1', '-std=gnu17', '-o', 'fsx', ...readdirSync(sources).filter(name => name.endsWith('.c')).map(name => join(sources, name))])
      const source = sandbox.mkdir('source')
      for (const [index, size] of [1000, 300_000, 3_000_000, 5_500_000].entries()) writeFileSync(join(source, `f${index}`), randomBytes(size))
      sandbox.borg(['init', '-e', 'repokey', 'repo'])
      sandbox.borg(['create', '../repo::source-1', '.'], { cwd: source })
      const mount = (settle = 10): string => sandbox.mount('repo', { args: ['-o', `allow_other,default_permissions,settle=${settle}`] })
      const mountpoint = mount()
      const tested = join(mountpoint, place, 'tree')
      // Unsettled it is not saved: an archive has no sockets, and so what is opened from it.
      const operate = (from: string, count: number, start = 0, settled = true): void => {
        const said = sandbox.run('env', [...(settled ? [] : ['FSX_UNSETTLED=1']), sandbox.path('fsx'), String(Number(seed) + start), String(count), compareEvery, settled ? commitEvery : '0', from, tested, source, join(mountpoint, 'source-1')],
          { timeoutMs: 300_000 + Number(operations) * 60 })
        t.regex(said.stdout, /operations/)
      }
      /** Where the real Borg extracted what became of the tree. */
      const saved = (trusted: string, into: string): string => {
        sandbox.unmount(mountpoint)
        const archive = sandbox.borg(['list', '--short', '--last', '1', 'repo']).stdout.trim()
        t.regex(archive, /^tree-/)
        const out = sandbox.mkdir(into)
        sandbox.borg(['extract', '--numeric-ids', `../repo::${archive}`], { cwd: out })
        // A symlink with several names: Borg extracts one for each.
        t.is(rsyncDifferences(sandbox, trusted, out).split('\n').filter(line => !/ \.\/$|^hL/.test(line)).join('\n'), '')
        const plain = (folder: string): string => listing(sandbox, folder).replaceAll(/^l .*$/gm, '').replaceAll(/\n+/g, '\n')
        t.is(plain(out), plain(trusted))
        return out
      }
      sandbox.run('mkdir', [tested])
      const trusted = sandbox.mkdir('trusted')
      operate(trusted, Number(operations))
      let extracted = saved(trusted, 'out')
      if (place === 'live') {
        // Now over an archive; after kill -9, over the same archive what was changed.
        mount(untilUnmounted)
        operate(extracted, Math.ceil(Number(operations) / 10), 1, false)
        // Of sync -f the kernel tells no FUSE drive but by the pages that it writes.
        sandbox.run('sync', ['-f', mountpoint])
        // Twice: what was read back is written anew.
        for (let times = 0; times < 2; times++) {
          await sandbox.killMount(mountpoint)
          sandbox.borg(['break-lock', 'repo'])
          mount(untilUnmounted)
        }
        operate(extracted, Math.ceil(Number(operations) / 5), 2)
        extracted = saved(extracted, 'out2')
      }
      sandbox.assertSound()
    } finally {
      sandbox.close()
    }
  })
}
