import test from 'ava'
import { createSecretKey, randomBytes } from 'node:crypto'
import { readdirSync, readFileSync, statSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { FileCipher } from '../../../src/engine/crypto/file-cipher.js'
import { type BundlePlace, Bundles, maxBundledBytes } from '../../../src/fs/incoming/bundles.js'
import { files, replaceFiles } from '../../../src/engine/platform/files.js'
import { fillDisk } from '../../helpers/full-disk.js'
import { Random } from '../../helpers/random.js'
import { Sandbox } from '../../helpers/sandbox.js'

const secret = new FileCipher(createSecretKey(randomBytes(64)))
for (const [how, cipher, putsOff] of [['sealed', secret, false], ['plain', undefined, false], ['sealed and put off', secret, true], ['plain and put off', undefined, true]] as const) {
  test(`small files in bundles, ${how}, are what was written to them, and again after a restart`, t => {
    const sandbox = new Sandbox('bundles')
    try {
      let bundles = new Bundles(sandbox.path('staging'), cipher)
      bundles.putsOff = putsOff
      const random = new Random(4)
      /** Two files at once, which somebody else put into the memory. */
      const arrive = (data: Buffer): void => {
        const { data: memory, start, room, place } = bundles.lend()!
        t.true(room >= 65_536)
        const second = Math.ceil(data.length / 16) * 16
        memory.fill(data[0]! ^ 1, start, start + second + 20)
        data.copy(memory, start)
        bundles.arrived(second + 20, 2)
        known.push({ place, content: data }, { place: { ...place, start: place.start + second }, content: Buffer.alloc(20, data[0]! ^ 1) })
      }
      const known: { place: BundlePlace; content: Buffer }[] = []
      for (let round = 0; round < 4000; round++) {
        const data = Buffer.alloc(1 + random.below(random.below(5) === 0 ? 60_000 : 100), 1 + random.below(255))
        const kind = random.below(10)
        const file = known[random.below(known.length)]
        if (putsOff && kind === 0) arrive(data)
        else if (kind < 3 || !file) known.push({ place: bundles.add(data), content: data })
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
        if (random.below(60) === 0) bundles.catchUp()
        if (round % 500 === 499) {
          if (round % 1000 === 999) {
            bundles.catchUp()
            t.false(bundles.isBehind)
            bundles.closeAll()
            bundles = new Bundles(sandbox.path('staging'), cipher)
            bundles.putsOff = putsOff
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
            if (!bundles.isBehind && bundles.present(place, content.length) !== content.length) return t.fail(`round ${round}: file ${index} is not all there`)
          }
        }
      }
      bundles.catchUp()
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

test('what is put off waits in memory while the host refuses it, and is written then', t => {
  const sandbox = new Sandbox('bundles-put-off')
  const before = files
  try {
    const bundles = new Bundles(sandbox.path('staging'))
    bundles.putsOff = true
    const places = [Buffer.from('first'), Buffer.from('second')].map(data => bundles.add(data))
    const written = (): string => readFileSync(bundles.path(places[0]!.bundle)).toString('latin1')
    t.is(written(), '')
    const whole = fillDisk()
    t.throws(() => bundles.catchUp(), { code: 'ENOSPC' })
    replaceFiles(whole)
    t.true(bundles.isBehind)
    const read = Buffer.alloc(6)
    bundles.read(places[1]!, read, 0)
    t.is(read.toString(), 'second')
    bundles.catchUp()
    t.is(written(), `first${'\0'.repeat(11)}second${'\0'.repeat(10)}`)
    // Room that is not used goes back.
    const allocated = (): number => statSync(bundles.path(places[0]!.bundle)).blocks * 512
    t.true(allocated() > 500_000)
    bundles.tick(10)
    bundles.tick(500)
    t.true(allocated() > 500_000)
    bundles.tick(2000)
    t.true(allocated() < 50_000)
    // What nobody wants any more is not written.
    bundles.add(Buffer.from('third'))
    for (let left = 3; left > 0; left--) bundles.release(places[0]!)
    t.false(bundles.isBehind)
    t.deepEqual(readdirSync(sandbox.path('staging', 'bundles')), [])
    t.not(bundles.lend(), undefined)
    t.is(readdirSync(sandbox.path('staging', 'bundles')).length, 1)
    bundles.tick(3000)
    bundles.tick(5000)
    t.deepEqual(readdirSync(sandbox.path('staging', 'bundles')), [])
  } finally {
    replaceFiles(before)
    sandbox.close()
  }
})
