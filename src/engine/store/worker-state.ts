/** What a byte worker was told once: key, codec, index. */
import { letGoShared } from '../shared-garbage.js'
import type { Codec } from '../codec/codec.js'
import { parseCompression } from '../codec/spec.js'
import type { Key } from '../crypto/key.js'
import { keyFromMaterial } from '../crypto/keys.js'
import { SharedTableReader } from '../hashindex/shared-table-reader.js'
import type { WorkerSetup } from './jobs.js'
import { PlainMemory } from './plain-memory.js'
import { ProvenObjects } from './proven-objects.js'

/** Memory that one job after the other uses. */
export class JobMemory {
  /** What entries are decompressed to. */
  readonly plains = new PlainMemory()
  /** Entries as read, and what they are decrypted to, in place. */
  readonly #runs: Buffer[] = Array.from({ length: maxRuns }, () => Buffer.alloc(0))
  /** The payload of an entry that is opened alone. */
  #payload: Buffer = Buffer.alloc(0)
  /** Contents of the files of a job. */
  #files = Buffer.alloc(0)
  /** Those that no job uses. */
  readonly #gatherings: Gathering[] = []

  /** At least `length` bytes, until the next call with the same `place`, which is below maxRuns. */
  run(length: number, place = 0): Buffer {
    return (this.#runs[place] = atLeast(this.#runs[place]!, length))
  }

  /** Until the next call. */
  payload(length: number): Buffer {
    return (this.#payload = atLeast(this.#payload, length))
  }

  files(length: number): Buffer {
    if (this.#files.length < length) this.#files = Buffer.allocUnsafeSlow(Math.max(1 << 20, length))
    return this.#files
  }

  /** Keeps nothing for further jobs. Not while one runs. */
  drop(): void {
    this.#runs.fill(Buffer.alloc(0))
    this.#payload = this.#files = Buffer.alloc(0)
    this.#gatherings.length = 0
    this.plains.drop()
  }

  /** For one job, until endGathering. */
  startGathering(): Gathering {
    return this.#gatherings.pop() ?? new Gathering()
  }

  endGathering(gathering: Gathering): void {
    if (this.#gatherings.length < keptGatherings) this.#gatherings.push(gathering)
  }
}

/** Plaintexts of a job, where they go back by message. */
export class Gathering {
  #memory = Buffer.alloc(0)
  #bytes = 0

  add(plain: Buffer): void {
    const used = this.#bytes
    if (this.#memory.length < used + plain.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(maxRunBytes, used + plain.length, Math.min(2 * this.#memory.length, maxGatheredBytes)))
      this.#memory.copy(grown, 0, 0, used)
      this.#memory = grown
    }
    this.#memory.set(plain, used)
    this.#bytes += plain.length
  }

  /** All of it, in one buffer of its own that can be transferred; then it is empty. */
  take(): Uint8Array {
    const { buffer, byteOffset } = this.#memory
    const taken = new Uint8Array(buffer.slice(byteOffset, byteOffset + this.#bytes))
    this.#bytes = 0
    return taken
  }
}

function atLeast(memory: Buffer, length: number): Buffer {
  return memory.length < length ? Buffer.allocUnsafeSlow(Math.max(maxRunBytes, length)) : memory
}

/** Entries that follow each other in a file are read together up to so many bytes. */
export const maxRunBytes = 4 << 20
/** Runs that entries under way may lie in: as many long chunks are hashed side by side as it is worth. */
export const maxRuns = 4
/** Entries under way at a time: the more there are to be hashed side by side, the better; but each has a plaintext of its own. So if they are more than a few, they are no more bytes than that, stored and as plaintexts. */
export const maxUnderWay = 32, maxLongUnderWay = 4, maxUnderWayBytes = 4 << 20, maxPlainUnderWay = 16 << 20
const maxGatheredBytes = 64 << 20
const keptGatherings = 2

export interface WorkerState {
  readonly memory: JobMemory
  key: Key | undefined
  codec: Codec | undefined
  index: SharedTableReader | undefined
  /** Where objects are read again and again. */
  proven?: ProvenObjects
}

export function setUp(state: WorkerState, setup: WorkerSetup): void {
  if (setup.material) state.key = keyFromMaterial(setup.material)
  if (setup.codec) state.codec = parseCompression(setup.codec)
  if (setup.proven) state.proven = new ProvenObjects(setup.proven)
  if (!setup.index) return
  state.index?.close()
  letGoShared(setup.index.buffer?.byteLength ?? 0)
  state.index = new SharedTableReader(setup.index)
}
