import test from 'ava'
import { type CachedChunk, ChunkCache } from '../../src/fs/chunk-cache.js'
import type { ChunksReply, ChunksRequest, WireError } from '../../src/fs/engine-port.js'

interface Asked {
  readonly request: ChunksRequest
  readonly done: (error: WireError | undefined, reply: ChunksReply | undefined) => void
}

function cacheOf(bytes = 1 << 20): { cache: ChunkCache; asked: Asked[] } {
  const asked: Asked[] = []
  return { cache: new ChunkCache(bytes, (request, done) => asked.push({ request, done })), asked }
}

const id = (number: number): Uint8Array => Buffer.alloc(32, number)
const reply = (...sizes: number[]): ChunksReply => ({ data: new Uint8Array(sizes.reduce((sum, size) => sum + size, 0)).fill(7), failures: [] })

test('who waits for a chunk is told also when another who waited throws', t => {
  const { cache, asked } = cacheOf()
  const told: string[] = []
  cache.request(id(1), 10, () => {
    throw new Error('a fault')
  })
  cache.request(id(1), 10, () => told.push('the same chunk'))
  cache.request(id(2), 10, () => told.push('another of the same load'))
  cache.flush()
  t.throws(() => asked[0]!.done(undefined, reply(10, 10)), { message: 'a fault' })
  t.deepEqual(told, ['the same chunk', 'another of the same load'])
  t.deepEqual(cache.loadingCounts, { short: 0, long: 0 })
  t.truthy(cache.get(id(2), 10))
})

test('a chunk that the whole cache does not hold drives nothing out', t => {
  const { cache, asked } = cacheOf(1 << 20)
  cache.request(id(1), 100_000)
  cache.flush()
  asked[0]!.done(undefined, { data: new Uint8Array(0), failures: [] })
  t.is(asked[0]!.request.pages.length, 2)
  cache.request(id(2), 1 << 30, () => {})
  cache.flush()
  t.is(asked[1]!.request.pages.length, 0)
  t.is(cache.get(id(1), 100_000)?.size, 100_000)
})

test('a chunk that comes shorter than it was said to be is an error', t => {
  const { cache, asked } = cacheOf()
  const told: (string | number | undefined)[] = []
  cache.request(id(1), 0xffffffff, (error, chunk) => told.push(error?.code ?? chunk?.size))
  cache.request(id(2), 20, (error, chunk) => told.push(error?.code ?? chunk?.size))
  cache.flush()
  asked[0]!.done(undefined, reply(10))
  asked[1]!.done(undefined, reply(10))
  t.deepEqual(told, ['EIO', 'EIO'])
})

test('a chunk that two files give different sizes is nobody\'s but that of its true size', t => {
  const { cache, asked } = cacheOf()
  const told: [number, number | string | undefined][] = []
  const want = (size: number): void => cache.request(id(1), size, (error?: WireError, chunk?: CachedChunk) => told.push([size, error?.code ?? chunk?.size]))
  want(10)
  want(200)
  cache.flush()
  t.deepEqual(asked.map(({ request }) => [...request.sizes]), [[10, 200]])
  asked[0]!.done(undefined, { ...reply(10), failures: [{ index: 1, code: 'EIO', message: 'another size' }] })
  t.deepEqual(told, [[10, 10], [200, 'EIO']])
  t.is(cache.get(id(1), 10)?.size, 10)
  // Else what lies beside it in memory would be taken for its end.
  t.is(cache.get(id(1), 200), undefined)
})
