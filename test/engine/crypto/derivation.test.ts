/** derivation.ts: what was begun early is what is taken, and nothing else. */
import test from 'ava'
import { pbkdf2Sync } from 'node:crypto'
import { Derivation, deriveKey } from '../../../src/engine/crypto/derivation.js'

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
