import test from 'ava'
import { createSecretKey, randomBytes } from 'node:crypto'
import { readdirSync, readFileSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { FileCipher } from '../../../src/engine/crypto/file-cipher.js'
import { type BundlePlace, Bundles, maxBundledBytes } from '../../../src/fs/incoming/bundles.js'
import { Random } from '../../helpers/random.js'
import { Sandbox } from '../../helpers/sandbox.js'

for (const [how, cipher] of [['sealed', new FileCipher(createSecretKey(randomBytes(64)))], ['plain', undefined]] as const) {
  test(`small files in bundles, ${how}, are what was written to them, and again after a restart`, t => {
    const sandbox = new Sandbox('bundles')
    try {
      let bundles = new Bundles(sandbox.path('staging'), cipher)
      const random = new Random(4)
      const known: { place: BundlePlace; content: Buffer }[] = []
      for (let round = 0; round < 4000; round++) {
        const data = Buffer.alloc(1 + random.below(random.below(5) === 0 ? 60_000 : 100), 1 + random.below(255))
        const kind = random.below(10)
        const file = known[random.below(known.length)]
        if (kind < 3 || !file) known.push({ place: bundles.add(data), content: data })
        else if (kind < 8) {
          // The file written last can grow, others up to the end of their last block only.
          const last = kind < 5 ? known.at(-1)! : file
          const at = kind === 7 ? random.below(last.content.length) : last.content.length
          if (bundles.write(last.place, at, data, last.content.length)) {
            last.content = Buffer.concat([last.content, Buffer.alloc(Math.max(0, at + data.length - last.content.length))])
            data.copy(last.content, at)
          }
        } else if (kind === 8 && file.content.length > 1) file.content = file.content.subarray(0, 1 + random.below(file.content.length - 1))
        else if (kind === 9 && known.length > 40) {
          known.splice(known.indexOf(file), 1)
          bundles.release(file.place)
        }
        if (round % 500 === 499) {
          if (round % 1000 === 999) {
            bundles.closeAll()
            bundles = new Bundles(sandbox.path('staging'), cipher)
            for (const { place } of known) bundles.claim(place)
            bundles.removeOrphans()
          }
          for (const [index, { place, content }] of known.entries()) {
            const read = Buffer.alloc(content.length)
            bundles.read(place, read, 0)
            if (!read.equals(content)) return t.fail(`round ${round}: file ${index}`)
            const from = random.below(content.length)
            const part = Buffer.alloc(content.length - from)
            bundles.read(place, part, from)
            if (!part.equals(content.subarray(from))) return t.fail(`round ${round}: file ${index} from ${from}`)
            if (bundles.present(place, content.length) !== content.length) return t.fail(`round ${round}: file ${index} is not all there`)
          }
        }
      }
      for (const { place } of known) bundles.release(place)
      bundles.closeAll()
      new Bundles(sandbox.path('staging'), cipher).removeOrphans()
      t.deepEqual(readdirSync(sandbox.path('staging', 'bundles')), [])
    } finally {
      sandbox.close()
    }
  })
}

test('a file that jumps, or becomes large, does not stay in a bundle', t => {
  const sandbox = new Sandbox('bundles-limits')
  try {
    const bundles = new Bundles(sandbox.path('staging'))
    const place = bundles.add(Buffer.alloc(100, 1))
    t.false(bundles.write(place, 101, Buffer.alloc(1), 100))
    t.false(bundles.write(place, 100, Buffer.alloc(maxBundledBytes), 100))
    t.true(bundles.write(place, 100, Buffer.alloc(maxBundledBytes - 100, 2), 100))
    bundles.add(Buffer.alloc(1))
    t.false(bundles.write(place, maxBundledBytes, Buffer.alloc(1), maxBundledBytes), 'another one follows')
  } finally {
    sandbox.close()
  }
})

test('nothing of a sealed bundle can be read on disk, and what the host lost is noticed', t => {
  const sandbox = new Sandbox('bundles-sealed')
  try {
    const bundles = new Bundles(sandbox.path('staging'), new FileCipher(createSecretKey(randomBytes(64))))
    const secret = Buffer.from('a secret that nobody may see '.repeat(50))
    const place = bundles.add(secret)
    const path = join(sandbox.path('staging', 'bundles'), '1')
    t.false(readFileSync(path).includes(secret.subarray(0, 16)))
    truncateSync(path, 160)
    t.is(bundles.present(place, secret.length), 160)
    t.is(bundles.present({ ...place, bundle: 7 }, 10), 0)
  } finally {
    sandbox.close()
  }
})
