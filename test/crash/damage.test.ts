/**
 * Bits turned and ends cut off in every file of a repository: what is read then is what was stored, or an error, never anything
 * else. By the paths that list, extract and the drive use (worker threads, runs of entries). What `check` says is tested with it.
 */
import test, { type ExecutionContext } from 'ava'
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ArchiveReader } from '../../src/engine/archive/archive-reader.js'
import { BorgError } from '../../src/engine/errors.js'
import { errnoOf } from '../../src/engine/errors.js'
import { ChunkReader, type WantedChunk } from '../../src/engine/store/chunk-reader.js'
import { Workers } from '../../src/engine/store/workers.js'
import { openForAudit } from '../helpers/audit.js'
import { randomOf } from '../helpers/disk-model.js'
import { everything, World } from '../helpers/faults.js'
import { canMount } from '../helpers/mount.js'
import { Sandbox } from '../helpers/sandbox.js'

/** Archives one and two, read by another client so that only its own home would know of a rollback. */
function setUp(world: World, mode: string): void {
  world.sandbox.sh("mkdir source; cd source; seq 2000 > numbers; echo hello > hello; head -c 9000 /dev/zero | tr '\\0' z > zs; echo more > more; ln -s hello link")
  world.borgfs(['init', '-e', mode, 'world/repo'])
  world.borgfs(['create', '--chunker-params', 'fixed,4096', 'world/repo::one', 'source'])
  world.sandbox.sh('cd source; seq 3000 > numbers; echo changed > hello')
  world.borgfs(['create', '--chunker-params', 'fixed,4096', 'world/repo::two', 'source'])
}

class Reader {
  readonly #world: World
  #workers: Workers | undefined

  constructor(world: World) {
    this.#world = world
  }

  /** Digest of both archives, items and contents. Throws what a command would. */
  async read(): Promise<string> {
    const opened = await openForAudit(this.#world.repository, this.#world.sandbox.env(this.#world.env))
    const { repository, manifest, objects, key } = opened
    this.#workers ??= new Workers({ key })
    const reader = new ChunkReader(repository, this.#workers)
    const hash = createHash('sha256')
    try {
      for (const info of manifest.sorted()) {
        const archive = await ArchiveReader.open(info, repository, objects)
        hash.update(`${info.name} ${info.time}\n`)
        const wanted: WantedChunk[] = []
        for await (const item of archive.items({ reader })) {
          hash.update(`${item.path.toString('latin1')} ${item.mode} ${item.mtimeNs} ${item.uid} ${item.source?.toString('latin1') ?? ''}\n`)
          for (let index = 0; index < (item.chunks?.length ?? 0); index++) wanted.push({ id: item.chunks!.id(index), size: item.chunks!.size(index) })
        }
        for await (const plain of reader.getMany(wanted)) hash.update(plain)
      }
    } finally {
      await repository.close()
    }
    return hash.digest('hex')
  }

  async close(): Promise<void> {
    await this.#workers?.close()
  }
}

interface Tally {
  harmless: number
  refused: number
}

/** Each damage of a file in turn; the file is as before in the end. */
async function damageEach(t: ExecutionContext, world: World, reader: Reader, file: string, expected: string, flips: number, cuts: number): Promise<Tally> {
  const path = join(world.repository, file)
  const good = readFileSync(path)
  const random = randomOf(good.length)
  const tally = { harmless: 0, refused: 0 }
  const attempt = async (bytes: Buffer, what: string): Promise<void> => {
    writeFileSync(path, bytes)
    try {
      t.is(await reader.read(), expected, `${file}: ${what}: wrong data`)
      tally.harmless++
    } catch (error) {
      tally.refused++
      t.true(error instanceof BorgError || errnoOf(error) !== undefined, `${file}: ${what}: ${error instanceof Error ? error.stack : String(error)}`)
    }
    writeFileSync(path, good)
  }
  const places = everything ? Array.from({ length: good.length }, (_, index) => index) : Array.from({ length: Math.min(flips, good.length) }, () => Math.floor(random() * good.length))
  for (const at of places) {
    const bytes = Buffer.from(good)
    const bit = Math.floor(random() * 8)
    bytes[at]! ^= 1 << bit
    await attempt(bytes, `bit ${bit} of byte ${at}`)
  }
  const ends = everything ? Array.from({ length: good.length }, (_, index) => index) : [0, good.length - 1, ...Array.from({ length: cuts }, () => Math.floor(random() * good.length))].filter(end => end >= 0)
  for (const end of ends) await attempt(good.subarray(0, end), `cut at ${end}`)
  await attempt(Buffer.concat([good, Buffer.from('garbage')]), 'garbage behind')
  return tally
}

function filesOf(world: World): string[] {
  return readdirSync(world.repository, { recursive: true }).map(String).filter(name => statSync(join(world.repository, name)).isFile())
}

for (const mode of ['none', 'repokey']) {
  test(`${mode}: damage in any file of a repository is refused or harmless, with and without the digests of the index`, async t => {
    const sandbox = new Sandbox('damage')
    const world = new World(sandbox)
    const reader = new Reader(world)
    try {
      setUp(world, mode)
      const expected = await reader.read()
      const tallies: Record<string, Tally> = {}
      const note = (name: string, { harmless, refused }: Tally): void => {
        const tally = tallies[name] ??= { harmless: 0, refused: 0 }
        tally.harmless += harmless
        tally.refused += refused
      }
      for (const file of filesOf(world)) {
        const kind = file.startsWith('data/') ? 'segments' : file.replace(/\.\d+$/, '')
        note(kind, await damageEach(t, world, reader, file, expected, kind === 'segments' ? 12 : 10, 2))
      }
      t.log(JSON.stringify(tallies))
      // What is harmless: manifests and DELETEs of former transactions, checksums that MACs and ids make good for.
      t.true(tallies.segments!.refused > 30, 'live data was hit')
      t.is(tallies.index!.refused, 0, 'an index is made anew from the segments')
      // Then nothing but the index itself can tell.
      for (const name of filesOf(world)) if (name.startsWith('integrity.')) rmSync(join(world.repository, name))
      for (const file of filesOf(world)) if (/^index\./.test(file)) note('index without integrity', await damageEach(t, world, reader, file, expected, 40, 3))
      t.log(JSON.stringify(tallies))
    } finally {
      await reader.close()
      sandbox.close()
    }
  })
}

test('a command that meets damage says so in one sentence, and extracts nothing wrong', t => {
  const sandbox = new Sandbox('damage-cli')
  const world = new World(sandbox)
  try {
    setUp(world, 'repokey')
    const good = world.snapshot()
    const original = readFileSync(sandbox.path('source/numbers'))
    const segments = filesOf(world).filter(name => name.startsWith('data/')).sort((a, b) => statSync(join(world.repository, b)).size - statSync(join(world.repository, a)).size)
    for (const [index, file] of segments.slice(0, 3).entries()) {
      const bytes = readFileSync(join(world.repository, file))
      bytes[Math.floor(bytes.length / 2)]! ^= 0x10
      writeFileSync(join(world.repository, file), bytes)
      const out = sandbox.mkdir(`out-${index}`)
      for (const args of [['list', '../world/repo'], ['list', '../world/repo::two'], ['info', '../world/repo::two'], ['extract', '../world/repo::two']]) {
        const ran = world.borgfs(args, { cwd: out, ok: 'any' })
        t.notRegex(ran.stderr, /\n\s+at |Local Exception/, `${file}: ${args.join(' ')}`)
        if (ran.rc !== 0) t.regex(ran.stderr, /integrity|damaged|corrupt|not found/i, `${file}: ${args.join(' ')}: rc ${ran.rc}`)
      }
      // A file is there whole, or cut off or with a hole where the damage was, which the exit code told; never with other bytes.
      const extracted = join(out, 'source/numbers')
      if (existsSync(extracted)) {
        const found = readFileSync(extracted)
        for (let at = 0; at < found.length; at++) if (found[at] !== original[at] && found[at] !== 0) return t.fail(`${file}: byte ${at} is wrong`)
      }
      world.restore(good)
    }
    // Nonces: a damaged file is refused or made good for by the other copy; never used again.
    for (const content of ['', 'xyz', '0000000000000000', 'ffffffffffffffff']) {
      writeFileSync(join(world.repository, 'nonce'), content)
      const ran = world.borgfs(['create', 'world/repo::three', 'source'], { ok: 'any' })
      t.notRegex(ran.stderr, /\n\s+at |Local Exception/, `nonce "${content}"`)
      if (ran.rc !== 0) t.regex(ran.stderr, /nonce/, `nonce "${content}"`)
      world.restore(good)
    }
  } finally {
    sandbox.close()
  }
})

const mounted = canMount ? test : test.skip
if (!canMount) console.error('SKIPPED aloud: one case of test/crash/damage needs to mount')

mounted('the drive answers EIO for what is damaged and goes on with the rest', t => {
  const sandbox = new Sandbox('damage-drive')
  const world = new World(sandbox)
  try {
    setUp(world, 'none')
    const file = filesOf(world).filter(name => name.startsWith('data/')).find(name => readFileSync(join(world.repository, name)).includes('changed'))!
    const bytes = readFileSync(join(world.repository, file))
    bytes[bytes.indexOf('changed')]! ^= 1
    writeFileSync(join(world.repository, file), bytes)
    const mountpoint = sandbox.mount('world/repo', { env: world.env })
    const read = sandbox.run('python3', ['-c', `
import errno
for name in ['hello', 'numbers', 'more']:
    try: print(name, len(open('${mountpoint}/two/source/' + name, 'rb').read()))
    except OSError as e: print(name, errno.errorcode[e.errno])
`])
    t.is(read.stdout, `hello EIO\nnumbers ${statSync(sandbox.path('source/numbers')).size}\nmore 5\n`)
    sandbox.unmount(mountpoint)
  } finally {
    sandbox.close()
  }
})
