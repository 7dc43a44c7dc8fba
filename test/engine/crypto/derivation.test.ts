/** derivation.ts: what was begun early is what is taken, and nothing else. */
import test from 'ava'
import { pbkdf2Sync } from 'node:crypto'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { Derivation, deriveKey } from '../../../src/engine/crypto/derivation.js'
import { projectRoot } from '../../helpers/sandbox.js'

const input = { passphrase: Buffer.from('secret'), salt: Buffer.from('salt'), iterations: 1000 }
const expected = (passphrase: string, salt: string, iterations: number): string => pbkdf2Sync(passphrase, salt, iterations, 32, 'sha256').toString('hex')

test('the key begun is the key taken, and what was never begun is derived', async t => {
  const derivation = new Derivation()
  t.is((await derivation.take(input)).toString('hex'), expected('secret', 'salt', 1000))
  derivation.begin(input)
  t.is((await derivation.take({ ...input, passphrase: Buffer.from('secret') })).toString('hex'), expected('secret', 'salt', 1000))
})

test('a key that was begun for another passphrase, salt or number of rounds is not taken', async t => {
  const derivation = new Derivation()
  derivation.begin(input)
  t.is((await derivation.take({ ...input, passphrase: Buffer.from('other') })).toString('hex'), expected('other', 'salt', 1000))
  t.is((await derivation.take({ ...input, salt: Buffer.from('pepper') })).toString('hex'), expected('secret', 'pepper', 1000))
  t.is((await derivation.take({ ...input, iterations: 999 })).toString('hex'), expected('secret', 'salt', 999))
  t.is((await derivation.take(input)).toString('hex'), expected('secret', 'salt', 1000))
})

test('each key is taken once: whoever has it may wipe it', async t => {
  const derivation = new Derivation()
  derivation.begin(input)
  const first = await derivation.take(input)
  first.fill(0)
  t.is((await derivation.take(input)).toString('hex'), expected('secret', 'salt', 1000))
})

test('after what was begun is discarded, the key is derived anew', async t => {
  const derivation = new Derivation()
  derivation.begin(input)
  derivation.discard()
  t.is((await derivation.take(input)).toString('hex'), expected('secret', 'salt', 1000))
})

test('keys are those that Node derives, whatever the lengths of passphrase and salt', async t => {
  for (const [passphrase, salt, iterations] of [[0, 0, 1], [1, 32, 2], [63, 51, 3], [64, 52, 7], [65, 8, 2], [64, 60, 2], [31, 63, 5], [8, 64, 100], [8, 65, 3], [200, 200, 2], [12, 32, 5000]] as const) {
    const input = { passphrase: Buffer.alloc(passphrase, 'pass'), salt: Buffer.alloc(salt, 'salted'), iterations }
    t.is((await deriveKey(input)).toString('hex'), pbkdf2Sync(input.passphrase, input.salt, iterations, 32, 'sha256').toString('hex'), `${passphrase} ${salt} ${iterations}`)
  }
})

/** Threads of JavaScript that end while keys are derived for them; the process goes on. Memory that was freed is written over. */
const threadsThatEnd = String.raw`
const { Worker } = require('node:worker_threads')
const { pbkdf2 } = require(process.argv[1])
if (!pbkdf2) process.exit()
const begin = "const addon = require(require('node:worker_threads').workerData); for (let key = 0; key < 3; key++) addon.pbkdf2(Buffer.from('secret'), Buffer.from('salt'), 400000 + 200000 * key); setTimeout(() => process.exit(), 5)"
for (let thread = 0; thread < 3; thread++) new Worker(begin, { eval: true, workerData: process.argv[1] }).on('exit', () => setTimeout(() => undefined, 400))
`

test('a thread may end while keys are derived for it', t => {
  for (const script of [threadsThatEnd, "require(process.argv[1]).pbkdf2?.(Buffer.from('secret'), Buffer.from('salt'), 100000000); setTimeout(() => process.exit(), 5)"]) {
    const env = { ...process.env, MALLOC_PERTURB_: '165' }
    const ran = spawnSync(process.execPath, ['-e', script, join(projectRoot, 'build', 'Release', 'borgfs.node')], { encoding: 'utf8', timeout: 60_000, env })
    t.is(ran.status, 0, `${ran.signal} ${ran.stderr.slice(0, 2000)}`)
  }
})
