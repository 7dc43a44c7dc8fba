// Builds after an install. `npm install -g .` links a folder and runs nothing but this in it, so that a fresh clone has no
// dependencies yet: they are installed first, which ends in this script once more.
import { existsSync } from 'node:fs'
import { spawnSync } from 'node:child_process'

const env = { ...process.env }
// The inner npm is about this folder, whatever the outer one installs where.
for (const name of Object.keys(env)) if (/^npm_config_(global|location|prefix|local_prefix|global_prefix|omit|include|production)$/i.test(name)) delete env[name]

const installed = existsSync('node_modules/typescript') && existsSync('node_modules/esbuild')
const words = installed ? ['run', '--silent', 'build'] : ['ci', '--no-audit', '--no-fund']
const result = spawnSync('npm', words, { stdio: 'inherit', env })
if (result.error) console.error(`npm could not be run: ${result.error.message}`)
process.exit(result.status ?? 1)
