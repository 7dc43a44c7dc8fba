import test from 'ava'
import { loadIntegrity } from '../../src/engine/repository/integrity.js'
import { fileTargets } from './file-targets.js'
import { fuzz } from './target.js'
import { targets } from './targets.js'

// Another seed: FUZZ_SEED=7 npx ava dist/test/fuzz/fuzz.test.js; longer: npm run fuzz -- --seconds 600
const seed = Number(process.env.FUZZ_SEED ?? 1)

for (const target of [...targets, ...fileTargets]) {
  test.serial(`${target.name}: ${target.count} inputs give a value or a declared error`, async t => {
    await loadIntegrity()
    const { finding } = await fuzz(target, { seed, maxCount: target.count })
    t.is(finding && `${finding.what}\ninput ${finding.index}: ${finding.input.subarray(0, 2000).toString('base64')}`, undefined)
  })
}
