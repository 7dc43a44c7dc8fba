/** Tars of every format that GNU tar and Python write, read in pieces of any size; damaged ones end in one sentence. */
import test from 'ava'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ByteSource } from '../../../src/engine/chunker/chunker.js'
import { TarError, type TarMember, TarReader } from '../../../src/engine/tar/tar-reader.js'

const folder = mkdtempSync(join(tmpdir(), 'borgfs-tar-'))
test.after.always(() => rmSync(folder, { recursive: true, force: true }))

const made = `
import os
os.mkdir('tree'); os.chdir('tree')
def put(name, content): open(name, 'wb').write(content)
put('a', b'first'); put('blocks', bytes(range(256)) * 8); put('none', b''); put('n' * 100, b'100'); put(b'not-\\xff', b'bytes')
os.mkdir('d' * 90); put('d' * 90 + '/' + 'f' * 60, b'prefix'); put('d' * 90 + '/' + 'g' * 200, b'long')
os.symlink('a', 'link'); os.symlink('t' * 150, 'long-link'); os.link('a', 'zz'); os.mkfifo('fifo')
with open('holes', 'wb') as f:
  for n in range(40): f.seek(n * 262144); f.write(b'data %d' % n)
  f.truncate(12_000_000)
with open('hole-first', 'wb') as f: f.seek(3_000_000); f.write(b'end')
with open('all-hole', 'wb') as f: f.truncate(1_000_000)
os.utime('a', ns=(0, 1_500_000_000_123_456_789)); os.utime('none', (-2, -2)); os.chmod('a', 0o4751)
`

function run(program: string, args: readonly string[], cwd = folder): Buffer {
  const { status, stdout, stderr } = spawnSync(program, args, { cwd, maxBuffer: 1 << 28, env: { ...process.env, LC_ALL: 'C.UTF-8' } })
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${stderr.toString()}`)
  return stdout
}

test.before(() => {
  run('python3', ['-c', made])
})

/** In pieces of other sizes than those that are asked for. */
function sourceOf(bytes: Buffer, most: number): ByteSource {
  let at = 0
  return {
    read: into => {
      const count = bytes.copy(into, 0, at, Math.min(bytes.length, at + Math.min(most, into.length)))
      at += count
      return Promise.resolve(count)
    },
  }
}

async function contentOf(tar: TarReader, piece: number): Promise<Buffer> {
  const pieces: Buffer[] = []
  for (;;) {
    const into = Buffer.alloc(piece)
    const count = await tar.read(into)
    if (count === 0) return Buffer.concat(pieces)
    pieces.push(into.subarray(0, count))
  }
}

async function all(bytes: Buffer, { most = 1 << 20, piece = 1 << 16, ignoreZeros = false, read = true } = {}): Promise<{ member: TarMember; content: Buffer }[]> {
  const tar = new TarReader(sourceOf(bytes, most), { ignoreZeros })
  const found = []
  for (let member; (member = await tar.next()); ) found.push({ member, content: read ? await contentOf(tar, piece) : Buffer.alloc(0) })
  return found
}

const formats: readonly (readonly [name: string, args: readonly string[]])[] = [
  ['gnu', ['--format=gnu']], ['gnu sparse', ['--format=gnu', '-S']], ['oldgnu sparse', ['--format=oldgnu', '-S']], ['pax', ['--format=posix']],
  ...['0.0', '0.1', '1.0'].map((version): [string, string[]] => [`pax sparse ${version}`, ['--format=posix', '-S', `--sparse-version=${version}`]]),
  ['ustar', ['--format=ustar', '--exclude=' + 'd'.repeat(90) + '/' + 'g'.repeat(200), '--exclude=long-link', '--exclude=none']],
  ['v7', ['--format=v7', '--exclude=' + 'd'.repeat(90) + '/*', '--exclude=long-link', '--exclude=none', '--exclude=fifo', '--exclude=' + 'n'.repeat(100)]],
]

for (const [name, args] of formats) {
  test(`${name}: names, kinds, contents, times and owners`, async t => {
    const tar = run('tar', ['cf', '-', ...args, '-C', 'tree', '.'])
    for (const [most, piece] of [[1 << 20, 1 << 16], [777, 100_001]] as const) {
      const found = new Map((await all(tar, { most, piece })).map(({ member, content }) => [member.name.toString('latin1'), { ...member, content }]))
      const files = run('find', ['.', '-printf', '%P\\0'], join(folder, 'tree')).toString('latin1').split('\0').slice(0, -1)
      const excluded = (file: string): boolean => args.some(word => word.startsWith('--exclude=') && new RegExp(`^${word.slice(10).replace('*', '.*')}$`).test(file))
      t.deepEqual([...found.keys()].sort(), files.filter(file => !excluded(file)).map(file => (file === '' ? '.' : `./${file}`)).sort())
      for (const [path, member] of found) {
        if (member.kind !== 'file') continue
        const expected = readFileSync(Buffer.from(`${folder}/tree/${path}`, 'latin1'))
        t.true(member.content.equals(expected), path)
        t.is(member.size, expected.length)
      }
      const a = found.get('./a')!, zz = found.get('./zz')!
      const [first, further] = a.kind === 'file' ? [a, zz] : [zz, a]
      t.is(further.kind, 'hardLink')
      t.is(further.linkName.toString(), first.name.toString())
      t.is(first.mode, 0o4751)
      t.is(first.mtimeNs, name.startsWith('pax') ? 1_500_000_000_123_456_789n : 1_500_000_000_000_000_000n)
      t.is(found.get('./none')?.mtimeNs ?? -2_000_000_000n, -2_000_000_000n)
      t.is(found.get('./link')!.linkName.toString(), 'a')
      t.is(found.get('./long-link')?.linkName.length ?? 150, 150)
      t.is(first.user.toString(), name === 'v7' ? '' : run('id', ['-un']).toString().trim())
      t.is(found.get('.')!.kind, 'directory')
    }
    // Whatever is left of a member is passed over.
    t.is((await all(tar, { read: false })).length, (await all(tar)).length)
  })
}

test('what is no tar, ends too early, or lies about itself ends in a sentence; nothing else comes out', async t => {
  const tars = formats.slice(0, 7).map(([, args]) => run('tar', ['cf', '-', ...args, '-C', 'tree', '.']))
  await t.throwsAsync(all(Buffer.alloc(0)), { instanceOf: TarError, message: /empty/ })
  await t.throwsAsync(all(Buffer.alloc(1000, 'x')), { instanceOf: TarError, message: /no tar/ })
  // Nothing but the end, as `tar -T /dev/null` writes it, is a tar without members.
  t.deepEqual(await all(Buffer.alloc(10240)), [])
  // In base 256 a size can be below zero: of files, of what stands for names and pax records, and of what is of no known kind.
  for (const type of ['0', 'L', 'x', 'Z']) {
    const header = run('tar', ['cf', '-', '-C', 'tree', 'a']).subarray(0, 512)
    header.fill(0xff, 124, 135)[135] = 0xf0
    header.write(type, 156)
    header.fill(' ', 148, 156).write(`${header.reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, '0')}\0`, 148)
    await t.throwsAsync(all(Buffer.concat([header, Buffer.alloc(10240)])), { instanceOf: TarError, message: /below zero/ }, type)
  }
  const whole = await all(tars[0]!)
  let state = 12345
  const random = (below: number): number => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) % below
  for (let round = 0; round < 60; round++) {
    const tar = tars[round % tars.length]!
    const cut = random(tar.length - 10240)
    // At a boundary between members the end of a tar is just that.
    const error = await all(tar.subarray(0, cut)).then(found => (t.true(found.length <= whole.length + 1), undefined), (thrown: unknown) => thrown)
    if (error) t.true(error instanceof TarError, String(error))
    const damaged = Buffer.from(tar)
    for (let count = random(4) + 1; count > 0; count--) damaged[random(20_000)] = random(256)
    const thrown = await all(damaged).then(() => undefined, (problem: unknown) => problem)
    if (thrown) t.true(thrown instanceof TarError, String(thrown))
  }
})

test('two tars in one: the second is read with ignoreZeros only', async t => {
  const [one, other] = [run('tar', ['cf', '-', '-C', 'tree', 'a']), run('tar', ['cf', '-', '-C', 'tree', 'none'])]
  const names = async (ignoreZeros: boolean): Promise<string[]> => (await all(Buffer.concat([one, other]), { ignoreZeros })).map(({ member }) => member.name.toString())
  t.deepEqual(await names(false), ['a'])
  t.deepEqual(await names(true), ['a', 'none'])
})
