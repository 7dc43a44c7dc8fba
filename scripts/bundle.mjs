// Joins the compiled modules into one file for each thread: a command that loads eighty of them spends longer on that than on its
// work. dist/src stays for the tests. The places are those where the code that starts a thread looks for it.
import { rmSync } from 'node:fs'
import { build } from 'esbuild'

rmSync('dist/bundle', { recursive: true, force: true })
await build({
  entryPoints: {
    main: 'dist/src/cli/main.js',
    background: 'dist/src/cli/background.js',
    'segment-worker': 'dist/src/engine/repository/segment-worker.js',
    'byte-worker': 'dist/src/engine/store/byte-worker.js',
    'fuse/kernel/worker': 'dist/src/fs/fuse/kernel/worker.js',
    'fuse/kernel/notices-thread': 'dist/src/fs/fuse/kernel/notices-thread.js',
  },
  outdir: 'dist/bundle',
  bundle: true,
  format: 'esm',
  platform: 'node',
  target: 'node20',
  packages: 'external',
  logLevel: 'warning',
})
