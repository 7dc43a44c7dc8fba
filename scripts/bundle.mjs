// Joins the compiled modules into one file for each thread: a command that loads eighty of them spends longer on that than on its
// work. dist/src stays for the tests. The places are those where the code that starts a thread looks for it. CommonJS is
// loaded faster than modules, and can run from prepared code.
import { spawnSync } from 'node:child_process'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import Module from 'node:module'
import { join } from 'node:path'
import { build } from 'esbuild'

const folder = 'dist/bundle'
/** The mount waits for this thread, so it begins with prepared code as well: a word in the place where it is looked for loads it. */
const fuseThread = 'fuse/kernel/worker-code'

/** Parts of Node that most commands never come to use, each a millisecond or two to load: with the first use of one of their exports. */
const seldomUsed = /^node:(?:tty|child_process|worker_threads|zlib|fs\/promises)$/
const loadLate = {
  name: 'load-late',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: seldomUsed }, ({ path, namespace }) => (namespace === 'late' ? { path, external: true } : { path, namespace: 'late' }))
    onLoad({ filter: seldomUsed, namespace: 'late' }, async ({ path }) => {
      const getters = Object.keys(await import(path)).filter(name => name !== 'default').map(name => `get ${name}() { return load().${name} },`)
      return { contents: `let loaded\nconst load = () => loaded ??= require('${path}')\nmodule.exports = {\n${getters.join('\n')}\n}`, loader: 'js' }
    })
  },
}
rmSync(folder, { recursive: true, force: true })
const common = {
  bundle: true,
  platform: 'node',
  target: 'node20',
  // Those with native parts find them by where they lie.
  external: ['fuse-native', 'lz4-napi', 'lzma-native', 'sodium-native', 'zstd-napi', 'pako', 'qr'],
  logLevel: 'warning',
}
await build({
  ...common,
  entryPoints: {
    main: 'dist/src/cli/main.js', background: 'dist/src/cli/background.js', 'byte-worker': 'dist/src/engine/store/byte-worker.js',
    'segment-worker': 'dist/src/engine/repository/segment-worker.js', 'fuse-thread': 'dist/src/fs/fuse-thread.js', [fuseThread]: 'dist/src/fs/fuse/kernel/worker.js',
    'fuse/kernel/notices-thread': 'dist/src/fs/fuse/kernel/notices-thread.js',
  },
  outdir: folder,
  format: 'cjs',
  plugins: [loadLate],
  // Prepared code has no import().
  supported: { 'dynamic-import': false },
  define: { 'import.meta.url': 'moduleUrl' },
  // Node's globals are getters, which code that runs a hundred thousand times a second should not ask each time.
  banner: { js: "const moduleUrl = require('node:url').pathToFileURL(__filename).href; const { Buffer, process } = globalThis;" },
})
writeFileSync(join(folder, 'package.json'), '{ "type": "commonjs" }\n')
// Code has nothing but ASCII by now, comments may have other letters: a text with a single one of them takes twice the memory and time.
for (const name of ['main', fuseThread]) {
  const file = join(folder, `${name}.js`)
  // This one takes a millisecond to load, and most commands never need it.
  const head = name === fuseThread ? 'const { performance } = globalThis;' : ''
  writeFileSync(file, Module.wrap(head + readFileSync(file, 'utf8').replace(/[^\x00-\x7f]/g, '?')))
}
writeFileSync(join(folder, 'fuse/kernel/worker.js'), "require('../../../../bin/code-cache.js').load(require.resolve('./worker-code.js'), 'mount')\n")
const warmed = spawnSync(process.execPath, ['scripts/warm-code.cjs'], { stdio: ['ignore', 'ignore', 'pipe'] })
// The commands that it runs speak as well; a remark of its own comes last.
if (warmed.status !== 0) console.error(warmed.stderr.toString().trim().split('\n').at(-1))
