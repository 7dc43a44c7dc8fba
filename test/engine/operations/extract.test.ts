import test from 'ava'
import { statSync } from 'node:fs'
import type { ArchiveReader } from '../../../src/engine/archive/archive-reader.js'
import { ChunkList } from '../../../src/engine/archive/chunk-list.js'
import type { Item } from '../../../src/engine/archive/item.js'
import { extractArchive, type ExtractOptions } from '../../../src/engine/operations/extract.js'
import { Matcher } from '../../../src/engine/patterns/matcher.js'
import type { ChunkReader, WantedChunk } from '../../../src/engine/store/chunk-reader.js'
import { Sandbox } from '../../helpers/sandbox.js'

const dry: ExtractOptions = { matcher: new Matcher([]), stripComponents: 0, dryRun: true, sparse: false, parts: false, numericIds: true, noFlags: false, noAcls: false, noXattrs: false }

/** A reader that asks for as much ahead as it is given. */
const eager = {
  async *getMany(wanted: AsyncIterable<WantedChunk>) {
    const sizes: number[] = []
    for await (const { size } of wanted) sizes.push(size!)
    for (const size of sizes) yield Buffer.alloc(size)
  },
} as unknown as ChunkReader

function item(path: string, more: Partial<Item> = {}): Item {
  return { path: Buffer.from(path), mode: 0o100644, mtimeNs: 0n, uid: 0, gid: 0, user: undefined, group: undefined, ...more } as unknown as Item
}

test('however many items without content there are in a row, few of them wait, and all come in their order', async t => {
  const total = 20_000
  let read = 0, most = 0
  const paths: string[] = []
  const archive = {
    async *items() {
      for (; read < total; read++) {
        most = Math.max(most, read - paths.length)
        yield item(`${read}`, read % 7000 === 0 ? { chunks: ChunkList.of([{ id: Buffer.alloc(32) as never, size: 3, csize: 3 }]) } : {})
      }
    },
  } as unknown as ArchiveReader
  await extractArchive(archive, eager, '.', dry, { item: path => paths.push(path.toString()) })
  t.deepEqual(paths, Array.from({ length: total }, (_, index) => String(index)))
  t.true(most < 10_000, `${most} waited`)
})

test('of many directories those that were left are finished on the way, those around the next item at the end', async t => {
  const sandbox = new Sandbox('extract-directories')
  try {
    const paths = ['.', 'a', 'a/b', 'a/b/c', 'a/b/c1', 'a/bb', 'd', 'd/e', 'd/e/f', 'd/e/g', 'd/h'].flatMap((path, index) => [[path, 0o40700 + index] as const, [`${path}/file`, 0o100600] as const])
    const archive = {
      async *items() {
        for (const [path, mode] of paths) yield item(path, { mode, mtimeNs: 1_000_000_000_000_000_000n, uid: process.getuid!(), gid: process.getgid!(), user: null, group: null })
      },
    } as unknown as ArchiveReader
    await extractArchive(archive, eager, sandbox.folder, { ...dry, dryRun: false, maxDirectories: 4 }, {})
    for (const [path, mode] of paths) {
      const found = statSync(sandbox.path(path))
      t.is(found.mode & 0o777, mode & 0o777, path)
      t.is(found.mtimeMs, 1e12, path)
    }
  } finally {
    sandbox.close()
  }
})
