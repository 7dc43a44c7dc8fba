/** Packing and opening as a byte worker does it: many at once, hashed side by side, for every kind of key. */
import test from 'ava'
import { randomBytes, randomInt } from 'node:crypto'
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { lz4 } from '../../../src/engine/codec/lz4.js'
import { parseCompression } from '../../../src/engine/codec/spec.js'
import { keyTypeOfMode } from '../../../src/engine/crypto/key-types.js'
import type { Key } from '../../../src/engine/crypto/key.js'
import { keyFromSecrets, plaintextKey } from '../../../src/engine/crypto/keys.js'
import { type OpenJob, type OpenResult, unknownSize } from '../../../src/engine/store/jobs.js'
import { open, Opener } from '../../../src/engine/store/open-job.js'
import { pack } from '../../../src/engine/store/pack-job.js'
import { PlainMemory } from '../../../src/engine/store/plain-memory.js'
import { ProvenObjects, worthProving } from '../../../src/engine/store/proven-objects.js'
import { JobMemory, maxPlainUnderWay, type WorkerState } from '../../../src/engine/store/worker-state.js'
import { Workers } from '../../../src/engine/store/workers.js'
import { Sandbox } from '../../helpers/sandbox.js'

const modes = ['repokey', 'authenticated', 'repokey-blake2', 'authenticated-blake2'] as const
const kinds: readonly { name: string; key: () => Key }[] = [{ name: 'none', key: plaintextKey }, ...modes.map(mode => ({
  name: mode,
  key: () => keyFromSecrets(keyTypeOfMode(mode), {
    encKey: randomBytes(32), encHmacKey: randomBytes(32), idKey: randomBytes(32), chunkSeed: 1, repositoryId: Buffer.alloc(32), tamRequired: true,
  }, false),
}))]

/** Short and long ones, some that shrink, some twice, so that hashes get ready in another order than they were asked for. */
function somePlaintexts(): Buffer[] {
  const plains = Array.from({ length: 40 }, (_, index) => {
    const length = [randomInt(1, 300), randomInt(1, 9000), randomInt(100_000, 900_000)][randomInt(3)]!
    return index % 3 === 0 ? Buffer.alloc(length, `line ${index} `) : randomBytes(length)
  })
  plains.splice(0, 0, randomBytes(2_000_000))
  plains.push(plains[3]!, randomBytes(1))
  return plains
}

async function packed(state: WorkerState, plains: readonly Buffer[]) {
  const output = new SharedArrayBuffer(plains.reduce((sum, { length }) => sum + length + 200, 0))
  const result = await pack(state, { kind: 'pack', job: 1, pieces: plains.map(plain => ({ memory: new Uint8Array(plain), offset: 0, length: plain.length })), nonce: 77n, output, force: false })
  return { result, bytes: Buffer.from(output) }
}

/** The job of all entries that were packed. */
function jobOf(fd: number, result: { ids: Uint8Array; lengths: Uint32Array; sizes: Uint32Array }): OpenJob {
  const stored = [...result.lengths.keys()].filter(index => result.lengths[index]! > 0)
  let at = 0
  const offsets = stored.map(index => (at += result.lengths[index]!) - result.lengths[index]!)
  return {
    kind: 'open', job: 2, fds: new Int32Array(stored.length).fill(fd), offsets: Float64Array.from(offsets), entryLengths: Uint32Array.from(stored, index => result.lengths[index]!),
    ids: new Uint8Array(Buffer.concat(stored.map(index => result.ids.subarray(index * 32, index * 32 + 32)))), sizes: Uint32Array.from(stored, index => result.sizes[index]!), checkCrc: true,
  }
}

for (const { name, key: makeKey } of kinds) {
  test.serial(`${name}: what is packed is the object of each plaintext alone, once, and opens to it wherever it is to go`, async t => {
    const sandbox = new Sandbox('byte-jobs')
    const key = makeKey()
    const state: WorkerState = { key, codec: lz4, index: undefined, memory: new JobMemory() }
    const plains = somePlaintexts()
    const { result, bytes } = await packed(state, plains)
    const path = sandbox.path('segment'), filePath = sandbox.path('file')
    writeFileSync(path, bytes)
    const fd = openSync(path, 'r'), fileFd = openSync(filePath, 'w+')
    try {
      let nonce = 77n, at = 0
      for (const [index, plain] of plains.entries()) {
        t.true(Buffer.from(result.ids.subarray(index * 32, index * 32 + 32)).equals(key.idHash(plain)))
        const twice = plains.indexOf(plain) !== index
        t.is(result.lengths[index] === 0, twice)
        if (twice) continue
        const compressed = lz4.compress(plain) as Buffer
        const payload = compressed === plain ? Buffer.concat([Buffer.alloc(2), plain]) : compressed
        t.true(bytes.subarray(at + 41, at + result.lengths[index]!).equals(key.seal(payload, nonce)), `object ${index}`)
        nonce += BigInt(Math.ceil(payload.length / 16))
        at += result.lengths[index]!
      }
      const job = jobOf(fd, result)
      const wanted = Buffer.concat(plains.filter((plain, index) => plains.indexOf(plain) === index))
      for (const sizes of [job.sizes, new Uint32Array(job.sizes.length).fill(unknownSize)]) {
        const opened = await open(state, { ...job, sizes })
        t.deepEqual(opened.failures, [])
        t.deepEqual([...opened.lengths], [...job.sizes])
        t.true(wanted.equals(opened.data))
      }
      const output = new SharedArrayBuffer(wanted.length)
      t.deepEqual((await open(state, { ...job, output })).failures, [])
      t.true(wanted.equals(Buffer.from(output)))
      let position = 0
      const positions = Float64Array.from(job.sizes, size => (position += size) - size)
      t.deepEqual((await open(state, { ...job, file: { fd: fileFd, positions, sparse: false } })).failures, [])
      t.true(wanted.equals(readFileSync(filePath)))
      const pageBytes = 65536
      const total = job.sizes.reduce((sum, size) => sum + size, 0)
      const pages = Math.ceil(total / pageBytes)
      const memory = new SharedArrayBuffer(pages * pageBytes)
      let start = 0
      const starts = Uint32Array.from(job.sizes, size => (start += size) - size)
      t.deepEqual((await open(state, { ...job, pages: { memory, numbers: Uint32Array.from({ length: pages }, (_, index) => (index + 1) % pages), starts, pageBytes } })).failures, [])
      // Page 1, 2 … 0.
      t.true(Buffer.concat([Buffer.from(memory, pageBytes), Buffer.from(memory, 0, pageBytes)]).subarray(0, wanted.length).equals(wanted))
    } finally {
      closeSync(fd)
      closeSync(fileFd)
      sandbox.close()
    }
  })

  test.serial(`${name}: damaged entries are told in their order, and the others are given`, async t => {
    const sandbox = new Sandbox('byte-jobs')
    const key = makeKey()
    const state: WorkerState = { key, codec: lz4, index: undefined, memory: new JobMemory() }
    const plains = Array.from({ length: 12 }, (_, index) => randomBytes(index % 4 === 0 ? 700_000 : 5000))
    const { result, bytes } = await packed(state, plains)
    const path = sandbox.path('segment')
    const job = { ...jobOf(0, result), checkCrc: false }
    const damaged = [0, 3, 4, 11]
    for (const index of damaged) bytes[job.offsets[index]! + job.entryLengths[index]! - 20]! ^= 1
    // An object that is authentic, under an id that is not its own.
    const swapped = 7
    job.ids.set(randomBytes(32), swapped * 32)
    bytes.set(job.ids.subarray(swapped * 32, swapped * 32 + 32), job.offsets[swapped]! + 9)
    writeFileSync(path, bytes)
    const fd = openSync(path, 'r')
    try {
      const { failures, data, lengths } = await open(state, { ...job, fds: job.fds.fill(fd) })
      t.deepEqual(failures.map(({ index }) => index), [0, 3, 4, 7, 11])
      for (const { index, message } of failures) t.regex(message, key.encrypted && index !== swapped ? /envelope checksum mismatch/ : /id verification failed/)
      t.true(Buffer.concat(plains.filter((_, index) => ![...damaged, swapped].includes(index))).equals(data))
      t.deepEqual([...lengths], plains.map(({ length }, index) => ([...damaged, swapped].includes(index) ? 0 : length)))
      // A run that cannot be read fails alone, and the next job is not disturbed by the one before.
      const short = await open(state, { ...job, offsets: job.offsets.map((offset, index) => (index === 11 ? bytes.length + 5 : offset)) })
      t.deepEqual(short.failures.map(({ index }) => index), [0, 3, 4, 7, 11])
    } finally {
      closeSync(fd)
      sandbox.close()
    }
  })
}

test.serial('an object with another MAC than its own is refused, also if it decrypts to the right plaintext', async t => {
  const sandbox = new Sandbox('byte-jobs')
  try {
    for (const { name, key: makeKey } of kinds) {
      const key = makeKey()
      if (!key.encrypted) continue
      const state: WorkerState = { key, codec: lz4, index: undefined, memory: new JobMemory() }
      // Stored as they are, long and short, and compressed. Else whoever holds the repository could try out what other contents are.
      const { result, bytes } = await packed(state, [randomBytes(300_000), randomBytes(1), Buffer.alloc(5000, 'line ')])
      const job = { ...jobOf(0, result), checkCrc: false }
      for (const offset of job.offsets) bytes[offset + 41 + 5]! ^= 1
      const path = sandbox.path('segment')
      writeFileSync(path, bytes)
      const fd = openSync(path, 'r')
      try {
        for (const sizes of [job.sizes, new Uint32Array(job.sizes.length).fill(unknownSize)]) {
          const { failures, data } = await open(state, { ...job, fds: job.fds.fill(fd), sizes })
          t.deepEqual(failures.map(({ index }) => index), [0, 1, 2], name)
          for (const { message } of failures) t.regex(message, /checksum mismatch/, name)
          t.is(data.length, 0)
        }
      } finally {
        closeSync(fd)
      }
    }
  } finally {
    sandbox.close()
  }
})

test.serial('what was proven is not hashed for its id again, by whichever worker, and nothing else is taken for it', async t => {
  const sandbox = new Sandbox('byte-jobs')
  try {
    for (const { name, key: makeKey } of kinds) {
      const key = makeKey()
      let ids = 0
      const hashing = key.hashing.bind(key)
      key.hashing = <T>() => {
        const made = hashing<T>()
        const id = made.id.bind(made)
        made.id = (plaintext, tag) => {
          ids++
          id(plaintext, tag)
        }
        return made
      }
      const proven = new ProvenObjects()
      const [state, other] = [proven, new ProvenObjects(proven.memory)].map((each): WorkerState => ({ key, codec: lz4, index: undefined, memory: new JobMemory(), proven: each }))
      // The third is too short for that; the last two are of the same lengths.
      const plains = [Buffer.alloc(worthProving, 'line '), randomBytes(900_000), randomBytes(worthProving - 1), randomBytes(200_000), randomBytes(200_000)]
      const { result, bytes } = await packed(state!, plains)
      const path = sandbox.path('segment')
      const job = { ...jobOf(0, result), checkCrc: false }
      const read = async (by: WorkerState, sizes = job.sizes): Promise<[OpenResult, number]> => {
        writeFileSync(path, bytes)
        const fd = openSync(path, 'r')
        const before = ids
        try {
          return [await open(by, { ...job, fds: job.fds.fill(fd), sizes }), ids - before]
        } finally {
          closeSync(fd)
        }
      }
      const right = async (by: WorkerState, hashed: number, sizes?: typeof job.sizes): Promise<void> => {
        const [{ failures, data }, count] = await read(by, sizes)
        t.deepEqual(failures, [], name)
        t.true(Buffer.concat(plains).equals(data), name)
        t.is(count, key.encrypted ? hashed : plains.length, name)
      }
      await right(state!, 5)
      await right(state!, 1)
      await right(other!, 1)
      // Of the first it is not known how long it is: it counts as what is stored of it.
      await right(other!, 2, new Uint32Array(job.sizes.length).fill(unknownSize))

      // An authentic object in the place of another one, both of them proven.
      const [from, to] = [job.offsets[3]! + 41, job.offsets[4]! + 41]
      const length = job.entryLengths[3]! - 41
      t.is(job.entryLengths[4], length + 41)
      const [mine, its] = [from, to].map(at => Buffer.from(bytes.subarray(at, at + length)))
      bytes.set(mine!, to)
      for (const by of [state!, other!]) {
        const [{ failures }] = await read(by)
        t.deepEqual(failures.map(({ index, message }) => [index, /id verification failed/.test(message)]), [[4, true]], name)
      }
      // One that was proven and is damaged now.
      bytes.set(its!, to)
      bytes[to + length - 1]! ^= 1
      const [{ failures }] = await read(state!)
      t.deepEqual(failures.map(({ index }) => index), [4], name)
      bytes[to + length - 1]! ^= 1
      await right(state!, 1)

      // The same plaintext, sealed anew: another object.
      const payload = Buffer.concat([Buffer.alloc(2), plains[1]!])
      bytes.set(key.seal(payload, 12345n), job.offsets[1]! + 41)
      await right(state!, 2)
      await right(state!, 1)
    }
  } finally {
    sandbox.close()
  }
})

test.serial('jobs that run together have the results of each alone, wherever their plaintexts go, also those that come meanwhile', async t => {
  const sandbox = new Sandbox('byte-jobs')
  const key = kinds[1]!.key()
  // lzma opens asynchronously: other entries are done meanwhile.
  const fds: number[] = []
  const jobs: OpenJob[] = []
  try {
    for (const [number, codec] of [lz4, parseCompression('lzma,0'), parseCompression('zstd,1'), lz4].entries()) {
      const plains = codec.name !== 'lzma' ? somePlaintexts() : Array.from({ length: 25 }, () => randomBytes(randomInt(1, 9000)))
      const { result, bytes } = await packed({ key, codec, index: undefined, memory: new JobMemory() }, plains)
      const path = sandbox.path(`segment-${number}`)
      const job = { ...jobOf(0, result), job: number, checkCrc: false }
      for (const index of [number, 20]) bytes[job.offsets[index]! + job.entryLengths[index]! - 10]! ^= 1
      writeFileSync(path, bytes)
      const fd = openSync(path, 'r')
      fds.push(fd)
      // The third goes to an output that is too small, the fourth to a file that cannot be written.
      const positions = new Float64Array(job.fds.length)
      jobs.push({ ...job, fds: job.fds.fill(fd), ...(number === 2 && { output: new SharedArrayBuffer(100_000) }), ...(number === 3 && { file: { fd, positions, sparse: false } }) })
    }
    jobs.push({ ...jobs[0]!, job: 4, keep: 'none' }, { ...jobs[0]!, job: 5, fds: new Int32Array(0) })
    const alone: OpenResult[] = []
    for (const job of jobs) alone.push(await open({ key, codec: lz4, index: undefined, memory: new JobMemory() }, job))
    t.truthy(alone[3]!.fileError)
    t.deepEqual(alone.map(({ failures }) => failures.length).filter((_, number) => number !== 3), [2, 2, 2, 2, 0])
    const state: WorkerState = { key, codec: lz4, index: undefined, memory: new JobMemory() }
    for (let round = 0; round < 2; round++) {
      const results = new Map<number, OpenResult>()
      const later = jobs.slice(2)
      const opener = new Opener(state, () => later.length > 0 && (add(later.shift()!), true))
      const add = (job: OpenJob): void => opener.add(job, result => results.set(result.job, result), error => t.fail(String(error)))
      for (const job of jobs.slice(0, 2)) add(job)
      await opener.run()
      t.is(results.size, jobs.length)
      for (const [number, expected] of alone.entries()) {
        const found = results.get(number)!
        t.deepEqual(found.fileError, expected.fileError)
        if (expected.fileError) continue
        t.true(Buffer.from(found.data).equals(expected.data), `job ${number}`)
        t.deepEqual(found.lengths, expected.lengths)
        t.deepEqual(found.failures, expected.failures)
        t.deepEqual(found.kept, expected.kept)
      }
    }
    // A job that cannot go on fails alone.
    const outcome: string[] = []
    const opener = new Opener(state)
    const pages = { memory: new SharedArrayBuffer(65536), numbers: new Uint32Array(1), starts: new Uint32Array(jobs[0]!.fds.length).fill(65000), pageBytes: 65536 }
    opener.add({ ...jobs[0]!, pages }, () => outcome.push('done'), () => outcome.push('failed'))
    opener.add(jobs[1]!, ({ data }) => outcome.push(Buffer.from(data).equals(alone[1]!.data) ? 'the same' : 'another'), () => outcome.push('failed'))
    await opener.run()
    t.deepEqual(outcome.sort(), ['failed', 'the same'])
  } finally {
    for (const fd of fds) closeSync(fd)
    sandbox.close()
  }
})

test.serial('plaintexts under way are bounded however small their objects are, and their memory is free again whatever became of them', async t => {
  const sandbox = new Sandbox('byte-jobs')
  class Counting extends PlainMemory {
    most = 0
    override take(length: number): Buffer {
      const memory = super.take(length)
      this.most = Math.max(this.most, this.taken)
      return memory
    }
  }
  for (const { key: makeKey } of kinds.slice(0, 2)) {
    const key = makeKey()
    const plains = Array.from({ length: 30 }, (_, index) => Buffer.alloc(index % 3 ? 1 << 20 : 5 << 20, `line ${index} `))
    const { result, bytes } = await packed({ key, codec: lz4, index: undefined, memory: new JobMemory() }, plains)
    const job = { ...jobOf(0, result), checkCrc: false }
    // One damaged, one under another's id.
    bytes[job.offsets[8]! + job.entryLengths[8]! - 1]! ^= 1
    job.ids.set(job.ids.subarray(0, 32), 9 * 32)
    bytes.set(job.ids.subarray(0, 32), job.offsets[9]! + 9)
    const path = sandbox.path('segment')
    writeFileSync(path, bytes)
    const fd = openSync(path, 'r')
    try {
      for (const keep of ['none', undefined] as const) {
        const memory = Object.assign(new JobMemory(), { plains: new Counting() })
        const state: WorkerState = { key, codec: lz4, index: undefined, memory }
        const { failures, data } = await open(state, { ...job, fds: job.fds.fill(fd), ...(keep && { keep }) })
        t.deepEqual(failures.map(({ index }) => index), [8, 9])
        if (!keep) t.true(Buffer.concat(plains.filter((_, index) => index !== 8 && index !== 9)).equals(data))
        t.is(memory.plains.taken, 0)
        t.true(memory.plains.most > 4 << 20 && memory.plains.most <= maxPlainUnderWay + (5 << 20), `${memory.plains.most}`)
        // Where a job cannot go on.
        const pages = { memory: new SharedArrayBuffer(65536), numbers: new Uint32Array(1), starts: new Uint32Array(job.fds.length).fill(65000), pageBytes: 65536 }
        await t.throwsAsync(open(state, { ...job, pages }))
        t.is(memory.plains.taken, 0)
      }
    } finally {
      closeSync(fd)
    }
  }
  sandbox.close()
})

test.serial('chunks that are asked for alone, many at once, come right from whichever thread opens them', async t => {
  const sandbox = new Sandbox('byte-jobs')
  const key = kinds[1]!.key()
  const plains = somePlaintexts()
  const { result, bytes } = await packed({ key, codec: lz4, index: undefined, memory: new JobMemory() }, plains)
  const path = sandbox.path('segment')
  writeFileSync(path, bytes)
  const fd = openSync(path, 'r')
  const workers = new Workers({ key, codec: lz4, count: 2 })
  try {
    workers.start()
    const { fds, offsets, entryLengths, ids, sizes } = jobOf(fd, result)
    const wanted = new Map(plains.map((plain, index) => [Buffer.from(result.ids.subarray(index * 32, index * 32 + 32)).toString('hex'), plain]))
    // The last is asked for under the id of the first.
    const idOf = (index: number): Uint8Array => ids.slice(index * 32, index * 32 + 32)
    const openAll = () => Promise.all(Array.from(fds, (_, index) => workers.open({
      fds: fds.slice(index, index + 1), offsets: offsets.slice(index, index + 1), entryLengths: entryLengths.slice(index, index + 1), sizes: sizes.slice(index, index + 1),
      ids: idOf(index === fds.length - 1 ? 0 : index), checkCrc: true,
    }, { urgent: true, alone: true })))
    const opened = await openAll()
    t.is(opened.at(-1)!.failures.length, 1)
    for (const [index, { data, failures }] of opened.slice(0, -1).entries()) {
      t.deepEqual(failures, [])
      t.true(wanted.get(Buffer.from(idOf(index)).toString('hex'))!.equals(data))
    }
    // Whatever memory the workers and this thread had for jobs, there is some for those under way and for the next ones.
    const given = workers.open({ fds, offsets, entryLengths, ids, sizes })
    t.true(workers.busy)
    workers.rest()
    const { data, failures } = await given
    t.false(workers.busy)
    t.deepEqual(failures, [])
    workers.rest()
    t.true(Buffer.from((await workers.open({ fds, offsets, entryLengths, ids, sizes })).data).equals(data))
    for (const [index, { data: again, failures: none }] of (await openAll()).slice(0, -1).entries()) {
      t.deepEqual(none, [])
      t.true(opened[index]!.data.length === again.length && Buffer.from(again).equals(opened[index]!.data))
    }
  } finally {
    await workers.close()
    closeSync(fd)
    sandbox.close()
  }
})

test.serial('jobs that wait behind a worker that dies are not forgotten', async t => {
  const workers = new Workers({ key: plaintextKey(), count: 1 })
  try {
    workers.start()
    // A worker cannot go on with a method that nobody knows.
    workers.setCodec({ ...lz4, spec: 'no such method' })
    const seal = () => workers.seal({ salt: Buffer.alloc(32), purpose: 'test', first: 0, blocks: [], output: new SharedArrayBuffer(0) })
    const jobs = await Promise.allSettled(Array.from({ length: 7 }, seal))
    t.deepEqual(jobs.map(({ status }) => status), Array<string>(7).fill('rejected'))
    t.false(workers.busy)
  } finally {
    await workers.close()
  }
})

test.serial('whoever waits for a job when the workers are closed is told, also if no worker had it yet', async t => {
  const workers = new Workers({ key: plaintextKey(), count: 1 })
  const seal = () => workers.seal({ salt: Buffer.alloc(32), purpose: 'test', first: 0, blocks: [], output: new SharedArrayBuffer(0) })
  const jobs = Promise.allSettled([...Array.from({ length: 7 }, seal), workers.unseal({ salt: Buffer.alloc(32), purpose: 'test', first: 0, blocks: [], fd: -1, position: 0, lengths: new Uint32Array(0) })])
  await workers.close()
  t.is((await jobs).length, 8)
})
