/**
 * A mount that is left alone while other clients create, rename, delete, prune and compact: it shows each archive and none that is gone,
 * and in the end holds no more descriptors, nodes or memory than what it shows needs. BORGFS_LEAK_MINUTES=N goes on for as long.
 */
import test from 'ava'
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readlinkSync, readSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { canMount } from '../helpers/mount.js'
import { eventually, haveBorg, Sandbox } from '../helpers/sandbox.js'
import { makeSmallFiles } from '../helpers/trees.js'

const run = haveBorg && canMount ? test.serial : test.serial.skip
if (!haveBorg || !canMount) console.error('SKIPPED aloud: test/interop/drive-leak needs the real borg and a mount')
const minutes = Number(process.env.BORGFS_LEAK_MINUTES ?? 0)
/** Before these, what is made once is made. */
const warmUpRounds = 3
const rounds = minutes > 0 ? Infinity : 5
const kept = 4

interface Sample {
  readonly second: number
  readonly rss: number
  /** Decoded chunks, which are part of it and bounded on their own. */
  readonly cache: number
  readonly descriptors: number
  readonly threads: number
}

interface Status {
  readonly pid: number
  readonly cache: { readonly bytes: number }
  readonly counts: { readonly archives: number; readonly staged: number; readonly open_files: number }
}

run('a mount left alone with other clients shows what there is, and holds nothing of what is gone', async t => {
  const sandbox = new Sandbox('drive-leak')
  try {
    const source = makeSmallFiles(sandbox, 'source', 80)
    sandbox.borgfs(['init', '-e', 'repokey', 'repo'])
    const mountpoint = sandbox.mount('repo', { args: ['-o', 'refresh=1'] })
    const shown = (): string[] => readdirSync(mountpoint).filter(name => name !== 'incoming' && name !== 'live' && !name.startsWith('.')).sort()
    const status = (): Status => JSON.parse(readFileSync(join(mountpoint, '.borgfs/status.json'), 'utf8')) as Status
    const { pid } = status()
    const began = Date.now()
    const sample = (): Sample => {
      const facts = readFileSync(`/proc/${pid}/status`, 'latin1')
      const number = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(facts)![1])
      return { second: Math.round((Date.now() - began) / 1000), rss: number('VmRSS') * 1024, cache: status().cache.bytes, descriptors: readdirSync(`/proc/${pid}/fd`).length, threads: number('Threads') }
    }
    /** What its descriptors are, without the repository's segments. */
    const open = (): string => readdirSync(`/proc/${pid}/fd`).flatMap(fd => {
      try {
        return readlinkSync(`/proc/${pid}/fd/${fd}`).replace(/\[\d+\]$/, '')
      } catch {
        return []
      }
    }).filter(target => !target.startsWith(sandbox.path('repo', 'data'))).sort().join('\n')
    let openEarly = ''
    const samples: Sample[] = []
    let atMs = began
    /** What takes suspiciously long, in a long run. */
    const step = (what: string): void => {
      const lastedMs = Date.now() - atMs
      if (minutes > 0 && lastedMs > 10_000) console.error(`${new Date().toISOString()} ${what}: ${lastedMs} ms`)
      atMs = Date.now()
    }
    let created = 0
    const gone = new Set<string>()
    let seen = new Set<string>()
    for (let round = 1; round <= rounds && (minutes === 0 || Date.now() - began < minutes * 60_000); round++) {
      writeFileSync(join(source, 'changing'), `round ${round}\n`.repeat(round % 5000))
      const [one, other] = round % 2 === 1 ? ['borg', 'borgfs'] as const : ['borgfs', 'borg'] as const
      // Who is locked out for a moment tries again.
      const by = (program: 'borg' | 'borgfs', args: string[]): void => {
        sandbox[program](['--lock-wait', '30', ...args], { cwd: source })
        step(`${program} ${args.join(' ')}`)
      }
      const [first, second] = [`first-2026-01-${round}`, `second-${round}`]
      by(one, ['create', `../repo::${first}`, '.'])
      await eventually('the new archive', () => existsSync(join(mountpoint, first, 'changing')))
      const fd = openSync(join(mountpoint, first, 'changing'), 'r')
      by(other, ['create', `../repo::${second}`, '.'])
      created += 2
      if (round % 3 === 0) {
        by(one, ['rename', `../repo::${second}`, `${second}-renamed`])
        gone.add(second)
      }
      if (round % 4 === 0) {
        by(other, ['delete', `../repo::${first}`])
        gone.add(first)
      }
      by(one, ['prune', '--keep-last', String(kept), '../repo'])
      if (round % 2 === 0) by(other, ['compact', '../repo'])
      const now = sandbox.archives().sort()
      await eventually(`the list of round ${round}`, () => shown().join() === now.join())
      step('the list')
      for (const name of seen) if (!now.includes(name)) gone.add(name)
      for (const name of gone) t.false(existsSync(join(mountpoint, name)), name)
      seen = new Set(now)
      // Looked into, the new as well as the old, and by other ways.
      for (const name of now) {
        t.is(readFileSync(join(mountpoint, name, 'd000/e00/f00001')).compare(readFileSync(join(source, 'd000/e00/f00001'))), 0)
        readdirSync(join(mountpoint, name), { recursive: true })
      }
      step('reading all archives')
      for (const series of readdirSync(join(mountpoint, '.borgfs/latest'))) t.true(seen.has(readlinkSync(join(mountpoint, '.borgfs/latest', series)).slice('../../'.length)), series)
      for (const view of ['latest', 'by-date', 'snapshots']) readdirSync(join(mountpoint, '.borgfs', view), { recursive: true })
      sandbox.run('diff', ['-r', '.', join(mountpoint, now.at(-1)!)], { cwd: source, ok: now.at(-1)!.includes(`-${round}`) ? [0] : [0, 1] })
      // Its archive may be gone, and even its chunks: then that is said.
      const bytes = Buffer.alloc(100)
      try {
        t.is(bytes.toString('latin1', 0, readSync(fd, bytes, 0, 100, 0)), `round ${round}\n`.repeat(round % 5000).slice(0, 100))
      } catch (error) {
        t.is((error as NodeJS.ErrnoException).code, 'EIO')
      }
      closeSync(fd)
      step('views, a comparison, a file held open')
      samples.push(sample())
      if (round === warmUpRounds) openEarly = open()
      if (minutes > 0 && round % 10 === 0) console.error(JSON.stringify({ round, created, ...samples.at(-1)!, ...status().counts }))
    }
    // The kernel forgets when it gets to it; the status is read by an open file of its own.
    await eventually('nothing is held of what is gone', () => {
      const { counts } = status()
      return counts.archives === shown().length && counts.staged === 2 && counts.open_files === 0
    }).catch(() => t.deepEqual({ archives: shown().length, staged: 2, open_files: 0 }, status().counts))
    // Segments are open while the lock is held, which is let go of after ten idle seconds.
    await eventually('the descriptors of the beginning', () => open() === openEarly).catch(() => t.is(open(), openEarly))
    // Of a long run what it settled at: V8's heaps and malloc take some hundred rounds.
    const [early, late] = [samples[minutes > 0 ? Math.floor(samples.length / 3) : warmUpRounds - 1]!, samples.at(-1)!]
    const used = ({ rss, cache }: Sample): number => rss - cache
    t.true(used(late) < used(early) + ((minutes > 0 ? 16 : 64) << 20), `RSS without the cache from ${used(early)} to ${used(late)}`)
    t.is(late.threads, early.threads)
    t.log(`${created} archives created, ${gone.size} gone; RSS ${early.rss >> 20} to ${late.rss >> 20} MiB, ${late.descriptors} descriptors, ${late.threads} threads`)
    if (minutes > 0) writeFileSync(join(sandbox.folder, '..', 'borgfs-leak.json'), JSON.stringify(samples))
    t.is(sandbox.unmount(mountpoint).rc, 0)
    t.regex(sandbox.borg(['check', '-v', 'repo']).stderr, /no problems found/)
  } finally {
    sandbox.close()
  }
})
