/** Chunkers against Borg's cuts; the native rolling hash against its twin in TypeScript. */
import test from 'ava'
import { createHash } from 'node:crypto'
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs'
import { buzhashTable } from '../../../src/engine/chunker/buzhash-table.js'
import { BuzhashChunker, buzhashCutsPlain, buzhashPlain, buzhashUpdatePlain } from '../../../src/engine/chunker/buzhash.js'
import type { ByteSource, Chunker } from '../../../src/engine/chunker/chunker.js'
import { FixedChunker } from '../../../src/engine/chunker/fixed.js'
import { chunkerFor, parseChunkerParams } from '../../../src/engine/chunker/params.js'
import { native } from '../../../src/engine/native.js'
import { DescriptorSource } from '../../../src/engine/operations/file-source.js'
import { fixtureJson } from '../../helpers/fixtures.js'
import { generate } from '../../helpers/generators.js'
import { Sandbox } from '../../helpers/sandbox.js'

/** Gives a few bytes at a time, so that blocks end anywhere. */
class PieceSource implements ByteSource {
  #at = 0
  constructor(readonly data: Buffer, readonly step: number) {}
  read(into: Uint8Array): Promise<number> {
    const count = Math.min(into.length, this.step, this.data.length - this.#at)
    into.set(this.data.subarray(this.#at, this.#at + count))
    this.#at += count
    return Promise.resolve(count)
  }
}

async function sizes(chunker: Chunker, source: ByteSource, whole?: Buffer): Promise<number[]> {
  const found: number[] = []
  let at = 0
  for await (const chunk of chunker.split(source)) {
    if (whole && !chunk.bytes.equals(whole.subarray(at, at + chunk.bytes.length))) throw new Error(`other bytes at ${at}`)
    at += chunk.bytes.length
    found.push(chunk.bytes.length)
    chunk.release()
  }
  return found
}

test('the table is the one of the format', t => {
  const { sha256_of_table_as_256_little_endian_uint32: sha256 } = fixtureJson<{ sha256_of_table_as_256_little_endian_uint32: string }>('vectors', 'buzhash_table.json')
  t.is(createHash('sha256').update(Buffer.from(buzhashTable(0).buffer)).digest('hex'), sha256)
})

test('hashes of windows are those of Borg, natively and in TypeScript', t => {
  const { hash, update } = fixtureJson<{ hash: { gen: string; gen_seed: number; length: number; chunk_seed: number; hash: number }[]; update: { gen: string; gen_seed: number; window: number; chunk_seed: number; hash_of_bytes_0_to_window: number; hash_of_bytes_1_to_window_plus_1: number }[] }>('vectors', 'chunker-buzhash-values.json')
  for (const vector of hash) {
    const table = buzhashTable(vector.chunk_seed)
    const data = generate(vector.gen, vector.gen_seed, vector.length)
    t.is(native().buzhash(table, data), vector.hash)
    t.is(buzhashPlain(table, data), vector.hash)
  }
  for (const { gen, gen_seed, window, chunk_seed, hash_of_bytes_0_to_window: before, hash_of_bytes_1_to_window_plus_1: after } of update) {
    const table = buzhashTable(chunk_seed)
    const data = generate(gen, gen_seed, window + 1)
    t.is(native().buzhash(table, data.subarray(0, window)), before)
    t.is(native().buzhashUpdate(table, before, data[0]!, data[window]!, window), after)
    t.is(buzhashUpdatePlain(table, before, data[0]!, data[window]!, window), after)
  }
})

test('cuts are those of Borg, at once, in blocks, and in TypeScript', async t => {
  const { vectors } = fixtureJson<{ vectors: { gen: string; gen_seed: number; length: number; params: [number, number, number, number]; chunk_seed: number; chunk_sizes: number[] }[] }>('vectors', 'chunker-buzhash-cuts.json')
  for (const { gen, gen_seed, length, params, chunk_seed, chunk_sizes } of vectors) {
    const [min, max, bits, window] = params
    const data = generate(gen, gen_seed, length)
    const table = buzhashTable(chunk_seed)
    const what = `${gen} ${gen_seed} ${length} ${params.join()}`
    t.deepEqual([...native().buzhashCuts(table, 2 ** min, 2 ** max, 2 ** bits - 1, window, data, 0, length, true)], chunk_sizes, what)
    t.deepEqual(await sizes(new BuzhashChunker(['buzhash', ...params], chunk_seed), new PieceSource(data, 300_007), data), chunk_sizes, what)
    if (length <= 2_000_000) t.deepEqual(buzhashCutsPlain(table, 2 ** min, 2 ** max, 2 ** bits - 1, window, data), chunk_sizes, what)
  }
  t.true(vectors.length >= 44)
})

test('fixed cuts are those of Borg', async t => {
  const { vectors } = fixtureJson<{ vectors: { gen: string; gen_seed: number; length: number; block_size: number; header_size: number; chunk_sizes: number[] }[] }>('vectors', 'chunker-fixed.json')
  for (const { gen, gen_seed, length, block_size, header_size, chunk_sizes } of vectors) {
    const data = generate(gen, gen_seed, length)
    t.deepEqual(await sizes(new FixedChunker(['fixed', block_size, header_size]), new PieceSource(data, 777), data), chunk_sizes)
  }
})

test('with --sparse each data and hole range of a file is cut for itself', async t => {
  const { sparse } = fixtureJson<{ sparse: { what: string; length: number; writes: { offset: number; hex?: string }[]; map_offset_length_isdata: [number, number, number][]; block_size: number; header_size: number; sparse_option: boolean; chunks_size_and_kind: [number, number][] }[] }>('vectors', 'chunker-fixed.json')
  const sandbox = new Sandbox('sparse')
  let compared = 0
  try {
    for (const { what, length, writes, map_offset_length_isdata: map, block_size, header_size, sparse_option, chunks_size_and_kind } of sparse) {
      const fd = openSync(sandbox.path('file'), 'w+')
      ftruncateSync(fd, length)
      for (const { offset, hex } of writes) if (hex) writeSync(fd, Buffer.from(hex, 'hex'), 0, hex.length / 2, offset)
      // Only where this file system has the same holes does the vector speak of it.
      const same = map.every(([offset, size, isData]) => (isData ? native().seekHole(fd, offset, 3) === offset : [offset + size, -1].includes(native().seekHole(fd, offset, 3))))
      if (same) {
        native().seekHole(fd, 0, 0)
        t.deepEqual(await sizes(new FixedChunker(['fixed', block_size, header_size], { sparse: sparse_option }), new DescriptorSource(fd)), chunks_size_and_kind.map(([size]) => size), what)
        compared++
      }
      closeSync(fd)
    }
    if (compared === 0) t.log('SKIPPED aloud: this file system has other holes than ext4')
    t.pass()
  } finally {
    sandbox.close()
  }
})

test('option texts are read as by Borg', t => {
  const { vectors } = fixtureJson<{ vectors: { string: string; result: (string | number)[] | { error: string }; usable?: boolean }[] }>('vectors', 'chunker-params.json')
  for (const { string, result, usable } of vectors) {
    if (!Array.isArray(result)) t.throws(() => parseChunkerParams(string), undefined, string)
    else {
      const params = parseChunkerParams(string)
      t.deepEqual([...params], result, string)
      if (usable === false) t.throws(() => chunkerFor(params, 0), undefined, string)
      else t.notThrows(() => chunkerFor(params, 0), string)
    }
  }
})
