// npm run bench [-- options of bench.py]: borgfs beside the borg on the PATH, A B A B …, medians and ratios.
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const borg = spawnSync('sh', ['-c', 'command -v borg']).stdout.toString().trim()
if (!borg) {
  console.error('npm run bench compares with the real borg: install it (Debian: apt-get install borgbackup).')
  process.exit(1)
}
// Real borg mounts through a Python binding that is no part of its package. A borg that is no script brings its own.
const python = /^#!\s*(\S*python\S*)/.exec(readFileSync(borg).toString('latin1', 0, 200))?.[1]
if (python && spawnSync(python, ['-c', 'try: import pyfuse3\nexcept ImportError: import llfuse']).status !== 0) {
  console.error('The mount cases of the real borg stay empty: they need pyfuse3 or llfuse (Debian: apt-get install python3-pyfuse3, or python3-llfuse).')
}
const bin = join(tmpdir(), `borgfs-bench-bin-${process.pid}`)
mkdirSync(bin, { recursive: true })
symlinkSync(join(here, '..', '..', 'bin', 'borgfs'), join(bin, 'borgfs'))
const result = spawnSync('python3', [join(here, 'bench.py'), '--tool', `borg=${borg}`, '--tool', `borgfs=${join(bin, 'borgfs')}`, ...process.argv.slice(2)], { stdio: 'inherit' })
rmSync(bin, { recursive: true, force: true })
process.exit(result.status ?? 1)
