/** derivation.ts: what was begun early is what is taken, and nothing else. */
import test from 'ava'
import { pbkdf2Sync } from 'node:crypto'
import { Derivation } from '../../../src/engine/crypto/derivation.js'

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
