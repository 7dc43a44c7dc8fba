/**
 * Objects that were opened already, and whose plaintext had the id by which it was asked for. Who has such an object again, with its MAC verified, has that
 * ciphertext again, so that plaintext, and need not hash it for its id. Whoever holds the repository can put other objects there, but none with a MAC that was seen.
 *
 * In memory that byte workers share: one slot for an id, two words of 64 bits, each read and written at once. A slot whose words are of two writers answers no.
 */
import type { ChunkId } from '../ids.js'

const slots = 1 << 15
const slotWords = 2

/** What is shorter is hashed in less time than it would take to look. Bytes of plaintext. */
export const worthProving = 64 << 10

export class ProvenObjects {
  readonly memory: SharedArrayBuffer
  readonly #words: BigUint64Array

  /** `memory`: that of another one, which knows the same then. */
  constructor(memory = new SharedArrayBuffer(slots * slotWords * BigUint64Array.BYTES_PER_ELEMENT)) {
    this.memory = memory
    this.#words = new BigUint64Array(memory)
  }

  /** `mac`: of the object at hand, computed and found to be its own. */
  has(id: ChunkId, mac: Buffer): boolean {
    const at = slotOf(id)
    return Atomics.load(this.#words, at) === wordOf(id, mac, 0) && Atomics.load(this.#words, at + 1) === wordOf(id, mac, 1)
  }

  /** The object with this MAC has the plaintext of this id. Takes the place of another one, if need be. */
  add(id: ChunkId, mac: Buffer): void {
    const at = slotOf(id)
    Atomics.store(this.#words, at, wordOf(id, mac, 0))
    Atomics.store(this.#words, at + 1, wordOf(id, mac, 1))
  }
}

/** Ids and MACs are keyed hashes, spread evenly and nobody's choice. */
function slotOf(id: ChunkId): number {
  return (id.readUInt32LE(0) % slots) * slotWords
}

/** Together the words are 128 bits of the MAC; of the id, those that did not choose the slot. */
function wordOf(id: ChunkId, mac: Buffer, word: 0 | 1): bigint {
  return id.readBigUInt64LE(8 + 8 * word) ^ mac.readBigUInt64LE(8 * word)
}
