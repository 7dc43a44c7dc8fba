/** What a byte worker was told once: key, codec, index. */
import { letGoShared } from '../shared-garbage.js'
import type { Codec } from '../codec/codec.js'
import { parseCompression } from '../codec/spec.js'
import type { Key } from '../crypto/key.js'
import { keyFromMaterial } from '../crypto/keys.js'
import { SharedTableReader } from '../hashindex/shared-table-reader.js'
import type { WorkerSetup } from './jobs.js'

/** Memory that one job after the other uses. Jobs of one state never overlap; those of two states in one thread may. */
export class JobMemory {
  /** Entries as read, and the payloads of those in hand: for as many as may be under way. */
  readonly #runs = Array.from({ length: maxUnderWay }, () => Buffer.alloc(0))
  readonly #payloads = Array.from({ length: maxUnderWay }, () => Buffer.alloc(0))
  /** Contents of the files of a job. */
  #files = Buffer.alloc(0)
  /** Plaintexts of the job in hand, where they go back by message. */
  #gathered = Buffer.alloc(0)
  #gatheredBytes = 0

  /** At least `length` bytes, until the next call with the same `place`, which is below maxUnderWay. */
  run(length: number, place = 0): Buffer {
    return atLeast(this.#runs, place, length)
  }

  payload(length: number, place = 0): Buffer {
    return atLeast(this.#payloads, place, length)
  }

  files(length: number): Buffer {
    if (this.#files.length < length) this.#files = Buffer.allocUnsafeSlow(Math.max(1 << 20, length))
    return this.#files
  }

  /** A job that failed may have left something. */
  startGathering(): void {
    this.#gatheredBytes = 0
  }

  gather(plain: Buffer): void {
    const used = this.#gatheredBytes
    if (this.#gathered.length < used + plain.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(maxRunBytes, used + plain.length, Math.min(2 * this.#gathered.length, maxGatheredBytes)))
      this.#gathered.copy(grown, 0, 0, used)
      this.#gathered = grown
    }
    this.#gathered.set(plain, used)
    this.#gatheredBytes += plain.length
  }

  /** What was gathered, in one buffer of its own that can be transferred. */
  takeGathered(): Uint8Array {
    const { buffer, byteOffset } = this.#gathered
    return new Uint8Array(buffer.slice(byteOffset, byteOffset + this.#gatheredBytes))
  }
}

function atLeast(memory: Buffer[], place: number, length: number): Buffer {
  if (memory[place]!.length < length) memory[place] = Buffer.allocUnsafeSlow(Math.max(maxRunBytes, length))
  return memory[place]!
}

/** Entries of a job under way at a time: while the MAC or id of one is hashed, so is that of the other. */
export const maxUnderWay = 2
/** Entries that follow each other in a file are read together up to so many bytes. */
export const maxRunBytes = 4 << 20
const maxGatheredBytes = 64 << 20

export interface WorkerState {
  readonly memory: JobMemory
  key: Key | undefined
  codec: Codec | undefined
  index: SharedTableReader | undefined
}

export function setUp(state: WorkerState, setup: WorkerSetup): void {
  if (setup.material) state.key = keyFromMaterial(setup.material)
  if (setup.codec) state.codec = parseCompression(setup.codec)
  if (!setup.index) return
  state.index?.close()
  letGoShared(setup.index.buffer?.byteLength ?? 0)
  state.index = new SharedTableReader(setup.index)
}
