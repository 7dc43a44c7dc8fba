// npm run fuzz -- [--seconds N] [--target NAME] [--seed N] [--no-coverage]: fuzzes for as long as wanted, each target in turn. Seeds go
// up from one round to the next. A finding is kept as a file, and the exit code is 1. Needs `npm run build` before.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '60' }, target: { type: 'string' }, seed: { type: 'string' }, 'no-coverage': { type: 'boolean', default: false }, replay: { type: 'string' } },
})
const { targets } = await import('../../dist/test/fuzz/targets.js')
const { fileTargets } = await import('../../dist/test/fuzz/file-targets.js')
const { fault, fuzz } = await import('../../dist/test/fuzz/target.js')
const { Coverage } = await import('../../dist/test/fuzz/coverage.js')
const { loadIntegrity } = await import('../../dist/src/engine/repository/integrity.js')

await loadIntegrity()
const chosen = [...targets, ...fileTargets].filter(({ name }) => values.target === undefined || name.includes(values.target))
if (chosen.length === 0) throw new Error(`no target is called ${values.target}`)
if (values.replay !== undefined) {
  const { readFileSync } = await import('node:fs')
  for (const target of chosen) console.log(target.name, (await fault(target, readFileSync(values.replay))) ?? 'no fault')
  process.exit()
}

const end = Date.now() + Number(values.seconds) * 1000
let seed = Number(values.seed ?? Date.now() % 1_000_000_000)
let findings = 0
const totals = new Map()
const coverage = values['no-coverage'] ? undefined : new Coverage()
for (let round = 0; Date.now() < end; round++, seed++) {
  for (const target of chosen) {
    const left = end - Date.now()
    if (left <= 0) break
    // A fair share of what is left, and not too long: other targets want their turn.
    const { count, samples, finding } = await fuzz(target, { seed, maxCount: Infinity, maxMs: Math.min(20_000, Math.max(200, left / chosen.length)), ...(coverage ? { novelty: coverage } : {}) })
    totals.set(target.name, (totals.get(target.name) ?? 0) + count)
    if (!finding) continue
    findings++
    mkdirSync('fuzz-findings', { recursive: true })
    const path = join('fuzz-findings', `${target.name.replace(/\W+/g, '-')}-${seed}-${finding.index}`)
    writeFileSync(path, finding.input)
    console.error(`${target.name}, seed ${seed}, input ${finding.index} of a pool of ${samples}: ${finding.what}\nkept as ${path}\n`)
  }
}
for (const [name, count] of totals) console.log(`${String(count).padStart(10)}  ${name}`)
if (coverage) console.log(`${coverage.size} ranges of code met`)
process.exit(findings > 0 ? 1 : 0)
