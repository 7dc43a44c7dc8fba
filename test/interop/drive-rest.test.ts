/** A drive that is left alone after work gives back the memory that the work took, and works on as before. */
import test from 'ava'
import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { canMount } from '../helpers/mount.js'
import { eventually, haveBorg, Sandbox } from '../helpers/sandbox.js'

const run = haveBorg && canMount ? test.serial : test.serial.skip
if (!haveBorg || !canMount) console.error('SKIPPED aloud: test/interop/drive-rest needs the real borg and a mount')

run('memory that a save took is given back when the drive rests, and what comes then is saved and read as ever', async t => {
  const sandbox = new Sandbox('drive-rest')
  try {
    sandbox.borgfs(['init', '-e', 'repokey', 'repo'])
    const mountpoint = sandbox.mount('repo')
    const { pid } = JSON.parse(readFileSync(join(mountpoint, '.borgfs/status.json'), 'utf8')) as { pid: number }
    const bytes = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'latin1'))![1]) * 1024
    const before = bytes('VmRSS')
    for (const round of [1, 2]) {
      const source = sandbox.path(`data${round}`)
      writeFileSync(source, randomBytes(128 << 20))
      // By a process of its own: what others fork off this one has its open files for a moment.
      sandbox.sh(`mkdir mnt/incoming/tree${round}; cp data${round} mnt/incoming/tree${round}/data; mv mnt/incoming/tree${round} mnt/tree${round}`)
      const peak = bytes('VmHWM')
      // How much it took depends on how much was under way at a time.
      if (round === 1) await eventually(`of ${peak - before} bytes more than before some are given back`, () => bytes('VmRSS') < peak - (peak - before) / 4)
      t.true(readFileSync(join(mountpoint, `tree${round}/data`)).equals(readFileSync(source)))
    }
    sandbox.unmount(mountpoint)
    sandbox.borg(['check', '--verify-data', 'repo'])
  } finally {
    sandbox.close()
  }
})
