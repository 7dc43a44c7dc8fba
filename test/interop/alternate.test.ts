/**
 * The real borg and borgfs work in turn on one repository of each encryption mode, at random: after each operation both find
 * nothing wrong and extract every archive as it was made. `BORGFS_ALTERNATE=200` does 200 operations in each mode;
 * `BORGFS_ALTERNATE_LOG=FOLDER` writes down each one as it is done; `BORGFS_ALTERNATE_KEEP=1` leaves the repository there;
 * `BORGFS_ALTERNATE_SEED` and `BORGFS_ALTERNATE_MODES` (names, separated by commas) repeat a run that failed.
 */
import test from 'ava'
import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { Alternation, encryptionModes } from '../helpers/alternation.js'
import { haveBorgRepository } from '../helpers/borg-repository.js'
import { Sandbox } from '../helpers/sandbox.js'

const run = haveBorgRepository ? test.serial : test.serial.skip
if (!haveBorgRepository) console.error('SKIPPED aloud: test/interop/alternate needs the real borg and its Python')

const steps = Number(process.env.BORGFS_ALTERNATE ?? 10)
const firstSeed = Number(process.env.BORGFS_ALTERNATE_SEED ?? 1)
const logs = process.env.BORGFS_ALTERNATE_LOG
const chosen = process.env.BORGFS_ALTERNATE_MODES?.split(',')

for (const [index, mode] of encryptionModes.entries()) {
  if (chosen && !chosen.includes(mode)) continue
  const seed = firstSeed * 10 + index
  run(`${mode}: ${steps} operations of both programs in turn, seed ${firstSeed}`, async t => {
    t.timeout(steps * 60_000)
    const sandbox = new Sandbox(`alternate-${mode}`)
    // The caches, keys and security folders are one for both programs in half of the runs.
    const alternation = new Alternation(sandbox, mode, seed, { sharedHome: seed % 2 === 1, ...(logs && { follow: line => appendFileSync(join(logs, `${mode}-${firstSeed}.log`), `${line}\n`) }) })
    try {
      await alternation.run(steps)
      t.log([...alternation.counts].sort().map(([name, count]) => `${name} ${count}`).join(', '))
      t.pass()
    } catch (error) {
      t.fail((error as Error).message)
    } finally {
      alternation.close()
      if (!process.env.BORGFS_ALTERNATE_KEEP) sandbox.close()
    }
  })
}
