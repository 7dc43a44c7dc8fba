// node-gyp with the headers that lie beside this node, so that nothing is downloaded where they are installed.
import { existsSync } from 'node:fs'
import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'

const prefix = join(dirname(process.execPath), '..')
const args = ['rebuild']
if (existsSync(join(prefix, 'include', 'node', 'node_api.h'))) args.push('--nodedir', prefix)
const result = spawnSync('node-gyp', args, { stdio: 'inherit' })
if (result.error) {
  console.error('node-gyp was not found: run this through npm (npm run build:native), which brings it.')
  process.exit(1)
}
process.exit(result.status ?? 1)
